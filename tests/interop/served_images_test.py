#!/usr/bin/python3
"""Every image of an image maker is served with the contents of its raw source, whichever client
reads it, and its block status is true.

usage: served_images_test.py NBD_SERVER IMAGE_MAKER

Clients: nbdcopy, qemu-img, libnbd with structured and with simple replies. Where the manifest names
qemu as an oracle, block status and allocation depth must agree with what qemu-nbd says.
"""
import json
import os
import random
import subprocess
import sys
import tempfile
import traceback

import nbd

import harness

SECTOR = 512
ALLOCATION = "base:allocation"
DEPTH = "qemu:allocation-depth"
ZERO = 2  # the bit of base:allocation that promises zeros

# Options of ours that qemu-nbd does not have, each with a value.
OUR_OPTIONS = {"--allow-path", "--backing-format", "--reader"}


class Mismatch(AssertionError):
    """An image is not served as it must be."""


def check(condition, what):
    if not condition:
        raise Mismatch(what)


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    check(done.returncode == 0, f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}")


def connected(uri, structured=True, contexts=()):
    handle = nbd.NBD()
    handle.set_request_structured_replies(structured)
    for context in contexts:
        handle.add_meta_context(context)
    handle.connect_uri(uri)
    return handle


def whole_copies_are_equal(server, image, folder):
    copy = os.path.join(folder, "copy")
    run("nbdcopy", server.uri, copy)
    run("cmp", "--", copy, image["raw"])
    os.unlink(copy)
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", image["raw"], server.uri)


def ranges_to_read(size, rng):
    """Aligned and unaligned ranges all over the disk, and its tail."""
    ranges = [(0, 1), (0, min(size, 70001))]
    ranges += [(size - length, length) for length in (1, 511, 512, 4097) if length <= size]
    for longest in (100, 5000, 70000, 3 << 20):
        for _ in range(25):
            length = rng.randint(1, min(longest, size))
            ranges.append((rng.randrange(size - length + 1), length))
    return ranges


def parts_are_equal(server, image):
    rng = random.Random(image["name"])
    with open(image["raw"], "rb") as raw:
        for structured in (True, False):
            handle = connected(server.uri, structured)
            check(handle.get_structured_replies_negotiated() == structured, "negotiation")
            check(handle.get_size() == os.path.getsize(image["raw"]),
                  f"size {handle.get_size()}, must be {os.path.getsize(image['raw'])}")
            for offset, length in ranges_to_read(handle.get_size(), rng):
                raw.seek(offset)
                check(handle.pread(length, offset) == raw.read(length),
                      f"wrong bytes at {offset}+{length}, structured replies {structured}")
            handle.shutdown()


def statuses(uri, context):
    """[(offset, length, flags)] of the whole disk, neighbours merged."""
    handle = connected(uri, contexts=[context])
    check(handle.can_meta_context(context), f"{context} is not offered")
    size = handle.get_size()
    merged = []
    offset = 0
    while offset < size:
        asked = min(size - offset, 1 << 30)
        got = []

        def take(name, at, entries, _error):
            if name == context:
                check(at == offset, f"status at {at}, asked at {offset}")
                got.extend(zip(entries[::2], entries[1::2]))

        handle.block_status(asked, offset, take)
        check(got and all(length > 0 for length, _ in got), f"no status at {offset}")
        for length, flags in got:
            length = min(length, size - offset)
            check(length > 0, "an extent begins behind the end")
            if merged and merged[-1][2] == flags:
                merged[-1] = (merged[-1][0], merged[-1][1] + length, flags)
            else:
                merged.append((offset, length, flags))
            offset += length
    handle.shutdown()
    check(offset == size, f"status covers {offset} of {size} bytes")
    return merged


def zeros_are_zeros(extents, image):
    """What is reported as zeros must read as zeros in the source."""
    with open(image["raw"], "rb") as raw:
        for offset, length, flags in extents:
            if not flags & ZERO:
                continue
            raw.seek(offset)
            while length > 0:
                part = raw.read(min(length, 1 << 20))
                check(part and part.count(0) == len(part), f"data reported as zeros at {offset}")
                length -= len(part)


