"""VHDs as tapdisk and vhd-util (blktap of Xen) write them; its libvhd.c and vhd.h are what there is of
a specification."""
import random

from common import changed, content, write, write_raw
from vhd_builder import sealed, sparse

MIB = 1 << 20
TAPDISK = b"tap\0"
V01, V11, V12, V13 = 0x00000001, 0x00010001, 0x00010002, 0x00010003


def batmaps(maker):
    base = content(8 * MIB, 13)
    base_path = write(maker.manifest.path("tap-base.vhd"),
                      sparse(base, "tap-base", creator=TAPDISK, version=V11))
    data = bytearray(changed(base, 14))
    data[4096:4 * MIB - 4096] = random.Random(15).randbytes(4 * MIB - 8192)
    data = bytes(data)
    for kind, version, batmap, batmap_version in (
            ("batmap", V13, True, V12), ("no-batmap", V13, False, 0),
            ("1.2-batmap", V12, True, V11), ("1.1-batmap", V11, True, V11),
            ("1.1-no-batmap", V11, False, 0)):
        maker.child("tapdisk", "vhd-tapdisk-" + kind, data, base_path, base, "tap-base",
                    oracles=() if batmap else ("libvhdi",), batmap=batmap,
                    batmap_version=batmap_version, block_size=64 << 10, creator=TAPDISK,
                    version=version)
    maker.add("tapdisk", "vhd-tapdisk-batmap-dynamic",
              sparse(data, "tap", batmap=True, creator=TAPDISK, version=V13), data, ["qemu"])


def hidden_and_open(maker):
    data = content(2 * MIB, 6)
    for version, batmap in ((V01, False), (V11, False), (V13, True)):
        image = bytearray(sparse(data, "hidden", creator=TAPDISK, version=version, batmap=batmap))
        image[85] = image[len(image) - 512 + 85] = 1
        if version == V13:  # it has a new checksum; the others were left without
            image[:512] = image[-512:] = sealed(image[:512], 64)
        maker.add("tapdisk", f"vhd-tapdisk-hidden-{version:#010x}", bytes(image), data, [], args=())
    image = sparse(data, "open", creator=TAPDISK, version=V13, batmap=True)
    maker.add("tapdisk", "vhd-tapdisk-open", image[:-512] + b"\xc7" * 512, data, ["qemu"], args=())


def sector_bits(maker):
    """Sectors that were never written hold what their device did before."""
    data = content(6 * MIB, 30)
    for kind, oracles, fields in (
            ("1.3", [], {"version": V13, "batmap": True}), ("1.1", [], {"version": V11}),
            ("1.1-bytes", ["libvhdi"], {"version": V11, "whole_bytes": True}),
            ("0.1", [], {"version": V01, "lsb_first": True})):
        maker.add("tapdisk-sectors", f"vhd-tapdisk-sectors-{kind}",
                  sparse(data, "bits", creator=TAPDISK, sector_bits=True, block_size=128 << 10,
                         **fields), data, oracles, args=())


def version_01(maker):
    base = content(6 * MIB, 31)
    base_path = write(maker.manifest.path("tap01-base.vhd"),
                      sparse(base, "tap01", creator=TAPDISK, version=V01, lsb_first=True))
    for kind, fields in (("locator", {}),
                         ("name", {"locators": [],
                                   "unicode_name": "\ufefftap01-base.vhd".encode("utf-16-le")})):
        maker.child("tapdisk-0.1", f"vhd-tapdisk-0.1-by-{kind}", changed(base, 32), base_path, base,
                    "tap01", oracles=(), creator=TAPDISK, version=V01, lsb_first=True, **fields)


def raw_parents(maker):
    base = content(5 * MIB, 33)
    raw = write_raw(maker.manifest.path("LV-parent"), base)
    for kind, size in (("equal", 5 * MIB), ("larger", 7 * MIB)):
        maker.child("tapdisk-raw-parent", f"vhd-tapdisk-raw-parent-{kind}",
                    changed(base, 34, size), raw, base, None, oracles=(), creator=TAPDISK,
                    version=V13, batmap=True, locators=[(b"MacX", "file://./LV-parent"),
                                                        (b"W2ru", ".\\LV-parent")])


def tapdisk(maker):
    batmaps(maker)
    hidden_and_open(maker)
    sector_bits(maker)
    version_01(maker)
    raw_parents(maker)
