#!/usr/bin/python3
"""underlay-nbd -L prints what qemu-nbd -L prints, about servers of several kinds.

usage: list_exports_test.py UNDERLAY_NBD
"""
import os
import subprocess
import sys
import tempfile

from harness import run, start

MANY = """case $1 in
list_exports) printf 'NAMES+DESCRIPTIONS\\na\\nfirst\\nb\\nsecond\\n' ;;
get_size) echo 1M ;;
open) echo handle ;;
pread) exit 1 ;;
*) exit 2 ;;
esac
"""


def servers(folder, path):
    """Name, command."""
    image = os.path.join(folder, "files", "one")
    qcow2 = os.path.join(folder, "disk.qcow2")
    script = os.path.join(folder, "many.sh")
    os.mkdir(os.path.dirname(image))
    for name, size in (("one", 1 << 20), ("two words", 3072), ("zero", 0)):
        with open(os.path.join(folder, "files", name), "wb") as out:
            out.truncate(size)
    with open(script, "w", encoding="utf-8") as out:
        out.write("#!/bin/sh\n" + MANY)
    os.chmod(script, 0o755)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", qcow2, "1M"], check=True)
    qemu = ["qemu-nbd", "-r", "-t", "-k", path]
    nbdkit = ["nbdkit", "-f", "-U", path]
    return [
        ("default name", [*qemu, "-f", "raw", image]),
        ("name and description", [*qemu, "-f", "raw", "-x", "a b", "-D", "a text", image]),
        ("contexts", [*qemu, "-f", "qcow2", "-A", "-e", "5", qcow2]),
        ("folder", [*nbdkit, "file", f"dir={os.path.join(folder, 'files')}"]),
        ("descriptions", [*nbdkit, "sh", script]),
        ("no structured replies", [*nbdkit, "-r", "--no-sr", "memory", "1M"]),
        ("oldstyle", [*nbdkit, "-o", "memory", "1M"]),
        ("block sizes", [*nbdkit, "--filter=blocksize-policy", "memory", "1M",
                         "blocksize-minimum=512", "blocksize-preferred=64k",
                         "blocksize-maximum=1M"]),
    ]


def main():
    underlay = sys.argv[1]
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "socket")
        for name, command in servers(folder, path):
            with start(command, path):
                theirs = run(["qemu-nbd", "-L", "-k", path])
                ours = run([underlay, "-L", "-k", path])
            good = theirs[0] == 0 and ours == theirs
            failed += not good
            print("ok  " if good else "FAIL", name, flush=True)
            if not good:
                print(f"qemu-nbd: {theirs}\nunderlay: {ours}")
        status, _, errors = run([underlay, "-L", "-k", path])
        good = status == 1 and errors.count("\n") == 1 and path in errors
        failed += not good
        print("ok  " if good else "FAIL", "nobody listens:", errors.strip(), flush=True)
    sys.exit(1 if failed else 0)


main()
