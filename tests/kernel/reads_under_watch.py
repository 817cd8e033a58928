"""Reads that go on while `underlay-thin watch` looks after a device's server."""
import contextlib
import hashlib
import os
import threading
import time

import guest
from guest import THIN, check, equal, nbd_reads, started, wait_for


@contextlib.contextmanager
def watching():
    """`underlay-thin watch`, ended orderly."""
    with started(THIN, "watch") as watch:
        time.sleep(0.5)  # until it listens
        yield
        equal(watch.poll(), None, "the exit status of watch while it watches")
        watch.terminate()
        equal(watch.wait(10), 0, "the exit status of watch")


class Reader(threading.Thread):
    """Reads a whole device again and again, past the page cache; notes what it saw."""

    def __init__(self, device):
        super().__init__(daemon=True)
        self.device = device
        self.digests = []
        self.error = None
        self.longest_read = 0.0
        self._ending = threading.Event()

    def run(self):
        try:
            while not self._ending.is_set():
                self._read_once()
        except OSError as error:
            self.error = error

    def _read_once(self):
        digest = hashlib.sha256()
        with open(self.device, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while True:
                started = time.monotonic()
                part = file.read(256 << 10)
                self.longest_read = max(self.longest_read, time.monotonic() - started)
                if not part:
                    break
                digest.update(part)
        self.digests.append(digest.hexdigest())

    def stop(self):
        self._ending.set()

    def judge(self, expected):
        self.join(60)
        check(not self.is_alive(), "a read hangs")
        check(self.error is None, f"a read failed: {self.error}")
        check(self.digests, "nothing was read to the end")
        equal(set(self.digests), {expected}, "the hashes of what was read")


@contextlib.contextmanager
def under_load(device, one):
    """Reads of the device go on during the block and once more after it."""
    reader = Reader(device)
    reader.start()
    try:
        wait_for(lambda: reader.digests, "the first pass of reads")
        before = nbd_reads()
        wait_for(lambda: nbd_reads() > before, "reads reach the server")
        yield reader
        passes = len(reader.digests)
        wait_for(lambda: len(reader.digests) > passes + 1 or reader.error, "reads go on", 60)
    finally:
        reader.stop()
    reader.judge(guest.digest(one.raw))
