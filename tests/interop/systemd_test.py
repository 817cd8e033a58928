#!/usr/bin/python3
"""What the server tells systemd, and takes from it: readiness, watchdog, stopping, its successor's
number, listening sockets. The test plays systemd, but for the sockets.

usage: systemd_test.py UNDERLAY_NBD [RULE...]     RULE: part of a rule's name; only those run
"""
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import harness
import rules_in_folders
from program_rules import Lab, check, expect, make_image

TICK = 1.0  # the server looks at its watchdog so often
UNIT = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                    "../../server/systemd/underlay-nbd.service.in")


class Manager:
    """Hears what services say at NOTIFY_SOCKET."""

    def __init__(self, name):
        self.name = name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(name.replace("@", "\0"))

    def next(self, seconds=harness.DEADLINE):
        self.socket.settimeout(seconds)
        return self.socket.recv(4096).decode()

    def nothing_more(self):
        try:
            raise AssertionError(f"heard {self.next(0.1)!r}")
        except TimeoutError:
            pass


@contextlib.contextmanager
def managed(lab, *arguments, watchdog=None, name=None):
    """(manager, server), once the server is ready."""
    path, _ = make_image(lab, "raw")
    manager = Manager(name or lab.path("notify"))
    environment = {"NOTIFY_SOCKET": manager.name}
    if watchdog:
        environment["WATCHDOG_USEC"] = str(int(watchdog * 1e6))
    with harness.serve([*arguments, "-f", "raw", path], program=lab.program,
                       env=environment) as server:
        expect(manager.next(), "READY=1", "first message")
        check(harness.listens(server.socket), "ready before it listens")
        yield manager, server


def rule_readiness_and_stopping_are_told(lab):
    with managed(lab) as (manager, server):
        manager.nothing_more()
        server.terminate()
        expect(manager.next(), "STOPPING=1", "last message")
        server.process.wait(harness.DEADLINE)
        manager.nothing_more()


def rule_the_socket_may_be_abstract(lab):
    with managed(lab, name=f"@underlay-test-{os.getpid()}"):
        pass


def rule_the_last_client_to_leave_is_an_end_to_tell(lab):
    path, _ = make_image(lab, "raw")
    manager = Manager(lab.path("notify"))
    server = subprocess.Popen([lab.program, "-k", lab.path("socket"), "-f", "raw", path],
                              env={**os.environ, "NOTIFY_SOCKET": manager.name})
    try:
        expect(manager.next(), "READY=1", "first message")
        status, _, errors = harness.run(["nbdinfo", "--size", harness.uri(lab.path("socket"))])
        expect(status, 0, f"exit status of nbdinfo ({errors})")
        expect(manager.next(), "STOPPING=1", "last message")
        expect(server.wait(harness.DEADLINE), 0, "exit status")
    finally:
        server.kill()
        server.wait()


def rule_the_watchdog_hears_of_it_twice_in_its_time(lab):
    limit = 4
    with managed(lab, watchdog=limit) as (manager, _):
        expect(manager.next(), "WATCHDOG=1", "message")
        heard = [time.monotonic()]
        for _ in range(3):
            expect(manager.next(limit), "WATCHDOG=1", "message")  # later, it would be killed
            heard.append(time.monotonic())
        mean = (heard[-1] - heard[0]) / 3
        check(mean > limit / 2 - TICK, f"every {mean:.1f} s, of {limit}")


def rule_a_server_that_is_stopped_is_silent(lab):
    with managed(lab, watchdog=2) as (manager, server):
        expect(manager.next(), "WATCHDOG=1", "message")
        os.kill(server.pid, signal.SIGSTOP)
        try:
            time.sleep(0.2)
            while True:  # what it had said before
                try:
                    manager.next(0.1)
                except TimeoutError:
                    break
            time.sleep(2)
            manager.nothing_more()
        finally:
            os.kill(server.pid, signal.SIGCONT)
        expect(manager.next(), "WATCHDOG=1", "message")


def rule_a_successor_names_itself_before_the_old_server_ends(lab):
    handover = lab.path("handover")
    with managed(lab, "--handover", handover) as (manager, server):
        path = server.command[-1]
        successor = subprocess.Popen([lab.program, "-t", "--take-over", handover, "-f", "raw", path],
                                     env={**os.environ, "NOTIFY_SOCKET": manager.name})
        try:
            expect(manager.next(), f"MAINPID={successor.pid}", "first message of the successor")
            expect(manager.next(), "READY=1", "second message")
            expect(server.process.wait(harness.DEADLINE), 0, "exit status of the old server")
            manager.nothing_more()  # the service does not stop
            status, _, errors = harness.run(["nbdinfo", "--size", server.uri])
            expect(status, 0, f"exit status of nbdinfo ({errors})")
            successor.terminate()
            expect(manager.next(), "STOPPING=1", "last message")
            expect(successor.wait(harness.DEADLINE), 0, "exit status of the successor")
        finally:
            successor.kill()
            successor.wait()


