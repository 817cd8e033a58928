"""Rules of the handshake: greeting, client flags, options, names, INFO and GO."""
import struct
import time

import nbd_client as nbd
from nbd_client import FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES
from protocol_rules import DISK_SIZE, MIB, READ_ONLY_FLAGS, check, expect, may_be_closed

UNKNOWN_OPTION = 0x7FFF
LARGEST_OPTION = 32 * MIB


def rule_greeting_is_fixed_newstyle_and_nothing_else(target):
    with target.connect() as connection:
        flags = connection.greeting(client_flags=None)
        expect(flags, FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES, "handshake flags")
        connection.expect_silence()


def rule_unknown_client_flag_disconnects(target):
    for flag in (4, 0x80, 1 << 31):
        with target.connect() as connection:
            with may_be_closed():
                connection.greeting(client_flags=FLAG_FIXED_NEWSTYLE | flag)
                connection.send_option(nbd.OPT_LIST)
            connection.expect_closed()


def rule_client_without_fixed_newstyle_may_use_export_name(target):
    for flags in (0, FLAG_NO_ZEROES):
        with target.connect() as connection:
            connection.greeting(client_flags=flags)
            connection.send_option(nbd.OPT_EXPORT_NAME)
            expect(connection.unpack(">QH"), (DISK_SIZE, READ_ONLY_FLAGS), "size and flags")
            if not flags & FLAG_NO_ZEROES:
                expect(connection.recv(124), bytes(124), "padding")
            target.check_usable(connection)


def rule_other_options_without_fixed_newstyle_disconnect(target):
    with target.connect() as connection:
        connection.greeting(client_flags=0)
        connection.send_option(nbd.OPT_GO, nbd.name_option(""))
        connection.expect_closed()


def rule_export_name_reply_has_124_zeroes_unless_waived(target):
    with target.connect() as connection:
        connection.greeting(client_flags=FLAG_FIXED_NEWSTYLE)
        connection.send_option(nbd.OPT_EXPORT_NAME)
        expect(connection.unpack(">QH"), (DISK_SIZE, READ_ONLY_FLAGS), "size and flags")
        expect(connection.recv(124), bytes(124), "padding")
        target.check_usable(connection)
    with target.negotiating() as connection:
        connection.send_option(nbd.OPT_EXPORT_NAME)
        expect(connection.unpack(">QH"), (DISK_SIZE, READ_ONLY_FLAGS), "size and flags")
        target.check_usable(connection)


def rule_export_name_of_an_unknown_export_disconnects(target):
    for name in (b"no such export", b"x" * 4096, b"x" * 4097, b"\xff\xfe"):
        with target.negotiating() as connection:
            connection.send_option(nbd.OPT_EXPORT_NAME, name)
            connection.expect_closed()


def rule_export_name_is_refused_under_extended_headers(target):
    with target.negotiating() as connection:
        connection.negotiate_extended()
        connection.send_option(nbd.OPT_EXPORT_NAME)
        connection.expect_closed()


def rule_abort_is_acknowledged_then_closed(target):
    for data in (b"", b"ignored"):
        with target.negotiating() as connection:
            expect(connection.option_result(nbd.OPT_ABORT, data), nbd.REP_ACK, "reply to ABORT")
            connection.expect_closed()


def rule_abort_of_a_client_that_has_gone_is_tolerated(target):
    for _ in range(20):
        with target.negotiating() as connection:
            connection.send_option(nbd.OPT_ABORT)


def rule_list_names_every_export_then_acknowledges(target):
    with target.negotiating() as connection:
        replies = connection.option(nbd.OPT_LIST)
        expect([reply.kind for reply in replies], [nbd.REP_SERVER, nbd.REP_ACK], "kinds")
        length = struct.unpack(">I", replies[0].data[:4])[0]
        expect(replies[0].data[4:4 + length], b"", "name of the default export")
    with target.serve("-r", "-e", "9", "-x", "a/b c", "-f", "raw", target.image) as server:
        with nbd.Connection(server.socket) as connection:
            connection.greeting()
            replies = connection.option(nbd.OPT_LIST)
            length = struct.unpack(">I", replies[0].data[:4])[0]
            expect(replies[0].data[4:4 + length], b"a/b c", "name")


def rule_list_with_data_is_invalid(target):
    with target.negotiating() as connection:
        expect(connection.option_result(nbd.OPT_LIST, b"data"), nbd.ERR_INVALID, "LIST with data")
        expect(connection.option_result(nbd.OPT_LIST), nbd.REP_ACK, "LIST after it")


def rule_export_names_may_hold_slashes_and_spaces(target):
    with target.serve("-r", "-e", "9", "-x", "a/b c", "-f", "raw", target.image) as server:
        with target.ready(server=server, name="a/b c") as connection:
            target.check_usable(connection)
        with nbd.Connection(server.socket) as connection:
            connection.greeting()
            expect(connection.info(nbd.OPT_INFO, "a/b"), nbd.ERR_UNKNOWN, "part of the name")


