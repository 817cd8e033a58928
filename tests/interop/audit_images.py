"""Images for underlay-img audit, each with one thing that is in the way of serving it, or that smells.

cases(): {"name", "make", "options", "finds", "touches"}. make(folder) makes the image in an empty
folder `images` of a folder of its own, and says where it is. finds: the codes of all findings, in
parentheses those that warn. touches: what one of the report's touches must have.
"""
import os
import struct
import subprocess

MIB = 1 << 20
SECTOR = 512


def write(folder, name, data):
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    return path


def run(*words):
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)


def patched(path, *changes):
    """Writes (offset, bytes) into the file; a negative offset counts from its end."""
    with open(path, "r+b") as file:
        for offset, data in changes:
            file.seek(offset, os.SEEK_SET if offset >= 0 else os.SEEK_END)
            file.write(data)
    return path


def qemu(folder, name, format_name, *options, size=MIB):
    path = os.path.join(folder, name)
    run("qemu-img", "create", "-q", "-f", format_name, *options, path, size)
    return path


# ---- vmdk ----

def descriptor(folder, *lines, parent="", name="disk.vmdk", create_type="custom"):
    text = ["# Disk DescriptorFile", "version=1", "CID=00000001", f'createType="{create_type}"']
    text += [f"parentCID={'00000002' if parent else 'ffffffff'}"]
    text += [f'parentFileNameHint="{parent}"'] if parent else []
    return write(folder, name, ("\n".join([*text, *lines]) + "\n").encode())


def flat(folder, name):
    """A descriptor whose only extent has that name; beside it lies what it may lead to."""
    write(folder, "flat", bytes(8 * SECTOR))
    write(folder, "short", bytes(7 * SECTOR))
    write(folder, "sub/deep", bytes(8 * SECTOR))
    write(folder, "../outside", bytes(8 * SECTOR))
    os.symlink("../outside", os.path.join(folder, "link"))
    os.symlink("..", os.path.join(folder, "up"))
    os.symlink("flat", os.path.join(folder, "beside"))
    os.mkfifo(os.path.join(folder, "fifo"))
    return descriptor(folder, f'RW 8 FLAT "{name}" 0')


def snapshot(folder, hint, parents=("base.vmdk",)):
    for parent in parents:
        write(folder, parent, b"of another audit\n")
    return descriptor(folder, "RW 8 ZERO", parent=hint)


FLAT_NAMES = (
    ("flat", "(touches-file)"),
    ("sub/../flat", "(touches-file)"),
    ("beside", "(touches-file)"),
    ("sub/deep", "(touches-file)"),
    ("short", "file-too-short"),
    ("gone", "missing"),
    ("../outside", "outside"),
    ("link", "outside"),
    ("up/outside", "outside"),
    ("../gone", "outside"),
    ("/etc/passwd", "outside"),
    ("/dev/loop-control", "device"),
    (".", "no-regular-file"),
    ("fifo", "no-regular-file"),
    ("sub", "no-regular-file"),
    ("disk.vmdk", "names-itself own-extent"),
    ("nbd://host/export", "protocol"),
    ("json:{}", "protocol"),
    ("http://host/disk", "protocol"),
    ("C:gone", "missing"),
)

