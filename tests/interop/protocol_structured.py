"""Rules of structured replies, block status and extended headers."""
import contextlib
import os

import nbd_client as nbd
from nbd_client import CHUNK_CONTENT
from protocol_rules import DISK_SIZE, HOLE_LENGTH, HOLE_OFFSET, MIB, check, expect

ALLOCATION = "base:allocation"
HOLE, ZERO = 1, 2
HUGE = 5 << 30  # more than a 32-bit extent can say


def chunked_modes(target, contexts=()):
    for mode in ({"structured": True}, {"extended": True}):
        with target.ready(contexts=contexts, **mode) as connection:
            yield connection


def content_chunks(answer):
    return [chunk for chunk in answer.chunks if chunk.kind in CHUNK_CONTENT]


def allocation(connection, offset, length, flags=0):
    """The extents of one BLOCK_STATUS."""
    answer = connection.command(nbd.CMD_BLOCK_STATUS, offset, length, flags=flags)
    expect(answer.error, 0, f"BLOCK_STATUS {offset}+{length}")
    expect(set(answer.status), set(connection.contexts.values()), "context ids")
    return answer.status[connection.contexts[ALLOCATION]]


@contextlib.contextmanager
def huge_sparse_disk(target):
    """A server with an empty disk of 5 GiB that ends in one byte of data."""
    path = os.path.join(target.folder, "huge.raw")
    with open(path, "wb") as out:
        out.truncate(HUGE)
        out.seek(HUGE - 1)
        out.write(b"\x01")
    try:
        with target.serve("-r", "-e", "9", "-f", "raw", path) as server:
            yield server
    finally:
        os.unlink(path)


