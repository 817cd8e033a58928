#!/usr/bin/python3
"""The device that holds an image fails for a moment, for longer, or is slow: what the kernel's NBD
client sees of it with --on-error=eio and --on-error=hold, and what the server says.

The device is one of device-mapper on a copy of the image: dm-flakey fails all its reads or those of
some seconds, dm-delay answers late, dm-error fails one range.
"""
import contextlib
import errno
import os
import pathlib
import threading
import time

import guest
from attaching import SECTOR, attached, remove_thin, thin_on
from guest import (MIB, WORK, Template, check, device_size, equal, mounted, must, read_at,
                   same_contents, scenario, scenario_with_io_errors, template, wait_for)

LOG = WORK / "log"
TRIED_AGAIN = "it is tried again, at most 4 times"
HELD = "the request is held until it can be answered (--on-error=hold)"
SUCCEED_AGAIN = "reads succeed again"
# The waits between the tries of a read: 20, 80, 320 and 1000 ms.
TRIES_SECONDS = 1.4
# What is well beyond them.
OUTAGE_SECONDS = 3
FOR_EVER = 100_000
BAD_AT, BAD_LENGTH = 8 * MIB, MIB


class FaultyDevice:
    """A device with the bytes of a file, at whose reads the scenario can turn."""

    NAME = "faulty"

    def __init__(self, path):
        copy = WORK / "on-the-device"
        copy.write_bytes(pathlib.Path(path).read_bytes())
        os.truncate(copy, -(-copy.stat().st_size // MIB) * MIB)
        self.below = must("losetup", "--find", "--show", "--read-only", copy).strip()
        self.sectors = device_size(self.below) // SECTOR
        self.path = f"/dev/mapper/{self.NAME}"
        must("dmsetup", "create", self.NAME, "--readonly", "--table", self._linear(0, self.sectors))

    def _linear(self, start, sectors):
        return f"{start} {sectors} linear {self.below} {start}"

    def become(self, *targets):
        """Takes effect for the next read. Nothing of the device is in memory any more."""
        must("dmsetup", "reload", self.NAME, "--readonly", "--table", "\n".join(targets))
        must("dmsetup", "resume", self.NAME)
        guest.drop_caches()

    def work(self):
        self.become(self._linear(0, self.sectors))

    def flicker(self, up, down):
        """Works for `up` seconds, fails for `down` seconds, and so on."""
        self.become(f"0 {self.sectors} flakey {self.below} 0 {up} {down}")

    def fail(self):
        self.flicker(0, FOR_EVER)

    def fail_between(self, offset, length):
        start, sectors = offset // SECTOR, length // SECTOR
        end = start + sectors
        self.become(self._linear(0, start), f"{start} {sectors} error",
                    self._linear(end, self.sectors - end))

    def delay(self, milliseconds):
        self.become(f"0 {self.sectors} delay {self.below} 0 {milliseconds}")

    def remove(self):
        must("dmsetup", "remove", self.NAME)
        must("losetup", "-d", self.below)


def images():
    """A raw image, and images whose tables and data lie on the device, compressed or not."""
    plain, compressed = template("plain.qcow2"), template("compressed.qcow2")
    raw = Template({"name": "raw", "path": plain.raw, "format": "raw", "raw": plain.raw,
                    "file_system": True})
    return raw, plain, compressed


@contextlib.contextmanager
def served(one, on_error):
    """(the kernel's device of an image, the faulty device that holds it), with cold caches."""
    faulty = FaultyDevice(one.path)
    there = Template({**vars(one), "path": faulty.path})
    # With a cache so small, what is unpacked must be read from the device again and again.
    options = ["--on-error", on_error, "--cluster-cache", "1M"]
    with attached(there, server_options=options, log=LOG) as (device, server):
        yield device, faulty
        equal(server.poll(), None, "exit status of the server while it serves")
    faulty.remove()


def said(words):
    return words in LOG.read_text()


def fails(device, offset, length=4096):
    """The read gives EIO, behind the tries; how long it took."""
    guest.drop_caches()
    started = time.monotonic()
    try:
        data = read_at(device, offset, length)
    except OSError as error:
        equal(error.errno, errno.EIO, "errno of the read")
        took = time.monotonic() - started
        check(took >= TRIES_SECONDS, f"the error came after {took:.2f} s")
        return
    check(False, f"{len(data)} bytes were read at {offset}")


def has(device, raw, offset, length):
    guest.drop_caches()
    with open(raw, "rb") as truth:
        truth.seek(offset)
        check(read_at(device, offset, length) == truth.read(length), f"wrong bytes at {offset}")


class Waiting(threading.Thread):
    """Runs a function that reads; it shall not return before the device works."""

    def __init__(self, function):
        super().__init__(daemon=True)
        self.function = function
        self.error = None
        self.start()

    def run(self):
        try:
            self.function()
        except Exception as error:  # told to the scenario, which fails with it
            self.error = error

    def still_waits(self):
        check(self.is_alive(), f"it does not wait: {self.error or 'it has read'}")

    def succeeds(self):
        self.join(30)
        check(not self.is_alive(), "it waits still, though the device works")
        check(self.error is None, f"it failed: {self.error}")


def outage(faulty, function):
    """The device fails; `function` is called meanwhile and returns behind the outage."""
    faulty.fail()
    waiting = Waiting(function)
    wait_for(lambda: said(HELD), "the server says that it holds a request")
    time.sleep(OUTAGE_SECONDS)
    waiting.still_waits()
    faulty.work()
    waiting.succeeds()
    check(said(SUCCEED_AGAIN), "the log does not say that reads succeed again")


@scenario_with_io_errors
def what_passes_within_a_second_no_client_hears_of():
    for one, on_error in zip(images(), ("eio", "hold", "eio")):
        words = {"eio": TRIED_AGAIN, "hold": HELD}[on_error]
        with served(one, on_error) as (device, faulty):
            faulty.flicker(1, 1)
            end = time.monotonic() + 20
            while not said(SUCCEED_AGAIN):
                same_contents(device, one.raw)
                check(time.monotonic() < end, f"{one.name}: no fault came to pass")
            check(said(words), f"the log does not say {words!r}")


@scenario_with_io_errors
def what_lasts_gives_errors_under_eio_and_right_data_afterwards():
    for one in images():
        with served(one, "eio") as (device, faulty):
            faulty.fail()
            fails(device, BAD_AT)
            faulty.work()
            same_contents(device, one.raw)
            check(said(TRIED_AGAIN), "the log says of no try")


@scenario_with_io_errors
def a_bad_range_fails_alone():
    raw = images()[0]
    with served(raw, "eio") as (device, faulty):
        faulty.fail_between(BAD_AT, BAD_LENGTH)
        has(device, raw.raw, 0, BAD_AT)
        fails(device, BAD_AT)
        fails(device, BAD_AT + BAD_LENGTH - 4096)
        has(device, raw.raw, BAD_AT + BAD_LENGTH, raw.size - BAD_AT - BAD_LENGTH)
        faulty.work()
        same_contents(device, raw.raw)


@scenario_with_io_errors
def under_hold_reads_wait_for_the_device():
    for one in images():
        with served(one, "hold") as (device, faulty):
            outage(faulty, lambda: same_contents(device, one.raw))


@scenario_with_io_errors
def under_hold_a_mounted_volume_sees_a_pause():
    one = template("compressed.qcow2")
    with served(one, "hold") as (device, faulty):
        with mounted(thin_on(device, one.size)) as files:
            (files / "written").write_text("before")
            names = [name for name in os.listdir(files / "linux")
                     if (files / "linux" / name).is_file()]
            outage(faulty, lambda: [(files / "linux" / name).read_bytes() for name in names])
            (files / "written").write_text("after")
            equal((files / "marker").read_text(), "as in the template\n", "marker")
        with mounted("/dev/mapper/volume") as files:
            equal((files / "written").read_text(), "after", "written")
        remove_thin()
        same_contents(device, one.raw)


@scenario
def a_slow_device_is_waited_for_and_is_no_fault():
    """Longer than all tries of a read would take, too."""
    milliseconds = 3000
    for one in images():
        with served(one, "eio") as (device, faulty):
            faulty.delay(milliseconds)
            started = time.monotonic()
            has(device, one.raw, BAD_AT, 64 << 10)
            took = time.monotonic() - started
            check(took >= milliseconds / 1000, f"{one.name} was read in {took:.2f} s")
            faulty.delay(50)
            same_contents(device, one.raw)
            faulty.work()
            equal(LOG.read_text(), "", "what the server says")


@contextlib.contextmanager
def parent_on_a_device(on_error):
    """(the kernel's device of an overlay, where it has data of its own, the device that holds the
    file system in which its parent lies)"""
    one, parent = template("chain-on-compressed.qcow2").copy(), template("compressed.qcow2")
    disk = WORK / "disk"
    tree = WORK / "tree"
    tree.mkdir()
    parent.copy(tree)
    must("truncate", "-s", 32 * MIB, disk)
    must("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, disk)
    faulty = FaultyDevice(disk)
    with mounted(faulty.path, "-o", "ro") as place:
        options = ["--on-error", on_error, "--parent", f"{one.name}={place / parent.name}"]
        with attached(one, server_options=options, log=LOG) as (device, _):
            yield one, device, faulty
    faulty.remove()


@scenario_with_io_errors
def a_parent_whose_file_system_drops_out_fails_alone():
    with parent_on_a_device("eio") as (one, device, faulty):
        own = one.size - 4 * MIB  # a megabyte, as tests/kernel/templates.py says
        faulty.fail()
        fails(device, 4 * MIB, 256 << 10)
        has(device, one.raw, own, MIB)
        faulty.work()
        same_contents(device, one.raw)


@scenario_with_io_errors
def a_parent_whose_file_system_drops_out_is_waited_for_under_hold():
    with parent_on_a_device("hold") as (one, device, faulty):
        outage(faulty, lambda: same_contents(device, one.raw))


guest.main()
