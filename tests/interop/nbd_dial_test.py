#!/usr/bin/python3
"""A dialled connection is what the kernel's client needs: a bare socket in the transmission phase,
with simple replies, that stays so when libnbd has gone.

usage: nbd_dial_test.py UNDERLAY_NBD KERNEL_NBD_CONTROL
"""
import os
import subprocess
import sys
import tempfile

import harness

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


main()
