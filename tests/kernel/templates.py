"""Templates for the scenarios, made on the host once a run: starting qemu-img is slow in the guest.

make(folder) writes them, their contents, and folder/templates.json, one entry a template:
    {"name": ..., "path": ..., "format": ..., "raw": a file with the contents,
     "file_system": is it an ext4 with the folder `linux` and the file `marker`?}
"""
import json
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../images"))
from common import content, run, write_raw
from vhd_builder import sparse

MIB = 1 << 20
SIZE = 24 * MIB
ODD_SIZE = 9 * MIB + 3 * 512  # no multiple of a page, of a cluster, or of a pool's block
FILES = "/usr/include/linux"  # real files that every machine with a compiler has
UUID = "6e7b0b0c-3a1f-4a0e-9d5e-1f0c6f2f9a11"


class Maker:
    def __init__(self, folder):
        self.folder = folder
        self.templates = []

    def add(self, name, format_name, raw, file_system=True):
        self.templates.append({"name": name, "path": str(self.folder / name),
                               "format": format_name, "raw": str(raw),
                               "file_system": file_system})
        return self.folder / name

    def convert(self, name, format_name, raw, *options, file_system=True):
        path = self.add(name, format_name, raw, file_system)
        run("qemu-img", "convert", "-f", "raw", "-O", format_name, *options, raw, path)
        return path

    def ext4(self, name, tree):
        raw = self.folder / name
        run("truncate", "-s", SIZE, raw)
        run("mke2fs", "-q", "-F", "-t", "ext4", "-U", UUID, "-E", "hash_seed=" + UUID, "-d", tree,
            raw)
        return raw

    def file_systems(self):
        """Two that differ a little: a parent and its child."""
        tree = self.folder / "tree"
        shutil.copytree(FILES, tree / "linux")
        (tree / "marker").write_text("as in the template\n")
        base = self.ext4("base.raw", tree)
        shutil.copy(tree / "linux/ip.h", tree / "linux/copy-of-ip.h")
        (tree / "large").write_bytes(content(2 * MIB, 7))
        child = self.ext4("child.raw", tree)
        shutil.rmtree(tree)
        return base, child

    def make(self):
        base, child = self.file_systems()
        force_size = ("-o", "force_size=on")  # else the size is rounded up to a geometry
        self.convert("plain.qcow2", "qcow2", base)
        self.convert("compressed.qcow2", "qcow2", base, "-c")
        self.convert("chain.qcow2", "qcow2", child,
                     "-B", self.folder / "plain.qcow2", "-F", "qcow2")
        partly = bytearray(base.read_bytes())
        partly[-4 * MIB:-3 * MIB] = content(MIB, 9)  # where the file system has nothing
        self.convert("chain-on-compressed.qcow2", "qcow2",
                     write_raw(self.folder / "partly.raw", partly),
                     "-B", self.folder / "compressed.qcow2", "-F", "qcow2")
        self.convert("dynamic.vhd", "vpc", base, *force_size)
        self.convert("sparse.vmdk", "vmdk", base)
        self.convert("stream.vmdk", "vmdk", base, "-o", "subformat=streamOptimized")
        parent = base.read_bytes()
        (self.folder / "parent.vhd").write_bytes(sparse(parent, "parent"))
        self.add("differencing.vhd", "vpc", child).write_bytes(
            sparse(child.read_bytes(), "child", parent, "parent",
                   locators=[(b"W2ru", ".\\parent.vhd")]))
        odd = write_raw(self.folder / "odd.raw", content(ODD_SIZE, 3))
        self.convert("odd.qcow2", "qcow2", odd, file_system=False)
        (self.folder / "templates.json").write_text(json.dumps(self.templates))


def make(folder):
    folder.mkdir()
    Maker(folder).make()
