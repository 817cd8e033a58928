#!/usr/bin/python3
"""What cannot be done is refused in one clear line, and nothing is lost by it."""
import os
import pathlib

import guest
from guest import (MIB, THIN, WORK, check, create, equal, everything, mounted, must, pool, read_at,
                   run, same_contents, scenario, scenario_with_io_errors, started, template, thin,
                   thin_refuses, wait_for, write_at)


def unchanged_by(*arguments, words=()):
    """The command is refused and leaves everything as it was."""
    before = everything(), run(THIN, "list"), run(THIN, "pool", "list")
    line = thin_refuses(*arguments, words=words)
    equal((everything(), run(THIN, "list"), run(THIN, "pool", "list")), before,
          f"what there is after {line.strip()!r}")


@scenario
def names_that_are_taken_or_missing():
    one = template("plain.qcow2")
    with pool():
        create("volume", one)
        unchanged_by("create", "volume", *one.image, "--pool", "pool", words=["volume"])
        unchanged_by("snapshot", "volume", "volume", words=["volume"])
        unchanged_by("snapshot", "nothing", "copy", words=["nothing"])
        unchanged_by("create", "other", *one.image, "--pool", "nothing", words=["nothing"])
        unchanged_by("remove", "nothing", words=["nothing"])
        unchanged_by("activate", "nothing", words=["nothing"])
        unchanged_by("create", "../escape", *one.image, "--pool", "pool", words=["../escape"])
        unchanged_by("pool", "create", "pool", "--file", WORK, "--size", "64M", words=["pool"])


@scenario
def images_that_are_missing_or_broken():
    one = template("compressed.qcow2").copy()
    with pool():
        missing = WORK / "missing.qcow2"
        unchanged_by("create", "volume", "--image", missing, "--format", "qcow2", "--pool", "pool",
                     words=[missing])
        with open(one.path, "r+b") as image:
            image.write(b"not qcow2")
        unchanged_by("create", "volume", *one.image, "--pool", "pool", words=[one.path])


@scenario
def an_image_that_is_gone_at_activation():
    one = template("compressed.qcow2").copy()
    with pool():
        with mounted(create("volume", one)) as files:
            (files / "written").write_text("kept")
        thin("deactivate", "--all")
        away = one.path + ".away"
        os.rename(one.path, away)
        thin_refuses("activate", "volume", words=[one.path])
        check(not os.path.exists("/dev/mapper/volume"), "a volume without its origin")
        os.rename(away, one.path)
        thin("activate", "volume")
        with mounted("/dev/mapper/volume") as files:
            equal((files / "written").read_text(), "kept", "written")


@scenario
def an_image_that_has_changed():
    one = template("plain.qcow2").copy()
    with pool():
        create("volume", one)
        thin("deactivate", "--all")
        os.utime(one.path, (1, 1))
        thin_refuses("activate", "volume", words=[one.path])
        check(not os.path.exists("/dev/mapper/volume"), "a volume on an image that has changed")
        thin_refuses("create", "other", *one.image, "--pool", "pool", words=[one.path])
        thin("activate", "volume", "--accept-changed-image")
        same_contents("/dev/mapper/volume", one.raw)


@scenario
def devices_in_use():
    one = template("compressed.qcow2")
    with pool():
        device = create("volume", one)
        nbd = "/dev/" + guest.nbd_devices()[0]
        with mounted(device, "-o", "ro,noload") as files:
            for command in ("remove", "deactivate"):
                unchanged_by(command, "volume", words=["volume", files])
            unchanged_by("pool", "remove", "pool", words=["volume"])
            unchanged_by("detach", nbd, words=[nbd])
            equal((files / "marker").read_text(), "as in the template\n", "marker")
        with open(device, "rb"):
            unchanged_by("remove", "volume", words=["volume"])
        same_contents(device, one.raw)


@scenario
def pools_on_devices_that_hold_something():
    raw = template("plain.qcow2").raw
    write_at("/dev/ram0", 0, pathlib.Path(raw).read_bytes()[:2 * MIB])
    write_at("/dev/ram1", 0, bytes(2 * MIB))
    command = ["pool", "create", "pool", "--data", "/dev/ram0", "--metadata", "/dev/ram1"]
    unchanged_by(*command, words=["/dev/ram0", "ext4", "--force"])
    unchanged_by("pool", "create", "pool", "--data", "/dev/ram1", "--metadata", "/dev/ram0",
                 words=["/dev/ram0", "ext4"])
    unchanged_by("pool", "create", "pool", "--data", "/dev/ram1", "--metadata", "/dev/ram1",
                 words=["/dev/ram1"])
    thin(*command, "--force")
    unchanged_by("pool", "create", "other", "--data", "/dev/ram0", "--metadata", "/dev/ram2",
                 words=["/dev/ram0"])
    thin("pool", "remove", "pool")


@scenario_with_io_errors
def a_full_pool_grows_and_nothing_is_lost():
    one = template("compressed.qcow2")
    with pool(size="16M"):
        device = create("volume", one, "--size", str(64 * MIB))
        part = os.urandom(4 * MIB)
        write_at(device, 32 * MIB, part)
        with started("dd", "if=/dev/zero", f"of={device}", "bs=1M", "seek=40", "count=20",
                     "oflag=direct") as filler:
            wait_for(lambda: thin("pool", "status", "pool")["mode"] == "out_of_data_space",
                     "the pool is full")
            equal(thin("pool", "status", "pool")["below_low_water"], True, "below_low_water")
            equal(read_at(device, 32 * MIB, len(part)), part, "what was written before")
            thin("pool", "grow", "pool", "--size", "128M")
            equal(filler.wait(60), 0, "the exit status of a write that waited for space")
        equal(thin("pool", "status", "pool")["size"], 128 * MIB, "the pool's size")
        guest.drop_caches()
        equal(read_at(device, 32 * MIB, len(part)), part, "what was written before it grew")
        equal(read_at(device, 0, MIB), pathlib.Path(one.raw).read_bytes()[:MIB],
              "what comes from the template")


@scenario
def a_pool_that_something_else_has_changed():
    one = template("plain.qcow2")
    with pool():
        create("volume", one)
        must("dmsetup", "message", "pool", "0", "create_thin 900")
        ours = thin("pool", "status", "pool")["transaction_id"]
        must("dmsetup", "message", "pool", "0", f"set_transaction_id {ours} {ours + 5}")
        thin_refuses("create", "other", *one.image, "--pool", "pool", words=["pool"])
        same_contents("/dev/mapper/volume", one.raw)
        must("dmsetup", "message", "pool", "0", f"set_transaction_id {ours + 5} {ours}")
        must("dmsetup", "message", "pool", "0", "delete 900")


@scenario
def without_root():
    status, _, errors = run("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
                            "--inh-caps=-all", THIN, "create", "volume", "--image", "/x", "--pool",
                            "pool")
    equal(status, 1, "the exit status without root")
    check("root" in errors and errors.count("\n") == 1, f"no word of root: {errors!r}")


@scenario
def unknown_options_are_a_usage_error():
    for arguments in (["create"], ["no-such-command"], ["list", "--no-such-option"], []):
        status, _, errors = run(THIN, *arguments)
        equal(status, 2, f"the exit status of {arguments}")
        check(errors, f"nothing is said about {arguments}")


guest.main()
