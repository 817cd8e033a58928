"""Hostile VHDXs: "[MS-VHDX]: Virtual Hard Disk v2 (VHDX) File Format"."""
import os
import struct

import vhdx_builder
from common import content
from hostile_image_lab import SAFE, Field, Image, other, wrong_values
from vhdx_builder import BAT_AT, HEADERS_AT, LOG_AT, METADATA_AT, MIB, TABLES_AT

KIB = 1 << 10
HEADER_BYTES, TABLE_BYTES = 4096, 64 << 10
ITEMS_AT = METADATA_AT + (64 << 10)
BITMAP_RULE = other("the state says so", peer=False)


# The structures that a checksum covers.
SEALED = ([(at, HEADER_BYTES) for at in HEADERS_AT] + [(at, TABLE_BYTES) for at in TABLES_AT])


def twice(image, places, name, at, width, rule=SAFE, more=()):
    """A field wrong in both copies of a structure, in the first, and in the second."""
    was = image.number(places[0] + at, width)
    for value in wrong_values(was, width, len(image.data), more):
        raw = value.to_bytes(width, "little")
        image.change(f"both {name}={value:#x}", *((place + at, raw) for place in places), rule=rule)
    for place in places:
        image.change(f"{name} of {place:#x} alone", (place + at, (was ^ 3).to_bytes(width, "little")),
                     rule=rule)


def headers(image):
    for name, at, width in (("signature", 0, 4), ("version", 66, 2), ("log_version", 64, 2),
                            ("log_length", 68, 4), ("log_offset", 72, 8)):
        twice(image, HEADERS_AT, "header " + name, at, width)
    for number, place in enumerate(HEADERS_AT):
        image.field(f"header {number} sequence", place + 8, 8)
    for name, guid in (("of nothing", b"\7" * 16), ("of ones", b"\xff" * 16)):
        image.change("log_guid " + name, *((place + 48, guid) for place in HEADERS_AT))
    for place in (*HEADERS_AT, *TABLES_AT):
        image.without_seal(f"byte at {place + 100:#x}", place + 100, rule=SAFE)
    image.change("no header", *((place, bytes(64)) for place in HEADERS_AT), seal=False)
    image.change("no region table", *((place, bytes(64)) for place in TABLES_AT), seal=False)


def regions(image):
    twice(image, TABLES_AT, "regions signature", 0, 4)
    twice(image, TABLES_AT, "entry_count", 8, 4, more=(2047, 2048))
    for number in range(2):
        at = 16 + 32 * number
        twice(image, TABLES_AT, f"region {number} guid", at, 4)
        twice(image, TABLES_AT, f"region {number} offset", at + 16, 8,
              more=(MIB, LOG_AT, METADATA_AT, BAT_AT, 1 << 40, (1 << 64) - MIB))
        twice(image, TABLES_AT, f"region {number} length", at + 24, 4, more=(1 << 20, 2 << 20, 1 << 31))
        twice(image, TABLES_AT, f"region {number} required", at + 28, 4)


def metadata(image):
    items = image.number(METADATA_AT + 10, 2)
    image.fields(Field("metadata signature", METADATA_AT, 8),
                 Field("metadata entry_count", METADATA_AT + 10, 2, more=(2047, 2048)))
    for number in range(items):
        at = METADATA_AT + 32 + 32 * number
        name = f"item {number}"
        image.fields(Field(name + " guid", at), Field(name + " offset", at + 16, more=(65535, 65536),
                           rule=other("it tells where the size is", peer=False)),
                     Field(name + " length", at + 20), Field(name + " flags", at + 24),
                     Field(name + " reserved", at + 28))
    offsets = [METADATA_AT + image.number(METADATA_AT + 48 + 32 * number) for number in range(items)]
    image.fields(Field("block_size", offsets[0], rule=other("it tells where blocks lie", peer=False),
                       more=(1 << 20, 1 << 28, 1 << 29, 512)),
                 Field("parameter flags", offsets[0] + 4),
                 Field("disk_size", offsets[1], 8, rule=other("the size", peer=False)),
                 Field("logical_sector", offsets[3], more=(512, 4096), rule=SAFE),
                 Field("physical_sector", offsets[4], rule=SAFE, more=(512,)))


