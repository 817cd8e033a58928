"""What the rules about hostile clients share: servers that are judged before and after an attack, and
a bystander, who reads meanwhile and verifies what it reads.

A rule is a function rule_...(lab). Its name says what must hold; it raises when it does not.
"""
import contextlib
import multiprocessing
import os
import random
import socket
import statistics
import struct
import time

import clients_network
import harness
import nbd_client as nbd
import program_rules
from protocol_rules import check, expect, wait_for

KIB, MIB = 1 << 10, 1 << 20
DISK = 16 * MIB
READ = 4 * KIB
PAUSE_SECONDS = 0.002  # between two reads of the bystander
QUIET_SECONDS = 0.5
READS_FOR_EACH_NEWCOMER = 10
SETTLE_SECONDS = 25  # handshakes that nobody finishes end after ten
# What an attack may cost afterwards: allocators keep some of what they had.
RESIDENT_GROWTH = 24 * MIB

# The machine is busy, and the attackers themselves keep it so: a bystander may wait this much longer
# than before, or this long. One that is really held up waits for seconds.
MEDIAN_RATIO, MEDIAN_SECONDS = 10, 0.050
P99_RATIO, P99_SECONDS = 30, 1
LONGEST_SECONDS = 3

MODES = ({}, {"structured": True}, {"extended": True})


