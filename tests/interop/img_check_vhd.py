"""Damaged VHDs for img_check_test.py: one field of an image that qemu-img made is another, or the file
is cut. qemu-img checks none of them: its status is 63, and it has no counts."""
import os
import sys

from image_damage import CLEAN, CORRUPT, FAILED, LEAKS, Case, Image, damaged as damage_of, make

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "images"))
from vhd_builder import sealed  # noqa: E402

MIB = 1 << 20
SECTOR = 512
FREE = 0xFFFFFFFF
HEADER_AT, TABLE_AT = 512, 1536
BLOCK_SECTORS = 2 * MIB // SECTOR + 1  # with the sector bitmap
NOT_CHECKED = "qemu-img has no check for vpc"

IGNORED = {}
# Read by the other footer, as the specification wants ("Dynamic Disk Image Overview": the copy is
# there because the footer at the end may be lost), yet damaged: a next loss is the image's. The one at
# the end is lost when the file was cut; a copy at 0 is lost when something wrote where it must not,
# and what else that wrote to nobody knows. tapdisk's own mark of an image in use is a notice.
FOUND = {"vhd-damaged-trailing-footer": {"footer-damaged"},
         "vhd-missing-trailing-footer": {"footer-missing"},
         "vhd-damaged-footer-copy": {"footer-copy-damaged"},
         "vhd-missing-footer-copy": {"footer-copy-missing"}}


class Vhd(Image):
    """A disk of 5 blocks of 2 MiB; 0, 3 and 1 are stored, in that order."""

    @property
    def footer(self):
        return len(self.data) - SECTOR

    def entry(self, block):
        return self.get(TABLE_AT + 4 * block, ">I")

    def set_entry(self, block, sector):
        self.put(TABLE_AT + 4 * block, sector, ">I")

    def seal(self, at, length, checksum_at):
        self.data[at:at + length] = sealed(bytes(self.data[at:at + length]), checksum_at)

    def set_in_footer(self, footer, at, value, code):
        self.put(footer + at, value, code)
        self.seal(footer, SECTOR, 64)

    def set_in_footers(self, at, value, code):
        for footer in (0, self.footer):
            self.set_in_footer(footer, at, value, code)

    def set_in_header(self, at, value, code):
        self.put(HEADER_AT + at, value, code)
        self.seal(HEADER_AT, 1024, 36)


def entry(block, sector):
    return lambda image: image.set_entry(block, sector)


def entry_by(block, other, more):
    """That of another block, and `more` sectors."""
    return lambda image: image.set_entry(block, image.entry(other) + more)


def footers(at, value, code):
    return lambda image: image.set_in_footers(at, value, code)


def header(at, value, code):
    return lambda image: image.set_in_header(at, value, code)


def without_footer(image):
    image.cut(SECTOR)


def without_copy(image):
    image.data[:SECTOR] = bytes(SECTOR)


def in_use(image):
    image.data[-SECTOR:] = b"\xc7" * SECTOR


def room_before_footer(image):
    footer = image.data[-SECTOR:]
    image.data[-SECTOR:] = b"\1" * (BLOCK_SECTORS * SECTOR)
    image.data += footer


def unmarked_sector(image):
    """Data in the first sector of block 0, which its sector bitmap does not show."""
    image.data[image.entry(0) * SECTOR] = 0x7f


CASES = [
    ("untouched", lambda image: None, "", CLEAN),
    ("block-in-copy", entry(2, 0), "block-in-metadata", CORRUPT),
    ("block-in-table", entry(2, TABLE_AT // SECTOR), "block-in-metadata", CORRUPT),
    ("block-in-footer", lambda image: image.set_entry(2, image.footer // SECTOR), "block-in-footer",
     CORRUPT),
    ("block-beyond-end", entry(2, 1 << 30), "block-beyond-end", CORRUPT),
    ("block-beyond-end-and-leak", entry(0, 1 << 30), "block-beyond-end leak", CORRUPT),
    ("block-twice", entry_by(2, 3, 0), "block-twice", CORRUPT),
    ("blocks-overlap", entry_by(2, 3, 1), "blocks-overlap", CORRUPT),
    ("leak", entry(3, FREE), "leak", LEAKS),
    ("leak-before-footer", room_before_footer, "leak", LEAKS),
    ("blocks-behind-disk", lambda image: (image.set_in_footers(48, 6 * MIB, ">Q"),
                                          image.set_in_footers(56, 176 << 16 | 4 << 8 | 17, ">I")),
     "blocks-behind-disk", CLEAN),
    ("sector-bits", unmarked_sector, "sector-bits-ignored", CLEAN),
    ("cut", lambda image: image.cut(2 * MIB), "footer-missing block-beyond-end", CORRUPT),
    ("footer", lambda image: image.flip(image.footer + 100), "footer-damaged", CORRUPT),
    ("footer-missing", without_footer, "footer-missing", CORRUPT),
    ("footer-in-use", in_use, "footer-overwritten", CLEAN),
    ("footer-copy", lambda image: image.flip(100), "footer-copy-damaged", CORRUPT),
    ("footer-copy-missing", without_copy, "footer-copy-missing", CORRUPT),
    ("both-footers", lambda image: (image.flip(100), image.flip(image.footer + 100)),
     "footers-damaged", CORRUPT),
    ("footers-differ", lambda image: image.set_in_footer(0, 48, 5 * MIB, ">Q"),
     "footers-differ footers-not-identical", CORRUPT),
    ("footers-not-identical", lambda image: image.set_in_footer(0, 84, 1, ">B"),
     "footers-not-identical", CLEAN),
    ("footers-contradict", lambda image: image.set_in_footer(0, 60, 4, ">I"), "footers-contradict",
     CORRUPT),
    ("resizing", lambda image: image.put(0, int.from_bytes(b"v_poison", "big"), ">Q"), "resizing",
     CORRUPT),
    ("before-the-end", lambda image: image.append(MIB), "footer-before-end", CLEAN),
    ("type", footers(60, 5, ">I"), "type-unsupported", FAILED),
    ("header-misplaced", footers(16, 1 << 40, ">Q"), "header-misplaced", CORRUPT),
    ("header-checksum", lambda image: image.flip(HEADER_AT + 900), "header-checksum-wrong", CORRUPT),
    ("table-in-headers", header(16, 512, ">Q"), "table-in-headers", CORRUPT),
    ("table-beyond-end", header(16, 1 << 40, ">Q"), "table-beyond-end", CORRUPT),
    ("table-too-small", header(28, 1, ">I"), "size-beyond-capacity", CORRUPT),
]


def damaged(folder):
    good = make(folder, "vpc", 10 * MIB, [(0, MIB), (6 * MIB, 4096), (2 * MIB, 4096)])
    yield from damage_of(good, Vhd, "vpc", [Case(*case, NOT_CHECKED) for case in CASES])
