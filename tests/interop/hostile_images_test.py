#!/usr/bin/python3
"""Hostile images of a format, built field by field: hostile_image_lab.py says what must hold for each.

usage: hostile_images_test.py IMAGE_JUDGE FORMAT [--table]
--table: what became of each case.
"""
import importlib
import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "images"))

import hostile_image_lab  # noqa: E402


def main():
    program, name, *options = sys.argv[1:]
    maker = importlib.import_module("hostile_" + name)
    with tempfile.TemporaryDirectory() as folder:
        judge = hostile_image_lab.Judge(program, folder, table="--table" in options)
        for image in maker.images(os.path.join(folder, "images")):
            judge.judge(image)
        judge.close()
    print(judge.counts, "peak %s: %d KiB," % judge.peak, "slowest %s: %.2f s" % judge.slowest)
    if judge.failed:
        sys.exit(f"{len(judge.failed)} failed: {', '.join(sorted(set(judge.failed))[:40])}")


main()
