#!/usr/bin/python3
"""VHDs: fixed, dynamic and differencing; by qemu-img, and built where qemu-img cannot."""
import hashlib
import os
import random

from common import Feature, Manifest, changed, content, run, write, write_raw
from vhd_builder import chs_bytes, fixed, sparse
from vhd_refused import refused
from vhd_tapdisk import tapdisk

MIB = 1 << 20
SECTOR = 512

FEATURES = (
    Feature("fixed", "fixed images, of qemu-img, Hyper-V, Azure, VirtualBox and others"),
    Feature("dynamic", "dynamic images"),
    Feature("blocks", "blocks of any power of two from 512 bytes to 256 MiB, and a BAT that is larger "
            "than the disk needs"),
    Feature("size", "the disk's size by its creator's rule (geometry or current_size, as qemu), or "
            "as `force_size_calc` says; both are told when they differ"),
    Feature("footer", "a damaged or missing footer at either end of a dynamic or differencing image, "
            "as long as the other is whole"),
    Feature("short-footer", "the 511-byte footer of old writers"),
    Feature("device", "dynamic and differencing images on a block device, or in a file, that is "
            "larger than they are: the footer behind the last block ends the image"),
    Feature("differencing", "differencing images, over dynamic, fixed and differencing parents, of "
            "the same block size or another; the time stamp in the child does not matter"),
    Feature("parent-name", "parents by locators W2ru, W2ku, Wi2r, Wi2k and MacX (relative first) and "
            "by the name in the header; Windows paths count as the file's name beside the child"),
    Feature("parent-moved", "parents that were moved or renamed, by `--parent CHILD=PATH`"),
    Feature("parent-size", "parents smaller or larger than their resized child"),
    Feature("tapdisk", "images of Xen's tapdisk and vhd-util: with and without batmap (versions 1.1 "
            "and 1.2), hidden ones, and those left open, whose footer tapdisk has overwritten"),
    Feature("tapdisk-sectors", "tapdisk's dynamic images: sectors that it never wrote are zeros, "
            "whatever the device held there before (other readers show that)"),
    Feature("tapdisk-0.1", "images of tapdisk 0.1, whose sector bitmaps and header name are in "
            "another order"),
    Feature("tapdisk-raw-parent", "tapdisk's children of raw disks (legacy LVHD)"),
    Feature("encrypted", "images that tapdisk encrypted",
            "their key is not known here; copy them to an image without a key with tapdisk"),
    Feature("resizing", "images that vhd-util began to resize, and did not finish",
            "their structures are half moved; run vhd-util revert with the resize's journal"),
    Feature("missing-parent", "differencing images whose parent is not found",
            "data would be missing; say where it is with `--parent CHILD=PATH`"),
    Feature("other-parent", "differencing images over a parent with another unique id",
            "the data would be another disk's; find the parent with the id that is told"),
    Feature("no-parent-id", "differencing images without parent_unique_id that tapdisk did not write",
            "nothing says what the parent is; merge them where they were made"),
    Feature("type", "images of the disk types 0, 1, 5 and 6",
            "reserved and obsolete ones; convert them with the program that wrote them"),
    Feature("damaged", "tables or blocks beyond the end of the file, blocks that overlap each "
            "other, headers, tables or footers, wrong checksums, footers of two images",
            "their data is lost or another block's; copy them anew"),
)


