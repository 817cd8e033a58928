"""Damaged images for img_check_test.py: what its modules img_check_FORMAT.py share."""
import os
import struct
import subprocess
from typing import NamedTuple

CLEAN, FAILED, CORRUPT, LEAKS = 0, 1, 2, 3
# Counts for which qemu-img has none but of qcow2.
TOTALS = {"image-end-offset", "total-clusters", "allocated-clusters", "fragmented-clusters",
          "compressed-clusters"}


class Damage(NamedTuple):
    name: str
    path: str
    codes: frozenset  # of findings that there must be
    status: int  # None: whatever qemu-img says
    differs: str  # why qemu-img says something else; "" when it does not
    args: tuple  # options


class Case(NamedTuple):
    """An image is good, but for what change(image) does to it."""
    name: str
    change: object
    codes: str  # of findings, with a space between them
    status: int
    differs: str = ""


class Image:
    """The bytes of an image. A format's own class says where its structures lie."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = bytearray(file.read())

    def get(self, at, code):
        return struct.unpack_from(code, self.data, at)[0]

    def put(self, at, value, code):
        struct.pack_into(code, self.data, at, value)

    def flip(self, at):
        self.data[at] ^= 1

    def cut(self, length):
        del self.data[len(self.data) - length:]

    def append(self, length):
        self.data += bytes(length)


def run(*words):
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)


def make(folder, format_name, size, writes, *options):
    """An image of qemu-img's, with bytes 1, 2... where `writes` says: (offset, length)."""
    path = os.path.join(folder, "good." + format_name)
    run("qemu-img", "create", "-q", "-f", format_name, *options, path, size)
    commands = [word for byte, (offset, length) in enumerate(writes, 1)
                for word in ("-c", f"write -P {byte} {offset} {length}")]
    run("qemu-io", "-f", format_name, *commands, path)
    return path


def damaged(good, image_class, format_name, cases):
    """Damage after Damage; removes `good` behind the last."""
    for case in cases:
        image = image_class(good)
        case.change(image)
        path = os.path.join(os.path.dirname(good), "damaged." + format_name)
        with open(path, "wb") as file:
            file.write(image.data)
        yield Damage(case.name, path, frozenset(case.codes.split()), case.status, case.differs,
                     ("-f", format_name))
    os.unlink(good)
