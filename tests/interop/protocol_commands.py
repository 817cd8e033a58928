"""Rules of the commands under simple replies; those of structured replies stand beside them."""
import struct

import nbd_client as nbd
from protocol_rules import DISK_SIZE, HOLE_OFFSET, MIB, check, expect

LARGEST_REQUEST = 32 * MIB
ALL_FLAGS = (nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_DF | nbd.CMD_FLAG_REQ_ONE |
             nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_PAYLOAD_LEN)
OUTSIDE = [(DISK_SIZE, 1), (DISK_SIZE - 1, 2), (DISK_SIZE + 1, 1), (0, DISK_SIZE + 1),
           (1 << 63, 512), ((1 << 64) - 1, 1), ((1 << 64) - 512, 512), ((1 << 64) - 512, 1024),
           ((1 << 64) - 1, 0xFFFFFFFF)]


def in_every_mode(target):
    """A ready connection with simple replies, with structured ones, with extended headers."""
    for mode in ({}, {"structured": True}, {"extended": True}):
        with target.ready(**mode) as connection:
            yield connection


def rule_reads_need_no_alignment(target):
    for connection in in_every_mode(target):
        for offset, length in [(0, 1), (1, 1), (511, 2), (513, 4097), (65535, 131073),
                               (HOLE_OFFSET - 1, 3), (HOLE_OFFSET + 1, 65537)]:
            target.check_read(connection, offset, length)


def rule_reads_up_to_the_last_byte_work(target):
    for connection in in_every_mode(target):
        for length in (1, 511, 512, 513, 70000):
            target.check_read(connection, DISK_SIZE - length, length)


def rule_reads_outside_the_disk_are_invalid(target):
    for connection in in_every_mode(target):
        for offset, length in OUTSIDE:
            expect(connection.read(offset, length).error, nbd.EINVAL, f"READ {offset}+{length}")
            target.check_usable(connection)


def rule_reads_of_nothing_succeed(target):
    for connection in in_every_mode(target):
        for offset in (0, 777, DISK_SIZE):
            expect(connection.read(offset, 0).error, 0, f"READ {offset}+0")
        target.check_usable(connection)


def rule_reads_of_32_mib_work(target):
    for connection in in_every_mode(target):
        target.check_read(connection, 4095, LARGEST_REQUEST)


def rule_reads_above_32_mib_are_invalid_and_leave_the_connection(target):
    for connection in in_every_mode(target):
        for length in (LARGEST_REQUEST + 1, DISK_SIZE):
            expect(connection.read(0, length).error, nbd.EINVAL, f"READ of {length}")
            target.check_usable(connection)


def rule_fua_is_accepted_on_every_command(target):
    for connection in in_every_mode(target):
        target.check_read(connection, 4096, 8192, flags=nbd.CMD_FLAG_FUA)
        for command, length in ((nbd.CMD_FLUSH, 0), (nbd.CMD_CACHE, 4096)):
            expect(connection.command_error(command, 0, length, flags=nbd.CMD_FLAG_FUA), 0,
                   f"command {command}")


def rule_unknown_flags_are_invalid_on_every_command(target):
    for connection in in_every_mode(target):
        for flag in (0x40, 0x100, 0x8000):
            for command in (nbd.CMD_READ, nbd.CMD_FLUSH, nbd.CMD_CACHE, nbd.CMD_BLOCK_STATUS):
                connection.send_request(command, 0, 4096, flags=flag)
                answer = connection.answer(4096, 0, is_read=command == nbd.CMD_READ)
                expect(answer.error, nbd.EINVAL, f"command {command} flag {flag:#x}")
        target.check_usable(connection)


def rule_unknown_flags_outside_the_disk_are_invalid(target):
    for connection in in_every_mode(target):
        for offset, length in OUTSIDE:
            expect(connection.read(offset, length, flags=0x8000 | nbd.CMD_FLAG_FUA).error,
                   nbd.EINVAL, f"READ {offset}+{length}")
        target.check_usable(connection)


