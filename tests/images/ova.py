#!/usr/bin/python3
"""Containers: appliances (OVA) and other tar archives with images, and images that were compressed
whole; by tar, xz, gzip and zstd, and built where they cannot."""
import os
import random
import shutil
import struct
import subprocess

from common import Feature, Manifest, content, run, write_raw

MIB = 1 << 20
OVF = "http://schemas.dmtf.org/ovf/envelope/1"

FEATURES = (
    Feature("ova", "the one disk of an appliance (OVA, a tar archive with an OVF descriptor)"),
    Feature("ova member", "one disk of several: `image.ova#disk2.vmdk`"),
    Feature("ova files", "images that name other files of the archive: flat extents, parents"),
    Feature("tar", "any tar archive (ustar, GNU, pax) with one disk image, or `FILE#MEMBER`"),
    Feature("xz", "xz in blocks of at most 32 MiB (`xz -T0 --block-size=16MiB`)"),
    Feature("zstd", "the seekable format of zstd, in frames of at most 32 MiB"),
    Feature("compressed archive", "archives that are compressed in such a form"),
    Feature("several disks", "archives with several disks, of which none is named",
            "any could be meant; say which: `image.ova#disk2.vmdk`"),
    Feature("no disk", "archives without a disk, or without the member that was named",
            "there is nothing to serve; name a member that there is"),
    Feature("outside", "images in an archive that name a file outside it",
            "an archive brings all its files; unpack it"),
    Feature("sparse", "sparse members of tar archives (tar -S), disks in chunks",
            "their bytes do not lie in one place; unpack the archive with `tar -xSf`"),
    Feature("damaged", "truncated or damaged archives and compressed files",
            "their data is not whole; copy them anew"),
    Feature("gzip", "images compressed with gzip",
            "it can only be read from its start; unpack it: `gzip -dk FILE`"),
    Feature("xz in one piece", "xz in blocks of more than 32 MiB",
            "a block is unpacked whole for the smallest read; unpack it: `xz -dk FILE`"),
    Feature("zstd in one piece", "zstd without a seek table (zstd, pzstd)",
            "it can only be read from its start; unpack it: `zstd -dk FILE`"),
)


def shell(pipe, **names):
    """A pipe of programs; names are put in with {}."""
    subprocess.run(["bash", "-c", "set -e -o pipefail; " + pipe.format(**names)], check=True)


def descriptor(disks, files=None, extra=""):
    files = files if files is not None else disks
    references = "".join(f'<File ovf:id="file{i}" ovf:href="{name}" {extra}/>'
                         for i, name in enumerate(files))
    section = "".join(f'<Disk ovf:diskId="vmdisk{i}" ovf:fileRef="file{files.index(name)}"/>'
                      for i, name in enumerate(disks))
    return (f'<?xml version="1.0"?>\n<Envelope xmlns="{OVF}" xmlns:ovf="{OVF}"><References>'
            f'{references}</References><DiskSection><Info/>{section}<Disk ovf:diskId="empty" '
            'ovf:capacity="1"/></DiskSection></Envelope>\n')


def seekable_zstd(data, frame_size, spare=b""):
    """zstd's contrib/seekable_format, version 0.1.0: frames, then the seek table, a skippable frame.
    `spare`: the content of a skippable frame in the middle."""
    frames = []
    for start in range(0, len(data), frame_size):
        part = data[start:start + frame_size]
        packed = subprocess.run(["zstd", "-q", "-c", "-"], input=part, stdout=subprocess.PIPE,
                                check=True).stdout
        frames.append((packed, len(part)))
        if spare and len(frames) == 2:
            frames.append((struct.pack("<II", 0x184D2A53, len(spare)) + spare, 0))
    table = b"".join(struct.pack("<II", len(packed), size) for packed, size in frames)
    table += struct.pack("<IBI", len(frames), 0, 0x8F92EAB1)
    return b"".join(packed for packed, _ in frames) + struct.pack("<II", 0x184D2A5E, len(table)) + table


