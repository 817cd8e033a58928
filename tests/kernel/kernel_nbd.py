#!/usr/bin/python3
"""The kernel's nbd devices as io/kernel_nbd and io/nbd_dial drive them, and -c and -d of underlay-nbd
on top of that."""
import contextlib
import os
import pathlib
import signal
import subprocess

import guest
from guest import (MIB, PROGRAMS, WORK, check, equal, mounted, must, nbd_devices, process_name,
                   run, same_contents, scenario, scenario_with_io_errors, servers, template,
                   wait_for)

SERVER = PROGRAMS / "underlay-nbd"
CONTROL = PROGRAMS / "kernel-nbd-control"
RECOVERY, DEAD = "1", "30"  # seconds


def fails(*command, words=()):
    """The one line that says why; exit status 1."""
    status, _, errors = run(*command)
    name = " ".join(map(str, command))
    equal(status, 1, f"the exit status of {name}")
    equal(errors.count("\n"), 1, f"lines of {name}: {errors!r}")
    for word in words:
        check(word in errors, f"{name}: no {word!r} in {errors!r}")


def answers(uri):
    """Does a dialled connection answer reads?"""
    return subprocess.run([CONTROL, "dial", "1000", uri], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, check=False).returncode == 0


class Served:
    """A server of a template on a socket."""

    def __init__(self, one):
        self.one = one
        self.socket = WORK / "socket"
        self.uri = f"nbd+unix:///?socket={self.socket}"
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen([SERVER, "-t", "-e", "0", "-k", self.socket, "-f",
                                         self.one.format, self.one.path])
        wait_for(lambda: answers(self.uri), "the server answers")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def connect(self, backend, connections=1, index="any", dead=DEAD):
        """The index that the kernel took."""
        return int(must(CONTROL, "connect", index, backend, RECOVERY, dead,
                        *[self.uri] * connections))


@contextlib.contextmanager
def served(name):
    server = Served(template(name))
    try:
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def listening_to_events(count):
    """Yields a function that returns the indexes of `count` lost connections."""
    with subprocess.Popen([CONTROL, "events", str(count), "10"], stdout=subprocess.PIPE,
                          text=True) as events:
        equal(events.stdout.readline(), "listening\n", "the first line of events")
        yield lambda: [int(line.removeprefix("lost ")) for line in events.stdout.read().split("\n")
                       if line]


def attribute(index, name):
    return pathlib.Path(f"/sys/block/nbd{index}/{name}").read_text().strip()


@scenario
def a_connected_device_has_the_contents_and_is_read_only():
    for connections in (1, 3):
        with served("odd.qcow2") as server:
            index = server.connect("one", connections)
            same_contents(f"/dev/nbd{index}", server.one.raw)
            equal(must(CONTROL, "list"), f"{index} /dev/nbd{index} one {server.one.size} ro\n",
                  "list")
            must(CONTROL, "disconnect", str(index), "one")
            equal(nbd_devices(), [], "devices after disconnect")


@scenario
def each_attachment_has_its_own_device_and_backend():
    with served("plain.qcow2") as server:
        first, second = server.connect("first"), server.connect("second")
        check(first != second, "one index for two devices")
        equal(server.connect("ninth", index="9"), 9, "the index that was asked for")
        fails(CONTROL, "disconnect", str(first), "second", words=["another attachment"])
        fails(CONTROL, "reconfigure", str(first), "second", server.uri,
              words=["another attachment", '"first"', '"second"'])
        same_contents(f"/dev/nbd{first}", server.one.raw)
        for index in (first, second, 9):
            must(CONTROL, "disconnect", str(index))
        fails(CONTROL, "disconnect", str(first), words=["is not connected"])
        fails(CONTROL, "reconfigure", str(first), "first", server.uri, words=["is not connected"])


@scenario
def a_device_in_use_is_refused_and_says_why():
    with served("plain.qcow2") as server:
        server.connect("first", index="0")
        again = [CONTROL, "connect", "0", "second", RECOVERY, DEAD, server.uri]
        fails(*again, words=["/dev/nbd0: is connected already"])
        must(CONTROL, "disconnect", "0")
        with open("/dev/nbd0", "rb"):
            fails(*again, words=["/dev/nbd0: is held open by another program"])
        must(*again)
        must(CONTROL, "disconnect", "0")


