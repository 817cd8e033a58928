#!/usr/bin/python3
"""New objects on web servers and in S3 stores: all of it is there, or nothing is, whatever the server
and the network do; requests are signed right, bodies included, and parts are sent again.

usage: http_upload_test.py HTTP_OBJECT_PUT HTTP_SOURCE_DUMP UNDERLAY_IMG [RULE...]
"""
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import urllib.parse

import harness
import http_servers
import sigv4
import swift_store
from http_servers import faulty

KIB, MIB = 1 << 10, 1 << 20
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
TOKEN = "session/token+of=some=length"


def content_of(size, seed=1):
    return random.Random(seed).randbytes(size)


def environment(**more):
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith("AWS_") and not name.lower().endswith("_proxy")}
    return {**kept, "HOME": "/nonexistent", **more}


def run(command, content=b"", env=None):
    done = subprocess.run(list(map(str, command)), input=content, capture_output=True, timeout=90,
                          env=env or environment())
    errors = done.stderr.decode(errors="replace")
    assert not harness.SANITIZER_REPORT.search(errors), errors
    for secret in (SECRET, TOKEN, swift_store.SECRET):
        assert secret not in errors, errors
    return done.returncode, done.stdout, errors


def put(name, content, piece=100_000, expected=None, range_ms=20_000, give_up_at=None, env=None):
    size = len(content) if expected is None else expected
    more = [] if give_up_at is None else [give_up_at]
    return run([PUT, name, size, piece, range_ms, *more], content, env)


def put_all(name, content, **more):
    status, _, errors = put(name, content, **more)
    assert status == 0 and not errors, errors


def refused(result, *words):
    status, _, errors = result
    assert status == 1 and errors.count("\n") == 1, (status, errors)
    for word in words:
        assert word in errors, (word, errors)


def contents_of(path):
    with open(path, "rb") as file:
        return file.read()


# ---- web servers

def rule_a_web_server_gets_all_of_it(folder):
    with http_servers.nginx(folder) as web:
        for size in (0, 1, 65536, 5 * MIB + 3):
            for piece in (4096, 3 * MIB):
                put_all(web.url(f"new{size}", "put"), content_of(size), piece=piece)
                assert contents_of(os.path.join(web.root, f"new{size}")) == content_of(size)
                os.unlink(os.path.join(web.root, f"new{size}"))


def rule_what_is_unfinished_is_nothing(folder):
    with http_servers.nginx(folder) as web:
        old = content_of(MIB)
        path = web.write("disk", old)
        refused(put(web.url("disk", "put"), content_of(6 * MIB, 2), give_up_at=3 * MIB), "given up")
        assert contents_of(path) == old
        refused(put(web.url("new", "put"), content_of(6 * MIB, 2), give_up_at=MIB), "given up")
        assert not os.path.exists(os.path.join(web.root, "new"))
        for size in (1000, 6 * MIB):
            refused(put(web.url("disk", "put"), content_of(size, 2), give_up_at="end"),
                    "interrupted")
            assert contents_of(path) == old


def rule_what_a_web_server_does_not_want_is_said(folder):
    content = content_of(6 * MIB)
    with http_servers.nginx(folder) as web:
        url = web.url("new", "signed")
        refused(put(url + "?signature=" + SECRET.replace("/", ""), content), url, "403")
        refused(put(web.url("new"), content), "405", "takes no files")
        refused(put(web.url("none/new", "put"), content), "500")
        refused(put(web.url("new", "put"), content_of(9 * MIB)), "413", "too large")
        refused(put(web.url("new", "moved"), content), "302", "elsewhere")
        refused(put(f"http://127.0.0.1:{harness.free_port()}/new", content), "connect")
    with faulty(lambda request: request.refuse(409)) as server:
        refused(put(server.url, content), "409", "no such folder")


