"""Rules of LIST_META_CONTEXT and SET_META_CONTEXT, and what they mean for BLOCK_STATUS."""
import struct

import nbd_client as nbd
from protocol_rules import check, expect

ALLOCATION = "base:allocation"
DEPTH = "qemu:allocation-depth"


def contexts_of(replies):
    """[(id, name)] of the replies before the ACK."""
    return [(struct.unpack(">I", reply.data[:4])[0], reply.data[4:].decode())
            for reply in replies[:-1]]


def listed(connection, queries, name=""):
    replies = connection.option(nbd.OPT_LIST_META_CONTEXT, nbd.meta_option(name, queries))
    expect(replies[-1].kind, nbd.REP_ACK, f"LIST_META {queries}")
    return [context for _, context in contexts_of(replies)]


def structured(target):
    connection = target.negotiating()
    connection.negotiate_structured()
    return connection


def status_error(connection):
    return connection.command_error(nbd.CMD_BLOCK_STATUS, 0, 65536)


def rule_list_meta_without_queries_lists_all(target):
    with structured(target) as connection:
        expect(listed(connection, []), [ALLOCATION], "contexts")


def rule_list_meta_takes_the_base_wildcard_and_exact_names(target):
    with structured(target) as connection:
        expect(listed(connection, ["base:"]), [ALLOCATION], "base:")
        expect(listed(connection, [ALLOCATION]), [ALLOCATION], ALLOCATION)
        expect(listed(connection, ["base:", ALLOCATION]), [ALLOCATION], "both")


def rule_list_meta_ignores_unknown_contexts(target):
    with structured(target) as connection:
        for query in ("base:nothing", "base:allocatio", "base:allocation2", "xyz:", "xyz:abc",
                      "BASE:ALLOCATION"):
            expect(listed(connection, [query]), [], query)


def rule_list_meta_of_an_unknown_export_says_unknown(target):
    with structured(target) as connection:
        for option in (nbd.OPT_LIST_META_CONTEXT, nbd.OPT_SET_META_CONTEXT):
            kind = connection.option_result(option, nbd.meta_option("nope", [ALLOCATION]))
            expect(kind, nbd.ERR_UNKNOWN, f"option {option}")


def rule_meta_options_with_wrong_lengths_are_invalid(target):
    wrong = [
        b"", bytes(3), bytes(4), bytes(7),
        struct.pack(">II", 0xFFFFFFFF, 0), struct.pack(">II", 5, 0),
        struct.pack(">II", 0, 1), struct.pack(">III", 0, 1, 1), struct.pack(">II", 0, 0xFFFFFFFF),
        struct.pack(">III", 0, 1, 0xFFFFFFFF),
        struct.pack(">II", 0, 0) + b"more",
        nbd.meta_option("", [ALLOCATION]) + b"x",
        nbd.meta_option("", [ALLOCATION])[:-1],
        struct.pack(">II", 0, 2) + struct.pack(">I", 15) + ALLOCATION.encode(),
    ]
    with structured(target) as connection:
        for option in (nbd.OPT_LIST_META_CONTEXT, nbd.OPT_SET_META_CONTEXT):
            for data in wrong:
                expect(connection.option_result(option, data), nbd.ERR_INVALID, f"data {data!r}")
        connection.go()
        target.check_usable(connection)


def rule_meta_names_and_queries_of_4096_bytes_work_and_4097_are_invalid(target):
    with structured(target) as connection:
        for option in (nbd.OPT_LIST_META_CONTEXT, nbd.OPT_SET_META_CONTEXT):
            data = nbd.meta_option("n" * 4096, [ALLOCATION])
            expect(connection.option_result(option, data), nbd.ERR_UNKNOWN, "name of 4096")
            data = nbd.meta_option("n" * 4097, [ALLOCATION])
            expect(connection.option_result(option, data), nbd.ERR_INVALID, "name of 4097")
            data = nbd.meta_option("", ["x:" + "q" * 4094])
            expect(connection.option_result(option, data), nbd.REP_ACK, "query of 4096")
            data = nbd.meta_option("", ["x:" + "q" * 4095])
            expect(connection.option_result(option, data), nbd.ERR_INVALID, "query of 4097")


