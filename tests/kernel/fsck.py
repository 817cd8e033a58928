#!/usr/bin/python3
"""fsck finds what is not as the registry says, and repairs it without losing data."""
import json
import os
import pathlib
import signal

import guest
from guest import (MIB, THIN, check, create, equal, everything, must, pool, run, same_contents,
                   scenario, template, thin, wait_for, write_at)

TEMPLATE = "compressed.qcow2"


def problems(*options):
    """What fsck says: {what: repaired}."""
    status, output, errors = run(THIN, "--json", "fsck", *options)
    found = json.loads(output)["problems"]
    left = [one for one in found if not one["repaired"]]
    equal(status, 1 if left else 0, f"the exit status of fsck ({found}, {errors!r})")
    return {one["what"]: one["repaired"] for one in found}


def is_found_and_repaired(*kinds):
    """Without --repair nothing is changed."""
    before = everything(), must("dmsetup", "table"), must("dmsetup", "info", "-c", "-o",
                                                          "name,suspended,tables_loaded")
    found = problems()
    for kind in kinds:
        check(found.get(kind) is False, f"{kind} was not found: {found}")
    equal((everything(), must("dmsetup", "table"),
           must("dmsetup", "info", "-c", "-o", "name,suspended,tables_loaded")), before,
          "what there is after fsck without --repair")
    found = problems("--repair")
    check(all(found.values()), f"not all was repaired: {found}")
    for kind in kinds:
        check(kind in found, f"{kind} was not repaired: {found}")
    equal(problems(), {}, "a second fsck")


@scenario
def what_is_sound_has_no_problems():
    equal(problems(), {}, "without a registry")
    with pool():
        create("volume", template(TEMPLATE))
        create("direct", template("plain.qcow2"))
        equal(problems(), {}, "with two active volumes")
        thin("deactivate", "volume")
        equal(problems(), {}, "with one of them")
        thin("remove", "volume")
        equal(problems(), {}, "with a volume removed")
        thin("deactivate", "--all")
        equal(problems("--repair"), {}, "with nothing active")
        thin("activate", "--all")


@scenario
def a_volume_without_its_origin_gets_it_back():
    one = template(TEMPLATE)
    with pool():
        device = create("volume", one)
        table = must("dmsetup", "table", "volume").split()
        must("dmsetup", "reload", "volume", "--table", " ".join(table[:-1]))
        must("dmsetup", "suspend", "volume")
        must("dmsetup", "resume", "volume")
        check(guest.read_at(device, 0, MIB).count(0) == MIB, "the template's data without origin")
        is_found_and_repaired("volume-origin")
        same_contents(device, one.raw)


@scenario
def suspended_devices_and_loaded_tables():
    one = template(TEMPLATE)
    with pool():
        device = create("volume", one)
        must("dmsetup", "suspend", "volume")
        is_found_and_repaired("suspended")
        size = one.size // 512
        must("dmsetup", "reload", "volume", "--table", f"0 {size} error")
        is_found_and_repaired("inactive-table")
        must("dmsetup", "reload", "volume", "--table", f"0 {size} error")
        must("dmsetup", "suspend", "volume")
        is_found_and_repaired("inactive-table", "suspended")
        same_contents(device, one.raw)


@scenario
def a_thin_id_that_no_volume_knows_is_kept():
    with pool():
        create("volume", template(TEMPLATE))
        must("dmsetup", "message", "pool", "0", "create_thin 77")
        for options in ((), ("--repair",)):
            equal(problems(*options), {"unknown-thin-id": False}, f"fsck {options}")
        must("dmsetup", "message", "pool", "0", "delete 77")
        equal(problems(), {}, "afterwards")


@scenario
def devices_and_servers_without_a_record_go():
    one = template(TEMPLATE)
    with pool():
        create("volume", one)
        registry = pathlib.Path("/var/lib/underlay/registry.json")
        text = json.loads(registry.read_text())
        text["volumes"], text["images"] = [], []
        registry.write_text(json.dumps(text))
        pathlib.Path(str(registry) + ".new").write_text("{")
        found = problems("--repair")
        check(not found.pop("unknown-thin-id"), "a thin id was deleted")
        check(all(found.values()) and {"unknown-device", "unknown-nbd", "unknown-server",
                                       "stale-file"} <= set(found), f"repaired: {found}")
        state = everything()
        equal((state["dm"], state["nbd"], state["servers"]), (["pool"], [], []), "what is left")
        equal(problems(), {"unknown-thin-id": False}, "a second fsck")
        must("dmsetup", "message", "pool", "0", "delete 1")


@scenario
def what_is_in_use_is_left_alone():
    with pool():
        create("volume", template(TEMPLATE))
        registry = pathlib.Path("/var/lib/underlay/registry.json")
        before = registry.read_text()
        text = json.loads(before)
        text["volumes"], text["images"] = [], []
        descriptor = os.open("/dev/mapper/volume", os.O_RDONLY)
        registry.write_text(json.dumps(text))
        state = everything()
        check(not problems("--repair")["unknown-device"], "a device that is open is left alone")
        equal((everything()["dm"], everything()["nbd"]), (state["dm"], state["nbd"]), "devices")
        os.close(descriptor)
        registry.write_text(before)
        problems("--repair")
        same_contents("/dev/mapper/volume", template(TEMPLATE).raw)


@scenario
def a_device_of_the_server_itself_is_not_the_companions():
    one = template(TEMPLATE)
    with guest.started(guest.PROGRAMS / "underlay-nbd", "-r", "-c", "/dev/nbd0", "-f", one.format,
                       one.path):
        wait_for(guest.nbd_devices, "the device of the server")
        equal(problems("--repair"), {}, "with a device of underlay-nbd -c")
        equal(guest.nbd_devices(), ["nbd0"], "the devices afterwards")
        must("nbd-client", "-d", "/dev/nbd0")


@scenario
def a_dead_server_is_started_again():
    one = template(TEMPLATE)
    with pool():
        device = create("volume", one)
        os.kill(guest.servers()[0], signal.SIGKILL)
        wait_for(lambda: not guest.servers(), "the end of the server")
        is_found_and_repaired("no-server")
        same_contents(device, one.raw)


@scenario
def an_image_that_changed_is_told():
    one = template(TEMPLATE).copy()
    with pool():
        create("volume", one)
        stat = os.stat(one.path)
        os.utime(one.path, (1, 1))
        equal(problems("--repair"), {"image-changed": False}, "with another time")
        os.utime(one.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        equal(problems(), {}, "as it was")


@scenario
def a_table_that_is_not_ours_is_left_to_a_person():
    with pool():
        create("volume", template("plain.qcow2"))
        write_at("/dev/mapper/volume", 0, b"kept")
        sectors, rest = must("dmsetup", "table", "volume").split(maxsplit=2)[1:]
        must("dmsetup", "reload", "volume", "--table", f"0 {int(sectors) - 8} {rest.strip()}")
        must("dmsetup", "suspend", "volume")
        must("dmsetup", "resume", "volume")
        equal(problems("--repair"), {"volume-table": False}, "with a smaller table")
        thin("deactivate", "volume")
        thin("activate", "volume")
        equal(guest.read_at("/dev/mapper/volume", 0, 4), b"kept", "what was written")


guest.main()
