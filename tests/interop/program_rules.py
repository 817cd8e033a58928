"""What the rules about the whole program share: running it, reading from it, making images.

A rule is a function rule_...(lab). Its name says what must hold; it raises when it does not.
"""
import os
import random
import struct
import subprocess

import harness
import nbd_client as nbd
from protocol_rules import check, expect, wait_for

MIB = 1 << 20
EXIT_SECONDS = 10


class Lab:
    """The program under test, and a folder for images."""

    def __init__(self, program, folder):
        self.program = program
        self.folder = folder
        self.sanitized = harness.sanitized(program)
        self.cost = 4 if self.sanitized else 1
        self.counter = 0

    def path(self, name):
        return os.path.join(self.folder, name)

    def new_path(self, suffix=""):
        self.counter += 1
        return self.path(f"file{self.counter}{suffix}")

    def serve(self, *args, program=None, env=None):
        return harness.serve(args, program=program or self.program, env=env)

    def run(self, *args, **popen):
        """Runs the program where it must end by itself: exit status, standard error."""
        command = [self.program, "-k", self.path("never-bound"), *map(str, args)]
        return self.run_command(command, **popen)

    def run_command(self, command, **popen):
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, errors="surrogateescape",
                                  timeout=EXIT_SECONDS, **popen)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(
                f"{' '.join(command)}: still runs after {EXIT_SECONDS} s") from error
        expect(done.stdout, "", "standard output")
        check(not harness.SANITIZER_REPORT.search(done.stderr), done.stderr)
        return done.returncode, done.stderr

    def refused(self, *args, names, **popen):
        """Runs the program, which must refuse in one line that names `names`; the line."""
        status, errors = self.run(*args, **popen)
        return self.check_refusal(status, errors, names)

    def check_refusal(self, status, errors, names):
        expect(status, 1, f"exit status ({errors!r})")
        check(errors.count("\n") == 1 and errors.endswith("\n"), f"not one line: {errors!r}")
        check(names in errors, f"{errors!r} does not name {names!r}")
        check(errors.startswith("underlay-nbd: "), f"{errors!r} does not name the program")
        return errors.strip()


def qemu_img(*args):
    subprocess.run(["qemu-img", *map(str, args)], check=True, stdout=subprocess.DEVNULL)


def qemu_io(path, *commands, format_name="qcow2"):
    words = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", "-f", format_name, *words, path], check=True)


def make_image(lab, format_name, options=(), size=4 * MIB, seed=1):
    """An image with random contents in its second half: path, contents."""
    contents = bytes(size // 2) + random.Random(seed).randbytes(size // 2)
    raw = lab.new_path(".raw")
    with open(raw, "wb") as out:
        out.write(contents)
    if format_name == "raw":
        return raw, contents
    path = lab.new_path("." + format_name)
    qemu_img("convert", "-f", "raw", "-O", format_name, *options, raw, path)
    return path, contents


def read_file(path):
    with open(path, "rb") as file:
        return file.read()


def write_file(path, data):
    with open(path, "wb") as out:
        out.write(data)
    return path


def patched(data, offset, new):
    """`data` with other bytes at `offset`; from the end when that is negative."""
    at = offset if offset >= 0 else len(data) + offset
    return data[:at] + new + data[at + len(new):]


def connect(server, name="", structured=False, timeout=10):
    """A connection in transmission."""
    connection = nbd.Connection(server.socket, timeout)
    connection.greeting()
    if structured:
        connection.negotiate_structured()
    connection.go(name)
    return connection


def served_contents(server, name="", length=None):
    with connect(server, name) as connection:
        size = connection.export.size if length is None else length
        parts = []
        for offset in range(0, size, MIB):
            answer = connection.read(offset, min(MIB, size - offset))
            expect(answer.error, 0, f"error of a read at {offset}")
            parts.append(answer.data)
        return b"".join(parts)


def list_names(server):
    with nbd.Connection(server.socket) as connection:
        connection.greeting()
        replies = connection.option(nbd.OPT_LIST)
        expect(replies[-1].kind, nbd.REP_ACK, "LIST")
        return [reply.data[4:4 + struct.unpack(">I", reply.data[:4])[0]].decode()
                for reply in replies[:-1]]


def go_result(server, name):
    with nbd.Connection(server.socket) as connection:
        connection.greeting()
        return connection.info(nbd.OPT_GO, name)


__all__ = ["EXIT_SECONDS", "Lab", "MIB", "check", "connect", "expect", "go_result", "list_names",
           "make_image", "patched", "qemu_img", "qemu_io", "read_file", "served_contents",
           "wait_for", "write_file"]
