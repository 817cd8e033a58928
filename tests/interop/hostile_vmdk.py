"""Hostile VMDKs: VMware "Virtual Disk Format 5.0"; the extents of ESX as tests/images has them."""
import os
import re
import struct

import vmdk_builder
import vmdk_esx_builder
from common import content
from hostile_image_lab import REFUSED, SAFE, Field, Image, other, write

SECTOR = 512
GRAIN = 16
UNIT = other("it is the unit of all places", peer=False)
PLACE = other("where it points to there could be a table without grains")
SIZE = other("the size", peer=False)


def header_fields(at=0, name="header"):
    return [Field(f"{name} {field}", at + place, width, rule) for field, place, width, rule in (
        ("magic", 0, 4, SAFE), ("version", 4, 4, SAFE), ("flags", 8, 4, SAFE),
        ("capacity", 12, 8, SIZE), ("grain", 20, 8, UNIT), ("descriptor offset", 28, 8, SAFE),
        ("descriptor size", 36, 8, SAFE), ("gtes", 44, 4, SAFE), ("rgd", 48, 8, SAFE),
        ("gd", 56, 8, PLACE), ("overhead", 64, 8, SAFE), ("unclean", 72, 1, SAFE),
        ("check bytes", 73, 4, SAFE), ("algorithm", 77, 2, SAFE))]