class Maker:
    def __init__(self):
        self.manifest = Manifest("vhd", FEATURES)

    def add(self, feature, name, image, data, oracles, parents=(), args=("-f", "vpc")):
        """Adds the image `image` (a path, or bytes to be written) with the contents `data`."""
        if isinstance(image, bytes):
            image = write(self.manifest.path(name + ".vhd"), image)
        raw = self.manifest.path(hashlib.md5(data).hexdigest() + ".raw")
        if not os.path.exists(raw):  # many images have the same contents
            write_raw(raw, data)
        self.manifest.add(name, image, raw, args, oracles, parents, feature=feature)
        return image

    def refuse(self, feature, name, image, words, args=("-f", "vpc")):
        """Adds the image `image` (bytes), which must be refused in a line that has `words`."""
        path = write(self.manifest.path(name + ".vhd"), image)
        self.manifest.add_refused(name, path, words, args, feature=feature)

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
                self.add(subformat, name, path, data, ["qemu", "libvhdi"], args=())

    def block_sizes(self):
        for block_size in (512, 4096, 512 << 10, 4 * MIB):
            data = content(9 * MIB + 4096, block_size)
            image = sparse(data, "blocks", block_size=block_size)
            # Blocks of one sector: libvhdi 20210425 cannot read them, and QEMU 7.2 takes their bitmaps
            # for data.
            self.add("blocks", f"vhd-dynamic-block-{block_size}", image, data,
                     [] if block_size == SECTOR else ["qemu", "libvhdi"])
        data = content(5 * MIB, 3)
        self.add("blocks", "vhd-dynamic-spare-bat-entries",
                 sparse(data, "spare", spare_entries=3000), data, ["qemu", "libvhdi"])

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
            self.add("size", f"vhd-dynamic-by-{text}", sparse(data, "creator", creator=creator),
                     shown, ["qemu"])
        self.add("size", "vhd-fixed-by-vbox", fixed(data, "creator", creator=b"vbox"),
                 data[:chs_bytes(size)], ["qemu"])

    def footers(self):
        data = content(6 * MIB, 5)
        dynamic = sparse(data, "footer")
        self.add("footer", "vhd-damaged-trailing-footer",
                 dynamic[:-500] + b"\xee" * 4 + dynamic[-496:], data, ["qemu"], args=())
        self.add("footer", "vhd-missing-trailing-footer", dynamic[:-512], data, ["qemu"], args=())
        self.add("footer", "vhd-damaged-footer-copy", dynamic[:80] + b"\xee" + dynamic[81:], data,
                 ["libvhdi"], args=())
        self.add("footer", "vhd-missing-footer-copy", bytes(512) + dynamic[512:], data, ["libvhdi"],
                 args=())
        self.add("short-footer", "vhd-short-footer-dynamic", dynamic[:-1], data, ["qemu"], args=())
        self.add("short-footer", "vhd-short-footer-fixed", fixed(data, "short")[:-1], data, ["qemu"],
                 args=())

    def devices(self):
        """Images on a larger device, of which a larger file is the same to a reader."""
        data = content(5 * MIB, 20)
        dynamic = sparse(data, "device")
        other = sparse(content(MIB, 21), "other")
        for kind, behind in (("zeros", bytes(3 * MIB)), ("sector", bytes(512)),
                             ("noise", random.Random(22).randbytes(MIB)),
                             ("another-footer", bytes(MIB) + other[-512:])):
            self.add("device", f"vhd-device-{kind}", dynamic + behind, data, ["qemu"], args=())
        self.add("device", "vhd-device-filled", dynamic[:-512] + bytes(MIB) + dynamic[-512:], data,
                 ["qemu", "libvhdi"], args=())

    def child(self, feature, name, data, parent_path, parent_data, parent_name,
              oracles=("libvhdi",), parents=None, args=(), **fields):
        # libvhdi 20210425 reads a run of set bits to the end of its last byte, and so shows what a
        # block has where the parent is meant.
        fields.setdefault("whole_bytes", "libvhdi" in oracles)
        fields.setdefault("locators", [(b"W2ru", ".\\" + os.path.basename(parent_path))])
        image = sparse(data, name, parent=parent_data, parent_name=parent_name, **fields)
        return self.add(feature, name, image, data, list(oracles), parents or [parent_path], args=args)

    def differencing(self):
        base = content(8 * MIB, 7)
        base_path = write(self.manifest.path("base.vhd"), sparse(base, "base"))
        data = changed(base, 8)
        for block_size in (4096, 512 << 10, 2 * MIB, 4 * MIB):
            for kind, oracles in (("block", ["libvhdi"]), ("exact-block", [])):
                self.child("differencing", f"vhd-differencing-{kind}-{block_size}", data, base_path, base, "base",
                           oracles, block_size=block_size)
        fixed_path = write(self.manifest.path("base-fixed.vhd"), fixed(base, "base-fixed"))
        self.child("differencing", "vhd-differencing-over-fixed", data, fixed_path, base,
                   "base-fixed")
        self.child("differencing", "vhd-differencing-other-time", data, base_path, base, "base",
                   parent_time=0x12345678)
        self.names(base, base_path, data)
        self.moved(base, data)
        self.sizes(base, base_path)

        for kind, oracles in (("chain", ["libvhdi"]), ("exact-chain", []), ("mixed-chain", [])):
            chain, below, name = [base_path], base, "base"
            for depth in (1, 2, 3):
                data = changed(below, 100 + depth)
                image_name = f"vhd-{kind}-{depth}"
                fields = {"block_size": 4096 << 4 * depth} if kind == "mixed-chain" else {}
                path = self.child("differencing", image_name, data, chain[0], below, name, oracles,
                                  list(chain), **fields)
                chain, below, name = [path] + chain, data, image_name

    def names(self, base, base_path, data):
        """Each way in which an image can name its parent."""
        os.makedirs(self.manifest.path("sub"), exist_ok=True)
        in_sub = write(self.manifest.path("sub/b\u00e4se \U0001f4be.vhd"), sparse(base, "in-sub"))
        name = os.path.basename(in_sub)
        self.child("parent-name", "vhd-parent-in-sub-folder", data, in_sub, base, "in-sub",
                   locators=[(b"W2ru", ".\\sub\\" + name)])
        for kind, fields in (
                ("unicode-name", {"locators": [], "unicode_name": "base.vhd".encode("utf-16-be")}),
                ("windows-unicode-name", {"locators": [],
                                          "unicode_name": "C:\\Machines\\base.vhd".encode("utf-16-be")}),
                ("absolute-windows", {"locators": [(b"W2ku", "D:\\Machines\\base.vhd")]}),
                ("absolute-unix", {"locators": [], "unicode_name": base_path.encode("utf-16-be")}),
                ("stale-absolute", {"locators": [(b"W2ku", "\\not\\here\\gone.vhd"),
                                                 (b"MacX", "file://localhost/gone.vhd")],
                                    "unicode_name": "base.vhd".encode("utf-16-be")}),
                ("relative-first", {"locators": [(b"W2ku", "C:\\vhd-differencing-block-4096.vhd"),
                                                 (b"W2ru", "base.vhd")]}),
                ("file-url", {"locators": [(b"MacX", "file://./base.vhd")]}),
                ("absolute-file-url", {"locators": [(b"MacX", "file://" + base_path)]}),
                ("old-relative", {"locators": [(b"Wi2r", ".\\base.vhd")]}),
                ("old-absolute", {"locators": [(b"Wi2k", "E:\\Machines\\base.vhd")]}),
                ("old-relative-utf16",
                 {"locators": [(b"Wi2r", "base.vhd".encode("utf-16-le"))]}),
                ("all-codes", {"locators": [(b"Mac ", bytes(range(100))), (b"Odd!", b"base.vhd"),
                                            (b"MacX", "file://./gone.vhd"),
                                            (b"W2ku", "C:\\gone.vhd"), (b"Wi2k", "C:\\gone.vhd"),
                                            (b"Wi2r", "gone.vhd"), (b"W2ru", ".\\base.vhd")]}),
                ("space-in-sectors", {"data_space": 1}),
                ("space-not-stated", {"data_space": 0})):
            self.child("parent-name", f"vhd-parent-by-{kind}", data, base_path, base, "base", **fields)

    def moved(self, base, data):
        """Parents where the operator says."""
        elsewhere = write(self.manifest.path("elsewhere/renamed.vhd"), sparse(base, "moved"))
        for kind, locators in (("stale", [(b"W2ru", ".\\not-there.vhd")]), ("unnamed", [])):
            name = f"vhd-parent-moved-{kind}"
            self.child("parent-moved", name, data, elsewhere, base, "moved", locators=locators,
                       args=("-f", "vpc", "--parent", f"{name}.vhd={elsewhere}"))

    def sizes(self, base, base_path):
        """Parents of another size than the child: zeros behind the end of a smaller one."""
        self.child("parent-size", "vhd-parent-smaller", changed(base, 9, 11 * MIB + SECTOR),
                   base_path, base, "base", oracles=())
        self.child("parent-size", "vhd-parent-larger", changed(base, 10, 5 * MIB - SECTOR),
                   base_path, base, "base", oracles=())
        # The parent alone is cut to its geometry, but its child has all of it.
        data = content(10 * MIB + 3 * SECTOR, 11)
        for kind, parent in (("dynamic", sparse(data, "vbox", creator=b"vbox")),
                             ("fixed", fixed(data, "vbox", creator=b"vbox"))):
            path = write(self.manifest.path(f"vbox-{kind}.vhd"), parent)
            self.child("parent-size", f"vhd-parent-{kind}-by-vbox", changed(data, 12), path, data,
                       "vbox", oracles=())


def main():
    maker = Maker()
    maker.by_qemu()
    maker.block_sizes()
    maker.creators()
    maker.footers()
    maker.devices()
    maker.differencing()
    tapdisk(maker)
    refused(maker)


main()
