#!/usr/bin/env python3
"""Writes a VHDX image in the short form that fuzz/vhdx_input.cc reads.  shorten_vhdx.py IMAGE SEED

The checksums of headers and region tables, where they are right, are left out: the fuzz target puts
them in again."""
import pathlib
import re
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests/images"))
from vhdx_builder import crc32c

UNIT = 64 << 10
MAX_UNITS = 160
SEALED = [(64 << 10, 4096), (128 << 10, 4096), (192 << 10, UNIT), (256 << 10, UNIT)]


def shortened(image):
    """The seed, or None for an image that is too large."""
    units = (len(image) + UNIT - 1) // UNIT
    if units > MAX_UNITS:
        return None
    image = bytearray(image)
    for offset, length in SEALED:
        part = image[offset : offset + length]
        if len(part) == length and any(part):
            stored = struct.unpack_from("<I", part, 4)[0]
            struct.pack_into("<I", part, 4, 0)
            if crc32c(bytes(part)) == stored:
                image[offset : offset + length] = part
    seed = struct.pack("<H", units)
    # Runs of zeros that are worth another piece's head stay out.
    for piece in re.finditer(rb"[^\0](?:\0{0,8}[^\0]){0,4095}", bytes(image)):
        data = piece.group()
        for at in range(0, len(data), 65535):
            part = data[at : at + 65535]
            seed += struct.pack("<IH", piece.start() + at, len(part)) + part
    return seed


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as source:
        seed = shortened(source.read())
    if seed is None:
        sys.exit(f"{sys.argv[1]}: larger than {MAX_UNITS * UNIT} bytes")
    with open(sys.argv[2], "wb") as target:
        target.write(seed)
