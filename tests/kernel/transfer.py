#!/usr/bin/python3
"""Volumes become images, in files and on servers, and images become volumes."""
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile

import guest
from guest import (MIB, PROGRAMS, WORK, check, create, equal, everything, must, pool, read_at, run,
                   same_contents, scenario, template, templates, thin, thin_refuses,
                   wait_for, write_at)

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../interop"))
import http_servers

IMG = PROGRAMS / "underlay-img"
FORMATS = [("raw", []), ("qcow2", []), ("qcow2", ["-c"]), ("vpc", ["-o", "force_size=on"]),
           ("vmdk", ["-o", "subformat=streamOptimized"])]


def same_disk(path, format_, device):
    must(IMG, "compare", "-f", format_, "-F", "raw", path, device)


def volumes():
    return [volume["name"] for volume in thin("list")["volumes"]]


@contextlib.contextmanager
def web_server():
    with tempfile.TemporaryDirectory(dir="/run") as folder, http_servers.nginx(folder) as web:
        yield web


@scenario
def a_volume_is_written_in_every_format():
    one = template("plain.qcow2")
    with pool():
        device = create("volume", one)
        write_at(device, 3 * MIB, b"written")
        write_at(device, 5 * MIB, bytes(MIB))
        for format_, options in FORMATS:
            target = WORK / ("image." + format_)
            answer = thin("export", "volume", target, "-O", format_, *options)
            equal((answer["name"], answer["target"], answer["format"]),
                  ("volume", str(target), format_), "the answer")
            same_disk(target, format_, device)
            equal(volumes(), ["volume"], "volumes")
            target.unlink()
        equal(os.listdir(WORK), ["pool"], "what is left in the folder")


@scenario
def only_what_there_is_is_read():
    """A large volume with little in it: its end, too."""
    one = template("plain.qcow2")
    with pool(size="256M"):
        device = create("volume", one, "--size", "100G")
        write_at(device, (100 << 30) - 4096, b"last")
        target = WORK / "image.qcow2"
        thin("export", "volume", target, "-O", "qcow2", seconds=50)
        info = json.loads(must(IMG, "info", "--output=json", target))
        equal(info["virtual-size"], 100 << 30, "the size")
        check(os.path.getsize(target) < 64 * MIB, f"{os.path.getsize(target)} bytes")
        thin("import", "copy", target, "--pool", "pool")
        equal(read_at("/dev/mapper/copy", (100 << 30) - 4096, 4), b"last", "the end")
        with open(one.raw, "rb") as file:
            equal(read_at("/dev/mapper/copy", 0, one.size) == file.read(), True, "the beginning")


