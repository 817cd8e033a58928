"""Clients whose sessions break off, or say something wrong, at any byte; and requests that are
allowed but odd. The server ends what cannot go on, and only that.
"""
import contextlib
import socket
import struct

import nbd_client as nbd
from hostile_lab import DISK, KIB, MIB, MODES, connect, ready, reset
from protocol_rules import check, expect, may_be_closed

CONTEXTS = ["base:allocation"]
MANY = (1 << 31, (1 << 32) - 1)
MORE = (1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1)  # of extended headers
CLOSE_SECONDS = 10


def option(kind, data=b"", length=None):
    return struct.pack(">QII", nbd.IHAVEOPT, kind, len(data) if length is None else length) + data


class Script(nbd.Connection):
    """Makes requests as a connection would, without one."""

    def __init__(self, extended=False):
        self.extended = extended


def whole_session(structured=False, extended=False, export_name=False):
    """All that a client says in a session with every kind of option and of request."""
    request = Script(extended).request_bytes
    said = struct.pack(">I", nbd.FLAG_FIXED_NEWSTYLE | nbd.FLAG_NO_ZEROES)
    said += option(nbd.OPT_LIST) + option(nbd.OPT_INFO, nbd.name_option("", range(4)))
    said += option(0x7777, b"unknown")
    if extended:
        said += option(nbd.OPT_EXTENDED_HEADERS)
    elif structured:
        said += option(nbd.OPT_STRUCTURED_REPLY)
    if structured or extended:
        said += option(nbd.OPT_SET_META_CONTEXT, nbd.meta_option("", CONTEXTS))
    said += option(nbd.OPT_EXPORT_NAME) if export_name else option(nbd.OPT_GO, nbd.name_option(""))
    said += request(nbd.CMD_READ, 4096, 70000, 1) + request(nbd.CMD_READ, 0, 512, 2)
    said += request(nbd.CMD_WRITE, 0, 40, 3, nbd.CMD_FLAG_PAYLOAD_LEN if extended else 0, bytes(40))
    said += request(nbd.CMD_BLOCK_STATUS, 0, DISK, 4) + request(nbd.CMD_CACHE, 0, 4096, 5)
    said += request(nbd.CMD_FLUSH, 0, 0, 6) + request(nbd.CMD_TRIM, 0, 4096, 7)
    return said + request(nbd.CMD_DISC, 0, 0, 8)


SESSIONS = [whole_session(), whole_session(export_name=True), whole_session(structured=True),
            whole_session(extended=True)]


def say(server, said):
    """A socket over which all of `said` went, as far as the server listened."""
    client = connect(server.socket, CLOSE_SECONDS)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        client.sendall(said)
    return client


def check_ends(client, what):
    """The server closes the connection once it has answered; how much it said."""
    got = 0
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_WR)
    try:
        while part := client.recv(MIB):
            got += len(part)
    except ConnectionResetError:
        pass
    except socket.timeout as error:
        raise AssertionError(f"{what}: the connection is not closed") from error
    finally:
        client.close()
    return got


def rule_sessions_that_are_closed_at_any_byte(lab):
    with lab.attacked(bystander=False) as server:
        for said in SESSIONS:
            for cut in range(len(said) + 1):
                say(server, said[:cut]).close()


def rule_sessions_that_are_reset_at_any_byte(lab):
    with lab.attacked_over_tcp(bystander=False) as server:
        for said in SESSIONS:
            for cut in range(len(said) + 1):
                reset(say(server, said[:cut]))


def rule_sessions_that_say_no_more_at_any_byte_are_answered_and_ended(lab):
    with lab.attacked() as server:
        for said in SESSIONS:
            answered = 0
            for cut in range(len(said) + 1):
                got = check_ends(say(server, said[:cut]), f"cut at {cut} of {len(said)}")
                check(got >= 18, f"cut at {cut}: {got} bytes in answer")
                answered = max(answered, got)
            check(answered > 70000, f"only {answered} bytes in answer to a whole session")


