"""Every command, beside clients that read; and clients of the control socket that break its rules."""
import os
import socket
import stat
import time

import harness
import nbd_client as nbd
import tls_keys
import tls_lab
from clients_lab import check_read, connect, unix_uri
from control_lab import check_unknown, error_of
from protocol_rules import check, expect


def rule_exports_are_told_with_their_images(lab):
    qcow2, _ = lab.image("images", "disk.qcow2")
    child = lab.path("images", "child.qcow2")
    harness.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", qcow2, "-F", "qcow2", child])
    with lab.serve_live("--export", f"disk={child}", "-D", "a disk"):
        [export] = lab.ask("exports")
        size = export.pop("size")
        expect(size, 3 << 20, "size")
        expect(export, {"name": "disk", "description": "a disk", "clients": 0,
                        "images": [{"path": child, "format": "qcow2"},
                                   {"path": qcow2, "format": "qcow2"}],
                        "changed": False, "hidden": False}, "the export")


def rule_clients_are_told_with_what_they_have_read(lab):
    with lab.serve_one() as server:
        expect(lab.ask("clients"), [], "clients before")
        with connect(server, "one") as first, connect(server, "one") as second:
            check_read(first, lab.contents, 0, 4096)
            check_read(first, lab.contents, 8192, 512)
            check_read(second, lab.contents, 0, 1 << 20)

            def reads():
                return [(client["reads"], client["read_bytes"]) for client in lab.ask("clients")]
            harness.wait_for(lambda: reads() == [(2, 4608), (1, 1 << 20)], 10, "the counts")
            told = lab.ask("clients")
            check(told[0]["id"] < told[1]["id"], f"ids of {told}")
            for client in told:
                expect((client["pid"], client["uid"]), (os.getpid(), os.getuid()), "the peer")
                expect((client["export"], client["tls"]), ("one", False), "export, tls")
            expect([export["clients"] for export in lab.ask("exports")], [2], "clients of it")
        harness.wait_for(lambda: lab.ask("clients") == [], 10, "nobody is left")


def rule_clients_over_tcp_are_told_by_address(lab):
    port = harness.free_port()
    command = [lab.program, "-t", "-e", "0", "-b", "127.0.0.1", "-p", port, "--control",
               lab.control, "-f", "raw", lab.one]
    with harness.start(command, port), nbd.Connection(port) as client:
        client.greeting()
        client.go()
        [told] = lab.ask("clients")
        expect(told["address"], f"[127.0.0.1]:{client.socket.getsockname()[1]}", "address")
        check("pid" not in told, f"a process is told: {told}")


def rule_encrypted_clients_are_told_apart(lab):
    keys = lab.path("keys")
    tls_keys.Authority(lab.path("authority")).issue(keys, "server", "localhost")
    with lab.serve_one("--tls", "on", "--tls-creds", "t", "--object",
                       f"tls-creds-x509,id=t,dir={keys},endpoint=server,verify-peer=no") as server:
        with tls_lab.encrypted(server) as client, connect(server, "one"):
            client.go("one")
            check_read(client, lab.contents, 0, 4096)
            expect(sorted(told["tls"] for told in lab.ask("clients")), [False, True], "tls")


def rule_an_export_comes_and_goes_beside_a_client_that_reads(lab):
    with lab.serve_one() as server, connect(server, "one") as reader:
        for _ in range(3):
            expect(lab.ask("add", "name=two", f"image={lab.other}", "format=raw"),
                   {"size": len(lab.other_contents)}, "what is added")
            check_read(reader, lab.contents, 0, 65536)
            expect(lab.names(), ["one", "two"], "exports")
            lab.check_copy(unix_uri(server, "two"), lab.other_contents)
            harness.wait_for(lambda: len(lab.ask("clients")) == 1, 10, "nbdcopy has left")
            expect(lab.ask("remove", "name=two"), {"clients": 0}, "clients of what is removed")
            check_unknown(server, "two")
            check_read(reader, lab.contents, 65536, 65536)
            expect(lab.names(), ["one"], "exports")


