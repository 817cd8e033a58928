"""Rules of hand-overs that fail: the running server goes on, and nothing is lost."""
import contextlib
import os
import signal
import socket
import struct
import time

import harness
import nbd_client as nbd
from handover_lab import (EXPORTS_END, HELLO, INVENTORY, READY, SESSION, TAKEN, TRANSFER_SECONDS,
                          FakeSuccessor, Load)
from program_rules import MIB, check, connect, expect, make_image, served_contents

NOBODY = 65534


def still_serves(lab, row, connection, contents):
    """The old clients and newcomers, and the pid file is its own."""
    check(row.server.running(), "the server has ended")
    expect(connection.read(3 * MIB, 512).data, contents[3 * MIB:3 * MIB + 512], "contents")
    expect(served_contents(row, length=MIB), contents[:MIB], "what a newcomer reads")
    with open(lab.pid_file, encoding="ascii") as text:
        expect(text.read(), f"{row.server.pid}\n", "pid file")


def die_after_connecting(_):
    pass


def die_after_hello(successor):
    successor.say(HELLO)


def die_knowing_the_exports(successor):
    successor.say(HELLO)
    successor.hear_until(EXPORTS_END)


def die_after_ready(successor):
    die_knowing_the_exports(successor)
    successor.say(READY)


def die_with_the_first_session(successor):
    die_after_ready(successor)
    successor.hear_until(SESSION)


def die_with_everything(successor):
    kinds = successor.get_all()
    check(SESSION in kinds and kinds[-1] == INVENTORY, f"heard {kinds}")


def die_much_later(successor):
    successor.get_all()
    time.sleep(0.5)


def rule_a_successor_that_dies_before_it_confirms_changes_nothing(lab):
    path, contents = make_image(lab, "raw")
    args = ["-f", "raw", path]
    deaths = [die_after_connecting, die_after_hello, die_knowing_the_exports, die_after_ready,
              die_with_the_first_session, die_with_everything, die_much_later]
    with lab.first(*args) as row:
        with connect(row) as idle, Load(row.socket, contents, structured=True), \
                Load(row.socket, contents, seed=2):
            for die in deaths * 3:
                with FakeSuccessor(lab.port) as successor:
                    die(successor)
                still_serves(lab, row, idle, contents)
            row.hand_over(*args)


def rule_a_real_successor_that_is_killed_loses_nothing(lab):
    path, contents = make_image(lab, "raw")
    args = ["-v", "-f", "raw", path]
    with lab.first(*args) as row:
        with Load(row.socket, contents):
            for milliseconds in range(0, 30, 2):
                successor = lab.successor(*args)
                time.sleep(milliseconds / 1000)
                # Stopped first: whether it has confirmed by now is known, and does not change.
                successor.process.send_signal(signal.SIGSTOP)
                time.sleep(0.1)
                if "the successor serves" in row.server.stderr():
                    successor.process.send_signal(signal.SIGCONT)
                    expect(row.server.process.wait(harness.DEADLINE), 0, "exit status")
                    row.server.socket = None
                    row.server.close()
                    row.server = successor
                else:
                    successor.socket = None
                    successor.close()
            time.sleep(0.1)
        expect(served_contents(row), contents, "what a newcomer reads")


def rule_a_client_that_leaves_in_a_handover_while_it_has_to_wait_harms_nobody(lab):
    path, contents = make_image(lab, "raw")
    with lab.first("-f", "raw", "--export-rule", "*,requests=1", path) as row:
        leaver = connect(row)
        leaver.send(b"".join(leaver.request_bytes(nbd.CMD_READ, 0, 512) for _ in range(10)))
        expect(leaver.answer(length=512, is_read=True).error, 0, "the first read")
        with FakeSuccessor(lab.port) as successor:
            successor.get_all()
            leaver.close()
            time.sleep(1.5)  # it would have been looked at again by now
        check(row.server.running(), "the server has ended")
        with connect(row) as newcomer:
            expect(newcomer.read(0, 512).data, contents[:512], "contents")


def rule_a_successor_that_does_not_confirm_in_time_is_given_up(lab):
    path, contents = make_image(lab, "raw")
    with lab.first("-f", "raw", path) as row:
        with Load(row.socket, contents) as load, connect(row) as idle, \
                FakeSuccessor(lab.port) as successor:
            successor.get_all()
            check("too slow" in successor.refusal(), "another reason")
            still_serves(lab, row, idle, contents)
        check(max(load.latencies) < TRANSFER_SECONDS + 2, f"a pause of {max(load.latencies)} s")


def rule_another_version_is_refused(lab):
    path, contents = make_image(lab, "raw")
    with lab.first("-f", "raw", path) as row, connect(row) as idle:
        with FakeSuccessor(lab.port) as successor:
            successor.say(HELLO, version=2)
            check("version 2" in successor.refusal(), "another reason")
        still_serves(lab, row, idle, contents)


