"""Damaged qcow2 images for img_check_test.py: one word of an image that qemu-img made is another, or
the file is cut; and words at random."""
import os
import random
import struct

from image_damage import CORRUPT, FAILED, LEAKS, Damage, run

KIB = 1 << 10
MIB = 1 << 20
OFFSET = 0x00fffffffffffe00
COPIED, COMPRESSED = 1 << 63, 1 << 62
ARGS = ("-f", "qcow2")
RANDOM_IMAGES = 40

# Findings of ours that qemu-img does not count.
IGNORED = {
    "cluster-cut": "qemu shows zeros for what the end of the file has cut off",
    "l1-table-beyond-end": "the same for tables, when less than a cluster is missing",
    "refcount-table-beyond-end": "the same",
    "bitmap-beyond-end": "the same",
    "l2-entry-zero-flag": "qemu fails to read such a cluster, but its check passes over it",
    "snapshot-l1-unfit": "qemu does not look whether a snapshot's L1 table fits its disk",
    "counted-overlap": "two kinds of structures in one cluster, with a refcount that counts both",
}


class Image:
    """The bytes of an image, and where its structures lie."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = bytearray(file.read())
        self.cluster = 1 << self.u32(20)
        self.l1, self.l1_size = self.u64(40), self.u32(36)
        self.reftable, self.snapshots = self.u64(48), self.u64(64)
        self.refblock = self.u64(self.reftable)
        self.l2 = self.u64(self.l1) & OFFSET
        self.entry_bytes = 16 if self.u32(4) == 3 and self.u64(72) & 16 else 8

    def u32(self, at):
        return struct.unpack_from(">I", self.data, at)[0]

    def u64(self, at):
        return struct.unpack_from(">Q", self.data, at)[0]

    def put(self, at, value, code=">Q"):
        struct.pack_into(code, self.data, at, value % (1 << 64))

    def flip(self, at, bits):
        self.put(at, self.u64(at) ^ bits)

    def l2_entry(self, number):
        return self.l2 + number * self.entry_bytes

    def set_refcount(self, cluster, value):
        """Of the images with refcounts of 16 bits."""
        self.put(self.refblock + cluster * 2, value, ">H")

    def cluster_of(self, number):
        return (self.u64(self.l2_entry(number)) & OFFSET) // self.cluster

    def clusters(self):
        return -(-len(self.data) // self.cluster)

    def words(self):
        """Where words are worth changing: the tables' entries that are not 0."""
        tables = [(self.l1, self.l1_size * 8, 4), (self.reftable, 24, 8)]
        tables += [(self.u64(at) & OFFSET, self.cluster, 2)
                   for at in range(self.l1, self.l1 + self.l1_size * 8, 8)]
        tables += [(self.refblock, self.cluster, 1)]
        if self.snapshots:
            tables.append((self.snapshots, 8, 3))
        found = []
        for start, length, weight in tables:
            for at in range(start, start + length, 8):
                if start and (self.u64(at) or start == self.reftable):
                    found += [at] * weight
        return found


def make(folder, name, options):
    """Plain, compressed and zero clusters, a snapshot, a bitmap."""
    path = os.path.join(folder, f"damage-{name}.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "2M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 300k", "-c", "write -c -P 3 512k 64k",
        "-c", "write -c -P 4 576k 64k", "-c", "write -z 704k 64k", "-c", "write -P 2 1M 100k", path)
    if "refcount_bits=1" not in options:
        run("qemu-img", "snapshot", "-c", "one", path)
        run("qemu-io", "-f", "qcow2", "-c", "write -P 5 0 100k", "-c", "write -P 6 1900k 64k", path)
    if "compat=0.10" not in options:
        run("qemu-img", "bitmap", "--add", path, "bits")
        run("qemu-io", "-f", "qcow2", "-c", "write -P 7 1200k 4k", path)
    return path


# Each takes an Image whose clusters have 64 KiB, the first four of them in use by the active disk.

def leaked(image):
    image.data += bytes(3 * image.cluster)
    for cluster in range(image.clusters() - 3, image.clusters()):
        image.set_refcount(cluster, 1)


