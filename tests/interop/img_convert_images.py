"""Rules: what convert writes."""
import os
import subprocess

import harness
from img_convert_lab import (GIB, HUGE_CONTENT, TARGETS, USUAL_TARGETS, check_with_qemu,
                             compare_with_qemu, read_with_qemu, same_bytes, virtual_size)
from img_lab import KIB, MIB

MEMORY_LIMIT = 256 * MIB


def hold(lab, disk, targets):
    """Do images of these kinds hold the disk, for everybody who reads them?"""
    raw = lab.disk(disk)
    size = -(-os.path.getsize(raw) // 512) * 512
    for name in targets:
        target = TARGETS[name]
        if size == 0 and target.needs_bytes:
            assert "0 bytes" in lab.refusal("convert", "-f", "raw", *target.options, raw,
                                            lab.path("none")), name
            continue
        image = lab.convert(raw, "image", "-q", *target.options)
        try:
            lab.judge(raw, image, target)
            wanted = virtual_size(image, target.format)
            assert wanted == size if target.exact_size else wanted >= size, (wanted, size)
        except AssertionError as error:
            raise AssertionError(f"{disk} as {name}: {error}") from error
        os.unlink(image)


def usual_when_sanitized(lab):
    return USUAL_TARGETS if lab.sanitized else TARGETS


def rule_every_kind_of_image_holds_all_kinds_of_content(lab):
    hold(lab, "mixed", TARGETS)


def rule_every_kind_of_image_holds_a_disk_that_ends_within_a_sector(lab):
    hold(lab, "no sectors", usual_when_sanitized(lab))


def rule_every_kind_of_image_holds_what_cannot_be_packed(lab):
    hold(lab, "full", usual_when_sanitized(lab))


def rule_every_kind_of_image_holds_zeros(lab):
    for disk in ("no bytes", "nothing", "zeros that are stored"):
        hold(lab, disk, USUAL_TARGETS)


def rule_every_kind_of_image_holds_a_disk_with_data_at_its_ends_alone(lab):
    hold(lab, "ends", USUAL_TARGETS)


def rule_every_kind_of_image_holds_a_sparse_disk(lab):
    hold(lab, "sparse", USUAL_TARGETS)


def rule_disks_of_more_than_2_TiB_are_held_where_the_format_can(lab):
    hold(lab, "huge", ("raw", "qcow2", "qcow2-2M", "qcow2-zlib", "qcow2-zstd"))
    for name in ("vmdk", "vmdk-stream"):
        image = lab.convert(lab.path("huge.raw"), name, *TARGETS[name].options)
        assert virtual_size(image, "vmdk") == os.path.getsize(lab.path("huge.raw"))
        # It would take minutes to look at all of it.
        read_with_qemu(image, "vmdk", HUGE_CONTENT)


def rule_disks_of_other_formats_chains_and_snapshots_are_read(lab):
    base = lab.qcow2("base.qcow2", "20M", "write -P 1 0 3M", "write -P 2 10M 1M")
    top = lab.qcow2("top.qcow2", "24M", "write -P 3 1M 64k", "write -z 10M 64k",
                    "write -P 4 23M 1M", backing=base)
    raw = lab.path("top.raw")
    subprocess.run(["qemu-img", "convert", "-O", "raw", top, raw], check=True)
    subprocess.run(["qemu-img", "snapshot", "-c", "before", top], check=True)
    lab.write("qcow2", top, "write -P 9 0 5M")
    for name, target in TARGETS.items():
        image = lab.convert(top, name, "-l", "before", *target.options, source_format="qcow2")
        lab.judge(raw, image, target)
        again = lab.convert(image, "again", source_format=target.format)
        compare_with_qemu(raw, again, "raw")
    with harness.start(["qemu-nbd", "-r", "-t", "-f", "raw", "-k", lab.path("socket"), raw],
                       lab.path("socket")) as server:
        image = lab.convert(server.uri, "of-export", "-O", "qcow2", source_format=None)
        compare_with_qemu(raw, image, "qcow2")


def rule_the_same_disk_gives_the_same_bytes(lab):
    raw = lab.disk("mixed")
    packed = lab.path("mixed.qcow2")
    subprocess.run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, packed],
                   check=True)
    os.mkdir(lab.path("other"))
    for name, target in TARGETS.items():
        first = lab.convert(raw, "disk.vmdk", "-m", "1", *target.options)
        for source, source_format, threads in ((raw, "raw", "16"), (packed, "qcow2", "3")):
            other = lab.convert(source, "other/disk.vmdk", "-W", "-m", threads, *target.options,
                                source_format=source_format)
            assert same_bytes(first, other), f"{name} from {source_format}"
        if target.streams:
            with open(other, "wb") as out:
                done = lab.run("convert", "-f", "raw", *target.options, raw, "-", stdout=out)
            assert done.status == 0 and not done.stderr, done
            assert same_bytes(first, other), f"{name} to standard output"
        other_disk = lab.raw_of("other.raw", 9 * MIB, [(0, MIB, "text")])
        lab.convert(other_disk, other, *target.options)
        assert not same_bytes(first, other), name


