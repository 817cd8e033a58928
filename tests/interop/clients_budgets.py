"""Rules of what clients may use up, and of the page cache that they may fill."""
import contextlib
import ctypes
import itertools
import mmap
import os
import time

import nbd_client as nbd
from clients_lab import MIB, check_read, connect
from harness import wait_for
from protocol_rules import check, expect

HANDSHAKE_OPTIONS = 4096   # limits::kHandshakeOptions
REPLY_MEMORY = 256 * MIB   # limits::kReplyMemory
PATIENCE_SECONDS = 15      # limits::kUnreadTime and some
LARGEST_READ = 32 * MIB
OTHERS_READ = 8 * MIB


def rule_a_handshake_of_too_many_options_is_cut_off(lab):
    image, _ = lab.raw("disk.raw")
    with lab.serve("-e", "2", "-f", "raw", image) as server:
        with nbd.Connection(server.socket) as connection:
            connection.greeting()
            for _ in range(HANDSHAKE_OPTIONS):
                expect(connection.option_result(nbd.OPT_STRUCTURED_REPLY), nbd.REP_ACK, "option")
            connection.send_option(nbd.OPT_STRUCTURED_REPLY)
            connection.expect_closed()
        with connect(server) as connection:
            expect(connection.command_error(nbd.CMD_FLUSH), 0, "FLUSH of the next client")


class Pages:
    """Which pages of a file are in memory."""

    def __init__(self, path):
        self.file = open(path, "rb")
        self.size = os.fstat(self.file.fileno()).st_size
        # Private and writable only because ctypes wants a buffer that is.
        self.map = mmap.mmap(self.file.fileno(), self.size, flags=mmap.MAP_PRIVATE,
                             prot=mmap.PROT_READ | mmap.PROT_WRITE)
        self.libc = ctypes.CDLL(None, use_errno=True)

    def drop(self):
        os.fsync(self.file.fileno())
        os.posix_fadvise(self.file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def resident(self, offset, length):
        """How many of the pages of a range."""
        pages = (ctypes.c_ubyte * -(-self.size // mmap.PAGESIZE))()
        first_byte = ctypes.c_char.from_buffer(self.map)
        status = self.libc.mincore(ctypes.c_void_p(ctypes.addressof(first_byte)),
                                   ctypes.c_size_t(self.size), pages)
        check(status == 0, f"mincore: {os.strerror(ctypes.get_errno())}")
        part = pages[offset // mmap.PAGESIZE:(offset + length) // mmap.PAGESIZE]
        return sum(page & 1 for page in part)


def rule_cache_brings_what_it_names_into_memory_and_little_else(lab):
    image, contents = lab.raw("disk.raw", size=32 * MIB)
    pages = Pages(image)
    wanted = (20 * MIB, 2 * MIB)
    with lab.serve("-f", "raw", image) as server, connect(server) as connection:
        # An image on a file system that keeps everything in memory proves nothing.
        pages.drop()
        expect(pages.resident(0, 32 * MIB), 0, "pages in memory; is $TMPDIR on a disk?")
        expect(connection.command_error(nbd.CMD_CACHE, *wanted), 0, "CACHE")
        wait_for(lambda: pages.resident(*wanted) == 2 * MIB // mmap.PAGESIZE, 10, "prefetching")
        expect(pages.resident(0, 16 * MIB), 0, "pages far from it")
        check_read(connection, contents, *wanted)


def take_all_reply_memory(connect_hog):
    """Unread replies that leave a little less than OTHERS_READ, each its connection's only one: these
    clients never ask for more."""
    left = REPLY_MEMORY
    length = LARGEST_READ
    while length >= OTHERS_READ:
        while left > length:
            connect_hog().send_request(nbd.CMD_READ, 0, length)
            left -= length
        length //= 2


def check_others_are_served(lab, hog_threads, other_threads):
    """While clients on `hog_threads` (of two) read nothing, those on `other_threads` get answers."""
    image, contents = lab.compressed("disk.qcow2", size=LARGEST_READ)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(lab.serve("-e", "0", "--threads", "2", "-f", "qcow2", image))

        def connect_to_both():
            """Newcomers go to the threads in turn."""
            return [stack.enter_context(connect(server)) for _ in range(2)]

        pairs = [connect_to_both() for _ in range(4)]
        others = [pair[thread] for pair in pairs for thread in other_threads]
        threads = itertools.cycle(hog_threads)
        take_all_reply_memory(lambda: connect_to_both()[next(threads)])
        time.sleep(1)  # until the replies are made
        check(server.resident_bytes() > REPLY_MEMORY / 2, "most of the memory is not in use")
        deadline = time.monotonic() + PATIENCE_SECONDS
        for other in others:
            other.send_request(nbd.CMD_READ, 0, OTHERS_READ)
        for other in others:
            other.socket.settimeout(max(0.1, deadline - time.monotonic()))
            answer = other.answer(OTHERS_READ, 0, is_read=True)
            check(answer.error == 0 and answer.data == contents[:OTHERS_READ], "wrong answer")


def rule_unread_replies_delay_clients_for_seconds_only(lab):
    check_others_are_served(lab, hog_threads=[0, 1], other_threads=[0, 1])


def rule_unread_replies_delay_clients_of_another_thread_for_seconds_only(lab):
    check_others_are_served(lab, hog_threads=[0], other_threads=[1])
