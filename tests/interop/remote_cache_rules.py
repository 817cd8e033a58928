"""The rules that hold for the cache, whatever kind of remote image it has: here NBD exports."""
import contextlib
import os
import random
import threading
import time

import harness
from protocol_rules import check, expect
from remote_cache_lab import BLOCK, FILE_HEADER, KIB, MIB, Remote, SIZE, read


def rule_a_killed_server_starts_warm_and_fetches_no_byte_twice(lab):
    remote = Remote()
    with remote.serve() as uri:
        with lab.serve_until_killed(uri) as server:
            read(server, remote, 0, 4 * MIB)
            read(server, remote, 8 * MIB - 100, 300)
            remote.wait_until_idle()
        with lab.serve_remote(uri) as server:
            lab.check_copy(server.uri, remote.contents)
        expect(set(remote.reads), {1}, "how often each block was fetched")
        with lab.serve_remote(uri) as server:
            lab.check_copy(server.uri, remote.contents)
    expect(set(remote.reads), {1}, "how often each block was fetched, the third server included")
    check(remote.bytes == SIZE, f"{remote.bytes} bytes were fetched")


def rule_servers_that_are_killed_while_they_fetch_leave_nothing_wrong(lab):
    remote = Remote()
    rng = random.Random(3)
    with remote.serve() as uri:
        for turn in range(5):
            with lab.serve_until_killed(uri) as server:
                wanted = remote.bytes + rng.randrange(3 * MIB)

                def load():
                    with contextlib.suppress(Exception):  # its server is killed
                        read(server, remote, turn * 2 * MIB, 8 * MIB)
                thread = threading.Thread(target=load)
                thread.start()
                deadline = time.monotonic() + 10
                while remote.bytes < wanted and thread.is_alive() and time.monotonic() < deadline:
                    time.sleep(0.001)
            thread.join()
        with lab.serve_remote(uri) as server:
            lab.check_copy(server.uri, remote.contents)


def rule_damage_is_fetched_again(lab):
    remote = Remote()
    with remote.serve() as uri:
        with lab.serve_remote(uri) as server:
            lab.check_copy(server.uri, remote.contents)
        expect(set(remote.reads), {1}, "how often each block was fetched")
        damaged = {"a bit": 3, "zeros": 9, "the digest": 20}
        with open(sorted(lab.files())[0], "r+b") as file:
            for what, block in damaged.items():
                place = FILE_HEADER + block * BLOCK + 123
                if what == "the digest":
                    place = 4096 + block * 16
                data = bytes(16)
                if what == "a bit":
                    file.seek(place)
                    data = bytes([file.read(1)[0] ^ 1])
                file.seek(place)
                file.write(data)
        os.truncate(sorted(lab.files())[1], FILE_HEADER + 10 * BLOCK)
        with open(sorted(lab.files())[2], "r+b") as file:
            file.write(b"no header")
        with lab.serve_remote(uri) as server:
            lab.check_copy(server.uri, remote.contents)
            check("damaged block" in server.stderr(), server.stderr())
        expect(max(remote.reads), 2, "how often a block was fetched")
        with lab.serve_remote(uri) as server:
            lab.check_copy(server.uri, remote.contents)
        expect(max(remote.reads), 2, "how often a block was fetched, once it was mended")


def rule_a_full_disk_costs_the_cache_alone(lab):
    remote = Remote()
    path = lab.path("full.sock")
    with remote.serve() as uri:
        limited = ["prlimit", f"--fsize={2 * MIB}", lab.program, "-t", "-k", path]
        with harness.start([*limited, *lab.options(uri)], path) as server:
            lab.check_copy(server.uri, remote.contents)
            expect(server.stderr().count("cannot keep what is read"), 1, server.stderr())
        with lab.serve_remote(uri) as server:
            lab.check_copy(server.uri, remote.contents)


