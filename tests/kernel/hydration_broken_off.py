#!/usr/bin/python3
"""Hydrations that are killed, interrupted, kept waiting or run twice: the guest goes on, and so does
the hydration when it is run again. What a whole one copies, see hydration.py."""
import os
import pathlib
import signal
import subprocess
import time

import guest
from guest import (MIB, PROGRAMS, THIN, check, create, equal, everything, must, pool, run,
                   same_contents, scenario, started, template, thin, thin_refuses, wait_for)
from writer import hydrated_and_free, writes_to_a_new_volume

TEMPLATE = "compressed.qcow2"
BLOCK = 4096
FAULTS = ("hydrate-suspended", "hydrate-written", "create-hydrate:after", "copy:after",
          "remove-hydrate:after", "record-hydrated:before", "record-hydrated:after",
          "drop-origin:after", "release-origin:after", "forget-image:after")


def nothing_is_suspended():
    states = must("dmsetup", "info", "-c", "--noheadings", "--separator", " ", "-o",
                  "name,suspended")
    check("Suspended" not in states, f"devices: {states!r}")


@scenario
def a_killed_hydration_leaves_a_guest_that_runs_and_goes_on_later():
    one = template(TEMPLATE)
    for fault in FAULTS:
        with pool(), writes_to_a_new_volume(one) as writer:
            status, _, errors = run(PROGRAMS / "underlay-thin-faulty", "hydrate", "volume",
                                    env={"UNDERLAY_FAULT": fault})
            equal(status, -signal.SIGKILL, f"the status when killed at {fault} ({errors!r})")
            writer.goes_on()
            nothing_is_suspended()
            thin("hydrate", "volume")
            hydrated_and_free(writer)


@scenario
def an_interrupted_hydration_ends_in_good_order_and_goes_on():
    one = template(TEMPLATE)
    with pool(), writes_to_a_new_volume(one) as writer:
        before = everything()
        for number in (signal.SIGINT, signal.SIGTERM):
            hydrate = subprocess.Popen([THIN, "hydrate", "volume", "--rate", "2M"],
                                       stderr=subprocess.PIPE, text=True)
            wait_for(lambda: "underlay-hydrate-volume" in guest.device_mapper_devices(),
                     "the hydration")
            time.sleep(0.5)
            hydrate.send_signal(number)
            errors = hydrate.communicate(timeout=30)[1]
            equal(hydrate.returncode, 1, f"the status after {number.name}")
            check("interrupted" in errors and "run again" in errors, f"the message {errors!r}")
            equal(everything(), before, f"what is left after {number.name}")
        done = thin("status", "volume")["mapped"]
        copied = thin("hydrate", "volume")["copied"]
        check(copied < one.size - done + MIB, f"{copied} bytes were copied, {done} were there")
        hydrated_and_free(writer)


def interrupt(number, seconds):
    """Runs a slow hydration and ends it by a signal; its exit status."""
    with started(THIN, "hydrate", "volume", "--rate", "1M") as hydrate:
        try:
            hydrate.wait(seconds)
        except subprocess.TimeoutExpired:
            hydrate.send_signal(number)
        return hydrate.wait(30)


@scenario
def a_hydration_that_was_ended_anywhere_goes_on_after_fsck():
    one = template(TEMPLATE)
    with pool(), writes_to_a_new_volume(one) as writer:
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
            status = interrupt(number, 1)
            check(status != 0, f"hydrate ended with {status} on {number.name}")
            thin("fsck", "--repair")
            check(thin("status", "volume")["origin"], "an unfinished volume lost its origin")
        thin("hydrate", "volume", seconds=120)
        hydrated_and_free(writer)


@scenario
def two_hydrations_of_a_volume_exclude_each_other():
    with pool():
        create("volume", template(TEMPLATE))
        with subprocess.Popen([THIN, "hydrate", "volume", "--rate", "2M"]) as first:
            wait_for(lambda: "underlay-hydrate-volume" in guest.device_mapper_devices(),
                     "the hydration")
            wait_for(lambda: thin("status", "volume")["mapped"] > 0, "the first batch")
            thin_refuses("hydrate", "volume", words=("another process",))
            thin("snapshot", "volume", "copy")
            first.send_signal(signal.SIGINT)
            first.wait(30)
        same_contents("/dev/mapper/copy", template(TEMPLATE).raw)


@scenario
def a_dead_server_never_keeps_the_guest_waiting():
    one = template("stream.vmdk")
    with pool():
        device = create("volume", one, "--dead-timeout", "60", "--recovery-timeout", "2")
        hydrate = subprocess.Popen([THIN, "hydrate", "volume", "--rate", "2M"])
        try:
            wait_for(lambda: thin("status", "volume")["mapped"] > 0, "the first batch")
            for pid in guest.servers():
                os.kill(pid, signal.SIGKILL)
            time.sleep(1)
            nothing_is_suspended()
            # Mapped already: the guest can write it, whatever became of the server.
            begun = time.monotonic()
            guest.write_at(device, BLOCK, bytes(BLOCK))
            check(time.monotonic() - begun < 5, "a write to a block that was copied waits")
            guest.write_at(device, BLOCK, pathlib.Path(one.raw).read_bytes()[BLOCK:2 * BLOCK])
            equal(run(THIN, "fsck", "--repair")[0], 0, "the status of fsck")
            equal(hydrate.wait(60), 0, "the status of hydrate after a new server came")
        finally:
            hydrate.kill()
            hydrate.wait(90)
        same_contents(device, one.raw)


guest.main()
