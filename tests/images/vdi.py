#!/usr/bin/python3
"""VDIs: dynamic, static and differencing; by qemu-img, and built where qemu-img cannot."""
import random

from common import Feature, Manifest, content, run, write, write_raw
from vdi_builder import DIFFERENCING, MIB, SECTOR, STATIC, UNDO, build

FEATURES = (
    Feature("dynamic", "dynamic images of VirtualBox and qemu-img, version 1.1"),
    Feature("static", "static (fixed) images of VirtualBox and qemu-img"),
    Feature("odd size", "disks whose size is no multiple of 512 or of the block size; what is "
            "missing of the last sector is zeros"),
    Feature("block size", "block sizes other than 1 MiB, any power of two"),
    Feature("block extra", "extra bytes before each block"),
    Feature("discarded", "discarded blocks (VirtualBox's `--discard`): zeros, never the parent's "
            "bytes"),
    Feature("order", "blocks stored in any order, spare entries of the block map"),
    Feature("differencing", "differencing images (snapshots), any number in a chain; the file does "
            "not say where its parent lies: `--parent CHILD=PATH` does"),
    Feature("no parent", "differencing images without `--parent`",
            "the file knows its parent by UUID alone; name it with `--parent CHILD=PATH`"),
    Feature("wrong parent", "parents with another UUID than the child names",
            "they are other images; name the right one with `--parent CHILD=PATH`"),
    Feature("undo", "undo images (type 3)",
            "no specification says what their blocks mean; serve the image that they belong to"),
    Feature("version 0", "versions before 1.1 (VirtualBox before 1.6)",
            "VirtualBox itself converts them; use `VBoxManage clonemedium`"),
    Feature("damaged", "blocks beyond the end of the file or beyond blocks_allocated, two blocks "
            "stored in one place",
            "the image is truncated or damaged; copy it anew"),
)


def changed(data, seed, size=None):
    """`data` with runs of bytes overwritten, some with zeros, and one whole block of them."""
    rng = random.Random(seed)
    after = bytearray(data if size is None else data[:size].ljust(size, b"\0"))
    for _ in range(6):
        length = min(rng.choice([1, 513, 70000, MIB]), len(after))
        first = rng.randrange(len(after) - length + 1)
        after[first:first + length] = rng.randbytes(length)
    after[2 * MIB:4 * MIB] = bytes(2 * MIB)
    return bytes(after)


