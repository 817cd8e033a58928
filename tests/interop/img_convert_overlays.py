"""Rules: convert -B, which writes what differs from another image: qcow2 overlays (qemu-img reads them
back in tests/kernel/transfer.py), and differencing vhds, which libvhdi reads back."""
import json
import os
import subprocess

import pyvhdi

from img_convert_failures import refused_with
from img_convert_lab import same_bytes
from img_lab import KIB, MIB


def write_map(lab, ranges, name="map"):
    """Of (offset, length)."""
    path = lab.path(name)
    with open(path, "w", encoding="utf-8") as file:
        json.dump([{"start": start, "length": length, "data": True} for start, length in ranges],
                  file)
    return path


def changed(lab, raw, name, changes):
    """A copy of the disk with `changes`: (offset, bytes); and the map of them."""
    path = lab.path(name)
    with open(raw, "rb") as source, open(path, "wb") as out:
        out.write(source.read())
        for offset, data in changes:
            out.seek(offset)
            out.write(data)
    return path, write_map(lab, [(offset, len(data)) for offset, data in changes], name + ".map")


def write_overlay(lab, disk, ranges, target, parent, **more):
    return lab.convert(disk, target, "-O", "vpc", "--data-map", ranges, "-B", parent, "-F", "vpc",
                       **more)


def same_disk(lab, raw, image):
    lab.output("compare", "-q", "-f", "raw", "-F", "vpc", raw, image)
    done = lab.run("check", "-f", "vpc", image)
    assert done.status == 0, done


def read_with_libvhdi(raw, *chain):
    """The chain, its root first, is what the raw disk has, and zeros behind that."""
    files = []
    for path in chain:
        file = pyvhdi.file()
        file.open(path)
        if files:
            assert file.get_parent_filename() == os.path.basename(chain[len(files) - 1])
            assert file.get_parent_identifier() == files[-1].get_identifier()
            file.set_parent(files[-1])
        files.append(file)
    with open(raw, "rb") as source:
        content = source.read()
    size = files[-1].get_media_size()
    assert size >= len(content), size
    assert files[-1].read_buffer_at_offset(size, 0) == content + bytes(size - len(content))


def rule_a_differencing_vhd_is_read_over_its_parent(lab):
    raw = lab.disk("mixed")
    for options in ((), ("-o", "force_size")):
        base = lab.convert(raw, "base.vhd", "-O", "vpc", *options)
        # Data, zeros where there was some, several times in a block, over the end of one; the last.
        tuesday, ranges = changed(lab, raw, "tuesday.raw", [
            (64 * KIB, os.urandom(64 * KIB)), (256 * KIB, bytes(128 * KIB)),
            (2 * MIB - 64 * KIB, os.urandom(256 * KIB)), (9 * MIB - 64 * KIB, os.urandom(64 * KIB))])
        overlay = write_overlay(lab, tuesday, ranges, "tuesday.vhd", "base.vhd")
        same_disk(lab, tuesday, overlay)
        read_with_libvhdi(tuesday, base, overlay)
        assert os.path.getsize(overlay) < 7 * MIB
        # An overlay of an overlay; nothing has changed in it.
        third, none = changed(lab, tuesday, "third.raw", [])
        last = write_overlay(lab, third, none, "third.vhd", "tuesday.vhd")
        same_disk(lab, tuesday, last)
        read_with_libvhdi(tuesday, base, overlay, last)
        assert os.path.getsize(last) < 8 * KIB


def rule_the_same_difference_of_the_same_parent_is_the_same_image(lab):
    raw = lab.disk("full")
    lab.convert(raw, "base.vhd", "-O", "vpc")
    disk, ranges = changed(lab, raw, "disk.raw", [(MIB, b"x" * 128 * KIB)])
    one = write_overlay(lab, disk, ranges, "one.vhd", "base.vhd")
    assert same_bytes(one, write_overlay(lab, disk, ranges, "two.vhd", "base.vhd"))
    # On another parent, it is another one.
    lab.convert(lab.raw_of("other.raw", 4 * MIB + 512, []), "base.vhd", "-O", "vpc")
    other = write_overlay(lab, disk, ranges, "two.vhd", "base.vhd")
    assert not same_bytes(one, other)
    assert "has identity" in lab.refusal("map", "-f", "vpc", one)


