"""Damaged VHDXs for img_check_test.py: one field of an image that qemu-img made is another, or the
file is cut."""
import os
import sys

from image_damage import CLEAN, CORRUPT, FAILED, TOTALS, Case, Image, damaged as damage_of, make

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "images"))
from vhdx_builder import sealed  # noqa: E402

MIB = 1 << 20
KIB = 1 << 10
# qemu-img 7.2's places.
HEADERS_AT, TABLES_AT = (64 * KIB, 128 * KIB), (192 * KIB, 256 * KIB)
HEADER_BYTES, TABLE_BYTES = 4 * KIB, 64 * KIB
LOG_AT, BAT_AT, METADATA_AT, BLOCKS_AT = MIB, 2 * MIB, 3 * MIB, 8 * MIB
FULLY, PARTIALLY = 6, 7

# Why qemu-img says something else.
LOOKS_NOT = "it looks neither at states nor for blocks in one place"
LOOKS_AT_ONE = "it looks for a whole copy, and never at the other one"
FIRST_TABLE = "it looks at the first region table alone, and does not open the image"
NOT_OPENED = "it does not open the image"

IGNORED = {}
UNCOUNTED = TOTALS
# Read by the copy ([MS-VHDX] 2.2.2, 2.2.3), yet damaged: every writer leaves two whole copies behind
# or, of the headers, has its next update make a torn one whole. Who keeps the image has one copy left
# to lose, and should know that something wrote where it must not.
FOUND = {"vhdx-damaged-header-1": {"header-damaged"},
         "vhdx-damaged-header-2": {"header-damaged"},
         "vhdx-damaged-region-table-1": {"region-table-damaged"},
         "vhdx-damaged-region-table-2": {"region-table-damaged"}}


class Vhdx(Image):
    """A disk of 8 blocks of 1 MiB; 0 and 3 are stored."""

    def entry(self, number):
        return self.get(BAT_AT + 8 * number, "<Q")

    def set_entry(self, number, entry):
        self.put(BAT_AT + 8 * number, entry, "<Q")

    def seal(self, at, length):
        self.data[at:at + length] = sealed(bytes(self.data[at:at + length]))

    def set_in_headers(self, at, value, code):
        for header in HEADERS_AT:
            self.put(header + at, value, code)
            self.seal(header, HEADER_BYTES)

    def set_in_tables(self, at, value, code, tables=TABLES_AT):
        for table in tables:
            self.put(table + at, value, code)
            self.seal(table, TABLE_BYTES)

    def item(self, number):
        """Where an item of the metadata lies, in the order of the table."""
        return METADATA_AT + self.get(METADATA_AT + 32 + 32 * number + 16, "<I")

    def item_number(self, guid_begins):
        """Of the item whose GUID begins so."""
        count = self.get(METADATA_AT + 10, "<H")
        return next(number for number in range(count)
                    if self.get(METADATA_AT + 32 + 32 * number, "<I") == guid_begins)


FILE_PARAMETERS, DISK_SIZE, SECTOR_SIZE = 0xCAA16737, 0x2FA54224, 0x8141BF1D


def entry(number, value):
    return lambda image: image.set_entry(number, value)


def same_as_first(image):
    image.set_entry(3, image.entry(0))


def reserved_bits(image):
    image.set_entry(0, image.entry(0) | 8)


def flips(*places):
    def change(image):
        for at in places:
            image.flip(at)
    return change


def item(which, value, code, at=0):
    return lambda image: image.put(image.item(image.item_number(which)) + at, value, code)


def headers(at, value, code):
    return lambda image: image.set_in_headers(at, value, code)


def tables(at, value, code, which=TABLES_AT):
    return lambda image: image.set_in_tables(at, value, code, which)


