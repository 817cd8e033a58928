"""What the rules about underlay-img convert share: disks, the kinds of images that are written, and
how they are judged: by qemu-img, by the libraries of libyal, and by our own check."""
import os
import random
import subprocess
from typing import NamedTuple

from img_lab import KIB, MIB, Lab as ImgLab

GIB = 1 << 30
NOTHING_TO_CHECK = 63


class Target(NamedTuple):
    """A kind of image."""
    options: tuple          # convert's
    format: str             # qemu-img's name
    exact_size: bool = True  # has it the size of the disk, or one that a geometry can state?
    streams: bool = False
    second_opinion: bool = True  # by a library of libyal
    needs_bytes: bool = False    # a disk of none cannot be in it


def qcow2(*options, **more):
    return Target(("-O", "qcow2", *options), "qcow2", **more)


def vhd(*options, **more):
    return Target(("-O", "vpc", *options), "vpc", needs_bytes=True, **more)


def vmdk(*options, **more):
    return Target(("-O", "vmdk", *options), "vmdk", needs_bytes=True, **more)


TARGETS = {
    "raw": Target((), "raw", streams=True, second_opinion=False),
    "qcow2": qcow2(),
    "qcow2-version-2": qcow2("-o", "compat=0.10"),
    "qcow2-512": qcow2("-o", "cluster_size=512"),
    "qcow2-2M": qcow2("-o", "cluster_size=2M"),
    "qcow2-zlib": qcow2("-c"),
    "qcow2-zlib-4k": qcow2("-c", "-o", "cluster_size=4k,compat=0.10"),
    "qcow2-zlib-2M": qcow2("-c", "-o", "cluster_size=2M"),
    # libqcow knows no zstd.
    "qcow2-zstd": qcow2("-c", "-o", "compression_type=zstd", second_opinion=False),
    "qcow2-zstd-512": qcow2("-c", "-o", "compression_type=zstd,cluster_size=512",
                            second_opinion=False),
    "vhd": vhd(exact_size=False),
    "vhd-exact": vhd("-o", "subformat=dynamic,force_size=on"),
    "vhd-fixed": vhd("-o", "subformat=fixed", exact_size=False, streams=True),
    "vhd-fixed-exact": vhd("-o", "subformat=fixed,force_size", streams=True),
    "vmdk": vmdk(),
    "vmdk-stream": vmdk("-o", "subformat=streamOptimized,adapter_type=lsilogic", streams=True),
}

# One of each kind that stores bytes otherwise.
USUAL_TARGETS = ("raw", "qcow2", "qcow2-zlib", "qcow2-zstd", "vhd", "vhd-fixed-exact", "vmdk",
                 "vmdk-stream")

# (offset, length) of "Z", in a disk that ends with the last of them.
HUGE_CONTENT = [(0, 4096), ((2 << 40) - 4096, 69_632), (3 << 40, 512)]

# name: size, runs of (offset, length, kind of content)
DISKS = {
    "no bytes": (0, []),
    "a sector": (512, [(0, 512, "random")]),
    "no sectors": (1_000_003, [(0, 100_000, "text"), (990_000, 10_003, "random")]),
    "nothing": (70 * MIB, []),
    "zeros that are stored": (5 * MIB, [(0, 3 * MIB, "zeros"), (3 * MIB, 100, "text")]),
    "full": (4 * MIB + 512, [(0, 4 * MIB + 512, "random")]),
    "mixed": (9 * MIB, [(i * 192 * KIB, 100 * KIB, kind) for i, kind
                        in enumerate(("text", "random", "zeros", "same") * 11)]),
    "ends": (70 * MIB - 1024, [(0, 1, "same"), (70 * MIB - 1025, 1, "same")]),
    "sparse": (GIB + 1536, [(i * 19 * MIB + 4096 * i, 5000 + 70_000 * (i % 3), "text")
                             for i in range(50)]),
    "huge": ((3 << 40) + 512, [(*run, "same") for run in HUGE_CONTENT]),
}


def content(kind, length, seed):
    rng = random.Random(seed)
    if kind == "random":
        return rng.randbytes(length)
    if kind == "text":
        words = [rng.randbytes(rng.randrange(2, 12)).hex().encode() for _ in range(300)]
        text = b" ".join(rng.choice(words) for _ in range(length // 5 + 1))
        return text[:length]
    return (b"\0" if kind == "zeros" else b"Z") * length


class Lab(ImgLab):
    def disk(self, name):
        """A raw disk of DISKS."""
        size, runs = DISKS[name]
        return self.raw_of(name.replace(" ", "-") + ".raw", size, runs)

    def raw_of(self, name, size, runs):
        path = self.path(name)
        with open(path, "wb") as out:
            for offset, length, kind in runs:
                out.seek(offset)
                out.write(content(kind, min(length, size - offset), f"{name} {offset}"))
            out.truncate(size)
        return path

    def convert(self, source, target, *options, source_format="raw"):
        """Must go well, without a word. The path of the image."""
        words = ["-f", source_format] if source_format else []
        path = target if os.path.isabs(target) else self.path(target)
        assert self.output("convert", *words, *options, source, path) == b""
        return path

    def left_in_folder(self):
        return sorted(os.listdir(self.folder))

    def judge(self, raw, image, target):
        """Is the image whole, and equal to the raw disk, for everybody?"""
        compare_with_qemu(raw, image, target.format)
        self.output("compare", "-q", "-f", "raw", "-F", target.format, raw, image)
        check_with_qemu(image, target.format)
        if target.format == "raw":
            return
        done = self.run("check", "-f", target.format, "--output=json", image)
        assert done.status == 0, done
        # libvhdi takes a minute for a large disk.
        if target.second_opinion and os.path.getsize(raw) < 20 * MIB:
            self.output("compare", "-f", target.format, "--second-opinion", image)


def virtual_size(image, image_format):
    done = subprocess.run(["qemu-img", "info", "-f", image_format, "--output=json", image],
                          check=True, capture_output=True, text=True)
    return int(done.stdout.split('"virtual-size": ')[1].split(",")[0])


def compare_with_qemu(raw, image, image_format):
    done = subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", image_format, raw, image],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done


def read_with_qemu(image, image_format, content):
    """Is `content` there, and are there zeros before and behind each of its runs?"""
    size = virtual_size(image, image_format)
    reads = []
    for offset, length in content:
        for start, end, byte in ((offset - MIB, offset, 0), (offset, offset + length, ord("Z")),
                                 (offset + length, offset + length + MIB, 0)):
            start, end = max(start, 0), min(end, size)
            if start < end:
                reads += ["-c", f"read -P {byte} {start} {end - start}"]
    done = subprocess.run(["qemu-io", "-r", "-f", image_format, *reads, image],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "failed" not in done.stdout, done


def check_with_qemu(image, image_format):
    """Without errors and leaks; not of formats that it does not check."""
    done = subprocess.run(["qemu-img", "check", "-f", image_format, image], capture_output=True,
                          text=True, check=False)
    if done.returncode == NOTHING_TO_CHECK:
        assert image_format in ("raw", "vpc"), done
        return
    assert done.returncode == 0 and "No errors were found" in done.stdout, done


def same_bytes(one, other):
    return subprocess.run(["cmp", "-s", one, other], check=False).returncode == 0