def rule_set_meta_before_structured_replies_is_invalid(target):
    with target.negotiating() as connection:
        expect(connection.set_contexts("", [ALLOCATION]), nbd.ERR_INVALID, "SET_META")
        connection.go()
        expect(status_error(connection), nbd.EINVAL, "BLOCK_STATUS")
        target.check_usable(connection)


def rule_set_meta_selects_and_block_status_uses_its_id(target):
    with structured(target) as connection:
        contexts = connection.set_contexts("", [ALLOCATION])
        expect(list(contexts), [ALLOCATION], "contexts")
        connection.go()
        answer = connection.command(nbd.CMD_BLOCK_STATUS, 0, 65536)
        expect(set(answer.status), set(contexts.values()), "context ids")


def rule_set_meta_query_given_twice_gives_one_id_once(target):
    with structured(target) as connection:
        expect(list(connection.set_contexts("", [ALLOCATION] * 3)), [ALLOCATION], "contexts")


def rule_set_meta_with_wildcard_or_nothing_or_unknown_selects_nothing(target):
    for queries in (["base:"], [], ["base:nothing"], ["xyz:abc", "xyz:"]):
        with structured(target) as connection:
            expect(connection.set_contexts("", queries), {}, f"SET_META {queries}")
            connection.go()
            expect(status_error(connection), nbd.EINVAL, f"BLOCK_STATUS after {queries}")
            target.check_usable(connection)


def rule_set_meta_query_without_a_namespace_selects_nothing(target):
    with structured(target) as connection:
        expect(connection.set_contexts("", ["allocation"]), {}, "no namespace")


def rule_failed_set_meta_clears_the_selection(target):
    failures = [(nbd.meta_option("", [])[:5], nbd.ERR_INVALID),
                (nbd.meta_option("nope", [ALLOCATION]), nbd.ERR_UNKNOWN),
                (nbd.meta_option("n" * 4097, []), nbd.ERR_INVALID)]
    for data, wanted in failures:
        with structured(target) as connection:
            expect(list(connection.set_contexts("", [ALLOCATION])), [ALLOCATION], "contexts")
            expect(connection.option_result(nbd.OPT_SET_META_CONTEXT, data), wanted, "SET_META")
            connection.go()
            expect(status_error(connection), nbd.EINVAL, "BLOCK_STATUS after the failure")
            target.check_usable(connection)


def rule_second_set_meta_replaces_the_first(target):
    with structured(target) as connection:
        connection.set_contexts("", [ALLOCATION])
        expect(connection.set_contexts("", []), {}, "the second SET_META")
        connection.go()
        expect(status_error(connection), nbd.EINVAL, "BLOCK_STATUS")
    with structured(target) as connection:
        connection.set_contexts("", [])
        connection.set_contexts("", [ALLOCATION])
        connection.go()
        expect(status_error(connection), 0, "BLOCK_STATUS")


def rule_list_meta_and_info_leave_the_selection(target):
    with structured(target) as connection:
        connection.set_contexts("", [ALLOCATION])
        listed(connection, ["xyz:"])
        connection.info(nbd.OPT_INFO)
        connection.go()
        expect(status_error(connection), 0, "BLOCK_STATUS")


def rule_allocation_depth_is_offered_with_its_option(target):
    with target.serve("-A", *target.default_args()) as server:
        with nbd.Connection(server.socket) as connection:
            connection.greeting()
            connection.negotiate_structured()
            expect(sorted(listed(connection, [])), [ALLOCATION, DEPTH], "all contexts")
            expect(listed(connection, ["qemu:"]), [DEPTH], "qemu:")
            contexts = connection.set_contexts("", [ALLOCATION, DEPTH])
            expect(sorted(contexts), [ALLOCATION, DEPTH], "selected")
            connection.go()
            answer = connection.command(nbd.CMD_BLOCK_STATUS, 0, 65536)
            expect(set(answer.status), set(contexts.values()), "one chunk for each context")
            expect(answer.status[contexts[DEPTH]][0][1], 1, "depth of a lone image")


def rule_allocation_depth_is_hidden_without_its_option(target):
    with structured(target) as connection:
        expect(listed(connection, ["qemu:"]), [], "qemu:")
        expect(connection.set_contexts("", [DEPTH]), {}, "SET_META")
