"""The images that the benchmark reads: one template of real files in every format, backing chains
on it, and huge sparse disks. All are made by qemu-img and qemu-io, once, and kept for the next run.
"""
import collections
import os
import random
import re
import subprocess

# The data lies at the front of a disk that is so many times as large.
DISK_TO_DATA = 4
CLUSTER = 64 << 10

CHAIN_WRITES = 64  # to each child of a chain, of a cluster each
SPARSE_WRITES = 3000  # to a huge disk, of a cluster each

# path; format as servers name it; raw: what is right, None for a huge disk; bytes of data at the
# front; written: {offset: byte} of a huge disk's clusters; files: all that are read
Image = collections.namedtuple("Image", "path format raw data_bytes written files",
                               defaults=(None, ()))

# How qemu-img makes the template of each kind: format, options.
KINDS = {
    "raw": ("raw", []),
    "qcow2": ("qcow2", []),
    "vhd": ("vpc", ["-o", "subformat=dynamic,force_size=on"]),
    "vhdx": ("vhdx", ["-o", "subformat=dynamic"]),
    "vmdk": ("vmdk", ["-o", "subformat=monolithicSparse"]),
    "qcow2-zlib": ("qcow2", ["-c"]),
    "qcow2-zstd": ("qcow2", ["-c", "-o", "compression_type=zstd"]),
    "vmdk-stream": ("vmdk", ["-o", "subformat=streamOptimized"]),
}
# kind: format, options, bytes
SPARSE_DISKS = {
    "qcow2-64T": ("qcow2", ["-o", f"cluster_size={CLUSTER}"], 64 << 40),
    "vhd-2040G": ("vpc", ["-o", "subformat=dynamic,force_size=on"], 2040 << 30),
}


class ImageFailure(Exception):
    """An image could not be made."""


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise ImageFailure(f"{' '.join(command[:6])}: {done.stderr.strip()}")


def drop_from_page_cache(image):
    for path in image.files:
        with open(path, "rb") as file:
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def warm_page_cache(image):
    """Reads what is stored; holes of a huge disk would fill the memory."""
    buffer = bytearray(1 << 20)
    for path in image.files:
        with open(path, "rb", buffering=0) as file:
            for start, end in stored_ranges(file):
                file.seek(start)
                while start < end:
                    start += file.readinto(memoryview(buffer)[:min(end - start, len(buffer))])


def stored_ranges(file):
    size = os.fstat(file.fileno()).st_size
    end = 0
    while end < size:
        try:
            start = os.lseek(file.fileno(), end, os.SEEK_DATA)
        except OSError:  # a hole up to the end
            return
        end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
        yield start, end


class Images:
    """The images in `folder`, made when they are first asked for."""

    def __init__(self, folder, data_bytes, progress):
        self.folder = folder
        self.data_bytes = data_bytes
        self._progress = progress
        os.makedirs(folder, exist_ok=True)

    def get(self, kind):
        """`kind`: of KINDS, SPARSE_DISKS, or chain-N: a chain of N images on the template."""
        if kind in SPARSE_DISKS:
            return self._sparse_disk(kind)
        if kind.startswith("chain-"):
            return self._chain(int(kind.removeprefix("chain-")))
        raw = self._once("template.raw", self._make_template)
        if kind == "raw":
            return Image(raw, "raw", raw, self.data_bytes, files=(raw,))
        image_format, options = KINDS[kind]
        path = self._once(f"template.{kind}", lambda part: run(
            ["qemu-img", "convert", "-f", "raw", "-O", image_format, *options, raw, part]))
        return Image(path, image_format, raw, self.data_bytes, files=(path,))

    def _once(self, name, make):
        """The path of `name`, made under another name so that nothing half made is ever used."""
        path = os.path.join(self.folder, name)
        if not os.path.exists(path):
            self._progress(f"making {name}")
            part = os.path.join(self.folder, "part." + name)
            if os.path.exists(part):
                os.unlink(part)
            make(part)
            os.rename(part, path)
        return path

    def _make_template(self, part):
        """Files of /usr, one after the other."""
        left = self.data_bytes
        with open(part, "wb") as out:
            for path in files_beneath("/usr"):
                with open(path, "rb") as file:
                    left -= out.write(file.read(left))
                if left == 0:
                    break
            out.truncate(self.data_bytes * DISK_TO_DATA)
        if left > 0:
            raise ImageFailure(f"/usr has {self.data_bytes - left} bytes of files, "
                               f"the template wants {self.data_bytes}: give --data less")

    def _chain(self, length):
        """Each child has a few clusters of its own, all over the data, so that each has tables."""
        base = self.get("qcow2")
        if length == 1:
            return base
        raw = self._once(f"chain-{length}.raw",
                         lambda part: self._write_chain_raw(part, base.raw, length))
        path = base.path
        files = [path]
        for number in range(1, length):
            backing = os.path.basename(path)
            path = self._once(f"chain-{length}.{number}.qcow2",
                              lambda part, number=number, backing=backing: self._make_child(
                                  part, backing, self._child_writes(length, number)))
            files.append(path)
        return Image(path, "qcow2", raw, self.data_bytes, files=tuple(files))

    def _child_writes(self, length, number):
        chooser = random.Random(length * 1000 + number)
        clusters = self.data_bytes // CLUSTER
        return {chooser.randrange(clusters) * CLUSTER: number for _ in range(CHAIN_WRITES)}

    def _write_chain_raw(self, part, template, length):
        run(["cp", "--sparse=always", template, part])
        with open(part, "r+b") as file:
            for number in range(1, length):
                for offset, byte in self._child_writes(length, number).items():
                    file.seek(offset)
                    file.write(bytes([byte]) * CLUSTER)

    def _make_child(self, part, backing, writes):
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", backing, "-F", "qcow2", part])
        write_patterns(part, "qcow2", writes)

    def _sparse_disk(self, kind):
        image_format, options, size = SPARSE_DISKS[kind]
        chooser = random.Random(kind)
        writes = {chooser.randrange(size // CLUSTER) * CLUSTER: chooser.randrange(1, 256)
                  for _ in range(SPARSE_WRITES)}

        def make(part):
            run(["qemu-img", "create", "-q", "-f", image_format, *options, part, str(size)])
            write_patterns(part, image_format, writes)
        path = self._once(kind, make)
        return Image(path, image_format, None, size, writes, (path,))


def write_patterns(path, image_format, writes):
    """`writes`: {offset: byte}, of a cluster each."""
    commands = "".join(f"write -q -P {byte} {offset} {CLUSTER}\n"
                       for offset, byte in writes.items())
    run(["qemu-io", "-f", image_format, "-t", "unsafe", path], input=commands)


def files_beneath(folder):
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            if os.path.isfile(path) and not os.path.islink(path) and os.access(path, os.R_OK):
                yield path


def parse_bytes(text):
    """1G, 16M, 65536: as bytes."""
    match = re.fullmatch(r"(\d+)([KMG]?)", text)
    if not match:
        raise ValueError(f"{text}: a number of bytes, with K, M or G")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]]

