"""Hostile containers: tar archives (OVA), xz files, zstd files with a seek table."""
import os
import lzma
import struct
import subprocess
import zlib

import hostile_qcow
import vmdk_builder
from common import content, padded
from hostile_image_lab import REFUSED, Field, Image, write

SECTOR = 512
OVF = "http://schemas.dmtf.org/ovf/envelope/1"


def descriptor(href):
    return (f'<?xml version="1.0"?>\n<Envelope xmlns="{OVF}" xmlns:ovf="{OVF}"><References>'
            f'<File ovf:id="f" ovf:href="{href}"/></References><DiskSection>'
            f'<Disk ovf:diskId="d" ovf:fileRef="f"/></DiskSection></Envelope>').encode()


def tar_header(name, size, kind=b"0", link=b""):
    head = bytearray(struct.pack("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x", name, b"0000644\0",
                                 b"0000000\0", b"0000000\0", b"%011o\0" % size, b"00000000000\0",
                                 b" " * 8, kind, link, b"ustar\0", b"00", b"", b"", b"0000000\0",
                                 b"0000000\0", b""))
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def tar(*members):
    return b"".join(tar_header(name, len(data)) + padded(data) for name, data in members) + bytes(1024)


def seal_tar(places):
    def seal(changed):
        patches = []
        for at in places:
            head = changed[at:at + SECTOR]
            head[148:156] = b" " * 8
            patches.append((at + 148, b"%06o\0 " % sum(head)))
        return tuple(patches)
    return seal


def disk():
    data = content(100 * SECTOR, 41)
    text = vmdk_builder.descriptor("streamOptimized", ['RW 100 SPARSE "disk.vmdk"'])
    return data, vmdk_builder.stream_file(data, text, 16)


def ova(folder):
    data, vmdk = disk()
    text = descriptor("disk.vmdk")
    built = tar((b"a.ovf", text), (b"disk.vmdk", vmdk))
    second = SECTOR + len(padded(text))
    image = Image("ova", os.path.join(folder, "image.ova"), built, data, "vmdk", seal=seal_tar((0, second)))
    for number, at in enumerate((0, second)):
        for value in (b"", b"-1", b"7" * 11, b"777777777777", b"\x80" + b"\xff" * 11, b"\xff" * 12,
                      b"\x80" + bytes(11), b"\x80" + bytes(3) + b"\xff" * 8, b"00000000001",
                      b"0000000000", b"99999999999", b"%011o" % len(built), b" " * 12):
            image.change(f"member {number} size {value}", (at + 124, value.ljust(12, b"\0")))
        for kind in b"01234567xgLKSDMVN\0A\xff":
            image.change(f"member {number} type {kind:#x}", (at + 156, bytes([kind])))
        for name in (b"", b"..", b"/", b"../disk.vmdk", b"disk.vmdk", b"a.ovf", b"\x1b[2J", b"n" * 100,
                     b"disk.vmdk#x", b"x\ny"):
            image.change(f"member {number} name {name[:20]}", (at, name.ljust(100, b"\0")))
        for magic in (b"ustar ", b"\0" * 6, b"USTAR\0"):
            image.change(f"member {number} magic {magic}", (at + 257, magic))
        image.without_seal(f"member {number} checksum", at + 20)
    for href in ("../disk.vmdk", "/etc/passwd", "a.ovf", "", "disk.vmdk#x", "file:///etc/passwd",
                 "https://x/y", "missing.vmdk", "&#0;", "&#27;[2J", "disk%2evmdk"):
        new = descriptor(href)
        archive = tar((b"a.ovf", new), (b"disk.vmdk", vmdk))
        image.change(f"href {href}", (0, archive), length=len(archive), seal=False)
    entities = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + b"".join(
        b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(9)) + b"]>"
    for name, bomb in (("entities", entities + text.replace(b"disk.vmdk", b"&j;")),
                       ("external entity", b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>' +
                        text.replace(b"disk.vmdk", b"&a;")),
                       ("deep", b"<a>" * 200000), ("long", text + b" " * (5 << 20)),
                       ("attributes", b"<a " + b"x='1' " * 100000 + b">"),
                       ("not UTF-8", b"\xff\xfe" + text), ("nothing", b"")):
        archive = tar((b"a.ovf", bomb), (b"disk.vmdk", vmdk))
        image.change(f"descriptor {name}", (0, archive), length=len(archive), seal=False)
    for name, members in (("twice", [(b"a.ovf", text), (b"disk.vmdk", vmdk), (b"disk.vmdk", vmdk)]),
                          ("two descriptors", [(b"a.ovf", text), (b"b.ovf", text), (b"disk.vmdk", vmdk)]),
                          ("many", [(b"%d" % i, b"") for i in range(10500)])):
        archive = tar(*members)
        image.change(name, (0, archive), length=len(archive), seal=False)
    image.cuts()
    return image


