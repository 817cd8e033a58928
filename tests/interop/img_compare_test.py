#!/usr/bin/python3
"""underlay-img compare beside qemu-img compare: the same exit status and the same words for images
that are equal, that differ in one byte anywhere, in size, in what is a hole, and that cannot be
read. Where we differ on purpose, the rule says so.

usage: img_compare_test.py UNDERLAY_IMG [RULE...]
"""
import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import harness
import rules_in_folders
from img_lab import ProgramInFolder, interrupted
from nbd_servers import nbdkit

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SECTOR = 512
IDENTICAL = "Images are identical.\n"
SIZES = "Warning: Image size mismatch!\n"

# What qemu-img makes of a raw disk, as OPTIONS of convert.
FORMATS = {
    "raw": [],
    "qcow2": [],
    "qcow": [],
    "vmdk": [],
    "vdi": [],
    "vhdx": [],
    "vpc": ["-o", "force_size=on"],
}


def run(*command):
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)


class Lab(ProgramInFolder):
    def raw(self, name, pieces, size):
        """A sparse file; pieces: (offset, bytes)."""
        path = self.path(name)
        with open(path, "wb") as out:
            out.truncate(size)
            for offset, data in pieces:
                out.seek(offset)
                out.write(data)
        return path

    def convert(self, source, name, *options, form="qcow2", source_form="raw"):
        path = self.path(name)
        run("qemu-img", "convert", "-f", source_form, "-O", form, *options, source, path)
        return path

    def ours(self, *words):
        return harness.run([self.program, "compare", *words])

    def alike(self, *words):
        """Both programs say the same, of the images in either order when they are the last two
        words; what they say. Of errors, one line each."""
        theirs = harness.run(["qemu-img", "compare", *words])
        ours = self.ours(*words)
        assert ours[:2] == theirs[:2], f"ours {ours}\ntheirs {theirs}"
        for errors in (ours[2], theirs[2]):
            assert errors.count("\n") == (1 if ours[0] > 1 else 0), errors
        return ours

    def says(self, expected, *words):
        status, out, errors = self.alike(*words)
        assert (status, out) == expected, (status, out, errors)

    def json(self, *words, status=0):
        done = self.ours("--output=json", *words)
        assert done[0] == status and not done[2], done
        return json.loads(done[1])


def mismatch(offset):
    """By the sector, as QEMU finds it."""
    return (1, f"Content mismatch at offset {offset // SECTOR * SECTOR}!\n")


def flip(path, offset):
    with open(path, "r+b") as out:
        out.seek(offset)
        byte = out.read(1)[0]
        out.seek(offset)
        out.write(bytes([byte ^ 0x40]))


def sample(size, seed=1):
    """Runs of data and zeros, all of a number of sectors."""
    rng = random.Random(seed)
    data = bytearray(size)
    at = 0
    while at < size:
        length = min(size - at, SECTOR * rng.choice([1, 8, 128, 500, 2048]))
        if rng.randrange(2):
            data[at:at + length] = rng.randbytes(length)
        at += length
    return bytes(data)


# The rules.

def rule_equal_disks_are_identical_in_all_formats(lab):
    data = sample(9 * MIB)
    raw = lab.raw("disk.raw", [(0, data)], len(data))
    images = {form: lab.convert(raw, f"copy.{form}", *options, form=form)
              for form, options in FORMATS.items()}
    for form, path in images.items():
        lab.says((0, IDENTICAL), "-f", "raw", "-F", form, raw, path)
        lab.says((0, IDENTICAL), "-f", form, "-F", "qcow2", path, images["qcow2"])
        lab.says((0, ""), "-q", "-f", form, "-F", "raw", path, raw)


def rule_one_byte_that_differs_is_found_wherever_it_is(lab):
    """The first and the last byte, and around the edges of clusters and of what is read at once."""
    data = sample(5 * MIB + 3 * SECTOR)
    one = lab.raw("one.raw", [(0, data)], len(data))
    other = lab.raw("other.raw", [(0, data)], len(data))
    edges = [edge + step for edge in (64 * KIB, 256 * KIB, 2 * MIB, 4 * MIB, 5 * MIB)
             for step in (-1, 0)]
    for offset in (0, 1, SECTOR - 1, SECTOR, *edges, len(data) - 1):
        flip(other, offset)
        lab.says(mismatch(offset), "-f", "raw", "-F", "raw", one, other)
        lab.says(mismatch(offset), "-f", "raw", "-F", "raw", other, one)
        image = lab.convert(other, "other.qcow2")
        lab.says(mismatch(offset), "-f", "raw", "-F", "qcow2", one, image)
        document = lab.json("-f", "raw", "-F", "qcow2", one, image, status=1)
        assert document["offset"] == offset and document["mismatch"] == "content", document
        assert document["identical"] is False and document["version"] == 1, document
        flip(other, offset)


