"""Rules of what clients notice of a hand-over: nothing."""
import contextlib
import os
import statistics
import subprocess
import time

import harness
import nbd_client as nbd
from handover_lab import Load
from program_rules import MIB, check, connect, expect, make_image, served_contents

# What a client may have to wait for a read while the server is replaced. The usual time is some
# milliseconds; a busy machine needs more.
PAUSE_LIMIT = 1.0


def rule_clients_under_load_see_right_bytes(lab):
    path, contents = make_image(lab, "qcow2")
    args = ["-f", "qcow2", path]
    kinds = [{}, {"structured": True}, {"extended": True}, {"structured": True}]
    with lab.first(*args) as row, contextlib.ExitStack() as stack:
        for seed, kind in enumerate(kinds):
            stack.enter_context(Load(row.socket, contents, seed=seed, **kind))
        for _ in range(5):
            time.sleep(0.2)
            row.hand_over(*args)
        time.sleep(0.2)


def rule_a_read_waits_only_briefly_for_a_hand_over(lab):
    path, contents = make_image(lab, "qcow2")
    args = ["-f", "qcow2", path]
    with lab.first(*args) as row:
        with Load(row.socket, contents) as load:
            for _ in range(20):
                time.sleep(0.1)
                row.hand_over(*args)
            time.sleep(0.1)
        worst = max(load.latencies)
        print(f"     a client at depth 32, 20 hand-overs: {len(load.latencies)} reads of 4 KiB, "
              f"median {statistics.median(load.latencies) * 1e3:.1f} ms, longest "
              f"{worst * 1e3:.1f} ms")
        check(worst < PAUSE_LIMIT * lab.cost, f"a read took {worst:.3f} s")


def rule_twenty_hand_overs_in_a_row_lose_nothing(lab):
    path, contents = make_image(lab, "raw")
    args = ["-f", "raw", path]
    with lab.first(*args) as row:
        with connect(row) as idle, Load(row.socket, contents, structured=True):
            for count in range(20):
                row.hand_over(*args)
                with open(lab.pid_file, encoding="ascii") as text:
                    expect(text.read(), f"{row.server.pid}\n", f"pid file after {count + 1}")
            expect(idle.read(3 * MIB, 512).data, contents[3 * MIB:3 * MIB + 512], "contents")
        expect(served_contents(row), contents, "what a newcomer reads")
        check(len(os.listdir(f"/proc/{row.server.pid}/fd")) < 40, "descriptors pile up")


def rule_a_client_that_has_long_been_silent_is_handed_over(lab):
    path, contents = make_image(lab, "raw")
    args = ["-f", "raw", path]
    with lab.first(*args) as row, connect(row) as silent:
        for round_number in range(2):
            expect(silent.read(MIB, 512).data, contents[MIB:MIB + 512], f"round {round_number}")
            time.sleep(3)  # the server has put it to rest
            row.hand_over(*args)
            row.hand_over(*args)  # at rest from the start
        expect(silent.read(3 * MIB, 512).data, contents[3 * MIB:3 * MIB + 512], "contents")


def rule_libnbd_copies_through_hand_overs(lab):
    path, contents = make_image(lab, "qcow2", size=16 * MIB)
    args = ["-f", "qcow2", path]
    copy = lab.path("copy")
    with lab.first(*args) as row:
        with subprocess.Popen(["nbdcopy", "--connections=1", "--requests=2",
                               "--request-size=4096", "--allocated",
                               harness.uri(row.socket), copy]) as copying:
            count = 0
            while copying.poll() is None and count < 100:
                row.hand_over(*args)
                count += 1
            expect(copying.wait(60), 0, "exit status of nbdcopy")
        check(count > 0, "nbdcopy ended before anything was handed over")
        with open(copy, "rb") as file:
            check(file.read() == contents, "nbdcopy read other contents")


def rule_bytes_that_were_received_travel_along(lab):
    path, contents = make_image(lab, "raw")
    args = ["-f", "raw", path]
    with lab.first(*args) as row:
        with connect(row) as connection:
            header = connection.request_bytes(nbd.CMD_READ, 3 * MIB, 1000, cookie=7)
            for cut in range(1, len(header), 5):
                connection.send(header[:cut])
                time.sleep(0.02)
                row.hand_over(*args)
                connection.send(header[cut:])
                answer = connection.answer(1000, 3 * MIB, 7, is_read=True)
                expect(answer.data, contents[3 * MIB:3 * MIB + 1000], f"contents, cut at {cut}")


