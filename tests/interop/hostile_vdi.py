"""Hostile VDIs: VirtualBox's VDICore.h, as tests/images/vdi_builder.py has it."""
import os

import vdi_builder
from common import content
from hostile_image_lab import Field, Image, ignored, other

BLOCK = 64 << 10
MAP_AT = 512
PLACES = other("it tells where the blocks lie, in a file where some lie there", peer=False)
NO_CONTENT = "it tells nothing about the contents"


def header_fields():
    return [
        Field("signature", 64), Field("version", 68), Field("header_size", 72),
        Field("image_type", 76), Field("flags", 80),
        Field("offset_bmap", 340), Field("offset_data", 344, rule=PLACES),
        Field("cylinders", 348, rule=ignored(NO_CONTENT)), Field("heads", 352, rule=ignored(NO_CONTENT)),
        Field("sectors", 356, rule=ignored(NO_CONTENT)), Field("sector_size", 360),
        Field("disk_size", 368, 8, rule=other("it is the size", peer=False)),
        Field("block_size", 376, rule=PLACES), Field("block_extra", 380, rule=PLACES),
        Field("blocks", 384),
        Field("allocated", 388),
    ]


def map_entries(image, blocks):
    """Each entry wrong, and the same as another's."""
    stored = [image.number(MAP_AT + 4 * i) for i in range(blocks)]
    for number in range(blocks):
        at = MAP_AT + 4 * number
        for value in dict.fromkeys((0x7FFFFFFF, 0x80000000, 0xFFFFFFFD, len(stored), *stored)):
            if value != stored[number] and value < 0xFFFFFFFE:
                image.change(f"map[{number}]={value:#x}", (at, value.to_bytes(4, "little")))


def images(folder):
    data = content(7 * BLOCK + 1536, 5)
    data = data[:BLOCK] + bytes(BLOCK) + data[2 * BLOCK:]
    kinds = {"dynamic": {}, "static": {"image_type": vdi_builder.STATIC},
             "discarded": {"discard_zeros": True, "block_extra": 512, "shuffled": 3},
             "old-header": {"header_size": 384}}
    for kind, options in kinds.items():
        path = os.path.join(folder, kind + ".vdi")
        built = vdi_builder.build(data, kind, block_size=BLOCK, **options)
        image = Image("vdi-" + kind, path, built, data, "vdi")
        image.fields(*header_fields())
        map_entries(image, 8)
        image.cuts()
        yield image
    parent = content(7 * BLOCK + 1536, 6)
    write_parent = os.path.join(folder, "parent.vdi")
    Image("vdi-parent", write_parent, vdi_builder.build(parent, "parent", block_size=BLOCK), parent,
          "vdi")
    built = vdi_builder.build(data, "child", vdi_builder.DIFFERENCING, parent, "parent",
                              block_size=BLOCK)
    child = Image("vdi-child", os.path.join(folder, "child.vdi"), built, data, "vdi",
                  parents=["child.vdi=" + write_parent], commands=())
    child.fields(*header_fields())
    for name, at in (("uuid_link", 424), ("uuid_parent", 440)):
        for value in (bytes(16), b"\xff" * 16, vdi_builder.uuid("child")):
            child.change(f"{name}={value[:2].hex()}", (at, value))
    map_entries(child, 8)
    yield child
