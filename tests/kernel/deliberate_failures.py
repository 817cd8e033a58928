#!/usr/bin/python3
"""Scenarios that scenarios_test.py expects to fail, all but those named `right`."""
import guest
from guest import MIB, check, must, read_at, scenario, scenario_with_io_errors


def error_device():
    must("dmsetup", "create", "broken", "--table", "0 2048 error")
    try:
        read_at("/dev/mapper/broken", 0, 4096)
    except OSError:
        pass
    must("dmsetup", "remove", "broken")


@scenario
def right():
    pass


@scenario
def a_rule_does_not_hold():
    check(False, "this rule does not hold")


@scenario
def the_scenario_itself_breaks():
    raise KeyError("broken")


@scenario
def an_io_error_that_nobody_expects():
    error_device()


@scenario_with_io_errors
def right_with_an_io_error():
    error_device()


@scenario
def other_contents():
    one = guest.template("plain.qcow2")
    other = guest.template("chain.qcow2")
    loop = must("losetup", "--find", "--show", "--read-only", one.raw).strip()
    guest.same_contents(loop, one.raw)
    guest.same_contents(loop, other.raw)


@scenario
def another_size():
    one = guest.template("plain.qcow2")
    loop = must("losetup", "--find", "--show", "--read-only", one.raw).strip()
    guest.same_contents(loop, one.raw, one.size + MIB)


@scenario
def right_after_devices_were_left():
    check(not guest.loop_devices(), "the last scenario's loop device is still there")


guest.main()
