#!/usr/bin/python3
"""Images on web servers and in S3 stores under thin volumes: our server reads them there, and keeps
what it read; one that changed is refused."""
import contextlib
import os
import pathlib
import shutil
import sys
import tempfile

import guest
from guest import (WORK, check, create, equal, everything, must, pool, read_at,
                   same_contents, scenario, servers, template, templates, thin, thin_refuses,
                   wait_for, write_at)

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../interop"))
import http_servers
import swift_store

CACHE = pathlib.Path("/run/cache")


@contextlib.contextmanager
def keeps(cache):
    """All of underlay-thin's commands keep what they read in that folder."""
    program = guest.THIN
    wrapper = WORK / "underlay-thin"
    wrapper.write_text(f"#!/bin/sh\nexec {program} --cache-dir '{cache}' \"$@\"\n")
    wrapper.chmod(0o755)
    guest.THIN = wrapper
    try:
        yield
    finally:
        guest.THIN = program
        shutil.rmtree(cache, ignore_errors=True)


@contextlib.contextmanager
def environment(**variables):
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


# Images that name their parent by its path on the machine that made them.
PARENTS = {"chain.qcow2": "plain.qcow2", "chain-on-compressed.qcow2": "compressed.qcow2"}


class Far:
    """A template in a folder on a server."""

    def __init__(self, one, folder):
        self.raw, self.size = one.raw, one.size
        self.address = folder + one.name
        self.image = ["--image", self.address, "--format", one.format]
        if one.name in PARENTS:
            self.image += ["--parent", f"{one.name}={folder}{PARENTS[one.name]}"]


def image_files():
    folder = pathlib.Path(templates()[0].path).parent
    return [path for path in folder.iterdir() if path.suffix not in (".raw", ".json")]


@contextlib.contextmanager
def ext4():
    """A folder for Swift, which wants extended attributes."""
    with tempfile.TemporaryDirectory(dir="/run") as folder:
        image, place = os.path.join(folder, "image"), os.path.join(folder, "files")
        os.mkdir(place)
        must("truncate", "-s", "300M", image)
        must("mke2fs", "-q", "-F", "-t", "ext4", image)
        must("mount", "-o", "loop", image, place)
        try:
            yield place
        finally:
            must("umount", place)


@contextlib.contextmanager
def web_server():
    with tempfile.TemporaryDirectory(dir="/run") as folder, http_servers.nginx(folder) as web:
        yield web


def put(web, one):
    """With all that it may name."""
    for path in image_files():
        if not os.path.exists(os.path.join(web.root, path.name)):
            web.write(path.name, path.read_bytes())
    return Far(one, web.url(""))


@scenario
def every_format_on_a_web_server_is_a_volume():
    with web_server() as web, keeps(CACHE), pool():
        for one in templates():
            device = create("volume", put(web, one))
            same_contents(device, one.raw)
            write_at(device, 0, b"written")
            equal(read_at(device, 0, 7), b"written", "what was written")
            thin("snapshot", "volume", "snapshot")
            thin("remove", "volume")
            equal(read_at("/dev/mapper/snapshot", 0, 7), b"written", "what a snapshot has")
            thin("remove", "snapshot")


@scenario
def what_was_read_is_read_from_the_server_once():
    one = template("plain.qcow2")
    with web_server() as web, keeps(CACHE), pool():
        same_contents(create("volume", put(web, one)), one.raw)
        thin("deactivate", "--all")
        equal(servers(), [], "servers")
        before = len(web.requests())
        thin("activate", "--all")
        guest.drop_caches()
        same_contents("/dev/mapper/volume", one.raw)
        # To learn which object it is, by the process that looks at it and by the server.
        after = [request[2] for request in web.requests()[before:]]
        check(len(after) <= 24, f"requests for what is there already: {after}")


@scenario
def a_cache_whose_disk_is_full_gives_right_data():
    one = template("plain.qcow2")
    disk = pathlib.Path("/run/small")
    disk.mkdir()
    must("mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", disk)
    try:
        with web_server() as web, keeps(disk / "cache"), pool():
            device = create("volume", put(web, one))
            same_contents(device, one.raw)
            check(os.statvfs(disk).f_bavail * 4096 < 256 << 10, "the disk is not full")
            guest.drop_caches()
            same_contents(device, one.raw)
    finally:
        must("umount", disk)
        disk.rmdir()


@scenario
def a_server_that_is_killed_comes_back():
    one = template("plain.qcow2")
    with web_server() as web, keeps(CACHE), pool():
        device = create("volume", put(web, one))
        must("kill", "-9", servers()[0])
        thin("watch", "--once")
        wait_for(lambda: len(servers()) == 1, "a server runs again")
        same_contents(device, one.raw)
        answer = thin("upgrade", "--all")
        equal([image["method"] for image in answer["images"]], ["handover"], "how it was upgraded")
        guest.drop_caches()
        same_contents(device, one.raw)


@scenario
def an_object_that_changed_is_refused():
    one = template("plain.qcow2")
    with web_server() as web, keeps(CACHE), pool():
        far = put(web, one)
        create("volume", far)
        thin("deactivate", "--all")
        web.write(one.name, pathlib.Path(one.path).read_bytes())
        thin_refuses("activate", "volume", words=["changed on its server", far.address,
                                                  "--accept-changed-image"])
        equal(servers(), [], "servers")
        thin("activate", "volume", "--accept-changed-image")
        same_contents("/dev/mapper/volume", one.raw)


@scenario
def what_cannot_last_is_refused():
    one = template("plain.qcow2")
    with web_server() as web, keeps(CACHE), pool() as name:
        put(web, one)
        for location, words in ((web.url(one.name, "signed") + "?signature=s3cr3t", ["query"]),
                                (web.url(one.name, "untagged"), ["strong ETag"]),
                                (web.url("none"), ["404"])):
            before = everything()
            errors = thin_refuses("create", "volume", "--image", location, "--pool", name,
                                  words=words)
            check("s3cr3t" not in errors, errors)
            equal(everything(), before, "what a refusal leaves")
        thin_refuses("create", "volume", "--image", web.url(one.name), "--pool", name, "--direct",
                     "always", words=["directly"])


@scenario
def an_image_in_an_s3_store_lies_under_a_volume():
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(swift_store.swift(stack.enter_context(ext4())))
        store.put("images")
        for path in image_files():
            store.put("images", "of/" + path.name, path.read_bytes())
        stack.enter_context(environment(**store.environment()))
        stack.enter_context(keeps(CACHE))
        stack.enter_context(pool())
        # A chain, too.
        for name in ("plain.qcow2", "chain.qcow2"):
            one = template(name)
            device = create("volume", Far(one, "s3://images/of/"))
            same_contents(device, one.raw)
            write_at(device, 4096, b"written")
            thin("deactivate", "--all")
            thin("activate", "--all")
            equal(read_at(device, 4096, 7), b"written", "what was written")
            thin("hydrate", "volume")
            equal(servers(), [], "servers of a volume that has all")
            equal(read_at(device, 4096, 7), b"written", "what was written")
            thin("remove", "volume")


guest.main()