def rule_the_rest_of_a_payload_is_dropped_by_the_successor(lab):
    path, contents = make_image(lab, "raw")
    args = ["-f", "raw", path]
    with lab.first(*args) as row:
        for structured in (False, True):
            with connect(row, structured=structured) as connection:
                head = connection.request_bytes(nbd.CMD_WRITE, 0, MIB, cookie=9)
                # What looks like a request in the payload is none.
                payload = connection.request_bytes(nbd.CMD_READ, 0, 512) * (MIB // 28 + 1)
                connection.send(head + payload[:100_001])
                row.hand_over(*args)
                connection.send(payload[100_001:MIB])
                expect(connection.answer(cookie=9).error, nbd.EPERM, "error of WRITE")
                expect(connection.read(3 * MIB, 512).data, contents[3 * MIB:3 * MIB + 512],
                       "contents")


def rule_what_was_negotiated_holds_at_the_successor(lab):
    path, contents = make_image(lab, "qcow2")
    args = ["-A", "-f", "qcow2", path]
    with lab.first(*args) as row, contextlib.ExitStack() as stack:
        connections = []
        for extended in (False, True):
            connection = stack.enter_context(nbd.Connection(row.socket))
            connection.greeting()
            connection.negotiate_extended() if extended else connection.negotiate_structured()
            contexts = connection.set_contexts("", ["base:allocation", "qemu:allocation-depth"])
            expect(len(contexts), 2, "contexts")
            connection.go()
            connections.append(connection)
        before = [c.command(nbd.CMD_BLOCK_STATUS, 0, 4 * MIB).status for c in connections]
        row.hand_over(*args)
        for connection, status in zip(connections, before):
            expect(connection.command(nbd.CMD_BLOCK_STATUS, 0, 4 * MIB).status, status, "status")
            expect(connection.read(MIB, 2 * MIB).data, contents[MIB:3 * MIB], "contents")


def rule_exports_of_a_folder_are_found_by_name(lab):
    folder = lab.path("images")
    os.mkdir(folder)
    made = {}
    for seed, name in enumerate(("one", "two")):
        path, made[name] = make_image(lab, "qcow2", seed=seed)
        os.rename(path, os.path.join(folder, name))
    args = ["--directory", folder]
    with lab.first(*args) as row:
        with connect(row, "one") as one, connect(row, "two") as two:
            row.hand_over(*args)
            for connection, name in ((one, "one"), (two, "two")):
                expect(connection.read(MIB, 2 * MIB).data, made[name][MIB:3 * MIB], name)


def rule_who_waits_for_a_place_is_served_by_the_successor(lab):
    path, contents = make_image(lab, "raw")
    args = ["-e", "1", "-f", "raw", path]
    with lab.first(*args) as row:
        with connect(row) as first, nbd.Connection(row.socket) as second:
            row.hand_over(*args)
            expect(first.read(3 * MIB, 512).data, contents[3 * MIB:3 * MIB + 512], "contents")
            second.expect_silence()
            first.send_request(nbd.CMD_DISC)
            second.greeting()
            second.go()
            expect(second.read(3 * MIB, 512).data, contents[3 * MIB:3 * MIB + 512], "contents")


def rule_a_silent_handshake_holds_up_nobody_and_is_closed(lab):
    path, contents = make_image(lab, "raw")
    args = ["-f", "raw", path]
    with lab.first(*args) as row:
        with Load(row.socket, contents) as load, nbd.Connection(row.socket) as silent:
            silent.greeting()
            row.hand_over(*args)
            silent.expect_closed()
        check(max(load.latencies) < PAUSE_LIMIT * lab.cost, f"a read took {max(load.latencies)} s")


def rule_a_client_that_does_not_read_stays_behind(lab):
    path, contents = make_image(lab, "raw")
    args = ["-f", "raw", path]
    with lab.first(*args) as row:
        with connect(row) as greedy, Load(row.socket, contents):
            greedy.send(b"".join(greedy.request_bytes(nbd.CMD_READ, 0, MIB, cookie)
                                 for cookie in range(64)))
            time.sleep(0.2)
            errors = row.hand_over(*args, seconds=15)
            check("stay behind" in errors, f"the log does not say so: {errors!r}")
            with contextlib.suppress(nbd.Closed, nbd.ProtocolError):
                for cookie in range(64):
                    answer = greedy.answer(MIB, 0, cookie, is_read=True)
                    check(answer.data == contents[:MIB], "wrong bytes for the client left behind")
        expect(served_contents(row), contents, "what a newcomer reads")


def rule_a_server_that_is_not_persistent_ends_with_its_inherited_client(lab):
    path, contents = make_image(lab, "raw")
    with lab.first("-f", "raw", path) as row:
        command = [word for word in lab.command("--take-over", lab.port, "-f", "raw", path)
                   if word != "-t"]
        with connect(row) as connection:
            successor = harness.Server(command, row.socket)
            expect(row.server.process.wait(harness.DEADLINE), 0, "exit status of the old server")
            row.server = successor
            expect(connection.read(3 * MIB, 512).data, contents[3 * MIB:3 * MIB + 512], "contents")
        expect(successor.process.wait(harness.DEADLINE), 0, "exit status of the successor")
