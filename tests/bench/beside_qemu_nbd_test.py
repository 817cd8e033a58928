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
import time

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


def start(program, socket, image):
    server = subprocess.Popen([program, "-r", "-t", "-k", socket, "-f", "qcow2", image])
    for _ in range(100):
        if os.path.exists(socket):
            return server
        time.sleep(0.1)
    server.kill()
    sys.exit(f"{program} does not listen")


def load(nbd_load, socket, *options):
    output = subprocess.run([nbd_load, socket, "--depth", "32", *options], check=True, text=True,
                            stdout=subprocess.PIPE).stdout
    return json.loads(output)


def resident_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM")


def main():
    underlay_nbd, nbd_load = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        raw, image = make_image(folder)
        sockets = [os.path.join(folder, name) for name in ("underlay", "qemu")]
        servers = []
        try:
            for program, socket in zip((underlay_nbd, "qemu-nbd"), sockets):
                servers.append(start(program, socket, image))
            for socket in sockets:  # also warms the caches up
                load(nbd_load, socket, "--seconds", "1", "--verify", raw)
            ratios = []
            for _ in range(PAIRS):
                ours, theirs = (load(nbd_load, socket, "--seconds", str(SECONDS))["iops"]
                                for socket in sockets)
                ratios.append(ours / theirs)
                print(f"underlay-nbd {ours:9.0f}/s   qemu-nbd {theirs:9.0f}/s   "
                      f"ratio {ours / theirs:.2f}")
            memory = resident_mib(servers[0].pid)
        finally:
            for server in servers:
                server.terminate()
                server.wait(10)
    ratio = statistics.median(ratios)
    print(f"median ratio {ratio:.2f}, wanted {WANTED_RATIO}; "
          f"resident memory {memory:.0f} MiB at most, allowed {WANTED_MIB}")
    if ratio < WANTED_RATIO or memory > WANTED_MIB:
        sys.exit(1)


main()
