#!/usr/bin/python3
"""A dialled connection is what the kernel's client needs: a bare socket in the transmission phase,
with simple replies, that stays so when libnbd has gone.

usage: nbd_dial_test.py UNDERLAY_NBD KERNEL_NBD_CONTROL
"""
import os
import socket
import subprocess
import sys
import tempfile

import harness
import tls_keys

HAS_FLAGS, READ_ONLY, MULTI_CONN, DF = 1, 2, 1 << 8, 1 << 7


def dial(control, uri):
    """Exit status, the line about the export, the bytes behind it, errors."""
    done = subprocess.run([control, "dial", "5000", uri], capture_output=True, timeout=60)
    line, _, content = done.stdout.partition(b"\n")
    return done.returncode, line.decode().split(), content, done.stderr.decode()


def check_export(control, uri, content, more_clients):
    status, words, first, errors = dial(control, uri)
    assert status == 0, errors
    assert words[:2] == ["size", str(len(content))] and words[4:] == ["block", "1"], words
    flags = int(words[3], 16)
    assert flags & HAS_FLAGS and flags & READ_ONLY and not flags & DF, words
    assert bool(flags & MULTI_CONN) == more_clients, words
    assert first == content[:512], "the first bytes differ"


def kernel_has_tls():
    """May a TCP socket be given TLS? Then the kernel may still lack the cipher."""
    tcp_ulp = 31
    with socket.create_server(("127.0.0.1", 0)) as listening, \
            socket.create_connection(listening.getsockname()) as client:
        try:
            client.setsockopt(socket.IPPROTO_TCP, tcp_ulp, b"tls")
        except OSError:
            return False
    return True


def check_tls(server_program, control, folder, image, content):
    """Through the kernel's TLS where there is one; else it is said what is missing."""
    keys = os.path.join(folder, "keys")
    authority = tls_keys.Authority(os.path.join(folder, "authority"))
    authority.issue(keys, "server", "localhost")
    authority.issue(keys, "client", "alice")
    port = harness.free_port()
    command = [server_program, "-t", "-e", "0", "-b", "127.0.0.1", "-p", port, "-f", "raw",
               "--object", f"tls-creds-x509,id=t,dir={keys},endpoint=server", "--tls-creds", "t",
               image]
    uri = f"nbds://127.0.0.1:{port}/?tls-certificates={keys}"
    with harness.start(command, port):
        if kernel_has_tls():
            check_export(control, uri, content, True)
        else:
            status, _, _, errors = dial(control, uri)
            assert status == 1 and "the kernel has no TLS" in errors, errors
            assert "modprobe tls" in errors and errors.count("\n") == 1, errors


def main():
    server_program, control = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        image = os.path.join(folder, "disk.raw")
        content = os.urandom(1 << 20)
        with open(image, "wb") as out:
            out.write(content)
        for options, name, more_clients in (([], "", False), (["-e", "4"], "", True),
                                            (["-x", "a b/c"], "a%20b%2Fc", False)):
            with harness.serve(["-t", "-f", "raw", *options, image],
                               program=server_program) as server:
                uri = server.named_uri(name)
                # One after the other: with one client at a time, each has to be gone for the next.
                for _ in range(3):
                    check_export(control, uri, content, more_clients)
                status, _, _, errors = dial(control, server.named_uri("other"))
                assert status == 1 and "no export named 'other'" in errors, errors
                assert errors.count("\n") == 1 and errors.startswith("nbd+unix:"), errors
        check_tls(server_program, control, folder, image, content)


main()