def rule_a_web_server_that_is_cut_or_stalls_is_an_error(_):
    content = content_of(6 * MIB)

    def cut(request):
        request.handler.rfile.read(MIB)
        request.handler.close_connection = True
    with faulty(cut) as server:
        refused(put(server.url, content), server.url)

    def silent(request):
        request.body()
        request.handler.close_connection = True
    with faulty(silent) as server:
        refused(put(server.url, content), server.url)

    # More than sockets hold.
    content = content_of(40 * MIB)

    def stalls(request):
        request.handler.rfile.read(MIB)
        server.over.wait(60)
    with faulty(stalls) as server:
        refused(put(server.url, content, range_ms=4_000), "has taken nothing for 1 s")
        server.over.set()


# ---- stores

class Store:
    """Signs of life of an S3 store that judges every signature. `faults`: {number of the request: what
    is done instead of answering}."""

    def __init__(self, faults=None):
        self.faults = faults or {}
        self.objects, self.parts, self.aborted, self.log = {}, {}, [], []
        self.most_at_once = self.at_once = 0
        self.failure = None
        self.lock = threading.Lock()

    def __call__(self, request):
        method = request.handler.command
        body = request.body()
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            sigv4.judge(SECRET, method, request.path, headers)
            assert headers["x-amz-content-sha256"] == hashlib.sha256(body).hexdigest()
            assert headers["x-amz-security-token"] == TOKEN
        except (AssertionError, KeyError) as failure:
            self.failure = failure
            return request.refuse(400)
        path, _, query = request.path.partition("?")
        words = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        with self.lock:
            number = len(self.log)
            self.log.append((method, words.get("partNumber"), len(body)))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            fault = self.faults.get(number)
            if fault:
                return fault(request)
            return self.answer(request, method, path, words, body)
        finally:
            with self.lock:
                self.at_once -= 1

    UPLOAD = "a/b+c&d"

    def answer(self, request, method, path, words, body):
        if method == "POST" and "uploads" in words:
            return request.refuse(200, {}, b"<R><UploadId>a/b+c&amp;d</UploadId></R>")
        if method == "DELETE":
            self.aborted.append(words["uploadId"])
            return request.refuse(204)
        if method == "PUT" and "partNumber" in words:
            assert words["uploadId"] == self.UPLOAD, words
            self.parts[int(words["partNumber"])] = body
            return request.refuse(200, {"ETag": f'"{len(body)}&{words["partNumber"]}"'})
        if method == "POST":
            assert words["uploadId"] == self.UPLOAD, words
            named = re.findall(rb"<PartNumber>(\d+)</PartNumber><ETag>&quot;(\d+)&amp;(\d+)&quot;<",
                               body)
            assert all(one == other for one, _, other in named), body
            numbers = [int(one) for one, _, _ in named]
            assert numbers == sorted(self.parts), numbers
            self.objects[path] = b"".join(self.parts[one] for one in numbers)
            return request.refuse(200, {}, b"<CompleteMultipartUploadResult/>")
        self.objects[path] = body
        return request.refuse(200, {"ETag": '"x"'})


def keys_for(server):
    return environment(AWS_ENDPOINT_URL=f"http://127.0.0.1:{server.port}",
                       AWS_ACCESS_KEY_ID="AKIDEXAMPLE", AWS_SECRET_ACCESS_KEY=SECRET,
                       AWS_SESSION_TOKEN=TOKEN)


def rule_a_store_gets_all_of_it(_):
    for size, requests in ((0, 1), (1, 1), (16 * MIB - 1, 1), (16 * MIB, 3), (70 * MIB + 5, 7)):
        store = Store()
        with faulty(store) as server:
            put_all("s3://bucket/a b+c", content_of(size), piece=MIB, env=keys_for(server))
        assert store.failure is None, repr(store.failure)
        assert store.objects == {"/bucket/a%20b%2Bc": content_of(size)}, store.log
        assert len(store.log) == requests, store.log
        assert store.most_at_once <= 4


