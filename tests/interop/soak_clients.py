"""The clients of the soak: each comes, does one thing, verifies what it was given, and goes.

A client is a function of (lab, rng). It raises when it was served wrongly.
"""
import contextlib
import functools
import json
import mmap
import os
import random
import signal
import socket
import subprocess
import tempfile
import time

import nbd as libnbd

import harness
import hostile_sessions
import nbd_client as nbd
from hostile_lab import KIB, MIB, MODES, ready, send_as_much_as_fits
from protocol_rules import check

CLIENT_SECONDS = 120  # what a program may take on a machine with much to do
COPIED = 64 * MIB     # larger disks are not copied whole


class Disk:
    """An image that is served, and what its disk holds."""

    def __init__(self, server, name, raw):
        self.server, self.name = server, name
        self.size = os.path.getsize(raw)
        self.raw = raw
        with open(raw, "rb") as file:
            self.contents = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) if self.size else b""

    @property
    def uri(self):
        return self.server.named_uri(self.name)

    def some_range(self, rng, longest=256 * KIB):
        length = rng.randint(1, min(longest, self.size))
        return rng.randrange(self.size - length + 1), length

    def check(self, offset, length, data):
        check(data == self.contents[offset:offset + length],
              f"{self.name}: wrong bytes at {offset}+{length}")


def run_program(*command, statuses=(0,)):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=CLIENT_SECONDS)
    check(done.returncode in statuses, f"{' '.join(command)}: exit {done.returncode}: {done.stderr[:300]}")
    return done.stdout


def copies(lab, rng):
    """nbdcopy, whole disks."""
    disk = rng.choice([disk for disk in lab.disks if 0 < disk.size <= COPIED])
    with tempfile.NamedTemporaryFile(dir=lab.folder) as copy:
        run_program("nbdcopy", disk.uri, copy.name)
        run_program("cmp", "--", copy.name, disk.raw)


def asks(lab, rng):
    """nbdinfo: size, list, map."""
    disk = lab.any_disk(rng)
    said = json.loads(run_program("nbdinfo", "--json", disk.uri))
    check(said["exports"][0]["export-size"] == disk.size, f"{disk.name}: {said}")
    run_program("nbdinfo", "--map", disk.uri)
    # Some of the images of a folder are refused: then both of these lists end with 1.
    run_program("nbdinfo", "--list", "--json", disk.server.uri, statuses=(0, 1))


def lists(lab, rng):
    """Our own --list."""
    disk = lab.any_disk(rng)
    run_program(lab.program, "--list", "-k", disk.server.socket, statuses=(0, 1))


@functools.cache
def libnbd_buffers():
    """For all reads of a process: libnbd 1.14 never lets go of what it has read into."""
    lengths = random.Random(os.getpid())
    return [libnbd.Buffer(lengths.randint(1, longest)) for longest in [4 * KIB, 256 * KIB] * 16]


def uses_libnbd(lab, rng):
    """Reads in flight together, and block status."""
    disk = lab.any_disk(rng)
    handle = libnbd.NBD()
    handle.set_request_structured_replies(rng.random() < 0.8)
    handle.add_meta_context(libnbd.CONTEXT_BASE_ALLOCATION)
    handle.connect_uri(disk.uri)
    reads = []
    for buffer in libnbd_buffers():
        length = buffer.size()
        if length > disk.size:
            continue
        offset = rng.randrange(disk.size - length + 1)
        reads.append((handle.aio_pread(buffer, offset), offset, length, buffer))
    while any(not handle.aio_command_completed(cookie) for cookie, *_ in reads[-1:]):
        handle.poll(-1)
    while handle.aio_in_flight():
        handle.poll(-1)
    for _, offset, length, buffer in reads:
        disk.check(offset, length, bytes(buffer.to_bytearray()))
    if handle.can_meta_context(libnbd.CONTEXT_BASE_ALLOCATION):
        handle.block_status(min(disk.size, 1 << 30), 0, lambda *_: 0)
    handle.shutdown()


def reads(lab, rng):
    """A raw client in any mode, one read after another."""
    disk = lab.any_disk(rng)
    with ready(disk.server, disk.name, **rng.choice(MODES), timeout=60) as connection:
        for _ in range(rng.randint(1, 100)):
            offset, length = disk.some_range(rng)
            answer = connection.read(offset, length)
            check(answer.error == 0, f"{disk.name}: error {answer.error}")
            disk.check(offset, length, answer.data)
        if rng.random() < 0.5:
            connection.send_request(nbd.CMD_DISC)