@scenario
def a_short_look_at_the_device_is_waited_for():
    with served("plain.qcow2") as server:
        server.connect("first", index="0")
        must(CONTROL, "disconnect", "0")
        with subprocess.Popen(["sh", "-c", "exec 3</dev/nbd0; echo; sleep 0.3"],
                              stdout=subprocess.PIPE) as look:
            look.stdout.readline()
            equal(server.connect("second", index="0"), 0, "the index")
        must(CONTROL, "disconnect", "0")


@scenario
def a_server_that_is_killed_under_reads_costs_no_error():
    """In flight requests are sent again, with one connection and with more."""
    for connections in (1, 2):
        with served("plain.qcow2") as server:
            index = server.connect("one", connections)
            read = ("for i in 1 2 3 4 5 6 7 8; do dd if=/dev/nbd%d iflag=direct bs=16k "
                    "status=none | sha256sum || exit 1; done" % index)
            with subprocess.Popen(["bash", "-o", "pipefail", "-c", read], stdout=subprocess.PIPE,
                                  text=True) as reader, listening_to_events(connections) as lost:
                reader.stdout.readline()
                server.kill()
                equal(lost(), [index] * connections, "devices that lost a connection")
                check(reader.poll() is None, "the reads end before the server is killed")
                server.start()
                must(CONTROL, "reconfigure", str(index), "one", *[server.uri] * connections)
                sums = reader.stdout.read().split()[::2]
                equal(reader.wait(30), 0, "exit status of the reads")
            equal(sums, [guest.digest(server.one.raw)] * 7, "hashes of what was read")
            must(CONTROL, "disconnect", str(index), "one")


@scenario
def idle_connections_that_die_are_heard_of_and_disconnecting_is_not_dying():
    with served("plain.qcow2") as server:
        first, second = server.connect("first", 2), server.connect("second")
        with listening_to_events(3) as lost:
            third = server.connect("third")
            must(CONTROL, "disconnect", str(third))
            server.kill()
            equal(sorted(lost()), [first, first, second], "devices that lost a connection")
        for index in (first, second):
            must(CONTROL, "disconnect", str(index))


@scenario
def what_stands_on_a_device_is_found():
    with served("plain.qcow2") as server:
        index = server.connect("one")
        device = f"/dev/nbd{index}"
        equal(must(CONTROL, "holders", str(index)), "", "holders")
        with mounted(device, "-o", "ro") as place:
            equal(must(CONTROL, "holders", str(index)), f"a mount on {place}\n",
                  "holders of a mounted device")
        must("dmsetup", "create", "--readonly", "above", "--table", f"0 8 linear {device} 0")
        equal(must(CONTROL, "holders", str(index)), "/dev/mapper/above\n", "holders below a table")
        with open(device, "rb"):
            check(f"process {os.getpid()} (" in must(CONTROL, "holders", str(index)),
                  "a process that has it open")
        must("dmsetup", "remove", "above")
        must(CONTROL, "disconnect", str(index))


@scenario
def who_may_not_and_where_there_is_no_nbd_reads_why():
    fails("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", CONTROL, "disconnect", "0",
          words=["needs root"])
    fails("unshare", "--user", "--map-root-user", CONTROL, "disconnect", "0",
          words=["is not connected"])
    fails("unshare", "--net", CONTROL, "disconnect", "0", words=["modprobe nbd", "containers"])


# --- underlay-nbd -c and -d


def connect_device(one, *options, device="/dev/nbd0"):
    must(SERVER, "-r", "-f", one.format, *options, "-c", device, one.path)


def ended():
    return wait_for(lambda: not servers() and not nbd_devices(), "server and device end")


@scenario
def connect_goes_to_the_background_and_disconnect_ends_the_server():
    one = template("plain.qcow2")
    for options in ((), ("-t",), ("-e", "4"), ("-e", "0", "-x", "name"), ("--fork",)):
        connect_device(one, *options)
        same_contents("/dev/nbd0", one.raw)
        equal(attribute(0, "ro"), "1", "ro")
        equal(must(SERVER, "-d", "/dev/nbd0"), "/dev/nbd0 disconnected\n", "output of -d")
        ended()