def rule_parts_grow_with_what_is_expected(_):
    store = Store()
    with faulty(store) as server:
        put_all("s3://bucket/x", content_of(50 * MIB), piece=MIB, expected=300 << 30,
                env=keys_for(server))
    sizes = sorted((one[2] for one in store.log if one[1]), reverse=True)
    assert sizes == [35 * MIB, 15 * MIB], sizes


def busy(request):
    request.refuse(503, {"Retry-After": "0"})


def cut(request):
    request.handler.close_connection = True


def rule_what_fails_in_a_store_is_tried_again(_):
    content = content_of(40 * MIB)
    for fault in (busy, cut):
        for number in (0, 1, 2, 3, 4):  # begin, three parts, the end
            store = Store({number: fault})
            with faulty(store) as server:
                put_all("s3://bucket/x", content, piece=MIB, env=keys_for(server))
            assert store.objects == {"/bucket/x": content}, (number, store.log)


def rule_a_store_that_does_not_take_it_keeps_nothing(_):
    content = content_of(40 * MIB)

    def denied(request):
        request.refuse(403, {}, b"<Error><Code>AccessDenied</Code></Error>")

    def no_parts(request):
        request.refuse(200, {}, b"<Error><Code>InternalError</Code></Error>")

    def no_tag(request):
        request.refuse(200)
    cases = (({0: denied}, ("403", "AccessDenied"), 0), ({2: denied}, ("403", "AccessDenied"), 1),
             ({2: no_tag}, ("no ETag",), 1), ({0: no_parts}, ("no UploadId",), 0),
             ({4: no_parts}, ("InternalError",), 1),
             ({number: busy for number in range(2, 60)}, ("503", "tried"), None))
    for faults, words, aborted in cases:
        store = Store(faults)
        with faulty(store) as server:
            refused(put("s3://bucket/x", content, piece=MIB, env=keys_for(server)), "s3://bucket/x",
                    *words)
        assert not store.objects, store.log
        assert aborted is None or len(store.aborted) == aborted, (words, store.log)
    store = Store()
    with faulty(store) as server:
        refused(put("s3://bucket/x", content, piece=MIB, give_up_at=20 * MIB, env=keys_for(server)),
                "given up")
    assert store.aborted == [Store.UPLOAD] and not store.objects, store.log
    for size in (1000, 40 * MIB):
        store = Store()
        with faulty(store) as server:
            refused(put("s3://bucket/x", content[:size], piece=MIB, give_up_at="end",
                        env=keys_for(server)), "interrupted")
        assert not store.objects and len(store.aborted) == (size > MIB), (size, store.log)


# ---- images

TARGETS = [("raw", []), ("qcow2", []), ("qcow2", ["-c"]), ("vpc", []),
           ("vpc", ["-o", "subformat=fixed,force_size=on"]), ("vmdk", []),
           ("vmdk", ["-o", "subformat=streamOptimized"])]


def make_disk(folder):
    """3 MiB with a hole, as qcow2."""
    raw, disk = os.path.join(folder, "disk.raw"), os.path.join(folder, "disk.qcow2")
    with open(raw, "wb") as out:
        out.write(content_of(MIB) + bytes(MIB) + content_of(MIB, 2))
    status, _, errors = harness.run(["qemu-img", "convert", "-O", "qcow2", raw, disk])
    assert status == 0, errors
    return disk


def convert(*words, env=None):
    return run([IMG, "convert", *words], env=env)


def rule_every_format_is_written_to_a_web_server(folder):
    disk = make_disk(folder)
    with http_servers.nginx(folder) as web:
        for target, options in TARGETS:
            name = "new." + target
            status, _, errors = convert("-O", target, *options, disk, web.url(name, "put"))
            assert status == 0, (target, options, errors)
            status, out, errors = run([IMG, "compare", "-F", target, disk, web.url(name)])
            assert status == 0, (target, options, out, errors)
            os.unlink(os.path.join(web.root, name))
        # Read from there, too. What is secret is nowhere.
        web.write("disk.qcow2", contents_of(disk))
        url = web.url("new.vmdk", "put") + "?signature=s3cr3t"
        status, _, errors = convert("-O", "vmdk", web.url("disk.qcow2"), url)
        assert status == 0, errors
        written = contents_of(os.path.join(web.root, "new.vmdk"))
        assert b"s3cr3t" not in written and b"new.vmdk" in written


