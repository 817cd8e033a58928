#!/usr/bin/python3
"""Over TLS, underlay-nbd serves at least as fast as qemu-nbd.

usage: tls_bench.py UNDERLAY_NBD

nbdcopy reads a raw image, which lies in the page cache, from both servers in turn, over TCP with
certificates; the median of the pairs' ratios counts: the machine may be noisy.
"""
import os
import statistics
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "interop"))
import harness
import tls_keys

PAIRS = 5
SIZE = 512 << 20
WANTED_RATIO = 1.0


def make_image(path):
    block = os.urandom(1 << 20)
    with open(path, "wb") as out:
        for _ in range(SIZE >> 20):
            out.write(block)


def seconds(uri):
    begun = time.monotonic()
    status, _, errors = harness.run(["nbdcopy", uri, "null:"])
    assert status == 0, errors
    return time.monotonic() - begun


def main():
    with tempfile.TemporaryDirectory() as folder:
        image = os.path.join(folder, "disk.raw")
        make_image(image)
        authority = tls_keys.Authority(os.path.join(folder, "authority"))
        keys = {role: os.path.join(folder, role) for role in ("server", "client")}
        for role, name in (("server", "localhost"), ("client", "bench")):
            authority.issue(keys[role], role, name)
        tls = ["--object", f"tls-creds-x509,id=t,dir={keys['server']},endpoint=server",
               "--tls-creds", "t"]
        ports = [harness.free_port(), harness.free_port()]
        common = ["-r", "-t", "-e", "0", "-b", "127.0.0.1", "-f", "raw", *tls, image]
        with harness.start([sys.argv[1], "-p", ports[0], *common], ports[0]), \
                harness.start(["qemu-nbd", "-p", ports[1], *common], ports[1]):
            uris = [f"nbds://localhost:{port}/?tls-certificates={keys['client']}"
                    for port in ports]
            for uri in uris:
                seconds(uri)  # warms up
            ratios = []
            for _ in range(PAIRS):
                ours, theirs = (seconds(uri) for uri in uris)
                ratios.append(theirs / ours)
                print(f"underlay-nbd {SIZE / ours / 1e6:6.0f} MB/s   "
                      f"qemu-nbd {SIZE / theirs / 1e6:6.0f} MB/s   ratio {theirs / ours:.2f}",
                      flush=True)
    ratio = statistics.median(ratios)
    print(f"median ratio {ratio:.2f}, wanted {WANTED_RATIO}")
    sys.exit(0 if ratio >= WANTED_RATIO else 1)


main()