def is_killed(lab, rng):
    """A program that reads, is stopped for a while or not, and killed."""
    disk = lab.any_disk(rng)
    process = subprocess.Popen(["nbdcopy", "--requests=64", disk.uri, "null:"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    time.sleep(rng.uniform(0, 0.1))
    if rng.random() < 0.5:
        process.send_signal(signal.SIGSTOP)
        time.sleep(rng.uniform(0, 0.5))
    process.kill()
    process.wait()


def breaks_off(lab, rng):
    """A session that ends, or says something wrong, at any byte."""
    said = bytearray(rng.choice(hostile_sessions.SESSIONS))
    if rng.random() < 0.5:
        said[rng.randrange(len(said))] ^= 1 << rng.randrange(8)
    client = hostile_sessions.say(lab.any_disk(rng).server, bytes(said[:rng.randrange(len(said) + 1)]))
    if rng.random() < 0.5:
        hostile_sessions.check_ends(client, "a broken session")
    client.close()


def reads_nothing(lab, rng):
    """Asks for much, and leaves it."""
    disk = lab.any_disk(rng)
    with ready(disk.server, disk.name, **rng.choice(MODES), timeout=60) as connection:
        length = min(disk.size, rng.choice([512, 64 * KIB, MIB, 32 * MIB]))
        send_as_much_as_fits(connection, connection.request_bytes(nbd.CMD_READ, 0, length) * 2000)
        time.sleep(rng.uniform(0, 0.5))


def talks_nonsense(lab, rng):
    """Random bytes, in the handshake or in transmission; options and silence."""
    disk = lab.any_disk(rng)
    with contextlib.suppress(nbd.Closed), nbd.Connection(disk.server.socket, 60) as connection:
        connection.greeting()
        if rng.random() < 0.5:
            connection.go(disk.name)
        else:
            for _ in range(rng.randint(0, 50)):
                data = rng.randbytes(rng.randint(0, 200))
                connection.option(rng.choice([nbd.OPT_INFO, nbd.OPT_LIST_META_CONTEXT, 99]), data)
        time.sleep(rng.uniform(0, 0.3))
        connection.send(rng.randbytes(rng.randint(0, 3000)))


def comes_in_crowds(lab, rng):
    """Connections that end at once, some of them in a handshake."""
    server = lab.any_disk(rng).server
    for _ in range(rng.randint(1, 100)):
        with harness.connect(server.socket) as client:
            if rng.random() < 0.3:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_WR)


def reads_what_is_replaced(lab, rng):
    """A file that others take the place of: what a client has opened is what it reads."""
    with ready(lab.victims, "replaced", timeout=60) as connection:
        whole = None
        for _ in range(20):
            offset, length = lab.twins[0].some_range(rng, 64 * KIB)
            answer = connection.read(offset, length)
            check(answer.error == 0, f"a replaced file: error {answer.error}")
            equal = {number for number, twin in enumerate(lab.twins)
                     if answer.data == twin.contents[offset:offset + length]}
            whole = equal if whole is None else whole & equal
            check(whole, "a replaced file: a mixture of two")
            time.sleep(0.01)


def reads_what_is_truncated(lab, rng):
    """Right bytes, or an error."""
    try:
        with ready(lab.victims, "truncated", **rng.choice(MODES), timeout=60) as connection:
            for _ in range(20):
                offset, length = lab.twins[0].some_range(rng, 64 * KIB)
                answer = connection.read(offset, length)
                check(answer.error in (0, nbd.EIO), f"a truncated file: error {answer.error}")
                if answer.error == 0:
                    lab.twins[0].check(offset, length, answer.data)
                time.sleep(0.01)
    except (nbd.Closed, nbd.ProtocolError) as error:
        # Refused when it opens; closed when the header of a reply had gone out.
        allowed = isinstance(error, nbd.Closed) or any(
            words in str(error) for words in ("GO is refused", "closed after"))
        if not allowed:
            raise


def reads_what_is_damaged(lab, rng):
    """Anything that an image of wrong bytes may hold, or an error: only the server is judged."""
    with contextlib.suppress(nbd.Closed, nbd.ProtocolError), \
            ready(lab.victims, "damaged", **rng.choice(MODES), timeout=60) as connection:
        for _ in range(20):
            offset, length = lab.twins[0].some_range(rng, 64 * KIB)
            connection.read(offset, length)


KINDS = (copies, asks, lists, uses_libnbd, reads, reads, reads, is_killed, breaks_off, breaks_off,
         reads_nothing, talks_nonsense, comes_in_crowds, reads_what_is_replaced,
         reads_what_is_truncated, reads_what_is_damaged)
