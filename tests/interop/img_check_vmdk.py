"""Damaged vmdk images for img_check_test.py: one word of an image that qemu-img made is another, or
the file is cut."""
import os
import struct

from image_damage import CLEAN, CORRUPT, LEAKS, TOTALS, Damage, run

MIB = 1 << 20
SECTOR = 512

# Why qemu-img says something else.
LOOKS_NOT = "qemu looks for grains beyond the end of the file alone"
GIVES_UP = "qemu ends with status 1 and no counts at the first grain beyond the end"
IGNORED = {}
UNCOUNTED = TOTALS
# Images that are read, by their redundant directory, although their first one is damaged.
FOUND = {"redundant-beyond-end": {"table-beyond-end"},
         "redundant-in-header": {"table-in-metadata"},
         "redundant-lost-table": {"redundant-directory"},
         "redundant-damaged-table": {"grain-beyond-end", "redundant-table"}}


class Image:
    """The bytes of an image, and where its first table lies."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = bytearray(file.read())
        self.directory = self.u64(56) * SECTOR
        self.redundant = self.u64(48) * SECTOR
        self.table = self.u32(self.directory) * SECTOR
        self.redundant_table = self.u32(self.redundant) * SECTOR

    def u32(self, at):
        return struct.unpack_from("<I", self.data, at)[0]

    def u64(self, at):
        return struct.unpack_from("<Q", self.data, at)[0]

    def put(self, at, value, code="<I"):
        struct.pack_into(code, self.data, at, value)

    def put_grain(self, index, sector):
        """In both tables."""
        self.put(self.table + 4 * index, sector)
        self.put(self.redundant_table + 4 * index, sector)

    def grain(self, index):
        return self.u32(self.table + 4 * index)


def sparse(folder):
    """Grains 0 to 15, and 32."""
    path = os.path.join(folder, "good.vmdk")
    run("qemu-img", "create", "-q", "-f", "vmdk", path, 4 * MIB)
    run("qemu-io", "-f", "vmdk", "-c", "write -P 1 0 1M", "-c", "write -P 2 2M 64k", path)
    return path


def stream(folder):
    raw = os.path.join(folder, "stream.raw")
    with open(raw, "wb") as file:
        file.write(bytes(range(256)) * (MIB // 256) + bytes(MIB))
    path = os.path.join(folder, "good-stream.vmdk")
    run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, path)
    os.unlink(raw)
    return path


SPARSE = {
    "untouched": (lambda i: None, (), CLEAN, ""),
    "grain-beyond-end": (lambda i: i.put_grain(20, 1 << 30), ("grain-beyond-end",), CORRUPT, GIVES_UP),
    "two-beyond-end": (lambda i: (i.put_grain(20, 1 << 30), i.put_grain(21, 1 << 30)),
                       ("grain-beyond-end",), CORRUPT, GIVES_UP),
    "cut": (lambda i: i.data.__delitem__(slice(-SECTOR, None)), ("grain-beyond-end",), CORRUPT,
            LOOKS_NOT),
    "grain-twice": (lambda i: i.put_grain(20, i.grain(0)), ("grain-twice",), CORRUPT, LOOKS_NOT),
    "grain-overlap": (lambda i: i.put_grain(20, i.grain(0) + 1), ("grain-overlap",), CORRUPT,
                      LOOKS_NOT),
    "grain-in-metadata": (lambda i: i.put_grain(20, 2), ("grain-in-metadata",), CORRUPT, LOOKS_NOT),
    "redundant-table": (lambda i: i.put(i.redundant_table, 0), ("redundant-table",), CORRUPT,
                        LOOKS_NOT),
    "leak": (lambda i: i.put_grain(0, 0), ("leak",), LEAKS, LOOKS_NOT),
    "unclean": (lambda i: i.put(72, 1, "<B"), ("unclean-shutdown",), CLEAN, ""),
}

STREAM = {
    "stream-untouched": (lambda i: None, (), CLEAN, ""),
    "stream-data": (lambda i: i.put(i.grain(3) * SECTOR + 40, 0xdeadbeef), ("grain-data",), CORRUPT,
                    LOOKS_NOT),
    "stream-marker": (lambda i: i.put(i.grain(3) * SECTOR, 128), ("grain-marker",), CORRUPT, LOOKS_NOT),
    "stream-leak": (lambda i: i.put_grain(0, 0), ("leak",), LEAKS, LOOKS_NOT),
}


def damaged(folder):
    for make, cases in ((sparse, SPARSE), (stream, STREAM)):
        good = make(folder)
        for name, (change, codes, status, differs) in cases.items():
            image = Image(good)
            change(image)
            path = os.path.join(folder, name + ".vmdk")
            with open(path, "wb") as file:
                file.write(image.data)
            yield Damage(name, path, frozenset(codes), status, differs, ("-f", "vmdk"))
        os.unlink(good)
