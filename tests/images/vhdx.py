#!/usr/bin/python3
"""VHDXs: fixed, dynamic and differencing, with logs that were not replayed; by qemu-img, and built
where qemu-img cannot."""
import hashlib
import os
import shutil
import struct
import uuid

import vhdx_builder as builder
from common import Feature, Manifest, changed, content, run, write_raw
from vhdx_builder import BAT_AT, HEADERS_AT, LOG_AT, LOG_BYTES, METADATA_AT, MIB, TABLES_AT

FEATURES = (
    Feature("dynamic", "dynamic images, in all block sizes from 1 to 256 MiB"),
    Feature("fixed", "fixed images"),
    Feature("sectors-4096", "logical sectors of 4096 bytes (qemu refuses them)"),
    Feature("discarded", "blocks that were zeroed, unmapped or never defined: zeros, also where the "
            "parent has data"),
    Feature("differencing", "differencing images (.avhdx), in chains, over fixed or dynamic parents, "
            "also smaller and larger ones"),
    Feature("parent-names", "parents named by relative_path, volume_path or absolute_win32_path, or "
            "by `--parent`"),
    Feature("dirty-log", "images that were not closed properly: their log is replayed in memory, and "
            "the file stays as it is (qemu refuses to read them)"),
    Feature("second-copies", "damaged headers or region tables of which there is a whole copy (qemu "
            "refuses the latter)"),
    Feature("optional-parts", "regions and metadata items that nobody needs to know"),
    Feature("unknown-parts", "regions, metadata items or versions that a reader must know",
            "a newer program wrote the image; convert it there"),
    Feature("wrong-parent", "parents that are not the ones that their children were made on",
            "they would show wrong data; find the right one, and name it with `--parent CHILD=PATH`"),
    Feature("other-parent", "parents that are no VHDX",
            "no such kind of parent is specified; merge them where they were made"),
    Feature("unreplayable-log", "logs that must be replayed, but hold no whole sequence",
            "what they held is lost, and the image is inconsistent; copy it anew"),
    Feature("damaged", "tables or blocks beyond the end of the file, or over each other",
            "the image is truncated or damaged; copy it anew"),
)


def locator(parent_name, **values):
    """2.6.2.6.3"""
    return {"parent_linkage": f"{{{builder.data_write_guid(parent_name)}}}", **values}


