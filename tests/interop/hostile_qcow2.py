"""Hostile qcow2 images: docs/interop/qcow2.txt of QEMU."""
import os
import struct

from common import content, run, write_raw
from hostile_image_lab import COMMANDS, Field, Image, differs_from_qemu, ignored, other, write

CLUSTER = 4096
SIZE = 40 * CLUSTER + 512
OFFSET_MASK = 0x00FFFFFFFFFFFE00
COPIED, COMPRESSED = 1 << 63, 1 << 62
WRITERS = "it is for writers alone"
REFCOUNTS = ignored("refcounts are for writers and for check")


def header_fields(version):
    fields = [
        Field("magic", 0), Field("version", 4, rule=other("version 2 has no extended L2 entries")), Field("backing_file_offset", 8, 8, other("0 says that there is none")),
        Field("backing_file_size", 16), Field("cluster_bits", 20, rule=other("it is the unit of all places")),
        Field("size", 24, 8, rule=other("it is the size", peer=False)),
        Field("crypt_method", 32), Field("l1_size", 36),
        Field("l1_table_offset", 40, 8), Field("refcount_table_offset", 48, 8),
        Field("refcount_table_clusters", 56), Field("nb_snapshots", 60),
        Field("snapshots_offset", 64, 8),
    ]
    if version > 2:
        fields += [Field("incompatible", 72, 8, other("they tell how to read the tables"), more=tuple(1 << bit for bit in range(64))),
                   Field("compatible", 80, 8, rule=ignored("compatible features may be ignored")),
                   Field("autoclear", 88, 8), Field("refcount_order", 96), Field("header_length", 100)]
    return fields