def rule_the_first_of_several_differences_is_told(lab):
    """Whichever thread finds one first."""
    data = sample(32 * MIB)
    one = lab.raw("one.raw", [(0, data)], len(data))
    other = lab.raw("other.raw", [(0, data)], len(data))
    for offset in range(7 * MIB + 12345, 32 * MIB, 100 * KIB):
        flip(other, offset)
    for _ in range(20):
        document = lab.json("-f", "raw", "-F", "raw", one, other, status=1)
        assert document["offset"] == 7 * MIB + 12345, document


def rule_of_different_sizes_the_rest_must_be_zeros(lab):
    data = sample(3 * MIB)
    short = lab.raw("short.raw", [(0, data)], len(data))
    zeros = lab.raw("zeros.raw", [(0, data)], 6 * MIB)
    written = lab.raw("written.raw", [(0, data + bytes(2 * MIB))], 6 * MIB)
    more = lab.raw("more.raw", [(0, data), (5 * MIB + 70, b"x")], 6 * MIB)
    differs = lab.raw("differs.raw", [(0, data), (5, b"y")], 6 * MIB)
    for order in (lambda *images: images, lambda *images: images[::-1]):
        for longer in (zeros, written, lab.convert(zeros, "zeros.qcow2")):
            form = "qcow2" if longer.endswith("qcow2") else "raw"
            words = ["-f", "raw", "-F", form] if order(1, 2) == (1, 2) else ["-f", form, "-F", "raw"]
            lab.says((0, SIZES + IDENTICAL), *words, *order(short, longer))
            lab.says((1, "Strict mode: Image size mismatch!\n"), "-s", *words,
                     *order(short, longer))
        status, said = mismatch(5 * MIB + 70)
        lab.says((status, SIZES + said), "-f", "raw", "-F", "raw", *order(short, more))
        lab.says(mismatch(5), "-f", "raw", "-F", "raw", *order(short, differs))
    document = lab.json("-f", "raw", "-F", "raw", short, zeros)
    assert document["identical"] is True and document["sizes-differ"] is True, document
    document = lab.json("-s", "-f", "raw", "-F", "raw", short, zeros, status=1)
    assert document["identical"] is False and document["mismatch"] == "size", document


def rule_a_size_that_is_no_number_of_sectors_is_filled_up(lab):
    one = lab.raw("one.raw", [(0, b"x" * 1000)], 1000)
    other = lab.raw("other.raw", [(0, b"x" * 1000)], 1024)
    theirs = harness.run(["qemu-img", "compare", "-f", "raw", "-F", "raw", one, other])
    ours = lab.ours("-f", "raw", "-F", "raw", one, other)
    # Ours warns that it does so.
    assert ours[:2] == theirs[:2] == (0, IDENTICAL), (ours, theirs)


def rule_zeros_are_equal_to_holes_but_not_strictly(lab):
    data, tail = b"x" * 4096, (MIB - 128 * KIB, b"y" * 64 * KIB)
    hole = lab.raw("hole.raw", [(0, data), tail], MIB)
    zeros = lab.raw("zeros.raw", [(0, data + bytes(MIB - 132 * KIB)), tail], MIB)
    lab.says((0, IDENTICAL), "-f", "raw", "-F", "raw", hole, zeros)
    lab.says((0, IDENTICAL), "-s", "-f", "raw", "-F", "raw", hole, hole)
    # QEMU also compares how far an answer goes, and so finds this at offset 0.
    words = ["-s", "-f", "raw", "-F", "raw", hole, zeros]
    assert harness.run(["qemu-img", "compare", *words])[0] == 1
    assert lab.ours(*words)[:2] == (1, "Strict mode: Offset 4096 block status mismatch!\n")
    document = lab.json(*words, status=1)
    assert document["mismatch"] == "block-status" and document["offset"] == 4096, document


