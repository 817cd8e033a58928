#!/usr/bin/python3
"""qcow2 images of every kind, by qemu-img and qemu-io, each beside the content it was given."""
import os
import struct

from common import Manifest, content, run, write_raw

KIB = 1 << 10
MIB = 1 << 20

FEATURES = ()

manifest = Manifest("qcow2", FEATURES)

# Where "incompatible_features" lies in the header, and two of its bits.
INCOMPATIBLE = 72
DIRTY, CORRUPT = 1, 2


def create(name, size, options="", backing=None, backing_format=None):
    path = manifest.path(name + ".qcow2")
    command = ["qemu-img", "create", "-q", "-f", "qcow2"]
    if options:
        command += ["-o", options]
    if backing:
        command += ["-b", os.path.basename(backing), "-F", backing_format]
    run(*command, path, size)
    return path


def convert(name, data, options="", flags=()):
    source = write_raw(manifest.path(name + ".source"), data)
    path = manifest.path(name + ".qcow2")
    command = ["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", *flags]
    if options:
        command += ["-o", options]
    run(*command, source, path)
    return path


class Writer:
    """Applies the same writes to an image (qemu-io) and to the content it must show."""

    def __init__(self, path, truth):
        self.path = path
        self.truth = bytearray(truth)
        self.commands = []

    def write(self, offset, length, byte, flags=""):
        self.commands.append(f"write {flags} -P {byte} {offset} {length}")
        self.truth[offset:offset + length] = bytes([byte]) * length
        return self

    def zero(self, offset, length, flags=""):
        self.commands.append(f"write -z {flags} {offset} {length}")
        self.truth[offset:offset + length] = bytes(length)
        return self

    def done(self):
        words = ["qemu-io", "-f", "qcow2"]
        for command in self.commands:
            words += ["-c", command]
        run(*words, self.path)
        self.commands = []
        return bytes(self.truth)


def add(name, path, truth, args=(), oracles=("qemu", "libqcow")):
    raw = write_raw(manifest.path(name + ".raw"), truth)
    manifest.add("qcow2-" + name, path, raw, ["-f", "qcow2", *args], oracles)


def set_incompatible(path, bits):
    with open(path, "r+b") as image:
        image.seek(INCOMPATIBLE)
        value = struct.unpack(">Q", image.read(8))[0] | bits
        image.seek(INCOMPATIBLE)
        image.write(struct.pack(">Q", value))


def plain_images():
    for compat, version in (("0.10", "v2"), ("1.1", "v3")):
        for cluster in (512, 4 * KIB, 64 * KIB, 2 * MIB):
            name = f"plain-{version}-{cluster}"
            data = content(5 * MIB + 3 * KIB, cluster)
            add(name, convert(name, data, f"compat={compat},cluster_size={cluster}"), data)
    # The last cluster is cut, and so is the last L2 table.
    for size in (512, 1000448, 1000448 + 7 * 512):
        data = content(size, size)
        name = f"odd-size-{size}"
        add(name, convert(name, data), data)
    for mode in ("metadata", "falloc", "full"):
        name = f"preallocated-{mode}"
        writer = Writer(create(name, 4 * MIB, f"preallocation={mode}"), bytes(4 * MIB))
        add(name, writer.path, writer.write(100 * KIB, 200 * KIB, 17).done())
    add("empty", create("empty", 3 * MIB), bytes(3 * MIB))


def compressed_images():
    for codec in ("zlib", "zstd"):
        oracles = ("qemu", "libqcow") if codec == "zlib" else ("qemu",)
        for cluster in (512, 4 * KIB, 64 * KIB, 2 * MIB):
            name = f"{codec}-{cluster}"
            data = content((1 if cluster == 512 else 6) * MIB + 1536, cluster + 1)
            options = f"compression_type={codec},cluster_size={cluster}"
            add(name, convert(name, data, options, ["-c"]), data, oracles=oracles)
        # Plain clusters and both kinds of zero clusters in between.
        data = content(4 * MIB, 5)
        path = convert(f"{codec}-mixed", data, f"compression_type={codec}", ["-c"])
        writer = Writer(path, data).write(70 * KIB, 3 * KIB, 1).write(MIB, 300 * KIB, 2)
        writer.zero(2 * MIB, 128 * KIB).zero(3 * MIB, 64 * KIB, "-u")
        add(f"{codec}-mixed", path, writer.done(), oracles=("qemu",))
    data = content(2 * MIB, 6)
    add("zlib-v2", convert("zlib-v2", data, "compat=0.10", ["-c"]), data)


def zero_images():
    base = content(4 * MIB, 7)
    backing = write_raw(manifest.path("zero-base.img"), base)
    path = create("zeros", 4 * MIB, backing=backing, backing_format="raw")
    writer = Writer(path, base).write(0, 512 * KIB, 3).zero(64 * KIB, 128 * KIB)
    writer.zero(256 * KIB, 64 * KIB, "-u").zero(MIB, MIB).zero(3 * MIB + 512, 1024)
    add("zeros", path, writer.done(), oracles=("qemu",))


