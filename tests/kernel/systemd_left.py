"""Inside the test kernel, without systemd: what was written to a volume until its machine was powered
off is there, on a file system that was unmounted.

    systemd_left.py PROGRAMS
"""
import pathlib
import sys

import guest
from guest import JOB, equal, must


def main():
    guest.THIN = pathlib.Path(sys.argv[1]) / "underlay-thin"
    state, place = pathlib.Path("/var/lib/underlay"), pathlib.Path("/run/vm1")
    state.mkdir()
    must("mount", "/dev/ubda", state)
    guest.thin("activate", "--all")
    must("e2fsck", "-n", "-f", "/dev/mapper/vm1")
    told = must("dumpe2fs", "-h", "/dev/mapper/vm1")
    equal(told.split("Filesystem state:")[1].split()[0], "clean", "the file system's state")
    place.mkdir()
    must("mount", "-o", "ro", "/dev/mapper/vm1", place)
    for name in ("contents", "written"):
        equal((place / name).read_bytes() == (JOB / "disk.raw").read_bytes(), True, f"{name} is whole")
    must("umount", place)
    guest.thin("deactivate", "--all")
    must("umount", state)
    print("ok   the volume has what was written to it")


main()