def rule_what_cannot_be_added_is_refused_in_one_line(lab):
    with lab.serve_one() as server:
        check("already" in lab.refused("add", "name=one", f"image={lab.other}"), "taken name")
        line = lab.refused("add", "name=x", f"image={lab.path('images', 'missing')}")
        check("missing" in line and "No such file" in line, line)
        check("nonsense" in lab.refused("add", "name=x", f"image={lab.other}", "format=nonsense"),
              "unknown format")
        check("snapshot" in lab.refused("add", "name=x", f"image={lab.other}", "format=raw",
                                        "snapshot=one"), "a snapshot of a raw image")
        expect(lab.names(), ["one"], "exports")
        lab.check_copy(unix_uri(server, "one"), lab.contents)


def rule_the_snapshot_and_the_description_of_what_is_added_count(lab):
    image, contents = lab.image("images", "disk.qcow2")
    harness.run(["qemu-img", "snapshot", "-c", "before", image])
    harness.run(["qemu-io", "-c", "write -P 1 0 65536", image])
    with lab.serve_one() as server:
        lab.ask("add", "name=now", f"image={image}")
        lab.ask("add", "name=before", f"image={image}", "format=qcow2", "snapshot=before",
                "description=as it was")
        lab.check_copy(unix_uri(server, "before"), contents)
        lab.check_copy(unix_uri(server, "now"), b"\1" * 65536 + contents[65536:])
        told = {export["name"]: export["description"] for export in lab.ask("exports")}
        expect(told, {"one": "", "now": "", "before": "as it was"}, "descriptions")


def rule_what_a_client_uses_is_only_hidden(lab):
    with lab.serve_one() as server:
        with connect(server, "one") as reader:
            check("1 clients use" in lab.refused("remove", "name=one"), "the number of clients")
            expect(lab.names(), ["one"], "exports")
            expect(lab.ask("remove", "name=one", "hide=on"), {"clients": 1}, "who still has it")
            check_unknown(server, "one")
            [export] = lab.ask("exports")
            expect((export["hidden"], export["clients"]), (True, 1), "hidden, clients")
            check_read(reader, lab.contents, 0, 1 << 20)
            # Its name is free.
            lab.ask("add", "name=one", f"image={lab.other}", "format=raw")
            with connect(server, "one") as other:
                check_read(other, lab.other_contents, 0, 4096)
                check_read(reader, lab.contents, 0, 4096)
            expect(len(lab.ask("exports")), 2, "exports")
            # Who has the hidden one is no client of the other.
            harness.wait_for(lambda: len(lab.ask("clients")) == 1, 10, "one has left")
            expect(lab.ask("remove", "name=one"), {"clients": 0}, "clients of the new one")
            lab.ask("add", "name=one", f"image={lab.other}", "format=raw")
        harness.wait_for(lambda: [export["hidden"] for export in lab.ask("exports")] == [False],
                         10, "the hidden one is gone")
        check("no export" in lab.refused("remove", "name=other"), "an export that is not there")


def rule_drain_waits_for_the_last_client(lab):
    server = harness.Server([lab.program, "-t", "-e", "0", "-k", lab.path("nbd"), "--control",
                             lab.control, "-f", "raw", lab.one], lab.path("nbd"))
    try:
        server.wait_until_it_listens()
        expect(lab.ask("status")["status"], "serving", "status")
        with connect(server) as reader:
            expect(lab.ask("drain")["status"], "draining", "status")
            with nbd.Connection(server.socket) as late:
                late.expect_silence(0.5)
                check_read(reader, lab.contents, 0, 1 << 20)
                told = lab.ask("status")
                expect((told["status"], told["clients"]), ("draining", 1), "status")
                lab.ask("drain")  # once more is no harm
        expect(server.process.wait(10), 0, "exit status")
        check(not os.path.exists(lab.control), "the control socket is left behind")
    finally:
        server.close()