class Shelf:
    """A web server that keeps what it gets; `answer(request)` may refuse it first, and says so."""

    def __init__(self, answer):
        self.answer = answer
        self.objects = {}
        self.lengths = []  # as the requests state them

    def __call__(self, request):
        self.lengths.append(request.headers.get("Content-Length"))
        if self.answer(request):
            return
        body = request.body()
        if len(body) == int(self.lengths[-1] or len(body)):
            self.objects[request.path] = body
            request.refuse(201)


def rule_a_length_that_is_known_is_stated(folder):
    disk = make_disk(folder)
    os.mkdir(os.path.join(folder, "local"))
    # Amazon's presigned URLs take nothing else.
    for status in (411, 501):
        def wants_length(request, status=status):
            if not request.headers.get("Content-Length"):
                request.refuse_and_end(status)
                return True
            return False
        shelf = Shelf(wants_length)
        with faulty(shelf) as server:
            for target, options in TARGETS:
                path = f"{folder}/local/disk.raw"
                assert convert("-O", target, *options, disk, path)[0] == 0
                done = convert("-O", target, *options, disk, server.url)
                if "subformat=streamOptimized" in options:
                    refused(done, str(status), "to a file")
                    continue
                assert done[0] == 0, (target, options, done)
                assert shelf.objects == {"/disk.raw": contents_of(path)}, (target, options)
                assert shelf.lengths[-1] == str(os.path.getsize(path)), shelf.lengths


def rule_a_length_that_is_stated_is_no_object_before_the_end(folder):
    content = content_of(3 * MIB)
    with http_servers.nginx(folder) as web, faulty(Shelf(lambda _: False)) as server:
        path = web.write("disk", b"old")
        for size in (1, 1000, len(content)):
            for url in (web.url("disk", "put"), server.url):
                refused(put(url, content[:size], expected=f"={size}", give_up_at="end"),
                        "interrupted")
                refused(put(url, content[:size], expected=f"={size + 1}"), url, f"there are {size}")
                refused(put(url, content[:size], expected=f"={size - 1}"), url, f"there are {size}")
        assert contents_of(path) == b"old"
        assert server.answer.objects == {}, server.answer.objects.keys()
        for size in (0, 1, len(content)):
            put_all(web.url("disk", "put"), content[:size], expected=f"={size}")
            assert contents_of(path) == content[:size]


def rule_a_refusal_whose_end_is_lost_is_one(folder):
    disk = make_disk(folder)

    def denied(request):
        request.refuse_and_end(403, {"Content-Length": "400"},
                               b"<Error><Code>AccessDenied</Code></Error>")
        return True
    with faulty(Shelf(denied)) as server:
        refused(convert("-O", "qcow2", disk, server.url), "403", "AccessDenied")
        assert len(server.requests) == 1, len(server.requests)


def rule_a_refusal_whose_end_never_comes_is_one(_):
    def denied(request):
        request.handler.send_response(403)
        request.handler.send_header("Content-Length", "400")
        request.handler.end_headers()
        request.handler.wfile.write(b"<Error><Code>AccessDenied</Code>")
        server.over.wait(60)
    with faulty(denied) as server:
        refused(put(server.url, content_of(MIB), range_ms=4_000), "403", "AccessDenied")
        server.over.set()


