#!/usr/bin/python3
"""Images on web servers: every byte comes, whatever the server and the network do meanwhile, or an
error that says why; nothing is made of two versions of an object, and no image reaches out of its
folder on the server. The server is nginx; one of our own does what nginx does not.

usage: http_test.py UNDERLAY_NBD UNDERLAY_IMG HTTP_SOURCE_DUMP [RULE...]
"""
import json
import os
import random
import subprocess
import sys
import threading

import harness
import http_servers
import tls_keys
from http_servers import faulty

KIB, MIB = 1 << 10, 1 << 20
SIGNATURE = "s3cr3t"


def content_of(size, seed=1):
    return random.Random(seed).randbytes(size)


def without_proxies():
    """The environment, without what would change where requests go."""
    names = ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy",
             "NO_PROXY", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    return {name: value for name, value in os.environ.items() if name not in names}


def run(*command, env=None):
    done = subprocess.run(list(map(str, command)), capture_output=True, timeout=60,
                          stdin=subprocess.DEVNULL, env={**without_proxies(), **(env or {})})
    assert not harness.SANITIZER_REPORT.search(done.stderr.decode(errors="replace")), done.stderr
    return done.returncode, done.stdout, done.stderr.decode()


def read(url, threads=4, unit=100_000, range_ms=20_000, env=None):
    return run(DUMP, "read", url, range_ms, threads, unit, env=env)


def check_content(url, content, units=(100_000, 4096, 3_000_000), **more):
    for unit in units:
        status, out, errors = read(url, unit=unit, **more)
        assert status == 0, errors
        assert out == content, f"other bytes of {url}, in units of {unit}"


def refused(result, *words):
    status, out, errors = result
    assert status == 1 and out == b"", (status, out[:80], errors)
    assert errors.count("\n") == 1, errors
    assert SIGNATURE not in errors, errors
    for word in words:
        assert word in errors, (word, errors)


class Reader:
    """An object that is opened, and read when asked."""

    def __init__(self, url, offset, length, range_ms=10_000):
        self.length = length
        self.process = subprocess.Popen(
            [DUMP, "pause", url, str(range_ms), str(offset), str(length)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=without_proxies())
        assert self.process.stderr.readline() == b"opened\n"

    def read(self):
        """Its bytes, or the error's line."""
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        got = []
        taker = threading.Thread(target=lambda: got.append(self.process.stderr.readline()))
        taker.start()
        taker.join(30)
        assert got, "no answer within 30 s"
        return self.process.stdout.read(self.length) if got[0] == b"read\n" else got[0].decode()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


def qemu_img(*words):
    status, out, err = harness.run(["qemu-img", *words])
    assert status == 0, err
    return out


def make_chain(folder, base="base.qcow2", backing=None):
    """child.qcow2 on base.qcow2, relative names; the content of the child's disk."""
    content = bytearray(content_of(2 * MIB, 3))
    raw = os.path.join(folder, "raw.tmp")
    with open(raw, "wb") as out:
        out.write(content)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, os.path.join(folder, base))
    child = os.path.join(folder, "child.qcow2")
    qemu_img("create", "-q", "-f", "qcow2", "-u", "-F", "qcow2", "-b", backing or base, child, "2M")
    os.unlink(raw)
    return bytes(content)


# ---- reading

def rule_every_byte_comes(folder):
    with http_servers.nginx(folder) as web:
        for name, size in (("big", 5 * MIB + 77), ("window", 64 * KIB), ("small", 1), ("empty", 0)):
            web.write(name, content_of(size))
            check_content(web.url(name), content_of(size))
        check_content(web.url("big", "untagged"), content_of(5 * MIB + 77), [100_000])


