"""Rules of time, memory and many clients: nobody can make the server wait, grow or fall."""
import contextlib
import random
import struct
import time

import nbd_client as nbd
from protocol_rules import DISK_SIZE, MIB, check, expect, may_be_closed, wait_for

HANDSHAKE_SECONDS = (5, 20)  # the server's limit lies between these
MEMORY_GROWTH = 512 * MIB    # all clients together may cost no more


def send_reads(connection, reads):
    """reads: {cookie: (offset, length)}"""
    connection.send(b"".join(connection.request_bytes(nbd.CMD_READ, offset, length, cookie)
                             for cookie, (offset, length) in reads.items()))


def random_reads(seed, count, length):
    rng = random.Random(seed)
    return {cookie: (rng.randrange(DISK_SIZE - length), length) for cookie in range(1, count + 1)}


def take_answers(target, connection, reads):
    """All answers to `reads`, in any order."""
    pending = dict(reads)
    while pending:
        before = set(pending)
        answer = connection.answer(any_cookie=pending)
        offset, length = reads[(before - set(pending)).pop()]
        expect(answer.error, 0, "error")
        check(answer.data == target.contents[offset:offset + length], f"wrong bytes at {offset}")


def rule_128_requests_in_flight_are_answered(target):
    for mode in ({}, {"structured": True}, {"extended": True}):
        with target.ready(**mode) as connection:
            for length in (512, 4096, 65537):
                reads = random_reads(length, 128, length)
                send_reads(connection, reads)
                take_answers(target, connection, reads)


def rule_requests_in_flight_are_limited_by_waiting_not_by_failing(target):
    with target.ready() as connection:
        reads = random_reads(5, 3000, 512)
        send_reads(connection, reads)
        take_answers(target, connection, reads)


def rule_many_connections_are_served_at_the_same_time(target):
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(target.ready()) for _ in range(32)]
        for number, connection in enumerate(connections):
            connection.reads = random_reads(number, 16, 32768)
            send_reads(connection, connection.reads)
        for connection in connections:
            take_answers(target, connection, connection.reads)


def rule_handshake_has_a_time_limit_and_transmission_has_none(target):
    with target.ready() as idle, target.connect(60) as silent, target.connect(60) as slow:
        started = time.monotonic()
        slow.greeting()
        silent.greeting(client_flags=None)
        # One byte a second is progress, but no handshake.
        with may_be_closed():
            for byte in struct.pack(">QII", nbd.IHAVEOPT, nbd.OPT_LIST, 100) + bytes(50):
                slow.send(bytes([byte]))
                check(time.monotonic() - started < HANDSHAKE_SECONDS[1], "slow talk goes on")
                time.sleep(1)
        check(time.monotonic() - started > HANDSHAKE_SECONDS[0], "closed too early")
        silent.expect_closed(timeout=HANDSHAKE_SECONDS[1])
        check(time.monotonic() - started < HANDSHAKE_SECONDS[1] + 5, "closed too late")
        target.check_usable(idle)


def rule_silent_newcomers_do_not_keep_others_out(target):
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(target.connect())
        with nbd.Connection(target.server.socket, timeout=HANDSHAKE_SECONDS[1] + 5) as connection:
            connection.greeting()
            connection.go()
            target.check_usable(connection)


def rule_clients_that_never_read_cost_bounded_memory_and_delay_nobody(target):
    with target.serve() as server:
        with target.ready(server=server) as connection:
            target.check_usable(connection)
        before = server.resident_bytes()
        with contextlib.ExitStack() as stack:
            for number in range(8):
                greedy = stack.enter_context(target.ready(server=server,
                                                          structured=number % 2 == 0))
                send_reads(greedy, {cookie: (0, 32 * MIB) for cookie in range(1, 33)})
            deadline = time.monotonic() + 3
            most = 0
            while time.monotonic() < deadline:
                most = max(most, server.resident_bytes())
                time.sleep(0.05)
            with target.ready(server=server) as other:
                target.check_usable(other)
                target.check_read(other, 12345, 4 * MIB)
            most = max(most, server.resident_bytes())
        check(most - before < MEMORY_GROWTH, f"{(most - before) // MIB} MiB for unread replies")


def rule_clients_that_leave_with_unread_replies_harm_nobody(target):
    for number in range(20):
        with target.ready(structured=number % 2 == 0) as connection:
            send_reads(connection, random_reads(number, 64, 100000 * (1 + number % 3)))
            if number % 4 == 0:
                connection.recv(16)
    with target.ready() as connection:
        target.check_usable(connection)


def rule_clients_that_leave_within_a_request_harm_nobody(target):
    for cut in range(29):
        with target.ready() as connection:
            connection.send(connection.request_bytes(nbd.CMD_READ, 0, 4096)[:cut])
    for cut in (0, 1, 4095):
        with target.ready() as connection:
            connection.send_request(nbd.CMD_WRITE, 0, 4096, payload=bytes(cut))


def rule_half_closed_client_gets_its_answers(target):
    with target.ready() as connection:
        reads = random_reads(8, 20, 4096)
        send_reads(connection, reads)
        connection.socket.shutdown(1)
        take_answers(target, connection, reads)
        connection.expect_closed()


def rule_sigterm_answers_requests_in_flight_then_ends(target):
    with target.serve() as server:
        with target.ready(server=server) as connection:
            reads = random_reads(9, 64, 16384)  # more than the socket holds: some stay in flight
            send_reads(connection, reads)
            time.sleep(0.3)
            server.terminate()
            time.sleep(0.1)
            take_answers(target, connection, reads)
            connection.expect_closed()
        wait_for(lambda: not server.running(), 10, "the end of the server")


def rule_sigterm_ends_the_server_despite_clients_that_stall(target):
    with target.serve() as server:
        with target.ready(server=server) as unread, target.ready(server=server) as idle:
            with nbd.Connection(server.socket) as silent:
                send_reads(unread, {cookie: (0, 8 * MIB) for cookie in range(1, 17)})
                silent.greeting(client_flags=None)
                target.check_usable(idle)
                server.terminate()
                wait_for(lambda: not server.running(), 10, "the end of the server")


def rule_sigterm_during_a_handshake_ends_the_server(target):
    with target.serve() as server:
        with nbd.Connection(server.socket) as connection:
            connection.greeting()
            expect(connection.option_result(nbd.OPT_LIST), nbd.REP_ACK, "LIST")
            server.terminate()
            wait_for(lambda: not server.running(), 10, "the end of the server")


def rule_second_connection_sees_the_same_disk(target):
    with target.ready() as one, target.ready(structured=True) as two:
        for offset in range(0, 4 * MIB, MIB + 777):
            target.check_read(one, offset, 65536)
            target.check_read(two, offset, 65536)