def rule_read_chunks_cover_the_request_without_overlap(target):
    for connection in chunked_modes(target):
        for offset, length in ((0, 65536), (HOLE_OFFSET - 65536, HOLE_LENGTH + 131072),
                               (HOLE_OFFSET, HOLE_LENGTH), (HOLE_OFFSET - 1, 2), (0, 32 * MIB)):
            answer = target.check_read(connection, offset, length)  # assemble() checks the chunks
            check(len(answer.chunks) <= 1 + length // 4096 * 2 + 2, "too many chunks")


def rule_read_errors_are_chunks_under_structured_replies(target):
    for connection in chunked_modes(target):
        for offset, length, flags in ((DISK_SIZE, 1, 0), (0, 512, 0x8000), (0, 33 * MIB, 0)):
            answer = connection.read(offset, length, flags=flags)
            expect(answer.error, nbd.EINVAL, f"READ {offset}+{length} flags {flags}")
            check(not content_chunks(answer), "content in a refused read")
            check(answer.chunks, "a simple reply")
        target.check_usable(connection)


def rule_df_read_is_one_chunk_with_holes_as_data(target):
    for connection in chunked_modes(target):
        for offset, length in ((0, 512), (HOLE_OFFSET - 512, 1024), (HOLE_OFFSET - 30000, 65536),
                               (HOLE_OFFSET + HOLE_LENGTH - 1, 65536)):
            answer = target.check_read(connection, offset, length, flags=nbd.CMD_FLAG_DF)
            expect(len(content_chunks(answer)), 1, "content chunks")
        answer = target.check_read(connection, HOLE_OFFSET, 65536, flags=nbd.CMD_FLAG_DF)
        expect(len(content_chunks(answer)), 1, "content chunks of a hole")


def rule_df_read_of_32_mib_is_one_chunk(target):
    for connection in chunked_modes(target):
        answer = target.check_read(connection, 0, 32 * MIB, flags=nbd.CMD_FLAG_DF)
        expect(len(content_chunks(answer)), 1, "content chunks")


def rule_block_status_tells_the_hole_apart_from_data(target):
    for connection in chunked_modes(target, [ALLOCATION]):
        extents = allocation(connection, 0, 32 * MIB)
        expect(extents[:2], [(HOLE_OFFSET, 0), (HOLE_LENGTH, HOLE | ZERO)], "extents")


def rule_block_status_extents_fit_the_request_and_differ_from_their_neighbours(target):
    for connection in chunked_modes(target, [ALLOCATION]):
        for offset, length in ((0, DISK_SIZE), (1, 100), (HOLE_OFFSET - 1, 2), (777, 20 * MIB),
                               (DISK_SIZE - 1, 1), (HOLE_OFFSET, 512)):
            extents = allocation(connection, offset, length)
            sizes = [size for size, _ in extents]
            check(sum(sizes[:-1]) < length, "an extent begins behind the request")
            check(offset + sum(sizes) <= DISK_SIZE, "extents reach beyond the disk")
            for (_, flags), (_, following) in zip(extents, extents[1:]):
                check(flags != following, "equal neighbours are not merged")


def rule_block_status_with_req_one_is_one_extent_within_the_request(target):
    for connection in chunked_modes(target, [ALLOCATION]):
        for offset, length in ((0, 1000), (0, 32 * MIB), (HOLE_OFFSET - 1, 4096)):
            extents = allocation(connection, offset, length, nbd.CMD_FLAG_REQ_ONE)
            expect(len(extents), 1, "extents")
            check(extents[0][0] <= length, "longer than the request")


def rule_block_status_outside_the_disk_or_of_nothing_is_invalid(target):
    for connection in chunked_modes(target, [ALLOCATION]):
        for offset, length in ((DISK_SIZE, 1), (DISK_SIZE - 1, 2), ((1 << 64) - 1, 1),
                               ((1 << 64) - 512, 1024), (0, DISK_SIZE + 1)):
            error = connection.command_error(nbd.CMD_BLOCK_STATUS, offset, length)
            expect(error, nbd.EINVAL, f"BLOCK_STATUS {offset}+{length}")
        error = connection.command_error(nbd.CMD_BLOCK_STATUS, 0, 0)
        expect(error, nbd.EINVAL, "BLOCK_STATUS of nothing")
        target.check_usable(connection)


def rule_block_status_of_more_than_32_mib_works(target):
    for connection in chunked_modes(target, [ALLOCATION]):
        extents = allocation(connection, 0, DISK_SIZE)
        expect(sum(size for size, _ in extents), DISK_SIZE, "bytes covered")


def rule_compact_block_status_of_huge_extents_keeps_to_32_bits_and_sectors(target):
    with huge_sparse_disk(target) as server:
        with target.ready(structured=True, contexts=[ALLOCATION], server=server) as connection:
            offset = 0
            asked = 0
            while offset < HUGE:
                length = min(HUGE - offset, 0xFFFFFE00)
                extents = allocation(connection, offset, length)
                for size, flags in extents:
                    check(offset + size == HUGE or size % 512 == 0, f"extent of {size} bytes")
                    if offset + size <= HUGE - 65536:
                        expect(flags, HOLE | ZERO, f"status at {offset}")
                    offset += size
                asked += 1
                check(asked < 20, "huge holes come in small pieces")
            expect(offset, HUGE, "bytes covered")


def rule_extended_block_status_says_64_bit_lengths(target):
    with huge_sparse_disk(target) as server:
        with target.ready(extended=True, contexts=[ALLOCATION], server=server) as connection:
            extents = allocation(connection, 0, HUGE)
            check(extents[0][0] > 0xFFFFFFFF, f"first extent {extents[0]}")
            expect(extents[0][1], HOLE | ZERO, "its status")
            expect(sum(size for size, _ in extents), HUGE, "bytes covered")


def rule_extended_reads_of_4_gib_and_more_are_invalid(target):
    with huge_sparse_disk(target) as server:
        with target.ready(extended=True, server=server) as connection:
            for length in (1 << 32, (1 << 32) + 512, HUGE, (1 << 64) - 1):
                connection.send_request(nbd.CMD_READ, 0, length)
                expect(connection.answer().error, nbd.EINVAL, f"READ of {length}")
            answer = connection.read(HUGE - 512, 512)
            expect(answer.data, bytes(511) + b"\x01", "the last sector")


def rule_extended_cache_and_trim_take_64_bit_lengths(target):
    with huge_sparse_disk(target) as server:
        with target.ready(extended=True, server=server) as connection:
            expect(connection.command_error(nbd.CMD_CACHE, 0, HUGE), 0, "CACHE")
            expect(connection.command_error(nbd.CMD_TRIM, 0, HUGE), nbd.EPERM, "TRIM")
            expect(connection.command_error(nbd.CMD_WRITE_ZEROES, 0, HUGE), nbd.EPERM, "ZEROES")


def rule_extended_payload_on_commands_without_one_is_skipped(target):
    with target.ready(extended=True) as connection:
        for command in (nbd.CMD_READ, nbd.CMD_FLUSH, nbd.CMD_TRIM, nbd.CMD_CACHE,
                        nbd.CMD_WRITE_ZEROES, nbd.CMD_RESIZE, 77):
            error = connection.command_error(command, 0, 4096, flags=nbd.CMD_FLAG_PAYLOAD_LEN,
                                             payload=b"\x21" * 4096)
            expect(error, nbd.EINVAL, f"command {command}")
            target.check_usable(connection)


def rule_extended_block_status_with_an_unoffered_payload_is_invalid(target):
    with target.ready(extended=True, contexts=[ALLOCATION]) as connection:
        expect(connection.export.flags & nbd.BLOCK_STATUS_PAYLOAD, 0, "the offer")
        error = connection.command_error(nbd.CMD_BLOCK_STATUS, 0, 12, payload=bytes(12),
                                         flags=nbd.CMD_FLAG_PAYLOAD_LEN)
        expect(error, nbd.EINVAL, "BLOCK_STATUS with a payload")
        target.check_usable(connection)


def rule_extended_write_has_its_payload_skipped_also_without_the_payload_flag(target):
    # The specification demands the flag; qemu-nbd takes a client that forgets it, as this does.
    with target.ready(extended=True) as connection:
        error = connection.command_error(nbd.CMD_WRITE, 0, 4096, payload=bytes(4096))
        expect(error, nbd.EPERM, "WRITE without the payload flag")
        target.check_usable(connection)