def rule_small_reads_are_merged_and_large_ones_split(folder):
    content = content_of(8 * MIB)
    with http_servers.nginx(folder) as web:
        web.write("disk", content)
        check_content(web.url("disk"), content, [4096], threads=1)
        small = len(web.requests())
        # 2048 reads; windows of 64 KiB, of which up to eight at once.
        assert small < 64, small
        # Slow enough that no part is there before the next one is asked for.
        check_content(web.url("disk", "steady"), content, [8 * MIB], threads=1)
        large = [one[2] for one in web.requests()[small:]]
        assert len(large) == 9, large  # the first window, and 8 pieces of 1 MiB
        assert "bytes=0-1048575" in large, large
        pinned = [one[3] for one in web.requests()]
        assert pinned.count("-") == 2 and all(one.startswith('\\x22') or one == "-" or
                                              one.startswith('"') for one in pinned), pinned
        connections = {one[4] for one in web.requests()[small:]}
        assert 2 <= len(connections) <= 5, connections  # several at a time, and they are kept


def rule_what_is_not_there_or_not_allowed_is_said(folder):
    with http_servers.nginx(folder) as web:
        web.write("disk", content_of(MIB))
        refused(read(web.url("none")), web.url("none"), "404")
        refused(read(web.url("disk", "signed")), "403")
        refused(read(web.url("disk", "noranges")), "knows no ranges", "200")
        refused(read(web.url("disk", "loop")), "redirects")
        refused(read(web.url("disk", "elsewhere")), "file")
        refused(read(web.url("disk", "unknown")), "neither a strong ETag nor a Last-Modified")
        refused(read(f"http://user:{SIGNATURE}@127.0.0.1:{web.port}/plain/disk"), "user or password")
        refused(read(f"http://127.0.0.1:{harness.free_port()}/disk"), "tried 3 times")
        refused(read("http://no-such-host.invalid/disk"), "no-such-host.invalid")
        refused(read("http://"), "no URL")


def rule_presigned_urls_work_and_are_not_shown(folder):
    content = content_of(MIB)
    with http_servers.nginx(folder) as web:
        web.write("disk.raw", content)
        url = web.url("disk.raw", "signed") + "?signature=" + SIGNATURE
        check_content(url, content, [100_000])
        status, out, errors = run(IMG, "info", "--output=json", "-f", "raw", url)
        assert status == 0 and SIGNATURE not in out.decode() + errors, out.decode() + errors
        assert json.loads(out)["virtual-size"] == MIB
        refused(read(url + "x"), "403")
        # A failure of a later read.
        with Reader(url, MIB - 4096, 4096) as reader:
            web.write("disk.raw", content_of(MIB, 2))
            error = reader.read()
            assert "changed" in error and SIGNATURE not in error, error


def rule_redirects_are_followed_but_not_out_of_https(folder):
    content = content_of(MIB)
    keys = os.path.join(folder, "keys")
    authority = tls_keys.Authority(os.path.join(folder, "ca"))
    authority.issue(keys, "server", "localhost")
    trust = {"CURL_CA_BUNDLE": authority.certificate}
    with http_servers.nginx(folder, keys) as web:
        web.write("disk", content)
        check_content(web.url("disk", "moved"), content, [100_000])
        check_content(web.secure_url("disk"), content, [100_000], env=trust)
        refused(read(web.secure_url("disk")), "certificate")
        refused(read(web.secure_url("disk", "down"), env=trust), "http")


def rule_proxies_are_used(folder):
    content = content_of(MIB)
    with http_servers.nginx(folder) as web:
        web.write("disk", content)
        proxy = {"http_proxy": f"http://127.0.0.1:{web.proxy}"}
        check_content(web.url("disk"), content, [100_000], env=proxy)
        assert web.requests("proxy.log"), "nothing went through the proxy"


# ---- faults

def rule_a_server_that_is_busy_is_asked_again(folder):
    content = content_of(3 * MIB)
    with http_servers.nginx(folder) as web:
        web.write("disk", content)
        check_content(web.url("disk", "busy"), content, [MIB])
        assert 503 in {one[0] for one in web.requests()}, "nginx was never busy"
        refused(read(web.url("disk", "broken")), "500", "tried 3 times")
        refused(read(web.url("disk", "closed")), "tried 3 times")


