"""The results as text: Markdown tables, for results.md and RESULTS.md."""
import os
import platform
import re
import subprocess

import measuring

HAND_WRITTEN = "## Where the time goes"


def machine(folder):
    """What the numbers depend on. `folder`: where the images lie."""
    with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        model = re.search(r"model name\s*: (.*)", cpuinfo.read())
    with open("/proc/meminfo", encoding="ascii") as meminfo:
        memory = int(re.search(r"MemTotal:\s*(\d+)", meminfo.read())[1])
    file_system = subprocess.run(["stat", "-f", "-c", "%T", folder], text=True,
                                 stdout=subprocess.PIPE).stdout.strip()
    return {"cpu": model[1] if model else platform.machine(),
            "processors": len(os.sched_getaffinity(0)), "memory_bytes": memory * 1024,
            "kernel": platform.release(), "file_system": file_system,
            "load_before": os.getloadavg()[0]}


def table(headings, rows, text_columns=1):
    """The first columns are text, the others numbers."""
    lines = ["| " + " | ".join(headings) + " |",
             "|" + "---|" * text_columns + "---:|" * (len(headings) - text_columns)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def mib(value):
    return f"{value / (1 << 20):.0f}"


def target_rows(results):
    for result in [*results["workloads"], *results["scales"]]:
        for target in result["targets"]:
            measured = f"{target['measured']:.3g}"
            reached = "yes" if target["reached"] else f"no: {target['of_wanted']:.0%} of it"
            if any(server.get("client_limits") for server in result["servers"].values()):
                reached += " (client limits)"
            yield result["name"], target["text"], measured, reached


def with_spread(ratio):
    return f"{ratio['median']:.2f} ({ratio['least']:.2f}-{ratio['most']:.2f})"


def workload_rows(workload):
    yield f"**{workload['name']}**", *[""] * (len(measuring.METRICS) + 4)
    for label, server in workload["servers"].items():
        ratios = workload["ratios"].get(label)
        compared = ([with_spread(ratios["iops"]), f"{ratios['cpu_us_per_operation']['median']:.2f}"]
                    if ratios else ["", ""])
        yield (label + (" (client limits)" if server["client_limits"] else ""),
               *[f"{server[key]:,.{digits}f}" for key, (_, digits) in measuring.METRICS.items()],
               mib(server["rss_bytes"]), mib(server["peak_rss_bytes"]), *compared)


def scale_rows(scale):
    yield f"**{scale['name']}**", "", "", "", ""
    for label, server in scale["servers"].items():
        yield (label, f"{server['start_to_first_byte_ms']:.1f}", f"{server['iops']:,.0f}",
               mib(server["rss_bytes"]), mib(server["peak_rss_bytes"]))


def idle_rows(idle):
    yield f"**{idle['name']}**", *[""] * 5
    for label, server in idle["servers"].items():
        each = (server["rss_bytes"] - server["rss_before_bytes"]) / max(server["accepted"], 1)
        yield (label, str(server["accepted"]), mib(server["rss_before_bytes"]),
               f"{each / 1024:.1f}", f"{server['cpu_before'] * 1000:.2f}",
               f"{server['cpu'] * 1000:.2f}")


def introduction(results):
    about = results["machine"]
    versions = "; ".join(f"{name}: {text}" for name, text in results["versions"].items())
    lines = [
        "# Underlay beside its peers", "",
        f"Measured by `tools/bench` on {results['date']}, Underlay at {results['commit']}.", "",
        f"* Machine: {about['processors']} x {about['cpu']}, {about['memory_bytes'] >> 30} GiB, "
        f"Linux {about['kernel']}, images on {about['file_system']}; "
        f"load average before: {about['load_before']:.1f}",
        f"* {versions}",
        f"* Template: {results['data_bytes'] >> 20} MiB of files of /usr at the front of a disk "
        f"{results['data_bytes'] * 4 >> 20} MiB large; reads keep within the data",
        f"* {results['rounds']} rounds of {results['seconds']} s; the servers of a workload run at "
        "the same time and are measured in turn, the client pinned to a core. Values are medians, "
        "ratios medians of the rounds' ratios (least and most in brackets). nbdkit always serves "
        "the raw template. Contents were compared with it in the same configuration before.",
        "* CPU is the server's, all its threads and the kernel's work for them.",
        '* "Client limits": the client used its core up, and the server could have done more; its '
        "ratios are then the client's at least in part.",
        '* Workloads with "discard": the client receives the headers of replies and splices their '
        "payload to /dev/null in the kernel, whichever server it is, because copying the payload "
        "can take all of its core. That saves it most where a server sends the pages of a file "
        "themselves, as ours does. "
        'The rows of the same name without "discard" are measured with '
        "the client that copies, and contents are always verified with that one."]
    lines += [f"* Left out: {notice}" for notice in results["left_out"]]
    return "\n".join(lines) + "\n"


def markdown(results, chart):
    """`chart`: the name of the picture beside the text."""
    parts = [introduction(results), f"![Throughput, qemu-nbd = 1]({chart})\n"]
    rows = list(target_rows(results))
    if rows:
        reached = sum(row[-1] == "yes" for row in rows)
        parts += ["## Targets\n", f"{reached} of {len(rows)} reached.\n",
                  table(["workload", "target", "measured", "reached"], rows, text_columns=2)]
    if results["workloads"]:
        headings = ["workload", *[heading for heading, _ in measuring.METRICS.values()],
                    "RSS MiB", "peak", "IOPS, ours : this", "CPU"]
        parts += ["## Workloads\n", "The last columns: IOPS, and CPU per operation, of the first "
                  "server divided by this one's.\n", table(headings, [
            row for workload in results["workloads"] for row in workload_rows(workload)])]
    if results["idle"]:
        headings = ["connections", "accepted", "RSS MiB before", "added, KiB each",
                    "CPU ms/s before", "with them"]
        parts += ["## Idle connections\n", "Each has entered the export and says nothing. What "
                  "they add to the server: resident memory, and CPU time while they are open.\n",
                  table(headings, [row for idle in results["idle"] for row in idle_rows(idle)])]
    if results["scales"]:
        parts += ["## Huge sparse disks\n",
                  f"{results['scales'][0]['reads']} random reads of 4 KiB all over the disk.\n",
                  table(["disk", "start to first byte, ms", "IOPS", "RSS MiB", "peak"], [
                      row for scale in results["scales"] for row in scale_rows(scale)])]
    return "\n".join(parts)


def record(path, text):
    """Replaces the file but for its hand-written section, which is at its end."""
    kept = ""
    if os.path.exists(path):
        with open(path, encoding="utf-8") as old:
            _, heading, after = old.read().partition("\n" + HAND_WRITTEN)
            kept = heading + after
    with open(path, "w", encoding="utf-8") as out:
        out.write(text + kept)
