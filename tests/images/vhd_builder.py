"""Builds VHDs that qemu-img cannot make: differencing ones, other block sizes, other creators."""
import hashlib
import struct

SECTOR = 512
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


def padded(data, unit=SECTOR):
    return data + bytes(-len(data) % unit)


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
    return path.encode() if code == b"MacX" else path.encode("utf-16-le")


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


def sparse(data, name, parent=None, parent_name="", locators=(), unicode_name="",
           block_size=2 << 20, spare_entries=0, batmap=False, whole_bytes=False, **fields):
    """A dynamic VHD with the contents `data`, or a differencing one over the contents `parent` of
    the VHD `parent_name`. `batmap`: tapdisk's, and no sector bitmap in blocks that are full."""
    kind = DYNAMIC if parent is None else DIFFERENCING
    below = bytes(len(data)) if parent is None else parent[:len(data)].ljust(len(data), b"\0")
    blocks = blocks_of(data, below, block_size, whole_bytes)
    if parent is None:
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
                blocks[number] = (bytes(len(bitmap)), stored)
        middle = padded(struct.pack(">8sQIII", b"tdbatmap", after_table + SECTOR,
                                    len(bits) // SECTOR, 0x00010002, checksum(bits))) + bytes(bits)
    table = b""
    for code, path in locators:
        raw = locator_data(code, path)
        table += struct.pack(">4sIIIQ", code, SECTOR, len(raw), 0, after_table + len(middle))
        middle += padded(raw)

    header = sealed(struct.pack(">8sQQIIII16sII512s192s256x", b"cxsparse", FREE << 32 | FREE,
                                table_offset, 0x00010000, entries, block_size, 0,
                                unique_id(parent_name) if parent is not None else bytes(16), 0, 0,
                                unicode_name.encode("utf-16-be"), table), 36)
    bat = [FREE] * entries
    stored = b""
    # From the last to the first, so that nobody takes the file's order for the disk's.
    for number in sorted(blocks, reverse=True):
        bitmap, block = blocks[number]
        bat[number] = (after_table + len(middle) + len(stored)) // SECTOR
        stored += padded(bitmap) + block
    return end + header + padded(struct.pack(f">{entries}I", *bat)) + middle + stored + end