VMDK = {
    "unknown-extent": (lambda d: descriptor(d, "RW 8 ZERO", 'RW 8 BLOCKS "x"'), "extent-type"),
    "raw-device": (lambda d: descriptor(d, 'RW 8 VMFSRDM "x"'), "raw-device"),
    "encrypted": (lambda d: descriptor(d, "RW 8 ZERO", 'encryptionKeys="x"'),
                  "encrypted"),
    "change-tracking": (lambda d: descriptor(d, "RW 8 ZERO", 'changeTrackPath="a-ctk.vmdk"'), ""),
    "change-tracking-outside": (
        lambda d: descriptor(d, "RW 8 ZERO", 'changeTrackPath="/etc/passwd"'), "(outside)"),
    "thousand-extents": (lambda d: thousand_extents(d), "(many-files) (touches-file)"),
    "overlap": (lambda d: overlapping(d, "flat"), "extents-overlap (touches-file)"),
    "overlap of another spelling": (lambda d: overlapping(d, "./flat"),
                                    "extents-overlap (touches-file)"),
    "overlap of a link": (lambda d: overlapping(d, "link"), "extents-overlap (touches-file)"),
    "overlap of a hard link": (lambda d: overlapping(d, "hard"), "extents-overlap (touches-file)"),
    "no overlap": (lambda d: overlapping(d, "hard", at=8), "(touches-file)"),
    "sparse twice": (lambda d: sparse_twice(d), "extents-overlap (touches-file)"),
    "parent": (lambda d: snapshot(d, "base.vmdk"), "(touches-file)"),
    "parent-of-windows": (lambda d: snapshot(d, r"C:\old\base.vmdk"), "(touches-file)"),
    "parent-missing": (lambda d: snapshot(d, "gone.vmdk"), "parent-missing"),
    "parent-outside": (lambda d: snapshot(d, "../base.vmdk", ["../base.vmdk"]), "outside"),
    "parent-protocol": (lambda d: snapshot(d, "nbd://host/base.vmdk"), "protocol"),
    "parent-itself": (lambda d: snapshot(d, "disk.vmdk"), "names-itself"),
}


def thousand_extents(folder):
    write(folder, "flat", bytes(SECTOR * 1001))
    return descriptor(folder, *(f'RW 1 FLAT "flat" {i}' for i in range(1001)))


def overlapping(folder, other, at=7):
    """The last extent begins in the first one's last sector, or behind that; one lies between."""
    path = write(folder, "flat", bytes(SECTOR * 9))
    os.symlink("flat", os.path.join(folder, "link"))
    os.link(path, os.path.join(folder, "hard"))
    write(folder, "between", bytes(SECTOR))
    return descriptor(folder, 'RW 8 FLAT "flat" 0', 'RW 1 FLAT "between" 0',
                      f'RW 1 FLAT "{other}" {at}')


def sparse_twice(folder):
    os.link(qemu(folder, "sparse", "vmdk"), os.path.join(folder, "hard"))
    return descriptor(folder, 'RW 2048 SPARSE "sparse"', 'RW 2048 SPARSE "hard"')


def vmdk_cases():
    for name, finds in FLAT_NAMES:
        yield case(f"extent {name}", lambda d, name=name: flat(d, name), finds,
                   touches={"name": name, "inside": finds not in ("outside", "protocol", "device")})
    for name, (make, finds) in VMDK.items():
        yield case("vmdk " + name, make, finds)


# ---- qcow2 ----

def qcow2(folder, *changes, options=()):
    return patched(qemu(folder, "disk.qcow2", "qcow2", *options), *changes)


def overlay(folder, name, format_name="raw", present=True):
    """An overlay whose header names `name`, as an image of that format; of none for ""."""
    if present:
        write(folder, "base", bytes(MIB))
        write(folder, "../outside", bytes(MIB))
    path = qemu(folder, "disk.qcow2", "qcow2", "-u", "-b", name, "-F", format_name or "raw")
    if not format_name:
        with open(path, "rb") as file:
            head = file.read(SECTOR)
        # The extension of the backing file's format becomes one that is not known.
        patched(path, (head.index(struct.pack(">I", 0xE2792ACA)), struct.pack(">I", 0)))
    return path


def stated_by_operator(folder):
    return f"driver=qcow2,file.filename={overlay(folder, 'base', '')},backing.driver=raw"


def qcow_overlay(folder):
    """A whole parent, which the server may serve, or not: that is not looked at."""
    qemu(folder, "base", "qcow2")
    path = qemu(folder, "disk.qcow", "qcow")
    size = os.path.getsize(path)
    return patched(path, (size, b"base"), (8, struct.pack(">QI", size, 4)))


