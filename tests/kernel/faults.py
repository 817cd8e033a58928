#!/usr/bin/python3
"""underlay-thin is killed before and after each of its steps: `fsck --repair` brings the old or the
new state, and what other volumes hold is never touched.

underlay-thin-faulty ends itself with SIGKILL at the point that UNDERLAY_FAULT names.
"""
import json
import os
import signal

import guest
from guest import (PROGRAMS, THIN, Failed, check, create, equal, mounted, must, pool, run,
                   same_contents, scenario, template, thin)

TEMPLATE = "compressed.qcow2"


def kill_points(*arguments):
    """All points of a command, by its own list of steps."""
    names = [step["name"] for step in thin("--dry-run", *arguments)["steps"]]
    check(names, f"{' '.join(arguments)} has no steps")
    points = [f"{name}:{when}" for name in dict.fromkeys(names) for when in ("before", "after")]
    return points + ["registry-write"]


def killed_at(point, *arguments):
    status, _, errors = run(PROGRAMS / "underlay-thin-faulty", *arguments,
                            env={"UNDERLAY_FAULT": point})
    equal(status, -signal.SIGKILL, f"the exit status of a command killed at {point} ({errors!r})")


def repair():
    """fsck repairs what there is, finds nothing any more then, and no device stays suspended."""
    thin("fsck", "--repair")
    status, output, _ = run(THIN, "--json", "fsck")
    equal((status, json.loads(output)["problems"]), (0, []), "a second fsck")
    states = must("dmsetup", "info", "-c", "--noheadings", "--separator", " ", "-o",
                  "name,suspended")
    check("Suspended" not in states, f"devices after fsck: {states!r}")


def text_of(name):
    with mounted(f"/dev/mapper/{name}") as files:
        return (files / "written").read_text()


def write_text(name, text):
    with mounted(f"/dev/mapper/{name}") as files:
        (files / "written").write_text(text)


def volumes():
    return {volume["name"]: volume for volume in thin("list")["volumes"]}


def activate(name):
    """Active in any case; a command that was killed may have left it either way."""
    if not volumes()[name]["active"]:
        thin("activate", name)


def at_each_point(arguments, prepare, judge):
    """Runs the command once for each point. All that fail are named."""
    prepare()
    points = kill_points(*arguments)
    failures = []
    for number, point in enumerate(points):
        if number > 0:
            prepare()
        try:
            killed_at(point, *arguments)
            repair()
            judge()
        except Failed as failure:
            failures.append(f"{point}: {failure}")
            print("    failed at", point, flush=True)
    check(not failures, f"{len(failures)} of {len(points)} points: " + "; ".join(failures))


@scenario
def create_is_killed():
    one = template(TEMPLATE)
    arguments = ["create", "victim", *one.image, "--pool", "pool"]

    def judge():
        if "victim" in volumes():
            activate("victim")
            same_contents("/dev/mapper/victim", one.raw)
            write_text("victim", "by the guest")
            thin("deactivate", "victim")
            thin("activate", "victim")
            equal(text_of("victim"), "by the guest", "written")
        else:
            check(not os.path.exists("/dev/mapper/victim"), "a device without a volume")
            thin(*arguments)
            same_contents("/dev/mapper/victim", one.raw)
        thin("remove", "victim")

    with pool():
        at_each_point(arguments, lambda: None, judge)


@scenario
def create_beside_another_volume_is_killed():
    one = template(TEMPLATE)
    arguments = ["create", "victim", *one.image, "--pool", "pool"]

    def judge():
        equal(text_of("keeper"), "kept", "written to another volume")
        if "victim" in volumes():
            activate("victim")
            same_contents("/dev/mapper/victim", one.raw)
            thin("remove", "victim")
        check(not os.path.exists("/dev/mapper/victim"), "a device without a volume")

    with pool():
        create("keeper", one)
        write_text("keeper", "kept")
        at_each_point(arguments, lambda: None, judge)


@scenario
def snapshot_is_killed():
    one = template(TEMPLATE)

    def judge():
        equal(text_of("source"), "before", "written to the source")
        if "copy" in volumes():
            activate("copy")
            equal(text_of("copy"), "before", "written, in the snapshot")
            write_text("copy", "after")
            equal(text_of("source"), "before", "the source after a write to the snapshot")
            thin("remove", "copy")
        check(not os.path.exists("/dev/mapper/copy"), "a device without a volume")

    with pool():
        create("source", one)
        write_text("source", "before")
        at_each_point(["snapshot", "source", "copy"], lambda: None, judge)


@scenario
def remove_is_killed():
    one = template(TEMPLATE)

    def prepare():
        if "victim" not in volumes():
            create("victim", one)
            write_text("victim", "still there")

    def judge():
        equal(text_of("keeper"), "kept", "written to another volume")
        if "victim" in volumes():
            activate("victim")
            equal(text_of("victim"), "still there", "written")
        else:
            check(not os.path.exists("/dev/mapper/victim"), "a device without a volume")

    with pool():
        create("keeper", one)
        write_text("keeper", "kept")
        at_each_point(["remove", "victim"], prepare, judge)


@scenario
def hydrate_is_killed():
    one = template(TEMPLATE)

    def prepare():
        create("victim", one)
        write_text("victim", "by the guest")

    def judge():
        activate("victim")
        equal(text_of("victim"), "by the guest", "written, after a hydration that was killed")
        thin("hydrate", "victim")
        equal(thin("status", "victim")["origin"], None, "the origin after hydration")
        with mounted("/dev/mapper/victim") as files:
            equal((files / "written").read_text(), "by the guest", "written, after hydration")
            equal((files / "marker").read_text(), "as in the template\n", "marker")
        thin("remove", "victim")

    with pool():
        at_each_point(["hydrate", "victim"], prepare, judge)


guest.main()
