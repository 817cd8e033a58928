"""Builds VDIs that qemu-img cannot make: differencing ones, discarded blocks, other block sizes,
extra bytes before each block, odd sizes, blocks in another order. The layout is that of VirtualBox's
VDICore.h (VDIPREHEADER, VDIHEADER1, VDIHEADER1PLUS), as formats/vdi/vdi_layout.h draws it."""
import hashlib
import random
import struct

MIB = 1 << 20
SECTOR = 512
FREE, DISCARDED = 0xFFFFFFFF, 0xFFFFFFFE
DYNAMIC, STATIC, UNDO, DIFFERENCING = 1, 2, 3, 4


def uuid(name):
    return hashlib.md5(name.encode()).digest()


def up(value, unit=SECTOR):
    return -(-value // unit) * unit


def header(**fields):
    """The first 512 bytes: pre-header, header, zeros. With header_size 400 it is VDIHEADER1PLUS."""
    plus = fields["header_size"] == 400
    return struct.pack(
        "<64s I I I I I 256s I I 3I I I Q I I I I 16s 16s 16s 16s 4I 40x",
        b"<<< Oracle VM VirtualBox Disk Image >>>\n", 0xBEDA107F, fields["version"],
        fields["header_size"], fields["image_type"], fields["flags"], b"", fields["offset_bmap"],
        fields["offset_data"], 0, 0, 0, SECTOR, 0, fields["disk_size"], fields["block_size"],
        fields["block_extra"], fields["blocks"], fields["allocated"], fields["uuid"],
        fields["revision"], fields["link"], fields["parent"], 0, 0, 0, SECTOR if plus else 0)


def build(data, name, image_type=DYNAMIC, parent=None, parent_name=None, block_size=MIB,
          block_extra=0, shuffled=None, discard_zeros=False, spare_blocks=0, header_size=400,
          table_at=SECTOR, flags=0, version=0x00010001, cut_last_block=False):
    """A VDI that shows `data`. Differencing: over the contents `parent` of the image that was built
    as `parent_name`. discard_zeros: zero blocks are discarded ones, else never written (but in a
    differencing image and a static one they are stored). shuffled: a seed for the order in which
    blocks are stored. cut_last_block: the file ends with the disk's last byte."""
    differencing = image_type == DIFFERENCING
    blocks = up(len(data), block_size) // block_size
    entries = []
    stored = []
    for number in range(blocks):
        block = data[number * block_size:(number + 1) * block_size]
        below = parent[number * block_size:(number + 1) * block_size] if differencing else b""
        if differencing and block == below.ljust(len(block), b"\0"):
            entries.append(FREE)
        elif discard_zeros and block.count(0) == len(block):
            entries.append(DISCARDED)
        elif image_type == DYNAMIC and block.count(0) == len(block):
            entries.append(FREE)
        else:
            entries.append(len(stored))
            stored.append(block if cut_last_block and number == blocks - 1
                          else block.ljust(block_size, b"\xee"))
    if shuffled is not None:
        places = list(range(len(stored)))
        random.Random(shuffled).shuffle(places)
        entries = [entry if entry >= DISCARDED else places[entry] for entry in entries]
        stored = [block for _, block in sorted(zip(places, stored))]
    table = struct.pack(f"<{blocks}I", *entries) + b"\xff" * 4 * spare_blocks
    data_at = up(table_at + len(table))
    head = header(version=version, header_size=header_size, image_type=image_type, flags=flags,
                  offset_bmap=table_at, offset_data=data_at, disk_size=len(data),
                  block_size=block_size, block_extra=block_extra, blocks=blocks + spare_blocks,
                  allocated=len(stored), uuid=uuid(name), revision=uuid(name + " at first"),
                  link=uuid(parent_name) if differencing else bytes(16),
                  parent=uuid(parent_name + " at first") if differencing else bytes(16))
    image = (head.ljust(table_at, b"\0") + table).ljust(data_at, b"\0")
    return image + b"".join(b"\xdd" * block_extra + block for block in stored)
