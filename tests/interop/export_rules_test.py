#!/usr/bin/python3
"""What --export-rule allows: who may come, how many, how fast, and only encrypted.

usage: export_rules_test.py UNDERLAY_NBD [RULE...]     RULE: part of a rule's name; only those run
"""
import os
import sys
import time

import clients_lab
import harness
import nbd_client as nbd
import rules_in_folders
import tls_lab
from protocol_rules import check, expect

MIB = 1 << 20


class Lab(clients_lab.Lab):
    """Two exports of one image, "open" and "ruled", the latter with a rule."""

    def serve_ruled(self, rule, *args):
        image, self.contents = self.raw("disk.raw", size=8 * MIB)
        return self.serve("-e", "0", "-f", "raw", "--export", f"open={image}", "--export",
                          f"ruled={image}", "--export-rule", f"ruled,{rule}", *args)


def info_of(server, name):
    with nbd.Connection(server.socket) as client:
        client.greeting()
        return client.info(nbd.OPT_INFO, name)


def timed_reads(server, name, count, length):
    """Seconds for so many reads, sent at once."""
    with clients_lab.connect(server, name) as client:
        begun = time.monotonic()
        for cookie in range(count):
            client.send_request(nbd.CMD_READ, 0, length, cookie)
        waiting = {cookie: (0, length) for cookie in range(count)}
        while waiting:
            client.answer(any_cookie=waiting)
        return time.monotonic() - begun


def rule_a_bandwidth_is_kept_and_others_are_not_slowed(lab):
    with lab.serve_ruled("bandwidth=4M") as server:
        slow = timed_reads(server, "ruled", 16, MIB // 2)  # 8 MiB
        fast = timed_reads(server, "open", 16, MIB // 2)
    check(1.5 < slow < 3.5, f"8 MiB at 4 MiB/s took {slow:.1f} s")
    check(fast < slow / 2, f"the other export took {fast:.1f} s")


def rule_clients_share_the_rate_of_requests(lab):
    with lab.serve_ruled("requests=200") as server:
        begun = time.monotonic()
        with clients_lab.connect(server, "ruled") as one, \
                clients_lab.connect(server, "ruled") as other:
            for cookie in range(200):
                for client in (one, other):
                    client.send_request(nbd.CMD_READ, 0, 512, cookie)
            for client in (one, other):
                waiting = {cookie: (0, 512) for cookie in range(200)}
                while waiting:
                    client.answer(any_cookie=waiting)
        taken = time.monotonic() - begun
    check(1.5 < taken < 3.5, f"400 requests at 200 a second took {taken:.1f} s")


def rule_a_client_that_waits_for_its_turn_may_leave(lab):
    with lab.serve_ruled("bandwidth=1M") as server:
        opened = len(server.opened())
        client = clients_lab.connect(server, "ruled")
        for cookie in range(8):  # the second would begin after 8 seconds
            client.send_request(nbd.CMD_READ, 0, 8 * MIB, cookie)
        client.answer(8 * MIB, 0, 0, is_read=True)
        client.socket.setsockopt(nbd.socket.SOL_SOCKET, nbd.socket.SO_LINGER, bytes([1] + [0] * 7))
        client.close()
        harness.wait_for(lambda: len(server.opened()) <= opened, 4, "its connection is gone")
        timed_reads(server, "open", 4, 4096)
    # serve() has ended it by now, in good order and in time.


def rule_so_many_clients_and_no_more(lab):
    with lab.serve_ruled("clients=2") as server:
        first, second = (clients_lab.connect(server, "ruled") for _ in range(2))
        with nbd.Connection(server.socket) as third:
            third.greeting()
            expect(third.info(nbd.OPT_GO, "ruled"), nbd.ERR_POLICY, "the third")
            check(isinstance(third.info(nbd.OPT_INFO, "ruled"), nbd.Export), "INFO")
            third.go("open")
        second.close()

        def another():
            with nbd.Connection(server.socket) as client:
                client.greeting()
                return isinstance(client.info(nbd.OPT_GO, "ruled"), nbd.Export)
        harness.wait_for(another, 10, "there is room again")
        first.close()


def rule_users_decide_at_unix_sockets(lab):
    with lab.serve_ruled(f"user={os.getuid()}") as server:
        check(isinstance(info_of(server, "ruled"), nbd.Export), "the user itself")
    with lab.serve_ruled(f"user={os.getuid() + 1}") as server:
        expect(info_of(server, "ruled"), nbd.ERR_POLICY, "another user")
        check(isinstance(info_of(server, "open"), nbd.Export), "the other export")
        with nbd.Connection(server.socket) as client:
            client.greeting()
            client.send_option(nbd.OPT_EXPORT_NAME, b"ruled")
            client.expect_closed()


def rule_networks_decide_by_tcp(lab):
    image, contents = lab.raw("disk.raw")
    for network, allowed in (("127.0.0.0/8", True), ("192.0.2.0/24", False), ("::1", False)):
        port = harness.free_port()
        command = [lab.program, "-t", "-b", "127.0.0.1", "-p", port, "-f", "raw", "-x", "disk",
                   "--export-rule", f"d*,network={network}", image]
        with harness.start(command, port) as server, nbd.Connection(server.socket) as client:
            client.greeting()
            found = client.info(nbd.OPT_GO, "disk")
            expect(isinstance(found, nbd.Export), allowed, f"from 127.0.0.1 with {network}")
            if allowed:
                clients_lab.check_read(client, contents, 0, 4096)


def rule_one_export_may_demand_tls_where_it_is_offered(lab):
    keys = tls_lab.Lab(lab.program, lab.path("keys", "x"))
    image, contents = lab.raw("disk.raw")
    port = harness.free_port()
    command = [lab.program, "-t", "-e", "0", "-b", "127.0.0.1", "-p", port, "-f", "raw", "--export",
               f"open={image}", "--export", f"secret={image}", "--export-rule",
               "secret,tls=require", *keys.x509("verify-peer=no"), "--tls", "on"]
    with harness.start(command, port) as server:
        with nbd.Connection(server.socket) as client:
            client.greeting()
            replies = client.option(nbd.OPT_LIST)
            names = [reply.data[4:] for reply in replies[:-1]]
            expect(names, [b"open"], "names without TLS")
            expect(client.info(nbd.OPT_INFO, "secret"), nbd.ERR_TLS_REQD, "INFO without TLS")
            client.go("open")
            clients_lab.check_read(client, contents, 0, 4096)
        with tls_lab.encrypted(server) as client:
            expect(len(client.option(nbd.OPT_LIST)), 3, "names with TLS")
            client.go("secret")
            clients_lab.check_read(client, contents, 0, 4096)


rules_in_folders.main(Lab, sys.modules[__name__])
