"""VHDs that must be refused."""
import struct

from common import changed, content, write
from vhd_builder import sealed, sparse

MIB = 1 << 20
TABLE = 512 + 1024  # where sparse() puts the BAT


def with_footers(image, at, data):
    """`image` with `data` in both footers, whose checksums are right."""
    footer = sealed(image[:at] + data + image[at + len(data):512], 64)
    return footer + image[512:-512] + footer


def with_entry(image, block, sector):
    at = TABLE + 4 * block
    return image[:at] + struct.pack(">I", sector) + image[at + 4:]


def refused_children(maker):
    base = content(2 * MIB, 40)
    data = changed(base, 41)
    write(maker.manifest.path("refused-base.vhd"), sparse(base, "refused-base"))

    def child(parent_name, path, **fields):
        return sparse(data, "refused", parent=base, parent_name=parent_name,
                      locators=[(b"W2ru", path)] if path else [], **fields)

    maker.refuse("missing-parent", "vhd-refused-missing-parent", child("gone", ".\\gone.vhd"),
                 "--parent vhd-refused-missing-parent.vhd=PATH")
    maker.refuse("missing-parent", "vhd-refused-unnamed-parent", child("gone", ""),
                 "--parent vhd-refused-unnamed-parent.vhd=PATH")
    maker.refuse("other-parent", "vhd-refused-other-parent", child("other", ".\\refused-base.vhd"),
                 "is another image")
    moved = "vhd-refused-moved-to-other"
    maker.refuse("other-parent", moved, child("other", ".\\gone.vhd"), "is another image",
                 ("-f", "vpc", "--parent",
                  f"{moved}.vhd={maker.manifest.path('refused-base.vhd')}"))
    maker.refuse("no-parent-id", "vhd-refused-no-parent-id", child(None, ".\\refused-base.vhd"),
                 "parent_unique_id is null")


def refused(maker):
    refused_children(maker)
    data = b"\x5a" * (5 * MIB)  # blocks 0, 1 and 2
    image = sparse(data, "refused")
    tap = {"creator": b"tap\0", "version": 0x00010003, "batmap": True}
    maker.refuse("encrypted", "vhd-refused-encrypted", sparse(data, "refused", keyhash=1, **tap),
                 "is encrypted")
    maker.refuse("resizing", "vhd-refused-resizing", with_footers(image, 0, b"v_poison"),
                 "vhd-util revert")
    for kind in (0, 1, 5, 6):
        maker.refuse("type", f"vhd-refused-type-{kind}",
                     with_footers(image, 60, struct.pack(">I", kind)), f"disk_type {kind} ")
    other = sparse(bytes(4096), "other")[-512:]
    for kind, damaged, words in (
            ("cut", image[:4 * MIB], "truncated"),
            ("overlap", with_entry(image, 0, struct.unpack_from(">I", image, TABLE + 8)[0] + 8),
             "the blocks overlap"),
            ("header", with_entry(image, 1, 1), "BAT entry 1 is sector 1"),
            ("table", with_entry(image, 2, TABLE // 512), "BAT entry 2 is sector 3"),
            ("footer", with_entry(image, 0, len(image) // 512 - 1), "its footer"),
            ("checksum", image[:700] + b"\xee" + image[701:], "the checksum"),
            ("two-images", image[:-512] + bytes(512) + other, "the trailing footer is of image")):
        maker.refuse("damaged", f"vhd-refused-{kind}", damaged, words)