@scenario
def what_changed_since_a_snapshot_is_an_overlay_on_its_image():
    one = template("plain.qcow2")
    with pool():
        device = create("volume", one)
        write_at(device, 2 * MIB, b"before" * 1000)
        thin("snapshot", "volume", "monday")
        thin("export", "monday", WORK / "monday.qcow2", "-O", "qcow2")
        # Bytes, zeros where there were some, and the end of the disk.
        write_at(device, 2 * MIB + 100, b"after")
        write_at(device, 5 * MIB, bytes(MIB))
        write_at(device, one.size - 5, b"last!")
        thin("export", "volume", WORK / "tuesday.qcow2", "-O", "qcow2", "--since", "monday",
             "--backing", "monday.qcow2")
        same_disk(WORK / "monday.qcow2", "qcow2", "/dev/mapper/monday")
        same_disk(WORK / "tuesday.qcow2", "qcow2", device)
        must("qemu-img", "check", "-q", WORK / "tuesday.qcow2")
        must("qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", WORK / "tuesday.qcow2", device)
        info = json.loads(must(IMG, "info", "--output=json", WORK / "tuesday.qcow2"))
        equal((info["backing-filename"], info["backing-filename-format"]),
              ("monday.qcow2", "qcow2"), "the backing file")
        check(os.path.getsize(WORK / "tuesday.qcow2") < 2 * MIB, "more than what changed")
        # Compressed, and nothing changed.
        thin("export", "volume", WORK / "packed.qcow2", "-O", "qcow2", "-c", "--since", "monday",
             "--backing", "monday.qcow2")
        same_disk(WORK / "packed.qcow2", "qcow2", device)
        thin("snapshot", "volume", "wednesday")
        thin("export", "wednesday", WORK / "same.qcow2", "-O", "qcow2", "--since", "volume",
             "--backing", "tuesday.qcow2")
        same_disk(WORK / "same.qcow2", "qcow2", device)
        # The same as differencing vhds.
        thin("export", "monday", WORK / "monday.vhd", "-O", "vpc")
        thin("export", "volume", WORK / "tuesday.vhd", "-O", "vpc", "--since", "monday",
             "--backing", "monday.vhd")
        same_disk(WORK / "tuesday.vhd", "vpc", device)
        check(os.path.getsize(WORK / "tuesday.vhd") < 7 * MIB, "more than the blocks that changed")
        thin("export", "wednesday", WORK / "same.vhd", "-O", "vpc", "--since", "volume",
             "--backing", "tuesday.vhd")
        same_disk(WORK / "same.vhd", "vpc", device)
        check(os.path.getsize(WORK / "same.vhd") < MIB // 16, "more than nothing")
        thin_refuses("export", "volume", WORK / "no.vhd", "-O", "vpc", "--since", "monday",
                     "--backing", "none.vhd", words=["none.vhd"])
        # A parent whose own one lies elsewhere.
        (WORK / "later").mkdir()
        thin("export", "volume", WORK / "later" / "tuesday.vhd", "-O", "vpc", "--since", "monday",
             "--backing", "../monday.vhd")
        words = ["export", "wednesday", WORK / "later" / "same.vhd", "-O", "vhd", "--since", "volume",
                 "--backing", "tuesday.vhd"]
        thin_refuses(*words, words=["--allow-path"])
        thin(*words, "--allow-path", WORK)
        must(IMG, "compare", "--allow-path", WORK, "-f", "vpc", "-F", "raw",
             WORK / "later" / "same.vhd", device)
        create("other", one)
        write_at("/dev/mapper/other", 0, b"x")
        for since, why in (("volume", "must be a snapshot"), ("none", "none")):
            thin_refuses("export", "volume", WORK / "no.qcow2", "-O", "qcow2", "--since", since,
                         "--backing", "x", words=[why])
        for words in (["-O", "qcow2", "--since", "monday"], ["-O", "qcow2", "--backing", "x"],
                      ["--since", "monday", "--backing", "x"]):
            status, _, errors = run(guest.THIN, "export", "volume", WORK / "no.qcow2", *words)
            equal(status, 2, errors)
            check("--since" in errors, errors)


@scenario
def a_volume_in_use_is_written_as_it_was():
    one = template("plain.qcow2")
    with pool():
        device = create("volume", one)
        with guest.mounted(device) as files:
            (files / "before").write_text("x" * 1000)
            thin("export", "volume", WORK / "image.raw")
            (files / "after").write_text("y")
        thin("import", "copy", WORK / "image.raw", "--format", "raw", "--pool", "pool")
        with guest.mounted("/dev/mapper/copy") as files:
            equal((files / "before").read_text(), "x" * 1000, "what was there")
            check(not (files / "after").exists(), "what came later is in the image")


@scenario
def an_import_needs_its_image_no_more():
    for one in templates():
        with pool():
            before = everything()
            thin("import", "volume", one.path, "--format", one.format, "--pool", "pool")
            same_contents("/dev/mapper/volume", one.raw)
            equal(everything()["servers"], before["servers"], "servers")
            equal(everything()["nbd"], before["nbd"], "nbd devices")


@scenario
def servers_take_volumes_and_give_them():
    one = template("compressed.qcow2")
    with web_server() as web, pool():
        device = create("volume", one)
        write_at(device, 3 * MIB, b"written")
        answer = thin("export", "volume", web.url("image.qcow2", "put"), "-O", "qcow2", "-c")
        equal(answer["target"], web.url("image.qcow2", "put"), "the target")
        same_disk(os.path.join(web.root, "image.qcow2"), "qcow2", device)
        thin("remove", "volume")
        # The server's own word, in one line; and nothing is left.
        create("volume", one)
        thin_refuses("export", "volume", web.url("image.qcow2"), words=["405", web.url("")])
        equal(volumes(), ["volume"], "volumes")


@scenario
def an_export_that_fails_or_is_interrupted_leaves_nothing():
    one = template("plain.qcow2")
    with pool():
        create("volume", one)
        before = everything()
        thin_refuses("export", "volume", WORK / "none" / "image", words=["none"])
        thin_refuses("export", "volume", WORK / "image", "-O", "vhdx", words=["vhdx"])
        thin_refuses("export", "none", WORK / "image", words=["none"])
        equal((everything(), volumes(), os.listdir(WORK)), (before, ["volume"], ["pool"]),
              "what is left")
        must("mkfifo", WORK / "pipe")
        thin_refuses("export", "volume", WORK / "pipe", words=["no regular file"])
        (WORK / "pipe").unlink()
        equal((everything(), volumes()), (before, ["volume"]), "what is left")


@scenario
def an_interrupted_export_ends_soon():
    one = template("plain.qcow2")

    def answer(request):  # takes nothing
        server.over.wait(60)
    with http_servers.faulty(answer) as server, pool():
        device = create("volume", one)
        before = everything()
        process = subprocess.Popen([guest.THIN, "export", "volume", server.url],
                                   stderr=subprocess.PIPE, text=True)
        wait_for(lambda: server.requests, "the upload begins")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        server.over.set()
        equal(process.returncode, 1, errors)
        check("interrupted" in errors and errors.count("\n") == 1, errors)
        equal((everything(), volumes()), (before, ["volume"]), "what is left")
        check(os.path.exists(device), device)


guest.main()