def extension_fields(image):
    """Type and length of each header extension."""
    at = image.number(100) if image.number(4) > 2 else 72
    for number in range(10):
        kind, length = image.number(at), image.number(at + 4)
        yield Field(f"extension {number} {kind:#x} type", at, more=(
            0xE2792ACA, 0x6803F857, 0x23852875, 0x0537BE77, 0x44415441))
        yield Field(f"extension {number} {kind:#x} length", at + 4, more=(CLUSTER, CLUSTER - at - 8))
        if kind == 0:
            return
        at += 8 + -(-length // 8) * 8


def places(image):
    """Where a table or a cluster must not lie, and where it may look as if it could."""
    l1 = image.number(40, 8)
    refcounts = image.number(48, 8)
    end = -(-len(image.data) // CLUSTER) * CLUSTER
    return {"the header": 0, "L1": l1, "L2": image.number(l1, 8) & OFFSET_MASK, "refcounts": refcounts,
            "refcount block": image.number(refcounts, 8) & OFFSET_MASK,
            "snapshots": image.number(64, 8) or l1, "the end": end, "before the end": end - CLUSTER,
            "askew": l1 + 512, "far": 1 << 40, "the last": OFFSET_MASK & ~(CLUSTER - 1),
            "2^55": 1 << 55}


def tables(image, entry_bytes=8):
    l1 = image.number(40, 8)
    for index in range(min(image.number(36), 2)):
        was = image.number(l1 + 8 * index, 8)
        for name, place in places(image).items():
            for flags in (0, COPIED):
                image.change(f"L1[{index}] at {name} {flags >> 63}",
                             (l1 + 8 * index, struct.pack(">Q", place | flags)),
                             rule=differs_from_qemu("an L1 entry of 0 is no table, in our case lost data")
                             if name != "the header" else
                             other("without a table all is unallocated"))
        for bit in (0, 1, 8, 56, 57, 61, 62):
            image.change(f"L1[{index}] bit {bit}",
                         (l1 + 8 * index, struct.pack(">Q", was ^ 1 << bit)),
                         rule=differs_from_qemu("qemu-img takes no notice of reserved bits"))
    l2 = image.number(l1, 8) & OFFSET_MASK
    for index in range(0, 40, 3):
        at = l2 + entry_bytes * index
        was = image.number(at, 8)
        for name, place in places(image).items():
            image.change(f"L2[{index}] at {name}", (at, struct.pack(">Q", place | COPIED)),
                         rule=lost(name))
            image.change(f"L2[{index}] compressed at {name}",
                         (at, struct.pack(">Q", place | COMPRESSED)),
                         rule=other("an entry that names another stream is a right one", peer=False))
        for bit in (0, 1, 2, 8, 55, 56, 57, 61, 62, 63):
            image.change(f"L2[{index}] bit {bit}", (at, struct.pack(">Q", was ^ 1 << bit)),
                         rule=flag_rule(bit, was))
    image.change("L2 of compressed clusters alone",
                 (l2, struct.pack(">Q", COMPRESSED | 0x3FFFFFFFFFFFFFFF) * 40),
                 rule=differs_from_qemu("qemu-img shows zeros beyond the end"))


def lost(name):
    if name == "the header":  # 0
        return other("the standard cluster descriptor says unallocated")
    if name in ("L1", "L2", "refcounts", "refcount block", "snapshots"):
        return differs_from_qemu("qemu-img shows tables as data")
    return other("an entry that names another cluster of the file is a right one")


def flag_rule(bit, was):
    if bit == 0 and not was & COMPRESSED:
        return other("it is the flag of zeros")
    return other("the entry says so")


def refcount_entries(image):
    table = image.number(48, 8)
    for name, place in places(image).items():
        image.change(f"refcount table at {name}", (table, struct.pack(">Q", place)))
    block = image.number(table, 8)
    image.change("refcounts of 0", (block, bytes(64)), rule=REFCOUNTS)
    image.change("refcounts of the most", (block, b"\xff" * 64), rule=REFCOUNTS)


def snapshot_fields(image):
    at = image.number(64, 8)
    id_bytes, name_bytes = image.number(at + 12, 2), image.number(at + 14, 2)
    fields = [("l1_table_offset", 0, 8), ("l1_size", 8, 4), ("id_size", 12, 2), ("name_size", 14, 2),
              ("date", 16, 4), ("nsec", 20, 4), ("vm_clock", 24, 8), ("vm_state", 32, 4),
              ("extra_size", 36, 4), ("vmstate_large", 40, 8), ("disk_size", 48, 8)]
    image.fields(*(Field(f"snapshot {name}", at + place, width) for name, place, width in fields))
    image.change("snapshot with a hostile id", (at + 40 + image.number(at + 36), b"\x1b\n"[:id_bytes]))
    image.change("snapshot with a hostile name",
                 (at + 40 + image.number(at + 36) + id_bytes, b"\0\x1b[2J\n\xff/../"[:name_bytes]))


def bitmap_fields(image):
    """The bitmaps' extension and directory."""
    at = image.data.index(struct.pack(">II", 0x23852875, 24)) + 8
    image.fields(Field("nb_bitmaps", at), Field("bitmaps reserved", at + 4),
                 Field("bitmap_directory_size", at + 8, 8),
                 Field("bitmap_directory_offset", at + 16, 8))
    entry = image.number(at + 16, 8)
    image.fields(*(Field(f"bitmap {name}", entry + place, width) for name, place, width in (
        ("table_offset", 0, 8), ("table_size", 8, 4), ("flags", 12, 4), ("type", 16, 1),
        ("granularity_bits", 17, 1), ("name_size", 18, 2), ("extra_size", 20, 4))))
    image.change("bitmap with a hostile name", (entry + 24, b"\x1b[\n"))


def built(folder, name, data, *options, version="1.1", compress=False, snapshot=False, bitmap=False,
          cluster=CLUSTER):
    raw = write_raw(os.path.join(folder, name + ".raw"), data)
    path = os.path.join(folder, name + ".qcow2")
    words = [f"compat={version}", f"cluster_size={cluster}", *options]
    run("qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", *(["-c"] if compress else []), "-o",
        ",".join(words), raw, path)
    if snapshot:
        run("qemu-img", "snapshot", "-c", "a snapshot", path)
        run("qemu-io", "-f", "qcow2", "-c", f"write -P 9 {3 * CLUSTER} {CLUSTER}",
            "-c", f"write -z {5 * CLUSTER} {CLUSTER}", path)
        data = data[:3 * CLUSTER] + b"\x09" * CLUSTER + data[4 * CLUSTER:5 * CLUSTER] + \
            bytes(CLUSTER) + data[6 * CLUSTER:]
    if bitmap:
        run("qemu-img", "bitmap", "--add", "-g", "4096", path, "one")
    with open(path, "rb") as file:
        return path, file.read(), data


def data_of(seed):
    """Every cluster its own, but some of zeros."""
    parts = []
    for number in range(SIZE // CLUSTER + 1):
        word = struct.pack(">III", seed, number, 0xABCDEF) * 400
        noise = content(CLUSTER // 2, seed * 100 + number)[:CLUSTER - len(word) % CLUSTER]
        parts.append(bytes(CLUSTER) if number % 7 == 6 else
                     (word + noise).ljust(CLUSTER, b"\xee")[:CLUSTER])
    return b"".join(parts)[:SIZE]


def images(folder):
    os.makedirs(folder)
    kinds = {
        "v2": ({"version": "0.10"}, ()), "v3": ({"snapshot": True, "bitmap": True}, ()),
        "deflate": ({"compress": True}, ()),
        "zstd": ({"compress": True}, ("compression_type=zstd",)),
        "extended": ({"cluster": 16384}, ("extended_l2=on",)),
    }
    for kind, (how, options) in kinds.items():
        path, image_data, data = built(folder, kind, data_of(len(kind)), *options, **how)
        image = Image("qcow2-" + kind, path, image_data, data, "qcow2", "big", qemu_format="qcow2")
        image.fields(*header_fields(image.number(4)))
        image.fields(*extension_fields(image))
        tables(image, 16 if kind == "extended" else 8)
        refcount_entries(image)
        if kind == "v3":
            snapshot_fields(image)
            bitmap_fields(image)
        if kind == "extended":
            l2 = image.number(image.number(40, 8), 8) & OFFSET_MASK
            for index in range(3):
                image.field(f"subclusters[{index}]", l2 + 16 * index + 8, 8, other("the bitmap says so"))
        image.cuts()
        yield image
    yield backed(folder)
    yield external(folder)


def backed(folder):
    base = data_of(50)
    write_raw(os.path.join(folder, "base.img"), base)
    path = os.path.join(folder, "backed.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"cluster_size={CLUSTER}", "-b", "base.img",
        "-F", "raw", path)
    run("qemu-io", "-f", "qcow2", "-c", f"write -P 3 {CLUSTER} {CLUSTER}", path)
    with open(path, "rb") as file:
        image_data = file.read()
    truth = base[:CLUSTER] + b"\x03" * CLUSTER + base[2 * CLUSTER:]
    image = Image("qcow2-backed", path, image_data, truth, "qcow2", "big", qemu_format="qcow2")
    image.fields(*header_fields(3))
    image.fields(*extension_fields(image))
    tables(image)
    image.cuts()
    return image


def external(folder):
    data = data_of(60)
    raw = write_raw(os.path.join(folder, "external.raw"), data)
    path = os.path.join(folder, "external.qcow2")
    run("qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", "-o",
        f"cluster_size={CLUSTER},data_file={os.path.join(folder, 'data.img')}", raw, path)
    with open(path, "rb") as file:
        image_data = file.read()
    # The name becomes relative; what is left of the field is padding that nobody reads.
    at = image_data.index(struct.pack(">I", 0x44415441))
    length, = struct.unpack_from(">I", image_data, at + 4)
    name = b"./" + b"/" * (length - 10) + b"data.img"
    image_data = image_data[:at + 8] + name + image_data[at + 8 + length:]
    write(path, image_data)
    # Audit does not open the data file, and the reader looks at nothing before it has it.
    image = Image("qcow2-external", path, image_data, data, "qcow2", "big",
                  commands=[words for words in COMMANDS if words != ["audit"]])
    image.fields(*header_fields(3))
    image.fields(*extension_fields(image))
    tables(image)
    image.cuts()
    return image