class Lab(program_rules.Lab):
    """The program under test, and a folder with two images of the same random contents."""

    def __init__(self, program, folder):
        super().__init__(program, folder)
        # Half of it can be compressed, so that there are clusters of both kinds.
        rng = random.Random(7)
        self.contents = b"".join(
            b"%016d" % rng.getrandbits(40) * (32 * KIB // 16) + rng.randbytes(32 * KIB)
            for _ in range(DISK // (64 * KIB)))
        self.raw = self.path("disk.raw")
        program_rules.write_file(self.raw, self.contents)

    def compressed(self):
        path = self.path("disk.qcow2")
        if not os.path.exists(path):
            program_rules.qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", self.raw, path)
        return path

    @contextlib.contextmanager
    def attacked(self, *args, budget=None, bystander=True):
        """A server for a block that attacks it. While the block runs, a bystander is served as
        before; afterwards the server is as it was, and ends well. `budget`: how much its resident
        memory may grow meanwhile. Without `args`: the raw image, over a Unix socket. Times and
        memory are not judged of a program with a sanitizer."""
        args = args or ("-e", "0", "-f", "raw", self.raw)
        with self.serve(*args) as server, self.judged(server, budget, bystander):
            yield server

    @contextlib.contextmanager
    def attacked_over_tcp(self, budget=None, bystander=True):
        with clients_network.serve_tcp(self, "127.0.0.1", "-e", "0", "-f", "raw", self.raw) as server, \
                self.judged(server, budget, bystander):
            yield server

    @contextlib.contextmanager
    def judged(self, server, budget=None, bystander=True):
        with contextlib.ExitStack() as stack:
            self.check_alive(server)
            watched = stack.enter_context(Bystander(server.socket, self.contents)) if bystander else None
            before = Footprint(server)
            with Watch(server) as watch:
                yield
            if watched is not None:
                watched.judge(speed=not self.sanitized)
            if budget is not None and not self.sanitized:
                grown = watch.most - before.resident
                check(grown < budget, f"{grown // MIB} MiB more were in use")
            before.check_restored(server, memory=not self.sanitized)
            self.check_alive(server)

    def check_alive(self, server):
        """It serves newcomers, in every kind of replies."""
        check(server.running(), "the server has ended: " + server.stderr())
        for mode in MODES:
            with ready(server, **mode) as connection:
                self.check_read(connection, 12345, 70000)

    def check_read(self, connection, offset, length, cookie=0xFEED):
        answer = connection.read(offset, length, cookie)
        expect(answer.error, 0, f"error of READ {offset}+{length}")
        check(answer.data == self.contents[offset:offset + length],
              f"wrong bytes at {offset}+{length}")


def ready(server, name="", timeout=10, **mode):
    return nbd.in_transmission(server.socket, name, timeout, **mode)


def connect(address, timeout):
    """A socket that has said nothing. `address`: a path, or a TCP port of this machine."""
    return nbd.Connection(address, timeout).socket


def send_as_much_as_fits(connection, data):
    """Without waiting for the server to take it. How many bytes it took."""
    sent = 0
    timeout = connection.socket.gettimeout()
    connection.socket.setblocking(False)
    with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
        while sent < len(data):
            sent += connection.socket.send(data[sent:])
    connection.socket.settimeout(timeout)
    return sent


def reset(client):
    """Closes a TCP socket with RST instead of FIN."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


class Footprint:
    """Memory, descriptors and threads of a server."""

    def __init__(self, server):
        self.resident = server.resident_bytes()
        self.descriptors = len(os.listdir(f"/proc/{server.pid}/fd"))
        self.threads = len(os.listdir(f"/proc/{server.pid}/task"))

    def check_restored(self, server, memory):
        """Within the time that unfinished handshakes have. `memory`: that, too."""
        def restored():
            now = Footprint(server)
            # The kernel's own workers of a ring come and go.
            return (now.descriptors <= self.descriptors and now.threads <= self.threads + 2 and
                    (not memory or now.resident < self.resident + RESIDENT_GROWTH))
        try:
            wait_for(restored, SETTLE_SECONDS, "settled")
        except AssertionError as error:
            raise AssertionError(f"before the attack {self}, after it {Footprint(server)}") from error

    def __str__(self):
        return (f"{self.resident / MIB:.1f} MiB, {self.descriptors} descriptors, "
                f"{self.threads} threads")


class Watch:
    """The most memory that a server had during a block."""

    def __init__(self, server):
        self.server = server

    def __enter__(self):
        # 5: VmHWM begins anew.
        with open(f"/proc/{self.server.pid}/clear_refs", "w", encoding="ascii") as control:
            control.write("5")
        return self

    def __exit__(self, *_):
        self.most = self.server.resident_bytes("VmHWM") if self.server.running() else 0


class Bystander:
    """A process that reads small pieces one by one, now and then on a new connection, and notes how
    long each read and each arrival took: first while all is quiet, then during the block."""

    def __init__(self, address, contents):
        self.address, self.contents = address, contents

    def __enter__(self):
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=self.run, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        time.sleep(QUIET_SECONDS)
        self.quiet = self.take()
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.join()
        self.pipe.close()

    def take(self):
        """{what: [seconds]} since the last call."""
        try:
            self.pipe.send("take")
            check(self.pipe.poll(harness.DEADLINE), "the bystander hears nothing from the server")
            times = self.pipe.recv()
        except (EOFError, BrokenPipeError) as error:
            raise AssertionError("the bystander has ended") from error
        check(isinstance(times, dict), f"the bystander: {times}")
        return times

    def judge(self, speed):
        """Raises unless it was served; `speed`: as fast as before."""
        attacked = self.take()
        for what, before in self.quiet.items():
            during = attacked[what]
            if not speed:
                check(during, f"not once: {what}")
                continue
            check(len(during) >= 5, f"only {len(during)} times: {what}")
            for name, share, most_ratio, allowed in (
                    ("median", 0.5, MEDIAN_RATIO, MEDIAN_SECONDS),
                    ("99th percentile", 0.99, P99_RATIO, P99_SECONDS)):
                quiet, now = percentile(before, share), percentile(during, share)
                print(f"     {what}: {name} {quiet * 1e6:.0f} us quiet, {now * 1e6:.0f} us attacked:"
                      f" x{now / quiet:.1f}", flush=True)
                check(now < max(most_ratio * quiet, allowed), f"{what}: {name} {now:.3f} s")
            check(max(during) < LONGEST_SECONDS, f"{what}: once {max(during):.1f} s")

    # In the process.

    def run(self, pipe):
        try:
            rng = random.Random(1)
            with self.arrive() as connection:
                times = {"read": [], "arrival": []}
                while True:
                    for _ in range(READS_FOR_EACH_NEWCOMER):
                        times["read"].append(self.read(connection, rng))
                        time.sleep(PAUSE_SECONDS)
                    started = time.monotonic()
                    with self.arrive() as newcomer:
                        self.read(newcomer, rng)
                        times["arrival"].append(time.monotonic() - started)
                        newcomer.send_request(nbd.CMD_DISC)
                    if pipe.poll():
                        pipe.recv()
                        pipe.send(times)
                        times = {"read": [], "arrival": []}
        except Exception as error:  # told to the test, which fails with it
            with contextlib.suppress(OSError):
                pipe.send(f"{type(error).__name__}: {error}")

    def arrive(self):
        connection = nbd.Connection(self.address, timeout=harness.DEADLINE)
        connection.greeting()
        connection.go()
        return connection

    def read(self, connection, rng):
        offset = rng.randrange(DISK - READ)
        started = time.monotonic()
        answer = connection.read(offset, READ)
        seconds = time.monotonic() - started
        check(answer.error == 0 and answer.data == self.contents[offset:offset + READ],
              f"wrong answer at {offset}")
        return seconds


def percentile(values, share):
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]
