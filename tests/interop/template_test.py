#!/usr/bin/python3
"""The main job: an ext4 file system of real files, stored as qcow2, vhd and vmdk, served and read by
nbdcopy and qemu-img with equal contents.

usage: template_test.py UNDERLAY_NBD
"""
import os
import subprocess
import sys
import tempfile

from harness import serve

KINDS = [
    ("qcow2", []),
    ("qcow2", ["-c"]),
    ("qcow2", ["-c", "-o", "compression_type=zstd"]),
    ("vpc", []),
    ("vpc", ["-o", "subformat=fixed"]),
    ("vmdk", []),
    ("vmdk", ["-o", "subformat=streamOptimized"]),
]
FILES = "/usr/include/c++"  # real files that every machine with a compiler has


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main():
    os.environ["UNDERLAY_NBD"] = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        raw = os.path.join(folder, "template.raw")
        run("truncate", "-s", "128M", raw)
        run("mke2fs", "-q", "-F", "-t", "ext4", "-d", FILES, raw)
        for number, (image_format, options) in enumerate(KINDS):
            image = os.path.join(folder, f"{number}.{image_format}")
            # force_size: a vhd's CHS size would be larger than the disk.
            size = ["-o", "force_size=on"] if image_format == "vpc" else []
            run("qemu-img", "convert", "-f", "raw", "-O", image_format, *options, *size, raw, image)
            with serve(["-f", image_format, image]) as server:
                copy = os.path.join(folder, "copy.raw")
                run("nbdcopy", server.uri, copy)
                run("cmp", copy, raw)
                run("qemu-img", "compare", "-f", "raw", "-F", "raw", raw, server.uri)
                # The file system in it is whole, and its files are those that went in.
                run("e2fsck", "-f", "-n", copy)
            os.remove(image)
            print("ok  ", image_format, *options, flush=True)


main()