class Maker:
    def __init__(self):
        self.manifest = Manifest("ova", FEATURES)
        self.data = content(9 * MIB, 1)
        self.other = content(5 * MIB, 2)
        self.raw = write_raw(self.manifest.path("source.raw"), self.data)
        self.other_raw = write_raw(self.manifest.path("other.raw"), self.other)
        for raw, name in ((self.raw, "disk1.vmdk"), (self.other_raw, "disk2.vmdk")):
            run("qemu-img", "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", raw,
                self.manifest.path(name))

    def write(self, name, text):
        with open(self.manifest.path(name), "w" if isinstance(text, str) else "wb") as out:
            out.write(text)
        return name

    def tar(self, name, *members, options=("--format=ustar",)):
        run("tar", "-C", self.manifest.folder, *options, "-cf", self.manifest.path(name), *members)
        return self.manifest.path(name)

    def add(self, path, feature, member="", raw=None, args=()):
        name = os.path.basename(path) + member.replace("/", "-")
        self.manifest.add(name, path + member, raw or self.raw, args, feature=feature)

    def refuse(self, path, words, feature, member=""):
        name = os.path.basename(path) + member.replace("/", "-")
        self.manifest.add_refused(name, path + member, words, feature=feature)

    def appliances(self):
        one = self.write("one.ovf", descriptor(["disk1.vmdk"], ["other.raw", "disk1.vmdk"]))
        for tar_format in ("ustar", "gnu", "posix"):
            options = [f"--format={tar_format}"]
            path = self.tar(f"{tar_format}.ova", one, "disk1.vmdk", "other.raw", options=options)
            self.add(path, "ova")
            self.add(path, "ova member", "#other.raw", self.other_raw, ("-f", "raw"))
        two = self.write("two.ovf", descriptor(["disk1.vmdk", "disk2.vmdk"]))
        path = self.tar("two.ova", two, "disk1.vmdk", "disk2.vmdk")
        self.add(path, "ova member", "#disk1.vmdk")
        self.add(path, "ova member", "#disk2.vmdk", self.other_raw)
        self.refuse(path, "disk1.vmdk, disk2.vmdk", "several disks")
        self.refuse(path, "without a member \"disk3.vmdk\"", "no disk", "#disk3.vmdk")
        shutil.copy(path, self.manifest.path("named#disk2.vmdk.ova"))
        self.add(self.manifest.path("named#disk2.vmdk.ova"), "ova member", "#disk1.vmdk")
        shutil.copy(self.manifest.path("disk1.vmdk"), self.manifest.path("two.ova#disk2.vmdk.vmdk"))
        self.add(self.manifest.path("two.ova#disk2.vmdk.vmdk"), "ova")  # a file of that name

    def other_files(self):
        os.makedirs(self.manifest.path("in"), exist_ok=True)
        run("qemu-img", "convert", "-O", "vmdk", "-o", "subformat=twoGbMaxExtentFlat", self.raw,
            self.manifest.path("in/flat.vmdk"))
        self.write("flat.ovf", descriptor(["in/flat.vmdk"]))
        path = self.tar("flat.ova", "flat.ovf", "in/flat.vmdk", "in/flat-f001.vmdk")
        self.add(path, "ova files")
        self.refuse(self.tar("no-extent.ova", "flat.ovf", "in/flat.vmdk"),
                    "without a member", "no disk")
        run("qemu-img", "convert", "-O", "vmdk", self.raw, self.manifest.path("base.vmdk"))
        child = self.manifest.path("child.vmdk")
        run("qemu-img", "create", "-f", "vmdk", "-F", "vmdk", "-b", self.manifest.path("base.vmdk"),
            child)
        with open(child, "r+b") as image:  # the parent lies beside the child
            head = image.read(MIB)
            name = self.manifest.path("base.vmdk").encode()
            image.seek(head.index(name))
            image.write(b"base.vmdk\"".ljust(len(name) + 1, b"\n"))
        run("qemu-io", "-f", "vmdk", "-c", f"write -P 77 {MIB} 64k", child)
        after = bytearray(self.data)
        after[MIB:MIB + (64 << 10)] = b"\x4d" * (64 << 10)
        raw = write_raw(self.manifest.path("child.raw"), bytes(after))
        path = self.tar("chain.tar", "base.vmdk", "child.vmdk")
        self.add(path, "ova files", "#child.vmdk", raw)
        with open(self.manifest.path("in/flat.vmdk"), encoding="latin-1") as text:
            changed = text.read().replace('"flat-f001.vmdk"', '"../../flat-f001.vmdk"')
        self.write("outside.vmdk", changed)
        self.refuse(self.tar("outside.tar", "outside.vmdk"), "outside the archive", "outside")
        os.makedirs(self.manifest.path("beside"), exist_ok=True)
        self.write("lonely.vmdk", changed.replace("../../flat-f001", "disk1"))
        self.refuse(self.tar("lonely.tar", "lonely.vmdk"), "without a member", "no disk")

    def archives(self):
        run("qemu-img", "convert", "-O", "qcow2", self.raw, self.manifest.path("image.qcow2"))
        run("qemu-img", "convert", "-O", "vpc", "-o", "force_size=on,subformat=fixed", self.raw,
            self.manifest.path("image.vhd"))
        self.add(self.tar("qcow2.tar", "./image.qcow2", "one.ovf", options=("--exclude=*.ovf",)),
                 "tar")
        self.add(self.tar("vhd.tar", "image.vhd"), "tar")
        deep = "/".join(["a-folder-with-a-long-name"] * 5)
        os.makedirs(self.manifest.path(deep), exist_ok=True)
        shutil.copy(self.manifest.path("image.qcow2"), self.manifest.path(deep + "/image.qcow2"))
        for tar_format in ("ustar", "gnu", "posix"):
            self.add(self.tar(f"long-{tar_format}.tar", deep, options=[f"--format={tar_format}"]),
                     "tar")
        self.refuse(self.tar("nothing.tar", "other.raw"), "without an OVF descriptor", "no disk")

    def refused_archives(self):
        with open(self.manifest.path("gnu.ova"), "rb") as whole:
            data = whole.read()
        self.write("cut.ova", data[:len(data) // 2])
        self.refuse(self.manifest.path("cut.ova"), "truncated", "damaged")
        self.write("no-end.ova", data[:data.rindex(b"ustar") - 257])
        self.refuse(self.manifest.path("no-end.ova"), "end mark", "damaged")
        at = data.index(b"ustar", 512) - 257
        self.write("checksum.ova", data[:at] + b"\x01" + data[at + 1:])
        self.refuse(self.manifest.path("checksum.ova"), "checksum", "damaged")
        with open(self.manifest.path("holes.img"), "wb") as image:
            image.seek(4 * MIB)
            image.write(random.Random(3).randbytes(MIB))
        for tar_format in ("gnu", "posix"):
            self.refuse(self.tar(f"sparse-{tar_format}.tar", "holes.img",
                                 options=("-S", f"--format={tar_format}")), "sparse", "sparse")
        self.write("chunks.ovf", descriptor(["disk1.vmdk"], extra='ovf:chunkSize="7516192768"'))
        self.refuse(self.tar("chunks.ova", "chunks.ovf", "disk1.vmdk"), "chunks", "sparse")

    def packed(self):
        for name, source in (("image.qcow2", "image.qcow2"), ("image.vhd", "image.vhd"),
                             ("disk1.vmdk", "disk1.vmdk")):
            path = self.manifest.path("blocks-" + name + ".xz")
            shell("xz -0 -T2 --block-size=1MiB -c {source} > {path}",
                  source=self.manifest.path(source), path=path)
            self.add(path, "xz")
            with open(self.manifest.path(source), "rb") as image:
                packed = seekable_zstd(image.read(), 700001, b"spare" if name == "image.vhd" else b"")
            self.write("seekable-" + name + ".zst", packed)
            self.add(self.manifest.path("seekable-" + name + ".zst"), "zstd")
        path = self.manifest.path("streams.xz")  # two streams with padding between them
        shell("(head -c 3000001 {raw} | xz -0 -C sha256; printf '\\0\\0\\0\\0'; "
              "tail -c +3000002 {raw} | xz -0 -C crc32 --block-size=500KiB) > {path}",
              raw=self.manifest.path("image.vhd"), path=path)
        self.add(path, "xz")
        path = self.manifest.path("ustar.ova.xz")
        shell("xz -0 -T2 --block-size=1MiB -c {ova} > {path}",
              ova=self.manifest.path("ustar.ova"), path=path)
        self.add(path, "compressed archive")
        self.add(path, "compressed archive", "#disk1.vmdk")
        os.rename(self.manifest.path("blocks-image.qcow2.xz"), self.manifest.path("inner.qcow2.xz"))
        path = self.tar("packed-member.tar", "inner.qcow2.xz")
        self.add(path, "compressed archive", "#inner.qcow2.xz")
        os.rename(self.manifest.path("inner.qcow2.xz"), self.manifest.path("blocks-image.qcow2.xz"))

    def refused_packed(self):
        image = self.manifest.path("image.qcow2")
        for command, ending, words, feature in (
                ("gzip -1", ".gz", "gzip -dk", "gzip"), ("zstd -q -1", ".zst", "zstd -dk",
                                                         "zstd in one piece"),
                ("pzstd -q -1", ".pzst", "zstd -dk", "zstd in one piece")):
            shell("{command} -c {image} > {image}{ending}", command=command, image=image,
                  ending=ending)
            self.refuse(image + ending, words, feature)
        large = self.manifest.path("large.raw")
        write_raw(large, bytes(33 * MIB))
        shell("xz -0 -T1 -c {large} > {large}.xz", large=large)
        self.refuse(large + ".xz", "--block-size=16MiB", "xz in one piece")
        shell("tar -C {folder} -cf {folder}/gzip.tar image.qcow2.gz", folder=self.manifest.folder)
        self.refuse(self.manifest.path("gzip.tar"), "gzip -dk", "gzip", "#image.qcow2.gz")
        for name in ("blocks-image.vhd.xz", "seekable-image.vhd.zst"):
            with open(self.manifest.path(name), "rb") as file:
                data = file.read()
            self.write("cut-" + name, data[:-4])
            self.refuse(self.manifest.path("cut-" + name),
                        "damaged" if name.endswith("xz") else "no seek table",
                        "damaged" if name.endswith("xz") else "zstd in one piece")


def main():
    maker = Maker()
    maker.appliances()
    maker.other_files()
    maker.archives()
    maker.refused_archives()
    maker.packed()
    maker.refused_packed()


main()
