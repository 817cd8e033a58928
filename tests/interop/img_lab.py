"""What the rules about underlay-img share: running it, and images for it.

A rule is a function rule_...(lab). Its name says what must hold; it raises when it does not.
"""
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import harness

KIB = 1 << 10
MIB = 1 << 20
SECONDS = 60


# A process's peak counts that of the one that it was forked from: this one is small.
MEASURE = """import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"""


def interrupted(words, after=1):
    """(exit status, output, errors) of a command that gets SIGINT after so many seconds."""
    # A pipe that nobody reads meanwhile would hold up the command.
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out,
                                   stderr=subprocess.PIPE, text=True)
        try:
            time.sleep(after)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
        finally:
            process.kill()
            process.wait()
        out.seek(0)
        return process.returncode, out.read(), errors


class Done(NamedTuple):
    """How a run ended."""
    status: int
    stdout: bytes
    stderr: str


class ProgramInFolder:
    """The program under test, and a folder for images."""

    def __init__(self, program, folder):
        self.program = program
        self.folder = folder
        self.sanitized = harness.sanitized(program)

    def path(self, name):
        return os.path.join(self.folder, name)


class Lab(ProgramInFolder):
    def run(self, *args, env=None, stdout=subprocess.PIPE):
        done = subprocess.run([self.program, *map(str, args)], stdin=subprocess.DEVNULL,
                              stdout=stdout, stderr=subprocess.PIPE, timeout=SECONDS, check=False,
                              env={**os.environ, **(env or {})})
        return Done(done.returncode, done.stdout, done.stderr.decode())

    def peak_bytes(self, *args):
        """The most memory that a run took, which must go well."""
        done = subprocess.run([sys.executable, "-c", MEASURE, self.program, *args],
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS,
                              check=True)
        return int(done.stdout) * KIB

    def output(self, *args):
        """Of a run that must go well, without a word of error."""
        done = self.run(*args)
        assert done.status == 0 and not done.stderr, done
        return done.stdout

    def json(self, *args):
        return json.loads(self.output(*args))

    def refusal(self, *args, **run):
        """The one line of a run that must be refused."""
        done = self.run(*args, **run)
        lines = done.stderr.splitlines()
        assert done.status == 1 and len(lines) == 1, done
        return lines[0]

    def qcow2(self, name, size, *commands, options="", backing=None, backing_format="qcow2"):
        """An image to which qemu-io did `commands`."""
        path = self.path(name)
        words = ["qemu-img", "create", "-q", "-f", "qcow2"]
        if options:
            words += ["-o", options]
        if backing:
            words += ["-b", os.path.basename(backing), "-F", backing_format]
        subprocess.run([*words, path, str(size)], check=True)
        self.write("qcow2", path, *commands)
        return path

    def raw(self, name, size, *commands):
        path = self.path(name)
        with open(path, "wb") as out:
            out.truncate(size)
        self.write("raw", path, *commands)
        return path

    @staticmethod
    def write(format_name, path, *commands):
        if commands:
            words = [word for command in commands for word in ("-c", command)]
            subprocess.run(["qemu-io", "-f", format_name, *words, path], check=True,
                           stdout=subprocess.DEVNULL)


def qcow2_of_many_tables(path):
    """8 GiB of nothing in 4096 L2 tables: whoever looks at all of it needs a read for each. (qemu-img
    would wait for the disk.)"""
    tables, cluster, copied = 4096, 4 * KIB, 1 << 63
    first_table = 1 + tables * 8 // cluster
    reftable = first_table + tables
    blocks = -(-(reftable + 8) // (cluster // 2))
    used = reftable + 1 + blocks
    with open(path, "wb") as file:
        file.write(struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, 12, tables * cluster * 512,
                               0, tables, cluster, reftable * cluster, 1, 0, 0, 0, 0, 0, 4, 104))
        file.seek(cluster)
        file.write(struct.pack(f">{tables}Q", *((first_table + i) * cluster | copied
                                                for i in range(tables))))
        file.seek(reftable * cluster)
        file.write(struct.pack(f">{blocks}Q", *((reftable + 1 + i) * cluster
                                                for i in range(blocks))))
        file.seek((reftable + 1) * cluster)
        file.write(b"\0\1" * used)
        file.truncate(used * cluster)
    return path


def l2_tables(path):
    """File offsets of the L2 tables of a qcow2 image, 0 for none."""
    with open(path, "rb") as image:
        header = image.read(48)
        l1_size, l1_offset = struct.unpack(">36xIQ", header)
        image.seek(l1_offset)
        entries = struct.unpack(f">{l1_size}Q", image.read(8 * l1_size))
    return [entry & 0x00fffffffffffe00 for entry in entries]


def patch(path, offset, data):
    with open(path, "r+b") as image:
        image.seek(offset)
        image.write(data)
