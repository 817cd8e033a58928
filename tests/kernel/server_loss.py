#!/usr/bin/python3
"""A server that dies, or is replaced, costs a pause: no I/O error and no wrong byte."""
import os
import pathlib
import signal
import time

import guest
from guest import (check, create, equal, mounted, pool, same_contents, scenario,
                   scenario_with_io_errors, servers, template, thin, thin_refuses, wait_for)
from reads_under_watch import under_load, watching

COMPRESSED = "compressed.qcow2"  # nothing of it can be read without the server
RECOVERY = ["--recovery-timeout", "2", "--dead-timeout", "60"]


@scenario
def a_killed_server_is_restarted_under_reads():
    one = template(COMPRESSED)
    with pool():
        device = create("volume", one, *RECOVERY)
        with watching(), under_load(device, one):
            for _ in range(3):
                old = servers()[0]
                os.kill(old, signal.SIGKILL)
                wait_for(lambda: servers() and servers() != [old], "another server runs")
                time.sleep(1)
        equal(thin("status", "volume")["origin"]["connections"], "alive", "connections")


@scenario
def a_mounted_file_system_survives_a_killed_server():
    one = template(COMPRESSED)
    with pool():
        device = create("volume", one, *RECOVERY)
        with watching(), mounted(device) as files:
            (files / "written").write_text("before")
            os.kill(servers()[0], signal.SIGKILL)
            guest.drop_caches()
            names = os.listdir(files / "linux")
            check(len(names) > 100, "the files of the template")
            for name in names:
                if (files / "linux" / name).is_file():
                    (files / "linux" / name).read_bytes()
            (files / "written").write_text("after")
        with mounted(device) as files:
            equal((files / "written").read_text(), "after", "written")


@scenario
def an_idle_device_is_reconnected_too():
    one = template(COMPRESSED)
    with pool():
        device = create("volume", one, *RECOVERY)
        with watching():
            old = servers()[0]
            os.kill(old, signal.SIGKILL)
            wait_for(lambda: servers() and servers() != [old], "another server runs")
        same_contents(device, one.raw)


@scenario
def several_connections_are_all_reconnected():
    one = template(COMPRESSED)
    with pool():
        device = create("volume", one, *RECOVERY, "--connections", "2")
        with watching(), under_load(device, one):
            os.kill(servers()[0], signal.SIGKILL)
            wait_for(servers, "another server runs")
        equal(thin("status", "volume")["origin"]["connections"], "alive", "connections")


@scenario
def watch_once_repairs_what_it_finds():
    one = template(COMPRESSED)
    with pool():
        device = create("volume", one, *RECOVERY)
        os.kill(servers()[0], signal.SIGKILL)
        wait_for(lambda: not servers(), "the server is dead")
        status = thin("status", "volume")["origin"]
        equal(status["server_pid"], None, "server_pid")
        thin("watch", "--once")
        equal(thin("status", "volume")["origin"]["connections"], "alive", "connections")
        same_contents(device, one.raw)


@scenario
def upgrade_under_reads():
    one = template(COMPRESSED)
    with pool():
        device = create("volume", one, *RECOVERY)
        with under_load(device, one) as reader:
            for _ in range(3):
                old = servers()[0]
                answer = thin("upgrade", one.path)["images"]
                equal([image["image"] for image in answer], [one.path], "the upgraded images")
                wait_for(lambda: len(servers()) == 1 and servers() != [old], "one new server")
                print("    upgraded by", answer[0]["method"], "in", answer[0]["milliseconds"], "ms",
                      flush=True)
        print(f"    longest read {reader.longest_read * 1000:.0f} ms", flush=True)
        with mounted(device) as files:
            thin("upgrade", "--all")
            equal((files / "marker").read_text(), "as in the template\n", "marker")
        equal(thin("status", "volume")["origin"]["connections"], "alive", "connections")


@scenario_with_io_errors
def without_a_server_reads_fail_after_the_dead_timeout():
    one = template(COMPRESSED)
    with pool():
        device = create("volume", one, "--recovery-timeout", "1", "--dead-timeout", "3")
        guest.write_at(device, 0, b"x" * (64 << 10))
        os.kill(servers()[0], signal.SIGKILL)
        guest.drop_caches()
        equal(guest.read_at(device, 0, 4096), b"x" * 4096, "what the volume itself holds")
        started = time.monotonic()
        try:
            data = guest.read_at(device, 4 << 20, 1 << 20)
            check(False, f"{len(data)} bytes were read without a server")
        except OSError:
            check(time.monotonic() - started < 15, "the error came late")
        # Freezing it would wait, too.
        thin_refuses("snapshot", "volume", "copy", words=[one.path, "watch"])
        # Nothing is lost: with a server again, all of it is there.
        thin("watch", "--once")
        guest.drop_caches()
        equal(guest.read_at(device, 4 << 20, 1 << 20),
              pathlib.Path(one.raw).read_bytes()[4 << 20:5 << 20], "contents with a server again")


@scenario
def a_detach_that_would_break_a_volume_is_refused():
    one = template(COMPRESSED)
    with pool():
        device = create("volume", one)
        nbd = "/dev/" + guest.nbd_devices()[0]
        thin_refuses("detach", nbd, words=[nbd])
        same_contents(device, one.raw)


guest.main()
