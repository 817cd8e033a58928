#!/usr/bin/python3
"""A template becomes a writable disk, and stays one: create, snapshot, activate, remove."""
import os
import pathlib

import guest
from guest import (MIB, PROGRAMS, WORK, check, create, equal, everything, mounted, must, pool,
                   read_at, same_contents, scenario, servers, started, template, templates, thin,
                   wait_for, write_at)


def written_and_read_back(device, text):
    with mounted(device) as files:
        (files / "written").write_text(text)
    with mounted(device) as files:
        equal((files / "written").read_text(), text, f"what was written to {device}")


def file_text(device, name="written"):
    with mounted(device) as files:
        return (files / name).read_text()


def every_file_is_there(device, one):
    """The file system on the device is whole and has the template's files."""
    raw = must("losetup", "--find", "--show", "--read-only", one.raw).strip()
    with mounted(raw, "-o", "ro") as truth, mounted(device) as files:
        equal((files / "marker").read_text(), "as in the template\n", "marker")
        names = sorted(os.listdir(truth / "linux"))
        equal(sorted(os.listdir(files / "linux")), names, "the folder linux")
        for name in names[::40]:
            expected = truth / "linux" / name
            if expected.is_file():
                equal((files / "linux" / name).read_bytes(), expected.read_bytes(), name)
    must("losetup", "-d", raw)


@scenario
def a_volume_has_the_contents_of_its_template():
    with pool():
        for one in templates():
            same_contents(create("volume", one), one.raw)
            thin("remove", "volume")


@scenario
def what_is_written_survives_deactivation():
    digests = {one.name: one.digest() for one in templates()}
    with pool():
        for number, one in enumerate(templates()):
            if one.file_system:
                written_and_read_back(create(f"volume{number}", one), one.name)
        thin("deactivate", "--all")
        equal(everything(), {"dm": [], "nbd": [], "loop": {}, "servers": []},
              "what is left after deactivate --all")
        thin("activate", "--all")
        for number, one in enumerate(templates()):
            if one.file_system:
                equal(file_text(f"/dev/mapper/volume{number}"), one.name, f"written, {one.name}")
                every_file_is_there(f"/dev/mapper/volume{number}", one)
    for one in templates():
        equal(one.digest(), digests[one.name], f"the hash of the template {one.name}")


@scenario
def one_volume_is_activated_and_deactivated():
    one = template("compressed.qcow2")
    with pool():
        written_and_read_back(create("volume", one), "first")
        thin("deactivate", "volume")
        check(not os.path.exists("/dev/mapper/volume"), "the device of a volume that is not active")
        equal([volume["active"] for volume in thin("list")["volumes"]], [False], "active")
        equal(thin("activate", "volume")["device"], "/dev/mapper/volume", "the device")
        equal(file_text("/dev/mapper/volume"), "first", "written")


@scenario
def two_volumes_share_a_template_and_its_server():
    one = template("compressed.qcow2")
    with pool():
        first, second = create("first", one), create("second", one)
        equal(len(servers()), 1, "the number of servers")
        equal(len(guest.nbd_devices()), 1, "the number of nbd devices")
        written_and_read_back(first, "to the first")
        same_contents(second, one.raw)
        written_and_read_back(second, "to the second")
        equal(file_text(first), "to the first", "written to the first")
        thin("remove", "first")
        equal(file_text(second), "to the second", "after the first was removed")


@scenario
def a_snapshot_is_a_volume_of_its_own():
    one = template("compressed.qcow2")
    with pool():
        source = create("source", one)
        written_and_read_back(source, "before")
        copy = thin("snapshot", "source", "copy")["device"]
        equal(copy, "/dev/mapper/copy", "the device of the snapshot")
        written_and_read_back(source, "after")
        equal(file_text(copy), "before", "written, in the snapshot")
        # What nobody has written comes from the template in the snapshot, too.
        every_file_is_there(copy, one)
        thin("deactivate", "--all")
        thin("activate", "--all")
        equal(file_text(source), "after", "written, in the source")
        equal(file_text(copy), "before", "written, in the snapshot, activated again")
        every_file_is_there(copy, one)
        equal(thin("status", "copy")["snapshot_of"], "source", "snapshot_of")
        thin("remove", "source")
        equal(file_text(copy), "before", "written, in the snapshot of a volume that is gone")


@scenario
def a_snapshot_of_a_mounted_file_system_is_whole():
    with pool():
        source = create("source", template("plain.qcow2"))
        with mounted(source) as files:
            (files / "written").write_text("before")
            os.sync()
            thin("snapshot", "source", "copy")
            (files / "written").write_text("after")
        equal(file_text("/dev/mapper/copy"), "before", "written, in the snapshot")
        thin("deactivate", "copy")
        thin("activate", "copy")
        must("e2fsck", "-f", "-n", "/dev/mapper/copy")