def bat(image, entries):
    places = (0, MIB, METADATA_AT, BAT_AT, len(image.data), len(image.data) - MIB, 1 << 40, 1 << 50,
              0xFFFFFFFFFFF << 20)
    for index in range(entries):
        at = BAT_AT + 8 * index
        was = image.number(at, 8)
        for state in range(8):
            image.change(f"BAT[{index}] state {state}",
                         (at, struct.pack("<Q", was & ~7 | state)), rule=BITMAP_RULE)
        for place in places:
            for state in (6, 7):
                raw = struct.pack("<Q", place | state)
                image.change(f"BAT[{index}]={place:#x} {state}", (at, raw),
                             rule=other("another block's", peer=False)
                             if place == len(image.data) - MIB else SAFE)
        for bit in (3, 7, 19, 63):
            image.change(f"BAT[{index}] bit {bit}", (at, struct.pack("<Q", was ^ 1 << bit)),
                         rule=BITMAP_RULE if bit == 63 else SAFE)


def log(image, name):
    """A log that has to be replayed; each field of its first entries wrong."""
    for at in range(0, MIB, 4096):
        if image.data[LOG_AT + at:LOG_AT + at + 4] != b"loge":
            continue
        place = LOG_AT + at
        length = image.number(place + 8)
        image.crc32c = [(place, length)]
        number = at // 4096
        for field, offset, width in (
                ("signature", 0, 4), ("entry_length", 8, 4), ("tail", 12, 4), ("sequence", 16, 8),
                ("descriptors", 24, 4), ("guid", 32, 4), ("flushed", 48, 8), ("last", 56, 8),
                ("descriptor signature", 64, 4), ("descriptor trailing", 68, 4),
                ("descriptor leading", 72, 8), ("descriptor offset", 80, 8),
                ("descriptor sequence", 88, 8)):
            image.field(f"{name} {number} {field}", place + offset, width,
                        other("a log that ends earlier is another log", peer=False))


def images(folder):
    data = content(3 * MIB + 4096, 11)
    data = data[:MIB] + bytes(MIB) + data[2 * MIB:]
    path = os.path.join(folder, "dynamic.vhdx")
    os.makedirs(folder)
    vhdx_builder.build(path, data, "dynamic")
    image = image_of("vhdx-dynamic", path, data, "vhdx")
    headers(image)
    regions(image)
    metadata(image)
    bat(image, 4)
    # Structures and data begin at whole MiB; a cut within one is as good as the next.
    image.cuts(step=512, first=len(image.data) - 64 * KIB)
    image.cuts(step=64 * KIB)
    for start in range(MIB, len(image.data), MIB):
        image.cuts(step=4096, first=start, end=start + 128 * KIB)
    yield image
    path = os.path.join(folder, "dirty.vhdx")
    vhdx_builder.build(path, data, "dirty")
    vhdx_builder.make_dirty(path, "dirty", [BAT_AT, len(image.data) - 8192, METADATA_AT])
    dirty = image_of("vhdx-dirty", path, data)
    log(dirty, "log")
    yield dirty
    yield differencing(folder, data)


def image_of(name, path, data, qemu_format=""):
    with open(path, "rb") as file:
        built = file.read()
    return Image(name, path, built, data, "vhdx", qemu_format=qemu_format, crc32c=SEALED)


def differencing(folder, data):
    parent = content(len(data), 12)
    vhdx_builder.build(os.path.join(folder, "parent.vhdx"), parent, "parent")
    mixed = data[:MIB] + data[MIB:2 * MIB] + parent[2 * MIB:2 * MIB + 70000 // 512 * 512] + \
        data[2 * MIB + 70000 // 512 * 512:3 * MIB] + parent[3 * MIB:]
    linkage = "{%s}" % vhdx_builder.data_write_guid("parent")
    path = os.path.join(folder, "child.vhdx")
    names = ("parent.vhdx", "child.vhdx", "../parent.vhdx", "/etc/passwd", "..", "nbd://host/x",
             "\\\\.\\PhysicalDrive0", "json:{}")
    vhdx_builder.build(path, mixed, "child", parent,
                       {"parent_linkage": linkage, "relative_path": "parent.vhdx".ljust(40, "/")})
    vhdx_builder.build(path, mixed, "child", parent,
                       {"parent_linkage": linkage, "relative_path": "parent.vhdx"})
    image = image_of("vhdx-child", path, mixed)
    metadata(image)
    bat(image, 5)
    locator = METADATA_AT + image.number(METADATA_AT + 48 + 32 * 5)
    image.fields(Field("locator type", locator), Field("locator keys", locator + 18, 2))
    for number in range(2):
        at = locator + 20 + 12 * number
        image.fields(Field(f"key {number} offset", at), Field(f"value {number} offset", at + 4),
                     Field(f"key {number} length", at + 8, 2), Field(f"value {number} length", at + 10, 2))
    value = locator + image.number(locator + 36)
    length_at = locator + 42
    for name in names[1:]:
        raw = name.encode("utf-16-le")
        image.change(f"relative_path {name}", (value, raw), (length_at, struct.pack("<H", len(raw))))
    return image
