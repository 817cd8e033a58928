#!/usr/bin/python3
"""qcow images of version 1: by qemu-img and qemu-io, and built where they cannot."""
import os
import random
import struct
import zlib

from common import Feature, Manifest, QemuWriter, content, run, write_raw

KIB = 1 << 10
MIB = 1 << 20

FEATURES = (
    Feature("plain", "as `qemu-img convert -O qcow` and old QEMU write them"),
    Feature("compressed", "compressed clusters, as `qemu-img convert -c` of old QEMU writes them"),
    Feature("geometry", "clusters of 512 bytes to 64 KiB, L2 tables of 512 bytes to 64 KiB"),
    Feature("backing", "backing files of any format with a header; raw ones, when the operator "
            "says so: `--image-opts driver=qcow,backing.driver=raw,file.filename=IMAGE`"),
    Feature("unstated-raw", "backing files that could be raw",
            "version 1 has no field for their format, and a guest may have written what a guess "
            "would find there; say `backing.driver=raw` as above"),
    Feature("encrypted", "encrypted images (AES)",
            "the cipher is broken; convert them with qemu-img"),
    Feature("damaged", "truncated images; tables and clusters that lie where they cannot",
            "their data is lost, though QEMU shows zeros for some of it; copy them anew"),
)

manifest = Manifest("qcow", FEATURES)


def create(name, size, *options):
    path = manifest.path(name + ".qcow")
    run("qemu-img", "create", "-q", "-f", "qcow", *options, path, str(size))
    return path


def convert(name, data):
    source = write_raw(manifest.path(name + ".source"), data)
    path = manifest.path(name + ".qcow")
    run("qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow", source, path)
    return path


def writer_of(path, truth):
    return QemuWriter("qcow", path, truth)


def add(name, path, truth, feature, oracles=("qemu",), args=("-f", "qcow")):
    raw = write_raw(manifest.path(name + ".raw"), truth)
    manifest.add("qcow-" + name, path, raw, args, oracles, feature=feature)


def by_qemu():
    # Without -f: the header tells what it is.
    for size in (512, 1000448, 5 * MIB + 3 * KIB):
        data = content(size, size)
        add(f"plain-{size}", convert(f"plain-{size}", data), data, "plain", ("qemu", "libqcow"),
            args=())
    add("empty", create("empty", 3 * MIB), bytes(3 * MIB), "plain", ("qemu", "libqcow"))
    writer = writer_of(create("written", 9 * MIB), bytes(9 * MIB))
    writer.write(0, 512, 1).write(3 * MIB - 4096, 9 * KIB, 2).write(9 * MIB - 512, 512, 3)
    add("written", writer.path, writer.done(), "plain", ("qemu", "libqcow"))


