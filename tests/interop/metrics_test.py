#!/usr/bin/python3
"""What --metrics tells is what clients did; a real Prometheus understands it.

usage: metrics_test.py UNDERLAY_NBD [RULE...]     RULE: part of a rule's name; only those run
"""
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import urllib.parse
import urllib.request

import clients_lab
import harness
import nbd_client as nbd
import rules_in_folders
from protocol_rules import check, expect

MONITORING = os.path.join(os.path.dirname(__file__), "..", "..", "tools", "monitoring")
SAMPLE = re.compile(r'^(\w+)(?:\{(.*)\})? (\S+)$')


class Lab(clients_lab.Lab):
    """A server that tells its metrics on a Unix socket, and reads them."""

    def serve_counted(self, *args):
        self.metrics = self.path("metrics")
        return self.serve("--metrics", self.metrics, "-e", "0", *args)

    def get(self, url="/metrics", method="GET"):
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = harness.connect(self.metrics)
        connection.request(method, url)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers

    def samples(self):
        """{(name, labels): value}"""
        status, text, _ = self.get()
        expect(status, 200, "status")
        found = {}
        for line in text.splitlines():
            if not line.startswith("#"):
                name, labels, value = SAMPLE.match(line).groups()
                found[name, labels or ""] = float(value)
        return found

    def wait_for_sample(self, key, value):
        """Requests are counted once they have been answered. The samples."""
        found = {}

        def is_there():
            found.update(self.samples())
            return found.get(key) == value

        harness.wait_for(is_there, 10, f"{key} is {value}")
        return found


def rule_what_clients_did_is_counted(lab):
    image, contents = lab.raw("a.raw")
    with lab.serve_counted("-f", "raw", "-x", "disk", image) as server:
        with clients_lab.connect(server, "disk", structured=True) as client:
            for length in (512, 4096, 1 << 20):
                clients_lab.check_read(client, contents, 0, length)
            expect(client.command_error(nbd.CMD_WRITE, 0, 512, payload=bytes(512)), nbd.EPERM, "")
            expect(client.command_error(nbd.CMD_FLUSH), 0, "FLUSH")
            label = 'export="disk"'
            samples = lab.wait_for_sample(("underlay_export_request_duration_seconds_count", label), 5)
        expect(samples["underlay_export_reads_total", label], 3, "reads")
        expect(samples["underlay_export_read_bytes_total", label], 512 + 4096 + (1 << 20), "bytes")
        expect(samples["underlay_export_errors_total", label], 1, "errors")
        expect(samples["underlay_export_other_requests_total", label], 1, "others")
        expect(samples["underlay_export_request_duration_seconds_count", label], 5, "latencies")
        expect(samples["underlay_clients", ""], 1, "clients")
        expect(samples["underlay_connections_total", ""], 1, "connections")
        layer = f'export="disk",layer="0",file="{image}"'
        expect(samples["underlay_layer_read_bytes_total", layer], 512 + 4096 + (1 << 20), "layer")
        lab.wait_for_sample(("underlay_export_clients", label), 0)
        lab.wait_for_sample(("underlay_clients", ""), 0)


def rule_a_histogram_adds_up(lab):
    image, _ = lab.raw("a.raw")
    with lab.serve_counted("-f", "raw", image) as server:
        with clients_lab.connect(server) as client:
            for _ in range(100):
                client.read(0, 4096)
            samples = lab.wait_for_sample(
                ("underlay_export_request_duration_seconds_count", 'export=""'), 100)
    buckets = [value for (name, _), value in samples.items()
               if name == "underlay_export_request_duration_seconds_bucket"]
    expect(buckets, sorted(buckets), "buckets are cumulative")
    expect(buckets[-1], 100, "the last bucket")
    total = samples["underlay_export_request_duration_seconds_sum", 'export=""']
    check(0 < total < 60, f"{total} s for 100 reads")


def rule_caches_and_unpacking_are_counted(lab):
    image, contents = lab.compressed("a.qcow2", size=4 << 20)
    with lab.serve_counted("-f", "qcow2", image) as server:
        with clients_lab.connect(server) as client:
            for _ in range(2):
                clients_lab.check_read(client, contents, 0, 1 << 20)
        samples = lab.wait_for_sample(("underlay_export_reads_total", 'export=""'), 2)
    check(samples["underlay_unpacked_bytes_total", ""] >= 1 << 20, "unpacked bytes")
    check(samples["underlay_unpacking_seconds_total", ""] > 0, "time for it")
    check(samples["underlay_cache_loads_total", 'cache="clusters"'] >= 16, "loads")
    check(samples["underlay_cache_hits_total", 'cache="clusters"'] >= 16, "hits")
    check(samples["underlay_cache_bytes", 'cache="clusters"'] >= 1 << 20, "bytes")


def rule_an_export_of_a_folder_keeps_its_counts_when_its_clients_leave(lab):
    image, contents = lab.image("images", 'a"b.qcow2')
    with lab.serve_counted("--directory", os.path.dirname(image)) as server:
        for reads in (1, 2):
            with clients_lab.connect(server, 'a"b.qcow2') as client:
                clients_lab.check_read(client, contents, 0, 4096)
            lab.wait_for_sample(("underlay_export_reads_total", 'export="a\\"b.qcow2"'), reads)


