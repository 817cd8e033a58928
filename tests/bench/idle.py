"""Idle connections: what many open ones that say nothing add to a server."""
import contextlib
import resource
import time

import nbd_client
import servers

CONTENDERS = (servers.UNDERLAY, servers.QEMU, servers.NBDKIT)
SPARE_FILES = 200  # besides those of the connections
SETTLE_SECONDS = 0.3


def allow_files(count):
    """For this process and the servers it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


def cpu_share(server, seconds):
    """CPU seconds in each second, while nobody asks for anything."""
    time.sleep(SETTLE_SECONDS)
    began = time.monotonic()
    before = server.cpu_seconds()
    time.sleep(seconds)
    return (server.cpu_seconds() - before) / (time.monotonic() - began)


def open_connections(server, count, stack):
    """How many the server has taken, up to the first that it refuses or does not answer."""
    for number in range(count):
        try:
            client = stack.enter_context(nbd_client.Connection(server.path))
            client.greeting()
            client.go()
        except (OSError, nbd_client.Closed, nbd_client.ProtocolError):
            return number
    return count


def measure(meter, idle, make_image):
    """The results, ready for JSON."""
    allow_files(2 * idle.connections + SPARE_FILES)
    image = make_image(idle.kind)
    result = {"name": idle.name, "connections": idle.connections, "servers": {}}
    for server in CONTENDERS:
        meter.progress(f"{idle.name}: {server}")
        with (servers.serve(meter.programs, server, image) as running,
              contextlib.ExitStack() as stack):
            found = {"rss_before_bytes": running.memory_bytes("VmRSS"),
                     "cpu_before": cpu_share(running, meter.seconds)}
            found["accepted"] = open_connections(running, idle.connections, stack)
            found["cpu"] = cpu_share(running, meter.seconds)
            found["rss_bytes"] = running.memory_bytes("VmRSS")
            running.check_alive()
        result["servers"][server] = found
    return result