class Maker:
    def __init__(self):
        self.manifest = Manifest("vdi", FEATURES)

    def add(self, name, image, data, feature, oracles=("qemu",), args=("-f", "vdi"), parents=()):
        """Adds the image `image` (a path, or bytes to be written) with the contents `data`."""
        if isinstance(image, bytes):
            image = write(self.manifest.path(name + ".vdi"), image)
        shown = data.ljust(-(-len(data) // SECTOR) * SECTOR, b"\0")
        raw = write_raw(self.manifest.path(name + ".raw"), shown)
        self.manifest.add(name, image, raw, args, oracles, parents, feature=feature)
        return image

    def refuse(self, name, image, words, feature, args=("-f", "vdi")):
        path = write(self.manifest.path(name + ".vdi"), image)
        self.manifest.add_refused(name, path, words, args, feature=feature)

    def by_qemu(self):
        for kind in ("dynamic", "static"):
            for size in (7 * MIB, 7 * MIB + 5 * SECTOR):
                name = f"vdi-qemu-{kind}-{size}"
                data = content(size, 1)
                raw = write_raw(self.manifest.path("source.raw"), data)
                path = self.manifest.path(name + ".vdi")
                run("qemu-img", "convert", "-f", "raw", "-O", "vdi", "-o",
                    "static=" + ("on" if kind == "static" else "off"), raw, path)
                # Without -f: a VDI is recognised.
                self.add(name, path, data, kind, args=())

    def built(self):
        data = content(9 * MIB, 2)
        self.add("vdi-dynamic", build(data, "dynamic"), data, "dynamic", args=())
        self.add("vdi-dynamic-old-header", build(data, "old", header_size=384, flags=0x100), data,
                 "dynamic")
        self.add("vdi-static", build(data, "static", STATIC), data, "static")
        self.add("vdi-shuffled", build(data, "shuffled", shuffled=3), data, "order")
        self.add("vdi-spare-entries", build(data, "spare", spare_blocks=700, table_at=4096), data,
                 "order")

    def sizes(self):
        for odd in (1, 511, 513, 70001):
            data = content(4 * MIB + odd, odd)
            # qemu shows what is stored behind the end of an odd disk, up to the sector's end.
            self.add(f"vdi-odd-{odd}", build(data, "odd"), data, "odd size", ())
            self.add(f"vdi-odd-static-cut-{odd}",
                     build(data, "odd", STATIC, cut_last_block=True), data, "odd size", ())
        for block_size in (512, 4096, 64 << 10, 4 * MIB, 32 * MIB):
            data = content(9 * MIB + 7 * SECTOR if block_size > 512 else MIB, block_size)
            # qemu serves blocks of 1 MiB alone.
            self.add(f"vdi-block-{block_size}",
                     build(data, "blocks", block_size=block_size, shuffled=block_size), data,
                     "block size", ())
        data = content(5 * MIB, 5)
        for extra in (512, 4096, MIB):
            self.add(f"vdi-block-extra-{extra}", build(data, "extra", block_extra=extra), data,
                     "block extra", ())

    def discarded(self):
        data = content(12 * MIB, 6)
        self.add("vdi-discarded", build(data[:3 * MIB] + bytes(3 * MIB) + data[6 * MIB:], "gone",
                                        discard_zeros=True),
                 data[:3 * MIB] + bytes(3 * MIB) + data[6 * MIB:], "discarded")

    def child(self, name, data, parent_path, parent_data, parent_name, feature="differencing",
              parents=(), **fields):
        path = self.manifest.path(name + ".vdi")
        write(path, build(data, name, DIFFERENCING, parent=parent_data, parent_name=parent_name,
                          **fields))
        args = ["--parent", f"{path}={parent_path}"]
        below = list(parents)
        for child, parent in zip([parent_path] + below, below):
            args += ["--parent", f"{child}={parent}"]
        self.add(name, path, data, feature, (), args, [parent_path] + below)
        return path

    def differencing(self):
        base = content(8 * MIB, 7)
        base_path = write(self.manifest.path("base.vdi"), build(base, "base"))
        data = changed(base, 8)
        for block_size in (64 << 10, MIB, 4 * MIB):
            self.child(f"vdi-differencing-block-{block_size}", data, base_path, base, "base",
                       block_size=block_size)
        self.child("vdi-differencing-discarded", data, base_path, base, "base", "discarded",
                   discard_zeros=True)
        self.child("vdi-differencing-extra", data, base_path, base, "base", "block extra",
                   block_extra=512, shuffled=1)
        static_path = write(self.manifest.path("base-static.vdi"), build(base, "static", STATIC))
        self.child("vdi-differencing-over-static", data, static_path, base, "static")
        self.child("vdi-differencing-larger", changed(base, 9, 11 * MIB + 3), base_path, base,
                   "base")
        self.child("vdi-differencing-smaller", changed(base, 10, 5 * MIB + SECTOR), base_path, base,
                   "base")
        chain, below, name = [base_path], base, "base"
        for depth in (1, 2, 3):
            data = changed(below, 20 + depth)
            image_name = f"vdi-chain-{depth}"
            path = self.child(image_name, data, chain[0], below, name, parents=chain[1:])
            chain, below, name = [path] + chain, data, image_name
        self.refuse("vdi-alone", build(data, "alone", DIFFERENCING, parent=base,
                                       parent_name="base"), "--parent", "no parent")
        path = self.manifest.path("vdi-stranger.vdi")
        self.refuse("vdi-stranger", build(data, "alone", DIFFERENCING, parent=base,
                                          parent_name="other"), "identity", "wrong parent",
                    args=("--parent", f"{path}={base_path}"))

    def refused(self):
        data = content(4 * MIB, 11)
        image = build(data, "refused")
        self.refuse("vdi-undo", build(data, "undo", UNDO), "undo image", "undo")
        self.refuse("vdi-version-0", build(data, "old", version=1), "version 0.1", "version 0")
        self.refuse("vdi-cut", image[:-SECTOR], "truncated", "damaged")
        self.refuse("vdi-beyond-allocated", image[:SECTOR] + b"\x07\0\0\0" + image[SECTOR + 4:],
                    "blocks_allocated", "damaged")
        stored = build(random.Random(12).randbytes(4 * MIB), "twice")
        self.refuse("vdi-twice", stored[:SECTOR] + stored[SECTOR + 4:SECTOR + 8] +
                    stored[SECTOR + 4:], "another block's", "damaged")


def main():
    maker = Maker()
    maker.by_qemu()
    maker.built()
    maker.sizes()
    maker.discarded()
    maker.differencing()
    maker.refused()


main()
