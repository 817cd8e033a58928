"""Builds VHDXs that qemu-img cannot make: differencing ones, 4096-byte sectors, a log that was not
replayed. Sections are those of "[MS-VHDX]: Virtual Hard Disk v2 (VHDX) File Format"."""
import functools
import hashlib
import os
import struct
import uuid

MIB = 1 << 20
LOG_AT, LOG_BYTES, METADATA_AT, BAT_AT = MIB, MIB, 2 * MIB, 3 * MIB
HEADERS_AT, TABLES_AT = (64 << 10, 128 << 10), (192 << 10, 256 << 10)
SECTOR = 4096  # of the log
NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED, FULLY, PARTIALLY = 0, 1, 2, 3, 6, 7
NULL = uuid.UUID(int=0)

BAT_REGION = uuid.UUID("2DC27766-F623-4200-9D64-115E9BFD4A08")
METADATA_REGION = uuid.UUID("8B7CA206-4790-4B9A-B8FE-575F050F886E")
FILE_PARAMETERS = uuid.UUID("CAA16737-FA36-4D43-B3B6-33F0AA44E76B")
VIRTUAL_DISK_SIZE = uuid.UUID("2FA54224-CD1B-4876-B211-5DBED83BF4B8")
VIRTUAL_DISK_ID = uuid.UUID("BECA12AB-B2E6-4523-93EF-C309E000C746")
LOGICAL_SECTOR_SIZE = uuid.UUID("8141BF1D-A96F-4709-BA47-F233A8FAAB5F")
PHYSICAL_SECTOR_SIZE = uuid.UUID("CDA348C7-445D-4471-9CC9-E9885251C556")
PARENT_LOCATOR = uuid.UUID("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C")
LOCATOR_TYPE = uuid.UUID("B04AEFB7-D19E-4A81-B789-25B8E9445913")


def crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC_TABLE = crc_table()


@functools.lru_cache(maxsize=64)
def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def sealed(data):
    """`data` with its checksum, which is at 4 in every structure that has one."""
    data = data[:4] + bytes(4) + data[8:]
    return data[:4] + struct.pack("<I", crc32c(data)) + data[8:]


def data_write_guid(name):
    return uuid.UUID(bytes=hashlib.md5(name.encode()).digest())


def header(sequence, name, log_guid=NULL, log_length=LOG_BYTES):
    """2.2.2"""
    return sealed(struct.pack("<4sIQ16s16s16sHHIQ", b"head", 0, sequence, b"W" * 16,
                              data_write_guid(name).bytes_le, log_guid.bytes_le, 0, 1, log_length,
                              LOG_AT).ljust(4096, b"\0"))


def region_table(bat_bytes, more=()):
    """2.2.3. `more`: (GUID, offset, length, required)."""
    regions = [(BAT_REGION, BAT_AT, bat_bytes, 1), (METADATA_REGION, METADATA_AT, MIB, 1), *more]
    table = struct.pack("<4sIII", b"regi", 0, len(regions), 0)
    for guid, offset, length, required in regions:
        table += struct.pack("<16sQII", guid.bytes_le, offset, length, required)
    return sealed(table.ljust(64 << 10, b"\0"))


def parent_locator(values):
    """2.6.2.6"""
    at = 20 + 12 * len(values)
    entries, strings = b"", b""
    for key, value in values.items():
        key, value = key.encode("utf-16-le"), value.encode("utf-16-le")
        entries += struct.pack("<IIHH", at, at + len(key), len(key), len(value))
        strings += key + value
        at += len(key) + len(value)
    return struct.pack("<16sHH", LOCATOR_TYPE.bytes_le, 0, len(values)) + entries + strings