def rule_an_image_that_is_kept_is_sent_again(folder):
    disk = make_disk(folder)

    def busy_twice(request):
        if request.number < 2:
            request.body()
            busy(request)
        return request.number < 2

    def cut_twice(request):
        if request.number < 2:
            request.handler.rfile.read(100_000)
            cut(request)
        return request.number < 2

    def busy_for_long(request):
        request.refuse_and_end(503, {"Retry-After": "600"})
        return True
    for fault in (busy_twice, cut_twice):
        shelf = Shelf(fault)
        with faulty(shelf) as server:
            status, _, errors = convert("-O", "qcow2", disk, server.url)
            assert status == 0 and not errors, errors
            assert len(server.requests) == 3, len(server.requests)
        again = os.path.join(folder, "again.qcow2")
        with open(again, "wb") as out:
            out.write(shelf.objects["/disk.raw"])
        assert run([IMG, "compare", disk, again])[0] == 0
        # What is not kept is gone.
        with faulty(Shelf(fault)) as server:
            refused(convert("-O", "raw", disk, server.url), server.url)
            assert len(server.requests) == 1, len(server.requests)
    with faulty(Shelf(busy_for_long)) as server:
        refused(convert("-O", "qcow2", disk, server.url), "503", "wants 600 s", "at most 300")
        assert len(server.requests) == 1, len(server.requests)

    def busy_for_ever(request):
        request.body()
        busy(request)
        return True
    with faulty(Shelf(busy_for_ever)) as server:
        refused(convert("-O", "qcow2", disk, server.url), "503", "tried 8 times")
        assert len(server.requests) == 8, len(server.requests)


def rule_who_interrupts_does_not_wait_for_the_next_try(folder):
    disk = make_disk(folder)
    tried = threading.Event()

    def busy_for_a_while(request):
        request.body()
        request.refuse(503, {"Retry-After": "250"})
        tried.set()
        return True
    with faulty(Shelf(busy_for_a_while)) as server:
        with subprocess.Popen([IMG, "convert", "-O", "qcow2", disk, server.url], env=environment(),
                              stderr=subprocess.PIPE, text=True) as process:
            try:
                assert tried.wait(30)
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=10)
            finally:
                process.kill()
        assert process.returncode == -signal.SIGINT, process.returncode
        assert len(server.requests) == 1


def rule_an_overlay_is_beside_its_parent_on_the_server(folder):
    raw, ranges = os.path.join(folder, "disk.raw"), os.path.join(folder, "map")
    with open(raw, "wb") as out:
        out.write(content_of(MIB))
    with open(ranges, "w", encoding="ascii") as out:
        out.write('[{"start": 65536, "length": 131072, "data": true}]')
    with http_servers.nginx(folder) as web:
        assert convert("-f", "raw", "-O", "vpc", raw, web.url("base.vhd", "put"))[0] == 0
        with open(raw, "r+b") as disk:
            disk.seek(64 * KIB)
            disk.write(content_of(128 * KIB, 2))

        def write(parent, target):
            return convert("-f", "raw", "-O", "vpc", "--data-map", ranges, "-B", parent, "-F", "vpc",
                           raw, target)
        status, _, errors = write("base.vhd", web.url("top.vhd", "put") + "?signature=s3cr3t")
        assert status == 0 and not errors, errors
        assert run([IMG, "compare", "-f", "raw", raw, web.url("top.vhd")])[0] == 0
        url = web.url("new.vhd", "put")
        refused(write(os.path.join(web.root, "base.vhd"), url), url, "-B", "absolute path")
        refused(write("../base.vhd", url), "-B", "out of")
        refused(write("none.vhd", url), web.url("none.vhd", "put"), "404")
        assert convert("-f", "raw", "-O", "vpc", raw, url)[0] == 0
        # However that is written; nor that one's parent, nor what is read.
        base = contents_of(os.path.join(web.root, "base.vhd"))
        for target in ("new.vhd?x=1", "%6eew.vhd", "./new.vhd", "a/../new.vhd"):
            status, _, errors = write("new.vhd", web.url(target, "put"))
            assert status == 1 and "is the target itself" in errors, errors
        for target in ("%62ase.vhd", "./base.vhd", "../put/base.vhd", "x//../../base.vhd"):
            refused(write("top.vhd", web.url(target, "put")), "is a file of the image that is read")
            refused(convert("-O", "raw", web.url("base.vhd", "put"), web.url(target, "put")),
                    "is a file of the image that is read")
        assert contents_of(os.path.join(web.root, "base.vhd")) == base
        local = [os.path.join(folder, name) for name in ("ra.qcow2", "rb.qcow2")]
        harness.run(["qemu-img", "create", "-q", "-f", "qcow2", local[0], "1M"])
        harness.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "ra.qcow2", "-F", "qcow2",
                     local[1]])
        for path in local:
            web.write(os.path.basename(path), contents_of(path))
        refused(convert("-f", "raw", "-O", "qcow2", "--data-map", ranges, "-B", "rb.qcow2", "-F",
                        "qcow2", raw, web.url("ra.qcow2", "put")), "is a file of the image")
        # A parent in a folder that is allowed.
        os.mkdir(os.path.join(web.root, "sub"))
        inner = web.url("sub/top.vhd", "put")
        refused(write("../base.vhd", inner), "-B", "--allow-path URL")
        allowed = ["--allow-path", web.url("", "put")]
        status, _, errors = convert("-f", "raw", "-O", "vpc", "--data-map", ranges, "-B",
                                    "../base.vhd", "-F", "vpc", *allowed, raw, inner)
        assert status == 0, errors
        assert run([IMG, "compare", *allowed, "-f", "raw", raw, inner])[0] == 0