def rule_drain_without_clients_ends_the_server(lab):
    server = harness.Server([lab.program, "-t", "-k", lab.path("nbd"), "--control", lab.control,
                             "-f", "raw", lab.one], lab.path("nbd"))
    try:
        server.wait_until_it_listens()
        expect(lab.ask("drain")["status"], "draining", "status")
        expect(server.process.wait(10), 0, "exit status")
    finally:
        server.close()


def rule_statistics_are_what_clients_did(lab):
    with lab.serve_one() as server, connect(server, "one") as reader:
        check_read(reader, lab.contents, 0, 4096)
        harness.wait_for(lambda: lab.ask("statistics")["exports"][0]["reads"] == 1, 10, "a read")
        told = lab.ask("statistics")
        expect((told["clients"], told["connections"]), (1, 1), "clients, connections")
        [export] = told["exports"]
        expect((export["name"], export["read_bytes"], export["errors"]), ("one", 4096, 0), "export")
        expect(export["latencies"][-1], {"seconds": None, "requests": 1}, "the last bucket")
        expect(export["layers"][0]["path"], lab.one, "its image")
        check({"hits", "loads", "bytes"} <= set(told["tables"]), f"{told['tables']}")


def rule_the_log_level_can_be_changed(lab):
    with lab.serve_one() as server:
        lab.ask("log-level", "level=verbose")
        connect(server, "one").close()
        harness.wait_for(lambda: "a client connected" in server.stderr(), 10, "a detail")
        lab.ask("log-level", "level=normal")
        before = server.stderr()
        connect(server, "one").close()
        lab.ask("status")
        expect(server.stderr(), before, "what is said at the normal level")
        lab.refused("log-level", "level=loud")


def rule_wrong_usage_of_ctl_is_told_with_exit_status_2(lab):
    for words in ([], ["nonsense"], ["add"], ["add", "name=x"], ["remove", "x"],
                  ["remove", "name=x", "force=on"], ["remove", "name=x", "hide=maybe"],
                  ["remove", "name=x", "name=y"], ["status", "--nonsense"]):
        status, output, errors = lab.ctl(*words)
        expect((status, output), (2, ""), f"ctl {words}")
        check(errors.startswith("underlay-nbd ctl: "), errors)
    status, output, _ = lab.ctl("--help")
    check(status == 0 and "COMMAND" in output, output)
    check("no server answers" in lab.refused("status"), "nobody is there")


def rule_only_its_user_may_use_the_control_socket(lab):
    with lab.serve_one() as server:
        expect(stat.S_IMODE(os.stat(lab.control).st_mode), 0o600, "mode")
        check(stat.S_ISSOCK(os.stat(lab.control).st_mode), "no socket")
        status, _, errors = harness.run([lab.program, "-k", lab.path("nbd"), "--control",
                                         lab.control, "-f", "raw", lab.other])
        check(status == 1 and "another program listens" in errors, errors)
        expect(lab.ask("status")["pid"], server.pid, "who answers")
    check(not os.path.exists(lab.control), "the control socket is left behind")


