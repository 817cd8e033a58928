"""Rules of many clients, silent ones and several threads: what they cost."""
import contextlib
import math
import os
import random
import time

import nbd_client as nbd
from program_rules import MIB, check, connect, expect

KIB = 1 << 10
CLIENTS = 1000
READ = 64 * KIB
BURST = 600  # small reads at once: more than a server receives at a time
DISK = 64 * MIB
SILENCE_SECONDS = 4  # after this, a server has given back what silent clients do not need
RESIDENT_EACH = 8 * KIB
IDLE_SHARE = 0.01  # of a core
TRIES, MOST_TRIES = 15, 60
POLLING_SHARE = 1.3  # polling that does not give way takes a third more time


def make_disk(lab):
    contents = random.Random(3).randbytes(DISK)
    with open(lab.path("disk"), "wb") as image:
        image.write(contents)
    return lab.path("disk"), contents


def thread_seconds(server):
    """CPU time of each thread."""
    used = {}
    for thread in os.listdir(f"/proc/{server.pid}/task"):
        with open(f"/proc/{server.pid}/task/{thread}/schedstat", encoding="ascii") as text:
            used[thread] = int(text.read().split()[0]) / 1e9
    return used


def check_idle(server, seconds=2):
    before = sum(thread_seconds(server).values())
    time.sleep(seconds)
    share = (sum(thread_seconds(server).values()) - before) / seconds
    check(share < IDLE_SHARE, f"{share:.1%} of a core while idle")


def rule_silent_clients_cost_next_to_nothing(lab):
    path, contents = make_disk(lab)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(lab.serve("-e", "0", "--threads", "2", "-f", "raw", path))

        def client(number):
            connection = stack.enter_context(connect(server))
            offset = number * READ % DISK
            expect(connection.read(offset, READ).data, contents[offset:offset + READ], "contents")
            connection.send(BURST * connection.request_bytes(nbd.CMD_READ, 0, 512))
            connection.recv(BURST * (16 + 512))
            return connection

        for number in range(8):  # brings in what the first clients cost
            client(number)
        time.sleep(SILENCE_SECONDS)
        before = server.resident_bytes()
        clients = [client(number) for number in range(CLIENTS)]
        time.sleep(SILENCE_SECONDS)
        each = (server.resident_bytes() - before) / CLIENTS
        check(each < RESIDENT_EACH * lab.cost, f"{each / KIB:.1f} KiB for each client")
        check_idle(server)
        for number, connection in enumerate(clients):
            offset = (number * 7 + 3) * READ % DISK
            expect(connection.read(offset, READ).data, contents[offset:offset + READ],
                   "contents after silence")


def rule_a_client_that_fell_silent_within_a_request_is_answered(lab):
    path, contents = make_disk(lab)
    with lab.serve("-f", "raw", path) as server, connect(server) as connection:
        request = connection.request_bytes(nbd.CMD_READ, MIB, 512, cookie=5)
        connection.send(request[:10])
        time.sleep(SILENCE_SECONDS)
        connection.send(request[10:])
        answer = connection.answer(512, MIB, 5, is_read=True)
        expect(answer.data, contents[MIB:MIB + 512], "contents")


def rule_connections_are_spread_over_the_threads(lab):
    path, _ = make_disk(lab)
    with lab.serve("-e", "2", "--threads", "2", "-f", "raw", path) as server, \
            connect(server) as first, connect(server) as second:

        def busiest(connection):
            before = thread_seconds(server)
            for number in range(500):
                connection.read(number * READ, READ)
            after = thread_seconds(server)
            return max(after, key=lambda thread: after[thread] - before.get(thread, 0))

        check(busiest(first) != busiest(second), "one thread serves both connections")


def read_many(connection, count):
    for number in range(count):
        connection.read(number * 4096 % DISK, 4096)


def rule_polling_ends_when_nothing_comes(lab):
    path, _ = make_disk(lab)
    with lab.serve("--poll", "200", "-f", "raw", path) as server, connect(server) as connection:
        read_many(connection, 2000)
        check_idle(server)
        read_many(connection, 10)


def rule_polling_leaves_the_core_to_a_client_that_shares_it(lab):
    """A millisecond of polling before each sleep would show. Others use that core as well now and
    then: the best time of each counts, and while they are too far apart there are more tries."""
    path, _ = make_disk(lab)
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})  # the servers inherit it
    try:
        with lab.serve("-f", "raw", path) as asleep, connect(asleep) as one, \
                lab.serve("--poll", "1000", "-f", "raw", path) as polling, connect(polling) as two:
            best = {one: math.inf, two: math.inf}
            for number in range(MOST_TRIES):
                for connection in best:
                    started = time.monotonic()
                    read_many(connection, 500)
                    best[connection] = min(best[connection], time.monotonic() - started)
                if number >= TRIES and best[two] < POLLING_SHARE * best[one]:
                    return
            check(False, f"{best[two] / best[one]:.2f} times as long with polling")
    finally:
        os.sched_setaffinity(0, allowed)