def metadata(size, block_size, sector, flags, locator, more=()):
    """2.6: the table, and the items 64 KiB behind it. `more`: (GUID, bytes, flags)."""
    items = [(FILE_PARAMETERS, struct.pack("<II", block_size, flags), 4),
             (VIRTUAL_DISK_SIZE, struct.pack("<Q", size), 6),
             (VIRTUAL_DISK_ID, b"D" * 16, 6),
             (LOGICAL_SECTOR_SIZE, struct.pack("<I", sector), 6),
             (PHYSICAL_SECTOR_SIZE, struct.pack("<I", 4096), 6), *more]
    if locator is not None:
        items.append((PARENT_LOCATOR, parent_locator(locator), 4))
    table = struct.pack("<8sHH20x", b"metadata", 0, len(items))
    data = b""
    for guid, item, item_flags in items:
        table += struct.pack("<16sIIII", guid.bytes_le, (64 << 10) + len(data), len(item), item_flags,
                             0)
        data += item
    return table.ljust(64 << 10, b"\0") + data


def partial_block(own, other, sector):
    """The bits of the sectors of `own` that differ from `other`, and a block that has nothing but
    them."""
    bits = []
    stored = bytearray(b"\xdb" * len(own))
    for at in range(0, len(own), sector):
        part = slice(at, at + sector)
        bits.append(own[part] != other[part])
        if bits[-1]:
            stored[part] = own[part]
    return bits, bytes(stored)


def plan_blocks(data, parent, block_size, sector):
    """[(state, stored bytes or None, bits or None)] of the payload blocks. Blocks that the parent
    does not show but zeros have the states that mean zeros (2.5.1.1) in turn; every other block that
    differs from the parent is stored in full."""
    below = None if parent is None else parent[:len(data)].ljust(len(data), b"\0")
    plan = []
    for number, at in enumerate(range(0, len(data), block_size)):
        own = data[at:at + block_size]
        zeros = own.count(0) == len(own)
        if below is None and not zeros:
            plan.append((FULLY, own, None))
        elif below is None:
            plan.append(((NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED)[number % 4], None, None))
        elif own == below[at:at + block_size]:
            plan.append((NOT_PRESENT, None, None))
        elif zeros:
            plan.append(((UNDEFINED, ZERO, UNMAPPED)[number % 3], None, None))
        elif number % 2 == 0:
            plan.append((FULLY, own, None))
        else:
            bits, stored = partial_block(own, below[at:at + block_size], sector)
            plan.append((PARTIALLY, stored, bits))
    return plan


