"""What the rules about the cache of images on servers share: remote images that know what was
read of them, and servers that read them through a cache."""
import contextlib
import http.client
import os
import random
import struct
import threading
import time

import harness
import nbd_client as nbd
from control_lab import Lab as ControlLab
from nbd_servers import chunk, misbehaving
from protocol_rules import check

KIB, MIB = 1 << 10, 1 << 20
BLOCK = 64 * KIB
SIZE = 12 * MIB + 5 * 1024
FILE_HEADER = 8192  # bytes of a file of the cache: io/cache/group_layout.h


class Remote:
    """An NBD export that counts how often each block is read."""

    def __init__(self, size=SIZE, seed=1):
        self.contents = random.Random(seed).randbytes(size)
        self.reads = [0] * -(-size // BLOCK)
        self.bytes = 0
        self._lock = threading.Lock()

    def serve(self):
        """The URI."""
        return misbehaving(self._answer, size=len(self.contents))

    def _answer(self, connection, kind, cookie, offset, length):
        if kind == nbd.CMD_BLOCK_STATUS:
            payload = struct.pack(">III", 1, length, 0)
            connection.sendall(chunk(nbd.CHUNK_STATUS, cookie, payload))
            return True
        with self._lock:
            self.bytes += length
            for block in range(offset // BLOCK, -(-(offset + length) // BLOCK)):
                self.reads[block] += 1
        data = struct.pack(">Q", offset) + self.contents[offset:offset + length]
        connection.sendall(chunk(nbd.CHUNK_DATA, cookie, data))
        return True

    def wait_until_idle(self):
        """Until nobody has read anything for a while: what is fetched ahead has arrived, too."""
        before, since = self.bytes, time.monotonic()
        deadline = since + 30
        while time.monotonic() - since < 0.5:
            if self.bytes != before:
                before, since = self.bytes, time.monotonic()
            check(since < deadline, "somebody reads for ever")
            time.sleep(0.05)


class Lab(ControlLab):
    def __init__(self, program, folder):
        super().__init__(program, folder)
        self.cache = self.path("cache")
        self.metrics_socket = self.path("metrics")

    def options(self, uri, *args):
        return ["-e", "0", "-f", "raw", "--cache-dir", self.cache, "--cache-immutable", "nbd*",
                *args, uri]

    def serve_remote(self, uri, *args):
        return self.serve(*self.options(uri, *args))

    @contextlib.contextmanager
    def serve_until_killed(self, uri):
        """The server is killed at the end of the block."""
        path = self.path("killed.sock")
        server = harness.Server([self.program, "-t", "-k", path, *self.options(uri)], path)
        try:
            server.wait_until_it_listens()
            yield server
            check(server.running(), f"the server ended by itself\n{server.stderr()}")
        finally:
            server.close()

    def metrics(self):
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = harness.connect(self.metrics_socket)
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()

    def files(self):
        """Those with blocks."""
        return [os.path.join(self.cache, name) for name in os.listdir(self.cache)
                if name != "usage"]

    def bytes_on_disk(self):
        return sum(os.stat(file).st_blocks * 512 for file in self.files())


def read(server, remote, offset, length):
    with nbd.in_transmission(server.socket) as client:
        for at in range(offset, offset + length, MIB):
            part = min(MIB, offset + length - at)
            got = client.read(at, part).data
            check(got == remote.contents[at:at + part], f"other bytes at {at}")