@scenario
def a_signal_to_the_server_disconnects_the_device():
    one = template("plain.qcow2")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        connect_device(one, "--pid-file", WORK / "pid")
        os.kill(int((WORK / "pid").read_text()), number)
        ended()
        check(not (WORK / "pid").exists(), "the pid file is left")


@scenario
def with_v_the_server_stays_and_returns_0_at_the_end():
    one = template("plain.qcow2")
    with subprocess.Popen([SERVER, "-v", "-f", one.format, "-c", "/dev/nbd0", one.path],
                          stderr=subprocess.PIPE, text=True) as server:
        try:
            said = next((line for line in server.stderr if "/dev/nbd0 is now connected" in line), "")
            check(said, "it does not say so")
            equal(process_name(server.pid), "underlay-nbd", "the process in the foreground")
        finally:
            must(SERVER, "-d", "/dev/nbd0")
        equal(server.wait(10), 0, "exit status")


@scenario
def connect_listens_only_when_told_to():
    one = template("plain.qcow2")
    socket = WORK / "socket"
    connect_device(one)
    equal(must("ss", "-Hlx", "-t"), "", "listening sockets")
    must(SERVER, "-d", "/dev/nbd0")
    ended()
    connect_device(one, "-k", socket, "-e", "2")
    check(answers(f"nbd+unix:///?socket={socket}"), "it does not listen where -k says")
    same_contents("/dev/nbd0", one.raw)
    must(SERVER, "-d", "/dev/nbd0")
    ended()


@scenario
def connect_fails_in_one_line_and_leaves_nothing():
    one = template("plain.qcow2")
    image = ["-f", one.format, one.path]
    connect_device(one)
    fails(SERVER, "-c", "/dev/nbd0", *image, words=["/dev/nbd0: is connected already"])
    equal(len(servers()), 1, "number of servers")
    same_contents("/dev/nbd0", one.raw)
    must(SERVER, "-d", "/dev/nbd0")
    ended()
    fails(SERVER, "-c", "/dev/nbd0", "-f", "raw", WORK / "missing", words=["missing"])
    fails(SERVER, "-c", "/dev/loop0", *image, words=["/dev/loop0: is no nbd device"])
    fails("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", SERVER, "-c", "/dev/nbd0",
          *image, words=["/dev/nbd0: needs root"])
    equal((servers(), nbd_devices()), ([], []), "servers and devices")


@scenario
def disconnect_of_a_free_device_is_no_failure_but_of_no_device_is():
    connect_device(template("plain.qcow2"))
    for _ in range(2):
        equal(must(SERVER, "-d", "/dev/nbd0"), "/dev/nbd0 disconnected\n", "output of -d")
        ended()
    fails(SERVER, "-d", "/dev/nbd77", words=["/dev/nbd77", "No such file"])
    fails(SERVER, "-d", "/dev/loop0", words=["is no nbd device"])


@scenario_with_io_errors
def disconnect_says_what_used_the_device():
    one = template("plain.qcow2")
    connect_device(one)
    with mounted("/dev/nbd0", "-o", "ro") as place:
        status, _, errors = run(SERVER, "-d", "/dev/nbd0")
        equal(status, 0, "exit status")
        check(f"in use by a mount on {place}" in errors, f"no warning: {errors!r}")
    ended()


@scenario_with_io_errors
def a_server_of_connect_that_is_killed_gives_errors_and_disconnect_ends_the_device():
    one = template("plain.qcow2")
    connect_device(one, "--pid-file", WORK / "pid")
    with listening_to_events(1) as lost:
        os.kill(int((WORK / "pid").read_text()), signal.SIGKILL)
        equal(lost(), [0], "devices that lost a connection")  # later than the end of the process
    guest.drop_caches()
    try:
        data = guest.read_at("/dev/nbd0", 0, MIB)
        check(False, f"{len(data)} bytes were read without a server")
    except OSError:
        pass
    must(SERVER, "-d", "/dev/nbd0")
    equal(nbd_devices(), [], "devices")


guest.main()
