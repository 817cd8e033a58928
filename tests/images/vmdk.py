#!/usr/bin/python3
"""VMDK images: those that qemu makes, and by a builder what it cannot make."""
import os
import random
import struct
import zlib

from common import SECTOR, Manifest, content, run, write_raw

MIB = 1 << 20
GTES = 512  # entries in a grain table
FEATURES = ()

manifest = Manifest("vmdk", FEATURES)


def save(name, data):
    path = manifest.path(name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as out:
        out.write(data)
    return path


def add(name, path, data, oracles=()):
    raw = write_raw(manifest.path(name + ".raw"), data)
    manifest.add(name, path, raw, ["-f", "vmdk"], oracles)


# ---- a builder of sparse extents ----

def pad(data, unit=SECTOR):
    return data + bytes(-len(data) % unit)


def descriptor(create_type, lines, cid="fffffffe", parent_cid="ffffffff", hint=None, newline="\n"):
    head = ["# Disk DescriptorFile", "version=1", f"CID={cid}", f"parentCID={parent_cid}",
            f'createType="{create_type}"']
    if hint is not None:
        head.append(f'parentFileNameHint="{hint}"')
    tail = ["", "# The Disk Data Base", "#DDB", "", 'ddb.adapterType = "lsilogic"', ""]
    return newline.join(head + ["", "# Extent description"] + lines + tail).encode()


def header(capacity, grain, desc_sectors, gd_sector, overhead, flags=3, version=1, algorithm=0):
    fields = struct.pack("<4sIIQQQQIQQQB4sH", b"KDMV", version, flags, capacity, grain,
                         1 if desc_sectors else 0, desc_sectors, GTES, 0, gd_sector, overhead, 0,
                         b"\n \r\n", algorithm)
    return pad(fields)


def grains_of(data, grain):
    size = grain * SECTOR
    return [data[start:start + size] for start in range(0, len(data), size)]


def is_zero(data):
    return data.count(0) == len(data)


def sparse_file(data, grain=128, text=b"", zeroed=(), present=None, capacity=None):
    """An extent with plain grains. zeroed: grains with entry 1. present: the grains that are in this
    extent, by default all that are not zeros. Grains are stored last to first."""
    capacity = capacity or len(data) // SECTOR
    parts = grains_of(data, grain)
    if present is None:
        present = {i for i, part in enumerate(parts) if not is_zero(part)}
    text = pad(text)
    tables = -(-capacity // (grain * GTES))
    gd_sector = 1 + len(text) // SECTOR
    first_gt = gd_sector + -(-tables * 4 // SECTOR)
    overhead = -(-(first_gt + tables * 4) // grain) * grain

    entries = [0] * (tables * GTES)
    body = bytearray()
    for i in sorted(present, reverse=True):
        entries[i] = overhead + len(body) // SECTOR
        body += pad(parts[i], grain * SECTOR)
    for i in zeroed:
        entries[i] = 1
    directory = []
    for table in range(tables):
        used = any(entries[table * GTES:(table + 1) * GTES])
        directory.append(first_gt + table * 4 if used else 0)
    flags = 0b111 if zeroed else 0b11
    front = (header(capacity, grain, len(text) // SECTOR, gd_sector, overhead, flags,
                    2 if zeroed else 1) + text +
             pad(struct.pack(f"<{tables}I", *directory)) +
             struct.pack(f"<{len(entries)}I", *entries))
    return pad(front, overhead * SECTOR) + bytes(body)


def stream_file(data, text, grain=128, footer=True, order=None, level=6):
    """A stream-optimized extent: compressed grains, then tables and directory, then the footer."""
    capacity = len(data) // SECTOR
    parts = grains_of(data, grain)
    entries = [0] * (-(-len(parts) // GTES) * GTES)
    order = order or range(len(parts))
    overhead = 128
    body = bytearray()

    def here():
        return overhead + len(body) // SECTOR

    for i in order:
        if is_zero(parts[i]):
            continue
        packed = zlib.compress(pad(parts[i], grain * SECTOR), level)
        entries[i] = here()
        body.extend(pad(struct.pack("<QI", i * grain, len(packed)) + packed))
    directory = []
    for first in range(0, len(entries), GTES):
        table = entries[first:first + GTES]
        if any(table):
            body.extend(pad(struct.pack("<QII", 4, 0, 1)))
            directory.append(here())
            body.extend(struct.pack(f"<{GTES}I", *table))
        else:
            directory.append(0)
    packed_directory = pad(struct.pack(f"<{len(directory)}I", *directory))
    body.extend(pad(struct.pack("<QII", len(packed_directory) // SECTOR, 0, 2)))
    gd_sector = here()
    body.extend(packed_directory)

    text = pad(text)

    def head(gd):
        return header(capacity, grain, len(text) // SECTOR, gd, overhead, 0x30001, 3, 1)

    if footer:
        body.extend(pad(struct.pack("<QII", 1, 0, 3)) + head(gd_sector) + bytes(SECTOR))
    first = head((1 << 64) - 1 if footer else gd_sector)
    return pad(first + text, overhead * SECTOR) + bytes(body)


# ---- qemu's own ----

def qemu_subformats():
    data = content(9 * MIB, 1) + bytes(3 * MIB) + content(1 * MIB, 2)
    raw = write_raw(manifest.path("source.raw"), data)
    for subformat in ("monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse",
                      "twoGbMaxExtentFlat", "streamOptimized"):
        path = manifest.path(f"qemu-{subformat}.vmdk")
        run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", raw,
            path)
        manifest.add(f"qemu-{subformat}", path, raw, ["-f", "vmdk"], ["qemu"])
    probed = manifest.path("qemu-monolithicSparse.vmdk")
    manifest.add("qemu-probed", probed, raw, [], ["qemu"])

    odd = data[:5 * MIB + 3 * SECTOR]
    odd_raw = write_raw(manifest.path("odd.raw"), odd)
    for subformat in ("monolithicSparse", "streamOptimized"):
        path = manifest.path(f"qemu-odd-{subformat}.vmdk")
        run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}",
            odd_raw, path)
        manifest.add(f"qemu-odd-{subformat}", path, odd_raw, ["-f", "vmdk"], ["qemu"])


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
    add("qemu-delta", middle, bytes(data), ["qemu"])
    top = manifest.path("delta-top.vmdk")
    # An absolute hint, and zeroed grains.
    run("qemu-img", "create", "-f", "vmdk", "-F", "vmdk", "-b", middle, "-o", "zeroed_grain=on",
        top)
    run("qemu-io", "-f", "vmdk", "-c", "write -z 1M 2M", top)
    data[1 * MIB:3 * MIB] = bytes(2 * MIB)
    write_parts(top, data, rng)
    add("qemu-delta-zeroed-grain", top, bytes(data), ["qemu"])


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
    add("mixed-extents", path, a + b + zero + c + d)
    text = descriptor("custom", lines, newline="\r\n")
    text = text.replace(b"\r\nCID=", b"\r\n# CID=00000000\r\n\tcid = ").replace(b"parent", b"PARENT")
    add("mixed-extents-crlf", save("mixed/crlf.vmdk", text), a + b + zero + c + d)
    old = descriptor("2GbMaxExtentSparse", lines[:2])
    add("mixed-extents-2Gb", save("mixed/old.vmdk", old), a + b)


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
    add(f"{name}-sparse-extents", path, whole, sparse_oracles)
    path = save(f"{name}-flat.vmdk", descriptor("twoGbMaxExtentFlat", flat))
    add(f"{name}-flat-extents", path, whole, ["qemu"])


def vmfs():
    data = content(4 * MIB, 30)
    write_raw(manifest.path("esx-flat.vmdk"), data)
    line = f'RW {len(data) // SECTOR} VMFS "esx-flat.vmdk"'
    add("vmfs", save("esx.vmdk", descriptor("vmfs", [line])), data, ["qemu"])
    add("vmfs-thin", save("esx-thin.vmdk", descriptor("vmfsThin", [line])), data)


def monolithic(name, data, oracles=("qemu",), **options):
    text = descriptor("monolithicSparse", [f'RW {len(data) // SECTOR} SPARSE "{name}.vmdk"'])
    add(name, save(name + ".vmdk", sparse_file(data, text=text, **options)), data, oracles)


def grain_sizes():
    monolithic("grain-8", content(5 * MIB + SECTOR, 40), grain=8)
    monolithic("grain-256", content(5 * MIB + SECTOR, 41), grain=256)
    # More than one grain table, the second of which does not exist.
    data = content(MIB, 42) + bytes(4 * MIB) + content(2 * MIB, 43)
    monolithic("absent-table", data, grain=8)


def larger_capacity():
    """The size that the extent line gives rules. qemu takes the header's."""
    data = content(3 * MIB + 3 * SECTOR, 44)
    monolithic("larger-capacity", data, oracles=(), capacity=len(data) // SECTOR + 4096)


def descriptor_only():
    """A sparse header with capacity 0 holds nothing but a descriptor."""
    data = content(MIB, 45)
    save("only-flat.bin", data)
    text = pad(descriptor("monolithicFlat", [f'RW {len(data) // SECTOR} FLAT "only-flat.bin" 0']))
    head = header(0, 128, len(text) // SECTOR, 0, 128)
    add("descriptor-only", save("only.vmdk", head + text), data)


def built_delta():
    """Grains of another size than the parent's: in the child, zeroed, and the parent's."""
    parent = content(4 * MIB, 50)
    size = len(parent) // SECTOR
    text = descriptor("monolithicSparse", [f'RW {size} SPARSE "x.vmdk"'], cid="12ab")
    save("win/base disk.vmdk", sparse_file(parent, text=text))
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
        add(f"delta-hint-{name}", path, bytes(child), ["qemu"] if name == "beside" else [])


def streams():
    rng = random.Random(60)
    data = content(5 * MIB, 61) + rng.randbytes(MIB) + bytes(MIB) + content(MIB + 5 * SECTOR, 62)
    text = descriptor("streamOptimized", [f'RDONLY {len(data) // SECTOR} SPARSE "stream.vmdk"'])
    count = -(-len(data) // (128 * SECTOR))
    shuffled = rng.sample(range(count), count)
    for name, options in (("footer", {}), ("no-footer", {"footer": False}),
                          ("out-of-order", {"order": shuffled}), ("stored", {"level": 0}),
                          ("grain-8", {"grain": 8}), ("grain-2MiB", {"grain": 4096})):
        path = save(f"stream-{name}.vmdk", stream_file(data, text, **options))
        add(f"stream-{name}", path, data, ["qemu"])


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
