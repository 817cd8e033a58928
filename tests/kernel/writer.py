"""A guest's writes to a volume, and a model of what it must hold."""
import contextlib
import mmap
import os
import pathlib
import random
import threading
import time

import guest
from guest import check, create, device_size, equal, same_contents, thin, wait_for

SECTOR = 512
LENGTHS = (SECTOR, 4096, 3 * 4096, 64 << 10)  # parts of pool blocks, and whole ones
BETWEEN_WRITES = 0.02  # seconds: a guest that writes faster soon leaves nothing to be copied


class Writer(threading.Thread):
    """Writes at random places, past all caches, until it is stopped."""

    def __init__(self, device, raw):
        super().__init__(daemon=True)
        self._device = device
        self._ending = threading.Event()
        self._model = bytearray(pathlib.Path(raw).read_bytes())
        self._model += bytes(device_size(device) - len(self._model))
        self.writes = 0
        self.longest = 0.0  # seconds
        self.failure = None

    def run(self):
        rng = random.Random(7)
        memory = mmap.mmap(-1, max(LENGTHS))
        descriptor = os.open(self._device, os.O_RDWR | os.O_DIRECT)
        try:
            while not self._ending.is_set():
                self._write(descriptor, memory, rng)
                time.sleep(BETWEEN_WRITES)
        except (OSError, AssertionError) as error:
            self.failure = error
        finally:
            os.close(descriptor)

    def _write(self, descriptor, memory, rng):
        length = rng.choice(LENGTHS)
        at = rng.randrange((len(self._model) - length) // SECTOR) * SECTOR
        data = rng.randbytes(length)
        memory[:length] = data
        begun = time.monotonic()
        written = os.pwritev(descriptor, [memoryview(memory)[:length]], at)
        self.longest = max(self.longest, time.monotonic() - begun)
        check(written == length, f"only {written} of {length} bytes were written")
        self._model[at:at + length] = data
        self.writes += 1

    def goes_on(self):
        before = self.writes
        wait_for(lambda: self.writes > before + 3 or self.failure, "the guest's writes go on")
        check(self.failure is None, f"a write failed: {self.failure}")

    def stop(self):
        self._ending.set()
        self.join(60)
        check(not self.is_alive(), "a write hangs")
        check(self.failure is None, f"a write failed: {self.failure}")

    def judge(self):
        """Every byte is what was written last, or the template's. REQUIRES: it was stopped."""
        model = guest.WORK / "model"
        model.write_bytes(self._model)
        same_contents(self._device, model)


@contextlib.contextmanager
def writes_to_a_new_volume(template):
    """A guest that writes to the volume "volume" on the template."""
    writer = Writer(create("volume", template), template.raw)
    writer.start()
    try:
        writer.goes_on()
        yield writer
    finally:
        writer.stop()


def hydrated_and_free(writer):
    """The volume of a Writer needs no image any more, and no write was lost."""
    equal(thin("status", "volume")["origin"], None, "the origin")
    state = guest.everything()
    equal((state["servers"], state["nbd"]), ([], []), "servers and nbd devices")
    check(not any(name.startswith("underlay-") for name in state["dm"]), f"devices: {state['dm']}")
    writer.goes_on()
    writer.stop()
    writer.judge()
    thin("deactivate", "volume")
    thin("activate", "volume")
    writer.judge()
