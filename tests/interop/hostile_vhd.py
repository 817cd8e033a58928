"""Hostile VHDs: "Virtual Hard Disk Image Format Specification" 1.0 and what tapdisk adds to it."""
import os
import struct

import vhd_builder
from common import content
from hostile_image_lab import SAFE, Field, Image, ignored, other

SECTOR = 512
BLOCK = 64 << 10
NO_CONTENT = ignored("it tells nothing about the contents")
SIZES = other("the size, or what decides which of the sizes counts", peer=False)
FREE = 0xFFFFFFFF


def footer_fields(at, sparse):
    fields = [
        Field("cookie", at, 8), Field("features", at + 8), Field("format_version", at + 12),
        Field("data_offset", at + 16, 8), Field("timestamp", at + 24, rule=NO_CONTENT),
        Field("creator", at + 28, rule=SIZES), Field("creator_version", at + 32, rule=SAFE),
        Field("creator_host", at + 36, rule=NO_CONTENT),
        Field("original_size", at + 40, 8, rule=NO_CONTENT),
        Field("current_size", at + 48, 8, rule=SIZES),
        Field("cylinders", at + 56, 2), Field("heads", at + 58, 1), Field("sectors", at + 59, 1),
        Field("type", at + 60, rule=other("whether it has a parent is for this field to say", peer=False)
                      if sparse else SAFE), Field("saved_state", at + 84, 1),
    ]
    return fields if sparse else [field for field in fields if field.name != "original_size"]


def header_fields(at):
    return [
        Field("header cookie", at, 8), Field("header data_offset", at + 8, 8),
        Field("table_offset", at + 16, 8), Field("header_version", at + 24),
        Field("max_table_entries", at + 28), Field("block_size", at + 32),
        Field("parent_timestamp", at + 56), Field("header reserved", at + 60),
    ] + [Field(f"locator {i} {name}", at + 576 + 24 * i + place, width)
         for i in range(2)
         for name, place, width in (("code", 0, 4), ("space", 4, 4), ("length", 8, 4),
                                    ("reserved", 12, 4), ("offset", 16, 8))]


def sealer(sparse):
    def seal(changed):
        """The checksums of both footers and the header; the copy is as the footer."""
        end = len(changed) - SECTOR
        patches = []
        places = (0, end) if sparse else (end,)
        for at in places:
            footer = vhd_builder.sealed(changed[at:at + SECTOR], 64)
            patches.append((at + 64, footer[64:68]))
        if sparse:
            header = vhd_builder.sealed(changed[SECTOR:SECTOR + 1024], 36)
            patches.append((SECTOR + 36, header[36:40]))
        return tuple(patches)
    return seal


def both_footers(image, fields):
    """Each field wrong in the footer alone, in the copy alone, and in both in the same way."""
    end = len(image.data) - SECTOR
    for field in fields:
        image.field("footer " + field.name, end + field.at, field.width,
                    SIZES if field.rule is SAFE else field.rule)
        image.field("copy " + field.name, field.at, field.width,
                    SIZES if field.rule is SAFE else field.rule)
        was = image.number(field.at, field.width)
        for value in (0, 1, (1 << 8 * field.width) - 1, was + 1, was - 1):
            if 0 <= value < 1 << 8 * field.width and value != was:
                raw = value.to_bytes(field.width, "big")
                image.change(f"both {field.name}={value:#x}", (field.at, raw), (end + field.at, raw),
                             rule=field.rule)