def rule_unknown_and_withdrawn_options_are_unsupported_and_skipped(target):
    with target.negotiating() as connection:
        for option in (nbd.OPT_PEEK, 12, UNKNOWN_OPTION, 0, 0xFFFFFFFF):
            for data in (b"", b"x", b"y" * 5000):
                expect(connection.option_result(option, data), nbd.ERR_UNSUP, f"option {option}")
        connection.go()
        target.check_usable(connection)


def rule_starttls_is_against_the_policy_and_leaves_the_connection(target):
    with target.negotiating() as connection:
        expect(connection.option_result(nbd.OPT_STARTTLS), nbd.ERR_POLICY, "STARTTLS")
        expect(connection.option_result(nbd.OPT_STARTTLS, b"data"), nbd.ERR_POLICY, "with data")
        connection.go()
        target.check_usable(connection)


def rule_names_of_4096_bytes_work_and_4097_are_invalid(target):
    with target.negotiating() as connection:
        for option in (nbd.OPT_INFO, nbd.OPT_GO):
            expect(connection.info(option, "n" * 4096), nbd.ERR_UNKNOWN, "4096 bytes")
            expect(connection.info(option, "n" * 4097), nbd.ERR_INVALID, "4097 bytes")
        connection.go()
        target.check_usable(connection)


def rule_names_that_are_no_text_are_refused(target):
    with target.negotiating() as connection:
        for name, wanted in ((b"\xff\xfe", nbd.ERR_UNKNOWN), (b"\xc0\x80", nbd.ERR_UNKNOWN),
                             (b"a\0b", nbd.ERR_INVALID), (b"\0", nbd.ERR_INVALID)):
            expect(connection.info(nbd.OPT_INFO, name), wanted, f"name {name!r}")
        connection.go()


def rule_info_and_go_of_an_unknown_export_say_unknown_without_information(target):
    with target.negotiating() as connection:
        for option in (nbd.OPT_INFO, nbd.OPT_GO):
            expect(connection.info(option, "nope", [nbd.INFO_BLOCK_SIZE]), nbd.ERR_UNKNOWN, "name")


def rule_info_with_wrong_lengths_is_invalid(target):
    wrong = [
        b"", b"\0", bytes(5),  # too short for a name length and a count
        struct.pack(">IH", 1, 0),  # the name leaves no room for the count
        struct.pack(">IH", 0xFFFFFFFF, 0), struct.pack(">IH", 0x7FFFFFFF, 0),
        struct.pack(">IH", 0, 1),  # one information request stated, none there
        struct.pack(">IHH", 0, 2, 0),
        struct.pack(">IHH", 0, 0, 0),  # two bytes too many
        struct.pack(">IHHB", 0, 1, 0, 0),
        struct.pack(">IH", 0, 0xFFFF),
    ]
    with target.negotiating() as connection:
        for option in (nbd.OPT_INFO, nbd.OPT_GO):
            for data in wrong:
                expect(connection.option_result(option, data), nbd.ERR_INVALID, f"data {data!r}")
        connection.go()
        target.check_usable(connection)


def rule_info_then_go_give_the_same_and_no_padding(target):
    asked = [nbd.INFO_NAME, nbd.INFO_BLOCK_SIZE, nbd.INFO_DESCRIPTION, 0xABCD]
    with target.negotiating() as connection:
        first = connection.info(nbd.OPT_INFO, "", asked)
        expect(connection.go("", asked), first, "GO after INFO")
        expect((first.size, first.flags), (DISK_SIZE, READ_ONLY_FLAGS), "size and flags")
        check(0xABCD not in first.infos, "unknown information is answered")
        target.check_usable(connection)


def rule_block_size_is_told_when_asked(target):
    with target.negotiating() as connection:
        export = connection.info(nbd.OPT_INFO, "", [nbd.INFO_BLOCK_SIZE])
        data = export.infos.get(nbd.INFO_BLOCK_SIZE, b"")
        check(len(data) == 12, "BLOCK_SIZE is missing or not 14 bytes long")
        expect(struct.unpack(">III", data), (1, 4096, 32 * MIB), "minimum, preferred, maximum")


def rule_name_is_told_when_asked(target):
    with target.negotiating() as connection:
        export = connection.info(nbd.OPT_INFO, "", [nbd.INFO_NAME])
        expect(export.infos.get(nbd.INFO_NAME, b""), b"", "name")


def rule_repeated_information_requests_are_harmless(target):
    with target.negotiating() as connection:
        connection.send_option(nbd.OPT_GO, nbd.name_option("", [nbd.INFO_BLOCK_SIZE] * 50))
        kinds = [reply.data[:2] for reply in connection.replies_to(nbd.OPT_GO)[:-1]]
        expect(sorted(kinds), [struct.pack(">H", kind) for kind in (nbd.INFO_EXPORT,
                                                                    nbd.INFO_BLOCK_SIZE)], "kinds")


def rule_structured_reply_with_data_is_invalid_and_twice_is_harmless(target):
    with target.negotiating() as connection:
        expect(connection.option_result(nbd.OPT_STRUCTURED_REPLY, b"x"), nbd.ERR_INVALID, "data")
        connection.negotiate_structured()
        expect(connection.option_result(nbd.OPT_STRUCTURED_REPLY), nbd.REP_ACK, "second time")
        expect(connection.go().flags, READ_ONLY_FLAGS | nbd.SEND_DF, "flags")
        target.check_usable(connection)


