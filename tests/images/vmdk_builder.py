"""Builds what VMware's and others' programs write and qemu-img does not: descriptors, hosted sparse
and stream-optimized extents. VMware "Virtual Disk Format 5.0"."""
import struct
import zlib

from common import SECTOR, padded

GTES = 512  # entries in a grain table


def descriptor(create_type, lines, cid="fffffffe", parent_cid="ffffffff", hint=None, newline="\n",
               encoding=None):
    """encoding: (the name of it in the descriptor, Python's codec)."""
    head = ["# Disk DescriptorFile", "version=1", f"CID={cid}", f"parentCID={parent_cid}",
            f'createType="{create_type}"']
    if encoding is not None:
        head.insert(2, f'encoding="{encoding[0]}"')
    if hint is not None:
        head.append(f'parentFileNameHint="{hint}"')
    tail = ["", "# The Disk Data Base", "#DDB", "", 'ddb.adapterType = "lsilogic"', ""]
    text = newline.join(head + ["", "# Extent description"] + lines + tail)
    return text.encode(encoding[1] if encoding else "utf-8")


def header(capacity, grain, desc_sectors, gd_sector, overhead, flags=1, version=1, algorithm=0,
           rgd_sector=0, unclean=0):
    fields = struct.pack("<4sIIQQQQIQQQB4sH", b"KDMV", version, flags, capacity, grain,
                         1 if desc_sectors else 0, desc_sectors, GTES, rgd_sector, gd_sector,
                         overhead, unclean, b"\n \r\n", algorithm)
    return padded(fields)


def grains_of(data, grain):
    size = grain * SECTOR
    return [data[start:start + size] for start in range(0, len(data), size)]


def is_zero(data):
    return data.count(0) == len(data)


def sparse_file(data, grain=128, text=b"", zeroed=(), present=None, capacity=None, redundant=False,
                version=None):
    """An extent with plain grains. zeroed: grains with entry 1. present: the grains that are in this
    extent, by default all that are not zeros. Grains are stored last to first. redundant: with a
    second directory and tables, in front of the first."""
    capacity = capacity or len(data) // SECTOR
    parts = grains_of(data, grain)
    if present is None:
        present = {i for i, part in enumerate(parts) if not is_zero(part)}
    text = padded(text)
    tables = -(-capacity // (grain * GTES))
    directory_sectors = -(-tables * 4 // SECTOR) + tables * 4  # with its tables
    rgd_sector = 1 + len(text) // SECTOR
    gd_sector = rgd_sector + (directory_sectors if redundant else 0)
    overhead = -(-(gd_sector + directory_sectors) // grain) * grain

    entries = [0] * (tables * GTES)
    body = bytearray()
    for i in sorted(present, reverse=True):
        entries[i] = overhead + len(body) // SECTOR
        body += padded(parts[i], grain * SECTOR)
    for i in zeroed:
        entries[i] = 1

    def directory(sector):
        first_gt = sector + directory_sectors - tables * 4
        used = [any(entries[table * GTES:(table + 1) * GTES]) for table in range(tables)]
        places = [first_gt + table * 4 if used[table] else 0 for table in range(tables)]
        return (padded(struct.pack(f"<{tables}I", *places)) +
                struct.pack(f"<{len(entries)}I", *entries))

    flags = 1 | (2 if redundant else 0) | (4 if zeroed else 0)
    front = header(capacity, grain, len(text) // SECTOR, gd_sector, overhead, flags,
                   version or (2 if zeroed else 1), 0, rgd_sector if redundant else 0) + text
    if redundant:
        front += directory(rgd_sector)
    front += directory(gd_sector)
    return padded(front, overhead * SECTOR) + bytes(body)


def stream_file(data, text, grain=128, footer=True, order=None, level=6):
    """A stream-optimized extent: compressed grains, then tables and directory, then the footer."""
    capacity = len(data) // SECTOR
    parts = grains_of(data, grain)
    entries = [0] * (-(-len(parts) // GTES) * GTES)
    order = order or range(len(parts))
    overhead = 128
    body = bytearray()

    def here():
        return overhead + len(body) // SECTOR

    for i in order:
        if is_zero(parts[i]):
            continue
        packed = zlib.compress(padded(parts[i], grain * SECTOR), level)
        entries[i] = here()
        body.extend(padded(struct.pack("<QI", i * grain, len(packed)) + packed))
    directory = []
    for first in range(0, len(entries), GTES):
        table = entries[first:first + GTES]
        if any(table):
            body.extend(padded(struct.pack("<QII", 4, 0, 1)))
            directory.append(here())
            body.extend(struct.pack(f"<{GTES}I", *table))
        else:
            directory.append(0)
    packed_directory = padded(struct.pack(f"<{len(directory)}I", *directory))
    body.extend(padded(struct.pack("<QII", len(packed_directory) // SECTOR, 0, 2)))
    gd_sector = here()
    body.extend(packed_directory)

    text = padded(text)

    def head(gd):
        return header(capacity, grain, len(text) // SECTOR, gd, overhead, 0x30001, 3, 1)

    if footer:
        body.extend(padded(struct.pack("<QII", 1, 0, 3)) + head(gd_sector) + bytes(SECTOR))
    first = head((1 << 64) - 1 if footer else gd_sector)
    return padded(first + text, overhead * SECTOR) + bytes(body)