def rule_an_image_that_cannot_be_written_to_a_server_is_none(folder):
    disk = make_disk(folder)
    with http_servers.nginx(folder) as web:
        web.write("disk.qcow2", contents_of(disk))
        for target, options in TARGETS:
            url = web.url("new")
            refused(convert("-O", target, *options, disk, url), url, "405")
        url = web.url("disk.qcow2", "put")
        refused(convert("-O", "raw", url, url + "?signature=s3cr3t"), "is a file of the image")
        env = environment(TMPDIR=os.path.join(folder, "none"))
        refused(convert("-O", "qcow2", disk, web.url("new", "put"), env=env), "TMPDIR", "none")
        # What is read fails half-way.
        broken = os.path.join(folder, "broken.qcow2")
        with open(broken, "wb") as out:
            out.write(contents_of(disk)[:-MIB])
        refused(convert("-O", "raw", broken, web.url("new", "put")), broken)
        assert os.listdir(web.root) == ["disk.qcow2"], os.listdir(web.root)


def rule_a_real_store_takes_objects(folder):
    with swift_store.swift(folder) as store:
        env = environment(**store.environment())
        store.put("images")
        for size in (5, 40 * MIB + 1):
            name = f"s3://images/dir/a b+{size}"
            put_all(name, content_of(size), piece=MIB, env=env)
            status, out, errors = run([DUMP, "read", name, 20_000, 2, 3 * MIB], env=env)
            assert status == 0, errors
            assert out == content_of(size), "other bytes"
        refused(put("s3://images/none", content_of(20 * MIB), give_up_at=17 * MIB, env=env),
                "given up")
        refused(run([DUMP, "read", "s3://images/none", 20_000, 1, MIB], env=env), "404")
        refused(put("s3://no-such-bucket/x", b"x", env=env), "404", "NoSuchBucket")
        disk = make_disk(folder)
        for target, options in TARGETS:
            url = f"s3://images/of/{target}"
            status, _, errors = convert("-O", target, *options, disk, url, env=env)
            assert status == 0, errors
            status, out, errors = run([IMG, "compare", "-F", target, disk, url], env=env)
            assert status == 0, (target, options, out, errors)


def main():
    global PUT, DUMP, IMG
    PUT, DUMP, IMG = sys.argv[1:4]
    harness.run_rules(globals(), sys.argv[4:])


main()
