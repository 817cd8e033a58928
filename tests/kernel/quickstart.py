#!/usr/bin/python3
"""tools/quickstart-volume in a kernel that can: it shows what it says, and takes everything down."""
import glob
import os
import pathlib
import signal
import subprocess

import guest
from guest import check, create, equal, everything, pool, run, scenario, template, wait_for

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "tools/quickstart-volume"
MOMENTS = ["a pool", "a volume", "a mount"]


def left():
    return everything(), glob.glob("/tmp/underlay-volume-*"), mounts()


def mounts():
    return [line.split()[1] for line in pathlib.Path("/proc/mounts").read_text().splitlines()
            if line.startswith("/dev/mapper/")]


def has_come(moment):
    devices = [name for name in guest.device_mapper_devices() if name.startswith("quickstart-")]
    return {"a pool": devices, "a volume": [name for name in devices if "pool" not in name],
            "a mount": mounts()}[moment]


@scenario
def a_template_becomes_a_disk_and_stays_as_it_is():
    one = template("plain.qcow2")
    before = left()
    digest = one.digest()
    with pool():  # what is there already is neither seen nor touched
        device = create("volume", one)
        ours = left(), guest.thin("list")
        status, output, errors = run(SCRIPT, one.path)
        equal(status, 0, f"the exit status ({errors!r})")
        for words in ("in user-mode Linux, ", f"$ cat files/written\n{digest}",
                      "are read without the server", f"{one.path}: OK"):
            check(words in output, f"no {words!r} in {output!r}")
        equal((left(), guest.thin("list")), ours, "what there is afterwards")
        guest.same_contents(device, one.raw)
    equal(left(), before, "what is left")
    equal(one.digest(), digest, "the hash of the template")


@scenario
def an_end_by_a_signal_leaves_nothing():
    one = template("plain.qcow2")
    before = left()
    for number in (signal.SIGINT, signal.SIGTERM):
        for moment in MOMENTS:
            story = subprocess.Popen([SCRIPT, one.path], stdout=subprocess.DEVNULL,
                                     start_new_session=True)
            try:
                wait_for(lambda: has_come(moment) or story.poll() is not None, moment)
                os.killpg(story.pid, number)
                equal(story.wait(30), 128 + number, f"the status after {number.name} at {moment}")
                equal(left(), before, f"what is left after {number.name} at {moment}")
            finally:
                story.kill()


@scenario
def a_failure_leaves_nothing():
    before = left()
    empty = guest.WORK / "empty.qcow2"
    empty.write_bytes(b"")
    status, output, errors = run(SCRIPT, empty)
    check(status != 0 and str(empty) in errors, f"exit {status}, {output!r}, {errors!r}")
    odd = template("odd.qcow2")  # no file system: mount fails
    status, output, errors = run(SCRIPT, odd.path)
    check(status != 0 and "mount" in errors, f"exit {status}, {output!r}, {errors!r}")
    equal(left(), before, "what is left")


guest.main()
