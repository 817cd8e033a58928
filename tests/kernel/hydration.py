#!/usr/bin/python3
"""Hydration copies what a volume reads from its template, and loses no write on the way. What
interrupts it, see hydration_broken_off.py."""
import os

import guest
from guest import (MIB, check, create, equal, everything, mounted, pool, same_contents, scenario,
                   servers, template, thin, thin_refuses)
from writer import hydrated_and_free, writes_to_a_new_volume

TEMPLATE = "compressed.qcow2"
LONGEST_PAUSE = 0.4  # seconds: 50 ms are aimed at; the test kernel runs on a busy machine


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
def no_write_of_the_guest_is_lost_and_none_waits_for_long():
    one = template(TEMPLATE)
    for options in ((), ("--rate", "8M")):
        with pool(), writes_to_a_new_volume(one) as writer:
            thin("hydrate", "volume", *options, seconds=120)
            print(f"    longest write during hydration: {1000 * writer.longest:.1f} ms")
            check(writer.longest < LONGEST_PAUSE, f"a write took {writer.longest:.3f} s")
            hydrated_and_free(writer)


@scenario
def blocks_of_all_sizes_are_copied_whole():
    for block, name in (("64K", "odd.qcow2"), ("192K", "odd.qcow2"), ("4M", TEMPLATE)):
        one = template(name)
        with pool("pool", "256M", "--block-size", block):
            size = one.size + 3 * 512
            device = create("volume", one, "--size", str(size))
            guest.write_at(device, 0, b"first")
            guest.write_at(device, size - 512, b"last")
            thin("hydrate", "volume")
            with open(one.raw, "rb") as raw:
                expected = bytearray(raw.read()) + bytes(3 * 512)
            expected[:5] = b"first"
            expected[size - 512:size - 508] = b"last"
            (guest.WORK / "expected").write_bytes(expected)
            same_contents(device, guest.WORK / "expected", size)


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


@scenario
def a_volume_that_is_not_active_is_activated_and_hydrated():
    one = template("odd.qcow2")
    with pool():
        device = create("volume", one)
        thin("deactivate", "volume")
        thin("hydrate", "volume")
        same_contents(device, one.raw)
        equal(thin("hydrate", "volume")["copied"], 0, "what a second hydration copies")


@scenario
def a_pool_without_room_is_told_before_anything_is_copied():
    one = template("odd.qcow2")
    with pool("pool", "8M"):
        device = create("volume", one)
        thin_refuses("hydrate", "volume", words=("room", "pool grow"))
        equal(thin("status", "volume")["mapped"], 0, "mapped")
        same_contents(device, one.raw)


@scenario
def a_changed_image_is_refused():
    one = template(TEMPLATE).copy()
    with pool():
        create("volume", one)
        os.utime(one.path, (1, 1))
        thin_refuses("hydrate", "volume", words=(one.path,))
        check(thin("status", "volume")["origin"], "the origin")


guest.main()