def rule_strictly_zeros_are_not_nothing(lab):
    """qcow2: clusters that are zeros, that have zeros and a place, and that are not there."""
    images = {}
    for name, commands in (("none", []), ("plain", ["write -z -u 64k 64k"]),
                           ("placed", ["write -P 5 64k 64k", "write -z 64k 64k"]),
                           ("data", ["write -P 0 64k 64k"])):
        images[name] = lab.path(name + ".qcow2")
        run("qemu-img", "create", "-f", "qcow2", images[name], "1M")
        # In front and behind there are clusters of data.
        for command in ("write -P 1 0 64k", *commands, "write -P 1 128k 64k"):
            run("qemu-io", "-f", "qcow2", "-c", command, images[name])
    words = ["-f", "qcow2", "-F", "qcow2"]
    for one in images:
        for other in images:
            lab.says((0, IDENTICAL), *words, images[one], images[other])
            same = (0, IDENTICAL)
            differs = (1, "Strict mode: Offset 65536 block status mismatch!\n")
            theirs = harness.run(["qemu-img", "compare", "-s", *words, images[one], images[other]])
            ours = lab.ours("-s", *words, images[one], images[other])
            assert ours[:2] == (same if one == other else differs), (one, other, ours)
            assert ours[0] == theirs[0], (one, other, theirs)
    # A difference in front of it comes first.
    run("qemu-io", "-f", "qcow2", "-c", "write -P 2 4k 60k", images["plain"])
    lab.says(mismatch(4096), "-s", *words, images["none"], images["plain"])


def rule_strictly_only_what_a_guest_could_tell_apart_counts(lab):
    """Where QEMU differs: it compares also where its answers end. The same disk, written in one go
    and cluster by cluster backwards."""
    one, other = lab.path("one.qcow2"), lab.path("other.qcow2")
    for path, order in ((one, range(16)), (other, reversed(range(16)))):
        run("qemu-img", "create", "-f", "qcow2", path, "1M")
        run("qemu-io", "-f", "qcow2", *[word for i in order
                                        for word in ("-c", f"write -P {i + 1} {64 * i}k 64k")],
            path)
    assert lab.ours("-s", "-f", "qcow2", "-F", "qcow2", one, other)[:2] == (0, IDENTICAL)


def rule_chains_are_read_with_their_parents(lab):
    data = sample(4 * MIB)
    base = lab.convert(lab.raw("base.raw", [(0, data)], len(data)), "base.qcow2")
    top = lab.path("top.qcow2")
    run("qemu-img", "create", "-f", "qcow2", "-F", "qcow2", "-b", "base.qcow2", top)
    words = ["-f", "qcow2", "-F", "qcow2"]
    lab.says((0, IDENTICAL), *words, base, top)
    lab.says((0, IDENTICAL), "-s", *words, base, top)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 9 1M 4k", top)
    lab.says(mismatch(MIB), *words, base, top)
    lab.says(mismatch(MIB), *words, top, base)


def chain(lab, form, parent_size, size, *options):
    """A disk over a parent with data, base.FORM."""
    data = sample(parent_size)
    base = lab.convert(lab.raw(f"{form}.raw", [(0, data)], len(data)), f"base.{form}", form=form)
    top = lab.path(f"top.{form}")
    run("qemu-img", "create", "-f", form, "-F", form, "-b", os.path.basename(base), *options, top,
        size)
    return top


def rule_a_library_is_not_asked_for_what_lies_behind_a_parents_end(lab):
    # libqcow would look for it for ever.
    for form, library in (("qcow2", "libqcow"), ("vmdk", "libvmdk")):
        status, out, errors = lab.ours("--second-opinion", chain(lab, form, MIB, 2 * MIB))
        assert status == 2 and not out and errors.count("\n") == 1, (status, out, errors)
        assert f"base.{form}: ends at {MIB} bytes, and guest offset {MIB}, which {library} " \
            in errors, errors


def rule_a_library_reads_a_chain_of_small_clusters_as_it_is(lab):
    # libqcow would take what follows a cluster of the parent from the parent, too.
    top = chain(lab, "qcow2", MIB, MIB, "-o", "cluster_size=4k")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 7 8k 4k", "-c", "write -P 9 100k 20k", top)
    assert lab.ours("--second-opinion", top) == (0, f"{top}: libqcow reads the same.\n", "")


