"""Rules: convert -B, which writes what differs from another image: qcow2 overlays, which qemu-img
reads back in tests/kernel/transfer.py, and differencing vhds, which libvhdi reads back."""
import json
import os
import subprocess
import tarfile
import time

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


def rule_zeros_in_the_map_are_the_disks_not_the_parents(lab):
    raw = lab.disk("full")
    base = lab.convert(raw, "base.vhd", "-O", "vpc")
    disk, ranges = changed(lab, raw, "disk.raw", [(MIB, bytes(128 * KIB))])
    written = write_overlay(lab, disk, ranges, "written.vhd", "base.vhd")
    # A hole of the file, at the beginning of a range and all of another.
    subprocess.run(["fallocate", "-p", "-o", str(MIB), "-l", str(128 * KIB), disk], check=True)
    overlay = write_overlay(lab, disk, ranges, "punched.vhd", "base.vhd")
    same_disk(lab, disk, overlay)
    read_with_libvhdi(disk, base, overlay)
    assert same_bytes(written, overlay)
    # Not the identity of one that has none of it.
    nothing = write_overlay(lab, disk, write_map(lab, [], "none"), "nothing.vhd", "base.vhd")
    third = write_overlay(lab, disk, write_map(lab, [], "none"), "third.vhd", "punched.vhd")
    same_disk(lab, disk, third)
    os.replace(nothing, overlay)
    assert "has identity" in lab.refusal("map", "-f", "vpc", third)
    lab.convert(disk, "overlay.qcow2", "-O", "qcow2", "--data-map", ranges, "-B", "base.vhd", "-F",
                "vpc")
    lab.output("compare", "-q", "-f", "raw", "-F", "qcow2", disk, lab.path("overlay.qcow2"))


def rule_the_last_sector_alone_in_its_byte_of_the_bitmap_is_written(lab):
    raw = lab.disk("full")
    base = lab.convert(raw, "base.vhd", "-O", "vpc")
    disk, ranges = changed(lab, raw, "disk.raw", [(4 * MIB, os.urandom(512))])
    overlay = write_overlay(lab, disk, ranges, "top.vhd", "base.vhd")
    same_disk(lab, disk, overlay)
    read_with_libvhdi(disk, base, overlay)


def rule_holes_are_not_read_for_a_map_alone(lab):
    raw = lab.raw_of("large.raw", 64 << 30, [(1 << 30, 64 * KIB, "text")])
    ranges = write_map(lab, [(0, 64 << 30)])
    begun = time.monotonic()
    image = lab.convert(raw, "new.qcow2", "-O", "qcow2", "--data-map", ranges)
    assert time.monotonic() - begun < 30  # reading them takes longer than that
    lab.output("compare", "-q", "-f", "raw", "-F", "qcow2", raw, image)


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
    for name in ("base.vhd", "märz 2026/base.vhd", "märz 2026/50%41 – 漢字 😀.vhd", "c:base.vhd"):
        lab.convert(raw, os.path.join("images", name), "-O", "vpc")
        top = write_overlay(lab, raw, ranges, "images/top.vhd", name)
        same_disk(lab, raw, top)
        said = lab.json("info", "--output=json", top)["format-specific"]["data"]
        assert said["parent-unicode-name"] == os.path.basename(name), said
        assert [(one["platform-code"], one["name"]) for one in said["parent-locators"]] == [
            ("W2ru", ".\\" + name.replace("/", "\\")), ("MacX", "file://./" + name)], said
    os.makedirs(lab.path("elsewhere"))
    for name in ("base.vhd", "50%41.vhd"):
        place = lab.path("elsewhere/" + name)
        lab.convert(raw, place, "-O", "vpc")
        lab.convert(lab.raw_of("other.raw", MIB, []), "elsewhere/50A.vhd", "-O", "vpc")
        top = write_overlay(lab, raw, ranges, "top.vhd", place)
        lab.output("compare", "-q", "-f", "raw", "-F", "vpc", "--allow-path", lab.folder, raw, top)
    # Of a link, the folder of what it leads to.
    os.symlink("images/new.vhd", lab.path("link.vhd"))
    write_overlay(lab, raw, ranges, "link.vhd", "base.vhd")
    same_disk(lab, raw, lab.path("images/new.vhd"))
    subprocess.run([os.path.abspath(lab.program), "convert", "-f", "raw", "-O", "vpc", "--data-map",
                    ranges, "-B", "base.vhd", "-F", "vpc", raw, "here.vhd"], check=True,
                   cwd=lab.path("images"))
    same_disk(lab, raw, lab.path("images/here.vhd"))


