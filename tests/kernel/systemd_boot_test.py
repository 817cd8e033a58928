#!/usr/bin/python3
"""Our packages on a machine whose first process is systemd: from before its boot to behind its end.

    systemd_boot_test.py TEST_KERNEL BUILD_FOLDER
"""
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "interop"))
from made_packages import make_packages  # pylint: disable=wrong-import-position

MIB = 1 << 20
TIMEOUT = 300  # seconds for the boot and the rules; a quiet machine needs 60
MOST_SECONDS_TO_END = 60  # less than systemd's 90, after which it kills
TROUBLE = ("I/O error", "EXT4-fs error", "Buffer I/O", "BUG:", "WARNING:", "blocked for more than",
           "Call Trace", "device-mapper: thin: aborting", "Failed to unmount",
           "Could not detach", "Unable to finalize")


def make_images(job):
    """disk.raw, and a compressed template with a file system that holds it, and room for more."""
    disk, files, raw = job / "disk.raw", job / "files", job / "template.raw"
    disk.write_bytes(os.urandom(4 * MIB))
    files.mkdir()
    (files / "contents").write_bytes(disk.read_bytes())
    with open(raw, "wb") as file:
        file.truncate(32 * MIB)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", files, raw], check=True)
    subprocess.run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw,
                    job / "template.qcow2"], check=True)
    with open(job / "state", "wb") as file:
        file.truncate(256 * MIB)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", job / "state"], check=True)


def check_end(job):
    """What the machine left."""
    messages = (job / "messages").read_text(errors="replace")
    trouble = [line for line in messages.splitlines() if any(word in line for word in TROUBLE)]
    assert not trouble, "the kernel reports " + "; ".join(trouble[:4])
    took = int((job / "powered-off").read_text()) - int((job / "powers-off").read_text())
    assert took < MOST_SECONDS_TO_END, f"it took {took} s to end"
    print(f"ok   the machine was powered off within {took} s, and nothing complained")


def main():
    test_kernel, build = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="underlay-job-", dir="/tmp") as folder:
        job = pathlib.Path(folder)
        make_packages(build, str(job / "packages"))
        make_images(job)
        options = ["--job", job, "--disk", job / "state", "--timeout", str(TIMEOUT)]
        done = subprocess.run([test_kernel, *options, "--systemd", HERE / "systemd_prepare.py", "--",
                               "/usr/bin/python3", "-B", HERE / "systemd_units.py"], check=False)
        if done.returncode != 0:
            sys.exit(done.returncode)
        check_end(job)
        # Another machine, without systemd, has the volume as it was.
        subprocess.run([test_kernel, *options, "--share", f"{build}/bin", "--", "/usr/bin/python3",
                        "-B", HERE / "systemd_left.py", f"{build}/bin"], check=True)


main()