def rule_df_without_structured_replies_is_invalid(target):
    with target.ready() as connection:
        expect(connection.read(0, 512, flags=nbd.CMD_FLAG_DF).error, nbd.EINVAL, "READ+DF")
        target.check_usable(connection)


def rule_writes_are_not_permitted_and_their_payload_is_skipped(target):
    for connection in in_every_mode(target):
        flags = nbd.CMD_FLAG_PAYLOAD_LEN if connection.extended else 0
        for size in (1, 512, 100000, LARGEST_REQUEST, LARGEST_REQUEST + 1):
            # A payload that would look like requests to a server that does not skip it.
            payload = (connection.request_bytes(nbd.CMD_DISC) * (size // 28 + 1))[:size]
            for more in (0, nbd.CMD_FLAG_FUA):
                error = connection.command_error(nbd.CMD_WRITE, 0, size, flags=flags | more,
                                                 payload=payload)
                expect(error, nbd.EPERM, f"WRITE of {size}")
            target.check_usable(connection)


def rule_wrong_writes_have_their_payload_skipped_too(target):
    for connection in in_every_mode(target):
        payload_flag = nbd.CMD_FLAG_PAYLOAD_LEN if connection.extended else 0
        for offset, flags in ((DISK_SIZE, 0), ((1 << 64) - 1, 0), (0, 0x4000),
                              (0, nbd.CMD_FLAG_DF)):
            error = connection.command_error(nbd.CMD_WRITE, offset, 4096, payload=bytes(4096),
                                             flags=flags | payload_flag)
            expect(error, nbd.EPERM, f"WRITE at {offset}")
            target.check_usable(connection)


def rule_write_is_not_answered_before_its_whole_payload_has_come(target):
    with target.ready() as connection:
        connection.send_request(nbd.CMD_WRITE, 0, 0xFFFFFFFF, payload=bytes(4096))
        connection.expect_silence()


def rule_trim_and_write_zeroes_are_not_permitted(target):
    for connection in in_every_mode(target):
        for command in (nbd.CMD_TRIM, nbd.CMD_WRITE_ZEROES):
            for flags in (0, nbd.CMD_FLAG_FUA):
                error = connection.command_error(command, 0, 4096, flags=flags)
                expect(error, nbd.EPERM, f"command {command}")
        for flags in (nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FAST_ZERO):
            error = connection.command_error(nbd.CMD_WRITE_ZEROES, 0, 4096, flags=flags)
            expect(error, nbd.EPERM, f"WRITE_ZEROES flag {flags}")
        target.check_usable(connection)


def rule_flush_succeeds_even_with_reserved_fields_set(target):
    for connection in in_every_mode(target):
        expect(connection.command_error(nbd.CMD_FLUSH), 0, "FLUSH")
        expect(connection.command_error(nbd.CMD_FLUSH, 4096, 512), 0, "FLUSH with a range")
        expect(connection.command_error(nbd.CMD_FLUSH, 1 << 63, 0), 0, "FLUSH with an offset")


def rule_cache_succeeds_inside_the_disk_and_changes_nothing(target):
    for connection in in_every_mode(target):
        for offset, length in ((0, 65536), (777, 1001), (DISK_SIZE - 1, 1), (HOLE_OFFSET, MIB)):
            expect(connection.command_error(nbd.CMD_CACHE, offset, length), 0, f"{offset}")
            target.check_read(connection, offset, length)


def rule_cache_outside_the_disk_is_invalid(target):
    for connection in in_every_mode(target):
        for offset, length in OUTSIDE:
            expect(connection.command_error(nbd.CMD_CACHE, offset, length), nbd.EINVAL,
                   f"CACHE {offset}+{length}")
        target.check_usable(connection)


def rule_cache_of_the_whole_disk_and_of_nothing_succeeds(target):
    for connection in in_every_mode(target):
        expect(connection.command_error(nbd.CMD_CACHE, 0, DISK_SIZE), 0, "CACHE of the whole disk")
        expect(connection.command_error(nbd.CMD_CACHE, 5, 0), 0, "CACHE of nothing")
        target.check_usable(connection)


def rule_block_status_without_a_context_is_invalid(target):
    for connection in in_every_mode(target):
        expect(connection.command_error(nbd.CMD_BLOCK_STATUS, 0, 4096), nbd.EINVAL, "BLOCK_STATUS")
        target.check_usable(connection)


def rule_unknown_commands_are_invalid(target):
    for connection in in_every_mode(target):
        for command in (nbd.CMD_RESIZE, 9, 255, 0x1234, 0xFFFF):
            expect(connection.command_error(command, 0, 512), nbd.EINVAL, f"command {command}")
            target.check_usable(connection)


def rule_commands_with_all_flags_are_invalid(target):
    for connection in in_every_mode(target):
        if connection.extended:
            continue  # PAYLOAD_LEN means a payload there: extended headers have their own rules
        for command in range(12):
            if command in (nbd.CMD_DISC, nbd.CMD_WRITE):
                continue
            connection.send_request(command, 0, 512, flags=ALL_FLAGS)
            answer = connection.answer(512, 0, is_read=command == nbd.CMD_READ)
            expect(answer.error, nbd.EINVAL, f"command {command}")
        target.check_usable(connection)


def rule_wrong_request_magic_disconnects(target):
    for connection in in_every_mode(target):
        request = connection.request_bytes(nbd.CMD_READ, 0, 512)
        connection.send(b"\xff" + request[1:])
        connection.expect_closed()
    for mode in ({}, {"extended": True}):
        with target.ready(**mode) as connection:
            connection.extended = not connection.extended
            connection.send_request(nbd.CMD_READ, 0, 512)
            connection.expect_closed()


def rule_cookies_are_echoed_as_they_are(target):
    for connection in in_every_mode(target):
        for cookie in (0, 1, 0x25609513, (1 << 64) - 1, 0x8000000000000000, 0x0102030405060708):
            target.check_read(connection, 4096, 512, cookie=cookie)
            expect(connection.read(DISK_SIZE, 1, cookie=cookie).error, nbd.EINVAL, "error")


def rule_equal_cookies_in_flight_are_no_concern_of_the_server(target):
    for connection in in_every_mode(target):
        connection.send(connection.request_bytes(nbd.CMD_READ, 4096, 512, cookie=5) * 10)
        for _ in range(10):
            answer = connection.answer(512, 4096, 5, is_read=True)
            check(answer.data == target.contents[4096:4608], "wrong bytes")


def rule_requests_may_come_in_single_bytes(target):
    for connection in in_every_mode(target):
        request = connection.request_bytes(nbd.CMD_READ, 777, 1000, cookie=9)
        for at in range(len(request)):
            connection.send(request[at:at + 1])
        check(connection.answer(1000, 777, 9, is_read=True).data == target.contents[777:1777],
              "wrong bytes")


def rule_disc_answers_what_is_outstanding_then_closes(target):
    for connection in in_every_mode(target):
        pending = {cookie: (cookie * 4096, 65536) for cookie in range(1, 65)}
        whole = b"".join(connection.request_bytes(nbd.CMD_READ, offset, length, cookie)
                         for cookie, (offset, length) in pending.items())
        connection.send(whole + connection.request_bytes(nbd.CMD_DISC, cookie=99))
        while pending:
            before = dict(pending)
            answer = connection.answer(any_cookie=pending)
            cookie = (set(before) - set(pending)).pop()
            expect(answer.error, 0, "error")
            check(answer.data == target.contents[cookie * 4096:cookie * 4096 + 65536], "bytes")
        connection.expect_closed()


def rule_nothing_after_disc_is_answered(target):
    with target.ready() as connection:
        connection.send(connection.request_bytes(nbd.CMD_DISC) +
                        connection.request_bytes(nbd.CMD_READ, 0, 512))
        connection.expect_closed()


def rule_simple_replies_to_commands_are_16_bytes(target):
    with target.ready() as connection:
        connection.send_request(nbd.CMD_FLUSH, cookie=3)
        magic, error, cookie = struct.unpack(">IIQ", connection.recv(16))
        expect((magic, error, cookie), (nbd.SIMPLE_REPLY_MAGIC, 0, 3), "reply")
        connection.expect_silence()
