#!/usr/bin/python3
"""underlay-img bench beside qemu-img bench: the same options, words and exit statuses; and what it
counts is what it did: requests in parallel, their times, their places.

usage: img_bench_test.py UNDERLAY_IMG [RULE...]
"""
import json
import random
import re
import signal
import subprocess
import sys

import harness
import rules_in_folders
from img_lab import ProgramInFolder, interrupted
from nbd_servers import misbehaving, nbdkit
import nbd_client as nbd

KIB, MIB = 1 << 10, 1 << 20
COMPLETED = re.compile(r"Run completed in \d+\.\d{3} seconds\.")


class Lab(ProgramInFolder):
    def __init__(self, program, folder):
        super().__init__(program, folder)
        self.raw = self.path("disk.raw")
        with open(self.raw, "wb") as out:
            out.write(random.Random(1).randbytes(2 * MIB))
            out.truncate(4 * MIB)

    def ours(self, *words):
        return harness.run([self.program, "bench", *words])

    def theirs(self, *words):
        return harness.run(["qemu-img", "bench", *words])

    def json(self, *words):
        status, out, errors = self.ours("--output=json", *words)
        assert status == 0 and not errors, (status, errors)
        return json.loads(out)

    def convert(self, form, *options):
        path = self.path("disk." + form)
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", form, *options, self.raw, path],
                       check=True)
        return path


def rule_says_what_qemu_img_says(lab):
    """And more behind it."""
    for options in (["-c", "100"], ["-c", "50", "-d", "3", "-s", "16k", "-S", "32k", "-o", "4k"],
                    ["-c", "7", "-d", "1", "-o", "1.5k", "-s", "1k", "-S", "0"],
                    ["-c", "0"], ["-c", "20", "-i", "io_uring"], ["-c", "20", "-i", "threads", "-U"],
                    ["-c", "20", "-t", "writeback"], ["-c", "2", "-s", "3M", "-S", "1M"]):
        ours, theirs = (run(*options, "-f", "raw", lab.raw) for run in (lab.ours, lab.theirs))
        assert ours[0] == theirs[0], (options, ours, theirs)
        if ours[0] != 0:
            continue
        lines, expected = (said[1].splitlines() for said in (ours, theirs))
        assert lines[0] == expected[0], (lines, expected)
        assert COMPLETED.fullmatch(lines[1]) and COMPLETED.fullmatch(expected[1]), (lines, expected)
        assert (len(lines) > 2) == (options[1] != "0"), lines


def rule_all_formats_and_exports_are_read(lab):
    for form in ("qcow2", "vmdk", "vdi", "vhdx", "vpc"):
        document = lab.json("-c", "300", "-f", form, lab.convert(form))
        assert document["requests"] == 300 and document["bytes-read"] == 300 * 4096, document
    with harness.serve(["-r", "-f", "raw", lab.raw], program="qemu-nbd") as server:
        assert lab.json("-c", "300", server.uri)["requests"] == 300
    path = lab.convert("qcow2")
    assert lab.ours("-c", "10", "--image-opts", f"driver=qcow2,file.filename={path}")[0] == 0


def rule_what_lies_behind_the_end_is_a_failed_request(lab):
    """In the middle of a run, and at once."""
    for options in (["-c", "2000", "-s", "300000"], ["-c", "5", "-o", "4M"], ["-c", "5", "-o", "1T"]):
        for run in (lab.ours, lab.theirs):
            status, _, errors = run(*options, "-f", "raw", lab.raw)
            assert status == 1 and "Failed request: " in errors, (options, errors)
            assert errors.count("\n") == 1, errors


def rule_a_failed_read_is_a_failed_request(lab):
    with nbdkit("--filter=error", "memory", "4M", "error-pread=EIO",
                "error-pread-rate=100%") as server:
        for words in ([server.uri], ["-f", "raw", server.uri]):
            status, out, errors = lab.ours("-c", "10", *words)
            assert status == 1 and "completed" not in out, (status, out)
            assert "Failed request: " in errors and "Input/output error" in errors, errors
        # It leaves at once: with more in flight, nbdkit would fall over the reply to the next one.
        assert lab.theirs("-c", "10", "-d", "1", "-f", "raw", server.uri)[0] == 1


