"""What the protocol rules share: the served disk, connections, and the runner.

A rule is a function rule_...(target). Its name says what must hold; it raises when it does not.
"""
import contextlib
import inspect
import os
import random
import sys
import time
import traceback

import harness
import nbd_client as nbd
from harness import wait_for
from nbd_client import ProtocolError

MIB = 1 << 20
DISK_SIZE = 40 * MIB + 512  # above the largest request
HOLE_OFFSET = 8 * MIB
HOLE_LENGTH = 8 * MIB

READ_ONLY_FLAGS = (nbd.HAS_FLAGS | nbd.READ_ONLY | nbd.SEND_FLUSH | nbd.SEND_FUA |
                   nbd.CAN_MULTI_CONN | nbd.SEND_CACHE)


class Target:
    """The server under test and the disk it serves."""

    def __init__(self, program, folder):
        self.program = program
        self.image = os.path.join(folder, "disk.raw")
        self.contents = random.Random(1).randbytes(HOLE_OFFSET) + bytes(HOLE_LENGTH)
        self.contents += random.Random(2).randbytes(DISK_SIZE - len(self.contents))
        with open(self.image, "wb") as out:
            out.write(self.contents[:HOLE_OFFSET])
            out.seek(HOLE_OFFSET + HOLE_LENGTH)
            out.write(self.contents[HOLE_OFFSET + HOLE_LENGTH:])
        self.folder = folder
        self.server = None

    def serve(self, *args):
        """A server of its own, for rules that end it or need other options."""
        return harness.serve(args or self.default_args(), program=self.program)

    def default_args(self):
        return ["-r", "-e", "256", "-f", "raw", self.image]

    def connect(self, timeout=10):
        """A connection that has said nothing yet."""
        return nbd.Connection(self.server.socket, timeout)

    def negotiating(self):
        """A connection after the greeting, fixed newstyle, no zeroes."""
        connection = self.connect()
        connection.greeting()
        return connection

    def ready(self, structured=False, extended=False, contexts=(), server=None, name=""):
        """A connection in transmission. `contexts`: their ids are in connection.contexts."""
        return nbd.in_transmission((server or self.server).socket, name, structured=structured,
                                   extended=extended, contexts=contexts)

    def check_read(self, connection, offset, length, **request):
        answer = connection.read(offset, length, **request)
        expect(answer.error, 0, f"error of READ {offset}+{length}")
        check(answer.data == self.contents[offset:offset + length],
              f"wrong bytes at {offset}+{length}")
        return answer

    def check_usable(self, connection):
        """The connection is still in step: a small read gives the right bytes."""
        self.check_read(connection, 1000, 3000, cookie=0xDEADBEEF01020304)

    def check_alive(self):
        """The server still serves newcomers."""
        check(self.server.running(), "the server has ended")
        with self.ready() as connection:
            self.check_usable(connection)


def check(condition, what):
    if not condition:
        raise ProtocolError(what)


def expect(actual, wanted, what):
    check(actual == wanted, f"{what}: {actual!r}, expected {wanted!r}")


@contextlib.contextmanager
def may_be_closed():
    """Inside, the server may close the connection."""
    try:
        yield
    except nbd.Closed:
        pass


def rules_of(*modules):
    for module in modules:
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("rule_") and function.__module__ == module.__name__:
                yield name[len("rule_"):], function


def run_rules(target, rules):
    """Runs each rule against one shared server; the names of those that fail."""
    failed = []
    server_args = target.default_args()
    stack = contextlib.ExitStack()
    try:
        for name, rule in rules:
            started = time.monotonic()
            try:
                if target.server is None:
                    target.server = stack.enter_context(
                        harness.serve(server_args, program=target.program))
                rule(target)
                target.check_alive()
                print(f"ok   {name}  ({time.monotonic() - started:.1f} s)", flush=True)
            except Exception as error:  # whatever it is: this rule failed, the others still run
                failed.append(name)
                print(f"FAIL {name}: {type(error).__name__}: {error}", flush=True)
                traceback.print_exc(file=sys.stdout)
                if target.server is not None and not target.server.running():
                    print(f"the server ended:\n{target.server.stderr()}", flush=True)
                    with contextlib.suppress(harness.ServerFailure):
                        stack.close()
                    target.server = None
    finally:
        try:
            stack.close()
        except harness.ServerFailure as error:
            failed.append("server_ends_well")
            print(f"FAIL server_ends_well: {error}", flush=True)
    return failed
