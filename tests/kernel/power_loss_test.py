#!/usr/bin/python3
"""A machine that loses its power at any moment has, when it is up again, every volume that was
made, with what was written to it, on its template.

    power_loss_test.py TEST_KERNEL PROGRAMS
"""
import pathlib
import subprocess
import sys
import tempfile

import templates

MIB = 1 << 20
LIVES = 8
DISKS = {"data": 128 * MIB, "metadata": 8 * MIB, "state": 16 * MIB}


def main():
    test_kernel, programs = sys.argv[1:]
    group = pathlib.Path(__file__).resolve().parent / "power_loss.py"
    with tempfile.TemporaryDirectory(prefix="underlay-job-", dir="/tmp") as folder:
        job = pathlib.Path(folder)
        templates.make(job / "templates")
        options = ["--timeout", "60", "--job", job, "--share", programs, "--kill-on",
                   "power-is-lost"]
        for name, size in DISKS.items():
            with open(job / name, "wb") as disk:
                disk.truncate(size)
            options += ["--disk", job / name]
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", job / "state"], check=True)
        for life in range(LIVES):
            # Each life ends by the loss of power; anything else is a failure.
            subprocess.run([test_kernel, *options, "--", "env",
                            f"UNDERLAY_PROGRAMS={pathlib.Path(programs).resolve()}",
                            "/usr/bin/python3", "-B", group, str(life)], check=True)
            (job / "power-is-lost").unlink()


main()