def rule_wrong_numbers_are_refused(lab):
    for options in (["-c", "-1"], ["-c", "1k"], ["-c", "x"], ["-d", "x"], ["-o", "foo"],
                    ["-s", "4G"], ["-S", "x"], ["-i", "foo"], ["-t", "foo"]):
        for run in (lab.ours, lab.theirs):
            status, out, errors = run(*options, "-f", "raw", lab.raw)
            assert status == 1 and not out and errors, (options, status, out)
    # qemu-img reads nothing, however often, and tells how long that took: that measures nothing.
    assert lab.theirs("-c", "5", "-s", "0", "-f", "raw", lab.raw)[0] == 0
    # Ours: a thread for each, with a buffer.
    for options, word in ((["-d", "0"], "from 1 to"), (["-d", "513"], "from 1 to 512"),
                          (["-s", "1G", "-d", "2"], "memory"), (["-s", "0"], "from 1 to"),
                          (["--seed=1"], "--random"), (["--random", "-S", "8k"], "exclusive")):
        status, out, errors = lab.ours(*options, "-f", "raw", lab.raw)
        assert status == 1 and not out and word in errors, (options, status, errors)
        said = [line for line in errors.splitlines() if not line.startswith("underlay-img: try '")]
        assert len(said) == 1, (options, errors)


def rule_what_would_write_is_refused_with_the_reason(lab):
    for options in (["-w"], ["--pattern=1"], ["--flush-interval=64"], ["--no-drain"]):
        status, out, errors = lab.ours(*options, "-f", "raw", lab.raw)
        assert status == 1 and not out and "only read here" in errors, (options, errors)


def rule_what_would_go_past_the_page_cache_is_told_or_refused(lab):
    for cache in ("none", "off", "directsync"):
        status, out, errors = lab.ours("-c", "1", "-t", cache, "-f", "raw", lab.raw)
        assert status == 0 and "Run completed" in out, (cache, errors)
        assert errors.startswith(f"underlay-img: warning: --cache {cache}: the page cache"), errors
        assert len(errors.splitlines()) == 1, errors
    for options in (["-n"], ["-i", "native"]):
        status, out, errors = lab.ours(*options, "-f", "raw", lab.raw)
        assert status == 1 and not out and "page cache" in errors, (options, errors)


def rule_requests_are_in_parallel_and_timed(lab):
    """16 requests of 100 ms: one after the other, and eight at a time on one connection."""
    with nbdkit("--filter=delay", "memory", "4M", "rdelay=100ms") as server:
        one, eight = (lab.json("-c", "16", "-d", str(depth), server.uri) for depth in (1, 8))
    assert one["seconds"] > 1.6, one
    assert 0.2 <= eight["seconds"] < 1.2, eight
    for document in (one, eight):
        times = document["latency-us"]
        assert 100e3 <= times["50"] <= times["90"] <= times["99"] <= times["99.9"] <= times["max"]
        assert times["50"] < 400e3, times
        assert abs(document["reads-per-second"] * document["seconds"] - 16) < 0.01, document
        assert document["bytes-per-second"] == document["reads-per-second"] * 4096, document


def offsets_read(lab, *options):
    """Where a server is asked to read."""
    asked = []

    def answer(connection, kind, cookie, offset, length):
        if kind != nbd.CMD_READ:
            return False
        asked.append((offset, length))
        # An offset chunk with all the data: structured replies are negotiated.
        connection.sendall(nbd_data(cookie, offset, length))
        return True

    with misbehaving(answer, size=MIB) as uri:
        status, _, errors = lab.ours("-d", "1", *options, uri)
        assert status == 0, errors
    return asked


def nbd_data(cookie, offset, length):
    from nbd_servers import chunk
    return chunk(nbd.CHUNK_DATA, cookie, offset.to_bytes(8, "big") + bytes(length))


def rule_requests_go_on_at_the_start(lab):
    """Behind the end, as qemu-img's do: modulo the size."""
    asked = offsets_read(lab, "-c", "5", "-s", "4k", "-S", "300k", "-o", "8k")
    assert asked == [((8 * KIB + i * 300 * KIB) % MIB, 4 * KIB) for i in range(5)], asked


def rule_random_requests_are_everywhere_and_the_same_again(lab):
    options = ["-c", "400", "-s", "4k", "-o", "64k", "--random"]
    first = offsets_read(lab, *options)
    assert first == offsets_read(lab, *options)
    assert first != offsets_read(lab, *options, "--seed", "7")
    places = {offset for offset, _ in first}
    assert all(64 * KIB <= offset <= MIB - 4 * KIB and offset % (4 * KIB) == 0
               for offset in places), sorted(places)
    # 400 of 240 places: about 195 are hit.
    assert len(places) > 150 and min(places) < 128 * KIB and max(places) > MIB - 64 * KIB, places


def rule_who_interrupts_is_told_how_far_it_got(lab):
    with nbdkit("--filter=delay", "memory", "4M", "rdelay=50ms") as server:
        status, out, errors = interrupted([lab.program, "bench", "-d", "2", server.uri])
    assert status == -signal.SIGINT and "completed" not in out, (status, out)
    told = re.fullmatch(r"underlay-img: interrupted: (\d+) of 75000 requests done, (\d+) bytes read\n",
                        errors)
    assert told and 0 < int(told[1]) < 100 and int(told[2]) == int(told[1]) * 4096, errors


rules_in_folders.main(Lab, sys.modules[__name__])
