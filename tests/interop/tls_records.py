"""What a client may ask of TLS itself while it is served: new keys, and short records."""
import nbd_client as nbd
from gnutls_socket import GnutlsSocket
from protocol_rules import check, expect

OPEN = "verify-peer=no"  # the client shows no certificate
MIB = 1 << 20
UPDATES = 6  # GnuTLS takes no more than 8 within a second


def encrypted(server, **how):
    """A connection by GnuTLS in the transmission phase, with structured replies."""
    connection = nbd.Connection(server.socket)
    connection.greeting()
    expect(connection.option_result(nbd.OPT_STARTTLS), nbd.REP_ACK, "reply to STARTTLS")
    connection.socket = GnutlsSocket(connection.socket, **how)
    connection.negotiate_structured()
    connection.go()
    return connection


def rule_a_client_may_change_its_keys_in_the_middle(lab):
    with lab.serve_tcp(*lab.x509(OPEN)) as server, encrypted(server) as client:
        for round_ in range(UPDATES):
            client.socket.update_keys(of_peer=False)
            at = round_ * 4096
            expect(client.read(at, 4096).data, lab.contents[at:at + 4096], f"round {round_}")


def rule_a_client_may_ask_the_server_for_new_keys(lab):
    """They come in front of an answer, and between answers that are on their way."""
    for length in (1, 4096, len(lab.contents)):
        with lab.serve_tcp(*lab.x509(OPEN)) as server, encrypted(server) as client:
            client.socket.update_keys(of_peer=True)
            expect(client.read(0, length).data, lab.contents[:length], f"{length} bytes")
            waiting = {}
            for cookie in range(16):
                offset = cookie * 8192
                client.send_request(nbd.CMD_READ, offset, 65536, cookie)
                waiting[cookie] = (offset, 65536)
                if cookie % 4 == 0:
                    client.socket.update_keys(of_peer=True)
            while waiting:
                client.answer(any_cookie=waiting)
            expect(client.read(512, 512).data, lab.contents[512:1024], "bytes afterwards")


def rule_a_client_that_does_nothing_else_is_sent_away_alone(lab):
    with lab.serve_tcp(*lab.x509(OPEN)) as server, encrypted(server) as restless:
        with encrypted(server) as other:
            try:
                for _ in range(200):
                    restless.socket.update_keys(of_peer=True)
                restless.expect_closed()
            except OSError:  # it is closed already
                pass
            expect(other.read(0, 4096).data, lab.contents[:4096], "bytes of another client")
        lab.check_served(lab.tls_uri(server))


def rule_records_are_as_short_as_the_client_wants_them(lab):
    for limit in (512, 1000, 4096, 16384):
        with lab.serve_tcp(*lab.x509(OPEN)) as server, \
                encrypted(server, max_record=limit) as client:
            expect(client.read(0, MIB).data, lab.contents[:MIB], f"bytes in records of {limit}")
            check(client.socket.longest_record <= limit,
                  f"a record of {client.socket.longest_record} bytes, and {limit} may be")
            check(client.socket.longest_record > limit // 2, "the limit was of no importance")


def rule_short_records_of_tls_1_2_too(lab):
    priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2"
    with lab.serve_tcp(*lab.x509(OPEN)) as server, \
            encrypted(server, max_record=512, priority=priority) as client:
        expect(client.read(0, MIB).data, lab.contents[:MIB], "bytes")
        check(client.socket.longest_record <= 512, f"{client.socket.longest_record} bytes")


def rule_new_keys_and_short_records_together(lab):
    with lab.serve_tcp(*lab.x509(OPEN)) as server, \
            encrypted(server, max_record=512) as client:
        for _ in range(5):
            client.socket.update_keys(of_peer=True)
            expect(client.read(0, 100_000).data, lab.contents[:100_000], "bytes")
        check(client.socket.longest_record <= 512, f"{client.socket.longest_record} bytes")