def build(path, data, name, parent=None, locator=None, block_size=MIB, sector=512, flags=0,
          more_items=(), more_regions=(), full_blocks=True):
    """Writes the VHDX `name` with the contents `data`; over the contents `parent`, which `locator`
    (a dict, 2.6.2.6.3) names. `full_blocks`: no block is cut where the disk ends."""
    plan = plan_blocks(data, parent, block_size, sector)
    ratio = (1 << 23) * sector // block_size
    bat = [0] * (-(-len(plan) // ratio) * (ratio + 1))  # 2.5
    bat_bytes = -(-len(bat) * 8 // MIB) * MIB
    end = BAT_AT + bat_bytes
    bitmaps = {}
    with open(path, "wb") as out:
        # From the last to the first, so that nobody takes the file's order for the disk's.
        for number, (state, stored, bits) in reversed(list(enumerate(plan))):
            entry = number + number // ratio
            bat[entry] = state
            if stored is None:
                continue
            bat[entry] |= end
            out.seek(end)
            out.write(stored)
            end += -(-(block_size if full_blocks else len(stored)) // MIB) * MIB
            if bits is not None:
                bitmap = bitmaps.setdefault(number // ratio, bytearray(MIB))
                first = number % ratio * (block_size // sector)
                for bit, present in enumerate(bits, first):
                    bitmap[bit // 8] |= present << bit % 8  # 2.4: the least significant bit first
        for chunk, bitmap in bitmaps.items():
            bat[chunk * (ratio + 1) + ratio] = end | FULLY
            out.seek(end)
            out.write(bitmap)
            end += MIB
        out.seek(0)
        out.write(b"vhdxfile" + "underlay".encode("utf-16-le"))
        for at, sequence in zip(HEADERS_AT, (7, 8)):
            out.seek(at)
            out.write(header(sequence, name))
        for at in TABLES_AT:
            out.seek(at)
            out.write(region_table(bat_bytes, more_regions))
        out.seek(METADATA_AT)
        flags |= 0 if parent is None else 2
        out.write(metadata(len(data), block_size, sector, flags, locator, more_items))
        out.seek(BAT_AT)
        out.write(struct.pack(f"<{len(bat)}Q", *bat))
        if full_blocks:
            out.truncate(end)
    return path


def log_entry(number, guid, tail, writes, file_size):
    """2.3.1. `writes`: (offset, 4096 bytes), or (offset, how many zeros)."""
    descriptors, sectors = b"", b""
    for offset, what in writes:
        if isinstance(what, int):
            descriptors += struct.pack("<4sIQQQ", b"zero", 0, what, offset, number)
            continue
        descriptors += struct.pack("<4s4s8sQQ", b"desc", what[-4:], what[:8], offset, number)
        sectors += struct.pack("<4sI", b"data", number >> 32) + what[8:-4]
        sectors += struct.pack("<I", number & 0xFFFFFFFF)
    head_bytes = -(-(64 + len(descriptors)) // SECTOR) * SECTOR
    head = struct.pack("<4sIIIQII16sQQ", b"loge", 0, head_bytes + len(sectors), tail, number,
                       len(writes), 0, guid.bytes_le, file_size, file_size)
    return sealed((head + descriptors).ljust(head_bytes, b"\0") + sectors)


def set_log_guid(path, guid, name):
    """A new current header (2.2.2.1); the other one stays as it is."""
    with open(path, "r+b") as file:
        file.seek(HEADERS_AT[0])
        file.write(header(9, name, guid))


def make_dirty(path, name, offsets, start=0, per_entry=2, lost_bytes=0):
    """As if the power had failed while the sectors at `offsets` were written: what is right is only
    in the log, whose entries begin at `start`; at its place is what was there before. Around them
    are entries that do not count. `lost_bytes`: of zeros at the file's end, which did not get there."""
    guid = data_write_guid("log of " + name)
    size = os.path.getsize(path)
    entries = []
    with open(path, "r+b") as file:
        def sector_at(offset):
            file.seek(offset)
            return file.read(SECTOR).ljust(SECTOR, b"\0")

        writes = []
        for offset in offsets:
            right = sector_at(offset)
            writes.append((offset, SECTOR if right.count(0) == SECTOR else right))
            file.seek(offset)
            file.write(b"\xee" * SECTOR)
        # The first write of each is wrong, a later entry of the sequence makes it right.
        parts = [[(offsets[0], b"\xdd" * SECTOR)]]
        parts += [writes[i:i + per_entry] for i in range(0, len(writes), per_entry)]
        at, first = start, None
        for number, part in enumerate(parts, 100):
            first = at if first is None else first
            entry = log_entry(number, guid, first, part, size)
            entries.append((at, entry))
            at = (at + len(entry)) % LOG_BYTES
        # Of another session; older; and a newer one that was not written to its end.
        other = log_entry(500, data_write_guid("another"), at, [(offsets[0], b"\xaa" * SECTOR)], size)
        entries.append((at, other))
        at = (at + len(other)) % LOG_BYTES
        older = log_entry(7, guid, at, [(offsets[0], b"\xbb" * SECTOR)], size)
        entries.append((at, older))
        at = (at + len(older)) % LOG_BYTES
        torn = log_entry(900, guid, at, [(offsets[0], b"\xcc" * SECTOR)], size)
        entries.append((at, torn[:-SECTOR] + bytes(SECTOR)))
        for at, entry in entries:
            before_end = min(len(entry), LOG_BYTES - at)
            file.seek(LOG_AT + at)
            file.write(entry[:before_end])
            file.seek(LOG_AT)
            file.write(entry[before_end:])
        file.truncate(size - lost_bytes)
    set_log_guid(path, guid, name)
