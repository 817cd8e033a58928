"""Rules of sockets: TCP, several listening sockets, several connections."""
import contextlib
import select
import socket

import harness
import nbd_client as nbd
from clients_lab import MIB, check_read, connect, run
from protocol_rules import check, expect

PORT_ATTEMPTS = 5  # somebody else may take the port before the server does
QUIET_SECONDS = 0.3


@contextlib.contextmanager
def serve_tcp(lab, host, *args):
    """A server on a port of `host` that was free; '' is every address of both families."""
    with contextlib.ExitStack() as stack:
        for attempt in range(1, PORT_ATTEMPTS + 1):
            port = harness.free_port(host or "::")
            command = [lab.program, "-r", "-t", "-b", host, "-p", port, *args]
            try:
                server = stack.enter_context(harness.start(command, port))
                break
            except harness.ServerFailure as failure:
                if "Address already in use" not in str(failure) or attempt == PORT_ATTEMPTS:
                    raise
        yield server


def greeted(clients):
    """Those of `clients` that the server talks to: at least one, and no more join after it."""
    check(select.select(clients, [], [], harness.DEADLINE)[0], "nobody is greeted")
    select.select([], [], [], QUIET_SECONDS)
    return select.select(clients, [], [], 0)[0]


def rule_tcp_serves_equal_contents_over_ipv4_and_ipv6(lab):
    image, contents = lab.raw("disk.raw", size=20 * MIB + 512)
    for host, other in (("127.0.0.1", "::1"), ("::1", "127.0.0.1")):
        with serve_tcp(lab, host, "-e", "8", "-f", "raw", image) as server:
            authority = f"[{host}]" if ":" in host else host
            lab.check_copy(f"nbd://{authority}:{server.socket}", contents)
            run("qemu-img", "compare", "-f", "raw", "-F", "raw", image,
                f"nbd://{authority}:{server.socket}")
            try:
                socket.create_connection((other, server.socket), harness.DEADLINE).close()
                raise AssertionError(f"bound to {host}, serves {other}")
            except ConnectionRefusedError:
                pass


def rule_one_client_at_a_time_holds_for_two_listening_sockets_together(lab):
    image, _ = lab.raw("disk.raw")
    with serve_tcp(lab, "", "-e", "1", "-f", "raw", image) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection((host, server.socket)))
                   for host in ("127.0.0.1", "::1", "::1", "127.0.0.1")]
        while clients:
            served = greeted(clients)
            expect(len(served), 1, "clients served at the same time")
            clients.remove(served[0])
            served[0].close()


def rule_several_connections_are_offered_where_several_clients_may_connect(lab):
    image, contents = lab.raw("disk.raw")
    for limit, offered in (("1", False), ("2", True), ("0", True)):
        with lab.serve("-e", limit, "-f", "raw", image) as server:
            with connect(server) as connection:
                expect(bool(connection.export.flags & nbd.CAN_MULTI_CONN), offered, f"-e {limit}")
                if offered:
                    with connect(server) as second:
                        check_read(second, contents, 0, 4096)
                        check_read(connection, contents, 4096, 4096)


def rule_fio_verifies_what_it_reads(lab):
    image = lab.path("fio.raw")
    job = ["fio", "--name=job", "--output-format=terse", "--bs=4k", "--size=8M", "--verify=crc32c",
           "--verify_state_save=0"]
    run(*job, "--ioengine=psync", "--rw=write", "--do_verify=0", "--end_fsync=1", f"--filename={image}")
    read = [*job, "--ioengine=nbd", "--rw=randread", "--iodepth=32"]
    with lab.serve("-e", "4", "-f", "raw", image) as server:
        run(*read, "--uri=" + server.uri)
    # One wrong byte is seen, so the verification is real.
    with open(image, "r+b") as file:
        file.seek(5 * MIB + 2000)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    with lab.serve("-e", "4", "-f", "raw", image) as server:
        check(harness.run([*read, "--uri=" + server.uri])[0] != 0, "fio does not see a wrong byte")
