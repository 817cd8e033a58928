"""Clients who ask for much, take nothing, or come in crowds: a bystander is served as before, and the
memory budget is the server's, not one of each connection.
"""
import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time

import harness
import nbd_client as nbd
from hostile_lab import DISK, KIB, MIB, connect, ready, reset, send_as_much_as_fits
from protocol_rules import check, expect, may_be_closed

ATTACK_SECONDS = 1
CROWD = 600
# limits::kReplyMemory, and what allocators and other caches add.
REPLIES = 256 * MIB + 96 * MIB


def for_a_while():
    """Numbers until the attack has lasted long enough."""
    end = time.monotonic() + ATTACK_SECONDS
    number = 0
    while time.monotonic() < end:
        yield number
        number += 1


def unread(server, stack, count, requests, **mode):
    """`count` clients that ask for all that requests(connection) says, and read nothing."""
    clients = []
    for _ in range(count):
        client = stack.enter_context(ready(server, **mode))
        send_as_much_as_fits(client, requests(client))
        clients.append(client)
    return clients


def go_on_asking(clients, requests):
    for _ in for_a_while():
        for client in clients:
            send_as_much_as_fits(client, requests(client))
        time.sleep(0.05)


def reads(length, count):
    def requests(connection):
        return b"".join(connection.request_bytes(nbd.CMD_READ, number * 512 % DISK // 2, length, number)
                        for number in range(count))
    return requests


def check_unread(lab, requests, count=CROWD, image=(), **mode):
    args = ("-e", "0", *(image or ("-f", "raw", lab.raw)))
    with lab.attacked(*args, budget=REPLIES) as server, contextlib.ExitStack() as stack:
        go_on_asking(unread(server, stack, count, requests, **mode), requests)


def rule_small_replies_that_nobody_reads(lab):
    check_unread(lab, reads(4 * KIB, 2000))


def rule_tiny_replies_that_nobody_reads(lab):
    check_unread(lab, lambda connection: connection.request_bytes(nbd.CMD_FLUSH) * 4000)


def rule_refusals_that_nobody_reads(lab):
    for mode in ({}, {"structured": True}):
        check_unread(lab, reads(DISK, 4000), count=150, **mode)


def rule_large_replies_that_nobody_reads(lab):
    check_unread(lab, reads(16 * MIB, 20), count=60)


def rule_large_replies_of_compressed_data_that_nobody_reads(lab):
    check_unread(lab, reads(16 * MIB, 20), count=40, image=("-f", "qcow2", lab.compressed()))


def rule_small_replies_of_compressed_data_that_nobody_reads(lab):
    check_unread(lab, reads(4 * KIB, 2000), image=("-f", "qcow2", lab.compressed()))


def rule_replies_of_extended_headers_that_nobody_reads(lab):
    check_unread(lab, reads(100 * KIB, 500), extended=True)


def rule_block_statuses_that_nobody_reads(lab):
    check_unread(lab, lambda connection: connection.request_bytes(nbd.CMD_BLOCK_STATUS, 0, DISK) * 500,
                 image=("-f", "qcow2", lab.compressed()), structured=True,
                 contexts=["base:allocation"])


def rule_prefetches_without_end(lab):
    check_unread(lab, lambda connection: connection.request_bytes(nbd.CMD_CACHE, 0, DISK) * 500)


def rule_option_replies_that_nobody_reads(lab):
    """Up to the limit of options, of every kind that has a long answer for a short question."""
    options = [(nbd.OPT_LIST, b""),
               (nbd.OPT_INFO, nbd.name_option("", range(4))),
               (nbd.OPT_LIST_META_CONTEXT, nbd.meta_option("", [])),
               (nbd.OPT_INFO, nbd.name_option("x" * 4096)),
               (0x7777, b"")]
    with lab.attacked("-e", "0", "-f", "raw", lab.raw, budget=REPLIES) as server, \
            contextlib.ExitStack() as stack:
        clients = []
        for number in range(CROWD):
            client = stack.enter_context(nbd.Connection(server.socket))
            client.greeting()
            option, data = options[number % len(options)]
            client.talk = struct.pack(">QII", nbd.IHAVEOPT, option, len(data)) + data
            clients.append(client)
        for _ in for_a_while():
            for client in clients:
                send_as_much_as_fits(client, client.talk * 500)


def rule_options_with_thousands_of_queries(lab):
    """The shortest queries, and the longest that are kept."""
    queries = [["q:"] * 9000, ["qemu:dirty-bitmap:" + "b" * 10] * 1800, ["base:allocation"] * 3000,
               ["x:" + "y" * 4000] * 15]
    with lab.attacked("-e", "0", "-A", "-f", "raw", lab.raw, budget=REPLIES) as server, \
            contextlib.ExitStack() as stack:
        clients = []
        for number in range(40):
            client = stack.enter_context(nbd.Connection(server.socket))
            client.greeting()
            client.negotiate_structured()
            client.data = nbd.meta_option("", queries[number % len(queries)])
            clients.append(client)
        for number in for_a_while():
            option = (nbd.OPT_LIST_META_CONTEXT, nbd.OPT_SET_META_CONTEXT)[number % 2]
            for client in clients:
                replies = client.option(option, client.data)
                expect(replies[-1].kind, nbd.REP_ACK, "thousands of queries")
                check(len(replies) <= 4, f"{len(replies)} replies: contexts are told twice")


def rule_options_that_stay_unfinished(lab):
    """Each with as much as the server keeps for one, less the last byte."""
    with lab.attacked(budget=CROWD * 200 * KIB) as server, contextlib.ExitStack() as stack:
        for number in range(CROWD):
            client = stack.enter_context(nbd.Connection(server.socket))
            client.greeting()
            client.send_option(nbd.OPT_GO, bytes(64 * KIB - 1), length=64 * KIB)
        time.sleep(ATTACK_SECONDS)


def rule_options_of_32_mib(lab):
    with lab.attacked(budget=64 * MIB) as server, contextlib.ExitStack() as stack:
        clients = []
        for number in range(16):
            client = stack.enter_context(nbd.Connection(server.socket))
            client.greeting()
            client.send_option(0x1234 if number % 2 else nbd.OPT_SET_META_CONTEXT, length=32 * MIB)
            clients.append(client)
        for _ in for_a_while():
            for client in clients:
                send_as_much_as_fits(client, bytes(MIB))


def connect_and(what, address):
    what(connect(address, harness.DEADLINE))


def half_close(client):
    client.shutdown(socket.SHUT_WR)
    client.close()


def speak_and_close(client):
    client.sendall(struct.pack(">IQII", 3, nbd.IHAVEOPT, nbd.OPT_LIST, 0))
    client.close()


def rule_connections_that_end_at_once(lab):
    for what in (socket.socket.close, half_close, speak_and_close):
        with lab.attacked() as server:
            for _ in for_a_while():
                connect_and(what, server.socket)


def rule_tcp_connections_that_end_at_once(lab):
    for what in (socket.socket.close, half_close, speak_and_close, reset):
        with lab.attacked_over_tcp() as server:
            for _ in for_a_while():
                connect_and(what, server.socket)


def rule_resets_with_replies_under_way(lab):
    """RST instead of FIN, in the handshake and in the midst of replies of every kind."""
    with lab.attacked_over_tcp(budget=REPLIES) as server:
        for number in for_a_while():
            with nbd.Connection(server.socket) as client:
                if number % 4 == 0:
                    client.greeting()
                    client.send_option(nbd.OPT_LIST)
                    reset(client.socket)
                    continue
                client.greeting()
                if number % 4 == 1:
                    client.negotiate_extended()
                client.go()
                send_as_much_as_fits(client, reads((512, 64 * KIB, 8 * MIB)[number % 3], 300)(client))
                if number % 2:
                    client.socket.recv(100)
                reset(client.socket)


def rule_silent_clients_at_every_stage(lab):
    with lab.attacked(budget=64 * MIB) as server, contextlib.ExitStack() as stack:
        for number in range(CROWD):
            client = stack.enter_context(nbd.Connection(server.socket))
            if number % 6 == 0:
                continue
            client.greeting(None if number % 6 == 1 else 3)
            if number % 6 == 2:
                client.send(struct.pack(">QI", nbd.IHAVEOPT, nbd.OPT_GO))
            elif number % 6 == 3:
                client.send_option(nbd.OPT_GO, bytes(5), length=6)
            elif number % 6 > 3:
                client.go()
                request = client.request_bytes(nbd.CMD_WRITE, 0, 1 << 30, payload=bytes(100))
                client.send(request if number % 6 == 4 else request[:27])
        time.sleep(ATTACK_SECONDS)


def rule_slow_clients_at_every_stage(lab):
    """A byte of each now and then, and as slow readers."""
    with lab.attacked(budget=64 * MIB) as server, contextlib.ExitStack() as stack:
        talks = []
        for number in range(60):
            client = stack.enter_context(nbd.Connection(server.socket))
            client.greeting(None if number % 4 == 0 else 3)
            if number % 4 == 0:
                words = struct.pack(">I", 3)
            elif number % 4 == 1:
                words = struct.pack(">QII", nbd.IHAVEOPT, nbd.OPT_LIST, 100)
            else:
                client.go()
                words = client.request_bytes(nbd.CMD_WRITE, 0, 1 << 20, payload=bytes(30))
                if number % 4 == 3:
                    client.send(words)
                    words = bytes(100)
            talks.append((client, words))
        slow_reader = stack.enter_context(ready(server))
        send_as_much_as_fits(slow_reader, reads(MIB, 20)(slow_reader))
        for number in for_a_while():
            for client, words in talks:
                with may_be_closed():
                    client.send(words[number:number + 1])
            slow_reader.recv(1)
            time.sleep(0.1)


READER = """
import sys; sys.path.insert(0, sys.argv[1])
import nbd_client as nbd
with nbd.Connection(sys.argv[2]) as connection:
    connection.greeting()
    connection.go()
    print("ready", flush=True)
    while True:
        for cookie in range(16): connection.send_request(nbd.CMD_READ, 0, 256 << 10, cookie)
        for cookie in range(16): connection.answer(256 << 10, 0, cookie, is_read=True)
"""


def rule_clients_that_are_stopped_and_killed(lab):
    """SIGSTOP while they read, and in the end SIGKILL."""
    with lab.attacked("-e", "0", "-f", "qcow2", lab.compressed(), budget=REPLIES) as server:
        readers = [subprocess.Popen([sys.executable, "-c", READER, os.path.dirname(__file__),
                                     server.socket], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                   for _ in range(6)]
        try:
            for reader in readers:
                expect(reader.stdout.readline(), b"ready\n", "the reader")
            for reader in readers:
                reader.send_signal(signal.SIGSTOP)
            time.sleep(ATTACK_SECONDS)
            readers[0].send_signal(signal.SIGCONT)
        finally:
            for reader in readers:
                reader.kill()
                reader.wait()
                reader.stdout.close()