def xz(folder):
    data = content(300 * SECTOR, 42)
    inner = hostile_qcow.build(data)
    raw = write(os.path.join(folder, "x.qcow"), inner)
    built = subprocess.run(["xz", "-0", "-T2", "--block-size=50000", "-c", raw], stdout=subprocess.PIPE,
                           check=True).stdout
    image = Image("xz", os.path.join(folder, "image.xz"), built, data, "qcow")
    for at in list(range(0, 40)) + list(range(len(built) - 80, len(built))):
        for change in (0x01, 0x80, 0xFF):
            image.change(f"byte {at} ^ {change:#x}", (at, bytes([built[at] ^ change])))
    for at in range(40, len(built) - 80, len(built) // 97):
        image.change(f"byte {at}", (at, bytes([built[at] ^ 0x55])))
    image.fields(Field("backward_size", len(built) - 8), Field("footer flags", len(built) - 4, 2))
    backward = (image.number(len(built) - 8) + 1) * 4
    index_at = len(built) - 12 - backward

    def with_index(name, records, count=None):
        """An index with a right checksum that lies."""
        index = b"\0" + number(len(records) if count is None else count)
        index += b"".join(number(a) + number(b) for a, b in records)
        index += bytes(-len(index) % 4)
        index += struct.pack("<I", zlib.crc32(index))
        foot = struct.pack("<I", len(index) // 4 - 1) + built[6:8]
        foot = struct.pack("<I", zlib.crc32(foot)) + foot + b"YZ"
        new = index + foot
        image.change(f"index {name}", (index_at, new), length=index_at + len(new))

    true = [(1000, 50000)]
    for name, records in (("empty", []), ("short", true), ("huge block", [(1000, 1 << 62)]),
                          ("huge packed", [(1 << 62, 50000)]), ("zero packed", [(0, 50000)]),
                          ("zero block", [(1000, 0)]), ("many huge", [(1 << 61, 1 << 61)] * 8),
                          ("33 MiB", [(index_at - 12, 33 << 20)]), ("bomb", [(8, 32 << 20)] * 1000)):
        with_index(name, records)
    with_index("count", true, 1 << 40)
    with_index("count most", true, (1 << 63) - 1)
    bomb = lzma.compress(bytes(64 << 20), preset=0)
    image.change("64 MiB of zeros", (0, bomb), length=len(bomb), rule=REFUSED)
    image.cuts(step=64)
    return image


def number(value):
    """xz's variable-length integers."""
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def zstd(folder):
    data = content(300 * SECTOR, 43)
    inner = hostile_qcow.build(data)
    frames = []
    for start in range(0, len(inner), 50000):
        part = inner[start:start + 50000]
        frames.append((subprocess.run(["zstd", "-q", "-c", "-"], input=part, stdout=subprocess.PIPE,
                                      check=True).stdout, len(part)))
    table = b"".join(struct.pack("<II", len(packed), size) for packed, size in frames)
    table += struct.pack("<IBI", len(frames), 0, 0x8F92EAB1)
    built = b"".join(packed for packed, _ in frames) + struct.pack("<II", 0x184D2A5E, len(table)) + table
    image = Image("zstd", os.path.join(folder, "image.zst"), built, data, "qcow")
    at = len(built) - len(table) - 8
    image.fields(Field("skippable magic", at), Field("skippable size", at + 4),
                 Field("frames", len(built) - 9), Field("descriptor", len(built) - 5, 1),
                 Field("seekable magic", len(built) - 4))
    for index in range(len(frames)):
        image.fields(Field(f"frame {index} packed", at + 8 + 8 * index),
                     Field(f"frame {index} size", at + 12 + 8 * index))
    for place in list(range(0, 24)) + list(range(24, at, at // 97)):
        for change in (0x01, 0x80, 0xFF):
            image.change(f"byte {place} ^ {change:#x}", (place, bytes([built[place] ^ change])))
    image.cuts(step=64)
    return image


def images(folder):
    os.makedirs(folder)
    yield ova(folder)
    yield xz(folder)
    yield zstd(folder)