def rule_a_manager_that_is_not_there_is_told_of_and_clients_are_served(lab):
    path, _ = make_image(lab, "raw")
    with lab.serve("-f", "raw", path, env={"NOTIFY_SOCKET": lab.path("nobody")}) as server:
        check("warning: NOTIFY_SOCKET: " in server.stderr(), server.stderr())
        status, _, errors = harness.run(["nbdinfo", "--size", server.uri])
        expect(status, 0, f"exit status of nbdinfo ({errors})")


def rule_sockets_of_systemd_are_served_by_their_name(lab):
    """systemd-socket-activate starts the server when the first client comes."""
    path, contents = make_image(lab, "raw")
    address, copy = lab.path("socket"), lab.path("copy")
    activator = subprocess.Popen(["systemd-socket-activate", "-l", address, "--fdname=nbd",
                                  lab.program, "-f", "raw", path], stderr=subprocess.DEVNULL)
    try:
        harness.wait_for(lambda: harness.listens(address), harness.DEADLINE, "it listens")
        status, _, errors = harness.run(["nbdcopy", harness.uri(address), copy])
        expect(status, 0, f"exit status of nbdcopy ({errors})")
        with open(copy, "rb") as file:
            check(file.read() == contents, "other contents")
        expect(activator.wait(harness.DEADLINE), 0, "exit status")
    finally:
        activator.kill()
        activator.wait()


def command_of_unit(lab, key, config):
    """What the unit runs, with the program under test and the lab's folders."""
    with open(UNIT, encoding="utf-8") as unit:
        line, = [line for line in unit if line.startswith(key + "=")]
    for name, value in (("@CMAKE_INSTALL_FULL_BINDIR@/underlay-nbd", lab.program),
                        ("@CMAKE_INSTALL_FULL_SYSCONFDIR@/underlay/underlay-nbd.conf", config),
                        ("${RUNTIME_DIRECTORY}", lab.folder)):
        check(name in line, f"{key} has no {name}")
        line = line.replace(name, value)
    return line.removeprefix(key + "=").split()


def rule_the_commands_of_the_unit_start_and_reload(lab):
    path, _ = make_image(lab, "qcow2")
    address, config = lab.path("socket"), lab.path("config")
    with open(config, "w", encoding="utf-8") as file:
        file.write(f"directory = {lab.folder}\npersistent = on\nshared = 0\n")
    manager = Manager(lab.path("notify"))
    environment = {**os.environ, "NOTIFY_SOCKET": manager.name}
    uri = harness.uri(address, os.path.basename(path))
    old = subprocess.Popen(["systemd-socket-activate", "-l", address, "-E",
                            f"NOTIFY_SOCKET={manager.name}",
                            *command_of_unit(lab, "ExecStart", config)],
                           stderr=subprocess.DEVNULL)
    successor = 0
    try:
        harness.wait_for(lambda: harness.listens(address), harness.DEADLINE, "it listens")
        expect(harness.run(["nbdinfo", "--size", uri])[0], 0, "exit status of nbdinfo")
        expect(manager.next(), "READY=1", "first message")
        with open(lab.path("log"), "w+", encoding="utf-8") as log:  # which the successor keeps
            reload = subprocess.Popen(command_of_unit(lab, "ExecReload", config), env=environment,
                                      stderr=log)
            name, _, pid = manager.next().partition("=")
            # systemd waits for the end of its own children alone.
            check(reload.poll() is not None, "the successor is still a child of the reload")
            log.seek(0)
            expect(reload.returncode, 0, f"exit status of the reload ({log.read()})")
        expect(name, "MAINPID", "first message of the successor")
        successor = int(pid)
        expect(manager.next(), "READY=1", "second message")
        expect(old.wait(harness.DEADLINE), 0, "exit status of the old server")
        expect(manager.next(), "WATCHDOG=1", "third message")
        expect(harness.run(["nbdinfo", "--size", uri])[0], 0, "exit status of nbdinfo, again")
        os.kill(successor, signal.SIGTERM)
        expect(manager.next(), "STOPPING=1", "last message")
        harness.wait_for(lambda: not harness.listens(address), harness.DEADLINE, "it ends")
        successor = 0
    finally:
        if successor:
            os.kill(successor, signal.SIGKILL)
        old.kill()
        old.wait()


if shutil.which("systemd-socket-activate") is None:
    sys.exit("systemd-socket-activate is missing: tools/install-packages test")
rules_in_folders.main(Lab, sys.modules[__name__])
