#!/usr/bin/python3
"""Persistent dirty bitmaps are exported as qemu-nbd exports them: the same contexts under the same
options, the same answers about every byte, the same refusals.

usage: dirty_bitmaps_test.py UNDERLAY_NBD
"""
import json
import os
import random
import struct
import subprocess
import sys
import tempfile

import harness
from harness import run

KIB = 1 << 10
MIB = 1 << 20
AUTOCLEAR = 88  # autoclear_features lies here; bit 0 makes bitmaps valid


def qemu_img(*words):
    subprocess.run(["qemu-img", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def qemu_io(path, commands):
    words = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", "-f", "qcow2", *words, path], check=True, stdout=subprocess.DEVNULL)


def scattered_writes(size, count, seed):
    rng = random.Random(seed)
    for _ in range(count):
        length = 512 * rng.randrange(1, 300)
        yield f"write -q {512 * rng.randrange((size - length) // 512)} {length}"


class Images:
    def __init__(self, folder):
        self.folder = folder

    def path(self, name):
        return os.path.join(self.folder, name)

    def create(self, name, size, bitmaps, options="", backing=None):
        """`bitmaps`: {name: granularity}, from before the first write on."""
        path = self.path(name)
        words = ["create", "-q", "-f", "qcow2"]
        if options:
            words += ["-o", options]
        if backing:
            words += ["-b", backing, "-F", "qcow2"]
        qemu_img(*words, path, size)
        for bitmap, granularity in bitmaps.items():
            qemu_img("bitmap", "--add", "-g", granularity, path, bitmap)
        return path

    def patched(self, path, name, offset, data):
        patched = self.path(name)
        with open(path, "rb") as source, open(patched, "wb") as target:
            content = bytearray(source.read())
            content[offset:offset + len(data)] = data
            target.write(content)
        return patched


def contexts(server):
    status, output, errors = run(["nbdinfo", "--json", server.uri])
    assert status == 0, errors
    return json.loads(output)["exports"][0]["contexts"]


def dirty_map(server, bitmap):
    """[(offset, length, flags)], equal neighbours joined."""
    status, output, errors = run(["nbdinfo", "--json", f"--map=qemu:dirty-bitmap:{bitmap}",
                                  server.uri])
    assert status == 0, errors
    merged = []
    for extent in json.loads(output):
        if merged and merged[-1][2] == extent["type"]:
            offset, length, kind = merged.pop()
            merged.append((offset, length + extent["length"], kind))
        else:
            merged.append((extent["offset"], extent["length"], extent["type"]))
    return merged


class Test:
    def __init__(self, underlay, images):
        self.underlay = underlay
        self.images = images

    def same_as_qemu(self, path, bitmaps, dirty=True):
        words = ["-r", "-A"]
        for bitmap in bitmaps:
            words += ["-B", bitmap]
        words += ["-f", "qcow2", path]
        with (harness.serve(words, program=self.underlay) as ours,
              harness.serve(words, program="qemu-nbd") as qemus):
            # qemu-nbd lists them in the opposite order of its options.
            mine, its = sorted(contexts(ours)), sorted(contexts(qemus))
            assert mine == its, f"{mine} {its}"
            for bitmap in bitmaps:
                mine, its = dirty_map(ours, bitmap), dirty_map(qemus, bitmap)
                assert mine == its, f"{bitmap}: {mine[:5]} {its[:5]}"
                assert not dirty or any(kind for _, _, kind in mine), f"{bitmap}: nothing is dirty"

    def refused_by_both(self, path, bitmap, reason, *words):
        words = ["-r", *words, "-B", bitmap, "-f", "qcow2", "-k", self.images.path("socket"), path]
        assert run(["qemu-nbd", *words])[0] != 0, "qemu-nbd serves it"
        status, _, errors = run([self.underlay, *words])
        assert status != 0 and reason in errors, f"{status} {errors}"
        assert errors.count("\n") <= 2, errors

    def every_granularity_is_read(self):
        for cluster in (512, 64 * KIB, 2 * MIB):
            size = 24 * MIB + 512 * 7
            bitmaps = {"fine": 512, "middle": 64 * KIB, "coarse": 16 * MIB, "whole": 2048 * MIB}
            path = self.images.create(f"granularity-{cluster}.qcow2", size, bitmaps,
                                      f"cluster_size={cluster}")
            qemu_io(path, scattered_writes(size, 60, cluster))
            self.same_as_qemu(path, list(bitmaps))

    def clusters_of_equal_bits_are_read(self):
        # 512-byte clusters have 4096 bits, so some of them are all ones and some all zeros.
        path = self.images.create("equal.qcow2", 32 * MIB, {"b": 512}, "cluster_size=512")
        qemu_io(path, [f"write -z -q {4 * MIB} {9 * MIB}", f"write -q {20 * MIB + 512} 512"])
        self.same_as_qemu(path, ["b"])

    def an_empty_bitmap_is_clean(self):
        path = self.images.create("empty.qcow2", 3 * MIB, {"b": 64 * KIB})
        self.same_as_qemu(path, ["b"], dirty=False)

    def disabled_and_merged_bitmaps_are_read(self):
        path = self.images.create("several.qcow2", 8 * MIB, {"a": 64 * KIB, "b": 64 * KIB})
        qemu_io(path, ["write -q 0 100k"])
        qemu_img("bitmap", "--disable", path, "a")
        qemu_io(path, ["write -q 2M 100k"])
        qemu_img("bitmap", "--add", "-g", 64 * KIB, path, "c")
        qemu_img("bitmap", "--merge", "b", path, "c")
        self.same_as_qemu(path, ["c", "a", "b"])

    def bitmaps_of_backing_files_are_found(self):
        base = self.images.create("base.qcow2", 4 * MIB, {"b": 64 * KIB, "both": 64 * KIB})
        qemu_io(base, ["write -q 1M 1M"])
        top = self.images.create("top.qcow2", 6 * MIB, {"both": 512}, backing=base)
        qemu_io(top, ["write -q 5M 512"])
        self.same_as_qemu(top, ["b", "both"])

    def bitmaps_that_may_be_wrong_are_refused(self):
        path = self.images.create("good.qcow2", 4 * MIB, {"b": 64 * KIB})
        self.refused_by_both(path, "nope", "have a dirty bitmap \"nope\"")
        self.refused_by_both(path, "", "have a dirty bitmap \"\"")
        self.refused_by_both(path, "b", "-B and -o", "-o", "512")
        stale = self.images.patched(path, "stale.qcow2", AUTOCLEAR, bytes(8))
        self.refused_by_both(stale, "b", "autoclear feature bit 0")
        with open(path, "rb") as image:
            content = image.read()
        extension = content.index(struct.pack(">II", 0x23852875, 24)) + 8
        directory = struct.unpack(">Q", content[extension + 16:extension + 24])[0]
        flags = struct.unpack(">I", content[directory + 12:directory + 16])[0]
        in_use = self.images.patched(path, "in-use.qcow2", directory + 12,
                                     struct.pack(">I", flags | 1))
        self.refused_by_both(in_use, "b", "is inconsistent")
        # Without -B they are served all the same.
        for damaged in (stale, in_use):
            with harness.serve(["-f", "qcow2", damaged], program=self.underlay) as server:
                assert contexts(server) == ["base:allocation"]


def main():
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        test = Test(sys.argv[1], Images(folder))
        rules = [test.every_granularity_is_read, test.clusters_of_equal_bits_are_read,
                 test.an_empty_bitmap_is_clean, test.disabled_and_merged_bitmaps_are_read,
                 test.bitmaps_of_backing_files_are_found,
                 test.bitmaps_that_may_be_wrong_are_refused]
        for rule in rules:
            name = rule.__name__.replace("_", " ")
            try:
                rule()
                print("ok  ", name, flush=True)
            except (AssertionError, OSError, subprocess.SubprocessError, ValueError) as error:
                print("FAIL", name, "--", type(error).__name__, error, flush=True)
                failed.append(name)
    sys.exit(f"{len(failed)} of {len(rules)} failed" if failed else 0)


main()