def every_other(fault):
    """Every second request is answered by fault(request)."""
    def answer(request):
        if request.number % 2 == 1:
            fault(request)
        else:
            request.reply(CONTENT)
    return answer


CONTENT = content_of(3 * MIB + 5)


def rule_cut_connections_and_short_bodies_are_made_good(_):
    def closes(request):
        request.handler.close_connection = True
    faults = [lambda request: request.reply(CONTENT, cut=1000),
              lambda request: request.reply(CONTENT, cut=0), closes,
              lambda request: request.refuse(429, {"Retry-After": "0"}),
              lambda request: request.refuse(503), lambda request: request.refuse(500)]
    for fault in faults:
        with faulty(every_other(fault)) as server:
            check_content(server.url, CONTENT, [MIB])


def rule_what_came_of_a_cut_body_is_not_asked_for_again(_):
    def answer(request):
        request.reply(CONTENT, cut=None if request.number == 0 else 700_000)
    with faulty(answer) as server, Reader(server.url, 0, MIB) as reader:
        assert reader.read() == CONTENT[:MIB]
        ranges = [one.range for one in server.requests]
    assert ranges[1:] == [(0, MIB - 1), (700_000, MIB - 1)], ranges


def rule_retry_after_is_kept(_):
    times = []

    def answer(request):
        times.append(harness.time.monotonic())
        if request.number == 1:
            request.refuse(429, {"Retry-After": "2"})
        else:
            request.reply(CONTENT)
    with faulty(answer) as server, Reader(server.url, MIB, 4096) as reader:
        assert reader.read() == CONTENT[MIB:MIB + 4096]
    assert times[2] - times[1] >= 2, times


def rule_a_server_that_never_answers_is_given_up(_):
    def answer(request):
        if request.number == 0:
            request.reply(CONTENT)
        else:
            server.over.wait(30)
    with faulty(answer) as server, Reader(server.url, MIB, 4096, range_ms=3_000) as reader:
        start = harness.time.monotonic()
        error = reader.read()
        assert "tried" in error and "ms" in error, error
        assert harness.time.monotonic() - start < 20
        server.over.set()


def rule_replies_that_make_no_sense_fail(_):
    wrong = {
        "another part": {"Content-Range": f"bytes 1-65536/{len(CONTENT)}"},
        "no size": {"Content-Range": "bytes 0-65535/*"},
        "not a range": {"Content-Range": "bytes zero"},
        "none": {"Content-Range": None},
    }
    for what, headers in wrong.items():
        with faulty(lambda request, h=headers: request.reply(CONTENT, headers=h)) as server:
            refused(read(server.url), "the server")
            assert len(server.requests) == 1, what
    # A longer body than the range.
    def longer(request):
        first, last = request.range
        request.reply(CONTENT, body=CONTENT[first:last + 101],
                      headers={"Content-Range": f"bytes {first}-{last}/{len(CONTENT)}"})
    with faulty(longer) as server:
        refused(read(server.url), "more bytes")


# ---- changes

def rule_an_object_that_changes_is_an_error_that_says_so(folder):
    content = content_of(4 * MIB)
    with http_servers.nginx(folder) as web:
        for location, other in (("plain", content_of(4 * MIB, 2)), ("plain", content_of(MIB)),
                                ("untagged", content_of(4 * MIB, 2))):
            web.write("disk", content, 10**9)
            with Reader(web.url("disk", location), 2 * MIB, MIB) as reader:
                assert reader.read() == content[2 * MIB:3 * MIB]
                web.write("disk", other)
                assert "changed on its server" in reader.read()
                # For good, also when the old one is back.
                web.write("disk", content, 10**9)
                assert "changed on its server" in reader.read()
        web.write("disk", content)
        with Reader(web.url("disk"), 2 * MIB, MIB) as reader:
            os.unlink(os.path.join(web.root, "disk"))
            assert "changed on its server" in reader.read()


