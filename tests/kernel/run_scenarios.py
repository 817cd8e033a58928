#!/usr/bin/python3
"""Boots the test kernel for a group of scenarios and passes on how they went.

    run_scenarios.py TEST_KERNEL PROGRAMS GROUP [SCENARIO]...

PROGRAMS: the folder with underlay-nbd and underlay-thin. GROUP: a file beside this one, less .py.
"""
import pathlib
import subprocess
import sys
import tempfile

import templates

TIMEOUT = 400  # seconds for a group


def main():
    test_kernel, programs, group, *scenarios = sys.argv[1:]
    here = pathlib.Path(__file__).resolve().parent
    with tempfile.TemporaryDirectory(prefix="underlay-job-", dir="/tmp") as job:
        templates.make(pathlib.Path(job) / "templates")
        command = [test_kernel, "--timeout", str(TIMEOUT), "--job", job, "--share", programs, "--",
                   "env", f"UNDERLAY_PROGRAMS={pathlib.Path(programs).resolve()}",
                   "/usr/bin/python3", "-B", str(here / (group + ".py")), *scenarios]
        sys.exit(subprocess.run(command, check=False).returncode)


main()
