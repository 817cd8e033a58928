#!/usr/bin/python3
"""systemd understands the units as cmake --install puts them, and nothing in them is unknown to it.

usage: units_test.py BUILD_FOLDER
"""
import glob
import os
import subprocess
import sys
import tempfile

import harness

WANTED = {"underlay-nbd.service", "underlay-nbd.socket", "underlay-nbd@.service",
          "underlay-thin-activate.service", "underlay-thin-watch.service"}
# On systemd's scale from 0 (safe) to 10.
MOST_EXPOSED = 3


def main():
    build, = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="underlay-units-", dir="/tmp") as prefix:
        status, output, errors = harness.run(["cmake", "--install", build, "--strip", "--prefix",
                                              prefix])
        if status != 0:
            sys.exit(output + errors)
        folder = f"{prefix}/lib/systemd/system"
        units = {os.path.basename(unit): unit for unit in glob.glob(f"{folder}/*")}
        if set(units) != WANTED:
            sys.exit(f"units: {sorted(units)}")
        # A template is judged as one of its instances.
        instance = f"{prefix}/underlay-nbd@disks.service"
        os.symlink(units.pop("underlay-nbd@.service"), instance)
        paths = [*units.values(), instance]
        environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:/usr/lib/systemd/system"}
        verified = subprocess.run(["systemd-analyze", "verify", "--man=no", *paths],
                                  env=environment, capture_output=True, text=True, check=False)
        said = [line for line in verified.stderr.splitlines() if "underlay" in line]
        if verified.returncode != 0 or said:
            sys.exit(f"systemd-analyze verify: {verified.returncode}\n{verified.stderr}")
        judged = subprocess.run(["systemd-analyze", "security", "--offline=yes",
                                 f"--threshold={int(MOST_EXPOSED * 10)}",
                                 units["underlay-nbd.service"], instance],
                                env=environment, capture_output=True, text=True, check=False)
        if judged.returncode != 0:
            sys.exit(f"systemd-analyze security: {judged.stdout}{judged.stderr}")
        print(f"{len(paths)} units are in order")


main()