@scenario
def sizes_other_than_the_templates():
    with pool():
        for name in ("odd.qcow2", "compressed.qcow2", "dynamic.vhd"):
            one = template(name)
            for size in (64 * MIB, one.size + 512, one.size):
                device = create("volume", one, "--size", str(size))
                same_contents(device, one.raw, size)
                write_at(device, size - 512, b"end" + bytes(509))
                equal(read_at(device, size - 512, 3), b"end", "the last sector")
                thin("deactivate", "volume")
                thin("activate", "volume")
                equal(guest.device_size(device), size, "the size after activation")
                equal(read_at(device, size - 512, 3), b"end", "the last sector after activation")
                thin("remove", "volume")


@scenario
def a_discard_does_not_bring_the_template_back():
    one = template("compressed.qcow2")
    block = 64 << 10
    raw = pathlib.Path(one.raw).read_bytes()
    full = next(at for at in range(0, len(raw), block) if raw[at:at + block].count(0) < block // 2)
    with pool():
        device = create("volume", one)
        write_at(device, full, bytes(block))
        guest.run("blkdiscard", "--offset", full, "--length", block, device)
        guest.drop_caches()
        equal(read_at(device, full, block).count(0), block, "zeros in a block that was discarded")


@scenario
def a_pool_on_devices_counts_its_blocks():
    data, metadata = "/dev/ram0", "/dev/ram1"
    for device in (data, metadata):
        write_at(device, 0, bytes(8 * MIB))
    one = template("compressed.qcow2")
    thin("pool", "create", "pool", "--data", data, "--metadata", metadata, "--block-size", "128K")
    device = create("volume", one)
    same_contents(device, one.raw)
    status = thin("pool", "status", "pool")
    equal(status["block_size"], 128 << 10, "block_size")
    equal(status["needs_check"], False, "needs_check")
    write_at(device, 0, b"x" * (128 << 10))
    equal(thin("pool", "status", "pool")["used"], 128 << 10, "used, after one block was written")
    equal(thin("status", "volume")["mapped"], 128 << 10, "mapped")
    thin("remove", "volume")
    equal(thin("pool", "status", "pool")["used"], 0, "used, after the volume was removed")
    thin("pool", "remove", "pool")
    equal(thin("pool", "list")["pools"], [], "pools")


@scenario
def answers_for_machines():
    one = template("compressed.qcow2")
    with pool():
        create("volume", one, "--size", str(32 * MIB))
        listed = thin("list")["volumes"]
        equal([(volume["name"], volume["pool"], volume["size"], volume["image"], volume["active"],
                volume["device"]) for volume in listed],
              [("volume", "pool", 32 * MIB, one.path, True, "/dev/mapper/volume")], "list")
        status = thin("status", "volume")
        equal((status["size"], status["mapped"], status["active"]), (32 * MIB, 0, True), "status")
        origin = status["origin"]
        equal(origin["image"], one.path, "the origin's image")
        check(origin["direct"] + origin["zero"] < one.size, "a compressed image needs the server")
        check(0 <= origin["direct_share"] < 1, f"direct_share: {origin['direct_share']}")
        equal(origin["server_pid"], servers()[0], "server_pid")
        equal(origin["connections"], "alive", "connections")


@scenario
def a_dry_run_changes_nothing_and_names_the_steps():
    one = template("compressed.qcow2")
    with pool():
        before = everything(), thin("list"), thin("pool", "status", "pool")
        steps = thin("--dry-run", "create", "volume", *one.image, "--pool", "pool")["steps"]
        check(len(steps) > 3 and all(step["name"] and step["command"] for step in steps),
              f"steps: {steps}")
        equal((everything(), thin("list"), thin("pool", "status", "pool")), before,
              "what there is after a dry run")
        create("volume", one)
        # One answer, however many parts the command has.
        for command in (("remove", "volume"), ("deactivate", "--all")):
            check(thin("--dry-run", *command)["steps"], f"steps of {command}")
        thin("deactivate", "--all")
        for command in (("activate", "volume"), ("activate", "--all")):
            names = [step["name"] for step in thin("--dry-run", *command)["steps"]]
            check("activate-pool" in names and "activate" in names, f"steps of {command}: {names}")
        thin("activate", "--all")


@scenario
def attach_and_detach():
    one = template("dynamic.vhd")
    device = thin("attach", one.path, "--format", one.format)["device"]
    same_contents(device, one.raw)
    equal(pathlib.Path("/sys/block", os.path.basename(device), "ro").read_text(), "1\n", "ro")
    thin("detach", device)
    equal(everything(), {"dm": [], "nbd": [], "loop": {}, "servers": []}, "left after detach")


@scenario
def a_volume_on_what_another_server_serves():
    one = template("plain.qcow2")
    socket = WORK / "socket"
    with started(PROGRAMS / "underlay-nbd", "-t", "-e", "4", "-k", socket, "-f", one.format,
                 one.path) as server:
        wait_for(socket.exists, "the server listens")
        uri = f"nbd+unix:///?socket={socket}"
        with pool():
            device = thin("create", "volume", "--image", uri, "--pool", "pool")["device"]
            same_contents(device, one.raw)
            equal(thin("status", "volume")["origin"]["direct"], 0, "direct, of a URI")
            thin("deactivate", "volume")
            thin("activate", "volume")
            same_contents(device, one.raw)
        equal(server.poll(), None, "the status of a server that somebody else runs")


guest.main()
