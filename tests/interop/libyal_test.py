#!/usr/bin/python3
"""Every image of an image maker reads the same natively and with --reader libyal, or is refused
there in one line; never other bytes. What may be refused is what the libraries are known not to
read rightly: an image that names libqcow or libvhdi as an oracle is read, unless it is a
differencing one. (libvhdi 20210425 reads runs of sectors to the end of a byte of the bitmap, and so
is an oracle for images with runs of whole bytes; but nobody says of an image that it has only
those.) One image is served that way, too.

usage: libyal_test.py IMAGE_MAKER DISK_DUMP NBD_SERVER
"""
import os
import subprocess
import sys
import tempfile

import harness
import image_set

LIBRARIES = {"libqcow", "libvhdi"}
DIFFERENCING = "misreads differencing"  # what the refusal says


def is_read(image):
    """Must --reader libyal read it?"""
    return LIBRARIES.intersection(image["oracles"]) and not image["parents"]


class Judge:
    def __init__(self, disk_dump, folder):
        self.disk_dump = disk_dump
        self.output = os.path.join(folder, "dumped")
        self.read = []  # images that the library read

    def reads_the_same_or_refuses(self, image):
        done = subprocess.run([self.disk_dump, "--reader", "libyal", *image["args"], image["path"],
                               self.output], stderr=subprocess.PIPE, text=True)
        errors = [line for line in done.stderr.splitlines() if "warning: " not in line]
        if done.returncode == 0:
            assert not errors, done.stderr
            assert subprocess.run(["cmp", "--", self.output, image["raw"]]).returncode == 0, "differs"
            self.read.append(image)
            return
        assert done.returncode == 1, f"exit status {done.returncode}"
        assert len(errors) == 1 and "lib" in errors[0], f"said: {done.stderr}"
        assert not is_read(image), errors[0]
        assert not image["parents"] or DIFFERENCING in errors[0], errors[0]
        print("    ", errors[0])

    def is_refused(self, image):
        """What we refuse is not given to the library."""
        done = subprocess.run([self.disk_dump, "--reader", "libyal", *image["args"], image["path"],
                               self.output], stderr=subprocess.PIPE, text=True)
        errors = [line for line in done.stderr.splitlines() if "warning: " not in line]
        assert done.returncode == 1 and len(errors) == 1, f"said: {done.stderr}"


def is_served(server_program, image, output):
    with harness.serve(["--reader", "libyal", *image["args"], image["path"]],
                       program=server_program) as server:
        subprocess.run(["nbdcopy", server.uri, output], check=True)
    assert subprocess.run(["cmp", "--", output, image["raw"]]).returncode == 0, "differs"


def main():
    maker, disk_dump, server_program = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        images, refused = image_set.shared_images(maker, folder)
        judge = Judge(disk_dump, folder)
        failed = image_set.judge(images, judge.reads_the_same_or_refuses, "libyal")
        failed += image_set.judge(refused, judge.is_refused, "refused by libyal")
        failed += image_set.judge(
            judge.read[:1], lambda image: is_served(server_program, image, judge.output),
            "served by libyal")
        print(f"{len(judge.read)} of {len(images)} images read by the library")
        image_set.exit_when_failed(failed, judge.read)


main()
