"""NBD_OPT_STARTTLS, byte by byte: NBD protocol, "TLS support"."""
import os
import ssl
import threading

import harness
import nbd_client as nbd
import tls_lab
from protocol_rules import check, expect

OPEN = "verify-peer=no"  # Python's client shows no certificate


def rule_a_server_that_demands_tls_answers_nothing_else(lab):
    name = nbd.name_option("")
    contexts = nbd.meta_option("", [])
    with lab.serve_tcp(*lab.x509(OPEN)) as server:
        with nbd.Connection(server.socket) as client:
            client.greeting()
            for option, data in ((nbd.OPT_LIST, b""), (nbd.OPT_INFO, name), (nbd.OPT_GO, name),
                                 (nbd.OPT_STRUCTURED_REPLY, b""), (nbd.OPT_EXTENDED_HEADERS, b""),
                                 (nbd.OPT_LIST_META_CONTEXT, contexts), (77, b"")):
                expect(client.option_result(option, data), nbd.ERR_TLS_REQD, f"option {option}")
            expect(client.option_result(nbd.OPT_ABORT), nbd.REP_ACK, "ABORT")
        with nbd.Connection(server.socket) as client:
            client.greeting()
            client.send_option(nbd.OPT_EXPORT_NAME)
            client.expect_closed()
        lab.check_refused(f"nbd://localhost:{server.socket}")


def rule_where_tls_is_offered_the_client_chooses(lab):
    with lab.serve_tcp(*lab.x509(OPEN), "--tls", "on") as server:
        lab.check_served(f"nbd://localhost:{server.socket}")
        lab.check_served(lab.tls_uri(server))


def rule_without_credentials_starttls_is_refused_and_the_client_goes_on(lab):
    with lab.serve_tcp() as server, nbd.Connection(server.socket) as client:
        client.greeting()
        expect(client.option_result(nbd.OPT_STARTTLS), nbd.ERR_POLICY, "STARTTLS")
        client.go()
        expect(client.read(0, 512).data, lab.contents[:512], "bytes")


def rule_starttls_takes_no_data_and_comes_once(lab):
    with lab.serve_tcp(*lab.x509(OPEN)) as server:
        with nbd.Connection(server.socket) as client:
            client.greeting()
            expect(client.option_result(nbd.OPT_STARTTLS, b"x"), nbd.ERR_INVALID, "with data")
            tls_lab.start_tls(client)
            expect(client.option_result(nbd.OPT_STARTTLS), nbd.ERR_INVALID, "the second one")
            client.go()
            expect(client.read(0, 512).data, lab.contents[:512], "bytes")


def rule_what_was_negotiated_before_is_forgotten(lab):
    with lab.serve_tcp(*lab.x509(OPEN), "--tls", "on") as server:
        with nbd.Connection(server.socket) as client:
            client.greeting()
            client.negotiate_extended()
            client.set_contexts("", ["base:allocation"])
            tls_lab.start_tls(client)
            client.structured = client.extended = False
            client.go()  # its reply, and the next, are simple again
            expect(client.read(4096, 512).data, lab.contents[4096:4608], "bytes")
            expect(client.command_error(nbd.CMD_BLOCK_STATUS, 0, 4096), nbd.EINVAL, "status")


def rule_plain_text_behind_starttls_closes_the_connection(lab):
    """What somebody in between might slip in must not count as the client's."""
    with lab.serve_tcp(*lab.x509(OPEN), "--tls", "on") as server:
        with nbd.Connection(server.socket) as client:
            client.greeting()
            slipped_in = nbd.struct.pack(">QII", nbd.IHAVEOPT, nbd.OPT_STRUCTURED_REPLY, 0)
            client.send(nbd.struct.pack(">QII", nbd.IHAVEOPT, nbd.OPT_STARTTLS, 0) + slipped_in)
            reply = client.option_reply()
            expect(reply.kind, nbd.REP_ACK, "STARTTLS")
            client.expect_closed()
        check("in plain text after NBD_OPT_STARTTLS" in server.stderr(), server.stderr())


