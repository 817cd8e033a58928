#!/usr/bin/python3
"""underlay-nbd under the kernel's own NBD client: attached by nbd-client, and as the origin of a
thin volume that dmsetup makes. What has to hold before underlay-thin joins the parts."""
import os
import pathlib
import shutil

import guest
from attaching import SECTOR, attached, remove_thin, thin_on
from guest import (MIB, WORK, check, equal, mounted, must, nbd_reads, read_at, same_contents,
                   scenario, scenario_with_io_errors, template, templates, wait_for, write_at)


@scenario
def every_template_has_its_contents():
    for one in templates():
        with attached(one) as (device, _):
            same_contents(device, one.raw)


@scenario
def a_vhd_ends_before_the_device_that_holds_it():
    for name in ("dynamic.vhd", "differencing.vhd"):
        one = template(name).copy()
        shutil.copy(os.path.join(os.path.dirname(template(name).path), "parent.vhd"), WORK)
        os.truncate(one.path, os.path.getsize(one.path) + 5 * MIB)
        # A link beside its parent, so that the name of the parent leads there.
        loop = must("losetup", "--find", "--show", "--read-only", one.path).strip()
        os.unlink(one.path)
        os.symlink(loop, one.path)
        with attached(one) as (device, _):
            same_contents(device, one.raw)
        must("losetup", "-d", loop)


@scenario
def the_device_is_read_only():
    with attached(template("plain.qcow2")) as (device, _):
        equal(pathlib.Path("/sys/block", os.path.basename(device), "ro").read_text(),
              "1\n", "ro")


@scenario
def a_thin_volume_on_a_template_keeps_what_is_written():
    one = template("compressed.qcow2")
    before = one.digest()
    with attached(one) as (device, _):
        volume = thin_on(device, one.size)
        same_contents(volume, one.raw)
        with mounted(volume) as files:
            equal((files / "marker").read_text(), "as in the template\n", "marker")
            (files / "written").write_text("by the guest\n")
        must("dmsetup", "remove", "volume")
        must("dmsetup", "create", "volume", "--table",
             f"0 {one.size // SECTOR} thin /dev/mapper/pool 0 {device}")
        with mounted(volume) as files:
            equal((files / "written").read_text(), "by the guest\n", "written")
        same_contents(device, one.raw)
        remove_thin()
    equal(one.digest(), before, "the hash of the template")


@scenario
def a_volume_may_be_larger_than_an_odd_template():
    one = template("odd.qcow2")
    with attached(one) as (device, _):
        volume = thin_on(device, 40 * MIB)
        same_contents(volume, one.raw, 40 * MIB)
        write_at(volume, one.size - 100, b"x" * 200)
        equal(read_at(volume, one.size - 100, 300), b"x" * 200 + bytes(100), "what was written")
        remove_thin()


@scenario
def reads_are_counted():
    with attached(template("plain.qcow2")) as (device, _), open(device, "rb") as held:
        # Else what is read ahead is counted at some later time.
        pathlib.Path("/sys/block", os.path.basename(device), "queue/read_ahead_kb").write_text("0")
        before = nbd_reads()
        held.read(MIB)
        check(nbd_reads() > before, "no read is counted")

        def cached_read_is_not_counted():
            before = nbd_reads()
            read_at(device, 0, MIB)
            return nbd_reads() == before

        # nbd-client lets the kernel look for partitions at some time after it has answered.
        wait_for(cached_read_is_not_counted, "a read that the page cache answers is not counted", 5)


@scenario_with_io_errors
def a_server_that_is_killed_gives_errors_not_data():
    with attached(template("plain.qcow2")) as (device, server):
        server.kill()
        server.wait()
        guest.drop_caches()
        try:
            data = read_at(device, 0, MIB)
        except OSError:
            return
        finally:
            must("nbd-client", "-d", device)
        check(False, f"{len(data)} bytes were read without a server")


guest.main()
