#!/usr/bin/python3
"""An NBD export as a source: every byte and every hole of qemu-nbd's, nbdkit's and our own server,
whatever their block sizes; and no failure of a server becomes data, zeros or an endless wait.

usage: nbd_source_test.py UNDERLAY_NBD NBD_SOURCE_DUMP
"""
import os
import random
import struct
import subprocess
import sys
import tempfile
import time

import harness
import nbd_client as nbd
import nbd_servers
import tls_keys
from nbd_servers import chunk, misbehaving, nbdkit

KIB, MIB = 1 << 10, 1 << 20
ANSWER_MS = "20000"


def dump(*words):
    done = subprocess.run([DUMP, *map(str, words)], capture_output=True, timeout=60,
                          stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr.decode()


def read(uri, threads=4, unit=100_000, answer_ms=ANSWER_MS):
    return dump("read", uri, answer_ms, threads, unit)


def runs(uri, step=1 << 40):
    """[(offset, length, kind)], neighbours of a kind joined."""
    status, out, errors = dump("map", uri, ANSWER_MS, step)
    assert status == 0, errors
    joined = []
    for line in out.decode().splitlines():
        offset, length, kind = line.split()
        if joined and joined[-1][2] == kind:
            joined[-1][1] += int(length)
        else:
            joined.append([int(offset), int(length), kind])
    return [tuple(one) for one in joined]


def refused(result, *words):
    status, out, errors = result
    assert status == 1 and out == b"", (status, out[:80], errors)
    assert errors.count("\n") == 1, errors
    for word in words:
        assert word in errors, (word, errors)


def serve_qemu(*words):
    return harness.serve(list(words), program="qemu-nbd")


class Disk:
    """A sparse raw file: `size` bytes, data where `pieces` say."""

    def __init__(self, folder, size, pieces, name="disk.raw"):
        self.path = os.path.join(folder, name)
        content = bytearray(size)
        rng = random.Random(5)
        with open(self.path, "wb") as out:
            out.truncate(size)
            for offset, length in pieces:
                data = bytes(rng.randbytes(length))
                content[offset:offset + length] = data
                out.seek(offset)
                out.write(data)
        self.content = bytes(content)


def check_content(uri, disk, units=(100_000, 5_000_000, 4096)):
    for unit in units:
        status, out, errors = read(uri, unit=unit)
        assert status == 0, errors
        assert out == disk.content, f"other bytes, in units of {unit}"


def rule_every_server_gives_every_byte(folder):
    disk = Disk(folder, 12 * MIB, [(0, 70_000), (5 * MIB, MIB), (12 * MIB - 4096, 4096)])
    with serve_qemu("-r", "-f", "raw", disk.path) as server:
        check_content(server.uri, disk)
    # Further connections are taken.
    with serve_qemu("-r", "-e", "0", "-f", "raw", disk.path) as server:
        check_content(server.uri, disk)
    with harness.serve(["-r", "-e", "8", "-f", "raw", "-x", "a b/c", disk.path],
                       program=SERVER) as server:
        check_content(server.named_uri("a%20b%2Fc"), disk)
    with nbdkit("file", disk.path) as server:
        check_content(server.uri, disk)
    with nbdkit("--no-sr", "file", disk.path) as server:
        check_content(server.uri, disk)


def rule_tcp_works(folder):
    disk = Disk(folder, MIB, [(0, MIB)])
    port = harness.free_port()
    with harness.start(["qemu-nbd", "-t", "-r", "-f", "raw", "-b", "127.0.0.1", "-p", str(port),
                        disk.path], port):
        check_content(f"nbd://127.0.0.1:{port}/", disk)


def rule_a_server_that_takes_fewer_connections_than_it_said_is_read_all_the_same(folder):
    disk = Disk(folder, 4 * MIB, [(0, 4 * MIB)])
    with serve_qemu("-r", "-e", "2", "-f", "raw", disk.path) as server:
        status, out, errors = read(server.uri, threads=16, unit=4096)
    assert status == 0 and out == disk.content, errors


def rule_block_sizes_are_kept(folder):
    disk = Disk(folder, 3 * MIB, [(0, 3 * MIB)])
    for sizes in (["blocksize-minimum=4096", "blocksize-preferred=4096"],
                  ["blocksize-minimum=512", "blocksize-preferred=4096",
                   "blocksize-maximum=8192"]):
        with nbdkit("--filter=blocksize-policy", "file", disk.path, *sizes,
                    "blocksize-error-policy=error") as server:
            check_content(server.uri, disk, (100_000, 777_777, 4096))
            assert runs(server.uri, step=1000) == [(0, 3 * MIB, "data")]


def rule_holes_are_found(folder):
    disk = Disk(folder, 600 * MIB, [(64 * KIB, 64 * KIB), (300 * MIB, MIB)])
    expected = [(0, 64 * KIB, "hole"), (64 * KIB, 64 * KIB, "data"),
                (128 * KIB, 300 * MIB - 128 * KIB, "hole"), (300 * MIB, MIB, "data"),
                (301 * MIB, 299 * MIB, "hole")]
    servers = [serve_qemu("-r", "-f", "raw", disk.path), nbdkit("file", disk.path),
               harness.serve(["-r", "-f", "raw", disk.path], program=SERVER)]
    for one in servers:
        with one as server:
            for step in (1 << 40, 100_000):
                assert runs(server.uri, step) == expected, runs(server.uri, step)
    with nbdkit("--no-sr", "file", disk.path) as server:
        assert runs(server.uri) == [(0, 600 * MIB, "data")]


def extents_script(lines):
    """For nbdkit's eval plugin: what it says of every range."""
    return "extents=" + "".join(f"echo {line}; " for line in lines)


def rule_only_zeros_are_holes(_):
    """NBD protocol, base:allocation: HOLE alone says nothing of the content."""
    lines = ["0 1M hole", "1M 1M zero", "2M 1M hole,zero", "3M 1M"]
    with nbdkit("eval", "get_size=echo 4M", "pread=dd if=/dev/zero bs=$3 count=1 status=none",
                "can_extents=exit 0", extents_script(lines)) as server:
        assert runs(server.uri) == [(0, MIB, "data"), (MIB, MIB, "reserved"),
                                    (2 * MIB, MIB, "hole"), (3 * MIB, MIB, "data")]


def rule_a_failed_question_about_holes_means_data(_):
    with nbdkit("eval", "get_size=echo 4M", "pread=dd if=/dev/zero bs=$3 count=1 status=none",
                "can_extents=exit 0", "extents=echo EIO >&2; exit 1") as server:
        assert runs(server.uri) == [(0, 4 * MIB, "data")]


def rule_a_fragmented_export_is_not_asked_again_and_again(folder):
    """10,000 runs in steps of one block: some questions, not one for each."""
    log = os.path.join(folder, "log")
    disk = Disk(folder, 80 * MIB, [(at, 4096) for at in range(0, 80 * MIB, 8192)])
    with nbdkit("--filter=log", "file", disk.path, f"logfile={log}") as server:
        found = runs(server.uri, step=4096)
    assert len(found) == 2 * 10240, len(found)
    with open(log, encoding="utf-8") as text:
        questions = sum(" Extents " in line and "..." in line for line in text)
    assert 1 <= questions <= 4, questions


def rule_a_read_error_is_told_with_its_place(folder):
    disk = Disk(folder, MIB, [(0, MIB)])
    with nbdkit("--filter=error", "file", disk.path, "error-pread=EIO",
                "error-pread-rate=100%") as server:
        refused(read(server.uri, threads=1), server.uri + ": ", "(at byte 0)",
                "Input/output error")
    with nbdkit("eval", "get_size=echo 1M", "thread_model=echo parallel",
                "pread=if [ $4 -ge 300000 ]; then echo ENOSPC >&2; exit 1; fi; "
                "dd if=/dev/zero bs=$3 count=1 status=none") as server:
        refused(read(server.uri, threads=1), "(at byte 300000)", "No space left")


def rule_there_is_no_such_export_or_socket(folder):
    disk = Disk(folder, MIB, [(0, 1)])
    refused(read("nbd+unix:///?socket=/nonexistent"), "cannot connect", "No such file")
    with serve_qemu("-r", "-f", "raw", "-x", "one", disk.path) as server:
        refused(read(server.named_uri("two")), server.named_uri("two"), "cannot connect")
    port = harness.free_port()
    refused(read(f"nbd://127.0.0.1:{port}/"), "cannot connect", "refused")


def rule_an_encrypted_export_reads_the_same(folder):
    disk = Disk(folder, 4 * MIB, [(0, MIB), (2 * MIB, MIB)])
    authority = tls_keys.Authority(os.path.join(folder, "authority"))
    keys = {role: os.path.join(folder, role) for role in ("server", "client")}
    for role in keys:
        authority.issue(keys[role], role, "localhost")
    stranger = tls_keys.Authority(os.path.join(folder, "stranger"), "Strangers")
    foreign = os.path.join(folder, "foreign")
    stranger.issue(foreign, "client", "localhost")
    port = harness.free_port()
    command = [SERVER, "-t", "-e", "0", "-b", "127.0.0.1", "-p", port, "-f", "raw",
               "--object", f"tls-creds-x509,id=t,dir={keys['server']},endpoint=server",
               "--tls-creds", "t", disk.path]
    with harness.start(command, port):
        status, out, errors = read(f"nbds://localhost:{port}/?tls-certificates={keys['client']}")
        assert status == 0 and out == disk.content, errors
        refused(read(f"nbds://localhost:{port}/?tls-certificates={foreign}"), "cannot connect")
        refused(read(f"nbd://localhost:{port}/"), "cannot connect")


def rule_other_addresses_are_refused(_):
    for uri, word in (("nbd+vsock://1/", "must begin with"), ("http://localhost", "must begin"),
                      ("/etc/passwd", "must begin")):
        refused(read(uri), word)


def rule_a_server_that_falls_silent_is_left(_):
    def silent(*_):
        return True

    def still(connection, _):
        time.sleep(30)
        connection.close()

    for server in (misbehaving(silent), misbehaving(silent, handshake=still)):
        with server as uri:
            begun = time.monotonic()
            refused(read(uri, threads=8, answer_ms=500), uri, "no answer", "within 500 ms")
            assert 0.4 < time.monotonic() - begun < 10


def rule_a_read_that_is_not_answered_in_full_fails(_):
    """The answer says that it is done, with fewer bytes than asked for: no zeros for the others."""
    def half(connection, kind, cookie, offset, length):
        assert kind == nbd.CMD_READ
        connection.sendall(chunk(nbd.CHUNK_DATA, cookie,
                                 struct.pack(">Q", offset) + b"x" * (length // 2)))
        return True

    def nothing(connection, kind, cookie, offset, length):
        connection.sendall(chunk(nbd.CHUNK_NONE, cookie))
        return True

    for answer in (half, nothing):
        with misbehaving(answer) as uri:
            refused(read(uri), uri, "cannot read", "Input/output error")


def rule_a_server_that_hangs_up_fails_the_reads(_):
    def hang_up(*_):
        return False

    def babble(connection, *_):
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        return True

    for answer in (hang_up, babble):
        with misbehaving(answer) as uri:
            refused(read(uri, threads=8), uri)


def rule_a_lost_connection_is_not_used_while_others_live(_):
    """Four connections, of which one hangs up: its read fails, and no other."""
    def answer(connection, _kind, cookie, offset, length):
        time.sleep(0.01)  # all are busy
        if offset == MIB // 2:
            return False
        connection.sendall(chunk(nbd.CHUNK_DATA, cookie, struct.pack(">Q", offset) + bytes(length)))
        return True

    def greet(connection, size):
        nbd_servers.greet(connection, size, nbd.CAN_MULTI_CONN)

    with misbehaving(answer, handshake=greet) as uri:
        status, out, errors = dump("failures", uri, ANSWER_MS, 4, 8 * KIB)
        assert status == 0, errors
        assert 1 <= int(out) <= 4, f"{int(out)} of 128 reads failed"


def rule_block_status_that_makes_no_sense_means_data(_):
    def status(*payloads):
        def answer(connection, kind, cookie, offset, length):
            for number, extents in enumerate(payloads, 1):
                connection.sendall(chunk(
                    nbd.CHUNK_STATUS, cookie,
                    struct.pack(">I", 1) + b"".join(struct.pack(">II", *one) for one in extents),
                    done=number == len(payloads)))
            return True
        return answer

    hole = 3  # NBD_STATE_HOLE | NBD_STATE_ZERO
    for answer in (status([(0, hole)]), status([(4096, hole)], [(4096, hole)]),
                   status([(4096, hole), (0, 0)])):
        with misbehaving(answer) as uri:
            assert runs(uri) == [(0, MIB, "data")], runs(uri)
    # Longer than the export, which the protocol allows.
    with misbehaving(status([(4096, 0), (1 << 31, hole)])) as uri:
        assert runs(uri) == [(0, 4096, "data"), (4096, MIB - 4096, "hole")], runs(uri)


def main():
    global SERVER, DUMP
    SERVER, DUMP = sys.argv[1:]
    for name, rule in list(globals().items()):
        if not name.startswith("rule_"):
            continue
        print(name, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            rule(folder)


main()
