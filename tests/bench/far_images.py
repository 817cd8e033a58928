#!/usr/bin/python3
"""The measuring of far_images_bench.py.

usage: far_images.py FOLDER UNDERLAY_NBD READS ROUNDS netem|relay

FOLDER: has disk.raw and disk.qcow2. Prints a line for each run; the medians go to results.json there,
in seconds. netem: as root of a machine that nobody needs.
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
import tempfile
import time

import nbd

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "interop"))
import harness

DELAY = 10  # ms, each way
KIB = 1 << 10
DEPTH = 4  # of a booting guest's reads

NGINX = """
daemon off;
USER
pid WORK/nginx.pid;
error_log WORK/error.log;
events {}
http {
  access_log off;
  sendfile on;
  client_body_temp_path WORK/body;
  proxy_temp_path WORK/proxy;
  fastcgi_temp_path WORK/fastcgi;
  uwsgi_temp_path WORK/uwsgi;
  scgi_temp_path WORK/scgi;
  keepalive_requests 100000;
  server { listen ADDRESS; root WORK/files; }
}
"""


def must(*words):
    subprocess.run(list(map(str, words)), check=True)


@contextlib.contextmanager
def nginx(work, address, *prefix):
    configuration = work / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    configuration.write_text(NGINX.replace("WORK", str(work)).replace("ADDRESS", address)
                             .replace("USER", user))
    server = subprocess.Popen([*prefix, "/usr/sbin/nginx", "-e", str(work / "error.log"), "-c",
                               str(configuration)])
    try:
        yield
    finally:
        server.terminate()
        server.wait()


@contextlib.contextmanager
def far_by_netem(work):
    """nginx in a network namespace of its own, with netem on both ends of the way."""
    must("modprobe", "-d", "/run/modules", "-a", "veth", "sch_netem")
    must("ip", "netns", "add", "web")
    must("ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", "web")
    inside = ("ip", "netns", "exec", "web")
    for words, device, address in (((), "near", "10.99.0.1"), (inside, "far", "10.99.0.2")):
        must(*words, "ip", "address", "add", address + "/24", "dev", device)
        must(*words, "ip", "link", "set", device, "up")
        must(*words, "tc", "qdisc", "add", "dev", device, "root", "netem", "delay", f"{DELAY}ms",
             "limit", "100000")
    with nginx(work, "10.99.0.2:8080", *inside):
        yield "http://10.99.0.2:8080/"


@contextlib.contextmanager
def far_by_relay(work):
    port, relay_port = harness.free_port(), harness.free_port()
    relay = os.path.join(os.path.dirname(os.path.abspath(__file__)), "relay.py")
    command = [sys.executable, relay, str(relay_port), str(port), str(DELAY)]
    with nginx(work, f"127.0.0.1:{port}"), harness.start(command, relay_port):
        harness.wait_for(lambda: harness.listens(port), 20, "nginx listens")
        yield f"http://127.0.0.1:{relay_port}/"


@contextlib.contextmanager
def serving(socket, *command):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(socket)
    process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL)
    try:
        while not harness.listens(socket):
            if process.poll() is not None:
                sys.exit(f"{command[0]}: exit status {process.returncode}")
            time.sleep(0.002)
        yield
    finally:
        process.terminate()
        process.wait()


def places(count, size):
    """(offset, length) of reads: pages, most of them near to others, as files are."""
    chance = random.Random(1)
    reads, at = [], 0
    for _ in range(count):
        length = 4 * KIB * chance.randint(1, 32)
        if chance.random() < 0.5:
            at = chance.randrange(0, size, 4 * KIB)
        at = at if at + length <= size else 0
        reads.append((at, length))
        at += length
    return reads


def timed(socket, disk, reads):
    """Seconds for all of them, DEPTH at a time; each is compared with the disk."""
    handle = nbd.NBD()
    handle.connect_unix(socket)
    running, waiting = {}, iter(reads)
    start = time.monotonic()
    more = True
    with open(disk, "rb") as raw:
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


def commands(program, work, socket, url):
    ours = [program, "-t", "-e", "0", "-k", socket, "-f", "qcow2"]
    far = [*ours, "--cache-dir", work / "cache", "--cache-size", "1G", "--prefetch=all",
           "--prefetch-rate=1G", url + "disk.qcow2"]
    return {
        "qemu-nbd": ["qemu-nbd", "-r", "-t", "-e", "0", "-k", socket, "--image-opts",
                     f"driver=qcow2,file.driver=http,file.url={url}disk.qcow2"],
        "nbdkit": ["nbdkit", "-f", "-r", "-U", socket, "--filter=cache", "curl",
                   f"url={url}disk.raw"],
        "first": far,
        "second": far,
        "local": [*ours, work / "files/disk.qcow2"],
    }


def main():
    folder, program, count, rounds, way = sys.argv[1:]
    folder = pathlib.Path(folder)
    disk = folder / "disk.raw"
    reads = places(int(count), os.path.getsize(disk))
    seconds = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as work:
        work = pathlib.Path(work)
        os.environ["TMPDIR"] = str(work)
        (work / "files").mkdir()
        for name in ("disk.raw", "disk.qcow2"):
            shutil.copy(folder / name, work / "files" / name)
        socket = str(work / "socket")
        with (far_by_netem if way == "netem" else far_by_relay)(work) as url:
            for number in range(int(rounds)):
                shutil.rmtree(work / "cache", ignore_errors=True)
                (work / "cache").mkdir(mode=0o700)
                for name, command in commands(program, work, socket, url).items():
                    with serving(socket, *command):
                        seconds.setdefault(name, []).append(timed(socket, disk, reads))
                    print(f"round {number + 1}: {name:<10} {seconds[name][-1]:8.2f} s", flush=True)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    (folder / "results.json").write_text(json.dumps(medians))


main()
