#!/usr/bin/python3
"""Raw images: with holes, of odd length, tiny."""
from common import Manifest, content, write_raw

FEATURES = ()

manifest = Manifest("raw", FEATURES)
holes = write_raw(manifest.path("holes.raw"), content(3 << 20, 1) + bytes(5 << 20))
manifest.add("raw-holes", holes, holes, ["-f", "raw"], ["qemu"])

# The last sector of an odd length is filled up with zeros.
odd = content(1000003, 2)
write_raw(manifest.path("odd.raw"), odd)
padded = write_raw(manifest.path("odd-padded.raw"), odd + bytes(-len(odd) % 512))
manifest.add("raw-odd-length", manifest.path("odd.raw"), padded, ["-f", "raw"], ["qemu"])