def rule_what_is_written_can_be_written_to(lab):
    """QEMU takes the tables, and the refcounts, for its own."""
    raw = lab.disk("mixed")
    commands = ["write -P 7 100k 1M", "write -P 8 5M 64k", "write -z 3M 1M"]
    for name, target in TARGETS.items():
        if target.format == "raw" or name == "vmdk-stream":  # which QEMU does not rewrite
            continue
        image = lab.convert(raw, name, *target.options)
        lab.write(target.format, image, *commands)
        check_with_qemu(image, target.format)
        changed = lab.path("changed.raw")
        subprocess.run(["cp", raw, changed], check=True)
        lab.write("raw", changed, *commands)
        compare_with_qemu(changed, image, target.format)


def stored_bytes(path):
    return os.stat(path).st_blocks * 512


def rule_zeros_take_no_room(lab):
    raw = lab.disk("sparse")
    data = stored_bytes(raw)
    for name, target in TARGETS.items():
        image = lab.convert(raw, "image", *target.options)
        tables = GIB // 512 * 8 if "-512" in name else 8 * MIB
        assert stored_bytes(image) < 2 * data + tables, f"{name}: {stored_bytes(image)}"
        os.unlink(image)
    zeros = lab.disk("zeros that are stored")
    blocks = lab.raw_of("blocks.raw", MIB, [(i * 8 * KIB, 4 * KIB, "random") for i in range(128)])
    for options, most in (([], MIB // 2 + 64 * KIB), (["-S", "64k"], 2 * MIB)):
        image = lab.convert(blocks, "image", *options)
        assert stored_bytes(image) <= most, (options, stored_bytes(image))
    assert stored_bytes(image) >= MIB
    # Of other multiples of a sector: what blocks of the next smaller power of two leave out.
    for given, same in (("3k", "2k"), ("11k", "8k"), ("12M", "2M")):
        for target in ("raw", "qcow2", "vhd-exact"):
            options = TARGETS[target].options
            other, image = (lab.convert(zeros, name, "-S", size, *options)
                            for name, size in (("other", same), ("image", given)))
            assert same_bytes(other, image), (given, target)
            assert stored_bytes(other) == stored_bytes(image), (given, target)
    assert stored_bytes(lab.convert(zeros, "image")) < MIB
    nothing = lab.disk("nothing")
    for name in ("raw", "qcow2", "qcow2-zlib", "vhd-exact", "vmdk"):
        target = TARGETS[name]
        image = lab.convert(nothing, "image", "-S", "0", *target.options)
        lab.judge(nothing, image, target)
        done = subprocess.run(["qemu-img", "map", "-f", target.format, "--output=json", image],
                              check=True, capture_output=True, text=True)
        assert '"data": false' not in done.stdout, f"{name}: {done.stdout}"
        if name != "qcow2-zlib":
            assert stored_bytes(image) >= 70 * MIB, name


def rule_images_are_not_larger_than_those_of_qemu_img(lab):
    raw = lab.raw_of("large.raw", 16 * MIB, [(i * 2 * MIB, MIB, kind) for i, kind
                                             in enumerate(("text", "random", "same", "text") * 2)])
    for name, target in TARGETS.items():
        theirs = lab.path("theirs")
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", target.format,
                        *target.options[2:], raw, theirs], check=True)
        ours = lab.convert(raw, "ours", *target.options)
        # Theirs may end within a cluster.
        room = 4 * MIB if "2M" in name else 256 * KIB
        assert os.path.getsize(ours) <= 1.03 * os.path.getsize(theirs) + room, (
            name, os.path.getsize(ours), os.path.getsize(theirs))
        assert virtual_size(ours, target.format) == virtual_size(theirs, target.format), name


def rule_memory_does_not_grow_with_the_image(lab):
    if lab.sanitized:
        return
    packed = lab.raw_of("packed.raw", 300 * MIB,
                        [(i * MIB, 200 * KIB, "text" if i % 10 == 0 else "same")
                         for i in range(300)])
    huge = lab.path("huge.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", huge, "1T"], check=True)
    lab.write("qcow2", huge, "write -P 1 0 8M", f"write -P 2 {1000 * GIB} 8M")
    for source, source_format in ((packed, "raw"), (huge, "qcow2")):
        for name in ("raw", "qcow2-zlib-2M", "qcow2", "qcow2-zstd", "vhd", "vmdk", "vmdk-stream"):
            taken = lab.peak_bytes("convert", "-f", source_format, *TARGETS[name].options, source,
                                   lab.path("image"))
            assert taken < MEMORY_LIMIT, f"{name}: {taken >> 20} MiB"
            os.unlink(lab.path("image"))
