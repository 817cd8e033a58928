#!/usr/bin/python3
"""4 KiB random reads at depth 32 over a Unix socket: at least twice as many as qemu-nbd answers.

usage: beside_qemu_nbd_test.py UNDERLAY_NBD NBD_LOAD

Both serve the same qcow2 with the same options (-r -t). The machine may be noisy: the two are
measured in turn, and the median of the pairs' ratios counts. The contents are verified in the
configuration that is timed. Resident memory must stay below 64 MiB plus the configured caches.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "interop"))
import harness

PAIRS = 5
SECONDS = 1.0
WANTED_RATIO = 2.0
CACHES_MIB = 32 + 64  # --table-cache and --cluster-cache, as they are by default
WANTED_MIB = 64 + CACHES_MIB
SIZE = 256 << 20


def make_image(folder):
    """256 MiB of data that no file system can leave out, as raw and qcow2."""
    raw = os.path.join(folder, "template.raw")
    image = os.path.join(folder, "template.qcow2")
    with open(raw, "wb") as out:
        for _ in range(SIZE >> 20):
            out.write(os.urandom(1 << 20))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image], check=True)
    return raw, image


def load(nbd_load, socket, *options):
    output = subprocess.run([nbd_load, socket, "--depth", "32", *options], check=True, text=True,
                            stdout=subprocess.PIPE).stdout
    return json.loads(output)


def main():
    underlay_nbd, nbd_load = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        raw, image = make_image(folder)
        options = ["-r", "-f", "qcow2", image]
        with (harness.serve(options, program=underlay_nbd) as underlay,
              harness.serve(options, program="qemu-nbd") as qemu):
            for server in (underlay, qemu):  # also warms the caches up
                load(nbd_load, server.socket, "--seconds", "1", "--verify", raw)
            ratios = []
            for _ in range(PAIRS):
                ours, theirs = (load(nbd_load, server.socket, "--seconds", str(SECONDS))["iops"]
                                for server in (underlay, qemu))
                ratios.append(ours / theirs)
                print(f"underlay-nbd {ours:9.0f}/s   qemu-nbd {theirs:9.0f}/s   "
                      f"ratio {ours / theirs:.2f}")
            memory = underlay.resident_bytes("VmHWM") >> 20
    ratio = statistics.median(ratios)
    print(f"median ratio {ratio:.2f}, wanted {WANTED_RATIO}; "
          f"resident memory {memory} MiB at most, allowed {WANTED_MIB}")
    if ratio < WANTED_RATIO or memory > WANTED_MIB:
        sys.exit(1)


main()