def every_second_leaked(image):
    """More of them than are listed."""
    first = image.clusters()
    for cluster in range(first, first + 2400, 2):
        image.set_refcount(cluster, 1)
    image.data += bytes(2400 * image.cluster)


def forgotten(image):
    image.put(image.l2_entry(0), 0)


def refcount_0(image):
    image.set_refcount(image.cluster_of(1), 0)


def refcount_2(image):
    image.set_refcount(image.cluster_of(1), 2)


def not_copied(image):
    image.flip(image.l2_entry(1), COPIED)


def l2_not_copied(image):
    image.flip(image.l1, COPIED)


def l1_without_table(image):
    image.put(image.l1, COPIED)


def l1_reserved(image):
    image.flip(image.l1, 1 << 58)


def l2_reserved(image):
    image.flip(image.l2_entry(1), 1 << 57)


def l2_unaligned(image):
    image.put(image.l1, image.u64(image.l1) + 512)


def l2_beyond(image):
    image.put(image.l1, COPIED | 1 << 40)


def unaligned(image):
    image.put(image.l2_entry(1), image.u64(image.l2_entry(1)) + 512)


def beyond(image):
    image.put(image.l2_entry(1), COPIED | 1 << 40)


def self_reference(image):
    image.put(image.l2_entry(1), image.l2 | COPIED)


def in_header(image):
    image.put(image.l2_entry(1), COMPRESSED)


def compressed_copied(image):
    image.put(image.l2_entry(3), COMPRESSED | COPIED | image.u64(image.l2_entry(3)) & OFFSET)


def block_unaligned(image):
    image.put(image.reftable, image.refblock + 512)


def block_beyond(image):
    image.put(image.reftable, 1 << 40)


def block_far_beyond(image):
    image.put(image.reftable, 1 << 63)


def block_missing(image):
    image.put(image.reftable, 0)


def block_reserved(image):
    image.put(image.reftable, image.refblock + 1)


def block_twice(image):
    image.put(image.reftable + 8, image.refblock)


def table_missing(image):
    image.put(56, 0, ">I")


def snapshot_unaligned(image):
    image.put(image.snapshots, image.u64(image.snapshots) + 8)


def snapshot_large(image):
    image.put(image.snapshots + 8, 5 << 20, ">I")


def snapshot_short(image):
    image.put(image.snapshots + 8, 0, ">I")


def snapshot_lost(image):
    """Without the snapshot, everything of it is leaked."""
    image.put(60, 0, ">I")


def bitmap_entry(image):
    """Of the only table of bits: the directory's first word says where."""
    at = image.data.index(struct.pack(">II", 0x23852875, 24)) + 8
    directory = image.u64(at + 16)
    image.put(image.u64(directory), 4)


