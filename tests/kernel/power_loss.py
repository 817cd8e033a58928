#!/usr/bin/python3
"""One life of a machine that loses its power: judges what the last life left, then makes volumes,
writes, snapshots and removes until the guest is killed. power_loss_test.py boots it several times.

    power_loss.py ROUND

The journal in the job's folder, which survives, says what was begun and what was done. What was
done must hold; what was begun may have happened or not.
"""
import json
import os
import random
import sys
import threading
import time

import guest
from guest import JOB, THIN, check, equal, mounted, must, template

DATA, METADATA, STATE_DISK = "/dev/ubda", "/dev/ubdb", "/dev/ubdc"
STATE = "/run/state"
JOURNAL = JOB / "journal"
TEMPLATE = "compressed.qcow2"
MOST_VOLUMES = 4


def thin(*arguments):
    output = must(THIN, "--json", "--state-dir", STATE, *arguments)
    return json.loads(output) if output.strip() else {}


def note(*words):
    with open(JOURNAL, "a", encoding="utf-8") as journal:
        journal.write(json.dumps(words) + "\n")
        journal.flush()
        os.fsync(journal.fileno())


class Expected:
    """{volume: its text} by the journal, and the operation that was under way, if one was."""

    def __init__(self):
        self.volumes = {}
        self.under_way = None
        if JOURNAL.exists():
            for line in JOURNAL.read_text(encoding="utf-8").splitlines():
                self._apply(*json.loads(line))

    def _apply(self, what, *operation):
        if what == "begin":
            self.under_way = operation
            return
        self.under_way = None
        self.volumes = self.after(operation)

    def after(self, operation):
        """The volumes when the operation has been done."""
        kind, name, *rest = operation
        volumes = dict(self.volumes)
        if kind == "create":
            volumes[name] = None
        elif kind == "write":
            volumes[name] = rest[0]
        elif kind == "snapshot":
            volumes[rest[0]] = volumes[name]
        elif kind == "remove":
            del volumes[name]
        return volumes

    def possible(self):
        """Old state and new."""
        return [self.volumes] + ([self.after(self.under_way)] if self.under_way else [])


def text_of(name):
    """What was written to a volume, None when nothing was; its file system must be whole."""
    with mounted(f"/dev/mapper/{name}") as files:
        equal((files / "marker").read_text(), "as in the template\n", f"marker of {name}")
        written = files / "written"
        return written.read_text() if written.exists() else None


def write_text(name, text):
    with mounted(f"/dev/mapper/{name}") as files:
        new = files / "new"
        new.write_text(text)
        descriptor = os.open(new, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        os.rename(new, files / "written")
        os.sync()


def operate(operation):
    kind, name, *rest = operation
    note("begin", *operation)
    if kind == "create":
        thin("create", name, *template(TEMPLATE).image, "--pool", "pool")
    elif kind == "write":
        write_text(name, rest[0])
    elif kind == "snapshot":
        thin("snapshot", name, rest[0])
    else:
        thin("remove", name)
    note("done", *operation)


def next_operation(rng, volumes, number):
    name = f"volume{number}"
    if not volumes:
        return ("create", name)
    some = rng.choice(sorted(volumes))
    choices = [("write", some, f"text {number}")]
    if len(volumes) < MOST_VOLUMES:
        choices += [("create", name), ("snapshot", some, name)]
    else:
        choices += [("remove", some)] * 2
    return rng.choice(choices)


def judge():
    """Everything that was done before the power was lost is there."""
    thin("fsck", "--repair")
    thin("activate", "--all")
    names = {volume["name"] for volume in thin("list")["volumes"]}
    found = {name: text_of(name) for name in names}
    possible = Expected().possible()
    check(found in possible, f"volumes after the power was lost: {found}, none of {possible}")
    equal(thin("fsck").get("problems"), [], "problems after the repair")
    # From here on what was found is what is expected.
    JOURNAL.unlink(missing_ok=True)
    for name, text in found.items():
        note("done", "create", name)
        note("done", "write", name, text)
    print(f"ok   {len(found)} volumes as they were", flush=True)


def lose_power_after(seconds):
    def touch():
        time.sleep(seconds)
        (JOB / "power-is-lost").touch()
    threading.Thread(target=touch, daemon=True).start()


def main():
    round_ = int(sys.argv[1])
    rng = random.Random(round_)
    os.mkdir(STATE)
    guest.WORK.mkdir()
    must("mount", STATE_DISK, STATE)
    if round_ == 0:
        thin("pool", "create", "pool", "--data", DATA, "--metadata", METADATA)
    else:
        judge()
    lose_power_after(rng.uniform(0.3, 2.5))
    number = round_ * 1000
    while True:
        number += 1
        operate(next_operation(rng, Expected().volumes, number))


main()