def rule_no_server_can_mix_two_versions(_):
    """One that does not know If-Match; the parts of one read are of different versions."""
    other = content_of(len(CONTENT), 9)

    def answer(request):
        request.reply(other if request.number == 3 else CONTENT)
    with faulty(answer) as server, Reader(server.url, 0, 3 * MIB) as reader:
        assert "changed on its server" in reader.read()
    # Nor a part of one body, whose rest is of another version.
    def cut(request):
        request.reply(CONTENT if request.number < 2 else other, cut=500_000)
    with faulty(cut) as server, Reader(server.url, 0, MIB) as reader:
        assert "changed on its server" in reader.read()


# ---- images

def rule_all_programs_read_chains_on_a_server(folder):
    with http_servers.nginx(folder) as web:
        content = make_chain(web.root)
        url = web.url("child.qcow2")
        status, out, errors = run(IMG, "info", "--output=json", "--backing-chain", url)
        assert status == 0, errors
        chain = json.loads(out)
        assert [one["format"] for one in chain] == ["qcow2", "qcow2"], chain
        assert [one["filename"] for one in chain] == [url, web.url("base.qcow2")], chain
        for words in (["check", url], ["map", "--output=json", url], ["audit", url],
                      ["digest", url]):
            status, out, errors = run(IMG, *words)
            assert status == 0, (words, out, errors)
        local = os.path.join(web.root, "child.qcow2")
        status, out, errors = run(IMG, "compare", url, local)
        assert status == 0, errors
        opts = f"driver=qcow2,file.driver=http,file.url={url}"
        status, out, errors = run(IMG, "compare", "--image-opts", opts,
                                  f"driver=qcow2,file.filename={local}")
        assert status == 0, errors
        for arguments in ([url], ["-f", "qcow2", url], ["--image-opts", opts],
                          ["--export", "=" + url]):
            with harness.serve(["-e", "0", *arguments], program=NBD,
                               env=without_proxies()) as server:
                copy = os.path.join(folder, "copy.raw")
                status, _, errors = harness.run(["nbdcopy", server.uri, copy])
                assert status == 0, errors + server.stderr()
                with open(copy, "rb") as file:
                    assert file.read() == content


def rule_names_lead_only_beneath_the_images_folder(folder):
    with http_servers.nginx(folder) as web:
        inner = os.path.join(web.root, "inner")
        os.makedirs(os.path.join(inner, "deeper"))
        make_chain(inner, "deeper/base.qcow2")
        assert run(IMG, "check", web.url("inner/child.qcow2"))[0] == 0
        assert run(IMG, "compare", web.url("inner/child.qcow2"),
                   os.path.join(inner, "child.qcow2"))[0] == 0
        outside = make_chain(web.root)
        before = len(web.requests())
        for backing, why in (("../base.qcow2", "out of the image's folder"),
                             ("deeper/../../base.qcow2", "out of the image's folder"),
                             ("/etc/passwd", "absolute"),
                             (web.url("base.qcow2"), "never followed"),
                             ("https://elsewhere.invalid/base.qcow2", "never followed"),
                             ("file:/etc/passwd", "never followed"),
                             ("nbd://localhost/", "never followed")):
            child = os.path.join(inner, "child.qcow2")
            qemu_img("create", "-q", "-f", "qcow2", "-u", "-F", "qcow2", "-b", backing, child, "2M")
            status, out, errors = run(IMG, "map", web.url("inner/child.qcow2"))
            assert status == 1 and why in errors and errors.count("\n") == 1, (backing, errors)
        named = {one[1] for one in web.requests()[before:]}
        assert named == {"/plain/inner/child.qcow2"}, named
        # The operator's word.
        qemu_img("create", "-q", "-f", "qcow2", "-u", "-F", "qcow2", "-b", "../base.qcow2", child,
                 "2M")
        for more in (["--allow-path", web.url("")],
                     ["--parent", "child.qcow2=" + web.url("base.qcow2")],
                     ["--parent", "child.qcow2=" + os.path.join(web.root, "base.qcow2")]):
            with harness.serve([*more, web.url("inner/child.qcow2")], program=NBD,
                               env=without_proxies()) as server:
                status, out, errors = harness.run(["nbdcopy", server.uri, folder + "/copy"])
                assert status == 0, errors
                with open(folder + "/copy", "rb") as file:
                    assert file.read() == outside