def rule_image_opts_name_both_images(lab):
    data = sample(MIB)
    raw = lab.raw("disk.raw", [(0, data)], len(data))
    image = lab.convert(raw, "disk.qcow2")
    opts = [f"driver=raw,file.filename={raw}", f"driver=qcow2,file.filename={image}"]
    lab.says((0, IDENTICAL), "--image-opts", *opts)
    flip(raw, 5000)
    lab.says(mismatch(5000), "--image-opts", *opts)
    for option in ("-f", "-F"):
        status, out, errors = lab.alike("--image-opts", option, "raw", *opts)
        assert status == 2 and not out and "mutually exclusive" in errors, errors


def rule_cache_modes_are_those_of_qemu(lab):
    raw = lab.raw("disk.raw", [(0, b"x")], MIB)
    for mode in ("none", "writeback", "unsafe", "directsync", "writethrough"):
        lab.says((0, IDENTICAL), "-T", mode, "-f", "raw", "-F", "raw", raw, raw)
    status, out, errors = lab.alike("-T", "quick", "-f", "raw", "-F", "raw", raw, raw)
    assert status == 2 and not out and '-T: "quick" is not one of: none,' in errors, errors


def rule_what_cannot_be_opened_is_status_2(lab):
    raw = lab.raw("disk.raw", [(0, b"x")], MIB)
    damaged = lab.convert(raw, "damaged.qcow2")
    with open(damaged, "r+b") as out:
        out.seek(20)
        out.write(b"\0\0\0\x40")  # cluster_bits
    for images in ([lab.path("none"), raw], [raw, lab.path("none")], [damaged, raw],
                   [raw, damaged]):
        forms = ["qcow2" if image == damaged else "raw" for image in images]
        status, out, _ = lab.alike("-f", forms[0], "-F", forms[1], *images)
        assert status == 2 and not out, (status, out)
    # Ours alone: qemu-img says 1 of a wrong use, which is its word for images that differ.
    status, out, _ = lab.ours(raw)
    assert status == 2 and not out, (status, out)


def rule_what_cannot_be_read_is_no_difference(lab):
    """An export that fails at some offset, and never a difference, nor zeros, in its place."""
    size = 4 * MIB
    raw = lab.raw("disk.raw", [(0, b"x" * size)], size)
    for failing in (0, MIB + 4096, size - 512):
        with nbdkit("eval", f"get_size=echo {size}", "thread_model=echo parallel",
                    f"pread=if [ $(( $4 + $3 )) -gt {failing} ]; then echo EIO >&2; exit 1; fi; "
                    "dd if=/dev/zero bs=$3 count=1 status=none | tr '\\0' x") as server:
            for words in (["-f", "raw", "-F", "raw", raw, server.uri],
                          ["-f", "raw", "-F", "raw", server.uri, raw]):
                status, out, errors = lab.alike(*words)
                assert status == 4 and not out, (status, out, errors)
                assert f"of {server.uri}: " in errors and "Input/output error" in errors, errors
                told = int(errors.split("Error while reading offset ")[1].split()[0])
                assert failing - 512 * KIB < told <= failing, errors


def rule_corrupt_images_never_seem_equal(lab):
    """A compressed cluster that does not unpack, and a table that lies nowhere: QEMU's statuses."""
    data = random.Random(3).choices(b"abcd", k=MIB)
    raw = lab.raw("disk.raw", [(0, bytes(data))], MIB)
    packed = lab.convert(raw, "packed.qcow2", "-c")
    with open(packed, "r+b") as out:
        out.seek(5 * 64 * KIB)  # where the first cluster is, behind header and tables
        out.write(b"\xff" * 64 * KIB)
    status, out, _ = lab.alike("-f", "raw", "-F", "qcow2", raw, packed)
    assert status == 4 and not out, (status, out)
    # An entry of the L2 table, which lies before the data, leads to no cluster.
    lost = lab.convert(raw, "lost.qcow2")
    with open(lost, "r+b") as out:
        out.seek(4 * 64 * KIB + 8)
        out.write((0x8000000000050200).to_bytes(8, "big"))
    # QEMU says more than one line of it.
    theirs = harness.run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, lost])
    ours = lab.ours("-f", "raw", "-F", "qcow2", raw, lost)
    assert ours[:2] == theirs[:2] == (3, ""), (ours, theirs)
    assert f"Sector allocation test failed for {lost} at offset 65536: " in ours[2], ours
    assert f"Sector allocation test failed for {lost}" in theirs[2], theirs


