#!/usr/bin/python3
"""Every image of an image maker is served with the contents of its raw source, whichever client
reads it, and its block status is true. At the end a matrix tells how many images of each feature
were read in each way.

usage: served_images_test.py NBD_SERVER IMAGE_MAKER

Clients: nbdcopy, qemu-img, libnbd with structured and with simple replies. Where the manifest names
qemu as an oracle, block status and allocation depth must agree with what qemu-nbd says. The bits are
compared once the files have no holes any more: qemu does not look for holes of the file system in
every format, and calls them zeros without a hole where it does.
"""
import contextlib
import os
import random
import re
import subprocess
import sys
import tempfile

import nbd

import harness
import image_set

SECTOR = 512
ALLOCATION = "base:allocation"
DEPTH = "qemu:allocation-depth"
HOLE, ZERO = 1, 2  # the bits of base:allocation: takes no space, reads as zeros

# Images with clusters that are zeros and keep their space: qcow2's zero flag beside an offset, a zero
# subcluster in a cluster with data. We say so (ZERO); qemu says HOLE | ZERO, as for clusters without.
KEEPS_SPACE_OF_ZEROS = re.compile(
    r"qcow2-(zeros|extended-\d+|extended-\d+-overlay|data-file|data-file-raw|data-file-overlay|"
    r"luks|luks-extended|luks-cbc|luks-overlay)")

# qemu's drivers that say of no byte where it lies: all of a disk is data to them.
QEMU_KNOWS_NO_HOLES_OF = ("vhdx",)


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


def parts_are_equal(server, image, structured):
    rng = random.Random(f"{image['name']} {structured}")
    with open(image["raw"], "rb") as raw:
        handle = connected(server.uri, structured)
        check(handle.get_structured_replies_negotiated() == structured, "negotiation")
        check(handle.get_size() == os.path.getsize(image["raw"]),
              f"size {handle.get_size()}, must be {os.path.getsize(image['raw'])}")
        for offset, length in ranges_to_read(handle.get_size(), rng):
            raw.seek(offset)
            check(handle.pread(length, offset) == raw.read(length),
                  f"wrong bytes at {offset}+{length}")
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


def zeros_are_zeros(server, image):
    """What is reported as zeros must read as zeros in the source."""
    with open(image["raw"], "rb") as raw:
        for offset, length, flags in statuses(server.uri, ALLOCATION):
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


def status_bits_agree(ours, qemus, name):
    """Both bits of each sector, in files without holes."""
    ours = sectors(ours, lambda flags: flags)
    qemus = sectors(qemus, lambda flags: flags)
    check(len(ours) == len(qemus), "qemu sees another size")
    differences = {(mine, its) for mine, its in zip(ours, qemus) if mine != its}
    allowed = {(ZERO, HOLE | ZERO)} if KEEPS_SPACE_OF_ZEROS.fullmatch(name) else set()
    check(differences == allowed, f"(our, qemu's) bits differ in {differences}, must in {allowed}")


def fill_holes(path):
    """Writes zeros where the file system stores none for this file."""
    with open(path, "r+b") as file:
        size = os.path.getsize(path)
        at = file.seek(0, os.SEEK_HOLE) if size else 0
        while at < size:
            try:
                end = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # ENXIO: no data behind it
                end = size
            while at < end:
                at += os.pwrite(file.fileno(), bytes(min(end - at, 1 << 20)), at)
            at = os.lseek(file.fileno(), end, os.SEEK_HOLE) if end < size else size


def fill_holes_of_all(folder):
    for parent, _, names in os.walk(folder):
        for name in names:
            fill_holes(os.path.join(parent, name))


def qemu_arguments(image, format_name):
    """Always with a format: qemu guesses raw where we find the footer of a fixed VHD."""
    arguments = list(image["args"])
    if "-f" not in arguments and "--image-opts" not in arguments:
        arguments += ["-f", {"vhd": "vpc"}.get(format_name, format_name)]
    return ["-r", *arguments, image["path"]]


def is_served_rightly(program, image, folder, matrix):
    """Every way to read the image, each judged by itself."""
    with harness.serve([*image["args"], image["path"]], program=program) as server:
        for column, reads_rightly in (
                ("nbdcopy", lambda: whole_copies_are_equal(server, image, folder)),
                ("structured", lambda: parts_are_equal(server, image, structured=True)),
                ("simple", lambda: parts_are_equal(server, image, structured=False)),
                ("status", lambda: zeros_are_zeros(server, image))):
            matrix.judge(image, column, reads_rightly)


@contextlib.contextmanager
def beside_qemu(program, image, format_name):
    """Our server of the image, and qemu's."""
    with (harness.serve(["-A", *image["args"], image["path"]], program=program) as ours,
          harness.serve(["-A", *qemu_arguments(image, format_name)], program="qemu-nbd") as qemus):
        yield ours, qemus


def main():
    program, maker = sys.argv[1:]
    format_name = image_set.format_of(maker)

    matrix = image_set.Matrix()

    def served_rightly(image):
        is_served_rightly(program, image, folder, matrix)

    def as_sparse_as_qemu(image):
        with beside_qemu(program, image, format_name) as (ours, qemus):
            allocation = statuses(ours.uri, ALLOCATION)
            allocation_is_no_coarser_than_qemus(allocation, statuses(qemus.uri, ALLOCATION))
            depths_agree(statuses(ours.uri, DEPTH), statuses(qemus.uri, DEPTH), allocation)

    def status_as_qemu(image):
        with beside_qemu(program, image, format_name) as (ours, qemus):
            status_bits_agree(statuses(ours.uri, ALLOCATION), statuses(qemus.uri, ALLOCATION),
                              image["name"])

    with tempfile.TemporaryDirectory() as folder:
        images, _ = image_set.make_images(maker, folder)
        for_qemu = [image for image in images if "qemu" in image["oracles"]]
        failed = image_set.judge(images, served_rightly, "served")
        failed += image_set.judge(for_qemu, as_sparse_as_qemu, "as sparse as qemu's")
        fill_holes_of_all(folder)
        if format_name not in QEMU_KNOWS_NO_HOLES_OF:
            failed += image_set.judge(for_qemu, status_as_qemu, "status as qemu's")
        failed += matrix.failed
        print(matrix, flush=True)
    image_set.exit_when_failed(failed, images)


main()