def rule_structured_reply_with_data_leaves_replies_simple(target):
    with target.negotiating() as connection:
        expect(connection.option_result(nbd.OPT_STRUCTURED_REPLY, b"x"), nbd.ERR_INVALID, "data")
        connection.go()
        target.check_usable(connection)


def rule_extended_headers_with_data_are_invalid(target):
    with target.negotiating() as connection:
        expect(connection.option_result(nbd.OPT_EXTENDED_HEADERS, b"x"), nbd.ERR_INVALID, "data")
        connection.go()
        target.check_usable(connection)


def rule_extended_headers_twice_or_structured_after_them_are_invalid(target):
    with target.negotiating() as connection:
        connection.negotiate_extended()
        for option in (nbd.OPT_EXTENDED_HEADERS, nbd.OPT_STRUCTURED_REPLY):
            expect(connection.option_result(option), nbd.ERR_INVALID, f"option {option}")
        connection.go()
        target.check_usable(connection)


def rule_transmission_flags_are_those_of_a_read_only_disk(target):
    with target.ready() as connection:
        expect(connection.export.flags, READ_ONLY_FLAGS, "flags with simple replies")
    with target.ready(structured=True) as connection:
        expect(connection.export.flags, READ_ONLY_FLAGS | nbd.SEND_DF, "flags with structured")
    with target.ready(extended=True) as connection:
        expect(connection.export.flags, READ_ONLY_FLAGS | nbd.SEND_DF, "flags with extended headers")


def rule_wrong_option_magic_disconnects(target):
    with target.negotiating() as connection:
        connection.send(struct.pack(">QII", nbd.IHAVEOPT + 1, nbd.OPT_LIST, 0))
        connection.expect_closed()


def rule_options_above_64_kib_are_consumed_and_too_big(target):
    with target.negotiating() as connection:
        for size in (65537, MIB, LARGEST_OPTION):
            for option in (UNKNOWN_OPTION, nbd.OPT_GO):
                kind = connection.option_result(option, b"\x49" * size)
                expect(kind, nbd.ERR_TOO_BIG, f"option {option} of {size} bytes")
        connection.go()
        target.check_usable(connection)


def rule_options_above_32_mib_disconnect(target):
    for size in (LARGEST_OPTION + 1, 0x80000000, 0xFFFFFFFF):
        with target.negotiating() as connection:
            connection.send_option(UNKNOWN_OPTION, b"", length=size)
            connection.expect_closed()


def rule_options_may_come_in_single_bytes(target):
    with target.connect() as connection:
        connection.greeting(client_flags=None)
        whole = struct.pack(">I", 3)
        whole += struct.pack(">QII", nbd.IHAVEOPT, UNKNOWN_OPTION, 3) + b"abc"
        data = nbd.name_option("", [nbd.INFO_BLOCK_SIZE])
        whole += struct.pack(">QII", nbd.IHAVEOPT, nbd.OPT_GO, len(data)) + data
        for at in range(len(whole)):
            connection.send(whole[at:at + 1])
            time.sleep(0.002)
        expect(connection.replies_to(UNKNOWN_OPTION)[-1].kind, nbd.ERR_UNSUP, "unknown option")
        expect(connection.replies_to(nbd.OPT_GO)[-1].kind, nbd.REP_ACK, "GO")
        target.check_usable(connection)


def rule_options_may_come_all_at_once_with_the_first_request(target):
    with target.connect() as connection:
        connection.greeting(client_flags=None)
        whole = struct.pack(">I", 3)
        for _ in range(20):
            whole += struct.pack(">QII", nbd.IHAVEOPT, nbd.OPT_LIST, 0)
        data = nbd.name_option("")
        whole += struct.pack(">QII", nbd.IHAVEOPT, nbd.OPT_GO, len(data)) + data
        whole += connection.request_bytes(nbd.CMD_READ, 512, 1024, cookie=7)
        connection.send(whole)
        for _ in range(20):
            expect(connection.replies_to(nbd.OPT_LIST)[-1].kind, nbd.REP_ACK, "LIST")
        expect(connection.replies_to(nbd.OPT_GO)[-1].kind, nbd.REP_ACK, "GO")
        answer = connection.answer(1024, 512, 7, is_read=True)
        check(answer.data == target.contents[512:1536], "wrong bytes")


def rule_client_that_leaves_anywhere_in_the_handshake_harms_nobody(target):
    data = nbd.name_option("", [nbd.INFO_BLOCK_SIZE])
    whole = struct.pack(">I", 3) + struct.pack(">QII", nbd.IHAVEOPT, nbd.OPT_LIST, 0)
    whole += struct.pack(">QII", nbd.IHAVEOPT, nbd.OPT_GO, len(data)) + data
    for cut in range(len(whole) + 1):
        with target.connect() as connection:
            connection.send(whole[:cut])
