"""Measures one workload: all its servers run, and are measured in turn, round after round."""
import contextlib
import json
import os
import statistics
import subprocess

import images
import servers
import workloads

# key in results: heading, digits
METRICS = {
    "iops": ("IOPS", 0),
    "mib_per_s": ("MiB/s", 0),
    "median_us": ("median us", 1),
    "p99_us": ("p99 us", 0),
    "cpu_us_per_operation": ("CPU us/op", 2),
    "cpu_s_per_gib": ("CPU s/GiB", 3),
}
VERIFY_SECONDS = 0.4
WARM_BLOCK = 64 << 10
# A client with such a share of its core was what limited. fio's own figure was 0.85 to 0.95 where
# its thread ran or waited for its core 0.93 to 0.99 of the time. A client whose core others use,
# too, stays below these shares and is not marked.
CLIENT_LIMITS = {workloads.NBD_LOAD: 0.97, workloads.FIO: 0.85}


class ClientFailure(Exception):
    """A server's replies are not what the template has, or it failed to answer."""


class Meter:
    """How measuring is done. `progress`: a function that shows a line."""

    def __init__(self, programs, rounds, seconds, progress):
        self.programs = programs
        self.rounds = rounds
        self.seconds = seconds
        self.progress = progress
        # The client has the last core; servers run wherever the kernel puts them.
        self.core = max(os.sched_getaffinity(0))

    def _client(self, command):
        done = subprocess.run(["taskset", "-c", str(self.core), *command], text=True,
                              capture_output=True)
        if done.returncode != 0:
            raise ClientFailure(f"{' '.join(command)}: {done.stderr.strip()}")
        # fio says a word before its JSON.
        return json.loads(done.stdout[done.stdout.index("{"):])

    def load(self, server, workload, image, *extra):
        """One run of nbd-load as the workload wants it."""
        options = ["--size", workload.size, "--depth", workload.depth,
                   "--connections", workload.connections, "--range", reach(workload, image)]
        if workload.sequential:
            options += ["--pattern", "sequential"]
        if workload.batch:
            options.append("--batch")
        if workload.discard:
            options.append("--discard")
        return self._client([self.programs.nbd_load, *server.target, *map(str, options),
                             *map(str, extra)])

    def fio(self, server, workload, image, seed):
        pattern = "read" if workload.sequential else "randread"
        whole_seconds = max(1, round(self.seconds))
        output = self._client([
            "fio", "--name=load", "--thread", "--ioengine=nbd", f"--uri={server.uri}",
            f"--rw={pattern}", f"--bs={workload.size}", f"--iodepth={workload.depth}",
            f"--size={reach(workload, image)}", "--time_based", f"--runtime={whole_seconds}",
            f"--randseed={seed}", "--output-format=json"])
        job = output["jobs"][0]
        read = job["read"]
        percentiles = read["clat_ns"]["percentile"]
        return {"operations": read["total_ios"], "seconds": read["runtime"] / 1000,
                "iops": read["iops"], "mib_per_s": read["bw_bytes"] / (1 << 20),
                "median_us": percentiles["50.000000"] / 1000,
                "p99_us": percentiles["99.000000"] / 1000,
                "client_cpu": (job["usr_cpu"] + job["sys_cpu"]) / 100}

    def _verify(self, server, workload, image):
        """The contents, in the configuration that is timed. Warms caches up, too."""
        workload = workload._replace(discard=False)
        if workload.cold:
            images.drop_from_page_cache(image)
        elif workload.range_bytes:
            area = reach(workload, image)
            warm = workload._replace(size=WARM_BLOCK, sequential=True)
            self.load(server, warm, image, "--operations", area // WARM_BLOCK,
                      "--verify", image.raw)
        seconds = min(VERIFY_SECONDS, self.seconds)
        self.load(server, workload, image, "--seconds", seconds, "--verify", image.raw)

    def _once(self, server, workload, image, seed):
        if workload.cold:
            images.drop_from_page_cache(image)
        before = server.cpu_seconds()
        if workload.client == workloads.FIO:
            found = self.fio(server, workload, image, seed)
        else:
            amount = (("--operations", operations(workload, image)) if workload.operations
                      else ("--seconds", self.seconds))
            found = self.load(server, workload, image, *amount, "--seed", seed)
        server.check_alive()
        cpu = server.cpu_seconds() - before
        done = max(found["operations"], 1)
        found["cpu_us_per_operation"] = cpu / done * 1e6
        found["cpu_s_per_gib"] = cpu / (done * workload.size) * (1 << 30)
        return found

    def measure(self, workload, make_image):
        """The results of one workload, ready for JSON. `make_image`: from a kind to an Image."""
        found = {contender.label: make_image(contender.kind)
                 for contender in workload.contenders}
        for image in {image.path: image for image in found.values()}.values():
            images.warm_page_cache(image)
        rounds = {label: [] for label in found}
        memory = {}
        with contextlib.ExitStack() as stack:
            running = {}
            for contender in workload.contenders:
                self.progress(f"{workload.name}: verifying {contender.label}")
                image = found[contender.label]
                running[contender.label] = stack.enter_context(servers.serve(
                    self.programs, contender.server, image, contender.options, workload.transport))
                self._verify(running[contender.label], workload, image)
            for number in range(self.rounds):
                for label in in_turn(list(running), number):
                    self.progress(f"{workload.name}: round {number + 1} of {self.rounds}, {label}")
                    rounds[label].append(
                        self._once(running[label], workload, found[label], number + 1))
            for label, server in running.items():
                memory[label] = (server.memory_bytes("VmRSS"), server.memory_bytes("VmHWM"))
        return summary(workload, rounds, memory)