def rule_what_is_no_message_ends_the_conversation_only(lab):
    path, contents = make_image(lab, "raw")
    with lab.first("-f", "raw", path) as row, connect(row) as idle:
        for data in (b"x", bytes(8), bytes(5000), struct.pack(">IHH", 0x55484F56, 1, 99),
                     struct.pack(">IHH", 0x55484F56, 1, TAKEN) + bytes(16),
                     struct.pack(">IHH", 0x55484F56, 1, HELLO) + b"more"):
            with FakeSuccessor(lab.port) as successor:
                successor.socket.sendall(data)
                check(successor.refusal(), "no reason")
            still_serves(lab, row, idle, contents)


def rule_exports_that_differ_are_refused(lab):
    path, contents = make_image(lab, "raw")
    same_size, _ = make_image(lab, "raw", seed=2)
    larger, _ = make_image(lab, "raw", size=8 * MIB)
    with lab.first("-f", "raw", "-x", "disk", path) as row, connect(row, "disk") as idle:
        for args, names in ((["-x", "disk", larger], "8388608"),
                            (["-x", "other", path], "disk"),
                            (["-x", "disk", same_size], "other files"),
                            (["-o", "512", "-x", "disk", path], "bytes")):
            lab.refused_successor("-f", "raw", *args, names=names)
            expect(idle.read(3 * MIB, 512).data, contents[3 * MIB:3 * MIB + 512], "contents")
        row.hand_over("-f", "raw", "-x", "disk", path)
        expect(idle.read(3 * MIB, 512).data, contents[3 * MIB:3 * MIB + 512], "contents")


def rule_an_image_that_has_changed_is_not_handed_over(lab):
    path, _ = make_image(lab, "raw")
    with lab.first("-f", "raw", path) as row, connect(row) as client:
        expect(client.read(0, 512).error, 0, "error of a read")
        with open(path, "r+b") as image:
            image.write(b"changed")
        lab.refused_successor("-f", "raw", path, names="changed")
        wait_until_it_fails(client)
        check(row.server.running(), "the server has ended")


def wait_until_it_fails(client):
    harness.wait_for(lambda: client.read(0, 512).error == nbd.EIO, 10, "reads fail")


def rule_only_one_successor_at_a_time(lab):
    path, contents = make_image(lab, "raw")
    args = ["-f", "raw", path]
    with lab.first(*args) as row, connect(row) as idle:
        with FakeSuccessor(lab.port) as successor:
            successor.say(HELLO)
            successor.hear_until(EXPORTS_END)
            lab.refused_successor(*args, names="another successor")
            still_serves(lab, row, idle, contents)
        row.hand_over(*args)
        still_serves(lab, row, idle, contents)


def refused_as_nobody(port):
    """What a process of another user is told."""
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(Exception):
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            with FakeSuccessor(port) as successor:
                status = 0 if f"user {NOBODY}" in successor.refusal() else 2
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def rule_another_user_gets_nothing(lab):
    expect(os.geteuid(), 0, "this rule needs root, and runs as user")
    path, contents = make_image(lab, "raw")
    with lab.first("-f", "raw", path) as row, connect(row) as idle:
        expect(os.stat(lab.port).st_mode & 0o7777, 0o600, "mode of the socket")
        expect(refused_as_nobody(lab.port), 1, "the mode keeps others out: status")
        # Even if somebody opens the way.
        os.chmod(lab.folder, 0o755)
        os.chmod(lab.port, 0o666)
        expect(refused_as_nobody(lab.port), 0, "status")
        still_serves(lab, row, idle, contents)


def rule_without_a_server_there_is_nothing_to_take_over(lab):
    path, _ = make_image(lab, "raw")
    lab.refused_successor("-f", "raw", path, names=lab.port)
    check(not os.path.exists(lab.pid_file), "a pid file is left behind")
    status, errors = lab.run_command([lab.program, "--take-over", "relative", path])
    expect(status, 2, f"exit status ({errors!r})")


def rule_a_server_that_is_asked_to_end_does_so_in_a_hand_over(lab):
    path, contents = make_image(lab, "raw")
    with lab.first("-f", "raw", path) as row, connect(row) as client:
        with FakeSuccessor(lab.port) as successor:
            successor.get_all()
            client.send_request(nbd.CMD_READ, 3 * MIB, 512, cookie=3)
            row.server.terminate()
            check("asked to end" in successor.refusal(), "another reason")
            answer = client.answer(512, 3 * MIB, 3, is_read=True)
            expect(answer.data, contents[3 * MIB:3 * MIB + 512], "contents")
            client.expect_closed()


def rule_the_old_server_leaves_files_that_are_not_its_own(lab):
    path, _ = make_image(lab, "raw")
    with lab.first("-f", "raw", path) as row:
        # Somebody has replaced the socket of the server.
        os.unlink(row.socket)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(row.socket)
            row.server.stop()
            check(os.path.exists(row.socket), "another program's socket was removed")
        os.unlink(row.socket)


def rule_pid_files_may_differ(lab):
    path, _ = make_image(lab, "raw")
    with lab.first("-f", "raw", path) as row:
        row.hand_over("--pid-file", lab.path("pid2"), "-f", "raw", path)
        with open(lab.path("pid2"), encoding="ascii") as text:
            expect(text.read(), f"{row.server.pid}\n", "pid file")
        check(not os.path.exists(lab.pid_file), "the old pid file is left behind")
