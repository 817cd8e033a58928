#!/usr/bin/python3
"""Clients of every kind come and go for a chosen time, images of every kind are served, files change
and break while they are. What is read is right, and the servers stay as they are: their memory and
descriptors do not grow, they say nothing but what is expected, and they end well. (Memory is not
judged of a program with a sanitizer.)

usage: soak_test.py UNDERLAY_NBD [--seconds N]     30, unless said otherwise; an hour by hand
"""
import argparse
import collections
import contextlib
import math
import multiprocessing
import os
import queue
import random
import re
import shutil
import tempfile
import time
import traceback

import harness
import image_set
import nbd_client as nbd
import program_rules
import soak_clients
from hostile_lab import MIB, Footprint
from protocol_rules import check, wait_for
from soak_clients import Disk

IMAGES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "images")
EVERY_MAKER = ("qcow", "qcow2", "raw", "vdi", "vhd", "vhdx", "vmdk", "ova")
QUICK_MAKERS = ("qcow", "raw", "vdi")  # in a short soak, beside what qemu-img makes
LONG_SECONDS = 300
CLIENTS = 6
FAULT_SECONDS = 0.2
SETTLE_SECONDS = 30
# Full soon, so that what still grows is no cache.
CACHES = ("--cluster-cache=8M", "--table-cache=8M")
# Clients who leave replies unread drive resident memory up now and then: judged is the least of it
# behind the warm-up and at the end, as shares of the time.
WARM = (1 / 3, 1 / 2)
END = (5 / 6, math.inf)  # and later
GROWTH, SHORT_GROWTH = 8 * MIB, 16 * MIB

CONVERTED = {"plain.qcow2": ("qcow2", ()), "packed.qcow2": ("qcow2", ("-c",)), "plain.vhdx": ("vhdx", ()),
             "plain.vhd": ("vpc", ("-o", "force_size=on")), "stream.vmdk": ("vmdk", ("-o", "subformat=streamOptimized")),
             "plain.vmdk": ("vmdk", ())}
EXPECTED = re.compile(
    r"reads of the export \"[a-z]+\" fail from now on|is another file now|"
    r"(truncated|damaged)|lines were left out|is filled up with zeros|does not read its replies|connection closed")


class Lab:
    """Servers, and the disks that they serve."""

    def __init__(self, program, folder, seconds):
        self.program, self.folder, self.seconds = program, folder, seconds
        self.sanitized = harness.sanitized(program)
        self.servers, self.disks = [], []
        self.refused = set()  # files of the folders that are no images, or none that can be served

    def any_disk(self, rng):
        return rng.choice(self.disks)

    def serve(self, stack, *args):
        command = ["-e", "0", *CACHES, *args]
        server = stack.enter_context(harness.serve(command, program=self.program))
        self.servers.append(server)
        return server

    def serve_images(self, stack):
        makers = EVERY_MAKER if self.seconds >= LONG_SECONDS else QUICK_MAKERS
        for maker in makers:
            folder = os.path.join(self.folder, maker)
            images, _ = image_set.make_images(os.path.join(IMAGES, maker + ".py"), folder)
            args = ["--directory", folder]
            if maker == "raw":  # which is never guessed
                args = ["-f", "raw"]
                for image in images:
                    args += ["--export", f"{os.path.basename(image['path'])}={image['path']}"]
            server = self.serve(stack, *args)
            self.refused.update(os.listdir(folder))
            for image in images:
                name = os.path.basename(image["path"])
                plain = not [word for word in image["args"] if word.startswith("--")]
                if plain and os.path.dirname(image["path"]) == folder and opens(server, name):
                    self.disks.append(Disk(server, name, image["raw"]))
            self.refused.difference_update(disk.name for disk in self.disks)

    def serve_converted(self, stack):
        folder = os.path.join(self.folder, "converted")
        os.mkdir(folder)
        raws = []
        for seed in range(2):
            raw = os.path.join(self.folder, f"twin{seed}.raw")
            rng = random.Random(seed)
            program_rules.write_file(raw, rng.randbytes(2 * MIB) + bytes(MIB) + rng.randbytes(MIB))
            raws.append(raw)
        server = self.serve(stack, "--directory", folder)
        for name, (format_name, options) in CONVERTED.items():
            path = os.path.join(folder, name)
            program_rules.qemu_img("convert", "-f", "raw", "-O", format_name, *options, raws[0], path)
            self.disks.append(Disk(server, name, raws[0]))
        program_rules.qemu_img("create", "-q", "-f", "qcow2", "-b", "plain.qcow2", "-F", "qcow2",
                               os.path.join(folder, "overlay.qcow2"))
        self.disks.append(Disk(server, "overlay.qcow2", raws[0]))
        self.serve_victims(stack, raws)

    def serve_victims(self, stack, raws):
        self.victim_folder = os.path.join(self.folder, "victims")
        os.mkdir(self.victim_folder)
        for number, raw in enumerate(raws):
            program_rules.qemu_img("convert", "-f", "raw", "-O", "qcow2", raw,
                                   os.path.join(self.folder, f"twin{number}.qcow2"))
        self.victims = self.serve(stack, "--directory", self.victim_folder)
        self.twins = [Disk(self.victims, "replaced", raw) for raw in raws]
        for name in ("replaced", "truncated", "damaged"):
            self.put(name, 0)

    def put(self, name, twin):
        """A whole file takes the place of the one with that name."""
        path = os.path.join(self.victim_folder, name)
        shutil.copy(os.path.join(self.folder, f"twin{twin}.qcow2"), path + ".new")
        os.rename(path + ".new", path)


