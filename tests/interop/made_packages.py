"""The Debian packages, made of the programs as they are built."""
import glob
import os
import subprocess

PROGRAMS = ("underlay-nbd", "underlay-thin", "underlay-img")
TIME_LIMIT = 300


def make_packages(build, folder):
    """Their paths. The program is not compiled again: Ninja's installation depends on nothing."""
    done = subprocess.run(["cpack", "-G", "DEB", "--config", f"{build}/CPackConfig.cmake", "-B",
                           folder], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, timeout=TIME_LIMIT)
    if done.returncode != 0:
        raise AssertionError(f"cpack: exit status {done.returncode}\n{done.stdout}")
    packages = sorted(glob.glob(f"{folder}/*.deb"))
    names = [os.path.basename(package).split("_")[0] for package in packages]
    if names != sorted(PROGRAMS):
        raise AssertionError(f"packages: {names}")
    return packages
