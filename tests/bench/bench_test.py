#!/usr/bin/python3
"""tools/bench: what it writes, that it fails on a wrong byte, and that it leaves no server behind.

usage: bench_test.py BENCH PROGRAM_FOLDER
"""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "interop")]
import harness
import report

SMALL = ["--quick", "--data", "16M", "--rounds", "2", "--seconds", "0.1"]
PICKED = (r"unix/4k-random-q32/(qcow2|chain-4)|in-cache/qcow2-zstd|tcp/4k-random-q1/raw|vhd-2040G|"
          r"unix/64k-random-q16-discard/raw|tcp/256k-sequential-q8-discard/raw|idle")
WANTED = {"unix/4k-random-q32/qcow2", "unix/4k-random-q32/chain-4",
          "unix/4k-random-q32-in-cache/qcow2-zstd", "tcp/4k-random-q1/raw",
          "unix/64k-random-q16-discard/raw", "tcp/256k-sequential-q8-discard/raw"}


def start(bench, programs, folder, *options):
    return subprocess.Popen([bench, *SMALL, "--programs", programs, "--output", folder, *options],
                            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def bench(*arguments):
    process = start(*arguments)
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def results_are_written(command, programs, folder):
    status, output, errors = bench(command, programs, folder, "--only", PICKED)
    assert status == 0, errors
    with open(os.path.join(folder, "results.json"), encoding="utf-8") as file:
        results = json.load(file)
    workloads = {workload["name"]: workload for workload in results["workloads"]}
    assert set(workloads) == WANTED, set(workloads)
    small = workloads["unix/4k-random-q32/qcow2"]
    assert set(small["servers"]) == {"underlay-nbd", "qemu-nbd", "nbdkit"}, small["servers"]
    for server in small["servers"].values():
        assert len(server["rounds"]) == 2, server
        for key in ("iops", "median_us", "p99_us", "cpu_us_per_operation", "rss_bytes"):
            assert server[key] > 0, f"{key}: {server}"
    assert {target["metric"] for target in small["targets"]} == {"iops", "cpu_us_per_operation"}
    idle = results["idle"][0]["servers"]["underlay-nbd"]
    assert idle["accepted"] == 1000 and idle["rss_bytes"] > 0, idle
    assert results["scales"][0]["servers"]["underlay-nbd"]["start_to_first_byte_ms"] > 0
    with open(os.path.join(folder, "results.md"), encoding="utf-8") as file:
        text = file.read()
    assert text in output and "| unix/4k-random-q32/qcow2 | IOPS: at least 6 x qemu-nbd |" in text
    picture = xml.etree.ElementTree.parse(os.path.join(folder, "chart.svg")).getroot()
    assert picture.tag.endswith("svg") and "unix/4k-random-q32/qcow2" in "".join(
        picture.itertext())


def targets_that_are_reached_are_counted(folder):
    """Also where the client was what limited: a server that could do more has reached them."""
    with open(os.path.join(folder, "results.json"), encoding="utf-8") as file:
        results = json.load(file)
    targets = [target for result in [*results["workloads"], *results["scales"]]
               for target in result["targets"]]
    for number, target in enumerate(targets):
        target["reached"] = number != 0
    for workload in results["workloads"]:
        for server in workload["servers"].values():
            server["client_limits"] = True
    text = report.markdown(results, "chart.svg")
    assert f"{len(targets) - 1} of {len(targets)} reached." in text, text


def refusals_are_one_line(command, programs, folder):
    """Each names what was wrong; nothing is measured, and nothing recorded."""
    for status, why, options in (
            (2, "--rounds", ["--rounds", "0"]), (2, "--seconds", ["--seconds", "0"]),
            (2, "--data 10: at least", ["--data", "10"]), (2, "--data ten", ["--data", "ten"]),
            (2, "--only [: ", ["--only", "["]), (2, "--record", ["--record", "--only", "idle"]),
            (1, "no such workload", ["--only", "nothing", "--programs", "/nowhere"]),
            (1, "/nowhere", ["--only", "idle", "--programs", "/nowhere"])):
        found, _, errors = bench(command, programs, folder, *options)
        last = errors.strip().splitlines()[-1]
        assert found == status and why in last and "Traceback" not in errors, \
            f"{options}: {found} {errors}"


def a_wrong_byte_fails_the_run(command, programs, folder):
    """The template changes, the qcow2 that was made of it does not."""
    with open(os.path.join(folder, "images-16M", "template.raw"), "r+b") as raw:
        raw.seek(5 << 20)
        page = raw.read(1 << 20)
        raw.seek(5 << 20)
        raw.write(bytes(byte ^ 1 for byte in page))
    status, _, errors = bench(command, programs, folder, "--only", "unix/4k-random-q32/qcow2")
    assert status == 1 and "the server has sent" in errors, f"{status}: {errors}"


def servers_of(process):
    """The processes that serve for a benchmark."""
    with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as file:
        children = file.read().split()
    found = []
    for child in children:
        with open(f"/proc/{child}/cmdline", "rb") as command:
            if b"/tmp/underlay-bench-" in command.read():
                found.append(int(child))
    return found


def an_interrupted_run_leaves_no_server(command, programs, folder):
    process = start(command, programs, folder, "--only", "unix/4k-random-q32/raw",
                    "--seconds", "60")
    harness.wait_for(lambda: len(servers_of(process)) >= 3, 20, "three servers run")
    serving = servers_of(process)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130 and "interrupted" in errors, f"{process.returncode} {errors}"
    assert not any(os.path.exists(f"/proc/{pid}") for pid in serving), serving


def what_was_written_by_hand_is_kept(folder):
    path = os.path.join(folder, "RESULTS.md")
    by_hand = f"\n{report.HAND_WRITTEN}\n\nIn the kernel.\n"
    with open(path, "w", encoding="utf-8") as out:
        out.write("old\n" + by_hand)
    for text in ("new\n", "newer\n"):
        report.record(path, text)
        with open(path, encoding="utf-8") as file:
            assert file.read() == text + by_hand


def main():
    command, programs = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        refusals_are_one_line(command, programs, folder)
        results_are_written(command, programs, folder)
        targets_that_are_reached_are_counted(folder)
        an_interrupted_run_leaves_no_server(command, programs, folder)
        a_wrong_byte_fails_the_run(command, programs, folder)
        what_was_written_by_hand_is_kept(folder)
    print("results, failures and interruption as they must be")


main()
