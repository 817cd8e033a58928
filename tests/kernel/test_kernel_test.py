#!/usr/bin/python3
"""tools/test-kernel tells the truth: no failure inside the guest looks like success.

    test_kernel_test.py TEST_KERNEL
"""
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

FAILURES = []
PROGRAM = sys.argv[1]


def run(*arguments, wait=90):
    """Exit status and output, errors included."""
    done = subprocess.run([PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=wait)
    return done.returncode, done.stdout


def check(rule, condition, details=""):
    print(f"{'ok' if condition else 'FAILED'}  {rule}", flush=True)
    if not condition:
        FAILURES.append(rule)
        print(details, flush=True)


def processes_of(folder):
    """Processes with `folder` in their command line."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            command = pathlib.Path("/proc", pid, "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(folder) in command and int(pid) != os.getpid():
            found.append(pid)
    return found


def statuses_and_output():
    status, output = run("--", "sh", "-c", "echo 'a  word' \"$1\"; echo error >&2; exit 7", "sh",
                         "b'c")
    check("the exit status and the output are the command's",
          status == 7 and output.startswith("a  word b'c\nerror\n"), output)
    check("a failure shows the kernel's messages", "device-mapper: ioctl" in output, output)
    status, output = run("--", "sh", "-c", "id -u; dmsetup targets; test -e /dev/mapper/control; "
                         "touch /etc/written 2>/dev/null || echo read-only")
    check("root has the thin targets and cannot write the host's files",
          status == 0 and output.startswith("0\n") and "thin-pool" in output
          and output.endswith("read-only\n"), output)


def deaths():
    for name, key in {"a panic": "c", "a guest that ends without a result": "b"}.items():
        status, output = run("--", "sh", "-c",
                             f"echo begun; echo {key} >/proc/sysrq-trigger; sleep 60")
        check(f"{name} is a failure that keeps the output",
              status == 125 and output.startswith("begun\n") and "the guest died" in output,
              output)


def hangs():
    status, output = run("--timeout", "2", "--", "sh", "-c", "echo begun; sleep 100")
    check("a command that hangs is a failure",
          status == 124 and output.startswith("begun\n") and "did not end within 2 s" in output,
          output)


def killed_guests(folder):
    disk = folder / "disk"
    with open(disk, "wb") as file:
        file.truncate(16 << 20)
    job = folder / "job"
    options = ["--disk", disk, "--job", job]
    write = ("echo kept | dd of=/dev/ubda oflag=direct conv=sync bs=4k status=none; "
             "touch /run/job/now; sleep 60")
    status, output = run(*options, "--kill-on", "now", "--", "sh", "-c", write)
    check("--kill-on kills the guest", status == 0, output)
    status, output = run(*options, "--kill-on", "now", "--", "true")
    check("--kill-on refuses a file that is there already", status == 125, output)
    (job / "now").unlink()
    status, output = run(*options, "--", "head", "-c", "5", "/dev/ubda")
    check("a disk keeps its contents", status == 0 and output == "kept\n", output)
    status, output = run(*options, "--kill-on", "now", "--", "true")
    check("--kill-on fails when the command ends first",
          status == 125 and "ended with 0 and without now" in output, output)


def systemd_boots(folder):
    prepare = folder / "prepare"
    options = ["--share", folder, "--systemd", prepare]
    prepare.write_text("#!/bin/sh\nexit 5\n", encoding="ascii")
    prepare.chmod(0o755)
    status, output = run(*options, "--", "true")
    check("a preparation that fails has its own exit status", status == 5, output)
    prepare.write_text("#!/bin/sh\necho prepared >/etc/written\n", encoding="ascii")
    status, output = run(*options, "--", "sh", "-c", "cat /etc/written /proc/1/comm; exit 7", wait=180)
    check("under systemd the exit status and the output are the command's, too",
          status == 7 and output.startswith("prepared\nsystemd\n"), output)
    check("what systemd's guest writes is forgotten", not os.path.exists("/etc/written"))


def stopped_runners(folder):
    for number in (signal.SIGTERM, signal.SIGKILL):
        job = folder / f"stopped-{number}"
        command = [PROGRAM, "--timeout", "60", "--job", job, "--", "sh", "-c",
                   "touch /run/job/begun; sleep 100"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as runner:
            deadline = time.monotonic() + 60
            while not (job / "begun").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            kernels = [pid for pid in processes_of("linux.uml") if parent_of(pid) == runner.pid]
            run_folder = variable(kernels[0], "RUN") if kernels else "no guest"
            runner.send_signal(number)
        deadline = time.monotonic() + 10
        while processes_of(run_folder) and time.monotonic() < deadline:
            time.sleep(0.05)
        check(f"{number.name} to the runner ends the guest",
              kernels and not processes_of(run_folder))
        shutil.rmtree(run_folder, ignore_errors=True)  # SIGKILL leaves it


def parent_of(pid):
    try:
        return int(pathlib.Path("/proc", pid, "stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None


def variable(pid, name):
    """NAME=value of a kernel's command line."""
    words = pathlib.Path("/proc", pid, "cmdline").read_text().split("\0")
    return next(word.partition("=")[2] for word in words if word.startswith(name + "="))


def main():
    statuses_and_output()
    deaths()
    hangs()
    with tempfile.TemporaryDirectory(prefix="underlay-test-", dir="/tmp") as folder:
        killed_guests(pathlib.Path(folder))
        systemd_boots(pathlib.Path(folder))
        stopped_runners(pathlib.Path(folder))
    if FAILURES:
        sys.exit(f"{len(FAILURES)} failed")


if __name__ == "__main__":
    main()
