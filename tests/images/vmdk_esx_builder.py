"""Builds the sparse extents of ESX snapshots, which qemu-img reads but does not write. COWD: VMware
"Virtual Disk Format 5.0", section "ESX Server Sparse Extents". seSparse: the structures of QEMU's
block/vmdk.c, since VMware has not published it."""
import struct

from common import SECTOR, padded
from vmdk_builder import grains_of, is_zero

GTES = 4096  # entries in a grain table, of both kinds


def tables_of(parts, present):
    """Numbers of the tables that have a grain."""
    return sorted({i // GTES for i in present}), -(-len(parts) // GTES)


def default_present(parts, present):
    return {i for i, part in enumerate(parts) if not is_zero(part)} if present is None else present


def cowd_file(data, grain=1, present=None, unclean=0):
    """present: the grains that are in this extent, by default all that are not zeros. Each table
    stands in front of its grains."""
    parts = grains_of(data, grain)
    present = default_present(parts, present)
    used, tables = tables_of(parts, present)
    directory = [0] * tables
    first = 4 + -(-tables * 4 // SECTOR)
    body = bytearray()
    for table in used:
        entries = [0] * GTES
        directory[table] = first + len(body) // SECTOR
        grains = bytearray()
        start = directory[table] + GTES * 4 // SECTOR
        for i in sorted(i for i in present if i // GTES == table):
            entries[i % GTES] = start + len(grains) // SECTOR
            grains += padded(parts[i], grain * SECTOR)
        body += struct.pack(f"<{GTES}I", *entries) + grains
    free = first + len(body) // SECTOR
    head = padded(struct.pack("<4s7I", b"COWD", 1, 3, len(data) // SECTOR, grain, 4, tables, free), 1648)
    head = padded(head + struct.pack("<I", unclean), 2048)
    return head + padded(struct.pack(f"<{tables}I", *directory)) + bytes(body)


def se_sparse_file(data, present=None, zeroed=(), unmapped=(), first=0, replay=0):
    """zeroed, unmapped: grains with those states. first: the number of the first stored grain; from
    4096 on, the entries' lower bits are used. Grains are stored last to first."""
    parts = grains_of(data, 8)
    present = default_present(parts, present) - set(zeroed) - set(unmapped)
    used, tables = tables_of(parts, present | set(zeroed) | set(unmapped))
    entries = [0] * (tables * GTES)
    body = bytearray()
    for number, i in enumerate(sorted(present, reverse=True), first):
        entries[i] = 3 << 60 | (number & 0xfff) << 48 | number >> 12
        body += padded(parts[i], 8 * SECTOR)
    for i in zeroed:
        entries[i] = 2 << 60
    for i in unmapped:
        entries[i] = 1 << 60 | i
    directory = [0] * tables
    for position, table in enumerate(used):
        directory[table] = 0x10000000 << 32 | position
    # volatile header, journal header, journal, directory, tables, free bitmap, backmap, grains
    sizes = [1, 2, 16, -(-tables * 8 // SECTOR), 64 * tables, 8, 8, (first + len(parts)) * 8]
    regions, offset = [], 1
    for size in sizes:
        regions += [offset, size]
        offset += size
    head = struct.pack("<10Q", 0xcafebabe, 0x200000001, len(data) // SECTOR, 8, 64, 0, 0, 0, 0, 0)
    front = padded(head + struct.pack("<16Q", *regions))
    front += padded(struct.pack("<4Q", 0xcafecafe, len(used), 1, replay)) + bytes(18 * SECTOR)
    front += padded(struct.pack(f"<{tables}Q", *directory))
    for table in used:
        front += struct.pack(f"<{GTES}Q", *entries[table * GTES:(table + 1) * GTES])
    front = front.ljust(regions[14] * SECTOR, b"\0")
    return front + bytes(first * 8 * SECTOR) + bytes(body)