def rule_servers_share_a_cache_and_fetch_each_block_once(lab):
    remote = Remote()
    with remote.serve() as uri, lab.serve_remote(uri) as one, lab.serve_remote(uri) as other:
        failures = []

        def load(server, start):
            try:
                read(server, remote, start, SIZE - start)
                read(server, remote, 0, start)
            except Exception as failure:
                failures.append(failure)
        threads = [threading.Thread(target=load, args=(server, start))
                   for server in (one, other) for start in (0, 4 * MIB)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expect(failures, [], "failures")
        remote.wait_until_idle()
    expect(set(remote.reads), {1}, "how often each block was fetched")


def rule_exports_of_one_server_share_what_was_fetched(lab):
    remote = Remote(size=MIB)
    with remote.serve() as uri, lab.serve("-e", "0", "--cache-dir", lab.cache,
                                          "--cache-immutable", "nbd*", "--export", f"a={uri}",
                                          "--export", f"b={uri}") as server:
        lab.check_copy(server.named_uri("a"), remote.contents)
        lab.check_copy(server.named_uri("b"), remote.contents)
    expect(set(remote.reads), {1}, "how often each block was fetched")


def rule_what_was_fetched_is_there_when_the_remote_is_gone(lab):
    remote = Remote(size=MIB)
    with contextlib.ExitStack() as stack:
        with remote.serve() as uri:
            server = stack.enter_context(lab.serve_remote(uri))
            read(server, remote, 0, 512 * KIB)
            remote.wait_until_idle()
        read(server, remote, 0, 512 * KIB)


def rule_the_size_is_a_limit_and_what_is_not_used_goes(lab):
    remote = Remote(size=40 * MIB)
    limit = 16 * MIB
    with remote.serve() as uri, lab.serve_remote(uri, "--cache-size", "16M") as server:
        for at in range(0, 40 * MIB, 4 * MIB):
            read(server, remote, at, 4 * MIB)
            check(lab.bytes_on_disk() <= limit + MIB, f"{lab.bytes_on_disk()} bytes are kept")
        check(lab.bytes_on_disk() >= limit / 2, f"only {lab.bytes_on_disk()} bytes are kept")
        # Files that were evicted are closed after a while.
        harness.wait_for(lambda: not any("cache" in name and name.endswith("(deleted)")
                                         for name in server.opened()),
                         harness.DEADLINE, "evicted files are closed")
        lab.check_copy(server.uri, remote.contents)


def rule_ctl_shows_and_trims_the_cache(lab):
    remote = Remote()
    with remote.serve() as uri, lab.serve_remote(
            uri, "--control", lab.control, "--metrics", lab.metrics_socket) as server:
        lab.check_copy(server.uri, remote.contents)
        shown = lab.ask("cache")
        expect(shown["directory"], lab.cache, "directory")
        expect(shown["counts"]["fetched_bytes"], SIZE, "bytes that were fetched")
        expect(shown["bytes"], lab.bytes_on_disk(), "bytes")
        expect([(image["content"], image["size"]) for image in shown["images"]],
               [("immutable " + uri, SIZE)], "images")
        expect(lab.ask("statistics")["remote"]["fetched_bytes"], SIZE, "statistics")
        check(f"\nunderlay_remote_fetched_bytes_total {SIZE}\n" in lab.metrics(), lab.metrics())
        left = lab.ask("cache", "trim=5M")["bytes"]
        check(0 < left <= 5 * MIB, f"{left} bytes are left")
        expect(lab.ask("cache", "trim=0")["bytes"], 0, "bytes")
        expect(lab.files(), [], "files")
        lab.check_copy(server.uri, remote.contents)
        check("no size" in lab.refused("cache", "trim=much"), "a size that is none")
    with lab.serve_live("-f", "raw", "--export", f"one={lab.one}"):
        check("--cache-dir" in lab.refused("cache"), "a server without a cache")


def rule_content_that_may_change_is_not_kept(lab):
    remote = Remote(size=MIB)
    with remote.serve() as uri, lab.serve("-e", "0", "--cache-dir", lab.cache, uri) as server:
        lab.check_copy(server.uri, remote.contents)
        check("--cache-immutable" in server.stderr(), server.stderr())
    expect(lab.files(), [], "files")


def rule_local_images_are_not_kept(lab):
    with lab.serve("-e", "0", "-f", "raw", "--cache-dir", lab.cache, lab.one) as server:
        lab.check_copy(server.uri, lab.contents)
    expect(lab.files(), [], "files")


def rule_an_image_is_fetched_as_a_whole_before_anybody_asks(lab):
    remote = Remote()
    with remote.serve() as uri, lab.serve_remote(uri, "--prefetch=all") as server:
        harness.wait_for(lambda: remote.bytes == SIZE, 60, "all is fetched")
        lab.check_copy(server.uri, remote.contents)
    expect(set(remote.reads), {1}, "how often each block was fetched")


def rule_what_was_read_first_is_fetched_when_the_image_is_served_again(lab):
    remote = Remote()
    with remote.serve() as uri:
        with lab.serve_remote(uri, "--prefetch=boot") as server:
            read(server, remote, 8 * MIB, 3 * BLOCK)
            read(server, remote, 2 * MIB, 10)
            remote.wait_until_idle()
        for file in lab.files():
            if not file.endswith(".boot"):
                os.unlink(file)
        once = list(remote.reads)
        with lab.serve_remote(uri, "--prefetch=boot"):
            harness.wait_for(lambda: sum(remote.reads) >= 2 * sum(once), 60, "it is fetched again")
            remote.wait_until_idle()
    expect(remote.reads, [2 * count for count in once], "how often each block was fetched")


def rule_a_folder_that_cannot_be_is_refused(lab):
    status, output, errors = harness.run([lab.program, "--cache-dir", lab.one, lab.one])
    expect((status, output), (1, ""), errors)
    check(lab.one in errors, errors)
