#!/usr/bin/python3
"""Inside the test kernel, before systemd runs: a machine on which our packages were installed some
time ago. It has a volume with a file system in /etc/fstab, and a server that is started by its
first client."""
import os
import pathlib
import subprocess
import sys

import guest
from guest import JOB, equal, must

STATE = pathlib.Path("/var/lib/underlay")
FSTAB = f"""\
/dev/ubda {STATE} ext4 defaults 0 0
/dev/mapper/vm1 /srv/vm1 ext4 x-systemd.requires=underlay-thin-activate.service,_netdev 0 0
"""
# The kernel's messages until the very end, for who looks at them on the host.
SAVE_MESSAGES = """\
#!/bin/sh
mount -t hostfs -o {job} none /mnt
dmesg >/mnt/messages
date +%s >/mnt/powered-off
"""


def install_packages():
    # What a container has of it forbids to start and stop units.
    pathlib.Path("/usr/sbin/policy-rc.d").unlink(missing_ok=True)
    # Its index of manual pages is nobody's business here.
    pathlib.Path("/var/lib/man-db/auto-update").unlink(missing_ok=True)
    # dpkg knows of no others: it would read what files all packages of the host have, each time.
    must("mount", "-t", "tmpfs", "tmpfs", "/var/lib/dpkg")
    for folder in ("info", "updates", "triggers"):
        pathlib.Path("/var/lib/dpkg", folder).mkdir()
    pathlib.Path("/var/lib/dpkg/status").touch()
    must("dpkg", "--force-depends", "--install", *sorted(JOB.glob("packages/*.deb")), seconds=120)
    enabled = list(pathlib.Path("/etc/systemd/system").glob("*.wants/*"))
    equal(enabled, [], "units that are enabled without being asked for")


def make_volume():
    guest.THIN = pathlib.Path("/usr/bin/underlay-thin")
    STATE.mkdir(exist_ok=True)
    must("mount", "/dev/ubda", STATE)
    must("cp", JOB / "template.qcow2", STATE)
    (STATE / "pool").mkdir()
    guest.thin("pool", "create", "pool", "--file", STATE / "pool", "--size", "128M")
    guest.thin("create", "vm1", "--image", STATE / "template.qcow2", "--pool", "pool")
    guest.thin("deactivate", "--all")
    must("umount", STATE)
    pathlib.Path("/srv/vm1").mkdir()
    pathlib.Path("/etc/fstab").write_text(FSTAB, encoding="ascii")


def save_messages_at_the_end():
    script = pathlib.Path("/usr/lib/systemd/system-shutdown/save-messages")
    script.write_text(SAVE_MESSAGES.format(job=os.readlink("/run/job")), encoding="ascii")
    script.chmod(0o755)


def main():
    # The rest would change the machine.
    equal(must("findmnt", "-n", "-o", "FSTYPE", "/").strip(), "overlay", "the root's file system")
    install_packages()
    make_volume()
    for image in ("disk", "cut", "cut-again"):
        must("cp", JOB / "disk.raw", f"/var/lib/underlay-images/{image}.raw")
    must("systemctl", "enable", "remote-fs.target", "underlay-nbd.socket",
         "underlay-thin-activate.service")
    save_messages_at_the_end()


try:
    main()
except (guest.Failed, subprocess.TimeoutExpired) as error:
    sys.exit(f"prepare: {error}")