def rule_whoever_does_not_speak_tls_is_turned_away_alone(lab):
    with lab.serve_tcp(*lab.x509(OPEN)) as server:
        good = tls_lab.encrypted(server)
        good.go()
        for words in (b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(70000),
                      bytes(300), b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"):
            with nbd.Connection(server.socket) as client:
                client.greeting()
                expect(client.option_result(nbd.OPT_STARTTLS), nbd.REP_ACK, "STARTTLS")
                try:
                    client.send(words)
                    client.socket.shutdown(nbd.socket.SHUT_WR)
                    while client.socket.recv(4096):
                        pass
                except (nbd.Closed, OSError):  # it has closed the connection by now
                    pass
            expect(good.read(0, 4096).data, lab.contents[:4096], "bytes of the good client")
        good.close()


def rule_versions_before_1_2_are_refused(lab):
    with lab.serve_tcp(*lab.x509(OPEN)) as server, nbd.Connection(server.socket) as client:
        client.greeting()
        expect(client.option_result(nbd.OPT_STARTTLS), nbd.REP_ACK, "STARTTLS")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        try:
            context.wrap_socket(client.socket)
        except (ssl.SSLError, OSError):
            return
        raise AssertionError("TLS 1.1 is spoken")


def rule_a_priority_string_decides_what_is_spoken(lab):
    only_1_2 = "priority=NORMAL:-VERS-ALL:+VERS-TLS1.2"
    with lab.serve_tcp(*lab.x509(OPEN, only_1_2)) as server:
        with tls_lab.encrypted(server) as client:
            expect(client.socket.version(), "TLSv1.2", "version")
            client.go()
            expect(client.read(0, 512).data, lab.contents[:512], "bytes")
    lab.refuses_to_start(*lab.x509("priority=NONSENSE"), words=["priority", "NONSENSE"])


def rule_a_client_that_leaves_in_the_middle_of_the_handshake_costs_nothing(lab):
    with lab.serve_tcp(*lab.x509(OPEN)) as server:
        opened = len(os.listdir(f"/proc/{server.pid}/fd"))
        for length in (0, 1, 5, 100):
            for _ in range(20):
                with nbd.Connection(server.socket) as client:
                    client.greeting()
                    expect(client.option_result(nbd.OPT_STARTTLS), nbd.REP_ACK, "STARTTLS")
                    client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[:length])
        harness.wait_for(lambda: len(os.listdir(f"/proc/{server.pid}/fd")) <= opened, 10,
                         "the descriptors are back")
        lab.check_served(lab.tls_uri(server))


def rule_many_requests_and_large_ones_come_through_on_several_connections(lab):
    failures = []

    def read(server):
        try:
            with tls_lab.encrypted(server) as client:
                client.negotiate_structured()
                client.go()
                for length in (1, 511, 16384, 16385, 65536, 1 << 20, len(lab.contents)):
                    expect(client.read(0, length).data, lab.contents[:length], f"{length} bytes")
                for cookie in range(100):
                    client.send_request(nbd.CMD_READ, cookie * 4096, 4096, cookie)
                waiting = {cookie: (cookie * 4096, 4096) for cookie in range(100)}
                while waiting:
                    client.answer(any_cookie=waiting)
        except Exception as error:
            failures.append(error)
            raise

    with lab.serve_tcp(*lab.x509(OPEN)) as server:
        readers = [threading.Thread(target=read, args=(server,)) for _ in range(4)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    check(not failures, f"{failures}")


def rule_an_encrypted_client_that_does_not_read_is_no_harm_to_the_others(lab):
    with lab.serve_tcp(*lab.x509(OPEN)) as server:
        stalled = tls_lab.encrypted(server)
        stalled.go()
        stalled.socket.settimeout(0.5)
        try:
            for cookie in range(2000):
                stalled.send_request(nbd.CMD_READ, 0, 1 << 20, cookie)
        except (TimeoutError, nbd.socket.timeout):
            pass  # the server takes no more
        lab.check_served(lab.tls_uri(server))
        stalled.close()


def rule_a_silent_encrypted_client_is_served_when_it_speaks_again(lab):
    with lab.serve_tcp(*lab.x509(OPEN)) as server, tls_lab.encrypted(server) as client:
        client.go()
        expect(client.read(0, 512).data, lab.contents[:512], "bytes")
        threading.Event().wait(3)  # it rests after one to two seconds
        expect(client.read(512, 512).data, lab.contents[512:1024], "bytes after a silence")


def rule_tls_goes_over_unix_sockets_as_well(lab):
    with lab.serve(*lab.x509(OPEN), "-f", "raw", lab.image) as server:
        with tls_lab.encrypted(server) as client:
            client.go()
            expect(client.read(0, 4096).data, lab.contents[:4096], "bytes")
