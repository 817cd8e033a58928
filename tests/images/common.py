"""What the image makers share: raw sources with known contents, and the manifest.

An image maker is a program  tests/images/FORMAT.py DIR  that makes images of every kind of its
format in DIR, and DIR/FORMAT.jsonl, one line for each image that must be served with equal contents:
    {"name": ..., "feature": ..., "path": ..., "raw": ..., "args": [...], "oracles": [...],
     "parents": [...]}
feature: the key of a Feature. path: the image. raw: a file with the contents that a reader must
show. args: options of underlay-nbd (and disk-dump) that the image needs, "-f", "qcow2" say. oracles:
programs other than ours that read this image rightly: "qemu", "libqcow", "libvhdi", "libvmdk".
parents: the images that it stands on, nearest first, for oracles that do not find them themselves.

Images that must be refused have {"name": ..., "feature": ..., "path": ..., "args": [...],
"refused": ...} instead, with words that the one line of the refusal must have.

tests/images/FORMAT.py --features  prints the format's features as JSON: what README says of it.
"""
import json
import os
import random
import struct
import subprocess
import sys
from typing import NamedTuple

SECTOR = 512


def run(*command):
    """Runs a program; its output goes to the exception when it fails."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}")
    return done.stdout


def content(size, seed):
    """`size` bytes with long and short runs of random bytes, of text-like bytes and of zeros."""
    rng = random.Random(seed)
    parts = []
    left = size
    while left > 0:
        length = min(left, rng.choice([SECTOR, 4096, 65536, 200 * SECTOR, 1 << 20]))
        kind = rng.randrange(4)
        if kind == 0:
            parts.append(bytes(length))
        elif kind == 1:
            word = struct.pack(">Q", rng.getrandbits(64)) + b" underlay "
            parts.append((word * (length // len(word) + 1))[:length])
        else:
            parts.append(rng.randbytes(length))
        left -= length
    return b"".join(parts)


def padded(data, unit=SECTOR):
    return data + bytes(-len(data) % unit)


def write(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as out:
        out.write(data)
    return path


def changed(data, seed, size=None, sector=SECTOR):
    """`data` with runs of sectors overwritten: single ones, ones at the edges of bytes and words of
    a bitmap, long ones, and some with zeros, which are data of the child."""
    rng = random.Random(seed)
    after = bytearray(data if size is None else data[:size].ljust(size, b"\0"))
    sectors = len(after) // sector
    for _ in range(60):
        count = rng.choice([1, 1, 2, 7, 8, 9, 63, 64, 65, 250 * 1024 // sector])
        first = rng.choice([rng.randrange(sectors), max(rng.randrange(sectors // 64) * 64 - 1, 0)])
        part = slice(first * sector, min(first + count, sectors) * sector)
        length = part.stop - part.start
        after[part] = bytes(length) if rng.randrange(5) == 0 else rng.randbytes(length)
    return bytes(after)


def write_raw(path, data):
    """Writes `data` with its zero megabyte-blocks as holes."""
    with open(path, "wb") as out:
        for start in range(0, len(data), 1 << 20):
            part = data[start:start + (1 << 20)]
            if part.count(0) == len(part):
                out.seek(len(part), os.SEEK_CUR)
            else:
                out.write(part)
        out.truncate(len(data))
    return path


class QemuWriter:
    """Applies the same writes to an image (qemu-io) and to the content it must show."""

    def __init__(self, format_name, path, truth):
        self.format_name = format_name
        self.path = path
        self.truth = bytearray(truth)
        self.commands = []

    def write(self, offset, length, byte, flags=""):
        self.commands.append(f"write {flags} -P {byte} {offset} {length}")
        self.truth[offset:offset + length] = bytes([byte]) * length
        return self

    def zero(self, offset, length, flags=""):
        self.commands.append(f"write -z {flags} {offset} {length}")
        self.truth[offset:offset + length] = bytes(length)
        return self

    def done(self):
        words = ["qemu-io", "-f", self.format_name]
        for command in self.commands:
            words += ["-c", command]
        run(*words, self.path)
        self.commands = []
        return bytes(self.truth)


class Feature(NamedTuple):
    """One row of what README says that we read."""
    key: str
    text: str          # what such images are
    refused: str = ""  # why they are refused, and what to do; "" when they are read


class Manifest:
    """Collects the lines of DIR/FORMAT.jsonl, for the command line of an image maker."""

    def __init__(self, format_name, features):
        if len(sys.argv) != 2:
            sys.exit(f"usage: {sys.argv[0]} DIR|--features")
        if sys.argv[1] == "--features":
            print(json.dumps([feature._asdict() for feature in features]))
            sys.exit()
        self.folder = os.path.abspath(sys.argv[1])
        os.makedirs(self.folder, exist_ok=True)
        self.file = open(os.path.join(self.folder, format_name + ".jsonl"), "w", encoding="utf-8")

    def path(self, name):
        return os.path.join(self.folder, name)

    def add(self, name, path, raw, args=(), oracles=(), parents=(), *, feature):
        self._write(name=name, feature=feature, path=str(path), raw=str(raw), args=list(args),
                    oracles=list(oracles), parents=[str(parent) for parent in parents])

    def add_refused(self, name, path, refused, args=(), *, feature):
        self._write(name=name, feature=feature, path=str(path), args=list(args), refused=refused)

    def _write(self, **line):
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
