#!/usr/bin/python3
"""Inside the test kernel: the measuring of far_images_bench.py.

usage: far_images_guest.py UNDERLAY_NBD READS ROUNDS

Prints a line for each run; the medians go to results.json in the job's folder, in seconds.
"""
import contextlib
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import time

import nbd

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "interop"))
import harness

JOB = pathlib.Path("/run/job")
WORK = pathlib.Path("/run/bench")
ADDRESS, PORT = "10.99.0.2", 8080
URL = f"http://{ADDRESS}:{PORT}/"
DELAY = "10ms"  # each way
KIB = 1 << 10
DEPTH = 4  # of a booting guest's reads
SOCKET = str(WORK / "socket")

NGINX = f"""
daemon off;
user root;
pid {WORK}/nginx.pid;
error_log {WORK}/error.log;
events {{}}
http {{
  access_log off;
  sendfile on;
  client_body_temp_path {WORK}/body;
  proxy_temp_path {WORK}/proxy;
  fastcgi_temp_path {WORK}/fastcgi;
  uwsgi_temp_path {WORK}/uwsgi;
  scgi_temp_path {WORK}/scgi;
  keepalive_requests 100000;
  server {{ listen {ADDRESS}:{PORT}; root {WORK}/files; }}
}}
"""


def must(*words):
    subprocess.run(list(map(str, words)), check=True)


@contextlib.contextmanager
def far_server():
    """nginx in a network namespace of its own, with netem on both ends of the way."""
    must("modprobe", "-d", "/run/modules", "-a", "veth", "sch_netem")
    must("ip", "netns", "add", "web")
    must("ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", "web")
    for words, device, address in (((), "near", "10.99.0.1/24"),
                                   (("ip", "netns", "exec", "web"), "far", ADDRESS + "/24")):
        must(*words, "ip", "address", "add", address, "dev", device)
        must(*words, "ip", "link", "set", device, "up")
        must(*words, "tc", "qdisc", "add", "dev", device, "root", "netem", "delay", DELAY, "limit",
             "100000")
    (WORK / "files").mkdir()
    for name in ("disk.raw", "disk.qcow2"):
        shutil.copy(JOB / name, WORK / "files" / name)
    (WORK / "nginx.conf").write_text(NGINX)
    server = subprocess.Popen(["ip", "netns", "exec", "web", "/usr/sbin/nginx", "-e",
                               str(WORK / "error.log"), "-c", str(WORK / "nginx.conf")])
    try:
        yield
    finally:
        server.kill()
        server.wait()


@contextlib.contextmanager
def serving(*command):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(SOCKET)
    process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL)
    try:
        while not harness.listens(SOCKET):
            if process.poll() is not None:
                sys.exit(f"{command[0]}: exit status {process.returncode}")
            time.sleep(0.002)
        yield
    finally:
        process.terminate()
        process.wait()


def places(count):
    """(offset, length) of reads: pages, most of them near to others, as files are."""
    chance = random.Random(1)
    size = os.path.getsize(JOB / "disk.raw")
    reads, at = [], 0
    for _ in range(count):
        length = 4 * KIB * chance.randint(1, 32)
        if chance.random() < 0.5:
            at = chance.randrange(0, size, 4 * KIB)
        at = at if at + length <= size else 0
        reads.append((at, length))
        at += length
    return reads


def timed(reads):
    """Seconds for all of them, DEPTH at a time; each is compared with the disk."""
    handle = nbd.NBD()
    handle.connect_unix(SOCKET)
    running, waiting = {}, iter(reads)
    start = time.monotonic()
    more = True
    with open(JOB / "disk.raw", "rb") as raw:
        done = []
        while more or running:
            while more and len(running) < DEPTH:
                read = next(waiting, None)
                more = read is not None
                if more:
                    buffer = nbd.Buffer(read[1])
                    running[handle.aio_pread(buffer, read[0])] = (read, buffer)
            handle.poll(-1)
            for cookie in list(running):
                if handle.aio_command_completed(cookie):
                    done.append(running.pop(cookie))
        seconds = time.monotonic() - start
        for (offset, length), buffer in done[::10]:
            raw.seek(offset)
            if buffer.to_bytearray() != raw.read(length):
                sys.exit(f"other bytes at {offset}")
    handle.shutdown()
    return seconds


def commands(program):
    cache = WORK / "cache"
    ours = [program, "-t", "-e", "0", "-k", SOCKET, "-f", "qcow2"]
    far = [*ours, "--cache-dir", cache, "--cache-size", "1G", "--prefetch=all",
           "--prefetch-rate=1G", URL + "disk.qcow2"]
    return {
        "qemu-nbd": ["qemu-nbd", "-r", "-t", "-e", "0", "-k", SOCKET, "--image-opts",
                     f"driver=qcow2,file.driver=http,file.url={URL}disk.qcow2"],
        "nbdkit": ["nbdkit", "-f", "-r", "-U", SOCKET, "--filter=cache", "curl",
                   f"url={URL}disk.raw"],
        "first": far,
        "second": far,
        "local": [*ours, WORK / "files/disk.qcow2"],
    }


def main():
    program, count, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    WORK.mkdir()
    os.environ["TMPDIR"] = str(WORK)
    reads = places(count)
    seconds = {name: [] for name in commands(program)}
    with far_server():
        for number in range(rounds):
            shutil.rmtree(WORK / "cache", ignore_errors=True)
            (WORK / "cache").mkdir(mode=0o700)
            for name, command in commands(program).items():
                with serving(*command):
                    seconds[name].append(timed(reads))
                print(f"round {number + 1}: {name:<10} {seconds[name][-1]:8.2f} s", flush=True)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    (JOB / "results.json").write_text(json.dumps(medians))


main()