def extended_images():
    for cluster in (16 * KIB, 64 * KIB, 2 * MIB):
        options = f"extended_l2=on,cluster_size={cluster}"
        name = f"extended-{cluster}"
        data = content(5 * MIB, cluster + 2)
        path = convert(name, data, options)
        part = cluster // 32
        writer = Writer(path, data).write(3 * part, part, 4).zero(5 * part, 2 * part)
        add(name, path, writer.done(), oracles=("qemu",))

        # Subclusters that are not allocated are the backing file's.
        base = content(4 * MIB, cluster + 3)
        backing = write_raw(manifest.path(name + "-base.img"), base)
        path = create(name + "-overlay", 5 * MIB, options, backing, "raw")
        writer = Writer(path, base + bytes(MIB))
        for at in range(0, 3 * cluster, 4 * part):
            if at + part <= 5 * MIB:
                writer.write(at, part, 5)
        writer.zero(part, part).zero(9 * part, 2 * part)
        # A cluster without data whose parts are zeros, and a write across clusters.
        if 20 * cluster < 4 * MIB:
            writer.zero(10 * cluster, part).write(11 * cluster + 31 * part, 2 * part, 6)
        add(name + "-overlay", path, writer.done(), oracles=("qemu",))

        path = convert(name + "-zlib", data, options, ["-c"])
        writer = Writer(path, data).write(4 * part, part, 7)
        add(name + "-zlib", path, writer.done(), oracles=("qemu",))


def chains():
    base = content(3 * MIB, 11)
    raw = write_raw(manifest.path("chain-base.img"), base)
    for kind, size in (("equal", 3 * MIB), ("longer", 5 * MIB + 512), ("shorter", 2 * MIB - 512)):
        truth = (base + bytes(size))[:size]
        path = create(f"backed-raw-{kind}", size, "", raw, "raw")
        writer = Writer(path, truth).write(MIB + 512, 70 * KIB, 8)
        add(f"backed-raw-{kind}", path, writer.done(), oracles=("qemu",))

    # A base whose length is no multiple of a sector: its last sector is filled up with zeros.
    odd = write_raw(manifest.path("chain-odd.img"), content(MIB - 100, 12))
    with open(odd, "rb") as source:
        truth = source.read() + bytes(MIB + 100)
    add("backed-raw-odd", create("backed-raw-odd", 2 * MIB, "", odd, "raw"), truth,
        oracles=("qemu",))

    bottom = convert("chain-1", base, "cluster_size=4k", ["-c"])
    middle = create("chain-2", 4 * MIB, "", bottom, "qcow2")
    writer = Writer(middle, base + bytes(MIB)).write(512 * KIB, 512 * KIB, 9)
    truth = writer.zero(2 * MIB, 64 * KIB).write(3 * MIB + 4 * KIB, 4 * KIB, 10).done()
    add("chain-2", middle, truth, oracles=("qemu",))
    top = create("chain-3", 2 * MIB + 100 * KIB, "compat=0.10", middle, "qcow2")
    writer = Writer(top, truth[:2 * MIB + 100 * KIB]).write(600 * KIB, KIB, 11)
    add("chain-3", top, writer.done(), oracles=("qemu",))


def data_files():
    for name, extra in (("data-file", ""), ("data-file-raw", ",data_file_raw=on")):
        data = manifest.path(name + ".data")
        path = create(name, 4 * MIB, f"data_file={data}{extra}")
        writer = Writer(path, bytes(4 * MIB)).write(0, 100 * KIB, 12).write(MIB + 512, MIB, 13)
        writer.zero(MIB + 64 * KIB, 64 * KIB).zero(3 * MIB, 64 * KIB)
        add(name, path, writer.done(), oracles=("qemu",))
    base = content(4 * MIB, 13)
    backing = write_raw(manifest.path("data-file-base.img"), base)
    options = f"data_file={manifest.path('data-file-overlay.data')},extended_l2=on"
    path = create("data-file-overlay", 4 * MIB, options, backing, "raw")
    writer = Writer(path, base).write(512, 4 * KIB, 14).write(2 * MIB, 200 * KIB, 15)
    add("data-file-overlay", path, writer.zero(4 * KIB, 4 * KIB).done(), oracles=("qemu",))


def snapshots():
    truth = content(2 * MIB, 14)
    for compat in ("0.10", "1.1"):
        path = convert(f"snapshots-{compat}", truth, f"compat={compat}")
        states = {}
        states["first"] = Writer(path, truth).write(0, 70 * KIB, 16).done()
        run("qemu-img", "snapshot", "-c", "first", path)
        # Its name is the other one's id: the id is meant.
        states["1"] = Writer(path, states["first"]).write(MIB, 70 * KIB, 17).done()
        run("qemu-img", "snapshot", "-c", "1", path)
        active = states["1"]
        if compat == "1.1":
            run("qemu-img", "resize", "-q", "-f", "qcow2", path, "3M")
            active += bytes(MIB)
        active = Writer(path, active).write(512 * KIB, MIB, 18).done()
        name = f"snapshots-{compat}"
        add(name + "-active", path, active)
        # After a resize qemu shows a snapshot at the active disk's size, not at its own.
        oracles = ("qemu",) if len(active) == len(truth) else ()
        add(name + "-by-name", path, states["first"], ["-l", "first"], oracles)
        add(name + "-by-id", path, states["1"], ["-l", "2"], oracles)
        add(name + "-id-first", path, states["first"], ["-l", "1"], oracles)


def unclean_images():
    data = content(2 * MIB, 15)
    path = convert("dirty", data, "lazy_refcounts=on")
    set_incompatible(path, DIRTY)
    add("dirty", path, data, oracles=("qemu",))
    path = convert("corrupt", data)
    set_incompatible(path, CORRUPT)
    add("corrupt", path, data, oracles=("qemu",))


plain_images()
compressed_images()
zero_images()
extended_images()
chains()
data_files()
snapshots()
unclean_images()