CASES = [
    Case("untouched", lambda image: None, "", CLEAN),
    Case("block-beyond-end", entry(0, 1 << 40 | FULLY), "block-beyond-end", CORRUPT),
    Case("new-block-beyond-end", entry(5, 1 << 40 | FULLY), "block-beyond-end", CORRUPT),
    Case("cut", lambda image: image.cut(4096), "block-beyond-end", CORRUPT),
    Case("block-in-headers", entry(5, FULLY), "block-in-headers", CORRUPT,
         "the headers are no region for it"),
    Case("block-in-log", entry(5, LOG_AT | FULLY), "block-in-structure", CORRUPT),
    Case("block-in-bat", entry(5, BAT_AT | FULLY), "block-in-structure", CORRUPT),
    Case("block-twice", same_as_first, "block-twice", CORRUPT, LOOKS_NOT),
    Case("block-state", entry(5, 4), "block-state-wrong", CORRUPT, LOOKS_NOT),
    Case("block-partial", entry(5, BLOCKS_AT | PARTIALLY), "block-state-wrong", CORRUPT, LOOKS_NOT),
    Case("block-reserved-bits", reserved_bits, "block-reserved-bits", CORRUPT, LOOKS_NOT),
    Case("block-unmapped", entry(5, 3), "", CLEAN),
    Case("free-space", lambda image: image.append(MIB), "free-space", CLEAN),
    Case("header", flips(HEADERS_AT[0] + 99), "header-damaged", CORRUPT, LOOKS_AT_ONE),
    Case("other-header", flips(HEADERS_AT[1] + 99), "header-damaged", CORRUPT, LOOKS_AT_ONE),
    Case("headers", flips(*(at + 99 for at in HEADERS_AT)), "headers-damaged", CORRUPT, NOT_OPENED),
    Case("version", headers(66, 2, "<H"), "version-unsupported", FAILED, NOT_OPENED),
    Case("log-misplaced", headers(72, 4096, "<Q"), "log-misplaced", CORRUPT, NOT_OPENED),
    Case("log-lost", headers(48, 1, "<B"), "log-unreplayable", CORRUPT,
         "a log without a whole sequence is none for it"),
    Case("region-table", flips(TABLES_AT[0] + 99), "region-table-damaged", CORRUPT, FIRST_TABLE),
    Case("other-region-table", flips(TABLES_AT[1] + 99), "region-table-damaged", CORRUPT,
         "it looks at the first region table alone"),
    Case("region-tables", flips(*(at + 99 for at in TABLES_AT)), "region-tables-damaged", CORRUPT,
         NOT_OPENED),
    Case("region-tables-differ", tables(32, 5 * MIB, "<Q", TABLES_AT[1:]), "region-tables-differ",
         CORRUPT, "it looks at the first region table alone"),
    Case("region-count", tables(8, 2048, "<I"), "region-count-wrong", CORRUPT, NOT_OPENED),
    Case("region-missing", tables(8, 1, "<I"), "region-missing", CORRUPT, NOT_OPENED),
    Case("regions-overlap", tables(32, LOG_AT, "<Q"), "regions-overlap", CORRUPT, NOT_OPENED),
    Case("region-beyond-end", tables(32, 1 << 40, "<Q"), "structure-beyond-end", CORRUPT,
         "it reads zeros behind the end of the file, so that no block is stored"),
    Case("metadata-signature", flips(METADATA_AT), "metadata-signature-wrong", CORRUPT, NOT_OPENED),
    Case("item-count", lambda image: image.put(METADATA_AT + 10, 2048, "<H"), "item-count-wrong",
         CORRUPT, NOT_OPENED),
    Case("item-missing", lambda image: image.put(METADATA_AT + 10, 0, "<H"), "item-missing", CORRUPT,
         NOT_OPENED),
    Case("block-size", item(FILE_PARAMETERS, 3 * MIB, "<I"), "block-size-wrong", CORRUPT, NOT_OPENED),
    Case("flags", item(FILE_PARAMETERS, 4, "<I", at=4), "flags-unknown", FAILED,
         "it does not look at the reserved flags"),
    Case("disk-size", item(DISK_SIZE, 513, "<Q"), "size-wrong", CORRUPT,
         "it takes the disk for one sector"),
    Case("sector-size", item(SECTOR_SIZE, 513, "<I"), "sector-size-wrong", CORRUPT, NOT_OPENED),
    Case("bat-too-small", item(DISK_SIZE, 1 << 40, "<Q"), "bat-too-small", CORRUPT, NOT_OPENED),
]


def damaged(folder):
    good = make(folder, "vhdx", 8 * MIB, [(0, MIB), (3 * MIB, 4096)], "-o", "block_size=1M")
    yield from damage_of(good, Vhdx, "vhdx", CASES)
