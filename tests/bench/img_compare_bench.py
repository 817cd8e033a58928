#!/usr/bin/python3
"""underlay-img compare of two 4 GiB templates is at least as fast as qemu-img compare.

usage: img_compare_bench.py UNDERLAY_IMG

Files of the system fill a quarter of the disk. Both programs compare the same images, which lie in
the page cache, in turn, and the median of the pairs' ratios counts: the machine may be noisy.
"""
import statistics
import subprocess
import sys
import tempfile
import time

import images

PAIRS = 7
DATA_BYTES = 1 << 30
WANTED_RATIO = 1.0
COMPARED = [("raw", "qcow2"), ("qcow2", "vhdx")]


def seconds(program, one, other):
    begun = time.monotonic()
    done = subprocess.run([program, "compare", "-f", one.format, "-F", other.format, one.path,
                           other.path], stdout=subprocess.PIPE, check=True, text=True)
    assert done.stdout == "Images are identical.\n", done.stdout
    return time.monotonic() - begun


def measure(program, one, other):
    """How many times as fast as qemu-img."""
    for image in (one, other):
        images.warm_page_cache(image)
    ratios = []
    for _ in range(PAIRS):
        ours, theirs = (seconds(which, one, other) for which in (program, "qemu-img"))
        ratios.append(theirs / ours)
        print(f"underlay-img {ours:6.2f} s   qemu-img {theirs:6.2f} s   ratio {theirs / ours:.2f}")
    ratio = statistics.median(ratios)
    print(f"{one.format} and {other.format}: median ratio {ratio:.2f}, wanted {WANTED_RATIO}",
          flush=True)
    return ratio


def main():
    with tempfile.TemporaryDirectory() as folder:
        made = images.Images(folder, DATA_BYTES, lambda line: print(line, flush=True))
        ratios = [measure(sys.argv[1], made.get(one), made.get(other)) for one, other in COMPARED]
    sys.exit(0 if min(ratios) >= WANTED_RATIO else 1)


main()