def refuse_overlay(lab, named, raw, ranges, parent, *options, form="vpc", backing_format=None,
                   target="top.vhd"):
    """The one line of error, which has `named`."""
    return refused_with(lab, named, "-f", "raw", "-O", form, "--data-map", ranges, "-B", parent, "-F",
                        backing_format or form, *options, raw, lab.path(target))


def rule_what_cannot_be_a_vhds_parent_is_refused(lab):
    raw = lab.raw_of("disk.raw", MIB, [(0, MIB, "text")])
    ranges = write_map(lab, [(0, 64 * KIB)])
    lab.convert(raw, "base.vhd", "-O", "vpc")
    lab.convert(lab.disk("full"), "larger.vhd", "-O", "vpc")
    lab.convert(raw, "base.qcow2", "-O", "qcow2")
    write_overlay(lab, raw, ranges, "child.vhd", "base.vhd")
    os.symlink("base.vhd", lab.path("back\\slash.vhd"))
    with tarfile.open(lab.path("archive.tar"), "w") as archive:
        archive.add(lab.path("base.vhd"), "base.vhd")

    def refuse(named, parent, *options, **how):
        return refuse_overlay(lab, named, raw, ranges, parent, *options, **how)
    refuse('the parent "larger.vhd" has a disk of', "larger.vhd")
    refuse("base.qcow2: -B: ", "base.qcow2")
    refuse("none.vhd", "none.vhd")
    refuse("-F: the parent of a vhd is a vhd", "base.qcow2", backing_format="qcow2")
    refuse("a fixed vhd", "base.vhd", "-o", "subformat=fixed")
    refuse("as large as its parent", "base.vhd", "-o", "force_size")
    refuse("backslash", "back\\slash.vhd")
    for name in ("archive.tar", "archive.tar#base.vhd"):
        refuse("unpack it", name)
    refuse("the name is empty", "")
    assert "s3cr3t" not in refuse("is a URL", "http://host/base.vhd?X-Amz-Signature=s3cr3t")
    # The chain is not whole.
    os.rename(lab.path("base.vhd"), lab.path("moved.vhd"))
    refuse("base.vhd", "child.vhd")


def rule_no_image_of_the_chain_is_replaced(lab):
    raw = lab.raw_of("disk.raw", MIB, [(0, MIB, "text")])
    ranges = write_map(lab, [(0, 64 * KIB)])
    lab.convert(raw, "base.vhd", "-O", "vpc")
    write_overlay(lab, raw, ranges, "child.vhd", "base.vhd")
    os.symlink("base.vhd", lab.path("link.vhd"))
    os.symlink("nothing", lab.path("dangling"))
    before = os.stat(lab.path("base.vhd")).st_mtime_ns

    def refuse(named, parent, target, form):
        refuse_overlay(lab, named, raw, ranges, parent, form=form, target=target)
    for form in ("vpc", "qcow2"):
        for parent, target in (("base.vhd", "base.vhd"), ("link.vhd", "base.vhd"),
                               ("base.vhd", "link.vhd")):
            refuse("is the target itself", parent, target, form)
    for parent, target in (("new", "new"), ("nothing", "dangling")):
        refuse("is the target itself", parent, target, "qcow2")
    refuse("base.vhd: is a file of the image", "child.vhd", "base.vhd", "vpc")
    refuse("disk.raw: is a file of the image", "base.vhd", "disk.raw", "vpc")
    assert os.stat(lab.path("base.vhd")).st_mtime_ns == before


def rule_nor_where_nobody_would_follow_the_chain(lab):
    """In another folder, above an image that is not there."""
    raw = lab.raw_of("disk.raw", MIB, [(0, MIB, "text")])
    ranges = write_map(lab, [(0, 64 * KIB)])
    os.mkdir(lab.path("q"))
    base, top = lab.qcow2("q/a.qcow2", "1M"), lab.qcow2("b.qcow2", "1M")

    def rebase(image, backing):
        subprocess.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", backing, image],
                       check=True)
    rebase(top, "q/a.qcow2")
    for base_names in (None, "gone"):
        if base_names:
            rebase(base, base_names)
        before = os.stat(base).st_mtime_ns
        for parent in ("../b.qcow2", top):
            refuse_overlay(lab, "is a file of the image", raw, ranges, parent, form="qcow2",
                           target="q/a.qcow2")
        assert os.stat(base).st_mtime_ns == before


def rule_an_overlay_is_of_whole_clusters(lab):
    raw = lab.disk("a sector")
    write_map(lab, [(512, 512)], "odd")
    write_map(lab, [], "none")
    with open(lab.path("nonsense"), "w", encoding="utf-8") as file:
        file.write("{}")
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
