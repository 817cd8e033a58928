#!/usr/bin/python3
"""Reads as of a booting guest, of a qcow2 on a web server that is 20 ms away: underlay-nbd with its
cache, beside qemu-nbd with its curl driver and nbdkit's curl plugin with its cache filter (which
gets the raw disk, as it knows no qcow2). One after the other in each round; the medians count.

usage: far_images_bench.py UNDERLAY_NBD [--reads N] [--rounds N] [--least RATIO] [--test-kernel PATH]

The way is relay.py, or with --test-kernel tc's netem between network namespaces of that kernel,
which is slow at all it does. What is timed begins when the server listens, with empty caches (first
pass); then with underlay-nbd started again (second pass), beside underlay-nbd with the same image as
a local file. Fails when underlay-nbd's first pass is not RATIO times as fast as the faster one of the
others.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

SIZE = 256 << 20
MEASURING = str(pathlib.Path(__file__).resolve().with_name("far_images.py"))
TIMEOUT = 900
MEMORY = "3G"  # of the test kernel: disks, caches


def make_disk(folder):
    raw = os.path.join(folder, "disk.raw")
    with open(raw, "wb") as out:
        for _ in range(SIZE >> 20):
            out.write(os.urandom(1 << 20))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw,
                    os.path.join(folder, "disk.qcow2")], check=True)


def measure(options, folder):
    server = os.path.realpath(options.underlay_nbd)
    arguments = [server, str(options.reads), str(options.rounds)]
    if options.test_kernel is None:
        return subprocess.run(["/usr/bin/python3", "-B", MEASURING, folder, *arguments, "relay"],
                              check=False, timeout=TIMEOUT).returncode
    return subprocess.run(
        [options.test_kernel, "--timeout", str(TIMEOUT), "--mem", MEMORY, "--job", folder, "--share",
         os.path.dirname(server), "--", "/usr/bin/python3", "-B", MEASURING, "/run/job", *arguments,
         "netem"], check=False).returncode


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("underlay_nbd")
    parser.add_argument("--reads", default=2000, type=int)
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--least", default=5.0, type=float)
    parser.add_argument("--test-kernel")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="underlay-job-", dir="/tmp") as folder:
        make_disk(folder)
        status = measure(options, folder)
        if status != 0:
            sys.exit(status)
        with open(os.path.join(folder, "results.json"), encoding="utf-8") as file:
            results = json.load(file)
    ratio = min(results["qemu-nbd"], results["nbdkit"]) / results["first"]
    print(f"first pass: {ratio:.1f} times as fast as the faster one of the others; "
          f"second pass: {results['second'] / results['local']:.2f} of a local file's time")
    if ratio < options.least:
        sys.exit(f"wanted: at least {options.least}")


main()
