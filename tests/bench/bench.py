"""The benchmark's run from its command line to its files; tools/bench says what it does."""
import argparse
import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import idle
import images
import measuring
import report
import scale
import servers
import workloads

SOURCE = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
RECORDED = os.path.join(SOURCE, "tests", "bench")
FULL_DATA = "1G"
QUICK_DATA = "128M"


class BenchFailure(Exception):
    """The benchmark cannot go on; the message is for its user."""


def arguments():
    parser = argparse.ArgumentParser(
        prog="tools/bench", description="Measures underlay-nbd beside qemu-nbd and nbdkit. Writes "
        "results.json, results.md and chart.svg to build/bench.")
    parser.add_argument("--quick", action="store_true", help="a minute, not a quarter of an hour")
    parser.add_argument("--only", metavar="PATTERN", help="workloads whose name the regular "
                        "expression is found in, of all")
    parser.add_argument("--rounds", type=int, help="rounds of each workload (5; --quick: 3)")
    parser.add_argument("--seconds", type=float,
                        help="that a server is measured for in each round (1; --quick: 0.25)")
    parser.add_argument("--record", action="store_true",
                        help="also write tests/bench/RESULTS.md and chart.svg")
    parser.add_argument("--data", help=f"size of the template's data ({FULL_DATA}; "
                        f"--quick: {QUICK_DATA})")
    parser.add_argument("--list", action="store_true", help="name the workloads and end")
    parser.add_argument("--programs", metavar="DIR", help="measure the programs in this folder "
                        "instead of building them")
    parser.add_argument("--output", metavar="DIR", default=os.path.join(SOURCE, "build", "bench"),
                        help="folder for results and images instead of build/bench")
    given = parser.parse_args()
    given.rounds = given.rounds or (3 if given.quick else 5)
    given.seconds = given.seconds or (0.25 if given.quick else 1.0)
    given.data = given.data or (QUICK_DATA if given.quick else FULL_DATA)
    if given.rounds < 1 or given.seconds <= 0:
        parser.error("--rounds and --seconds are at least 1 round and some time")
    return given


class Progress:
    """A line on standard error that changes, when that is a terminal."""

    def __init__(self):
        self._on_terminal = sys.stderr.isatty()
        self.prefix = ""

    def __call__(self, text):
        if self._on_terminal:
            shown = f"{self.prefix}{text}"[:shutil.get_terminal_size().columns]
            sys.stderr.write("\r\033[K" + shown)
            sys.stderr.flush()

    def clear(self):
        self.prefix = ""
        self("")


def build():
    """The release preset's programs; their folder."""
    launcher = (["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else [])
    for command in (["tools/install-packages", "bench"],
                    ["cmake", "--preset", "release", *launcher],
                    ["cmake", "--build", "--preset", "release", "--target", "underlay-nbd",
                     "nbd-load"]):
        done = subprocess.run(command, cwd=SOURCE, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        if done.returncode != 0:
            raise BenchFailure(f"{' '.join(command)} failed\n{done.stdout}")
    return os.path.join(SOURCE, "build", "release", "bin")


def chosen(given, everything):
    if given.only:
        return [one for one in everything if re.search(given.only, one.name)]
    return [one for one in everything if one.quick or not given.quick]


def missing(workload, programs, kinds):
    """Why a workload cannot run, or None."""
    if workload.needs and not programs.has_option(workload.needs):
        return f"{workload.name}: underlay-nbd has no {workload.needs}"
    for contender in workload.contenders:
        image_format = kinds.get(contender.kind, ("qcow2",))[0]
        if not programs.reads(image_format):
            return f"{workload.name}: underlay-nbd does not read {image_format}"
    return None


def commit():
    command = ["git", "-C", SOURCE, "describe", "--always", "--dirty"]
    done = subprocess.run(command, text=True, capture_output=True)
    return done.stdout.strip() or "an unknown commit"


def one_line(result):
    """A workload's result as it comes in."""
    (ours, first), *_ = result["servers"].items()
    ratios = "".join(f"   {ratio['iops']['median']:6.2f} x {peer}"
                     for peer, ratio in result["ratios"].items())
    missed = sum(not target["reached"] for target in result["targets"])
    return (f"{result['name']:44} {ours} {first['iops']:9.0f}/s {first['mib_per_s']:7.0f} MiB/s"
            f"{ratios}" + (f"   {missed} of {len(result['targets'])} targets missed"
                           if missed else ""))


def measure_all(given, programs, progress):
    """Everything that was asked for, ready for JSON."""
    picked = chosen(given, workloads.all_workloads())
    scales = chosen(given, workloads.all_scales())
    idles = chosen(given, workloads.all_idle())
    if not picked and not scales and not idles:
        raise BenchFailure(f"--only {given.only}: no such workload; --list names them")
    data_bytes = images.parse_bytes(given.data)
    made = images.Images(os.path.join(given.output, f"images-{given.data}"), data_bytes, progress)
    meter = measuring.Meter(programs, given.rounds, given.seconds, progress)
    results = {"date": datetime.date.today().isoformat(), "commit": commit(),
               "machine": report.machine(given.output), "versions": programs.versions(),
               "data_bytes": data_bytes, "rounds": given.rounds, "seconds": given.seconds,
               "left_out": [], "workloads": [], "scales": [], "idle": []}
    total = len(picked) + len(scales) + len(idles)
    for number, workload in enumerate(picked):
        progress.prefix = f"[{number + 1}/{total}] "
        reason = missing(workload, programs, images.KINDS)
        if reason:
            results["left_out"].append(reason)
            continue
        results["workloads"].append(meter.measure(workload, made.get))
        progress("")
        print(one_line(results["workloads"][-1]), flush=True)
    for number, one in enumerate(scales):
        progress.prefix = f"[{len(picked) + number + 1}/{total}] "
        results["scales"].append(scale.measure(meter, one, made.get))
    progress.prefix = ""
    results["idle"] = [idle.measure(meter, one, made.get) for one in idles]
    progress.clear()
    return results


def write(given, results):
    import chart  # not before its library has been installed
    with open(os.path.join(given.output, "results.json"), "w", encoding="utf-8") as out:
        json.dump(results, out, indent=1)
    text = report.markdown(results, "chart.svg")
    report.record(os.path.join(given.output, "results.md"), text)
    chart.draw(results, os.path.join(given.output, "chart.svg"))
    if given.record:
        report.record(os.path.join(RECORDED, "RESULTS.md"), text)
        chart.draw(results, os.path.join(RECORDED, "chart.svg"))
    print("\n" + text)
    print(f"{given.output}: results.json, results.md, chart.svg")


def run(given):
    if given.list:
        for one in [*workloads.all_workloads(), *workloads.all_scales(), *workloads.all_idle()]:
            print(one.name + ("   (quick)" if one.quick else ""))
        return
    progress = Progress()
    os.makedirs(given.output, exist_ok=True)
    progress("building")
    programs = servers.Programs(given.programs or build())
    write(given, measure_all(given, programs, progress))


def interrupted(*_):
    raise KeyboardInterrupt


def main():
    given = arguments()
    signal.signal(signal.SIGTERM, interrupted)
    try:
        run(given)
    except KeyboardInterrupt:
        print("\ntools/bench: interrupted; its servers have ended", file=sys.stderr)
        sys.exit(130)
    except (BenchFailure, images.ImageFailure, measuring.ClientFailure, servers.ServerFailure,
            ValueError) as failure:
        print(f"\ntools/bench: {failure}", file=sys.stderr)
        sys.exit(1)
