#!/usr/bin/python3
"""How fast underlay-img convert is beside qemu-img convert with the same options.

usage: img_convert_bench.py [--at-least RATIO] UNDERLAY_IMG [TARGET...]

Files of the system fill a quarter of the disk, a qcow2 image in the page cache; of a dense one,
random bytes fill a raw disk, of which there is nothing to leave out. Both programs write, with as
much at once as they can, into memory where there is enough, in turn, and the median of the pairs'
ratios counts. TARGET: some of the kinds only.

Fails when a median is below RATIO (default: 0.8, for a machine that others use, too). What is only
copied takes a tenth of a second, less than other processes may take the processor away for: there
the processor's time counts, when its ratio is the better one.
"""
import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import images

PAIRS = 7
PAIRS_OF_LONG = 3  # packing takes seconds
DATA_BYTES = 128 << 20
MEMORY = "/dev/shm"
FILES = "qcow2"
DENSE = "dense"


class Target(NamedTuple):
    """A kind of image."""
    format: str
    options: list  # of both programs
    is_copied: bool = True  # bytes are stored as they are
    source: str = FILES


OUT_OF_ORDER = ["-W", "-m", "16"]  # which qemu-img does not do with -c
TARGETS = {
    "raw": Target("raw", OUT_OF_ORDER),
    "qcow2": Target("qcow2", OUT_OF_ORDER),
    "qcow2, zlib": Target("qcow2", ["-m", "16", "-c"], False),
    "qcow2, zstd": Target("qcow2", ["-m", "16", "-c", "-o", "compression_type=zstd"], False),
    "vhd, dynamic": Target("vpc", [*OUT_OF_ORDER, "-o", "subformat=dynamic,force_size=on"]),
    "vhd, fixed": Target("vpc", [*OUT_OF_ORDER, "-o", "subformat=fixed,force_size=on"]),
    "vmdk, sparse": Target("vmdk", [*OUT_OF_ORDER, "-o", "subformat=monolithicSparse"]),
    "vmdk, stream": Target("vmdk", ["-m", "16", "-o", "subformat=streamOptimized"], False),
    "raw, dense": Target("raw", OUT_OF_ORDER, source=DENSE),
}


class Taken(NamedTuple):
    """Seconds."""
    passed: float
    processor: float


def processor_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def convert(program, image, kind, target):
    begun, used = time.monotonic(), processor_seconds()
    subprocess.run([program, "convert", "-f", image.format, "-O", kind.format, *kind.options,
                    image.path, target], check=True)
    return Taken(time.monotonic() - begun, processor_seconds() - used)


def check_equal(image, kind, target):
    subprocess.run(["qemu-img", "compare", "-q", "-f", image.format, "-F", kind.format, image.path,
                    target], check=True)


def measure(program, name, image, folder):
    """How many times as fast as qemu-img, for what is judged."""
    kind = TARGETS[name]
    target = os.path.join(folder, "converted")
    images.warm_page_cache(image)
    ratios = []
    for pair in range(PAIRS if kind.is_copied else PAIRS_OF_LONG):
        taken = {}
        for which in ((program, "qemu-img"), ("qemu-img", program))[pair % 2]:
            taken[which] = convert(which, image, kind, target)
            if pair == 0 and which == program:
                check_equal(image, kind, target)
            os.unlink(target)
        ours, theirs = taken[program], taken["qemu-img"]
        ratios.append(Taken(theirs.passed / ours.passed,
                            theirs.processor / max(ours.processor, 0.001)))
        print(f"underlay-img {ours.passed:6.2f} s   qemu-img {theirs.passed:6.2f} s   "
              f"ratio {ratios[-1].passed:.2f}, of processor time {ratios[-1].processor:.2f}")
    passed, processor = (statistics.median(column) for column in zip(*ratios))
    print(f"{name}: median ratio {passed:.2f}, of processor time {processor:.2f}", flush=True)
    return max(passed, processor) if kind.is_copied else passed


def dense_disk(folder):
    path = os.path.join(folder, "dense.raw")
    with open(path, "wb") as out:
        for _ in range(DATA_BYTES >> 20):
            out.write(os.urandom(1 << 20))
    return images.Image(path, "raw", path, DATA_BYTES, files=(path,))


def place_for_targets():
    """Memory, where there is enough."""
    fits = os.path.isdir(MEMORY) and shutil.disk_usage(MEMORY).free > 2 * DATA_BYTES
    return MEMORY if fits else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--at-least", type=float, default=0.8)
    parser.add_argument("program")
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []])
    given = parser.parse_args()
    with (tempfile.TemporaryDirectory() as folder,
          tempfile.TemporaryDirectory(dir=place_for_targets()) as targets):
        made = images.Images(folder, DATA_BYTES, lambda line: print(line, flush=True))
        sources = {FILES: made.get(FILES), DENSE: dense_disk(folder)}
        ratios = {name: measure(given.program, name, sources[TARGETS[name].source], targets)
                  for name in given.targets or TARGETS}
    slow = [name for name, ratio in ratios.items() if ratio < given.at_least]
    sys.exit(f"slower than {given.at_least} times qemu-img: {', '.join(slow)}" if slow else 0)


main()