def rule_sessions_with_any_byte_wrong_are_ended(lab):
    with lab.attacked() as server:
        for said in SESSIONS:
            for at in range(len(said)):
                for wrong in {0, 0xFF, said[at] ^ 0x80, said[at] ^ 1} - {said[at]}:
                    words = said[:at] + bytes([wrong]) + said[at + 1:]
                    check_ends(say(server, words), f"{wrong:#x} at {at} of {len(said)}")


def rule_words_of_the_wrong_phase_or_direction_disconnect(lab):
    """Requests in the handshake, options in transmission, and what only a server says."""
    server_words = [struct.pack(">QQH", nbd.NBDMAGIC, nbd.IHAVEOPT, 3),
                    struct.pack(">QIII", nbd.OPTION_REPLY_MAGIC, nbd.OPT_GO, nbd.REP_ACK, 0),
                    struct.pack(">IIQ", nbd.SIMPLE_REPLY_MAGIC, 0, 1),
                    struct.pack(">IHHQI", nbd.CHUNK_MAGIC, 1, 0, 1, 0),
                    b"GET / HTTP/1.1\r\nHost: disk\r\n\r\n", bytes(64), b"\xff" * 64]
    with lab.attacked(bystander=False) as server:
        for words in [*server_words, Script().request_bytes(nbd.CMD_READ, 0, 512)]:
            with nbd.Connection(server.socket) as connection, may_be_closed():
                connection.greeting()
                connection.send(words.ljust(16, b"\0"))
                connection.expect_closed()
        for mode in MODES:
            for words in [*server_words, option(nbd.OPT_LIST), option(nbd.OPT_ABORT)]:
                with ready(server, **mode) as connection:
                    connection.send(words.ljust(32, b"\0"))
                    connection.expect_closed()


def rule_nothing_behind_abort_is_heard(lab):
    with lab.attacked(bystander=False) as server:
        for behind in (option(nbd.OPT_GO, nbd.name_option("")), option(nbd.OPT_ABORT), b"\xff" * 50000):
            with nbd.Connection(server.socket) as connection, may_be_closed():
                connection.greeting()
                connection.send(option(nbd.OPT_ABORT) + behind)
                expect(connection.option_reply().kind, nbd.REP_ACK, "reply to ABORT")
                connection.expect_closed()


def rule_nothing_behind_disc_is_heard_and_all_before_it_is_answered(lab):
    with lab.attacked(bystander=False) as server:
        for mode in MODES:
            for flags, length in ((0, 0), (nbd.CMD_FLAG_FUA, 0), (0xFFFF, 0), (0x20, (1 << 32) - 1)):
                with ready(server, **mode) as connection:
                    before = {cookie: (cookie * 1000, 40000) for cookie in range(40)}
                    read = connection.request_bytes
                    connection.send(
                        b"".join(read(nbd.CMD_READ, *before[cookie], cookie) for cookie in before) +
                        read(nbd.CMD_DISC, 0, length, 50, flags) +
                        read(nbd.CMD_READ, 0, 512, 51) * 20 + b"\xff" * 1000)
                    take_reads(lab, connection, before)
                    connection.expect_closed()


def take_reads(lab, connection, pending):
    while pending:
        asked = dict(pending)
        answer = connection.answer(any_cookie=pending)
        offset, length = asked[(set(asked) - set(pending)).pop()]
        check(answer.error == 0 and answer.data == lab.contents[offset:offset + length],
              f"wrong answer at {offset}+{length}")


