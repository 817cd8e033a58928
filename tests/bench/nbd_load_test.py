#!/usr/bin/python3
"""nbd-load reads what it is asked to read, finds every wrong byte, and says how fast it was.

usage: nbd_load_test.py UNDERLAY_NBD NBD_LOAD
"""
import json
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "interop"))
import harness

SIZE = 4 << 20
FIELDS = {"operations", "seconds", "iops", "mib_per_s", "median_us", "p99_us", "client_cpu"}
EVERY_BYTE = ["--pattern", "sequential", "--size", "65536", "--operations", str(SIZE >> 16)]


def load(nbd_load, *options):
    done = subprocess.run([nbd_load, *map(str, options)], text=True, capture_output=True,
                          timeout=60)
    return done.returncode, done.stdout, done.stderr


def succeeds(nbd_load, *options):
    status, output, errors = load(nbd_load, *options)
    assert status == 0, f"{options}: exit status {status}: {errors}"
    found = json.loads(output)
    assert set(found) == FIELDS, f"{options}: fields {sorted(found)}"
    return found


def fails(nbd_load, why, *options):
    status, output, errors = load(nbd_load, *options)
    assert status == 1 and why in errors and not output, f"{options}: {status} {output} {errors}"


def changed(raw, offset):
    """A copy that differs in one byte."""
    path = f"{raw}.{offset}"
    with open(raw, "rb") as file:
        data = bytearray(file.read())
    data[offset] ^= 1
    with open(path, "wb") as file:
        file.write(data)
    return path


def every_way_to_read_is_verified(nbd_load, target, raw):
    for options in ([], ["--batch"], ["--connections", 4], ["--connections", 3, "--batch"],
                    ["--depth", 1], ["--size", 5000], ["--size", 1], ["--size", 2 << 20],
                    ["--pattern", "sequential", "--connections", 2], ["--depth", 256]):
        found = succeeds(nbd_load, *target, "--verify", raw, "--operations", 500, *options)
        assert found["operations"] == 500, f"{options}: {found}"


def one_wrong_byte_is_found(nbd_load, target, raw):
    for offset in (0, 1234567, SIZE - 1):
        wrong = changed(raw, offset)
        for options in ([], ["--batch", "--connections", 4], ["--depth", 1]):
            fails(nbd_load, f"(at byte {offset})", *target, *EVERY_BYTE, "--verify", wrong,
                  *options)


def reads_keep_within_their_range(nbd_load, target, raw):
    wrong = changed(raw, 1 << 20)
    for pattern in ("random", "sequential"):
        options = ["--pattern", pattern, "--operations", 2000, "--verify", wrong]
        succeeds(nbd_load, *target, *options, "--range", 1 << 20)
        succeeds(nbd_load, *target, *options, "--from", (1 << 20) + 4096)
        fails(nbd_load, f"(at byte {1 << 20})", *target, *options, "--from", 1 << 20,
              "--range", 8192)
    fails(nbd_load, "the export has", *target, "--from", SIZE, "--range", 4096)


def dropped_payload_counts_as_received(nbd_load, target):
    """As many reads, and each reply is taken from the stream to its last byte: the next header is
    found where it must be."""
    for options in ([], ["--batch"], ["--connections", 4], ["--connections", 3, "--batch"],
                    ["--depth", 1], ["--size", 5000], ["--size", 1], ["--size", 65536],
                    ["--size", 2 << 20], ["--pattern", "sequential", "--connections", 2]):
        found = succeeds(nbd_load, *target, "--discard", "--operations", 500, *options)
        assert found["operations"] == 500, f"{options}: {found}"
    numbers_agree(nbd_load, target, "--discard")


def nothing_dropped_is_verified(nbd_load, target, raw):
    fails(nbd_load, "--discard drops what --verify compares", *target, "--discard",
          "--verify", raw)


def numbers_agree(nbd_load, target, *options):
    found = succeeds(nbd_load, *target, "--seconds", 0.5, *options)
    assert 0.5 <= found["seconds"] < 5, found
    assert abs(found["iops"] * found["seconds"] / found["operations"] - 1) < 0.01, found
    assert abs(found["mib_per_s"] * 256 / found["iops"] - 1) < 0.01, found
    assert 0 < found["median_us"] <= found["p99_us"], found
    assert 0 < found["client_cpu"] < 1.1, found


def failures_are_said(nbd_load, target):
    fails(nbd_load, "entering export \"nobody\": ", *target, "--export", "nobody")
    fails(nbd_load, "cannot connect", "/nowhere")
    fails(nbd_load, "for each connection", *target, "--depth", 257)


def errors_are_no_data(nbd_load, server, image):
    with harness.serve(["-r", "-f", "qcow2", image], program=server) as broken:
        os.truncate(image, os.path.getsize(image) // 2)
        fails(nbd_load, "answered a read with error 5", broken.socket, *EVERY_BYTE)
        fails(nbd_load, "answered a read with error 5", broken.socket, *EVERY_BYTE, "--discard")


def main():
    server, nbd_load = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        raw = os.path.join(folder, "raw")
        image = os.path.join(folder, "image.qcow2")
        with open(raw, "wb") as out:
            out.write(os.urandom(SIZE))
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image], check=True)
        options = ["-r", "-e", "0", "-f", "qcow2", image]
        with harness.serve(options, program=server) as running:
            target = [running.socket]
            every_way_to_read_is_verified(nbd_load, target, raw)
            one_wrong_byte_is_found(nbd_load, target, raw)
            reads_keep_within_their_range(nbd_load, target, raw)
            numbers_agree(nbd_load, target)
            dropped_payload_counts_as_received(nbd_load, target)
            nothing_dropped_is_verified(nbd_load, target, raw)
            failures_are_said(nbd_load, target)
        port = harness.free_port()
        with harness.start([server, "-t", "-b", "127.0.0.1", "-p", port, *options], port):
            target = ["--tcp", f"127.0.0.1:{port}"]
            every_way_to_read_is_verified(nbd_load, target, raw)
            dropped_payload_counts_as_received(nbd_load, target)
        errors_are_no_data(nbd_load, server, image)
    print("every read, error and number as it must be")


main()
