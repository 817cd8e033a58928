#!/usr/bin/python3
"""underlay-img check beyond what it counts: exports, images that are open elsewhere, what is told
twice.

usage: img_check_rules_test.py UNDERLAY_IMG [RULE...]     RULE: part of a rule's name; only those run
"""
import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time

import rules_in_folders
from img_lab import KIB, MIB, Lab, interrupted, patch, qcow2_of_many_tables
from nbd_servers import nbdkit

# QEMU's lock bytes of an image: who writes, and whom it lets share that.
WRITES, SHARES_NO_WRITER = 101, 201


def check(lab, *words):
    """Exit status, JSON."""
    done = lab.run("check", "--output=json", *words)
    return done.status, json.loads(done.stdout or "null"), done.stderr


def rule_an_export_is_checked(lab):
    """Which serves one client at a time, as qemu-nbd does."""
    image = lab.qcow2("disk.qcow2", MIB, "write 0 64k")
    socket = lab.path("socket")
    words = ["qemu-nbd", "-r", "-t", "-e", "2", "-f", "raw", "-k", socket, image]
    with subprocess.Popen(words) as server:
        try:
            uri = f"nbd+unix:///?socket={socket}"
            for _ in range(200):
                if lab.run("info", "-f", "raw", uri).status == 0:
                    break
                time.sleep(0.05)
            status, document, errors = check(lab, "-f", "qcow2", uri)
            assert (status, errors) == (0, ""), (status, document, errors)
            assert document["total-clusters"] == 16 and document["allocated-clusters"] == 1, document
        finally:
            server.terminate()


def rule_a_backing_file_that_is_written_to_is_shared_when_asked(lab):
    base = lab.qcow2("base.qcow2", MIB)
    top = lab.qcow2("top.qcow2", MIB, backing=base)
    with open(base, "r+b") as writer:
        for byte in (WRITES, SHARES_NO_WRITER):
            fcntl.lockf(writer, fcntl.LOCK_SH, 1, byte)
        assert check(lab, top)[0] == 1
        status, document, errors = check(lab, "-U", top)
        assert (status, errors) == (0, ""), (document, errors)


def rule_one_defect_is_told_once(lab):
    """Also when it is why the image is not served."""
    image = lab.qcow2("disk.qcow2", MIB)
    patch(image, 40, struct.pack(">Q", 0x30001))  # l1_table_offset
    _, document, errors = check(lab, image)
    told = [finding["message"].split(": ", 1)[-1].split(" (at byte")[0]
            for finding in (document or {"findings": []})["findings"]]
    assert len(told) == len(set(told)) and (told or errors), (document, errors)


def rule_a_place_is_told_once(lab):
    """Also of what is wrong in a file that the image names."""
    image = lab.path("disk.vmdk")
    subprocess.run(["qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse",
                    image, "64M"], check=True)
    lab.write("vmdk", image, "write 0 1M")
    os.truncate(lab.path("disk-s001.vmdk"), 128 * KIB)
    for command in ("check", "info", "map", "audit"):
        lines = lab.run(command, "-f", "vmdk", image).stderr.splitlines()
        told = [line.count("(at byte ") for line in lines]
        assert max(told, default=0) <= 1, lines
        assert command != "check" or 1 in told, lines


def rule_who_interrupts_is_told_how_far_it_got(lab):
    image = qcow2_of_many_tables(lab.path("disk.qcow2"))
    with nbdkit("--filter=delay", "file", image, "rdelay=2ms") as server:
        status, out, errors = interrupted([lab.program, "check", "-f", "qcow2", server.uri], after=3)
    assert status == -signal.SIGINT and not out, (status, out)
    told = re.fullmatch(r"underlay-img: interrupted: (\d+) of (\d+) bytes checked\n", errors)
    assert told and 0 < int(told[1]) < int(told[2]) == os.path.getsize(image), errors


rules_in_folders.main(Lab, sys.modules[__name__])
