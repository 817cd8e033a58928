#!/usr/bin/python3
"""VMDK images: those that qemu makes, and by a builder what it cannot make."""
import os
import random
import struct

from common import SECTOR, Feature, Manifest, content, padded, run, write, write_raw
from vmdk_builder import descriptor, header, sparse_file, stream_file
from vmdk_esx_builder import cowd_file, se_sparse_file

MIB = 1 << 20
FEATURES = (
    Feature("sparse", "monolithicSparse, twoGbMaxExtentSparse: growing disks of Workstation, Fusion, "
            "VirtualBox and qemu, with any size of grain, header versions 1 to 3"),
    Feature("flat", "monolithicFlat, twoGbMaxExtentFlat, vmfs, vmfsThin, ...: a descriptor beside "
            "files with plain bytes (ESX, Workstation)"),
    Feature("stream", "streamOptimized (OVF and OVA exports): compressed grains in any order, the "
            "directory found by header or footer, zeros behind the end"),
    Feature("zeroed-grains", "grains that are known to be zeros, which hide the parent's"),
    Feature("delta", "snapshots on their parents, found by parentFileNameHint (also a Windows path) "
            "and checked by CID"),
    Feature("cowd", "vmfsSparse (COWD): snapshots of ESX on VMFS up to version 5"),
    Feature("sesparse", "seSparse: snapshots of ESX on VMFS 6, and of disks above 2 TB"),
    Feature("mixed", "several extents in one disk, of all kinds: SPARSE, FLAT, ZERO, VMFS, "
            "VMFSSPARSE, SESPARSE, with offsets, in folders"),
    Feature("encoding", "descriptors in other encodings: windows-1252, Shift_JIS, GBK, Big5, ..., "
            "whether the files' names were converted or not"),
    Feature("descriptor", "descriptors as they are found: CRLF, comments, any case of keys, embedded, "
            "alone in a sparse file, more capacity than the disk"),
    Feature("redundant-directory", "sparse files with a damaged grain directory: the redundant one is "
            "used, with a warning"),
    Feature("sesparse-journal", "seSparse with a journal that was not replayed",
            "its tables are not up to date; power the VM on and off, or consolidate "
            "its snapshots, on its host, then copy again"),
    Feature("raw-device", "raw-device mappings (vmfsRawDeviceMap, vmfsPassthroughRawDeviceMap, vmfsRaw)",
            "the data is in no file; copy the disk on its host with `vmkfstools -i`"),
    Feature("lone-extent", "extents without the descriptor that names them",
            "only the descriptor knows the other extents and the parent; open it instead"),
    Feature("wrong-parent", "snapshots whose parent is missing, or was changed after they were made",
            "they would show a mixture; find the right parent, and name it with `--parent CHILD=PATH`"),
    Feature("encrypted", "encrypted disks",
            "their key is not known here; decrypt them in the program that encrypted them"),
    Feature("unknown-encoding", "names in an encoding that is unknown here",
            "their files cannot be found; give them ASCII names, in the descriptor as well"),
    Feature("damaged", "truncated files, missing or overlapping extents, tables or grains beyond the "
            "end or in other metadata, damage by a transfer in text mode",
            "zeros or other data would be shown in place of the disk's; copy the image anew"),
)

manifest = Manifest("vmdk", FEATURES)


def save(name, data):
    return write(manifest.path(name), data)


def add(name, path, data, feature, oracles=(), parents=()):
    raw = write_raw(manifest.path(name + ".raw"), data)
    manifest.add(name, path, raw, ["-f", "vmdk"], oracles, parents, feature=feature)


def refuse(name, path, words, feature):
    manifest.add_refused(name, path, words, ["-f", "vmdk"], feature=feature)


# ---- qemu's own ----

def feature_of(subformat):
    if subformat == "streamOptimized":
        return "stream"
    return "flat" if "Flat" in subformat else "sparse"