def cut(image):
    del image.data[len(image.data) - image.cluster // 2:]


def cut_clusters(image):
    del image.data[len(image.data) // image.cluster // 2 * image.cluster:]


DAMAGE = [
    (leaked, {"leaked-cluster"}, LEAKS),
    (every_second_leaked, {"leaked-cluster"}, LEAKS),
    (forgotten, {"leaked-cluster"}, LEAKS),
    (refcount_0, {"refcount-too-low", "cluster-copied-flag"}, CORRUPT),
    (refcount_2, {"leaked-cluster", "cluster-copied-flag"}, CORRUPT),
    (not_copied, {"cluster-copied-flag"}, CORRUPT),
    (l2_not_copied, {"l2-table-copied-flag"}, CORRUPT),
    (l1_reserved, {"l1-entry-reserved-bits"}, CORRUPT),
    (l2_reserved, {"l2-entry-reserved-bits"}, CORRUPT),
    (l2_unaligned, {"l2-table-unaligned"}, CORRUPT),
    (l2_beyond, {"l2-table-beyond-end"}, CORRUPT),
    (unaligned, {"cluster-unaligned"}, CORRUPT),
    (beyond, {"cluster-beyond-end"}, CORRUPT),
    (compressed_copied, {"compressed-cluster-copied-flag"}, CORRUPT),
    (block_unaligned, {"refcount-block-unaligned", "refcounts-unreadable"}, FAILED),
    (block_beyond, {"refcount-block-beyond-end"}, CORRUPT),
    (block_far_beyond, {"refcount-block-beyond-end", "refcounts-unreadable"}, FAILED),
    (block_missing, {"refcount-too-low"}, CORRUPT),
    (block_reserved, {"refcount-table-reserved-bits"}, CORRUPT),
    (block_twice, {"refcount-block-shared"}, CORRUPT),
    (table_missing, {"refcount-too-low"}, CORRUPT),
    (snapshot_unaligned, {"snapshot-l1-table"}, CORRUPT),
    (snapshot_large, {"snapshot-l1-table"}, CORRUPT),
    (snapshot_short, {"snapshot-l1-unfit"}, CORRUPT),
    (snapshot_lost, {"leaked-cluster"}, LEAKS),
    (self_reference, {"overlap"}, CORRUPT),
    (in_header, {"overlap"}, CORRUPT),
]
# Of an image whose last cluster is data.
DAMAGE_AT_THE_END = [
    (cut, {"cluster-cut"}, CORRUPT),
    (cut_clusters, {"cluster-beyond-end"}, CORRUPT),
]
# Where qemu-img counts otherwise: (damage, codes, status, why).
DIFFERENT = [
    (l1_without_table, {"l1-entry-without-table"}, CORRUPT,
     "qemu-img takes the header for the L2 table, and counts what its words look like"),
    (bitmap_entry, {"bitmap-table-entry"}, CORRUPT, "qemu-img does not open it"),
]


def one_wrong_word(folder, base, changes):
    for change, codes, status, *why in changes:
        image = Image(base)
        change(image)
        path = os.path.join(folder, "damaged.qcow2")
        with open(path, "wb") as out:
            out.write(image.data)
        yield Damage(change.__name__, path, frozenset(codes), status, "".join(why), ARGS)


def changed_at_random(rng, image):
    words = image.words()
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        at = rng.choice(words)
        old = image.u64(at)
        image.put(at, rng.choice([
            0, old ^ 1 << rng.randrange(64), old ^ COPIED, old ^ COMPRESSED, old ^ 1,
            old & ~OFFSET | rng.randrange(image.clusters() + 3) * image.cluster,
            old + image.cluster, old + 512, image.u64(rng.choice(words))]))
    if rng.randrange(7) == 0:
        del image.data[rng.randrange(len(image.data) // 2, len(image.data)):]


def words_at_random(folder):
    rng = random.Random(7)
    bases = [make(folder, f"random-{number}", options) for number, options in enumerate((
        "cluster_size=512", "cluster_size=4k", "cluster_size=64k,extended_l2=on",
        "cluster_size=4k,refcount_bits=1", "cluster_size=4k,refcount_bits=64",
        "cluster_size=512,refcount_bits=8", "cluster_size=16k,compat=0.10"))]
    for number in range(RANDOM_IMAGES):
        image = Image(rng.choice(bases))
        changed_at_random(rng, image)
        path = os.path.join(folder, "damaged.qcow2")
        with open(path, "wb") as out:
            out.write(image.data)
        yield Damage(f"random-{number}", path, frozenset(), None, "", ARGS)


def without_its_parent(folder):
    parent, path = os.path.join(folder, "parent.qcow2"), os.path.join(folder, "child.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", parent, "1M")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", parent, "-F", "qcow2", path)
    os.unlink(parent)
    yield Damage("without-its-parent", path, frozenset(["chain-refused"]), FAILED,
                 "qemu-img does not open it", ARGS)


def damaged(folder):
    base = make(folder, "base", "cluster_size=64k")
    yield from one_wrong_word(folder, base, [*DAMAGE, *DIFFERENT])
    plain = os.path.join(folder, "damage-plain.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", plain, "2M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 1M", plain)
    yield from one_wrong_word(folder, plain, DAMAGE_AT_THE_END)
    yield from words_at_random(folder)
    yield from without_its_parent(folder)
