#!/usr/bin/python3
"""Other readers agree: every image of an image maker that names ORACLE among its oracles reads as
its raw source through PROGRAM. So a maker cannot err in the same way as our readers unseen.

usage: second_reader_test.py ORACLE PROGRAM IMAGE_MAKER
PROGRAM is run as: PROGRAM IMAGE [PARENT...] OUTPUT
"""
import json
import os
import subprocess
import sys
import tempfile


def same(a, b):
    return subprocess.run(["cmp", "--", a, b]).returncode == 0


def main():
    oracle, program, maker = sys.argv[1:]
    failed = []
    checked = 0
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, maker, folder], check=True)
        manifest = os.path.join(folder, os.path.basename(maker).replace(".py", ".jsonl"))
        output = os.path.join(folder, "dumped")
        with open(manifest, encoding="utf-8") as lines:
            for image in map(json.loads, lines):
                if oracle not in image["oracles"]:
                    continue
                command = [program, image["path"], *image["parents"], output]
                good = subprocess.run(command).returncode == 0 and same(output, image["raw"])
                print("ok  " if good else "FAIL", image["name"], flush=True)
                checked += 1
                if not good:
                    failed.append(image["name"])
    if failed or checked == 0:
        sys.exit(f"{len(failed)} of {checked} images failed: {' '.join(failed)}")


main()