def rule_no_local_image_names_one_on_a_server(folder):
    with http_servers.nginx(folder) as web:
        make_chain(web.root)
        child = os.path.join(folder, "local.qcow2")
        qemu_img("create", "-q", "-f", "qcow2", "-u", "-F", "qcow2", "-b", web.url("base.qcow2"),
                 child, "2M")
        status, _, errors = run(IMG, "map", child)
        assert status == 1 and "never followed" in errors, errors
        assert not web.requests()


def rule_odd_names_reach_the_server_as_they_are(folder):
    with http_servers.nginx(folder) as web:
        content = make_chain(web.root, "ba se%2e#1?.qcow2")
        status, _, errors = run(IMG, "compare", web.url("child.qcow2"),
                                os.path.join(web.root, "child.qcow2"))
        assert status == 0, errors
        assert content


def rule_a_server_in_its_sandbox_reconnects(folder):
    with http_servers.nginx(folder) as web:
        content = make_chain(web.root)
        # A name, which must be looked up again.
        url = web.url("child.qcow2").replace("127.0.0.1", web.name)
        with harness.serve(["-e", "0", url], program=NBD, env=without_proxies()) as server:
            before = {one[4] for one in web.requests()}
            status, _, errors = harness.run(["nbdcopy", server.uri, folder + "/copy"])
            assert status == 0, errors + server.stderr()
            with open(folder + "/copy", "rb") as file:
                assert file.read() == content
            after = {one[4] for one in web.requests()}
            assert after - before, "no new connection was made: this proves nothing"
        if not harness.sanitized(NBD):
            status, out, errors = run(NBD, "--sandbox-test", "--allow-path", web.url(""))
            assert status == 0 and b"FAIL" not in out, out.decode() + errors
            assert b"may connect to servers" in out, out.decode()


def control(socket, *words):
    return run(NBD, "ctl", "--socket", socket, *words)


def rule_images_on_servers_come_and_go_while_a_server_runs(folder):
    with http_servers.nginx(folder) as web:
        content = make_chain(web.root)
        local = os.path.join(folder, "local.raw")
        with open(local, "wb") as out:
            out.truncate(MIB)
        socket = os.path.join(folder, "control")
        signed = web.url("base.qcow2", "signed") + "?signature=" + SIGNATURE
        added = ["add", "name=far", "image=" + signed, "format=qcow2"]
        url = web.url("base.qcow2")
        with harness.serve(["-e", "0", "--control", socket, "-f", "qcow2", url], program=NBD,
                           env=without_proxies()) as server:
            status, _, errors = control(socket, *added)
            assert status == 0, errors
            status, _, errors = harness.run(["nbdcopy", server.named_uri("far"), folder + "/copy"])
            assert status == 0, errors + server.stderr()
            with open(folder + "/copy", "rb") as file:
                assert file.read() == content
            _, told, errors = control(socket, "exports")
            assert web.url("base.qcow2", "signed") in told.decode(), told
            assert SIGNATURE not in told.decode() + errors + server.stderr(), server.stderr()
        # Who was started with local images alone connects to nobody.
        with harness.serve(["-e", "0", "--control", socket, "-f", "raw", local], program=NBD,
                           env=without_proxies()):
            status, out, errors = control(socket, *added)
            if not harness.sanitized(NBD):
                assert status == 1, errors
                assert "the sandbox opens no connections to this server" in out.decode() + errors, errors


