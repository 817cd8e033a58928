"""Hostile qcow images of version 1: QEMU's block/qcow.c."""
import os
import struct
import zlib

from common import content
from hostile_image_lab import Field, Image, ignored, other, write

CLUSTER = 512
HEADER = 48


def build(data, backing=b"", packed=()):
    """Header, name, L1, one L2 table of 512 bytes for each 64 clusters, and the clusters. `packed`:
    clusters that are compressed."""
    tables = -(-len(data) // (CLUSTER * 64))
    out = bytearray(struct.pack(">4sIQIIQBBHIQ", b"QFI\xfb", 1, HEADER + 8 * tables if backing else 0,
                                len(backing), 0, len(data), 9, 6, 0, 0, HEADER))
    out += bytes(8 * tables) + backing
    for table in range(tables):
        out += bytes(-len(out) % CLUSTER)
        struct.pack_into(">Q", out, HEADER + 8 * table, len(out))
        out += bytes(512)
    for number in range(0, len(data), CLUSTER):
        block = data[number:number + CLUSTER].ljust(CLUSTER, b"\0")
        if block.count(0) == CLUSTER:
            continue
        index = number // CLUSTER
        at, = struct.unpack_from(">Q", out, HEADER + 8 * (index // 64))
        at += index % 64 * 8
        if index in packed:
            deflate = zlib.compressobj(9, zlib.DEFLATED, -12)
            stream = deflate.compress(block) + deflate.flush()
            struct.pack_into(">Q", out, at, 1 << 63 | len(stream) << 54 | len(out))
            out += stream
            continue
        out += bytes(-len(out) % CLUSTER)
        struct.pack_into(">Q", out, at, len(out))
        out += block
    return bytes(out)


def header_fields(size_rule):
    return [Field("magic", 0), Field("version", 4), Field("backing_file_offset", 8, 8, rule=other("0 says that there is none")),
            Field("backing_file_size", 16), Field("mtime", 20, rule=ignored("it is a time")),
            Field("size", 24, 8, rule=size_rule),
            Field("cluster_bits", 32, 1, rule=other("it tells how to read the tables")),
            Field("l2_bits", 33, 1, rule=other("it tells how to read the tables")),
            Field("padding", 34, 2, rule=ignored("it is padding")), Field("crypt_method", 36),
            Field("l1_table_offset", 40, 8,
                  rule=other("where it points to there could be a table without entries"))]


def tables(image):
    end = len(image.data)
    l2 = image.number(HEADER, 8)
    places = (1, HEADER, HEADER + 8, 511, l2, l2 + 512, end, end - 512, end - 1, 1 << 40, 1 << 62,
              (1 << 63) - 512, (1 << 64) - 512, (1 << 64) - 1)
    for index in range(2):
        for place in places:
            if place != image.number(HEADER + 8 * index, 8):
                image.change(f"L1[{index}]={place:#x}", (HEADER + 8 * index, struct.pack(">Q", place)),
                             rule=other("it names what could be a table"))
        image.change(f"L1[{index}]=0", (HEADER + 8 * index, bytes(8)),
                     rule=other("0 says that nothing is there"))
    for index in (0, 1, 2, 3, 4, 63):
        at = l2 + 8 * index
        for place in places:
            for size in (0, 1, 3, 511):
                entry = place if size == 0 else 1 << 63 | size << 54 | place & (1 << 54) - 1
                image.change(f"L2[{index}]={entry:#x}", (at, struct.pack(">Q", entry)),
                             rule=other("it names what could be a cluster"))


def images(folder):
    os.makedirs(folder)
    data = bytearray(content(100 * CLUSTER, 31))
    for packed in (1, 3, 4, 70):
        word = struct.pack(">Q", packed * 0x9E3779B97F4A7C15 & (1 << 64) - 1)
        data[packed * CLUSTER:(packed + 1) * CLUSTER] = word * 64
    data[2 * CLUSTER:3 * CLUSTER] = bytes(CLUSTER)
    data[99 * CLUSTER:] = b"\x77" * CLUSTER
    data = bytes(data)
    built = build(data, packed={1, 3, 4, 70})
    image = Image("qcow-plain", os.path.join(folder, "plain.qcow"), built, data, "qcow", "big",
                  qemu_format="qcow")
    image.fields(*header_fields(other("the size", peer=False)))
    tables(image)
    image.cuts(step=128)
    yield image
    base = build(data)
    write(os.path.join(folder, "base.qcow"), base)
    child = Image("qcow-child", os.path.join(folder, "child.qcow"), build(bytes(100 * CLUSTER), b"base.qcow"),
                  data, "qcow", "big", qemu_format="qcow")
    child.fields(*header_fields(other("the size", peer=False)))
    at = child.number(8, 8)
    for name in (b"child.qcow", b"..", b".", b"/etc/passwd", b"\0", b"base\0qcow", b"nbd://host/x",
                 b"json:{}", b"/dev/zero", b"\x1b[2J"):
        child.change(f"backing {name}", (at, name), (16, struct.pack(">I", len(name))))
    child.cuts(step=64)
    yield child
