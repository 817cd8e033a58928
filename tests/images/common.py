"""What the image makers share: raw sources with known contents, and the manifest.

An image maker is a program  tests/images/FORMAT.py DIR  that makes images of every kind of its
format in DIR, and DIR/FORMAT.jsonl, one line for each image that must be served with equal contents:
    {"name": ..., "path": ..., "raw": ..., "args": [...], "oracles": [...], "parents": [...]}
path: the image. raw: a file with the contents that a reader must show. args: options of underlay-nbd
(and disk-dump) that the image needs, "-f", "qcow2" say. oracles: programs other than ours that read
this image rightly: "qemu", "libqcow", "libvhdi". parents: the images that it stands on, nearest
first, for oracles that do not find them themselves.
"""
import json
import os
import random
import struct
import subprocess
import sys

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


class Manifest:
    """Collects the lines of DIR/FORMAT.jsonl."""

    def __init__(self, folder, format_name):
        self.folder = os.path.abspath(folder)
        os.makedirs(self.folder, exist_ok=True)
        self.file = open(os.path.join(self.folder, format_name + ".jsonl"), "w", encoding="utf-8")

    def path(self, name):
        return os.path.join(self.folder, name)

    def add(self, name, path, raw, args=(), oracles=(), parents=()):
        line = {"name": name, "path": str(path), "raw": str(raw), "args": list(args),
                "oracles": list(oracles), "parents": [str(parent) for parent in parents]}
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()


def folder_argument():
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} DIR")
    return sys.argv[1]
