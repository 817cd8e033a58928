"""Images on web servers and S3 stores through the cache: what is known of an object there says
which blocks are its own."""
import contextlib
import os
import random
import re
import threading
import time
import urllib.parse

import harness
import http_servers
import nbd_client as nbd
from handover_lab import HandoverLab
from protocol_rules import check, expect
from remote_cache_lab import BLOCK, FILE_HEADER, KIB, MIB, SIZE, read

OPENING = "bytes=0-0"  # one byte, to learn what the object is
SECRET = "s3cr3t"  # of /signed/


class Image:
    """A file of a web server."""

    def __init__(self, web, name="disk.raw", size=SIZE, seed=1, location="plain"):
        self.web = web
        self.name = name
        self.location = location
        self.contents = random.Random(seed).randbytes(size)
        web.write(name, self.contents)

    @property
    def url(self):
        return self.web.url(self.name, self.location)

    def ranges(self):
        """[(first, last)] of all that was fetched, without openings, once the server is quiet."""
        wait_until_quiet(self.web)
        return [tuple(map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", one[2]).groups()))
                for one in self.web.requests()
                if urllib.parse.urlsplit(one[1]).path == f"/{self.location}/{self.name}"
                and one[0] == 206 and one[2] != OPENING]

    def reads(self):
        """How often each block was fetched, whole."""
        counts = [0] * -(-len(self.contents) // BLOCK)
        for first, last in self.ranges():
            end = min(last + 1, len(self.contents))
            check(first % BLOCK == 0 and (end % BLOCK == 0 or end == len(self.contents)),
                  f"the bytes {first}-{last} are no blocks")
            for block in range(first // BLOCK, -(-end // BLOCK)):
                counts[block] += 1
        return counts

    def check_fetched_once(self):
        expect(set(self.reads()), {1}, f"how often each block of {self.name} was fetched")


def wait_until_quiet(web):
    """Until no request has come for a while: what is fetched ahead has arrived, too."""
    before, since = len(web.requests()), time.monotonic()
    deadline = since + 30
    while time.monotonic() - since < 0.5:
        if len(web.requests()) != before:
            before, since = len(web.requests()), time.monotonic()
        check(since < deadline, "somebody asks for ever")
        time.sleep(0.05)


def make_chain(lab, web):
    """child.qcow2 on base.qcow2 beside it, on the server: the child's URL, the disk's contents."""
    base, contents = lab.image("files", "base.qcow2")
    child = lab.path("files", "child.qcow2")
    status, _, errors = harness.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b",
                                     os.path.basename(base), child])
    expect(status, 0, errors)
    return web.url("child.qcow2"), contents


def rule_an_image_on_a_web_server_is_fetched_once_whoever_is_killed(lab):
    with http_servers.nginx(lab.folder) as web:
        image = Image(web)
        with lab.serve_until_killed(image.url) as server:
            read(server, image, 0, 4 * MIB)
            read(server, image, 8 * MIB - 100, 300)
            wait_until_quiet(web)
        for _ in range(2):
            with lab.serve_remote(image.url) as server:
                lab.check_copy(server.uri, image.contents)
        image.check_fetched_once()


def rule_what_is_in_the_cache_is_read_when_the_web_server_is_gone(lab):
    with contextlib.ExitStack() as stack:
        with http_servers.nginx(lab.folder) as web:
            image = Image(web)
            with lab.serve_remote(image.url) as server:
                lab.check_copy(server.uri, image.contents)
            server = stack.enter_context(lab.serve_remote(image.url))
        lab.check_copy(server.uri, image.contents)


def rule_parents_on_a_web_server_are_kept_too(lab):
    with contextlib.ExitStack() as stack:
        with http_servers.nginx(lab.folder) as web:
            url, contents = make_chain(lab, web)
            with lab.serve("-e", "0", "--cache-dir", lab.cache, url) as server:
                lab.check_copy(server.uri, contents)
            wait_until_quiet(web)
            asked = len(web.requests())
            server = stack.enter_context(lab.serve("-e", "0", "--cache-dir", lab.cache, url))
            lab.check_copy(server.uri, contents)
            wait_until_quiet(web)
            expect([one[2] for one in web.requests()[asked:]], [OPENING] * 2,
                   "what the second server fetches")
        lab.check_copy(server.uri, contents)


def rule_a_damaged_block_is_fetched_again_from_a_web_server(lab):
    with http_servers.nginx(lab.folder) as web:
        image = Image(web)
        with lab.serve_remote(image.url) as server:
            lab.check_copy(server.uri, image.contents)
        with open(sorted(lab.files())[0], "r+b") as file:
            file.seek(FILE_HEADER + 5 * BLOCK + 77)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 4]))
        for _ in range(2):
            with lab.serve_remote(image.url) as server:
                lab.check_copy(server.uri, image.contents)
        expect(sorted(image.reads())[-2:], [1, 2], "how often blocks were fetched")