def rule_only_get_of_metrics_is_answered(lab):
    image, _ = lab.raw("a.raw")
    with lab.serve_counted("-f", "raw", image):
        status, _, headers = lab.get()
        expect((status, headers["Content-Type"].split(";")[0]), (200, "text/plain"), "GET /metrics")
        expect(lab.get("/")[0], 404, "GET /")
        expect(lab.get("/metrics", "POST")[0], 405, "POST")
        expect(lab.get("/metrics", "HEAD")[1], "", "HEAD")


def rule_whoever_is_slow_or_talks_nonsense_harms_nobody(lab):
    image, contents = lab.raw("a.raw")
    with lab.serve_counted("-f", "raw", image) as server:
        silent = []
        for _ in range(40):  # more than it takes at a time
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            try:
                client.connect(lab.metrics)
            except BlockingIOError:
                pass
            silent.append(client)
        with clients_lab.connect(server) as client:
            clients_lab.check_read(client, contents, 0, 4096)
        for client in silent:
            client.close()
        for words in (b"\0" * 100, b"GET /metrics HTTP/9.9\r\n\r\n", b"GET " + b"x" * 100000):
            with harness.connect(lab.metrics) as client:
                try:
                    client.sendall(words)
                    client.shutdown(socket.SHUT_WR)
                    while client.recv(4096):
                        pass
                except OSError:
                    pass
        harness.wait_for(lambda: answers(lab), 20, "the next one is answered")


def answers(lab):
    try:
        return lab.get()[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def rule_slow_requests_are_logged(lab):
    image, _ = lab.raw("a.raw")
    rule = "*,bandwidth=1M"
    with lab.serve_counted("-f", "raw", "--slow-requests", "100", "--export-rule", rule,
                           image) as server:
        with clients_lab.connect(server) as client:
            for cookie in range(3):
                client.send_request(nbd.CMD_READ, 0, 512 << 10, cookie)
            for cookie in range(3):
                client.answer(512 << 10, 0, cookie, is_read=True)
        harness.wait_for(lambda: "slow: export" in server.stderr(), 10, "a line")
        check("524288 bytes at offset 0" in server.stderr(), server.stderr())


def rule_an_address_that_cannot_be_is_refused(lab):
    image, _ = lab.raw("a.raw")
    for address in ("nowhere", "127.0.0.1:70000", "/no/such/folder/socket", ""):
        status, _, errors = harness.run([lab.program, "-k", lab.path("s"), "-f", "raw", "--metrics",
                                         address, image])
        check(status in (1, 2) and "--metrics" in errors or "/no/such" in errors,
              f"{address}: {status} {errors}")


def rule_a_real_prometheus_reads_them(lab):
    image, contents = lab.raw("a.raw")
    port, web = harness.free_port(), harness.free_port()
    config = lab.path("prometheus.yml")
    with open(config, "w", encoding="utf-8") as out:
        out.write("global: {scrape_interval: 1s}\n"
                  "rule_files: [" + os.path.realpath(MONITORING) + "/alerts.yml]\n"
                  "scrape_configs:\n- job_name: underlay\n  static_configs:\n"
                  f"  - targets: ['127.0.0.1:{port}']\n")
    with lab.serve("--metrics", f"127.0.0.1:{port}", "-f", "raw", "-x", "disk", image) as server:
        prometheus = subprocess.Popen(
            ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={lab.path('tsdb')}",
             f"--web.listen-address=127.0.0.1:{web}", "--log.level=error"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with clients_lab.connect(server, "disk") as client:
                clients_lab.check_read(client, contents, 0, 4096)
            harness.wait_for(lambda: asked(web, 'underlay_export_reads_total{export="disk"}') == "1",
                             60, "Prometheus has the reads")
            check(float(asked(web, "histogram_quantile(0.5, "
                                   "underlay_export_request_duration_seconds_bucket)")) < 10,
                  "a median")
        finally:
            prometheus.terminate()
            prometheus.wait(20)


def asked(port, query):
    """The value that Prometheus has for a query, None as long as it has none."""
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            result = json.load(answer)["data"]["result"]
    except (OSError, ValueError):
        return None
    return result[0]["value"][1] if result else None


def rule_dashboard_and_alerts_name_what_there_is(lab):
    image, _ = lab.raw("a.raw")
    with lab.serve_counted("-f", "raw", image):
        _, text, _ = lab.get()
    told = set(re.findall(r"# TYPE (\w+)", text))
    for name in ("alerts.yml", "grafana-dashboard.json"):
        with open(os.path.join(MONITORING, name), encoding="utf-8") as file:
            used = set(re.findall(r"underlay_\w+", file.read()))
        used = {re.sub(r"_(bucket|sum|count)$", "", word) for word in used}
        check(used and used <= told, f"{name} names {used - told}, which the server does not tell")
    with open(os.path.join(MONITORING, "grafana-dashboard.json"), encoding="utf-8") as file:
        json.load(file)
    for command, words in ((["promtool", "check", "rules", MONITORING + "/alerts.yml"], ""),
                           (["promtool", "check", "metrics"], text)):
        done = subprocess.run(command, input=words, capture_output=True, text=True, timeout=60)
        expect(done.returncode, 0, f"{command}: {done.stdout}{done.stderr}")


rules_in_folders.main(Lab, sys.modules[__name__])