def bat(image, entries=8):
    at = image.number(SECTOR + 16, 8)
    stored = [image.number(at + 4 * i) for i in range(entries)]
    sectors = len(image.data) // SECTOR
    values = [0, 1, 2, 3, 4, stored[0] - 1, stored[0] + 1, sectors, sectors - 1,
              sectors - 1 - BLOCK // SECTOR, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0x00800000, *stored]
    for index in range(entries):
        for value in dict.fromkeys(values):
            if value not in (stored[index], FREE) and 0 <= value:
                image.change(f"BAT[{index}]={value:#x}", (at + 4 * index, struct.pack(">I", value)))


def seals(image, sparse):
    end = len(image.data) - SECTOR
    image.without_seal("footer byte", end + 200, rule=SAFE)
    if sparse:
        image.without_seal("copy byte", 200, rule=SAFE)
        image.without_seal("header byte", SECTOR + 300)
        image.change("both footers' bytes", (200, b"\1"), (end + 200, b"\1"), seal=False)
        image.change("two headers", (SECTOR, image.data[:SECTOR]), seal=False)


def images(folder):
    data = content(7 * BLOCK + 4096, 8)
    data = data[:BLOCK] + bytes(BLOCK) + data[2 * BLOCK:]
    built = vhd_builder.fixed(data, "fixed")
    fixed = Image("vhd-fixed", os.path.join(folder, "fixed.vhd"), built, data, "vpc", "big",
                  sealer(False), qemu_format="vpc")
    fixed.fields(*footer_fields(len(data), False))
    seals(fixed, False)
    fixed.cuts()
    yield fixed
    for kind, options in {"dynamic": {}, "batmap": {"batmap": True, "bits_beside_batmap": True, "creator": b"tap\0",
                                                     "version": 0x00010003}}.items():
        built = vhd_builder.sparse(data, kind, block_size=BLOCK, **options)
        image = Image("vhd-" + kind, os.path.join(folder, kind + ".vhd"), built, data, "vpc", "big",
                      sealer(True))
        both_footers(image, footer_fields(0, True))
        image.fields(*header_fields(SECTOR))
        bat(image)
        seals(image, True)
        if kind == "batmap":
            at = built.index(b"tdbatmap")
            image.fields(*(Field("batmap " + name, at + place, width) for name, place, width in (
                ("cookie", 0, 8), ("offset", 8, 8), ("sectors", 16, 4), ("version", 20, 4),
                ("checksum", 24, 4))))
        image.cuts()
        yield image
    yield differencing(folder, data)


def differencing(folder, data):
    parent = content(len(data), 9)
    Image("vhd-parent", os.path.join(folder, "parent.vhd"),
          vhd_builder.sparse(parent, "parent", block_size=BLOCK), parent, "vpc", "big")
    mixed = bytearray(data)
    mixed[3 * BLOCK:3 * BLOCK + 5000 // SECTOR * SECTOR] = \
        parent[3 * BLOCK:3 * BLOCK + 5000 // SECTOR * SECTOR]
    mixed[5 * BLOCK:6 * BLOCK] = parent[5 * BLOCK:6 * BLOCK]
    truth = bytes(mixed)
    locators = ((b"W2ru", ".\\parent.vhd"), (b"MacX", "file:///parent.vhd"))
    built = vhd_builder.sparse(truth, "child", parent, "parent", locators=locators,
                               unicode_name="parent.vhd".encode("utf-16-be"), block_size=BLOCK)
    image = Image("vhd-child", os.path.join(folder, "child.vhd"), built, truth, "vpc", "big",
                  sealer(True))
    both_footers(image, footer_fields(0, True))
    image.fields(*header_fields(SECTOR))
    image.change("parent uuid", (SECTOR + 40, bytes(16)))
    image.change("parent uuid of itself", (SECTOR + 40, built[68:84]))
    for name in ("child.vhd", "../parent.vhd", "/etc/passwd", "\0", "..", ".", "nbd://host/x",
                 "json:{}", "\\\\host\\share\\x.vhd", "C:\\x.vhd", "a\0parent.vhd"):
        raw = name.encode("utf-16-le")
        offset = image.number(SECTOR + 576 + 16, 8)
        image.change(f"locator to {name!r}", (offset, raw),
                     (SECTOR + 576 + 8, struct.pack(">I", len(raw))),
                     (SECTOR + 600, bytes(24)), (SECTOR + 64, bytes(512)))
    bat(image)
    seals(image, True)
    image.cuts()
    return image