def rule_a_vhd_names_its_parent_wherever_that_is(lab):
    raw = lab.raw_of("disk.raw", MIB, [(0, MIB, "text")])
    ranges = write_map(lab, [(0, 64 * KIB)])
    os.makedirs(lab.path("images/märz 2026"))
    names = ["base.vhd", "märz 2026/base.vhd", "märz 2026/50%41 – 漢字 😀.vhd", "c:base.vhd"]
    for name in names:
        lab.convert(raw, os.path.join("images", name), "-O", "vpc")
        same_disk(lab, raw, write_overlay(lab, raw, ranges, "images/top.vhd", name))
    place = lab.path("images/märz 2026/base.vhd")
    top = write_overlay(lab, raw, ranges, "top.vhd", place)
    lab.output("compare", "-q", "-f", "raw", "-F", "vpc", "--allow-path", lab.folder, raw, top)
    subprocess.run([os.path.abspath(lab.program), "convert", "-f", "raw", "-O", "vpc", "--data-map",
                    ranges, "-B", "base.vhd", "-F", "vpc", raw, "here.vhd"], check=True,
                   cwd=lab.path("images"))
    same_disk(lab, raw, lab.path("images/here.vhd"))


def rule_what_cannot_be_a_vhds_parent_is_refused(lab):
    raw = lab.raw_of("disk.raw", MIB, [(0, MIB, "text")])
    ranges = write_map(lab, [(0, 64 * KIB)])
    lab.convert(raw, "base.vhd", "-O", "vpc")
    lab.convert(lab.disk("full"), "larger.vhd", "-O", "vpc")
    lab.convert(raw, "base.qcow2", "-O", "qcow2")

    def refuse(named, parent, *options, backing_format="vpc"):
        refused_with(lab, named, "-f", "raw", "-O", "vpc", "--data-map", ranges, "-B", parent, "-F",
                     backing_format, *options, raw, lab.path("top.vhd"))
    refuse("it is no parent", "larger.vhd")
    refuse("is no VHD", "base.qcow2")
    refuse("none.vhd", "none.vhd")
    refuse("-F: the parent of a vhd is a vhd", "base.qcow2", backing_format="qcow2")
    refuse("a fixed vhd", "base.vhd", "-o", "subformat=fixed")
    refuse("as large as its parent", "base.vhd", "-o", "force_size")
    os.symlink("base.vhd", lab.path("back\\slash.vhd"))
    refuse("backslash", "back\\slash.vhd")


def rule_an_overlay_is_of_whole_clusters(lab):
    raw = lab.disk("a sector")
    maps = {"odd": '[{"start": 512, "length": 512, "data": true}]', "none": "[]", "nonsense": "{}"}
    for name, text in maps.items():
        with open(lab.path(name), "w", encoding="utf-8") as file:
            file.write(text)
    overlay = ["-f", "raw", "-O", "qcow2", "-B", "base.raw"]
    refused_with(lab, "-B: needs", *overlay, "-F", "raw", raw, lab.path("target"))
    full = lab.disk("full")
    lab.convert(full, "base.vhd", "-O", "vpc")
    refused_with(lab, "multiples of 65536", "-f", "raw", "-O", "vpc", "-B", "base.vhd", "-F", "vpc",
                 "--data-map", lab.path("odd"), full, lab.path("target"))
    for name, why in (("odd", "multiples"), ("nonsense", "no JSON array"), ("missing", "missing")):
        refused_with(lab, why, *overlay, "-F", "raw", "--data-map", lab.path(name), raw,
                     lab.path("target"))
    refused_with(lab, "-B: needs", *overlay, "--data-map", lab.path("none"), raw, lab.path("target"))
    refused_with(lab, "-B: of the formats", "-f", "raw", "-O", "vmdk", "-B", "x", "-F", "raw",
                 "--data-map", lab.path("none"), raw, lab.path("target"))
    refused_with(lab, "--data-map: is for", "-f", "qcow2", "--data-map", lab.path("none"), raw,
                 lab.path("target"))