def tables(image, gd, entries, width=4):
    """Directory and tables: each entry in the file's other structures, and beyond its end."""
    sectors = len(image.data) // SECTOR
    gt = image.number(gd * SECTOR)
    grains = [image.number(gt * SECTOR + width * i, width) for i in range(entries)]
    for value in (1, 2, gd, gd + 1, gt - 1, gt + 1, sectors, sectors - 1, 0x7FFFFFFF, 0xFFFFFFFF):
        if value != gt:
            image.change(f"GD[0]={value:#x}", (gd * SECTOR, struct.pack("<I", value)), rule=PLACE)
    for index in range(entries):
        values = [2, gd, gt, gt + 1, sectors, sectors - 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
        for value in dict.fromkeys(values):
            if value != grains[index]:
                image.change(f"GT[{index}]={value:#x}",
                             (gt * SECTOR + width * index, struct.pack("<I", value)))
        image.change(f"GT[{index}]=0", (gt * SECTOR + 4 * index, bytes(4)),
                     rule=other("0 says that nothing is stored"))
        image.change(f"GT[{index}]=1", (gt * SECTOR + 4 * index, struct.pack("<I", 1)),
                     rule=other("1 says zeros", peer=False))
        for grain in grains:
            if grain not in (0, 1, grains[index]):
                image.change(f"GT[{index}] another's {grain}",
                             (gt * SECTOR + 4 * index, struct.pack("<I", grain)),
                             rule=other("it names a grain of the file"))


LINES = (  # of the extents' part of a descriptor; {} is the name of the extent's file
    'RW 0 FLAT "{}" 0', 'RW -1 FLAT "{}" 0', 'RW 18446744073709551615 FLAT "{}" 0',
    'RW 36028797018963968 FLAT "{}" 0', 'RW 9007199254740992 FLAT "{}" 0',
    'RW 257 FLAT "{}" 18446744073709551615', 'RW 257 FLAT "{}" 36028797018963967',
    'RW 257 FLAT "{}" 1', 'RW 257 FLAT "{}" -1', 'RW 258 FLAT "{}" 0', 'RW 257 FLAT "{}" 0x0',
    'RW 257 FLAT "{}" 0 0', 'RW 257 FLAT {} 0', "RW 257 FLAT '{}' 0", 'RW 257 FLAT "{}', 'RW 257 FLAT "" 0',
    'RW 257 FLAT', 'RW', 'RW 257', 'XX 257 FLAT "{}" 0', 'NOACCESS 257 FLAT "{}" 0',
    'RW 257 SPARSE "{}"', 'RW 257 VMFSSPARSE "{}"', 'RW 257 SESPARSE "{}"', 'RW 257 VMFSRDM "{}"',
    'RW 257 VMFSRAW "{}"', 'RW 257 FLATT "{}" 0', 'RW 257 FLAT "./{}/../x" 0',
    'RW 257 SPARSE "flat.vmdk"', 'RW 257 FLAT "flat.vmdk" 0', 'RW 257 FLAT "../outside.img" 0',
    'RW 257 FLAT "/etc/passwd" 0', 'RW 257 FLAT "/dev/zero" 0', 'RW 257 FLAT "/dev/stdin" 0',
    'RW 257 FLAT "/proc/self/mem" 0', 'RW 257 FLAT "fifo" 0', 'RW 257 FLAT "link" 0',
    'RW 257 FLAT "folder" 0', 'RW 257 FLAT "nbd://localhost/x" 0', 'RW 257 FLAT "json:{x}" 0',
    'RW 257 FLAT "fat:/etc" 0', 'RW 257 FLAT "{}\0.img" 0', 'RW 257 FLAT "..\\outside.img" 0',
    'RW 257 FLAT ".." 0', 'RW 257 FLAT "." 0', 'RW 257 FLAT "{}/" 0', 'RW 257 FLAT "~/x" 0',
    'RW 257 FLAT "\x1b[2J" 0', 'RW 257 FLAT "socket" 0', 'RW 257 FLAT "C:\\x.img" 0',
    'RW 128 FLAT "{}" 0\nRW 128 FLAT "missing.img" 0', '', 'RW 257 FLAT "{}" 0\n' * 4097,
)
HEAD_LINES = (
    ("version=1", "version=99"), ("version=1", "version="), ("version=1", "version=-1"),
    ("CID=fffffffe", "CID="), ("CID=fffffffe", "CID=xyz"), ("CID=fffffffe", "CID=1ffffffff"),
    ("parentCID=ffffffff", "parentCID=12345678"), ("parentCID=ffffffff", "parentCID="),
    ("parentCID=ffffffff", "parentCID=fffffffe"),
    ('createType="monolithicFlat"', 'createType=""'), ('createType="monolithicFlat"', "createType"),
    ('createType="monolithicFlat"', 'createType="physical"'),
    ('createType="monolithicFlat"', 'createType="monolithicFlat'),
    ("# Disk DescriptorFile", "# Disk"), ("# Disk DescriptorFile", "\0# Disk DescriptorFile"),
    ("CID=fffffffe", "encoding=\"utf-7\"\nCID=fffffffe"),
    ("CID=fffffffe", "parentFileNameHint=\"../../etc/passwd\"\nCID=fffffffe"),
)


def flat(folder):
    """The descriptor, line by line."""
    data = content(257 * SECTOR, 21)
    name = "flat-flat.vmdk"
    write(os.path.join(folder, name), data)
    write(os.path.join(folder, "..", "outside.img"), b"secret " * 20000)
    os.mkfifo(os.path.join(folder, "fifo"))
    os.symlink("../outside.img", os.path.join(folder, "link"))
    os.makedirs(os.path.join(folder, "folder"))
    good = f'RW 257 FLAT "{name}" 0'
    text = vmdk_builder.descriptor("monolithicFlat", [good])
    image = Image("vmdk-flat", os.path.join(folder, "flat.vmdk"), text, data, "vmdk")

    def changed(case, new, rule=SAFE):
        image.change(case, (0, new), length=len(new), rule=rule)

    for line in LINES:
        new = text.replace(good.encode(), line.replace("{}", name).encode("latin-1"))
        served = ("FLAT '", "0x0", '128 FLAT', "./")
        refused = REFUSED if not any(word in line for word in served) else SAFE
        changed(f"line {line[:60]!r}", new,
                SIZE if "RW 0 " in line or "{} 0" in line else refused)
    for old, new in HEAD_LINES:
        assert old.encode() in text, old
        changed(f"{old} -> {new!r}", text.replace(old.encode(), new.encode(), 1))
    for size in (1 << 20, (1 << 20) + 1, 10 << 20):
        changed(f"{size} bytes of comment", text + b"#" * (size - len(text)),
                SAFE if size <= 1 << 20 else REFUSED)
        changed(f"{size} bytes of lines", (text + b"a=b\n" * (size // 4))[:size])
        changed(f"{size} bytes of extents", (text + good.encode() + b"\n") * (size // len(text)),
                REFUSED)
    # The contents are as long as the lines say: a line that is cut off is lost.
    for length in range(len(text) - 1, 0, -1):
        whole = good.encode() in text[:length]
        image.change(f"cut at {length}", (0, b""), length=length, rule=SAFE if whole else REFUSED)
    return image


def sparse(folder, name, built, data, extra=(), gd=None, **options):
    image = Image("vmdk-" + name, os.path.join(folder, name + ".vmdk"), built, data, "vmdk",
                  **options)
    image.fields(*header_fields(), *extra)
    if gd is not None:
        tables(image, gd, 6)
    text = built.find(b"# Disk DescriptorFile")
    end = built.find(b"\0", text)
    for match in re.finditer(rb"RW \d+ SPARSE", built[text:end]):
        at = text + match.start()
        for line in (b"RW 999 SPARSE", b"RW 000 SPARSE", b"NO 512 SPARSE", b"RW 512 FLAT  "):
            if len(line) == len(match.group()):
                image.change(f"line {line!r}", (at, line), rule=SIZE)
    image.cuts()
    return image


def monolithic(folder, data, redundant):
    name = "redundant" if redundant else "sparse"
    text = vmdk_builder.descriptor("monolithicSparse",
                                   [f'RW {len(data) // SECTOR} SPARSE "{name}.vmdk"'])
    built = vmdk_builder.sparse_file(data, GRAIN, text, redundant=redundant)
    gd, = struct.unpack_from("<Q", built, 56)
    return sparse(folder, name, built, data, gd=gd, qemu_format="" if redundant else "vmdk")


def stream(folder, data):
    text = vmdk_builder.descriptor("streamOptimized",
                                   [f'RW {len(data) // SECTOR} SPARSE "stream.vmdk"'])
    built = vmdk_builder.stream_file(data, text, GRAIN)
    footer = len(built) - 1024
    gd, = struct.unpack_from("<Q", built, footer + 56)
    extra = header_fields(footer, "footer")
    extra += [Field("footer marker " + name, footer - SECTOR + at, width)
              for name, at, width in (("sectors", 0, 8), ("size", 8, 4), ("type", 12, 4))]
    extra += [Field("end marker " + name, footer + SECTOR + at, width)
              for name, at, width in (("sectors", 0, 8), ("size", 8, 4), ("type", 12, 4))]
    image = sparse(folder, "stream", built, data, extra, gd)
    gt = image.number(gd * SECTOR)
    for index in range(4):
        grain = image.number(gt * SECTOR + 4 * index) * SECTOR
        if grain == 0:
            continue
        image.fields(Field(f"grain {index} LBA", grain, 8), Field(f"grain {index} size", grain + 8))
        for place in (12, 13, 14, 40):
            image.change(f"grain {index} byte {place}",
                         (grain + place, bytes([built[grain + place] ^ 0xFF])))
    return image


def esx(folder, data):
    """COWD and seSparse extents, whose descriptors are files of their own."""
    for kind, name, built in (
            ("VMFSSPARSE", "cowd", vmdk_esx_builder.cowd_file(data, GRAIN)),
            ("SESPARSE", "sesparse", vmdk_esx_builder.se_sparse_file(data, zeroed={2},
                                                                     unmapped={3}))):
        truth = data
        if name == "sesparse":
            truth = data[:2 * 4096] + bytes(2 * 4096) + data[4 * 4096:]
        text = vmdk_builder.descriptor("vmfsSparse", [
            f'RW {len(data) // SECTOR} {kind} "{name}-delta.vmdk"'])
        descriptor = write(os.path.join(folder, name + ".vmdk"), text)
        image = Image("vmdk-" + name, os.path.join(folder, name + "-delta.vmdk"), built, truth, "vmdk",
                      opened=descriptor)
        if name == "cowd":
            image.fields(*(Field(f"cowd {field}", at, rule=PLACE if field == "gd" else
                                 UNIT if field == "grain" else SAFE) for field, at in (
                ("magic", 0), ("version", 4), ("flags", 8), ("capacity", 12), ("grain", 16),
                ("gd", 20), ("tables", 24), ("free", 28), ("unclean", 1648))))
            tables(image, 4, 4)
        else:
            image.fields(*(Field(f"sesparse {field}", 8 * i, 8) for i, field in enumerate(
                ["magic", "version", "capacity", "grain", "table", "flags"])))
            image.fields(*(Field(f"sesparse region {i}", 80 + 8 * i, 8) for i in range(16)))
            image.fields(*(Field(f"sesparse volatile {i}", 512 + 8 * i, 8) for i in range(4)))
            se_tables(image)
        image.cuts()
        yield image


def se_tables(image):
    directory = image.number(80 + 8 * 6, 8) * SECTOR
    table = image.number(80 + 8 * 8, 8) * SECTOR
    for value in (0x10000001 << 32, 0x10000000 << 32 | 1, 0x20000000 << 32, 0xFFFFFFFFFFFFFFFF, 1):
        image.change(f"seSparse GD[0]={value:#x}", (directory, struct.pack("<Q", value)))
    for index in range(5):
        for value in (4 << 60, 15 << 60, 3 << 60 | 0xFFF << 48, 3 << 60 | (1 << 48) - 1,
                      0xFFFFFFFFFFFFFFFF):
            image.change(f"seSparse GT[{index}]={value:#x}",
                         (table + 8 * index, struct.pack("<Q", value)))


def images(folder):
    os.makedirs(folder)
    data = content(20 * GRAIN * SECTOR + 5 * SECTOR, 22)
    data = data[:GRAIN * SECTOR] + bytes(GRAIN * SECTOR) + data[2 * GRAIN * SECTOR:]
    yield flat(folder)
    yield monolithic(folder, data, False)
    yield monolithic(folder, data, True)
    yield stream(folder, data)
    yield from esx(folder, data)
