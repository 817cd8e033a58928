"""Builds VHDs that qemu-img cannot make: differencing ones, other block sizes, other creators."""
import hashlib
import struct

from common import SECTOR, padded

FREE = 0xFFFFFFFF
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4


def checksum(data):
    return ~sum(data) & 0xFFFFFFFF


def sealed(data, at):
    """`data` with its checksum at `at`."""
    data = bytearray(data)
    data[at:at + 4] = bytes(4)
    data[at:at + 4] = struct.pack(">I", checksum(data))
    return bytes(data)


def unique_id(name):
    return hashlib.md5(name.encode()).digest()


def geometry(size):
    """Cylinders, heads, sectors per track: the specification's appendix "CHS Calculation"."""
    sectors = min(size // SECTOR, 65535 * 16 * 255)
    if sectors >= 65535 * 16 * 63:
        per_track, heads = 255, 16
        return sectors // per_track // heads, heads, per_track
    per_track = 17
    cylinder_heads = sectors // per_track
    heads = max((cylinder_heads + 1023) // 1024, 4)
    if cylinder_heads >= heads * 1024 or heads > 16:
        per_track, heads = 31, 16
        cylinder_heads = sectors // per_track
    if cylinder_heads >= heads * 1024:
        per_track, heads = 63, 16
        cylinder_heads = sectors // per_track
    return cylinder_heads // heads, heads, per_track


def chs_bytes(size):
    cylinders, heads, per_track = geometry(size)
    return cylinders * heads * per_track * SECTOR


def footer(size, kind, name, creator=b"win ", version=0x000A0000):
    cylinders, heads, per_track = geometry(size)
    data_offset = 0xFFFFFFFFFFFFFFFF if kind == FIXED else SECTOR
    return sealed(struct.pack(">8sIIQI4sIIQQHBBII16sBB426x", b"conectix", 2, 0x00010000, data_offset,
                              0, creator, version, 0, size, size, cylinders, heads, per_track, kind,
                              0, unique_id(name), 0, 0), 64)


def locator_data(code, path):
    """Data of a parent locator; `path` may be bytes already."""
    if isinstance(path, bytes):
        return path
    return path.encode() if code in (b"MacX", b"Wi2r", b"Wi2k") else path.encode("utf-16-le")


def least_significant_first(bitmap):
    return bytes(int(f"{byte:08b}"[::-1], 2) for byte in bitmap)


def fixed(data, name, **fields):
    return data + footer(len(data), FIXED, name, **fields)


def blocks_of(data, parent, block_size, whole_bytes):
    """{block: (sector bitmap, data)} of the sectors of `data` that differ from `parent`; where
    they do not, the block has bytes that nobody may see. `whole_bytes`: runs of set bits go on to
    the end of their last byte."""
    blocks = {}
    for number in range((len(data) + block_size - 1) // block_size):
        own = data[number * block_size:(number + 1) * block_size]
        other = parent[number * block_size:number * block_size + len(own)]
        if own == other:
            continue
        bitmap = bytearray(block_size // SECTOR // 8 or 1)
        stored = bytearray(b"\xdb" * block_size)
        for sector in range(len(own) // SECTOR):
            part = slice(sector * SECTOR, (sector + 1) * SECTOR)
            running = whole_bytes and bitmap[sector // 8] != 0
            if own[part] != other[part] or running:
                bitmap[sector // 8] |= 0x80 >> sector % 8
                stored[part] = own[part]
        blocks[number] = (bytes(bitmap), bytes(stored))
    return blocks


def batmap_checksum(bits, version):
    """Version 1.1 sums signed bytes."""
    negative = sum(byte >= 128 for byte in bits) if version == 0x00010001 else 0
    return (checksum(bits) + 256 * negative) & 0xFFFFFFFF


def sparse(data, name, parent=None, parent_name="", locators=(), unicode_name=b"",
           block_size=2 << 20, spare_entries=0, batmap=False, whole_bytes=False,
           batmap_version=0x00010002, keyhash=0, sector_bits=False, lsb_first=False,
           parent_time=0, data_space=SECTOR, bits_beside_batmap=False, **fields):
    """A dynamic VHD with the contents `data`, or a differencing one over the contents `parent` of
    the VHD `parent_name` (None: a raw disk, as tapdisk says it). `batmap`: tapdisk's, and no sector
    bitmap in blocks that are full, or both with `bits_beside_batmap`. `sector_bits`: of a dynamic one, sectors of zeros have no bit,
    and other bytes. `lsb_first`: the sector bitmaps of tapdisk 0.1."""
    kind = DYNAMIC if parent is None else DIFFERENCING
    below = bytes(len(data)) if parent is None else parent[:len(data)].ljust(len(data), b"\0")
    blocks = blocks_of(data, below, block_size, whole_bytes)
    if parent is None and not sector_bits:
        # As qemu: the sector bitmap of a dynamic image's block has all bits set.
        blocks = {number: (b"\xff" * len(bitmap), data[number * block_size:][:block_size]
                           .ljust(block_size, b"\0")) for number, (bitmap, _) in blocks.items()}
    entries = (len(data) + block_size - 1) // block_size + spare_entries
    end = footer(len(data), kind, name, **fields)
    table_offset = SECTOR + 1024
    after_table = table_offset + len(padded(bytes(entries * 4)))
    middle = b""

    bits = bytearray(len(padded(bytes((entries + 7) // 8))))
    if batmap:
        for number, (bitmap, stored) in blocks.items():
            if bitmap.count(0xFF) == len(bitmap):
                bits[number // 8] |= 0x80 >> number % 8
                if not bits_beside_batmap:
                    blocks[number] = (bytes(len(bitmap)), stored)
        middle = padded(struct.pack(">8sQIII", b"tdbatmap", after_table + SECTOR,
                                    len(bits) // SECTOR, batmap_version,
                                    batmap_checksum(bits, batmap_version)) + bytes([0, keyhash]))
        middle += bytes(bits)
    table = b""
    for code, path in locators:
        raw = locator_data(code, path)
        table += struct.pack(">4sIIIQ", code, data_space, len(raw), 0, after_table + len(middle))
        middle += padded(raw)

    header = sealed(struct.pack(">8sQQIIII16sII512s192s256x", b"cxsparse", FREE << 32 | FREE,
                                table_offset, 0x00010000, entries, block_size, 0,
                                unique_id(parent_name) if parent is not None and parent_name
                                else bytes(16), parent_time, 0, unicode_name, table), 36)
    bat = [FREE] * entries
    stored = bytearray()
    # From the last to the first, so that nobody takes the file's order for the disk's.
    for number in sorted(blocks, reverse=True):
        bitmap, block = blocks[number]
        bat[number] = (after_table + len(middle) + len(stored)) // SECTOR
        stored += padded(least_significant_first(bitmap) if lsb_first else bitmap) + block
    return end + header + padded(struct.pack(f">{entries}I", *bat)) + middle + bytes(stored) + end