def opens(server, name):
    with nbd.Connection(server.socket, 60) as connection:
        connection.greeting()
        return isinstance(connection.info(nbd.OPT_GO, name), nbd.Export)


def work(lab, number, end, results):
    """A process: one client after another."""
    rng = random.Random(number)
    done = collections.Counter()
    while time.monotonic() < end:
        kind = rng.choice(soak_clients.KINDS)
        try:
            kind(lab, rng)
            done[kind.__name__] += 1
        except Exception as error:  # this client was served wrongly; the others go on
            results.put((kind.__name__, f"{type(error).__name__}: {error}\n{traceback.format_exc()}"))
    results.put((None, done))


def break_files(lab, number, end, results):
    """A process: files change while they are served."""
    rng = random.Random(number)
    faults = collections.Counter()
    while time.monotonic() < end:
        time.sleep(FAULT_SECONDS)
        lab.put("replaced", rng.randrange(2))
        for name in ("truncated", "damaged"):
            if rng.random() < 0.3:
                lab.put(name, 0)
        with open(os.path.join(lab.victim_folder, "truncated"), "r+b") as file:
            if rng.random() < 0.3:
                # Never longer than before: that would put zeros where an image says data is.
                file.truncate(rng.randrange(os.fstat(file.fileno()).st_size + 1))
        with open(os.path.join(lab.victim_folder, "damaged"), "r+b") as file:
            # Mostly of what the image says of itself.
            file.seek(rng.choice([rng.randrange(MIB // 2), rng.randrange(4 * MIB)]))
            file.write(rng.randbytes(rng.choice([1, 8, 512])))
        faults["faults"] += 1
    results.put((None, faults))


def watch(lab, processes, results, began):
    """Samples until all processes have ended; (samples, failures, how many clients of each kind)."""
    samples, failures, done = collections.defaultdict(list), [], collections.Counter()
    left = len(processes)
    while left:
        try:
            kind, said = results.get(timeout=0.25)
            if kind is None:
                left -= 1
                done.update(said)
            else:
                failures.append(f"{kind}: {said}")
        except queue.Empty:
            check(all(process.is_alive() or process.exitcode == 0 for process in processes),
                  "a process of the test has ended")
        share = (time.monotonic() - began) / lab.seconds
        for server in lab.servers:
            check(server.running(), f"a server has ended: {server.stderr()[-2000:]}")
            samples[server].append((share, server.resident_bytes()))
    return samples, failures, done


def least(samples, part):
    first, last = part
    return min(size for share, size in samples if first <= share <= last)


def check_flat(server, samples, seconds):
    """Resident memory at the end is that behind the warm-up; when it never was while the clients were
    there, it is once they have left, and the server has given back what they took."""
    warm = least(samples, WARM)
    limit = warm + (GROWTH if seconds >= LONG_SECONDS else SHORT_GROWTH)
    deadline = time.monotonic() + SETTLE_SECONDS
    while least(samples, END) >= limit and time.monotonic() < deadline:
        time.sleep(0.25)
        samples.append((math.inf, server.resident_bytes()))
    end, most = least(samples, END), max(size for _, size in samples)
    print(f"{server.command[-1]}: {samples[0][1] / MIB:.1f} MiB at first, at least "
          f"{warm / MIB:.1f} warm and {end / MIB:.1f} at the end, at most {most / MIB:.1f}", flush=True)
    check(end < limit, f"memory grows by {(end - warm) / MIB:.1f} MiB")


def check_log(server, refused):
    odd = [line for line in server.stderr().splitlines()
           if not EXPECTED.search(line) and not any(name in line for name in refused)]
    check(not odd, f"{len(odd)} unexpected lines: " + "\n".join(odd[:20]))


def settled(now, before):
    # The kernel's own workers of a ring come and go.
    return now.descriptors <= before.descriptors and now.threads <= before.threads + 2


def soak(lab, stack):
    lab.serve_images(stack)
    lab.serve_converted(stack)
    print(f"{len(lab.servers)} servers, {len(lab.disks)} disks", flush=True)
    for server in lab.servers:
        with nbd.Connection(server.socket) as client:
            client.greeting()  # all of its threads run now
    before = {server: Footprint(server) for server in lab.servers}
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    began = time.monotonic()
    end = began + lab.seconds
    processes = [context.Process(target=work, args=(lab, number, end, results), daemon=True)
                 for number in range(CLIENTS)]
    processes.append(context.Process(target=break_files, args=(lab, CLIENTS, end, results), daemon=True))
    for process in processes:
        process.start()
    samples, failures, done = watch(lab, processes, results, began)
    print(dict(done), flush=True)
    check(not failures, f"{len(failures)} clients were served wrongly: " + "\n".join(failures[:5]))
    for server in lab.servers:
        try:
            wait_for(lambda: settled(Footprint(server), before[server]), SETTLE_SECONDS, "settled")
        except AssertionError as error:
            raise AssertionError(f"before {before[server]}, now {Footprint(server)}: "
                                 + " ".join(server.opened())) from error
        if not lab.sanitized:
            check_flat(server, samples[server], lab.seconds)
        check_log(server, lab.refused)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--seconds", type=float, default=30)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        soak(Lab(os.path.abspath(given.program), folder, given.seconds), stack)


main()