def qemu_subformats():
    data = content(9 * MIB, 1) + bytes(3 * MIB) + content(1 * MIB, 2)
    raw = write_raw(manifest.path("source.raw"), data)
    for subformat in ("monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse",
                      "twoGbMaxExtentFlat", "streamOptimized"):
        path = manifest.path(f"qemu-{subformat}.vmdk")
        run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", raw,
            path)
        manifest.add(f"qemu-{subformat}", path, raw, ["-f", "vmdk"], ["qemu", "libvmdk"],
                     feature=feature_of(subformat))
    probed = manifest.path("qemu-monolithicSparse.vmdk")
    manifest.add("qemu-probed", probed, raw, [], ["qemu", "libvmdk"], feature="sparse")

    odd = data[:5 * MIB + 3 * SECTOR]
    odd_raw = write_raw(manifest.path("odd.raw"), odd)
    for subformat in ("monolithicSparse", "streamOptimized"):
        path = manifest.path(f"qemu-odd-{subformat}.vmdk")
        run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}",
            odd_raw, path)
        manifest.add(f"qemu-odd-{subformat}", path, odd_raw, ["-f", "vmdk"], ["qemu", "libvmdk"],
                     feature=feature_of(subformat))


def write_parts(path, data, rng, count=40):
    """Writes runs of random bytes and of zeros into an image and into `data`."""
    commands = []
    for i in range(count):
        length = rng.choice([SECTOR, 4096, 65536, 100000 // SECTOR * SECTOR])
        start = rng.randrange((len(data) - length) // SECTOR) * SECTOR
        if i % 4 == 0:
            commands += ["-c", f"write -z {start} {length}"]
            data[start:start + length] = bytes(length)
        else:
            byte = rng.randrange(1, 256)
            commands += ["-c", f"write -P {byte} {start} {length}"]
            data[start:start + length] = bytes([byte]) * length
    run("qemu-io", "-f", "vmdk", *commands, path)


def qemu_deltas():
    """Three images in a chain; with zeroed grains, which must hide the parent."""
    rng = random.Random(3)
    data = bytearray(content(8 * MIB, 4))
    raw = write_raw(manifest.path("delta-source.raw"), data)
    base = manifest.path("delta-base.vmdk")
    run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", raw, base)
    middle = manifest.path("delta-middle.vmdk")
    run("qemu-img", "create", "-f", "vmdk", "-F", "vmdk", "-b", "delta-base.vmdk", middle)
    write_parts(middle, data, rng)
    add("qemu-delta", middle, bytes(data), "delta", ["qemu", "libvmdk"], [base])
    top = manifest.path("delta-top.vmdk")
    # An absolute hint, and zeroed grains.
    run("qemu-img", "create", "-f", "vmdk", "-F", "vmdk", "-b", middle, "-o", "zeroed_grain=on",
        top)
    run("qemu-io", "-f", "vmdk", "-c", "write -z 1M 2M", top)
    data[1 * MIB:3 * MIB] = bytes(2 * MIB)
    write_parts(top, data, rng)
    add("qemu-delta-zeroed-grain", top, bytes(data), "zeroed-grains", ["qemu"], [middle, base])


# ---- by the builder ----

def mixed_extents():
    """SPARSE, FLAT, ZERO, RDONLY and VMFS extents in one disk, in folders, with blanks in names."""
    a, b, c, d = (content(2 * MIB + 5 * SECTOR, 10), content(3 * MIB, 11), content(MIB, 12),
                  content(2 * MIB, 13))
    save("mixed/the first.vmdk", sparse_file(a))
    save("mixed/sub/flat.bin", content(7 * SECTOR, 14) + b)
    save("mixed/third.vmdk", sparse_file(c, grain=8))
    save("mixed/d-flat.vmdk", d)
    zero = bytes(MIB + SECTOR)
    lines = [f'RW {len(a) // SECTOR} SPARSE "the first.vmdk"',
             f'RW {len(b) // SECTOR} FLAT "sub/flat.bin" 7',
             f"RW {len(zero) // SECTOR} ZERO",
             f'RDONLY {len(c) // SECTOR} SPARSE "third.vmdk"',
             f'RW\t{len(d) // SECTOR}  VMFS "d-flat.vmdk"']
    path = save("mixed/disk.vmdk", descriptor("custom", lines))
    add("mixed-extents", path, a + b + zero + c + d, "mixed")
    text = descriptor("custom", lines, newline="\r\n")
    text = text.replace(b"\r\nCID=", b"\r\n# CID=00000000\r\n\tcid = ").replace(b"parent", b"PARENT")
    add("mixed-extents-crlf", save("mixed/crlf.vmdk", text), a + b + zero + c + d, "descriptor")
    old = descriptor("2GbMaxExtentSparse", lines[:2])
    add("mixed-extents-2Gb", save("mixed/old.vmdk", old), a + b, "mixed")


def several_extents(name, step, sparse_oracles):
    sparse, flat = [], []
    parts = [content(MIB + i * step * SECTOR, 20 + i) for i in range(9)]
    for i, part in enumerate(parts):
        save(f"{name}-s{i:03}.vmdk", sparse_file(part, grain=[8, 16, 256][i % 3]))
        save(f"{name}-f{i:03}.vmdk", part)
        sparse.append(f'RW {len(part) // SECTOR} SPARSE "{name}-s{i:03}.vmdk"')
        flat.append(f'RW {len(part) // SECTOR} FLAT "{name}-f{i:03}.vmdk" 0')
    whole = b"".join(parts)
    path = save(f"{name}-sparse.vmdk", descriptor("twoGbMaxExtentSparse", sparse))
    add(f"{name}-sparse-extents", path, whole, "sparse", sparse_oracles)
    path = save(f"{name}-flat.vmdk", descriptor("twoGbMaxExtentFlat", flat))
    add(f"{name}-flat-extents", path, whole, "flat", ["qemu", "libvmdk"])


def vmfs():
    data = content(4 * MIB, 30)
    write_raw(manifest.path("esx-flat.vmdk"), data)
    line = f'RW {len(data) // SECTOR} VMFS "esx-flat.vmdk"'
    add("vmfs", save("esx.vmdk", descriptor("vmfs", [line])), data, "flat", ["qemu", "libvmdk"])
    add("vmfs-thin", save("esx-thin.vmdk", descriptor("vmfsThin", [line])), data, "flat")


def monolithic(name, data, oracles=("qemu", "libvmdk"), feature="sparse", **options):
    text = descriptor("monolithicSparse", [f'RW {len(data) // SECTOR} SPARSE "{name}.vmdk"'])
    add(name, save(name + ".vmdk", sparse_file(data, text=text, **options)), data, feature, oracles)


def grain_sizes():
    # libvmdk refuses grains of 4 KiB.
    monolithic("grain-8", content(5 * MIB + SECTOR, 40), ["qemu"], grain=8)
    monolithic("grain-16", content(5 * MIB + SECTOR, 40), grain=16)
    monolithic("grain-256", content(5 * MIB + SECTOR, 41), grain=256)
    # More than one grain table, the second of which does not exist.
    data = content(MIB, 42) + bytes(4 * MIB) + content(2 * MIB, 43)
    monolithic("absent-table", data, ["qemu"], grain=8)
    monolithic("version-3", data, version=3)


def larger_capacity():
    """The size that the extent line gives rules. qemu takes the header's."""
    data = content(3 * MIB + 3 * SECTOR, 44)
    monolithic("larger-capacity", data, oracles=("libvmdk",), feature="descriptor",
               capacity=len(data) // SECTOR + 4096)


def descriptor_only():
    """A sparse header with capacity 0 holds nothing but a descriptor."""
    data = content(MIB, 45)
    save("only-flat.bin", data)
    text = padded(descriptor("monolithicFlat", [f'RW {len(data) // SECTOR} FLAT "only-flat.bin" 0']))
    head = header(0, 128, len(text) // SECTOR, 0, 128)
    add("descriptor-only", save("only.vmdk", head + text), data, "descriptor", ["qemu"])


def built_delta():
    """Grains of another size than the parent's: in the child, zeroed, and the parent's."""
    parent = content(4 * MIB, 50)
    size = len(parent) // SECTOR
    text = descriptor("monolithicSparse", [f'RW {size} SPARSE "base disk.vmdk"'], cid="12ab")
    base = save("win/base disk.vmdk", sparse_file(parent, text=text))
    child = bytearray(parent)
    present, zeroed = set(range(0, 1024, 7)), set(range(1, 1024, 7))
    fresh = content(4 * MIB, 51)
    for i in present:
        child[i * 4096:(i + 1) * 4096] = fresh[i * 4096:(i + 1) * 4096]
    for i in zeroed:
        child[i * 4096:(i + 1) * 4096] = bytes(4096)
    for name, hint in (("beside", "base disk.vmdk"), ("drive", r"C:\old place\base disk.vmdk"),
                       ("backslash", r"..\win\base disk.vmdk")):
        text = descriptor("monolithicSparse", [f'RW {size} SPARSE "x.vmdk"'], parent_cid="000012AB",
                          hint=hint)
        path = save(f"win/child-{name}.vmdk",
                    sparse_file(bytes(child), grain=8, text=text, present=present, zeroed=zeroed))
        add(f"delta-hint-{name}", path, bytes(child), "delta",
            ["qemu"] if name == "beside" else [], [base])


def streams():
    rng = random.Random(60)
    data = content(5 * MIB, 61) + rng.randbytes(MIB) + bytes(MIB) + content(MIB + 5 * SECTOR, 62)
    line = f"RDONLY {len(data) // SECTOR} SPARSE"
    count = -(-len(data) // (128 * SECTOR))
    shuffled = rng.sample(range(count), count)
    for name, options in (("footer", {}), ("no-footer", {"footer": False}),
                          ("out-of-order", {"order": shuffled}), ("stored", {"level": 0}),
                          ("grain-8", {"grain": 8}), ("grain-2MiB", {"grain": 4096})):
        text = descriptor("streamOptimized", [f'{line} "stream-{name}.vmdk"'])
        path = save(f"stream-{name}.vmdk", stream_file(data, text, **options))
        add(f"stream-{name}", path, data, "stream",
            ["qemu"] if name == "grain-8" else ["qemu", "libvmdk"])
    text = descriptor("streamOptimized", [f'{line} "stream-padded.vmdk"'])
    padded = stream_file(data, text) + bytes(100 * SECTOR)
    add("stream-padded", save("stream-padded.vmdk", padded), data, "stream")


def redundant_directories():
    data = content(5 * MIB, 70)
    monolithic("redundant-whole", data, redundant=True)
    text = descriptor("monolithicSparse", [f'RW {len(data) // SECTOR} SPARSE "x.vmdk"'])
    good = sparse_file(data, grain=8, text=text, redundant=True)
    first_table, = struct.unpack_from("<I", good, struct.unpack_from("<Q", good, 56)[0] * SECTOR)

    def damaged(name, offset, value):
        image = bytearray(good)
        struct.pack_into("<I", image, offset, value)
        return save(name + ".vmdk", bytes(image))

    directory = struct.unpack_from("<Q", good, 56)[0] * SECTOR
    for name, offset, value in (("beyond-end", directory, 0x7fffffff), ("in-header", directory, 1),
                                ("lost-table", directory + 4, 0),
                                ("damaged-table", first_table * SECTOR, 0xfffffff0)):
        name = "redundant-" + name
        add(name, damaged(name, offset, value), data, "redundant-directory")


# ---- snapshots of ESX ----

def esx_snapshot(name, create_type, kind, build, feature, oracles):
    """A snapshot on a flat disk, and one on that snapshot."""
    parent = content(40 * MIB, 80)
    sectors = len(parent) // SECTOR
    save(f"{name}/base-flat.vmdk", parent)
    base = save(f"{name}/base.vmdk",
                descriptor("vmfs", [f'RW {sectors} VMFS "base-flat.vmdk"'], cid="1111aaaa"))
    rng = random.Random(81)
    data, path, hint, cid = bytearray(parent), base, "base.vmdk", "1111aaaa"
    chain = []
    for i in (1, 2):
        grain, file = build(data, rng, i)
        assert len(data) == len(parent) and grain
        save(f"{name}/disk-{i}-delta.vmdk", file)
        text = descriptor(create_type, [f'RW {sectors} {kind} "disk-{i}-delta.vmdk"'],
                          cid=f"2222bbb{i}", parent_cid=cid, hint=hint)
        chain.insert(0, path)
        path, hint, cid = save(f"{name}/disk-{i}.vmdk", text), f"disk-{i}.vmdk", f"2222bbb{i}"
        add(f"{name}-{i}", path, bytes(data), feature, oracles, list(chain))


def changed_grains(data, rng, grain):
    """Overwrites some grains of `data`; their numbers."""
    count = len(data) // (grain * SECTOR)
    numbers = set(rng.sample(range(count), count // 9)) | set(range(100, 180))
    for i in numbers:
        data[i * grain * SECTOR:(i + 1) * grain * SECTOR] = rng.randbytes(grain * SECTOR)
    return numbers


def cowd_snapshots():
    def build(data, rng, number):
        grain = 1 if number == 1 else 16
        present = changed_grains(data, rng, grain)
        zeros = sorted(present)[7]  # data, as COWD has no entry for zeros
        data[zeros * grain * SECTOR:(zeros + 1) * grain * SECTOR] = bytes(grain * SECTOR)
        return grain, cowd_file(data, grain, present)

    esx_snapshot("cowd", "vmfsSparse", "VMFSSPARSE", build, "cowd", ["qemu", "libvmdk"])


def se_sparse_snapshots():
    def build(data, rng, number):
        present = changed_grains(data, rng, 8)
        zeroed = set(rng.sample(sorted(present), 50))
        unmapped = set(rng.sample(sorted(present - zeroed), 50))
        for i in zeroed | unmapped:
            data[i * 4096:(i + 1) * 4096] = bytes(4096)
        return 8, se_sparse_file(data, present, zeroed, unmapped, first=0 if number == 1 else 4090)

    esx_snapshot("sesparse", "seSparse", "SESPARSE", build, "sesparse", ["qemu"])


def alone(name, create_type, kind, file, data):
    """A disk of one extent without a parent."""
    save(f"alone/{name}-extent.vmdk", file)
    lines = [f'RW {len(data) // SECTOR} {kind} "{name}-extent.vmdk"']
    return save(f"alone/{name}.vmdk", descriptor(create_type, lines))


def esx_alone():
    data = content(5 * MIB + 3 * SECTOR, 82)
    for grain in (1, 8, 128):
        path = alone(f"cowd-{grain}", "vmfsSparse", "VMFSSPARSE", cowd_file(data, grain), data)
        add(f"cowd-grain-{grain}", path, data, "cowd", ["qemu", "libvmdk"])
    path = alone("unclean", "vmfsSparse", "VMFSSPARSE", cowd_file(data, unclean=1), data)
    add("cowd-unclean", path, data, "cowd", ["qemu", "libvmdk"])
    path = alone("se", "seSparse", "SESPARSE", se_sparse_file(data), data)
    add("sesparse-odd", path, data, "sesparse", ["qemu"])
    path = alone("dirty", "seSparse", "SESPARSE", se_sparse_file(data, replay=1), data)
    refuse("sesparse-journal", path, "power the VM on", "sesparse-journal")
    refuse("cowd-alone", save("alone/lone-cowd", cowd_file(data)), "open the descriptor",
           "lone-extent")
    refuse("sesparse-alone", save("alone/lone-se", se_sparse_file(data)), "open the descriptor",
           "lone-extent")
    refuse("sparse-alone", save("alone/lone-sparse", sparse_file(data)), "open the descriptor",
           "lone-extent")


def esx_mixed():
    """Extents of every kind in one descriptor."""
    parts = [content(2 * MIB + i * SECTOR, 83 + i) for i in range(5)]
    files = (("SPARSE", sparse_file(parts[0]), ""), ("VMFSSPARSE", cowd_file(parts[1]), ""),
             ("SESPARSE", se_sparse_file(parts[2]), ""),
             ("FLAT", bytes(9 * SECTOR) + parts[3] + bytes(SECTOR), " 9"),
             ("SPARSE", stream_file(parts[4], b""), ""))
    lines = []
    for i, (kind, file, offset) in enumerate(files):
        save(f"every/part-{i}.vmdk", file)
        lines += [f'RW {len(parts[i]) // SECTOR} {kind} "part-{i}.vmdk"{offset}', f"RW {i + 1} ZERO"]
    whole = b"".join(part + bytes((i + 1) * SECTOR) for i, part in enumerate(parts))
    add("mixed-every-kind", save("every/disk.vmdk", descriptor("custom", lines)), whole, "mixed")


# ---- encodings of descriptors ----

def encodings():
    data = content(MIB, 90)
    # libvmdk converts the names, but does not know Shift_JIS; qemu takes them as written.
    for name, word, encoding in (("windows-1252", "Größe", ("windows-1252", "cp1252")),
                                 ("shift-jis", "表示", ("Shift_JIS", "cp932")),
                                 ("gbk", "磁盘", ("GBK", "gbk")),
                                 ("big5", "磁碟", ("Big5", "big5"))):
        line = f'RW {len(data) // SECTOR} FLAT "{word}-flat.vmdk" 0'
        text = descriptor("monolithicFlat", [line], encoding=encoding)
        save(f"{name}/{word}-flat.vmdk", data)
        add(f"encoding-{name}", save(f"{name}/disk.vmdk", text), data, "encoding",
            [] if name == "shift-jis" else ["libvmdk"])
        # Copied byte for byte from a host with this encoding.
        written = os.fsdecode(f"{word}-flat.vmdk".encode(encoding[1]))
        save(f"{name}-as-written/{written}", data)
        add(f"encoding-{name}-as-written", save(f"{name}-as-written/disk.vmdk", text), data,
            "encoding", ["qemu"])
    text = descriptor("monolithicFlat", ['RW 2048 FLAT "é.vmdk" 0'],
                      encoding=("x-unheard-of", "latin-1"))
    refuse("encoding-unknown", save("unknown-encoding.vmdk", text), "x-unheard-of",
           "unknown-encoding")
    # A snapshot whose parent's name ends in a byte that is a backslash elsewhere.
    base = descriptor("monolithicFlat", [f'RW {len(data) // SECTOR} FLAT "表示-flat.vmdk" 0'],
                      cid="77", encoding=("Shift_JIS", "cp932"))
    save("shift-jis/親表.vmdk", base)
    child = descriptor("monolithicSparse", [f'RW {len(data) // SECTOR} SPARSE "x.vmdk"'],
                       parent_cid="77", hint="C:\\disks\\親表.vmdk", encoding=("Shift_JIS", "cp932"))
    child = sparse_file(data, text=child, present=set())
    add("encoding-parent", save("shift-jis/child.vmdk", child), data, "encoding")


# ---- what must be refused ----

def raw_devices():
    for create_type, kind in (("vmfsRawDeviceMap", "VMFSRDM"), ("vmfsRaw", "VMFSRAW"),
                              ("vmfsPassthroughRawDeviceMap", "VMFSRDM")):
        text = descriptor(create_type, [f'RW 2048 {kind} "disk-rdm.vmdk"'])
        refuse(create_type, save(f"{create_type}.vmdk", text), "vmkfstools -i", "raw-device")


def wrong_parents():
    data = content(MIB, 91)
    sectors = len(data) // SECTOR
    text = descriptor("monolithicSparse", [f'RW {sectors} SPARSE "x"'], cid="12345678")
    base = save("wrong/base.vmdk", sparse_file(data, text=text))
    for name, cid, hint, words in (("changed-parent", "12345679", "base.vmdk", "--parent"),
                                   ("missing-parent", "12345678", "gone.vmdk", "gone.vmdk")):
        text = descriptor("monolithicSparse", [f'RW {sectors} SPARSE "x"'], parent_cid=cid, hint=hint)
        refuse(name, save(f"wrong/{name}.vmdk", sparse_file(data, text=text)), words, "wrong-parent")
    # The same, with the operator's word on where the parent is.
    child = sparse_file(data, text=descriptor("monolithicSparse", [f'RW {sectors} SPARSE "x"'],
                                              parent_cid="12345678", hint="gone.vmdk"), present=set())
    save("wrong/stated-parent.vmdk", child)
    manifest.add("delta-stated-parent", manifest.path("wrong/stated-parent.vmdk"),
                 write_raw(manifest.path("stated.raw"), data),
                 ["-f", "vmdk", "--parent", f"stated-parent.vmdk={base}"], feature="delta")


def damaged():
    data = content(4 * MIB, 92) + b"\1" * SECTOR
    sectors = len(data) // SECTOR
    text = descriptor("monolithicSparse", [f'RW {sectors} SPARSE "x"'])
    sparse = sparse_file(data, text=text)

    def refused(name, file, words):
        refuse(name, save(f"damaged/{name}.vmdk", file), words, "damaged")

    refused("truncated-sparse", sparse[:-200 * SECTOR], "beyond the end")
    stream = stream_file(data, descriptor("streamOptimized", [f'RW {sectors} SPARSE "x"']))
    refused("truncated-stream", stream[:-200 * SECTOR], "footer")
    refused("text-mode", sparse.replace(b"\n \r\n", b"\n \n\0", 1), "text mode")
    save("damaged/flat", data)
    flat = f'RW {sectors} FLAT "flat" 0'
    for name, lines, words in (
            ("missing-extent", [flat, 'RW 8 FLAT "gone" 0'], "gone"),
            ("short-extent", [f'RW {sectors} FLAT "flat" 1'], "beyond the end"),
            ("overlapping-extents", [flat, 'RW 8 FLAT "flat" 0'], "overlaps"),
            ("unknown-extent", [flat, 'RW 8 BLOCKS "flat" 0'], "BLOCKS"),
            ("own-extent", ['RW 1 FLAT "own-extent.vmdk" 0'], "names itself")):
        refused(name, padded(descriptor("custom", lines)), words)
    cowd = cowd_file(data)
    save("damaged/cut-cowd", cowd[:-5 * SECTOR])
    refused("truncated-cowd", descriptor("vmfsSparse", [f'RW {sectors} VMFSSPARSE "cut-cowd"']),
            "freeSector")
    encrypted = descriptor("monolithicSparse", [flat, 'encryptionKeys="vmware:key/list/..."'])
    refuse("encrypted", save("encrypted.vmdk", encrypted), "encrypted", "encrypted")


qemu_subformats()
qemu_deltas()
mixed_extents()
several_extents("whole-grains", 256, ["qemu"])
# qemu reads on in the last grain of an extent, past its end, where the next extent begins.
several_extents("cut-grains", 1, [])
vmfs()
grain_sizes()
larger_capacity()
descriptor_only()
built_delta()
streams()
redundant_directories()
cowd_snapshots()
se_sparse_snapshots()
esx_alone()
esx_mixed()
encodings()
raw_devices()
wrong_parents()
damaged()