def in_turn(labels, number):
    """Each round begins with another one."""
    start = number % len(labels)
    return labels[start:] + labels[:start]


def reach(workload, image):
    """How many bytes at the image's front are read."""
    return min(workload.range_bytes or image.data_bytes, image.data_bytes)


def operations(workload, image):
    """An eighth of the data at most, so that what is cold stays so."""
    return min(workload.operations, reach(workload, image) // workload.size // 8)


def spread(values):
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def summary(workload, rounds, memory):
    ours = workload.contenders[0].label
    result = {"name": workload.name, "client": workload.client, "transport": workload.transport,
              "size_bytes": workload.size, "depth": workload.depth,
              "connections": workload.connections, "batch": workload.batch,
              "discard": workload.discard,
              "pattern": "sequential" if workload.sequential else "random",
              "servers": {}, "ratios": {}, "targets": []}
    for label, values in rounds.items():
        server = {key: statistics.median(value[key] for value in values) for key in METRICS}
        server["client_cpu"] = statistics.median(value["client_cpu"] for value in values)
        server["client_limits"] = server["client_cpu"] >= CLIENT_LIMITS[workload.client]
        server["rss_bytes"], server["peak_rss_bytes"] = memory[label]
        server["rounds"] = values
        result["servers"][label] = server
        if label != ours:
            result["ratios"][label] = {
                key: spread([mine[key] / max(theirs[key], 1e-9)
                             for mine, theirs in zip(rounds[ours], values)])
                for key in METRICS}
    result["targets"] = [judged(target, result["ratios"]) for target in workload.targets]
    return result


def judged(target, ratios):
    """A target beside what was measured; `of_wanted`: at least 1 when it is reached."""
    measured = ratios[target.peer][target.metric]["median"]
    share = measured / target.wanted if target.at_least else target.wanted / max(measured, 1e-9)
    relation = "at least" if target.at_least else "at most"
    return {"text": f"{METRICS[target.metric][0]}: {relation} {target.wanted:.3g} x {target.peer}",
            "metric": target.metric, "peer": target.peer, "wanted": target.wanted,
            "measured": measured, "of_wanted": share, "reached": share >= 1}