class Maker:
    def __init__(self):
        self.manifest = Manifest("vhdx", FEATURES)

    def path(self, name):
        return self.manifest.path(name if "." in name else name + ".vhdx")

    def add(self, feature, name, data, oracles=(), parents=(), args=("-f", "vhdx")):
        """Adds the image self.path(name) with the contents `data`."""
        raw = self.manifest.path(hashlib.md5(data).hexdigest() + ".raw")
        if not os.path.exists(raw):  # many images have the same contents
            write_raw(raw, data)
        self.manifest.add(name, self.path(name), raw, args, oracles, parents, feature=feature)
        return self.path(name)

    def built(self, feature, name, data, oracles=("libvhdi",), parents=(), args=(), **fields):
        builder.build(self.path(name), data, name, **fields)
        return self.add(feature, name, data, oracles, parents, args)

    def refused(self, feature, name, words, patches=(), image=None, size=None):
        """A copy of `image` with `patches` {offset: bytes}, cut to `size`."""
        if image is not None:
            shutil.copy(image, self.path(name))
        with open(self.path(name), "r+b") as file:
            for offset, data in dict(patches).items():
                file.seek(offset)
                file.write(data)
            if size is not None:
                file.truncate(size)
        self.manifest.add_refused(name, self.path(name), words, feature=feature)

    def by_qemu(self):
        data = content(9 * MIB + 512, 1)
        raw = write_raw(self.manifest.path("source.raw"), data)

        def convert(feature, name, options, oracles=("qemu", "libvhdi")):
            run("qemu-img", "convert", "-f", "raw", "-O", "vhdx", "-o", options, raw,
                self.path(name))
            self.add(feature, name, data, oracles, args=())

        for megabytes in (1, 2, 8, 64, 256):
            convert("dynamic", f"vhdx-qemu-dynamic-{megabytes}M",
                    f"subformat=dynamic,block_size={megabytes}M")
        for zero in ("on", "off"):
            convert("discarded", f"vhdx-qemu-state-zero-{zero}",
                    f"subformat=dynamic,block_size=1M,block_state_zero={zero}")
        convert("fixed", "vhdx-qemu-fixed", "subformat=fixed,block_size=1M")
        convert("fixed", "vhdx-qemu-fixed-8M", "subformat=fixed,block_size=8M")

    def dynamic(self):
        data = content(20 * MIB + 4096, 2)
        for megabytes in (1, 4, 32):
            self.built("dynamic", f"vhdx-dynamic-{megabytes}M", data, ["qemu", "libvhdi"],
                       block_size=megabytes * MIB)
            self.built("sectors-4096", f"vhdx-sectors-4096-{megabytes}M", data,
                       block_size=megabytes * MIB, sector=4096)
        self.built("fixed", "vhdx-leave-blocks-allocated", data, ["qemu", "libvhdi"], flags=1)
        self.built("dynamic", "vhdx-cut-last-block", data, block_size=8 * MIB,
                   full_blocks=False)

    def copies(self):
        data = content(5 * MIB, 3)
        image = builder.build(self.path("whole"), data, "whole")
        for kind, at in (("header-1", HEADERS_AT[0]), ("header-2", HEADERS_AT[1]),
                         ("region-table-1", TABLES_AT[0]), ("region-table-2", TABLES_AT[1])):
            name = f"vhdx-damaged-{kind}"
            shutil.copy(image, self.path(name))
            with open(self.path(name), "r+b") as file:
                file.seek(at + 40)
                file.write(b"\xee")
            # libvhdi wants both region tables; qemu never looks at the second.
            oracles = {"region-table-1": [], "region-table-2": ["qemu"]}.get(kind,
                                                                             ["qemu", "libvhdi"])
            self.add("second-copies", name, data, oracles, args=())
        # Disk2vhd writes the same header twice.
        shutil.copy(image, self.path("vhdx-equal-headers"))
        with open(self.path("vhdx-equal-headers"), "r+b") as file:
            for at in HEADERS_AT:
                file.seek(at)
                file.write(builder.header(1, "whole"))
        self.add("second-copies", "vhdx-equal-headers", data, ["qemu", "libvhdi"], args=())
        self.built("optional-parts", "vhdx-optional-parts", data, ["qemu"],
                   more_items=[(uuid.UUID(int=1), b"user's", 1), (uuid.UUID(int=2), b"", 0)],
                   more_regions=[(uuid.UUID(int=3), 1 << 30, MIB, 0)])

    def differencing(self):
        base = content(20 * MIB, 7)
        base_path = self.built("dynamic", "base", base, ["qemu", "libvhdi"])
        data = changed(base, 8)
        for megabytes in (1, 2, 8):
            self.child("differencing", f"vhdx-differencing-{megabytes}M", data, base_path, base,
                       block_size=megabytes * MIB)
        # libvhdi 20210425 shows the parent where the child has zeros. One block of each state.
        zeros = data[:3 * MIB] + bytes(3 * MIB) + data[6 * MIB:]
        self.child("discarded", "vhdx-differencing-zeros", zeros, base_path, base, oracles=())
        base_4k = self.built("sectors-4096", "base-4096", base, sector=4096, block_size=2 * MIB)
        self.child("sectors-4096", "vhdx-differencing-sectors-4096",
                   changed(base, 9, sector=4096), base_4k, base, sector=4096)
        fixed = self.built("fixed", "base-fixed", base, ["qemu", "libvhdi"], flags=1)
        self.child("differencing", "vhdx-differencing-over-fixed", data, fixed, base)
        self.child("differencing", "vhdx-parent-smaller", changed(base, 10, 23 * MIB + 512), base_path,
                   base, oracles=())
        self.child("differencing", "vhdx-parent-larger", changed(base, 11, 15 * MIB - 512), base_path,
                   base)
        chain, below = [base_path], base
        for depth in (1, 2, 3):
            data = changed(below, 100 + depth)
            path = self.child("differencing", f"vhdx-chain-{depth}.avhdx", data, chain[0], below,
                              parents=list(chain))
            chain, below = [path] + chain, data

    def child(self, feature, name, data, parent_path, parent_data, oracles=("libvhdi",), parents=None,
              parent_name=None, paths=None, args=(), **fields):
        parent_file = os.path.basename(parent_path)
        parent_name = parent_name or parent_file.rsplit(".", 1)[0]
        paths = paths or {"relative_path": ".\\" + parent_file}
        builder.build(self.path(name), data, name.split(".")[0], parent=parent_data,
                      locator=locator(parent_name, **paths), **fields)
        return self.add(feature, name, data, oracles, parents or [parent_path], args)

    def names(self):
        """Each way in which an image can name its parent."""
        base = content(6 * MIB, 12)
        base_path = self.built("dynamic", "named", base, ["qemu", "libvhdi"])
        os.makedirs(self.manifest.path("sub"), exist_ok=True)
        in_sub = self.manifest.path("sub/b\u00e4se \U0001f4be.vhdx")
        builder.build(in_sub, base, "in-sub")
        data = changed(base, 13)
        self.child("parent-names", "vhdx-parent-in-sub-folder", data, in_sub, base,
                   parent_name="in-sub",
                   paths={"relative_path": ".\\sub\\" + os.path.basename(in_sub)})
        volume = "\\\\?\\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\\machines\\"
        for kind, paths in (
                ("volume", {"volume_path": volume + "named.vhdx"}),
                ("absolute", {"absolute_win32_path": "\\\\?\\d:\\machines\\named.vhdx"}),
                ("server", {"absolute_win32_path": "\\\\?\\UNC\\server\\share\\named.vhdx"}),
                ("relative-first", {"absolute_win32_path": "\\\\?\\d:\\whole.vhdx",
                                    "volume_path": volume + "whole.vhdx",
                                    "relative_path": "named.vhdx"}),
                ("stale-relative", {"relative_path": "gone\\gone.vhdx",
                                    "absolute_win32_path": "\\\\?\\d:\\named.vhdx"}),
                ("linkage2", {"parent_linkage": f"{{{uuid.UUID(int=5)}}}",
                              "parent_linkage2": f"{{{builder.data_write_guid('named')}}}".upper(),
                              "relative_path": "named.vhdx"})):
            self.child("parent-names", f"vhdx-parent-by-{kind}", data, base_path, base, paths=paths,
                       oracles=() if kind == "linkage2" else ("libvhdi",))
        self.child("parent-names", "vhdx-parent-by-operator", data, base_path, base,
                   paths={"relative_path": "gone.vhdx"},
                   args=("--parent", f"vhdx-parent-by-operator.vhdx={base_path}"))

    def dirty(self):
        data = content(9 * MIB + 512, 14)
        base = content(9 * MIB + 512, 15)
        metadata = [METADATA_AT, METADATA_AT + (64 << 10)]

        def dirty(name, offsets, **fields):
            builder.make_dirty(self.path(name), name, offsets, **fields)

        for kind, offsets, fields in (
                ("bat", [BAT_AT], {}),
                ("metadata", [BAT_AT, *metadata], {}),
                ("region-tables", [*TABLES_AT, BAT_AT, *metadata], {"per_entry": 1}),
                ("long-entry", [BAT_AT + i * 4096 for i in range(130)], {"per_entry": 130}),
                ("wrapped", [BAT_AT, *metadata], {"start": LOG_BYTES - 12288, "per_entry": 1}),
                ("wrapped-entry", [BAT_AT, *metadata], {"start": LOG_BYTES - 16384, "per_entry": 3})):
            name = f"vhdx-dirty-{kind}"
            builder.build(self.path(name), data, name)
            dirty(name, offsets, **fields)
            self.add("dirty-log", name, data, args=())
        base_path = self.built("dynamic", "dirty-base", base, ["qemu", "libvhdi"])
        child = changed(base, 16)
        name = "vhdx-dirty-differencing"
        builder.build(self.path(name), child, name, parent=base,
                      locator=locator("dirty-base", relative_path=os.path.basename(base_path)))
        bitmap = os.path.getsize(self.path(name)) - MIB  # the builder puts it at the end
        dirty(name, [BAT_AT, bitmap, METADATA_AT + (64 << 10)])
        self.add("dirty-log", name, child, parents=[base_path], args=())
        self.dirty_by_qemu(data)

    def dirty_by_qemu(self, data):
        """qemu's own log: as if it had lost power before the last write of the BAT."""
        name = "vhdx-dirty-by-qemu"
        raw = write_raw(self.manifest.path("source.raw"), data)
        run("qemu-img", "convert", "-f", "raw", "-O", "vhdx", "-o", "block_size=1M", raw,
            self.path(name))
        with open(self.path(name), "r+b") as file:
            file.seek(HEADERS_AT[0])
            log_bytes, log_at = struct.unpack_from("<IQ", file.read(4096), 68)
            file.seek(log_at)
            log = file.read(log_bytes)
            newest = max((at for at in range(0, len(log), 4096) if log[at:at + 4] == b"loge"),
                         key=lambda at: struct.unpack_from("<Q", log, at + 16))
            guid = log[newest + 32:newest + 48]
            place, = struct.unpack_from("<Q", log, newest + 64 + 16)
            file.seek(place)
            file.write(bytes(4096))
            for at in HEADERS_AT:
                file.seek(at)
                header = bytearray(file.read(4096))
                header[48:64] = guid
                file.seek(at)
                file.write(builder.sealed(bytes(header)))
        self.add("dirty-log", name, data, args=())
        # qemu agrees once it may write.
        copy, read_back = self.path("replayed-by-qemu"), self.manifest.path("read-back.raw")
        shutil.copy(self.path(name), copy)
        run("qemu-img", "check", "-r", "all", "-f", "vhdx", copy)
        run("qemu-img", "convert", "-f", "vhdx", "-O", "raw", copy, read_back)
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", raw, read_back)

    def refusals(self):
        data = content(4 * MIB, 20)
        image = builder.build(self.path("good"), data, "good")
        unknown = uuid.UUID("0123abcd-0000-0000-0000-000000000000")
        builder.build(self.path("vhdx-unknown-region"), data, "x",
                      more_regions=[(unknown, 1 << 30, MIB, 1)])
        self.refused("unknown-parts", "vhdx-unknown-region", "needs the region 0123abcd-")
        builder.build(self.path("vhdx-unknown-item"), data, "x", more_items=[(unknown, b"?", 4)])
        self.refused("unknown-parts", "vhdx-unknown-item", "needs the metadata item 0123abcd-")
        version = bytearray(builder.header(9, "good"))
        version[66] = 2
        self.refused("unknown-parts", "vhdx-version-2", "Version 2",
                     {HEADERS_AT[0]: builder.sealed(bytes(version))}, image)

        self.with_other_linkage("vhdx-wrong-parent")
        self.refused("wrong-parent", "vhdx-wrong-parent", "it is another image")
        parent = builder.build(self.path("vhdx-iscsi-parent"), data, "x", parent=data,
                               locator=locator("good", relative_path="good.vhdx"))
        with open(parent, "rb") as file:
            at = file.read().index(builder.LOCATOR_TYPE.bytes_le)
        self.refused("other-parent", "vhdx-iscsi-parent", "only VHDX parents", {at: b"\1"})

        self.refused("unreplayable-log", "vhdx-log-empty", "no whole sequence",
                     {HEADERS_AT[0]: builder.header(9, "good", unknown)}, image)
        builder.build(self.path("vhdx-log-of-longer-file"), data, "x")
        builder.make_dirty(self.path("vhdx-log-of-longer-file"), "x", [BAT_AT])
        self.refused("damaged", "vhdx-log-of-longer-file", "FlushedFileOffset",
                     size=os.path.getsize(self.path("vhdx-log-of-longer-file")) - 4096)

        size = os.path.getsize(image)
        self.refused("damaged", "vhdx-truncated", "truncated", image=image, size=size - 4096)
        for kind, entry, words in (("header", 6, "first MiB"), ("log", LOG_AT | 6, "log or a region"),
                                   ("beyond", 1 << 40 | 6, "truncated"), ("state", 4, "state 4"),
                                   ("partial", size - MIB | 7, "state 7")):
            self.refused("damaged", f"vhdx-block-{kind}", words, {BAT_AT: struct.pack("<Q", entry)},
                         image)
        with open(image, "rb") as file:
            file.seek(BAT_AT)
            stored = next(entry for entry in struct.unpack("<8Q", file.read(64)) if entry & 7 == 6)
        self.refused("damaged", "vhdx-blocks-overlap", "claim the same bytes",
                     {BAT_AT: struct.pack("<QQ", stored, stored)}, image)

    def with_other_linkage(self, name):
        """A child whose linkage is not the parent's DataWriteGuid."""
        base = content(MIB, 21)
        builder.build(self.path("changed-parent"), base, "changed-parent")
        builder.build(self.path(name), changed(base, 22), name, parent=base,
                      locator=locator("before", relative_path="changed-parent.vhdx"))


def main():
    maker = Maker()
    maker.by_qemu()
    maker.dynamic()
    maker.copies()
    maker.differencing()
    maker.names()
    maker.dirty()
    maker.refusals()


main()