def rule_lengths_and_offsets_at_their_edges(lab):
    """No command wraps around, reads beyond the disk, or costs the length that it names."""
    with lab.attacked(budget=128 * MIB, bystander=False) as server:
        for mode in MODES:
            contexts = CONTEXTS if mode else ()
            with ready(server, contexts=contexts, **mode) as connection:
                for length in (*MANY, *(MORE if connection.extended else ())):
                    for offset in (0, 1, DISK - 1, DISK, (1 << 64) - length, (1 << 64) - 1, 1 << 63):
                        offset &= (1 << 64) - 1
                        for command in (nbd.CMD_READ, nbd.CMD_CACHE, nbd.CMD_BLOCK_STATUS):
                            connection.send_request(command, offset, length)
                            answer = connection.answer(length, offset,
                                                       is_read=command == nbd.CMD_READ)
                            expect(answer.error, nbd.EINVAL, f"command {command} {offset}+{length}")
                        for command in (nbd.CMD_TRIM, nbd.CMD_WRITE_ZEROES):
                            expect(connection.command_error(command, offset, length), nbd.EPERM,
                                   f"command {command} {offset}+{length}")
                lab.check_read(connection, 777, 40000)


def rule_payloads_without_end_cost_nothing(lab):
    """Of writes, and of any command that says under extended headers that it has one."""
    with lab.attacked(budget=32 * MIB) as server, contextlib.ExitStack() as stack:
        for mode in MODES:
            extended = mode.get("extended", False)
            for length in (*MANY, *(MORE if extended else ())):
                for command in (nbd.CMD_WRITE, nbd.CMD_READ, 0x77) if extended else (nbd.CMD_WRITE,):
                    connection = stack.enter_context(ready(server, **mode))
                    connection.send_request(command, 0, length, payload=bytes(2 * MIB),
                                            flags=nbd.CMD_FLAG_PAYLOAD_LEN if extended else 0)
                    connection.expect_silence(0.05)


def rule_writes_between_reads_keep_everything_in_step(lab):
    """Pipelined, with payloads that look like requests, of lengths around the server's buffers."""
    with lab.attacked(bystander=False) as server:
        for mode in MODES:
            with ready(server, **mode) as connection:
                flags = nbd.CMD_FLAG_PAYLOAD_LEN if connection.extended else 0
                disc = connection.request_bytes(nbd.CMD_DISC)
                for size in (0, 1, 27, 28, 511, 16 * KIB - 28, 16 * KIB, 16 * KIB + 1, 100000):
                    payload = (disc * (size // 28 + 1))[:size]
                    write = connection.request_bytes(nbd.CMD_WRITE, 0, size, 9, flags, payload)
                    read = connection.request_bytes(nbd.CMD_READ, size, 300, 8)
                    connection.send((write + read) * 5)
                    errors, found = 0, 0
                    for _ in range(10):
                        first = connection.reply()
                        if first.cookie == 9:
                            errors += 1
                            error = (first.error if isinstance(first, nbd.Simple)
                                     else nbd.check_error_chunk(first))
                            expect(error, nbd.EPERM, "WRITE")
                        else:
                            found += 1
                            data = (connection.recv(300) if isinstance(first, nbd.Simple)
                                    else first.payload[8:])
                            check(data == lab.contents[size:size + 300], "wrong bytes")
                    expect((errors, found), (5, 5), f"answers between writes of {size}")


def rule_equal_cookies_of_different_requests_get_an_answer_each(lab):
    with lab.attacked(bystander=False) as server, ready(server) as connection:
        for cookie in (0, (1 << 64) - 1):
            request = connection.request_bytes
            connection.send(request(nbd.CMD_FLUSH, 0, 0, cookie) * 3 +
                            request(nbd.CMD_READ, 5, 100, cookie) * 50 +
                            request(nbd.CMD_READ, DISK, 1, cookie) * 7)
            got = {"flush": 0, "read": 0, "refused": 0}
            for number in range(60):
                error = connection.reply().error
                if error:
                    got["refused"] += 1
                elif number < 3:
                    got["flush"] += 1
                else:
                    check(connection.recv(100) == lab.contents[5:105], "wrong bytes")
                    got["read"] += 1
            expect(got, {"flush": 3, "read": 50, "refused": 7}, "answers")
