"""Rules of the system around the program: what it forbids, and what it gives little of."""
import contextlib
import ctypes
import os
import resource
import socket
import struct
import time

import nbd_client as nbd
from program_rules import (MIB, check, connect, expect, make_image, wait_for)

IO_URING_SETUP = 425
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2


def forbid_io_uring():
    """For preexec_fn: a seccomp filter by which io_uring_setup fails with EPERM."""
    def instruction(code, true, false, value):
        return struct.pack("HBBI", code, true, false, value)
    program = b"".join([
        instruction(0x20, 0, 0, 0),  # BPF_LD: the number of the system call
        instruction(0x15, 0, 1, IO_URING_SETUP),  # BPF_JEQ
        instruction(0x06, 0, 0, 0x00050000 | 1),  # SECCOMP_RET_ERRNO: EPERM
        instruction(0x06, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
    ])
    buffer = ctypes.create_string_buffer(program)
    filters = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(buffer)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filters,
                                                       0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def rule_a_system_without_io_uring_is_told_in_one_line(lab):
    path, _ = make_image(lab, "raw")
    line = lab.refused("-f", "raw", path, names="io_uring", preexec_fn=forbid_io_uring)
    check("seccomp" in line and "io_uring_disabled" in line, line)
    check(not os.path.exists(lab.path("never-bound")), "the socket is left behind")


def rule_a_busy_port_is_told_in_one_line(lab):
    path, _ = make_image(lab, "raw")
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = str(busy.getsockname()[1])
        status, errors = lab.run_command([lab.program, "-b", "127.0.0.1", "-p", port, "-f", "raw",
                                          path])
        lab.check_refusal(status, errors, port)


def rule_a_socket_path_that_cannot_be_is_told_in_one_line(lab):
    path, _ = make_image(lab, "raw")
    for where in (lab.path("none/socket"), "/proc/socket"):
        status, errors = lab.run_command([lab.program, "-k", where, "-f", "raw", path])
        lab.check_refusal(status, errors, where)


def rule_a_file_where_the_socket_shall_be_is_left_alone(lab):
    path, _ = make_image(lab, "raw")
    status, errors = lab.run_command([lab.program, "-k", path, "-f", "raw", path])
    expect(status, 2, "exit status")
    check(path in errors.splitlines()[0], errors)
    check(os.path.getsize(path) == 4 * MIB, "the file at the socket's path was touched")


def rule_wrong_usage_has_its_own_exit_status(lab):
    path, _ = make_image(lab, "raw")
    for args in (["--no-such-option", path], ["-p", "70000", path], ["-e", "-1", path], [],
                 ["-o", "1T", path], ["--export", "nameless"], [path, path]):
        status, errors = lab.run_command([lab.program, *args])
        expect(status, 2, f"exit status of {args} ({errors!r})")
        check(errors.startswith("underlay-nbd: "), errors)
        check("--help" in errors, errors)


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def allow_descriptors(server, count):
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (count, 4096))


def greeted(connection):
    connection.socket.settimeout(0.01)
    try:
        connection.greeting()
        return True
    except (nbd.ProtocolError, nbd.Closed):
        return False
    finally:
        connection.socket.settimeout(10)


def rule_without_descriptors_the_server_waits_and_serves_on(lab):
    path, contents = make_image(lab, "raw")
    with lab.serve("-e", "0", "--threads", "2", "-f", "raw", path) as server:
        # Briefly at first. (The sanitizer for undefined behaviour needs a descriptor for every kind
        # of object that it has not seen yet: here it sees them all.)
        with connect(server) as connection:
            connection.read(0, 512)
        time.sleep(1.2)
        allow_descriptors(server, 4)
        with nbd.Connection(server.socket) as connection:
            wait_for(server.stderr, 10, "a line in the log")
            allow_descriptors(server, 24)
            connection.greeting()
            connection.go()
            expect(connection.read(3 * MIB, 512).data, contents[3 * MIB:3 * MIB + 512], "contents")
        with connect(server) as first, contextlib.ExitStack() as stack:
            crowd = [stack.enter_context(nbd.Connection(server.socket)) for _ in range(60)]
            time.sleep(0.5)
            before = cpu_seconds(server.pid)
            time.sleep(1.5)
            check(cpu_seconds(server.pid) - before < 0.5, "the server spins")
            lines = server.stderr().splitlines()
            check(lines and all("cannot accept a client" in line for line in lines),
                  f"log: {lines}")
            check(len(lines) < 20, f"{len(lines)} lines in two seconds")
            waiting = [connection for connection in crowd if not greeted(connection)]
            check(40 < len(waiting) < 60, f"{len(waiting)} of 60 wait")
            expect(first.read(3 * MIB, 512).data, contents[3 * MIB:3 * MIB + 512], "contents")
            for connection in crowd:
                if connection not in waiting:
                    connection.close()
            last = waiting[0]
            last.greeting()
            last.go()
            expect(last.read(3 * MIB, 512).data, contents[3 * MIB:3 * MIB + 512], "contents")
            stack.close()
        wait_for(lambda: len(os.listdir(f"/proc/{server.pid}/fd")) < 20, 10, "descriptors closed")
        with connect(server) as newcomer:
            check(newcomer.read(0, 512).error == 0, "a newcomer is served")
