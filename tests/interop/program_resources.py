"""Rules of memory, start time and several threads."""
import hashlib
import random
import struct
import subprocess
import time

import nbd_client as nbd
from program_rules import MIB, check, connect, expect, make_image, qemu_img

GIB, TIB = 1 << 30, 1 << 40
READS = 100_000
BATCH = 250
READ_BYTES = 512
START_SECONDS = 1
# Beside the caches, whose default sizes these are.
MEMORY = 64 * MIB + (32 + 64) * MIB

CLUSTER = 64 << 10
MARKED = 4096  # places with data, spread over the disk


def mark(number):
    """What stands at the n-th place with data."""
    return struct.pack(">Q", number + 1) * (READ_BYTES // 8)


def make_huge_qcow2(path):
    """64 TiB with an L2 table for every 512 MiB, all of them sparse. {offset: contents}"""
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"cluster_size={CLUSTER}", path, "64T")
    tables = 64 * TIB // (CLUSTER * CLUSTER // 8)
    rng = random.Random(64)
    places = {}
    with open(path, "r+b") as image:
        image.seek(40)
        l1_offset = struct.unpack(">Q", image.read(8))[0]
        first_table = (image.seek(0, 2) // CLUSTER + 1) * CLUSTER
        image.seek(l1_offset)
        image.write(b"".join(struct.pack(">Q", 1 << 63 | first_table + i * CLUSTER)
                             for i in range(tables)))
        data = first_table + tables * CLUSTER
        for number, table in enumerate(rng.sample(range(tables), MARKED)):
            entry = rng.randrange(CLUSTER // 8)
            image.seek(first_table + table * CLUSTER + entry * 8)
            image.write(struct.pack(">Q", 1 << 63 | data + number * CLUSTER))
            image.seek(data + number * CLUSTER)
            image.write(mark(number))
            places[(table * (CLUSTER // 8) + entry) * CLUSTER] = mark(number)
        image.truncate(data + MARKED * CLUSTER)
    return places


def make_huge_vhd(path):
    """A dynamic VHD of 2040 GiB with some blocks. {offset: contents}"""
    qemu_img("create", "-q", "-f", "vpc", "-o", "subformat=dynamic,force_size=on", path, "2040G")
    block = 2 * MIB
    rng = random.Random(2040)
    places = {}
    with open(path, "r+b") as image:
        image.seek(-512, 2)
        footer = image.read(512)
        image.seek(512 + 16)
        table_offset = struct.unpack(">Q", image.read(8))[0]
        at = image.seek(0, 2) - 512
        for number, entry in enumerate(rng.sample(range(2040 * GIB // block), MARKED)):
            image.seek(table_offset + entry * 4)
            image.write(struct.pack(">I", at // 512))
            image.seek(at)
            image.write(b"\xff" * 512 + mark(number))
            places[entry * block] = mark(number)
            at += 512 + block
        image.seek(at)
        image.write(footer)
    return places


def read_batch(connection, wanted):
    """Reads READ_BYTES at each offset of `wanted` at once; {offset: contents} as it must be."""
    connection.send(b"".join(
        connection.request_bytes(nbd.CMD_READ, offset, READ_BYTES, cookie)
        for cookie, offset in enumerate(wanted)))
    size = 16 + READ_BYTES
    answers = connection.recv(size * len(wanted))
    offsets = list(wanted)
    for at in range(0, len(answers), size):
        magic, error, cookie = struct.unpack_from(">IIQ", answers, at)
        check(magic == nbd.SIMPLE_REPLY_MAGIC and error == 0, f"error {error} of a read")
        expected = wanted[offsets[cookie]]
        check(answers[at + 16:at + size] == expected, f"wrong bytes at {offsets[cookie]}")


def check_huge_disk(lab, format_name, size, places):
    path = lab.path("huge")
    started = time.monotonic()
    with lab.serve("-f", format_name, path) as server:
        with connect(server) as connection:
            first = next(iter(places))
            expect(connection.read(first, READ_BYTES).data, places[first], "the first bytes")
            seconds = time.monotonic() - started
            check(seconds < START_SECONDS * lab.cost, f"{seconds:.1f} s to the first byte")
            expect(connection.export.size, size, "size")
            rng = random.Random(7)
            marked = list(places)
            zeros = bytes(READ_BYTES)
            for _ in range(READS // BATCH):
                wanted = {offset: places[offset] for offset in rng.sample(marked, BATCH // 2)}
                while len(wanted) < BATCH:
                    offset = rng.randrange(size // CLUSTER) * CLUSTER + 32768
                    wanted[offset] = zeros
                read_batch(connection, wanted)
            used = server.resident_bytes()
            check(used < MEMORY * lab.cost, f"{used // MIB} MiB resident")


def rule_a_huge_qcow2_starts_fast_and_costs_little_memory(lab):
    places = make_huge_qcow2(lab.path("huge"))
    check_huge_disk(lab, "qcow2", 64 * TIB, places)


def rule_a_huge_vhd_starts_fast_and_costs_little_memory(lab):
    places = make_huge_vhd(lab.path("huge"))
    check_huge_disk(lab, "vpc", 2040 * GIB, places)


def rule_clients_on_several_threads_all_get_their_exports(lab):
    kinds = ["raw", "qcow2", "vpc", "vmdk"]
    images = [make_image(lab, kinds[i % 4], ("-c",) if i == 1 else
                         ("-o", "force_size=on") if kinds[i % 4] == "vpc" else (), 16 * MIB, i)
              for i in range(8)]
    exports = [word for i, (path, _) in enumerate(images)
               for word in ("--export", f"disk{i}={path}")]
    with lab.serve("-e", "8", "--threads", "4", *exports) as server:
        copies = [subprocess.Popen(["nbdcopy", "--connections=1", server.named_uri(f"disk{i}"),
                                    lab.path(f"copy{i}")]) for i in range(8)]
        for i, copy in enumerate(copies):
            expect(copy.wait(60), 0, f"exit status of nbdcopy {i}")
            with open(lab.path(f"copy{i}"), "rb") as file:
                got = hashlib.sha256(file.read()).digest()
            expect(got == hashlib.sha256(images[i][1]).digest(), True, f"contents of disk{i}")
