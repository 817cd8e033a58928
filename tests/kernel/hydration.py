#!/usr/bin/python3
"""Hydration copies what a volume reads from its template, and loses no write on the way."""
import os
import pathlib
import random
import signal
import subprocess
import threading
import time

import guest
from guest import (MIB, THIN, check, create, device_size, equal, everything, mounted, pool,
                   same_contents, scenario, servers, started, template, thin, wait_for)

TEMPLATE = "compressed.qcow2"
BLOCK = 4096


class Writer(threading.Thread):
    """Writes random blocks of a device and keeps a model of what the device must hold."""

    def __init__(self, device, raw):
        super().__init__(daemon=True)
        self.device = device
        self.model = bytearray(pathlib.Path(raw).read_bytes())
        self.model += bytes(device_size(device) - len(self.model))
        self.writes = 0
        self.failure = None
        self._ending = threading.Event()

    def run(self):
        rng = random.Random(4)
        descriptor = os.open(self.device, os.O_RDWR | os.O_SYNC)
        try:
            while not self._ending.is_set():
                self._write_one(descriptor, rng)
        except (OSError, AssertionError) as error:
            self.failure = error
        finally:
            os.close(descriptor)

    def _write_one(self, descriptor, rng):
        length = rng.choice([512, BLOCK, 3 * BLOCK, 64 << 10])
        at = rng.randrange((len(self.model) - length) // 512) * 512
        data = rng.randbytes(length)
        check(os.pwrite(descriptor, data, at) == length, "a short write")
        self.model[at:at + length] = data
        self.writes += 1
        time.sleep(0.03)  # a guest that writes faster soon leaves nothing to be copied

    def stop(self):
        """Ends it; the device must hold what the model says."""
        self._ending.set()
        self.join(60)
        check(not self.is_alive(), "a write hangs")
        check(self.failure is None, f"a write failed: {self.failure}")
        check(self.writes > 20, f"only {self.writes} writes were made")

    def judge(self):
        model = guest.WORK / "model"
        model.write_bytes(self.model)
        same_contents(self.device, model)


@scenario
def a_hydrated_volume_needs_neither_server_nor_image():
    for name in (TEMPLATE, "plain.qcow2", "sparse.vmdk", "odd.qcow2"):
        one = template(name).copy()
        with pool():
            device = create("volume", one, "--size", str(32 * MIB))
            answer = thin("hydrate", "volume")
            equal((answer["name"], answer["done"]), ("volume", True), "the answer of hydrate")
            equal(thin("status", "volume")["origin"], None, "the origin")
            os.unlink(one.path)
            equal((servers(), guest.nbd_devices()), ([], []), "servers and nbd devices")
            same_contents(device, one.raw, 32 * MIB)
            thin("deactivate", "--all")
            thin("activate", "--all")
            same_contents(device, one.raw, 32 * MIB)


@scenario
def only_what_the_image_has_is_copied():
    one = template(TEMPLATE)
    with pool():
        create("volume", one, "--size", str(200 * MIB))
        copied = thin("hydrate", "volume")["copied"]
        check(0 < copied <= one.size, f"{copied} bytes were copied of an image of {one.size}")
        check(thin("status", "volume")["mapped"] <= one.size, "zeros were copied")


@scenario
def no_write_of_the_guest_is_lost():
    one = template(TEMPLATE)
    with pool():
        writer = Writer(create("volume", one), one.raw)
        writer.start()
        wait_for(lambda: writer.writes > 5, "writes go on")
        thin("hydrate", "volume", "--rate", "8M", seconds=120)
        before = writer.writes
        wait_for(lambda: writer.writes > before + 5 or writer.failure, "writes after hydration")
        writer.stop()
        writer.judge()
        equal(thin("status", "volume")["origin"], None, "the origin")
        thin("deactivate", "volume")
        thin("activate", "volume")
        writer.judge()


def interrupt(number, seconds):
    """Runs a slow hydration and ends it by a signal; its exit status."""
    with started(THIN, "hydrate", "volume", "--rate", "1M") as hydrate:
        try:
            hydrate.wait(seconds)
        except subprocess.TimeoutExpired:
            hydrate.send_signal(number)
        return hydrate.wait(30)


@scenario
def an_interrupted_hydration_goes_on_later():
    one = template(TEMPLATE)
    with pool():
        writer = Writer(create("volume", one), one.raw)
        writer.start()
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
            status = interrupt(number, 1)
            check(status != 0, f"hydrate ended with {status} on {number.name}")
            thin("fsck", "--repair")
            check(thin("status", "volume")["origin"], "an unfinished volume lost its origin")
        thin("hydrate", "volume", seconds=120)
        writer.stop()
        writer.judge()
        equal(thin("status", "volume")["origin"], None, "the origin")


@scenario
def a_mounted_file_system_is_hydrated():
    one = template(TEMPLATE)
    with pool():
        with mounted(create("volume", one)) as files:
            (files / "written").write_text("before")
            thin("hydrate", "volume")
            (files / "after").write_text("after")
            equal(servers(), [], "servers")
        with mounted("/dev/mapper/volume") as files:
            equal([(files / name).read_text() for name in ("written", "after", "marker")],
                  ["before", "after", "as in the template\n"], "the files")


@scenario
def a_snapshot_of_a_volume_keeps_its_origin():
    one = template(TEMPLATE)
    with pool():
        create("source", one)
        thin("snapshot", "source", "copy")
        thin("hydrate", "source")
        same_contents("/dev/mapper/copy", one.raw)
        thin("deactivate", "--all")
        thin("activate", "--all")
        same_contents("/dev/mapper/copy", one.raw)
        same_contents("/dev/mapper/source", one.raw)
        check(thin("status", "copy")["origin"], "the origin of the snapshot")
    equal(everything()["servers"], [], "servers")


guest.main()