def rule_servers_share_what_comes_from_a_web_server(lab):
    with http_servers.nginx(lab.folder) as web:
        image = Image(web)
        with lab.serve_remote(image.url) as one, lab.serve_remote(image.url) as other:
            failures = []

            def load(server, start):
                try:
                    read(server, image, start, SIZE - start)
                    read(server, image, 0, start)
                except Exception as failure:
                    failures.append(failure)
            threads = [threading.Thread(target=load, args=(server, start))
                       for server in (one, other) for start in (0, 5 * MIB)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            expect(failures, [], "failures")
        image.check_fetched_once()


def rule_sequential_reads_are_fetched_ahead_in_few_requests(lab):
    with http_servers.nginx(lab.folder) as web:
        image = Image(web)
        with lab.serve_remote(image.url) as server, nbd.in_transmission(server.socket) as client:
            for at in range(0, 3 * MIB, 16 * KIB):
                got = client.read(at, 16 * KIB).data
                check(got == image.contents[at:at + 16 * KIB], f"other bytes at {at}")
            ranges = image.ranges()
        check(len(ranges) < 20, f"{len(ranges)} requests for 192 reads")
        check(max(last for _, last in ranges) >= 3 * MIB, "nothing was fetched ahead")
        expect(max(image.reads()), 1, "how often a block was fetched")


def rule_a_changed_object_has_blocks_of_its_own(lab):
    with http_servers.nginx(lab.folder) as web:
        image = Image(web)
        old = image.contents
        new = random.Random(2).randbytes(SIZE)
        with lab.serve_remote(image.url) as server:
            read(server, image, 0, 2 * MIB)
            wait_until_quiet(web)
            web.write(image.name, new, 2 * 10**9)
            with nbd.in_transmission(server.socket) as client:
                expect(client.read(10 * MIB, BLOCK).error, nbd.EIO, "error of a read")
                check("changed on its server" in server.stderr(), server.stderr())
                with lab.serve_remote(image.url) as other:
                    lab.check_copy(other.uri, new)
                    # What the first one has is of the old object, until it gives up that one.
                    got = client.read(0, MIB)
                    check(got.error == nbd.EIO or got.data == old[:MIB], "bytes of another object")
                    image.contents = new
                    read(other, image, 0, 2 * MIB)
        # Both are there.
        wait_until_quiet(web)
        asked = len(web.requests())
        for contents, seconds in ((new, 2 * 10**9), (old, 10**9 + 1)):
            web.write(image.name, contents, seconds)
            image.contents = contents
            with lab.serve_remote(image.url) as server:
                read(server, image, 0, 2 * MIB)
        expect([one[2] for one in web.requests()[asked:]], [OPENING] * 2, "what is fetched then")


def rule_an_object_without_a_strong_etag_is_kept_on_the_operators_word_alone(lab):
    with http_servers.nginx(lab.folder) as web:
        image = Image(web, size=MIB, location="untagged")
        arguments = ["-e", "0", "-f", "raw", "--cache-dir", lab.cache]
        with lab.serve(*arguments, image.url) as server:
            lab.check_copy(server.uri, image.contents)
            check("--cache-immutable" in server.stderr(), server.stderr())
        expect(lab.files(), [], "files")
        for _ in range(2):
            asked = len(web.requests())
            with lab.serve(*arguments, "--cache-immutable", "http://*/untagged/*",
                           image.url) as server:
                lab.check_copy(server.uri, image.contents)
            wait_until_quiet(web)
        expect([one[2] for one in web.requests()[asked:]], [OPENING], "what is fetched at last")


def rule_signatures_are_neither_kept_nor_what_blocks_are_known_by(lab):
    with http_servers.nginx(lab.folder) as web:
        image = Image(web, size=MIB, location="signed")
        for more in ("", "&Expires=5", "&X-Amz-Date=7&X-Amz-Signature=8"):
            url = f"{image.url}?signature={SECRET}{more}"
            with lab.serve_remote(url, "--control", lab.control) as server:
                lab.check_copy(server.uri, image.contents)
                shown = lab.ask("cache")
                check(SECRET not in str(shown), str(shown))
                check(SECRET not in server.stderr(), server.stderr())
                check(shown["images"][0]["content"].startswith(image.url + ' "'), str(shown))
        image.check_fetched_once()
        for file in lab.files():
            with open(file, "rb") as opened:
                check(SECRET.encode() not in opened.read(), f"{file} has the signature")
        # May choose what is read.
        kept = sorted(lab.files())
        for query in (f"signature={SECRET}&number=1", f"signature={SECRET}&st=1"):
            with lab.serve_remote(f"{image.url}?{query}", "--cache-immutable", "http*") as server:
                lab.check_copy(server.uri, image.contents)
                check("has a query" in server.stderr(), server.stderr())
                check(SECRET not in server.stderr(), server.stderr())
        expect(sorted(lab.files()), kept, "files")


def rule_an_object_of_a_store_is_known_by_where_it_is(lab):
    with http_servers.nginx(lab.folder) as web:
        image = Image(web, size=MIB)
        store = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{web.port}", "HOME": lab.folder,
                 "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": SECRET}
        for _ in range(2):
            with harness.serve(lab.options(f"s3://plain/{image.name}", "--control", lab.control),
                               program=lab.program, env=store) as server:
                lab.check_copy(server.uri, image.contents)
                shown = lab.ask("cache")
        check(shown["images"][0]["content"].startswith(image.url + ' "'), str(shown))
        image.check_fetched_once()


