"""Damaged VDIs for img_check_test.py: one field of an image that qemu-img made is another, or the file
is cut."""
from image_damage import CLEAN, CORRUPT, FAILED, LEAKS, TOTALS, Case, Image, damaged as damage_of, make

MIB = 1 << 20
# Fields of the header.
TYPE, FLAGS, MAP_AT, DATA_AT = 76, 80, 340, 344
DISK_SIZE, BLOCK_BYTES, BLOCKS, ALLOCATED, LINK = 368, 376, 384, 388, 424
FREE, DISCARDED = 0xFFFFFFFF, 0xFFFFFFFE

# Why qemu-img says something else.
MISMATCH = "a count that is no other than blocks_allocated is one corruption for it, and for us it " \
           "is as many leaks as there are blocks"
NOBODYS = "it does not look for stored blocks that no entry names, as long as their number is right"
NO_END = "it does not look where the file ends"
NOT_OPENED = "it does not open the image"

IGNORED = {}
UNCOUNTED = TOTALS


class Vdi(Image):
    """Of a disk of 8 blocks, 0, 3 and 5 are stored as 0, 1 and 2."""

    def set_field(self, at, value, code="<I"):
        self.put(at, value, code)

    def set_entry(self, block, entry):
        self.put(self.get(MAP_AT, "<I") + 4 * block, entry, "<I")


def entries(**changed):
    """Sets the entries b0, b1... of the block map."""
    def change(image):
        for name, entry in changed.items():
            image.set_entry(int(name[1:]), entry)
    return change


def field(at, value, code="<I"):
    return lambda image: image.set_field(at, value, code)


CASES = [
    Case("untouched", lambda image: None, "", CLEAN),
    Case("discarded", entries(b1=DISCARDED), "", CLEAN),
    Case("twice", entries(b1=0), "block-twice", CORRUPT,
         "it counts the entry, and the number of blocks, which is another now"),
    Case("twice-for-another", entries(b3=0), "block-twice leak", CORRUPT, NOBODYS),
    Case("leaked", entries(b3=FREE), "leak", LEAKS, MISMATCH),
    Case("two-leaked", entries(b0=FREE, b5=FREE), "leak", LEAKS, MISMATCH),
    Case("beyond-allocated", entries(b1=3), "block-beyond-allocated", CORRUPT),
    Case("beyond-blocks", entries(b3=8), "block-beyond-allocated leak", CORRUPT,
         "it counts the entry, and the number of blocks"),
    Case("cut", lambda image: image.cut(1), "block-beyond-end", CORRUPT, NO_END),
    Case("cut-to-one-block", lambda image: image.cut(2 * MIB), "block-beyond-end", CORRUPT, NO_END),
    Case("fewer-allocated", field(ALLOCATED, 2), "block-beyond-allocated space-behind-blocks",
         CORRUPT),
    Case("more-allocated", field(ALLOCATED, 4), "leak", LEAKS, MISMATCH),
    Case("more-allocated-than-blocks", field(ALLOCATED, 9), "allocated-beyond-blocks leak", CORRUPT,
         MISMATCH),
    Case("space-behind-blocks", lambda image: image.append(MIB), "space-behind-blocks", CLEAN),
    Case("blocks-behind-disk", field(DISK_SIZE, 5 * MIB, "<Q"), "blocks-behind-disk", CLEAN),
    Case("size-beyond-blocks", field(DISK_SIZE, 8 * MIB + 1, "<Q"), "size-beyond-blocks", CORRUPT,
         NOT_OPENED),
    Case("block-size", field(BLOCK_BYTES, 3 * MIB), "block-size-wrong", CORRUPT, NOT_OPENED),
    Case("map-beyond-end", field(MAP_AT, 1 << 30), "map-beyond-end", CORRUPT,
         "it reads zeros behind the end of the file, which are 8 times block 0"),
    Case("map-in-header", field(MAP_AT, 0), "map-in-header", CORRUPT,
         "it does not look whether structures overlap: it takes the header for entries"),
    Case("data-in-map", field(DATA_AT, 512), "data-in-map", CORRUPT,
         "it does not look whether structures overlap"),
    Case("link-unexpected", field(LINK, 1), "link-unexpected", CORRUPT, NOT_OPENED),
    Case("undo", field(TYPE, 3), "type-undo", FAILED, "it does not look at the type"),
    Case("flags", field(FLAGS, 0x200), "flags-unknown", FAILED, "it does not look at flags"),
]


def damaged(folder):
    good = make(folder, "vdi", 8 * MIB, [(0, MIB), (3 * MIB, 4096), (5 * MIB, 4096)])
    yield from damage_of(good, Vdi, "vdi", CASES)
