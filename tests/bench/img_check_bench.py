#!/usr/bin/python3
"""underlay-img check of disks of 1 TiB takes seconds and less than 256 MiB of memory, and counts what
qemu-img check counts: one with 1 GiB of scattered data, and one whose metadata is all there
(preallocation=metadata). Both are sparse files, which take 170 MB of disk.

usage: img_check_bench.py UNDERLAY_IMG
"""
import array
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

MIB = 1 << 20
CLUSTER = 64 << 10
ENTRIES = CLUSTER // 8       # of an L2 table
TABLES = (1 << 40) // (CLUSTER * ENTRIES)
BLOCK = CLUSTER * 8 // 16    # clusters for which a block has refcounts
COPIED = 1 << 63

MAX_SECONDS = 20
MAX_RESIDENT = 256 * MIB
COUNTS = ("image-end-offset", "total-clusters", "allocated-clusters", "fragmented-clusters",
          "corruptions", "leaks", "check-errors")


def words_of(numbers):
    """Big-endian, 8 bytes each."""
    words = array.array("Q", numbers)
    if sys.byteorder == "little":
        words.byteswap()
    return words.tobytes()


class Image:
    """A qcow2 image of 1 TiB: header, L1 table; further clusters one after the other."""

    def __init__(self, path):
        self.file = open(path, "wb")
        self.next = 2  # cluster
        self.l1 = [0] * TABLES

    def take(self, count=1):
        self.next += count
        return self.next - count

    def write(self, cluster, data):
        self.file.seek(cluster * CLUSTER)
        self.file.write(data)

    def add_table(self, number, entries):
        """`entries`: {number in the table: cluster}, or all of the table's words."""
        table = self.take()
        self.l1[number] = table * CLUSTER | COPIED
        if isinstance(entries, bytes):
            self.write(table, entries)
            return
        for at, cluster in entries.items():
            self.file.seek(table * CLUSTER + at * 8)
            self.file.write(struct.pack(">Q", cluster * CLUSTER | COPIED))

    def finish(self):
        """All clusters so far, and those that the refcounts take, have refcount 1."""
        reftable = self.take()
        blocks = 1
        while blocks * BLOCK < self.next + blocks:
            blocks += 1
        first = self.take(blocks)
        for number in range(blocks):
            used = min(self.next - number * BLOCK, BLOCK)
            self.write(first + number, b"\0\1" * used)
        self.write(reftable, words_of((first + n) * CLUSTER for n in range(blocks)))
        self.write(1, words_of(self.l1))
        self.write(0, struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, 16, 1 << 40, 0,
                                  TABLES, CLUSTER, reftable * CLUSTER, 1, 0, 0, 0, 0, 0, 4, 104))
        self.file.truncate(self.next * CLUSTER)
        self.file.close()


def scattered(path):
    """8 clusters of data for each L2 table, 1 GiB, in no order."""
    rng = random.Random(1)
    image = Image(path)
    data = [image.take() for _ in range(8 * TABLES)]
    rng.shuffle(data)
    for number in range(TABLES):
        image.add_table(number, {at: data.pop() for at in rng.sample(range(ENTRIES), 8)})
    image.finish()


def preallocated(path):
    image = Image(path)
    for number in range(TABLES):
        data = image.take(ENTRIES)
        image.add_table(number, words_of(cluster * CLUSTER | COPIED
                                         for cluster in range(data, data + ENTRIES)))
    image.finish()


class Run(NamedTuple):
    document: dict
    seconds: float
    resident: int


def check(program, path):
    begun = time.monotonic()
    process = subprocess.Popen([program, "check", "--output=json", "-f", "qcow2", path],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, output
    return Run(json.loads(output), time.monotonic() - begun, usage.ru_maxrss * 1024)


def main():
    program, = sys.argv[1:]
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for make in (scattered, preallocated):
            path = os.path.join(folder, "disk.qcow2")
            make(path)
            ours, theirs = check(program, path), check("qemu-img", path)
            for name, run in (("underlay-img", ours), ("qemu-img", theirs)):
                print(f"{make.__name__:>12} {name:>12}: {run.seconds:.2f} s, "
                      f"{run.resident / MIB:.0f} MiB", flush=True)
            equal = all(ours.document.get(key) == theirs.document.get(key) for key in COUNTS)
            bounded = ours.seconds < MAX_SECONDS and ours.resident < MAX_RESIDENT
            if not (equal and bounded):
                failed = True
                print("FAIL", make.__name__, ours.document, theirs.document)
            os.unlink(path)
    sys.exit(failed)


main()
