#!/usr/bin/python3
"""Raw images: with holes, of odd length, tiny."""
from common import Feature, Manifest, content, write_raw

FEATURES = (
    Feature("file", "files and block devices; holes of the file system are known as zeros"),
    Feature("odd-length", "lengths that are no multiple of 512 bytes: the last sector is filled up "
            "with zeros, and a warning says so"),
)

manifest = Manifest("raw", FEATURES)
holes = write_raw(manifest.path("holes.raw"), content(3 << 20, 1) + bytes(5 << 20))
manifest.add("raw-holes", holes, holes, ["-f", "raw"], ["qemu"], feature="file")

# The last sector of an odd length is filled up with zeros.
odd = content(1000003, 2)
write_raw(manifest.path("odd.raw"), odd)
padded = write_raw(manifest.path("odd-padded.raw"), odd + bytes(-len(odd) % 512))
manifest.add("raw-odd-length", manifest.path("odd.raw"), padded, ["-f", "raw"], ["qemu"],
             feature="odd-length")
