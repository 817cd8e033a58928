"""What the rules about clients share: the program, files with known contents, and real clients.

A rule is a function rule_...(lab). Its name says what must hold; it raises when it does not.
"""
import os
import random
import subprocess
import urllib.parse

import harness
import nbd_client as nbd
from protocol_rules import check, expect

MIB = 1 << 20


class Lab:
    """The program under test, and a folder for files."""

    def __init__(self, program, folder):
        self.program = program
        self.folder = folder

    def path(self, *names):
        """A path in the folder, whose parents exist."""
        path = os.path.join(self.folder, *names)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def serve(self, *args):
        return harness.serve(args, program=self.program)

    def raw(self, *names, size=3 * MIB, seed=1):
        """A raw image of random bytes: path, contents."""
        contents = random.Random(seed).randbytes(size)
        path = self.path(*names)
        with open(path, "wb") as out:
            out.write(contents)
        return path, contents

    def image(self, *names, seed=1):
        """A qcow2 image of random bytes: path, contents."""
        raw, contents = self.raw("source.raw", seed=seed)
        path = self.path(*names)
        run("qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", raw, path)
        return path, contents

    def compressed(self, *names, size):
        """A qcow2 image with compressed clusters, whose replies take memory: path, contents."""
        contents = b"".join(b"%016d" % number for number in range(size // 16))
        raw = self.path("source.raw")
        with open(raw, "wb") as out:
            out.write(contents)
        path = self.path(*names)
        run("qemu-img", "convert", "-q", "-c", "-f", "raw", "-O", "qcow2", raw, path)
        return path, contents

    def check_copy(self, uri, contents):
        """nbdcopy reads `contents` there."""
        copy = self.path("copy")
        run("nbdcopy", uri, copy)
        with open(copy, "rb") as file:
            check(file.read() == contents, f"{uri}: nbdcopy reads other contents")
        os.unlink(copy)


def run(*command):
    status, output, errors = harness.run(command)
    check(status == 0, f"{' '.join(map(str, command))}: exit {status}\n{output}{errors}")


def unix_uri(server, name=""):
    """With any characters in the export's name."""
    return harness.uri(server.socket, urllib.parse.quote(name, safe=""))


def connect(server, name="", structured=False):
    """A connection in transmission."""
    connection = nbd.Connection(server.socket)
    connection.greeting()
    if structured:
        connection.negotiate_structured()
    connection.go(name)
    return connection


def check_read(connection, contents, offset, length):
    answer = connection.read(offset, length)
    expect(answer.error, 0, f"error of READ {offset}+{length}")
    check(answer.data == contents[offset:offset + length], f"wrong bytes at {offset}+{length}")
