#!/usr/bin/python3
"""A server that dies, or is replaced, costs a pause: no I/O error and no wrong byte."""
import contextlib
import hashlib
import os
import pathlib
import signal
import threading
import time

import guest
from guest import (THIN, check, create, equal, mounted, nbd_reads, pool, same_contents,
                   scenario, scenario_with_io_errors, servers, started, template, thin,
                   thin_refuses, wait_for)

COMPRESSED = "compressed.qcow2"  # nothing of it can be read without the server
RECOVERY = ["--recovery-timeout", "2", "--dead-timeout", "60"]


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


@scenario
def a_killed_server_is_restarted_under_reads():
    one = template(COMPRESSED)
    with pool():
        device = create("volume", one, *RECOVERY)
        with watching(), under_load(device, one):
            for _ in range(3):
                old = servers()[0]
                os.kill(old, signal.SIGKILL)
                wait_for(lambda: servers() and servers() != [old], "another server runs")
                time.sleep(1)
        equal(thin("status", "volume")["origin"]["connections"], "alive", "connections")


@scenario
def a_mounted_file_system_survives_a_killed_server():
    one = template(COMPRESSED)
    with pool():
        device = create("volume", one, *RECOVERY)
        with watching(), mounted(device) as files:
            (files / "written").write_text("before")
            os.kill(servers()[0], signal.SIGKILL)
            guest.drop_caches()
            names = os.listdir(files / "linux")
            check(len(names) > 100, "the files of the template")
            for name in names:
                if (files / "linux" / name).is_file():
                    (files / "linux" / name).read_bytes()
            (files / "written").write_text("after")
        with mounted(device) as files:
            equal((files / "written").read_text(), "after", "written")


@scenario
def an_idle_device_is_reconnected_too():
    one = template(COMPRESSED)
    with pool():
        device = create("volume", one, *RECOVERY)
        with watching():
            old = servers()[0]
            os.kill(old, signal.SIGKILL)
            wait_for(lambda: servers() and servers() != [old], "another server runs")
        same_contents(device, one.raw)


@scenario
def several_connections_are_all_reconnected():
    one = template(COMPRESSED)
    with pool():
        device = create("volume", one, *RECOVERY, "--connections", "2")
        with watching(), under_load(device, one):
            os.kill(servers()[0], signal.SIGKILL)
            wait_for(servers, "another server runs")
        equal(thin("status", "volume")["origin"]["connections"], "alive", "connections")


@scenario
def watch_once_repairs_what_it_finds():
    one = template(COMPRESSED)
    with pool():
        device = create("volume", one, *RECOVERY)
        os.kill(servers()[0], signal.SIGKILL)
        wait_for(lambda: not servers(), "the server is dead")
        status = thin("status", "volume")["origin"]
        equal(status["server_pid"], None, "server_pid")
        thin("watch", "--once")
        equal(thin("status", "volume")["origin"]["connections"], "alive", "connections")
        same_contents(device, one.raw)


@scenario
def upgrade_under_reads():
    one = template(COMPRESSED)
    with pool():
        device = create("volume", one, *RECOVERY)
        with under_load(device, one) as reader:
            for _ in range(3):
                old = servers()[0]
                answer = thin("upgrade", one.path)["images"]
                equal([image["image"] for image in answer], [one.path], "the upgraded images")
                wait_for(lambda: len(servers()) == 1 and servers() != [old], "one new server")
                print("    upgraded by", answer[0]["method"], "in", answer[0]["milliseconds"], "ms",
                      flush=True)
        print(f"    longest read {reader.longest_read * 1000:.0f} ms", flush=True)
        with mounted(device) as files:
            thin("upgrade", "--all")
            equal((files / "marker").read_text(), "as in the template\n", "marker")
        equal(thin("status", "volume")["origin"]["connections"], "alive", "connections")


@scenario_with_io_errors
def without_a_server_reads_fail_after_the_dead_timeout():
    one = template(COMPRESSED)
    with pool():
        device = create("volume", one, "--recovery-timeout", "1", "--dead-timeout", "3")
        guest.write_at(device, 0, b"x" * (64 << 10))
        os.kill(servers()[0], signal.SIGKILL)
        guest.drop_caches()
        equal(guest.read_at(device, 0, 4096), b"x" * 4096, "what the volume itself holds")
        started = time.monotonic()
        try:
            data = guest.read_at(device, 4 << 20, 1 << 20)
            check(False, f"{len(data)} bytes were read without a server")
        except OSError:
            check(time.monotonic() - started < 15, "the error came late")
        # Freezing it would wait, too.
        thin_refuses("snapshot", "volume", "copy", words=[one.path, "watch"])
        # Nothing is lost: with a server again, all of it is there.
        thin("watch", "--once")
        guest.drop_caches()
        equal(guest.read_at(device, 4 << 20, 1 << 20),
              pathlib.Path(one.raw).read_bytes()[4 << 20:5 << 20], "contents with a server again")


@scenario
def a_detach_that_would_break_a_volume_is_refused():
    one = template(COMPRESSED)
    with pool():
        device = create("volume", one)
        nbd = "/dev/" + guest.nbd_devices()[0]
        thin_refuses("detach", nbd, words=[nbd])
        same_contents(device, one.raw)


guest.main()