def rule_a_reload_opens_what_was_written_anew(folder):
    old, new = content_of(MIB), content_of(MIB, 2)
    with http_servers.nginx(folder) as web:
        web.write("disk.raw", old)
        config = os.path.join(folder, "config")
        socket = os.path.join(folder, "control")
        with open(config, "w", encoding="utf-8") as out:
            out.write(f"format=raw\nexport=one={web.url('disk.raw')}\n")
        with harness.serve(["-e", "0", "--control", socket, "--config", config], program=NBD,
                           env=without_proxies()) as server:
            for content in (old, new):
                if content == new:
                    web.write("disk.raw", new)
                    status, out, errors = control(socket, "reload")
                    assert status == 0 and b"opened again" in out, out.decode() + errors
                copy = os.path.join(folder, "copy")
                status, _, errors = harness.run(["nbdcopy", server.named_uri("one"), copy])
                assert status == 0, errors + server.stderr()
                with open(copy, "rb") as file:
                    assert file.read() == content


def rule_a_server_that_is_dead_holds_up_no_other_image(folder):
    local = os.path.join(folder, "local.raw")
    with open(local, "wb") as out:
        out.write(content_of(MIB))
    qcow2 = os.path.join(folder, "packed.qcow2")
    qemu_img("convert", "-c", "-O", "qcow2", local, qcow2)
    dead = threading.Event()

    def answer(request):
        if dead.is_set():
            server.over.wait(60)
        request.reply(CONTENT)
    with faulty(answer) as server:
        with harness.serve(["-e", "0", "--export", "far=" + server.url, "--export",
                            "near=" + qcow2], program=NBD, env=without_proxies()) as nbd:
            # Many reads at once, none of which is answered.
            dead.set()
            opened = len(server.requests)
            waiting = subprocess.Popen(
                ["nbdcopy", "--requests=64", nbd.named_uri("far"), "null:"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                harness.wait_for(lambda: len(server.requests) >= opened + 16, 20, "many reads wait")
                start = harness.time.monotonic()
                copy = os.path.join(folder, "copy")
                status, _, errors = harness.run(["nbdcopy", nbd.named_uri("near"), copy])
                assert status == 0, errors
                assert harness.time.monotonic() - start < 10
            finally:
                server.over.set()
                waiting.kill()
                waiting.wait()


def rule_a_change_is_seen_by_clients_as_an_error(folder):
    content = content_of(8 * MIB)
    with http_servers.nginx(folder) as web:
        web.write("disk.raw", content)
        with harness.serve(["-f", "raw", "-e", "0", web.url("disk.raw")], program=NBD,
                           env=without_proxies()) as server:
            web.write("disk.raw", content_of(8 * MIB, 2))
            status, _, errors = harness.run(["nbdcopy", server.uri, "null:"])
            assert status != 0, "a mix of two objects"
            harness.wait_for(lambda: "changed on its server" in server.stderr(), 20,
                             "the log says why")
            assert f"127.0.0.1:{web.port}/plain/disk.raw" in server.stderr()


def rule_members_of_archives_are_found(folder):
    with http_servers.nginx(folder) as web:
        raw = os.path.join(folder, "raw")
        with open(raw, "wb") as out:
            out.write(content_of(MIB, 3))
        qemu_img("convert", "-O", "vmdk", "-o", "subformat=streamOptimized", raw,
                 os.path.join(folder, "one.vmdk"))
        status, _, errors = harness.run(["tar", "-C", folder, "-cf",
                                         os.path.join(web.root, "two.ova"), "one.vmdk"])
        assert status == 0, errors
        status, out, errors = run(IMG, "compare", web.url("two.ova#one.vmdk"),
                                  os.path.join(folder, "one.vmdk"))
        assert status == 0, errors + out.decode()


def main():
    global NBD, IMG, DUMP
    NBD, IMG, DUMP = sys.argv[1:4]
    harness.run_rules(globals(), sys.argv[4:])


main()