def with_data_file(folder, name):
    write(folder, "data", bytes(MIB))
    path = qemu(folder, "disk.qcow2", "qcow2", "-o", f"data_file={folder}/data.raw")
    with open(path, "rb") as file:
        head = file.read(4096)
    at = head.index(struct.pack(">I", 0x44415441))
    length, = struct.unpack_from(">I", head, at + 4)
    stored = name.encode()
    assert len(stored) <= length
    return patched(path, (at + 4, struct.pack(">I", len(stored)) + stored +
                          bytes(-(-length // 8) * 8 - len(stored))))


def many_snapshots(folder):
    """More than a program makes: the table of snapshots is written here."""
    path = qemu(folder, "disk.qcow2", "qcow2")
    count, cluster = 1001, 65536
    size = os.path.getsize(path)
    table_at = -(-size // cluster) * cluster
    l1_at = table_at + 4 * cluster
    entry = struct.pack(">QIHHIIQII", l1_at, 1, 1, 1, 0, 0, 0, 0, 16) + struct.pack(">QQ", 0, MIB)
    entries = b"".join(entry + b"%c" % (65 + i % 26) + b"n" + bytes(-(len(entry) + 2) % 8)
                       for i in range(count))
    with open(path, "r+b") as file:
        file.truncate(l1_at + cluster)
        file.seek(table_at)
        file.write(entries)
        file.seek(60)
        file.write(struct.pack(">IQ", count, table_at))
    return path


def qcow2_cases():
    unknown = (72, struct.pack(">Q", 1 << 40))
    return [
        case("qcow2", qcow2, ""),
        case("qcow2 unknown feature", lambda d: qcow2(d, unknown), "unknown-incompatible-feature"),
        case("qcow2 marked corrupt", lambda d: qcow2(d, (72, struct.pack(">Q", 2))), "(marked-corrupt)"),
        case("qcow2 dirty", lambda d: qcow2(d, (72, struct.pack(">Q", 1))), "(dirty)"),
        case("qcow2 truncated", truncated_qcow2, "structure-beyond-end"),
        case("qcow2 backing file", lambda d: overlay(d, "base"), "(touches-file)",
             touches={"role": "backing file", "name": "base", "inside": True}),
        case("qcow2 backing file missing", lambda d: overlay(d, "base", present=False),
             "parent-missing"),
        case("qcow2 backing file outside", lambda d: overlay(d, "../outside"), "outside"),
        case("qcow2 backing file json", lambda d: overlay(d, 'json:{"driver":"nbd"}'),
             "protocol backing-file-protocol"),
        case("qcow2 backing file of a protocol's format", lambda d: overlay(d, "base", "nbd"),
             "parent-format (touches-file)", touches={"format": "nbd"}),
        case("qcow2 backing file of no format", lambda d: overlay(d, "base", ""),
             "backing-format-unstated (touches-file)"),
        case("qcow2 backing file of the operator's format", stated_by_operator, "(touches-file)",
             ["--image-opts"], touches={"format": "raw"}),
        case("qcow backing file", qcow_overlay, "backing-format-unstated (touches-file)"),
        case("qcow2 backing file nbd", lambda d: overlay(d, "nbd://host/x"),
             "protocol backing-file-protocol"),
        case("qcow2 data file", lambda d: with_data_file(d, "data"), "(touches-file)",
             touches={"role": "data file"}),
        case("qcow2 data file outside", lambda d: with_data_file(d, "/etc/passwd"), "outside"),
        case("qcow2 encrypted", lambda d: qcow2(d, (32, struct.pack(">I", 1))),
             "encryption-aes (encrypted)"),
        case("qcow2 snapshots", many_snapshots, "(many-snapshots)"),
        case("qcow2 huge", lambda d: qemu(d, "disk.qcow2", "qcow2", size=2 << 40), "(size-huge)"),
        case("qcow2 large", lambda d: qemu(d, "disk.qcow2", "qcow2", size=1 << 40), ""),
        case("qcow2 with one table for all", shared_l2_table, "l2-table-shared"),
    ]


def shared_l2_table(folder):
    """All L1 entries name one L2 table."""
    path = qemu(folder, "disk.qcow2", "qcow2", size=4 << 30)
    run("qemu-io", "-f", "qcow2", "-c", "write 0 64k", path)
    with open(path, "rb") as file:
        size, at = struct.unpack_from(">IQ", file.read(48), 36)
        file.seek(at)
        entry = file.read(8)
    return patched(path, (at, entry * size))


def truncated_qcow2(folder):
    path = qcow2(folder)
    os.truncate(path, 65536)
    return path


# ---- one file, two formats; files that lie ----

def boot_record(*entries):
    """A master boot record of (flag, type, first sector)."""
    table = b"".join(struct.pack("<B3sB3sII", flag, b"\0\2\0", kind, b"\xff" * 3, first, 100)
                     for flag, kind, first in entries)
    return bytes(446) + table.ljust(64, b"\0") + b"\x55\xaa"


def vhd_footer(folder):
    path = qemu(folder, "fixed.vhd", "vpc", "-o", "subformat=fixed")
    with open(path, "rb") as file:
        file.seek(-SECTOR, os.SEEK_END)
        return file.read()


def qcow2_and_vhd(folder):
    footer = vhd_footer(folder)
    path = qcow2(folder)
    with open(path, "ab") as file:
        file.write(footer)
    return path


def fixed_vhd_with_header_in_it(folder):
    with open(qcow2(folder), "rb") as file:
        head = file.read(SECTOR)
    return patched(qemu(folder, "disk.vhd", "vpc", "-o", "subformat=fixed"), (0, head))


def sparse_raw(folder):
    path = write(folder, "disk.raw", b"x" * 4096)
    os.truncate(path, 2 << 40)
    return path


def zstd_bomb(folder):
    """Frames of zeros, a seek table behind them."""
    frame = subprocess.run(["zstd", "-q", "-19", "-c", "-"], input=bytes(16 * MIB),
                           stdout=subprocess.PIPE, check=True).stdout
    count = 4
    table = struct.pack("<II", len(frame), 16 * MIB) * count + struct.pack("<IBI", count, 0, 0x8F92EAB1)
    return write(folder, "disk.raw.zst",
                 frame * count + struct.pack("<II", 0x184D2A5E, len(table)) + table)


def copied_as(folder, name, make):
    os.rename(make(folder), os.path.join(folder, name))
    return os.path.join(folder, name)


FOREIGN = (b"QED\0", b"WithoutFreeSpace", b"Bochs Virtual HD Image", b"EVF\x09\x0d\x0a\xff\0",
           b"LUKS\xba\xbe\0\1")


def content_cases():
    with_raw = ["-f", "raw"]
    yield case("raw", lambda d: write(d, "disk.img", bytes(MIB)), "(format-guessed)")
    yield case("raw stated", lambda d: write(d, "disk.img", bytes(MIB)), "", with_raw)
    yield case("raw odd", lambda d: write(d, "disk.raw", bytes(1000)), "(served-with-warning)", with_raw)
    for magic in FOREIGN:
        name = magic[:4].decode(errors="replace")
        make = lambda d, magic=magic: write(d, "disk.img", magic.ljust(MIB, b"\0"))
        yield case(f"foreign {name}", make, "foreign-format (format-guessed)")
        yield case(f"foreign {name} stated", make, "(foreign-format)", with_raw)
    yield case("apple", lambda d: write(d, "disk.img", bytes(MIB) + b"koly".ljust(SECTOR, b"\0")),
               "(foreign-format)", with_raw)
    yield case("raw with qcow2 in it", whole_sectors(qcow2), "(second-format) (file-name)", with_raw)
    yield case("qcow2 as vmdk", qcow2, "not-served (file-name) (second-format)", ["-f", "vmdk"])
    yield case("damaged qcow2", lambda d: copied_as(d, "x", lambda e: qcow2(e, (3, b"\0"))),
               "not-served")
    yield case("gzip", lambda d: write(d, "disk.gz", b"\x1f\x8b\x08" + bytes(4093)), "not-served")
    yield case("gzip as raw", lambda d: write(d, "disk.gz", b"\x1f\x8b\x08" + bytes(4093)), "(no-disk)",
               with_raw)
    yield case("zip", lambda d: write(d, "disk.img", b"PK\x03\x04" + bytes(4092)), "(no-disk)", with_raw)
    yield case("two formats", qcow2_and_vhd, "not-served")
    yield case("two formats, one stated", qcow2_and_vhd, "(second-format)", ["-f", "qcow2"])
    yield case("guest's own header", fixed_vhd_with_header_in_it, "not-served")
    yield case("guest's own header, vhd stated", fixed_vhd_with_header_in_it, "(second-format)",
               ["-f", "vpc"])
    for name, at, sign in (("tar", 257, b"ustar"), ("iso", 0x8001, b"CD001"),
                           ("mbr", 510, b"\x55\xaa"), ("udf", 0x8001, b"NSR02")):
        yield case(f"qcow2 and {name}", lambda d, at=at, sign=sign: qcow2(d, (at, sign)), "(polyglot)")
    yield case("vmdk and gpt", vmdk_and_gpt, "(polyglot)")
    yield case("raw iso", lambda d: write(d, "a.iso", bytes(0x8001) + b"CD001" + bytes(MIB - 6)), "",
               with_raw)
    yield case("name", lambda d: copied_as(d, "disk.vmdk", qcow2), "(file-name)")
    yield case("name of a packed image", lambda d: copied_as(d, "disk.qcow2.zst", zstd_bomb),
               "(format-guessed) (file-name) (size-packed)")
    yield case("sparse file", sparse_raw, "(size-huge) (size-sparse)", with_raw)


def whole_sectors(make):
    """qemu-img's images may end within a sector."""
    def make_whole(folder):
        path = make(folder)
        os.truncate(path, -(-os.path.getsize(path) // SECTOR) * SECTOR)
        return path
    return make_whole


def vmdk_and_gpt(folder):
    path = qemu(folder, "disk.vmdk", "vmdk")
    with open(path, "rb") as file:
        file.seek(SECTOR)
        text = file.read(SECTOR)
    # The descriptor moves, the table's sign takes its place.
    return patched(path, (SECTOR, b"EFI PART" + bytes(SECTOR - 8)), (2 * SECTOR, text), (28, b"\2"),
                   (36, b"\1"))


def partition_cases():
    with_raw = ["-f", "raw"]
    linux, gpt = (0x80, 0x83, 2048), (0, 0xee, 1)
    for name, entries, finds in (
            ("mbr", [linux], ""), ("gpt", [gpt], ""), ("empty mbr", [], ""),
            ("flag", [(7, 0x83, 2048)], "(partition-table)"),
            ("gpt at another place", [(0, 0xee, 2)], "(partition-table)"),
            ("hybrid", [gpt, linux], "(partition-table)")):
        yield case("partitions " + name, lambda d, entries=entries:
                   write(d, "disk.img", boot_record(*entries) + bytes(MIB)), finds, with_raw)
    fat = bytearray(boot_record((7, 7, 7)))
    fat[0x10], fat[0x15] = 2, 0xf8
    yield case("partitions fat", lambda d: write(d, "disk.img", bytes(fat) + bytes(MIB)), "", with_raw)


# ---- archives ----

def archive(folder, *lines, renamed="s,x,x,"):
    """disk.vmdk in an archive, and a flat file beside it. `renamed`: for tar --transform."""
    parts = os.path.join(folder, "../parts")
    write(parts, "flat", bytes(8 * SECTOR))
    descriptor(parts, *lines)
    path = os.path.join(folder, "disk.ova")
    write(parts, "other", b"")
    run("tar", "-C", parts, "-P", "--transform", renamed, "-cf", path, "disk.vmdk", "flat", "other")
    return path + "#disk.vmdk"


def archive_cases():
    return [
        case("archive", lambda d: archive(d, 'RW 8 FLAT "flat" 0'), "(touches-file)",
             touches={"inside": True}),
        case("archive outside", lambda d: archive(d, 'RW 8 FLAT "../flat" 0'), "outside",
             touches={"inside": False}),
        case("archive missing", lambda d: archive(d, 'RW 8 FLAT "gone" 0'), "missing"),
        case("archive with a file above", lambda d: archive(d, "RW 8 ZERO", renamed="s,other,../x,"),
             "(archive-member)"),
        case("archive with an absolute file",
             lambda d: archive(d, "RW 8 ZERO", renamed="s,other,/etc/x,"), "(archive-member)"),
        case("archive short", lambda d: archive(d, 'RW 9 FLAT "flat" 0'), "not-served (touches-file)"),
    ]


def case(name, make, finds, options=(), touches=None):
    return {"name": name, "make": make, "finds": finds, "options": options,
            "touches": touches or {}}


def cases():
    return [*vmdk_cases(), *qcow2_cases(), *content_cases(), *partition_cases(), *archive_cases()]
