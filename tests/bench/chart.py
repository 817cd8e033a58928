"""The results as a picture: how much each server does, qemu-nbd being 1."""
import statistics

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
matplotlib.rcParams["svg.hashsalt"] = "underlay"  # the same results, the same file
import matplotlib.pyplot as pyplot
from matplotlib.ticker import FuncFormatter

import servers

COLOURS = {servers.UNDERLAY: "#1f6f8b", servers.QEMU: "#c9ccd1", servers.NBDKIT: "#e0a458"}
BAR = 0.26
INCHES_PER_WORKLOAD = 0.52
SMALL = 64 << 10  # below it operations count, from it on bytes


def amount(server, size):
    if size < SMALL:
        return f"{server['iops'] / 1000:,.1f} k/s"
    return f"{server['mib_per_s']:,.0f} MiB/s"


def beside_qemu(workload, label):
    """The median of the rounds' ratios, as in the tables."""
    rounds = zip(workload["servers"][label]["rounds"], workload["servers"][servers.QEMU]["rounds"])
    return statistics.median(one["iops"] / other["iops"] for one, other in rounds)


def draw(results, path):
    """Workloads that qemu-nbd ran, from the top in the results' order. Writes SVG."""
    shown = [workload for workload in results["workloads"]
             if servers.QEMU in workload["servers"]]
    figure, axes = pyplot.subplots(figsize=(11, 1.6 + INCHES_PER_WORKLOAD * max(len(shown), 1)))
    for place, workload in enumerate(shown):
        for index, label in enumerate(COLOURS):
            if label in workload["servers"]:
                draw_bar(axes, place + (index - 1) * BAR, beside_qemu(workload, label), label,
                         amount(workload["servers"][label], workload["size_bytes"]))
    finish(axes, [workload["name"] for workload in shown])
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def draw_bar(axes, y, ratio, label, text):
    axes.barh(y, ratio, height=BAR * 0.92, color=COLOURS[label], zorder=2)
    axes.text(ratio * 1.04, y, f"{ratio:.1f}x   {text}", va="center", fontsize=7,
              color="#222222" if label == servers.UNDERLAY else "#666666")


def finish(axes, names):
    axes.set_xscale("log")
    _, most = axes.get_xlim()
    axes.set_xlim(0.3, max(most, 10) * 2.5)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.axvline(1, color="#888888", linewidth=0.8, zorder=1)
    axes.grid(axis="x", color="#eeeeee", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("throughput, qemu-nbd on the same image = 1 (logarithmic); "
                    "nbdkit serves the raw template")
    bars = [pyplot.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS.values()]
    axes.legend(bars, COLOURS, loc="lower right", bbox_to_anchor=(1, 1), ncol=3, frameon=False)