def rule_hostile_clients_get_an_error_and_the_next_is_served(lab):
    with lab.serve_one() as server, connect(server, "one") as reader:
        for words, expected in (
                (b"nonsense\n", "no command"), (b"[]\n", "no command"), (b"\xff\xfe\n", "no command"),
                (b"{}\n", "no command"), (b'{"command": 1}\n', "no command"),
                (b'{"command": "quit"}\n', "no command"),
                (b'{"command": "status", "more": 1}\n', "more"),
                (b'{"command": "status", "arguments": []}\n', "object"),
                (b'{"command": "status", "arguments": {"x": 1}}\n', "no argument"),
                (b'{"command": "remove", "arguments": {"name": 1}}\n', "a string"),
                (b'{"command": "remove", "arguments": {"name": "one", "hide": "on"}}\n', "true"),
                (b'{"command": "add", "arguments": {"name": "x", "image": "disk.raw"}}\n',
                 "absolute"),
                (b"[" * 1_000_000 + b"\n", "no command"), (b"x" * (2 << 20), "1048576 bytes")):
            message = error_of(lab.say(words))
            check(expected in message and len(message) < 1000, f"{words[:80]}: {message}")
            check_read(reader, lab.contents, 0, 4096)
        expect(lab.say(b""), b"", "the answer to nothing")
        with harness.connect(lab.control) as client:
            client.sendall(b'{"command": "exports"}\n')  # and does not take the answer
        check(lab.say(b'{"command": "status"}').startswith(b'{"return"'), "without a line's end")
        expect(lab.names(), ["one"], "exports")


def rule_a_silent_client_keeps_others_waiting_for_five_seconds_at_most(lab):
    with lab.serve_one() as server, connect(server, "one") as reader:
        with harness.connect(lab.control) as silent:
            silent.sendall(b'{"command":')
            started = time.monotonic()
            lab.ask("status")
            waited = time.monotonic() - started
            check(3 < waited < 9, f"the next one waited {waited} s")
            check("5 s" in error_of(silent.recv(4096)), "no reason")
        check_read(reader, lab.contents, 0, 4096)


def rule_a_silent_client_does_not_hold_up_the_end(lab):
    with lab.serve_one() as server, harness.connect(lab.control) as silent:
        silent.sendall(b'{"command":')
        time.sleep(0.2)
        started = time.monotonic()
        server.stop()
        check(time.monotonic() - started < 3, "the end took long")
        silent.shutdown(socket.SHUT_RDWR)


def rule_the_sandbox_says_where_images_may_be(lab):
    if harness.sanitized(lab.program):
        return  # such a build has no sandbox
    elsewhere = lab.path("elsewhere", "disk.raw")
    os.rename(lab.other, elsewhere)
    folder = os.path.dirname(elsewhere)
    with lab.serve_one("--sandbox=on") as server:
        line = lab.refused("add", "name=x", f"image={elsewhere}", "format=raw")
        check(f"--allow-path {folder}" in line and "--sandbox=off" in line, line)
        link = lab.path("images", "link.raw")
        os.symlink(elsewhere, link)
        check("--allow-path" in lab.refused("add", "name=x", f"image={link}", "format=raw"), "link")
        lab.check_copy(unix_uri(server, "one"), lab.contents)
    for options in (["--allow-path", folder], ["--sandbox=off"]):
        with lab.serve_one(*options) as server:
            lab.ask("add", "name=x", f"image={elsewhere}", "format=raw")
            lab.check_copy(unix_uri(server, "x"), lab.other_contents)


def rule_a_successor_has_the_control_socket(lab):
    port = lab.path("handover")
    common = ["-t", "-e", "0", "--handover", port, "--control", lab.control, "-f", "raw", "--export",
              f"one={lab.one}"]
    first = harness.Server([lab.program, "-k", lab.path("nbd"), *common], lab.path("nbd"))
    second = None
    try:
        first.wait_until_it_listens()
        harness.wait_for(lambda: harness.listens(lab.control), 10, "the control socket")
        with connect(first, "one") as reader:
            second = harness.Server([lab.program, "--take-over", port, *common], lab.path("nbd"))
            expect(first.process.wait(10), 0, "exit status of the first")
            harness.wait_for(lambda: lab.ctl("status")[0] == 0, 10, "the successor answers")
            expect(lab.ask("status")["pid"], second.pid, "who answers")
            expect([client["export"] for client in lab.ask("clients")], ["one"], "clients")
            check_read(reader, lab.contents, 0, 4096)
        second.stop()
        check(not os.path.exists(lab.control), "the control socket is left behind")
    finally:
        for server in filter(None, (first, second)):
            server.close()