def build(data, cluster_bits, l2_bits, seed):
    """An image by QEMU's block/qcow.c: header, L1 table, L2 tables and clusters, each at the next
    multiple of the cluster's size, streams at once behind what was there before."""
    rng = random.Random(seed)
    cluster, span = 1 << cluster_bits, 1 << (cluster_bits + l2_bits)
    tables = -(-len(data) // span)
    out = bytearray(struct.pack(">4sIQIIQBBHIQ", b"QFI\xfb", 1, 0, 0, 0, len(data), cluster_bits,
                                l2_bits, 0, 0, 48) + bytes(tables * 8))

    def append(block, alignment):
        out.extend(bytes(-len(out) % alignment))
        out.extend(block)
        return len(out) - len(block)

    for start in range(0, len(data), cluster):
        block = data[start:start + cluster].ljust(cluster, b"\0")
        if block.count(0) == cluster and rng.randrange(4):
            continue
        l1_entry = 48 + start // span * 8
        table, = struct.unpack_from(">Q", out, l1_entry)
        if not table:
            table = append(bytes(8 << l2_bits), cluster)
            struct.pack_into(">Q", out, l1_entry, table)
        deflate = zlib.compressobj(6, zlib.DEFLATED, -12)
        stream = deflate.compress(block) + deflate.flush()
        if len(stream) < cluster and rng.randrange(2):
            entry = 1 << 63 | len(stream) << (63 - cluster_bits) | append(stream, 1)
        else:
            entry = append(block, cluster)
        struct.pack_into(">Q", out, table + start % span // cluster * 8, entry)
    return bytes(out)


def write(name, image):
    path = manifest.path(name + ".qcow")
    with open(path, "wb") as out:
        out.write(image)
    return path


def compressed():
    """qemu-img 7.2 fails at the first cluster that it could compress (convert -c)."""
    data = content(4 * MIB + 1536, 4)
    image = build(data, 12, 9, 3)
    add("zlib", write("zlib", image), data, "compressed", ("qemu", "libqcow"), args=())
    # Plain clusters over compressed ones.
    writer = writer_of(write("mixed", image), data).write(70 * KIB, 3 * KIB, 4)
    writer.write(MIB, 300 * KIB, 5).write(3 * MIB + 1024, 512, 6)
    add("mixed", writer.path, writer.done(), "compressed", ("qemu", "libqcow"))


def geometries():
    for cluster_bits, l2_bits in ((9, 6), (9, 12), (9, 13), (12, 9), (16, 6), (16, 13)):
        name = f"clusters-{1 << cluster_bits}-tables-{8 << l2_bits}"
        data = content(2 * MIB + 7 * 512, cluster_bits * 100 + l2_bits)
        # libqcow alone finds only tables that lie at multiples of their size, and wants them to map
        # at most 128 MiB each.
        by_libqcow = l2_bits + 3 <= cluster_bits and cluster_bits + l2_bits <= 27
        oracles = ("qemu", "libqcow") if by_libqcow else ("qemu",)
        add(name, write(name, build(data, cluster_bits, l2_bits, 1)), data, "geometry", oracles)


def chains():
    base = content(3 * MIB, 7)
    bases = {"raw": write_raw(manifest.path("base.img"), base),
             "qcow": write("base", build(base, 12, 9, 5)),
             "qcow2": manifest.path("base.qcow2")}
    run("qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", bases["raw"], bases["qcow2"])
    for kind, size in (("qcow", 3 * MIB), ("qcow2", 5 * MIB + 512), ("raw", 2 * MIB - 512)):
        name = f"backed-{kind}"
        path = create(name, size, "-b", os.path.basename(bases[kind]), "-F", kind)
        writer = writer_of(path, (base + bytes(size))[:size]).write(MIB + 512, 70 * KIB, 8)
        writer.write(512 * KIB, 512, 9).write(size - 512, 512, 10)
        writer.write(40 * KIB, 5 * KIB, 0)  # zeros that are data
        truth = writer.done()
        if kind != "raw":
            add(name, path, truth, "backing")
            continue
        stated = f"driver=qcow,backing.driver=raw,file.filename={path}"
        add(name, stated, truth, "backing", oracles=(), args=("--image-opts",))
        manifest.add_refused("qcow-backed-raw-unstated", path, "does not state the format",
                             ["-f", "qcow"], feature="unstated-raw")


def refused():
    encrypted = create("encrypted", MIB, "--object", "secret,id=key,data=secret", "-o",
                       "encrypt.format=aes,encrypt.key-secret=key")
    manifest.add_refused("qcow-encrypted", encrypted, "crypt_method is 1 (AES)", ["-f", "qcow"],
                         feature="encrypted")
    image = build(content(MIB, 12), 12, 9, 2)
    # The last cluster is lost: that one alone cannot be read.
    manifest.add_refused("qcow-truncated", write("truncated", image[:-4096]),
                         "beyond the end of the file", ["-f", "qcow"], feature="damaged")
    second = image[:48] + struct.pack(">Q", 48) + image[56:]
    manifest.add_refused("qcow-table-in-table", write("table-in-table", second),
                         "names an L2 table at 48", ["-f", "qcow"], feature="damaged")


by_qemu()
compressed()
geometries()
chains()
refused()