def rule_all_of_an_image_becomes_local_and_its_server_may_go(lab):
    with contextlib.ExitStack() as stack:
        with http_servers.nginx(lab.folder) as web:
            url, contents = make_chain(lab, web)
            image = Image(web)
            names = [path for path in os.listdir(web.root)]
            total = sum(os.path.getsize(os.path.join(web.root, name)) for name in names)
            server = stack.enter_context(
                lab.serve("-e", "0", "--cache-dir", lab.cache, "--control", lab.control,
                          "--prefetch=all", "--export", f"chain={url}", "--export",
                          f"raw={image.url}"))
            harness.wait_for(
                lambda: lab.ask("cache")["counts"]["stored_bytes"] == total, 60, "all is fetched")
            image.check_fetched_once()
        lab.check_copy(server.named_uri("chain"), contents)
        lab.check_copy(server.named_uri("raw"), image.contents)


def rule_a_server_ends_though_what_it_fetches_ahead_never_comes(lab):
    def answer(request):
        if request.headers["Range"] == OPENING:
            request.reply(content)
        else:
            request.handler.server.asked.set()
            faulty.over.wait(60)
    content = random.Random(1).randbytes(MIB)
    with http_servers.faulty(answer) as faulty:
        faulty.server.asked = threading.Event()
        with lab.serve_remote(faulty.url, "--prefetch=all") as server:
            check(faulty.server.asked.wait(30), "nothing is fetched ahead")
            begun = time.monotonic()
            server.terminate()
            expect(server.process.wait(60), 0, server.stderr())
            took = time.monotonic() - begun
            check(took < 15, f"the server took {took:.1f} seconds to end")


def rule_what_was_read_first_of_a_web_server_is_fetched_again(lab):
    with http_servers.nginx(lab.folder) as web:
        image = Image(web)
        with lab.serve_remote(image.url, "--prefetch=boot") as server:
            read(server, image, 8 * MIB, 3 * BLOCK)
            read(server, image, 2 * MIB, 10)
        once = image.reads()
        for file in lab.files():
            if not file.endswith(".boot"):
                os.unlink(file)
        with lab.serve_remote(image.url, "--prefetch=boot") as server:
            harness.wait_for(lambda: sum(image.reads()) >= 2 * sum(once), 60, "it is fetched again")
        expect(image.reads(), [2 * count for count in once], "how often each block was fetched")


def rule_a_full_disk_costs_an_image_on_a_web_server_no_read(lab):
    path = lab.path("full.sock")
    with http_servers.nginx(lab.folder) as web:
        image = Image(web)
        limited = ["prlimit", f"--fsize={2 * MIB}", lab.program, "-t", "-k", path]
        with harness.start([*limited, *lab.options(image.url)], path) as server:
            lab.check_copy(server.uri, image.contents)
            expect(server.stderr().count("cannot keep what is read"), 1, server.stderr())
        with lab.serve_remote(image.url) as server:
            lab.check_copy(server.uri, image.contents)


def rule_a_successor_goes_on_with_the_cache(lab):
    servers = HandoverLab(lab.program, lab.folder)
    with contextlib.ExitStack() as stack:
        with http_servers.nginx(lab.folder) as web:
            image = Image(web)
            arguments = ["-f", "raw", "--cache-dir", lab.cache, image.url]
            row = stack.enter_context(servers.first(*arguments))
            client = stack.enter_context(nbd.in_transmission(row.socket))
            expect(client.read(0, MIB).data, image.contents[:MIB], "bytes before")
            row.hand_over(*arguments)
            for at in range(0, SIZE - SIZE % MIB, MIB):
                check(client.read(at, MIB).data == image.contents[at:at + MIB], f"bytes at {at}")
            lab.check_copy(harness.uri(row.socket), image.contents)
            image.check_fetched_once()
        lab.check_copy(harness.uri(row.socket), image.contents)


def rule_images_that_come_while_a_server_runs_are_kept(lab):
    with http_servers.nginx(lab.folder) as web:
        one, other = Image(web, "one.raw", MIB), Image(web, "other.raw", MIB, seed=2)
        with lab.serve_live("-f", "raw", "--cache-dir", lab.cache, "--export",
                            f"one={one.url}") as server:
            for _ in range(2):
                lab.ask("add", "name=other", f"image={other.url}", "format=raw")
                lab.check_copy(server.named_uri("other"), other.contents)
                lab.ask("remove", "name=other")
        other.check_fetched_once()