def sectors(extents, value_of):
    """One value for each sector; a sector with several extents takes the highest."""
    size = extents[-1][0] + extents[-1][1]
    values = bytearray(-(-size // SECTOR))
    for offset, length, flags in extents:
        value = min(value_of(flags), 255)
        first, last = offset // SECTOR, (offset + length - 1) // SECTOR
        values[first] = max(values[first], value)
        values[last] = max(values[last], value)
        values[first + 1:last] = bytes([value]) * max(0, last - first - 1)
    return values


def first_wrong(wrong):
    """The first sector for which `wrong` is true, or None."""
    return next((number for number, bad in enumerate(wrong) if bad), None)


def allocation_is_no_coarser_than_qemus(ours, qemus):
    """Where qemu knows zeros we must know them too: a client would copy them as data otherwise.
    The other way round is allowed, since zeros_are_zeros() has proved it: qemu does not look for
    holes of the file system in every format."""
    ours = sectors(ours, lambda flags: 0 if flags & ZERO else 1)
    qemus = sectors(qemus, lambda flags: 0 if flags & ZERO else 1)
    check(len(ours) == len(qemus), "qemu sees another size")
    sector = first_wrong(mine > its for mine, its in zip(ours, qemus))
    check(sector is None, f"sector {sector}: reported as data, qemu reports zeros")


def depths_agree(ours, qemus, allocation):
    """The image of the chain that a sector lies in must be the same. One difference is allowed:
    zeros behind the end of a shorter parent lie in no image for us (0), in that parent for qemu."""
    ours = sectors(ours, lambda flags: flags)
    qemus = sectors(qemus, lambda flags: flags)
    zeros = sectors(allocation, lambda flags: 1 if flags & ZERO else 0)
    check(len(ours) == len(qemus), "qemu sees another size")
    sector = first_wrong(mine != its and not (mine == 0 and its > 1 and zero)
                         for mine, its, zero in zip(ours, qemus, zeros))
    check(sector is None, sector is not None and
          f"sector {sector}: depth {ours[sector]}, qemu says {qemus[sector]}")


def qemu_arguments(image, format_name):
    """The image's options without those that are only ours, and always with a format: qemu guesses
    raw where we find the footer of a fixed VHD."""
    arguments = []
    words = iter(image["args"])
    for word in words:
        if word in OUR_OPTIONS:
            next(words)
        elif word.split("=")[0] not in OUR_OPTIONS:
            arguments.append(word)
    if "-f" not in arguments:
        arguments += ["-f", {"vhd": "vpc"}.get(format_name, format_name)]
    return ["-r", *arguments, image["path"]]


def is_served_rightly(program, image, format_name, folder):
    with harness.serve([*image["args"], image["path"]], program=program) as server:
        whole_copies_are_equal(server, image, folder)
        parts_are_equal(server, image)
        allocation = statuses(server.uri, ALLOCATION)
        zeros_are_zeros(allocation, image)
    if "qemu" not in image["oracles"]:
        return
    with harness.serve(["-A", *image["args"], image["path"]], program=program) as server:
        with harness.serve(["-A", *qemu_arguments(image, format_name)], program="qemu-nbd") as qemu:
            allocation_is_no_coarser_than_qemus(statuses(server.uri, ALLOCATION),
                                                statuses(qemu.uri, ALLOCATION))
            depths_agree(statuses(server.uri, DEPTH), statuses(qemu.uri, DEPTH), allocation)


def main():
    program, maker = sys.argv[1:]
    failed = []
    checked = 0
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, maker, folder], check=True)
        format_name = os.path.basename(maker).removesuffix(".py")
        manifest = os.path.join(folder, format_name + ".jsonl")
        with open(manifest, encoding="utf-8") as lines:
            for image in map(json.loads, lines):
                checked += 1
                try:
                    is_served_rightly(program, image, format_name, folder)
                    print("ok  ", image["name"], flush=True)
                except Exception as error:  # this image failed; the others are still looked at
                    failed.append(image["name"])
                    print("FAIL", image["name"], f"{type(error).__name__}: {error}", flush=True)
                    if not isinstance(error, AssertionError):
                        traceback.print_exc(file=sys.stdout)
    if failed or checked == 0:
        sys.exit(f"{len(failed)} of {checked} images failed: {' '.join(failed)}")


main()
