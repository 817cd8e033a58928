#!/usr/bin/python3
"""Reads as of a booting guest, of a qcow2 on a web server that is 20 ms away: underlay-nbd with its
cache, beside qemu-nbd with its curl driver and nbdkit's curl plugin with its cache filter (which
gets the raw disk, as it knows no qcow2). One after the other in each round; the medians count.

usage: far_images_bench.py TEST_KERNEL PROGRAMS [--reads N] [--rounds N] [--least RATIO]

It runs in the test kernel, which has network namespaces and tc's netem. What is timed begins when the
server listens, with empty caches (first pass); then with underlay-nbd started again (second pass),
beside underlay-nbd with the same image as a local file. Fails when underlay-nbd's first pass is not
RATIO times as fast as the faster one of the others.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

SIZE = 256 << 20
GUEST = pathlib.Path(__file__).resolve().with_name("far_images_guest.py")
TIMEOUT = 900
MEMORY = "3G"  # of the guest: disks, caches


def make_disk(folder):
    raw = os.path.join(folder, "disk.raw")
    with open(raw, "wb") as out:
        for _ in range(SIZE >> 20):
            out.write(os.urandom(1 << 20))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw,
                    os.path.join(folder, "disk.qcow2")], check=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("test_kernel")
    parser.add_argument("programs")
    parser.add_argument("--reads", default=2000, type=int)
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--least", default=5.0, type=float)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="underlay-job-", dir="/tmp") as job:
        make_disk(job)
        server = os.path.join(os.path.realpath(options.programs), "underlay-nbd")
        done = subprocess.run(
            [options.test_kernel, "--timeout", str(TIMEOUT), "--mem", MEMORY, "--job", job, "--share",
             options.programs, "--", "/usr/bin/python3", "-B", str(GUEST), server,
             str(options.reads), str(options.rounds)], check=False, text=True,
            stdout=subprocess.PIPE)
        print(done.stdout, end="")
        if done.returncode != 0:
            sys.exit(done.returncode)
        with open(os.path.join(job, "results.json"), encoding="utf-8") as file:
            results = json.load(file)
    ratio = min(results["qemu-nbd"], results["nbdkit"]) / results["first"]
    print(f"first pass: {ratio:.1f} times as fast as the faster one of the others; "
          f"second pass: {results['second'] / results['local']:.2f} of a local file's time")
    if ratio < options.least:
        sys.exit(f"wanted: at least {options.least}")


main()
