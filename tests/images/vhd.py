#!/usr/bin/python3
"""VHDs: fixed, dynamic and differencing; by qemu-img, and built where qemu-img cannot."""
import hashlib
import os
import random

from common import Manifest, content, run, write_raw
from vhd_builder import chs_bytes, fixed, sparse

MIB = 1 << 20
SECTOR = 512


def write(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as out:
        out.write(data)
    return path


def changed(data, seed, size=None):
    """`data` with runs of sectors overwritten: single ones, some on block edges, long ones, and
    some with zeros, which are data of the child."""
    rng = random.Random(seed)
    after = bytearray(data if size is None else data[:size].ljust(size, b"\0"))
    sectors = len(after) // SECTOR
    for _ in range(60):
        count = rng.choice([1, 1, 2, 7, 8, 9, 64, 65, 500])
        first = rng.choice([rng.randrange(sectors), rng.randrange(sectors // 64) * 64 - 1])
        part = slice(max(first, 0) * SECTOR, min(max(first, 0) + count, sectors) * SECTOR)
        length = part.stop - part.start
        after[part] = bytes(length) if rng.randrange(5) == 0 else rng.randbytes(length)
    return bytes(after)


FEATURES = ()


class Maker:
    def __init__(self):
        self.manifest = Manifest("vhd", FEATURES)

    def add(self, name, image, data, oracles, parents=(), args=("-f", "vpc")):
        """Adds the image `image` (a path, or bytes to be written) with the contents `data`."""
        if isinstance(image, bytes):
            image = write(self.manifest.path(name + ".vhd"), image)
        raw = self.manifest.path(hashlib.md5(data).hexdigest() + ".raw")
        if not os.path.exists(raw):  # many images have the same contents
            write_raw(raw, data)
        self.manifest.add(name, image, raw, args, oracles, parents)
        return image

    def by_qemu(self):
        for subformat in ("fixed", "dynamic"):
            for force, size in (("on", 9 * MIB + 512), ("off", 9 * MIB)):
                name = f"vhd-qemu-{subformat}-force_size-{force}"
                data = content(size, 1)
                raw = write_raw(self.manifest.path("source.raw"), data)
                path = self.manifest.path(name + ".vhd")
                run("qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o",
                    f"subformat={subformat},force_size={force}", raw, path)
                if force == "off":  # the size is rounded up to a geometry
                    read_back = self.manifest.path("read-back.raw")
                    run("qemu-img", "convert", "-f", "vpc", "-O", "raw", path, read_back)
                    data = data.ljust(os.path.getsize(read_back), b"\0")
                # Without -f: a VHD is recognised, a fixed one by its last sector alone.
                self.add(name, path, data, ["qemu", "libvhdi"], args=())

    def block_sizes(self):
        for block_size in (4096, 512 << 10, 4 * MIB):
            data = content(9 * MIB + 4096, block_size)
            image = sparse(data, "blocks", block_size=block_size)
            self.add(f"vhd-dynamic-block-{block_size}", image, data, ["qemu", "libvhdi"])
        data = content(5 * MIB, 3)
        self.add("vhd-dynamic-spare-bat-entries", sparse(data, "spare", spare_entries=3000), data,
                 ["qemu", "libvhdi"])

    def creators(self):
        """Whether the geometry or current_size is the disk's size is the creator's."""
        size = 10 * MIB + 3 * SECTOR
        data = content(size, 4)
        for creator, by_chs in ((b"win ", False), (b"tap\0", False), (b"CTXS", False),
                                (b"d2v ", False), (b"qem2", False), (b"vbox", True),
                                (b"vpc ", True), (b"wa\0\0", True)):
            shown = data[:chs_bytes(size)] if by_chs else data
            assert by_chs == (len(shown) != len(data))
            text = creator.decode().strip(" \0")
            self.add(f"vhd-dynamic-by-{text}", sparse(data, "creator", creator=creator), shown,
                     ["qemu"])
        self.add("vhd-fixed-by-vbox", fixed(data, "creator", creator=b"vbox"),
                 data[:chs_bytes(size)], ["qemu"])

    def footers(self):
        data = content(6 * MIB, 5)
        dynamic = sparse(data, "footer")
        self.add("vhd-damaged-trailing-footer", dynamic[:-500] + b"\xee" * 4 + dynamic[-496:], data,
                 ["qemu"], args=())
        self.add("vhd-missing-trailing-footer", dynamic[:-512], data, ["qemu"], args=())
        self.add("vhd-damaged-footer-copy", dynamic[:80] + b"\xee" + dynamic[81:], data,
                 ["libvhdi"], args=())
        self.add("vhd-short-footer-dynamic", dynamic[:-1], data, ["qemu"], args=())
        self.add("vhd-short-footer-fixed", fixed(data, "short")[:-1], data, ["qemu"], args=())

    def hidden_by_tapdisk(self):
        data = content(2 * MIB, 6)
        image = bytearray(sparse(data, "hidden", creator=b"tap\0", version=0x00010001))
        image[85] = image[len(image) - 512 + 85] = 1
        self.add("vhd-hidden-without-checksum", bytes(image), data, [], args=())

    def child(self, name, data, parent_path, parent_data, parent_name, oracles=("libvhdi",),
              parents=None, **fields):
        # libvhdi 20210425 reads a run of set bits to the end of its last byte, and so shows what a
        # block has where the parent is meant.
        fields.setdefault("whole_bytes", "libvhdi" in oracles)
        fields.setdefault("locators", [(b"W2ru", ".\\" + os.path.basename(parent_path))])
        image = sparse(data, name, parent=parent_data, parent_name=parent_name, **fields)
        return self.add(name, image, data, list(oracles), parents or [parent_path], args=())

    def differencing(self):
        base = content(8 * MIB, 7)
        base_path = write(self.manifest.path("base.vhd"), sparse(base, "base"))
        data = changed(base, 8)
        for block_size in (4096, 512 << 10, 2 * MIB, 4 * MIB):
            for kind, oracles in (("block", ["libvhdi"]), ("exact-block", [])):
                self.child(f"vhd-differencing-{kind}-{block_size}", data, base_path, base, "base",
                           oracles, block_size=block_size)
        fixed_path = write(self.manifest.path("base-fixed.vhd"), fixed(base, "base-fixed"))
        self.child("vhd-differencing-over-fixed", data, fixed_path, base, "base-fixed")
        self.names(base, base_path, data)
        self.sizes(base, base_path)

        for kind, oracles in (("chain", ["libvhdi"]), ("exact-chain", [])):
            chain, below, name = [base_path], base, "base"
            for depth in (1, 2, 3):
                data = changed(below, 100 + depth)
                image_name = f"vhd-{kind}-{depth}"
                path = self.child(image_name, data, chain[0], below, name, oracles, list(chain))
                chain, below, name = [path] + chain, data, image_name

    def names(self, base, base_path, data):
        """Each way in which an image can name its parent."""
        os.makedirs(self.manifest.path("sub"), exist_ok=True)
        in_sub = write(self.manifest.path("sub/b\u00e4se \U0001f4be.vhd"), sparse(base, "in-sub"))
        name = os.path.basename(in_sub)
        self.child("vhd-parent-in-sub-folder", data, in_sub, base, "in-sub",
                   locators=[(b"W2ru", ".\\sub\\" + name)])
        for kind, fields in (
                ("unicode-name", {"locators": [], "unicode_name": "base.vhd"}),
                ("windows-unicode-name", {"locators": [],
                                          "unicode_name": "C:\\Machines\\base.vhd"}),
                ("absolute-windows", {"locators": [(b"W2ku", "D:\\Machines\\base.vhd")]}),
                ("absolute-unix", {"locators": [], "unicode_name": base_path}),
                ("stale-absolute", {"locators": [(b"W2ku", "\\not\\here\\gone.vhd"),
                                                 (b"MacX", "file://localhost/gone.vhd")],
                                    "unicode_name": "base.vhd"}),
                ("relative-first", {"locators": [(b"W2ku", "C:\\vhd-differencing-block-4096.vhd"),
                                                 (b"W2ru", "base.vhd")]}),
                ("file-url", {"locators": [(b"MacX", "file://./base.vhd")]}),
                ("absolute-file-url", {"locators": [(b"MacX", "file://" + base_path)]})):
            self.child(f"vhd-parent-by-{kind}", data, base_path, base, "base", **fields)

    def sizes(self, base, base_path):
        """Parents of another size than the child: zeros behind the end of a smaller one."""
        self.child("vhd-parent-smaller", changed(base, 9, 11 * MIB + SECTOR), base_path, base,
                   "base", oracles=())
        self.child("vhd-parent-larger", changed(base, 10, 5 * MIB - SECTOR), base_path, base,
                   "base", oracles=())
        # The parent alone is cut to its geometry, but its child has all of it.
        data = content(10 * MIB + 3 * SECTOR, 11)
        for kind, parent in (("dynamic", sparse(data, "vbox", creator=b"vbox")),
                             ("fixed", fixed(data, "vbox", creator=b"vbox"))):
            path = write(self.manifest.path(f"vbox-{kind}.vhd"), parent)
            self.child(f"vhd-parent-{kind}-by-vbox", changed(data, 12), path, data, "vbox",
                       oracles=())

    def batmaps(self):
        base = content(8 * MIB, 13)
        base_path = write(self.manifest.path("tap-base.vhd"),
                          sparse(base, "tap-base", creator=b"tap\0", version=0x00010003))
        data = bytearray(changed(base, 14))
        data[4096:4 * MIB - 4096] = random.Random(15).randbytes(4 * MIB - 8192)
        data = bytes(data)
        for batmap in (True, False):
            self.child("vhd-tapdisk-" + ("batmap" if batmap else "no-batmap"), data, base_path,
                       base, "tap-base", oracles=() if batmap else ("libvhdi",), batmap=batmap,
                       block_size=64 << 10, creator=b"tap\0", version=0x00010003)
        self.add("vhd-tapdisk-batmap-dynamic",
                 sparse(data, "tap", batmap=True, creator=b"tap\0", version=0x00010003), data,
                 ["qemu"])


def main():
    maker = Maker()
    maker.by_qemu()
    maker.block_sizes()
    maker.creators()
    maker.footers()
    maker.hidden_by_tapdisk()
    maker.differencing()
    maker.batmaps()


main()
