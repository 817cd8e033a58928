"""What the rules of handing over share: a server that can be followed by another, clients that load
it and check every byte, and a successor that speaks the protocol by hand and may fail at any point.

The protocol between the two processes is described in server/handover_message.h.
"""
import array
import contextlib
import os
import random
import socket
import struct
import threading
import time

import harness
import nbd_client as nbd
from program_rules import Lab, check, expect

BLOCK = 4096
MAGIC, VERSION = 0x55484F56, 1
(HELLO, EXPORT, EXPORTS_END, READY, LISTENER, WAITING, SESSION, INVENTORY, TAKEN, RELEASED,
 REFUSED) = range(11)
# A hand-over waits this long for a client that does not read, or for a confirmation.
PAUSE_SECONDS, TRANSFER_SECONDS = 1, 5


class HandoverLab(Lab):
    """Servers that follow each other in one folder."""

    def __init__(self, program, folder):
        super().__init__(program, folder)
        self.socket = self.path("nbd")
        self.port = self.path("handover")  # where successors come to
        self.pid_file = self.path("pid")

    def command(self, *args):
        return [self.program, "-t", "-e", "0", "--pid-file", self.pid_file, "--handover", self.port,
                *args]

    @contextlib.contextmanager
    def first(self, *args):
        """The first server of a row."""
        row = Row(self, harness.Server(self.command("-k", self.socket, *args), self.socket))
        try:
            row.server.wait_until_it_listens()
            # The pid file is the last thing that it makes.
            harness.wait_for(lambda: os.path.exists(self.pid_file), harness.DEADLINE, "pid file")
            yield row
            row.server.stop()
            expect([name for name in ("nbd", "handover", "pid") if os.path.exists(self.path(name))],
                   [], "files left behind")
        finally:
            row.server.close()

    def successor(self, *args):
        """A server that is to take over, just started."""
        return harness.Server(self.command("--take-over", self.port, *args), self.socket)

    def refused_successor(self, *args, names):
        """A successor that must fail in one line; the line."""
        status, errors = self.run_command(self.command("--take-over", self.port, *args))
        return self.check_refusal(status, errors, names)


class Row:
    """Servers that follow each other; `server` is the one that serves."""

    def __init__(self, lab, server):
        self.lab = lab
        self.server = server

    @property
    def socket(self):
        return self.server.socket

    def hand_over(self, *args, seconds=harness.DEADLINE):
        """To a server with `args`, within `seconds`."""
        old = self.server
        new = self.lab.successor(*args)
        try:
            status = old.process.wait(seconds)
        except BaseException:
            errors = new.stderr()
            new.close()
            raise AssertionError(f"not handed over: {errors}") from None
        self.server = new
        errors = old.stderr()
        old.socket = None  # the file is not the old server's any more
        old.close()
        expect(status, 0, f"exit status of the old server ({errors!r})")
        check(not harness.SANITIZER_REPORT.search(errors), errors)
        check(new.running(), f"the successor has ended: {new.stderr()}")
        return errors


class Load:
    """A client that keeps `depth` reads of BLOCK bytes under way, and checks each."""

    def __init__(self, path, contents, depth=32, structured=False, extended=False, name="", seed=1):
        self.contents = contents
        self.depth = depth
        self.rng = random.Random(seed)
        self.connection = nbd.Connection(path, timeout=20)
        self.connection.greeting()
        if extended:
            self.connection.negotiate_extended()
        elif structured:
            self.connection.negotiate_structured()
        self.connection.go(name)
        self.latencies = []
        self.failure = None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, *_):
        self.stopping.set()
        self.thread.join()
        self.connection.close()
        if self.failure and kind is None:
            raise AssertionError(f"a client under load failed: {self.failure!r}")

    def run(self):
        try:
            self.read_until_stopped()
        except Exception as failure:  # told by __exit__, in the test's own thread
            self.failure = failure

    def read_until_stopped(self):
        places, started = {}, {}
        cookie = 0
        while places or not self.stopping.is_set():
            wanted = b""
            while len(places) < self.depth and not self.stopping.is_set():
                cookie += 1
                offset = self.rng.randrange(len(self.contents) - BLOCK)
                places[cookie] = (offset, BLOCK)
                started[cookie] = (time.monotonic(), offset)
                wanted += self.connection.request_bytes(nbd.CMD_READ, offset, BLOCK, cookie)
            self.connection.send(wanted)
            if not places:
                return
            before = set(places)
            answer = self.connection.answer(any_cookie=places)
            begun, offset = started.pop((before - set(places)).pop())
            self.latencies.append(time.monotonic() - begun)
            expect(answer.error, 0, f"error of a read at {offset}")
            check(answer.data == self.contents[offset:offset + BLOCK], f"wrong bytes at {offset}")


class FakeSuccessor:
    """A successor that does what a test tells it."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(20)
        self.socket.connect(path)
        self.descriptors = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.leave()

    def leave(self):
        """As if it had been killed."""
        self.socket.close()
        for fd in self.descriptors:
            os.close(fd)
        self.descriptors = []

    def say(self, kind, body=b"", version=VERSION):
        self.socket.sendall(struct.pack(">IHH", MAGIC, version, kind) + body)

    def hear(self):
        """Type and body of the next message; (None, b"") when the server has closed."""
        data, ancillary, flags, _ = self.socket.recvmsg(1 << 16, socket.CMSG_SPACE(64))
        for level, kind, payload in ancillary:
            check((level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS), "odd control message")
            fds = array.array("i")
            fds.frombytes(payload)
            self.descriptors += fds
        check(not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC), "a message was cut")
        if not data:
            return None, b""
        magic, version, kind = struct.unpack(">IHH", data[:8])
        expect((magic, version), (MAGIC, VERSION), "magic and version")
        return kind, data[8:]

    def hear_until(self, last):
        """All messages up to and with one of type `last`."""
        heard = []
        while not heard or heard[-1][0] != last:
            heard.append(self.hear())
            check(heard[-1][0] is not None, f"closed, heard {heard}")
            check(heard[-1][0] != REFUSED or last == REFUSED, f"refused: {heard[-1][1]!r}")
        return heard

    def refusal(self):
        """The reason that the server gives; it must close then."""
        reason = self.hear_until(REFUSED)[-1][1][2:].decode()
        expect(self.hear()[0], None, "after the refusal")
        return reason

    def get_all(self):
        """Everything that a successor gets before it confirms: the kinds of the messages."""
        self.say(HELLO)
        self.hear_until(EXPORTS_END)
        self.say(READY)
        return [kind for kind, _ in self.hear_until(INVENTORY)]
