#!/usr/bin/python3
"""What a process that was killed left half made, and devices that are not what their name says: the
next command makes them whole, or refuses, and needs no fsck for it.
"""
import os
import shutil
import signal

import guest
from guest import (PROGRAMS, check, create, equal, must, pool, run,
                   same_contents, scenario, template, thin, thin_refuses, write_at)

TEMPLATE = "compressed.qcow2"


def uuid_of(name):
    return must("dmsetup", "info", "-c", "--noheadings", "-o", "uuid", name).strip()


def devices():
    """Also those without a table, which have no node in /dev/mapper."""
    lines = must("dmsetup", "ls").splitlines()
    return sorted(line.split()[0] for line in lines if "\t" in line)


def without_table(name, uuid):
    """As a process leaves it that is killed between creating a device and loading its table."""
    must("dmsetup", "create", name, "--uuid", uuid, "--notable")


def transaction_of(name):
    return int(must("dmsetup", "status", name).split()[3])


@scenario
def a_volume_without_a_table_is_not_active():
    one = template(TEMPLATE)
    with pool():
        device = create("volume", one)
        uuid = uuid_of("volume")
        for command, there in (("activate", True), ("deactivate", False)):
            thin("deactivate", "volume")
            without_table("volume", uuid)
            check(not thin("list")["volumes"][0]["active"], "it is listed as active")
            thin(command, "volume")
            equal("volume" in devices(), there, f"a device after {command}")
            if there:
                same_contents(device, one.raw)
        without_table("volume", uuid)
        thin("remove", "volume")
        equal(devices(), ["pool"], "devices after its removal")


@scenario
def an_origin_without_a_table_is_made():
    one = template(TEMPLATE)
    with pool():
        device = create("volume", one)
        origin, = (name for name in devices() if name.startswith("underlay-"))
        uuid = uuid_of(origin)
        thin("deactivate", "volume")
        without_table(origin, uuid)
        thin("activate", "volume")
        same_contents(device, one.raw)


@scenario
def a_pool_that_is_suspended_or_without_a_table_is_started():
    one = template(TEMPLATE)
    with pool():
        device = create("volume", one)
        must("dmsetup", "suspend", "--noflush", "--nolockfs", "pool")
        same_contents(create("second", one), one.raw)
        uuid = uuid_of("pool")
        thin("deactivate", "--all")
        without_table("pool", uuid)
        thin("activate", "volume")
        same_contents(device, one.raw)


@scenario
def the_device_of_another_pool_is_not_taken():
    one = template(TEMPLATE)
    with pool():
        create("volume", one)
        write_at("/dev/mapper/volume", 0, b"kept")
        uuid = uuid_of("pool")
        table = must("dmsetup", "table", "pool").strip()
        thin("deactivate", "volume")
        must("dmsetup", "remove", "pool")
        data, metadata = "/dev/loop20", "/dev/loop21"
        for device in (data, metadata):
            path = guest.WORK / device.rsplit("/", 1)[1]
            path.touch()
            os.truncate(path, 64 * guest.MIB)
            must("losetup", device, path)
        fields = table.split()
        must("dmsetup", "create", "pool", "--uuid", uuid[:-4] + "0000", "--table",
             " ".join([fields[0], "65536", *fields[2:3], metadata, data, *fields[5:]]))
        must("dmsetup", "message", "pool", "0", "create_thin 1")
        must("dmsetup", "message", "pool", "0", "set_transaction_id 0 1")
        thin_refuses("activate", "volume", words=["/dev/mapper/pool", "another"])
        must("dmsetup", "remove", "pool")
        for device in (data, metadata):
            must("losetup", "-d", device)
        thin("activate", "volume")
        equal(guest.read_at("/dev/mapper/volume", 0, 4), b"kept", "what was written")


@scenario
def a_changed_image_is_refused_also_while_its_origin_is_there():
    one = template(TEMPLATE).copy()
    with pool():
        create("volume", one)
        create("second", one)
        thin("deactivate", "second")
        # Another file in its place, not a new time of the same one: which the server would notice,
        # and then rightly fail what is read below.
        kept = f"{one.path}.kept"
        os.rename(one.path, kept)
        shutil.copyfile(kept, one.path)
        os.utime(one.path, (1, 1))
        thin_refuses("activate", "second", words=["changed"])
        same_contents("/dev/mapper/volume", one.raw)
        os.rename(kept, one.path)
        thin("activate", "second")
        same_contents("/dev/mapper/second", one.raw)


@scenario
def a_pool_that_cannot_be_recovered_is_not_in_the_way_of_others():
    one = template(TEMPLATE)
    with pool():
        with pool("other"):
            status, _, errors = run(PROGRAMS / "underlay-thin-faulty", "create", "volume",
                                    *one.image, "--pool", "pool",
                                    env={"UNDERLAY_FAULT": "create-thin:after"})
            equal(status, -signal.SIGKILL, f"the exit status ({errors!r})")
            now = transaction_of("pool")
            must("dmsetup", "message", "pool", "0", f"set_transaction_id {now} 9")
            same_contents(create("second", one, pool_name="other"), one.raw)
            status, _, errors = run(guest.THIN, "create", "third", *one.image, "--pool", "pool")
            check(status == 1 and "transaction id" in errors, f"create: exit {status}: {errors!r}")
            thin("remove", "second")
            must("dmsetup", "message", "pool", "0", f"set_transaction_id 9 {now}")
        same_contents(create("third", one), one.raw)


guest.main()
