"""Huge sparse disks: from a server's start to its first byte, and its memory after many reads."""
import random
import socket
import statistics
import time

import images
import measuring
import nbd_client
import servers
import workloads

BLOCK = 4096
CONTENDERS = (servers.UNDERLAY, servers.QEMU)
FIRST_BYTE_DEADLINE = 20
CONNECT_PAUSE = 0.0002
HOLES_CHECKED = 1000  # blocks anywhere, nearly all of them never written


def connect(server):
    """The first connection that the server takes."""
    deadline = time.monotonic() + FIRST_BYTE_DEADLINE
    while True:
        try:
            client = nbd_client.Connection(server.path)
            break
        except (FileNotFoundError, ConnectionRefusedError, socket.timeout):
            server.check_alive()
            if time.monotonic() > deadline:
                raise servers.ServerFailure(f"{server.path}: nobody listens") from None
            time.sleep(CONNECT_PAUSE)
    client.greeting()
    client.go()
    return client


def first_byte_ms(programs, server, image, offset):
    with servers.spawn(programs, server, image) as running, connect(running) as client:
        client.read(offset, BLOCK)
        return (time.monotonic() - running.started) * 1000


def check_contents(client, image):
    """Every written cluster, and blocks anywhere: pattern or zeros."""
    chooser = random.Random(1)
    anywhere = [chooser.randrange(image.data_bytes // BLOCK) * BLOCK for _ in range(HOLES_CHECKED)]
    for offset in [*image.written, *anywhere]:
        byte = image.written.get(offset // images.CLUSTER * images.CLUSTER, 0)
        if client.read(offset, BLOCK).data != bytes([byte]) * BLOCK:
            raise measuring.ClientFailure(f"{image.path}: wrong contents at offset {offset}")


def measure(meter, scale, make_image):
    """The results of one huge disk, ready for JSON."""
    image = make_image(scale.kind)
    images.warm_page_cache(image)
    result = {"name": scale.name, "disk_bytes": image.data_bytes, "reads": scale.reads,
              "servers": {}, "targets": []}
    starts = {server: [] for server in CONTENDERS}
    for number in range(meter.rounds):
        meter.progress(f"{scale.name}: start {number + 1} of {meter.rounds}")
        for server in CONTENDERS:
            starts[server].append(
                first_byte_ms(meter.programs, server, image, next(iter(image.written))))
    random_reads = workloads.Workload(scale.name, (), BLOCK, scale.depth)
    for server in CONTENDERS:
        meter.progress(f"{scale.name}: {scale.reads} reads from {server}")
        with servers.serve(meter.programs, server, image) as running:
            with connect(running) as client:
                check_contents(client, image)
            load = meter.load(running, random_reads, image, "--operations", scale.reads)
            result["servers"][server] = {
                "start_to_first_byte_ms": statistics.median(starts[server]),
                "rounds_start_to_first_byte_ms": starts[server],
                "iops": load["iops"],
                "rss_bytes": running.memory_bytes("VmRSS"),
                "peak_rss_bytes": running.memory_bytes("VmHWM")}
    result["targets"] = judge(scale, result["servers"][servers.UNDERLAY])
    return result


def judge(scale, ours):
    memory_mib = scale.memory_beyond_caches_mib + workloads.CACHES_MIB
    limits = (("start to first byte, ms", "start_to_first_byte_ms", scale.first_byte_ms, 1),
              ("resident memory, MiB", "rss_bytes", memory_mib, 1 << 20))
    return [{"text": f"{what}: at most {wanted}", "metric": key, "peer": None, "wanted": wanted,
             "measured": ours[key] / unit, "of_wanted": wanted / max(ours[key] / unit, 1e-9),
             "reached": ours[key] / unit <= wanted} for what, key, wanted, unit in limits]
