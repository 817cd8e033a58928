#!/usr/bin/python3
"""The Debian packages are in order, and what they install does its work.

usage: package_test.py BUILD_FOLDER

They are made of the programs as they are built, installed into a fresh root by dpkg, and purged again.
"""
import contextlib
import glob
import os
import shutil
import subprocess
import sys
import tempfile

import harness
from made_packages import PROGRAMS, TIME_LIMIT, make_packages


def run(*command, env=None):
    """Its output; fails with all that it says."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                          timeout=TIME_LIMIT, env={**os.environ, **(env or {})})
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}")
    return done.stdout


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def check_policy(packages):
    said = run("lintian", "--allow-root", "--fail-on", "error", "--tag-display-limit", "0", *packages)
    print(said, end="")


@contextlib.contextmanager
def installed(packages, root):
    """Installs and configures them beneath `root`, which knows this machine's packages, so that what
    they depend on must be here; purges them in the end."""
    for folder in ("info", "updates", "triggers"):
        os.makedirs(f"{root}/var/lib/dpkg/{folder}")
    shutil.copy("/var/lib/dpkg/status", f"{root}/var/lib/dpkg/status")
    # Scripts see DPKG_ROOT: the root has no shell of its own.
    dpkg = ["dpkg", f"--root={root}", "--force-script-chrootless", f"--log={root}/dpkg.log"]
    run(*dpkg, "--install", *packages)
    yield
    run(*dpkg, "--purge", *PROGRAMS)
    left = [path for path in glob.glob(f"{root}/**", recursive=True)
            if os.path.isfile(path) and "underlay" in os.path.basename(path)]
    check(not left, f"left after purge: {left}")
    check(os.path.isdir(f"{root}/var/lib/underlay-images"), "the folder of images is gone")


def check_files(root):
    for program in PROGRAMS:
        for file in (f"bash-completion/completions/{program}", f"zsh/vendor-completions/_{program}",
                     f"fish/vendor_completions.d/{program}.fish", f"doc/{program}/copyright",
                     f"doc/{program}/changelog.Debian.gz"):
            check(os.path.getsize(f"{root}/usr/share/{file}") > 0, file)
        page = run("man", "-M", f"{root}/usr/share/man", "-w", program).strip()
        check(page.startswith(root) and page.endswith(".gz"), f"manual page of {program}: {page}")
    with open(f"{root}/etc/passwd", encoding="ascii") as passwd:
        check("underlay:" in passwd.read(), "the system has no user underlay")
    images = os.stat(f"{root}/var/lib/underlay-images")
    check(images.st_mode & 0o777 == 0o750, f"mode of the folder of images: {oct(images.st_mode)}")
    enabled = glob.glob(f"{root}/etc/systemd/system/*.wants/*")
    check(not enabled, f"enabled without being asked: {enabled}")


def do_the_main_job(root, folder):
    """The installed server serves an image, and a real client reads it."""
    raw, image, copy = (f"{folder}/{name}" for name in ("disk.raw", "disk.qcow2", "copy.raw"))
    with open(raw, "wb") as disk:
        disk.write(os.urandom(3 << 20))
        disk.truncate(64 << 20)
    run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, image)
    with harness.serve(["-f", "qcow2", image], program=f"{root}/usr/bin/underlay-nbd") as server:
        run("nbdcopy", server.uri, copy)
    run("cmp", raw, copy)
    told = run(f"{root}/usr/bin/underlay-img", "info", image)
    check("file format: qcow2" in told, told)
    told = run(f"{root}/usr/bin/underlay-thin", "--version")
    check(told.startswith("underlay-thin "), told)


def main():
    build, = sys.argv[1:]
    if os.geteuid() != 0:
        sys.exit(77)  # dpkg gives files away
    with tempfile.TemporaryDirectory(prefix="underlay-package-", dir="/tmp") as folder:
        packages = make_packages(build, f"{folder}/packages")
        check_policy(packages)
        root = f"{folder}/root"
        with installed(packages, root):
            check_files(root)
            do_the_main_job(root, folder)
        print(f"{len(packages)} packages are in order")


main()