def rule_a_truncated_image_is_not_equal_to_one_with_zeros(lab):
    """Where QEMU differs: it reads zeros where the file ends."""
    image = lab.convert(lab.raw("disk.raw", [(0, b"x" * MIB)], 2 * MIB), "disk.qcow2")
    with open(image, "r+b") as out:
        out.truncate(os.path.getsize(image) - 512 * KIB)
    zeros = lab.raw("zeros.raw", [(0, b"x" * 512 * KIB)], 2 * MIB)
    status, out, errors = lab.ours("-f", "qcow2", "-F", "raw", image, zeros)
    assert status == 2 and not out and "truncated" in errors, (status, out, errors)


def rule_exports_are_compared_as_files_are(lab):
    data = sample(20 * MIB)
    raw = lab.raw("disk.raw", [(0, data)], 40 * MIB)
    image = lab.convert(raw, "disk.qcow2")
    other = lab.raw("other.raw", [(0, data), (13 * MIB, b"!")], 40 * MIB)
    with harness.serve(["-r", "-e", "0", "-f", "raw", raw], program="qemu-nbd") as server:
        lab.says((0, IDENTICAL), "-f", "raw", "-F", "qcow2", server.uri, image)
        lab.says(mismatch(13 * MIB), "-f", "raw", "-F", "raw", other, server.uri)
        # An export is raw, without a word.
        assert lab.ours("-F", "qcow2", server.uri, image) == (0, IDENTICAL, "")
        document = lab.json("-F", "qcow2", server.uri, image)
        assert document["bytes-compared"] == 40 * MIB, document
        assert 0 < document["bytes-read"][0] < 21 * MIB, document
    with harness.serve(["-r", "-f", "raw", image], program="qemu-nbd") as server:
        lab.says((0, IDENTICAL), "-f", "qcow2", "-F", "raw", server.uri, raw)


def rule_nothing_is_read_that_both_prove_to_be_zeros(lab):
    """8 TiB in a moment, of which 128 KiB are read."""
    one = lab.raw("one.raw", [(7 << 40, b"x" * 64 * KIB)], 8 << 40)
    other = lab.path("other.qcow2")
    run("qemu-img", "create", "-f", "qcow2", other, "8T")
    run("qemu-io", "-f", "qcow2", "-c", f"write -P {ord('x')} {7 << 40} 64k", other)
    begun = time.monotonic()
    document = lab.json("-f", "raw", "-F", "qcow2", one, other)
    assert document == {"version": 1, "identical": True, "sizes-differ": False,
                        "bytes-compared": 8 << 40, "bytes-read": [64 * KIB, 64 * KIB]}, document
    assert time.monotonic() - begun < 30


def rule_progress_tells_exact_counts(lab):
    raw = lab.raw("disk.raw", [(MIB, b"x" * MIB)], 10 * MIB)
    status, out, errors = lab.ours("-p", "-f", "raw", "-F", "raw", raw, raw)
    assert (status, out) == (0, IDENTICAL), (status, out)
    assert f"{10 * MIB} of {10 * MIB} bytes compared, {MIB} and {MIB} of them read" in errors, errors
    assert "100.0 %" in errors, errors
    assert lab.ours("-p", "-q", "-f", "raw", "-F", "raw", raw, raw) == (0, "", "")


def rule_who_interrupts_is_told_how_far_it_got(lab):
    raw = lab.raw("disk.raw", [(0, b"x" * 64 * MIB)], 64 * MIB)
    with nbdkit("--filter=delay", "file", raw, "rdelay=200ms") as server:
        status, out, errors = interrupted([lab.program, "compare", "-f", "raw", raw, server.uri])
    assert status == -signal.SIGINT and not out, (status, out)
    told = re.fullmatch(r"underlay-img: interrupted: (\d+) of 67108864 bytes compared, (\d+) and "
                        r"(\d+) of them read\n", errors)
    assert told and 0 < int(told[1]) < 64 * MIB and told[1] == told[2] == told[3], errors


def rule_an_image_that_changes_meanwhile_is_not_identical(lab):
    size = 8 * MIB
    raw = lab.raw("disk.raw", [(0, b"x" * size)], size)
    with nbdkit("--filter=delay", "file", raw, "rdelay=300ms") as server:
        process = subprocess.Popen([lab.program, "compare", "-f", "raw", raw, server.uri],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            time.sleep(0.6)
            os.utime(raw)
            out, errors = process.communicate(timeout=20)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 4 and not out and "while it is" in errors, (out, errors)


rules_in_folders.main(Lab, sys.modules[__name__])
