#!/usr/bin/python3
"""underlay-nbd and QEMU learn of each other through QEMU's image locking: who serves refuses what is
being written, and while it serves, QEMU refuses to write.

usage: image_locks_test.py UNDERLAY_NBD
"""
import contextlib
import os
import subprocess
import sys
import tempfile

import harness


@contextlib.contextmanager
def open_in_qemu(image, *options):
    """qemu-io with `image` open until the end of the block."""
    process = subprocess.Popen(["qemu-io", *options, image], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        process.stdin.write("length\n")
        process.stdin.flush()
        said = process.stdout.readline()  # the image is open now
        assert "MiB" in said, said
        yield
    finally:
        process.stdin.close()
        process.wait(harness.DEADLINE)
        process.stdout.close()


def qemu_writes(image, format_name):
    status, out, err = harness.run(["qemu-io", "-f", format_name, "-c", "write -P 7 0 512", image])
    return status == 0 and "wrote" in out, out + err


def refuses(program, *args):
    status, _, err = harness.run([program, "-t", "-k", "/tmp/underlay-never-listens", *args])
    assert status == 1, f"exit status {status}: {err}"
    assert len(err.splitlines()) == 1 and "open for writing" in err, err
    return err


def what_is_written_is_refused(program, folder):
    image = os.path.join(folder, "written.qcow2")
    harness.run(["qemu-img", "create", "-f", "qcow2", image, "1M"])
    with open_in_qemu(image, "-f", "qcow2"):
        assert image in refuses(program, "-f", "qcow2", image)
        for options in (["-U", "-f", "qcow2", image],
                        ["--image-opts", f"driver=qcow2,file.filename={image},force-share=on"],
                        ["--image-opts", f"driver=qcow2,file.filename={image},file.locking=off"]):
            with harness.serve(options) as server:
                assert harness.run(["nbdinfo", "--size", server.uri])[1] == "1048576\n"
    with harness.serve(["-f", "qcow2", image]):
        pass


def a_parent_that_is_written_is_refused(program, folder):
    base, top = os.path.join(folder, "base.raw"), os.path.join(folder, "top.qcow2")
    with open(base, "wb") as file:
        file.truncate(1 << 20)
    harness.run(["qemu-img", "create", "-f", "qcow2", "-b", base, "-F", "raw", top])
    with open_in_qemu(base, "-f", "raw"):
        assert base in refuses(program, "-f", "qcow2", top)
        with harness.serve(["--force-share", "-f", "qcow2", top]):
            pass


def a_folder_refuses_only_what_is_written(program, folder):
    images = os.path.join(folder, "images")
    os.mkdir(images)
    for name in ("a.qcow2", "b.qcow2"):
        harness.run(["qemu-img", "create", "-f", "qcow2", os.path.join(images, name), "1M"])
    with open_in_qemu(os.path.join(images, "a.qcow2"), "-f", "qcow2"):
        with harness.serve(["-e", "0", "--directory", images]) as server:
            assert harness.run(["nbdinfo", "--size", server.named_uri("a.qcow2")])[0] != 0
            assert harness.run(["nbdinfo", "--size", server.named_uri("b.qcow2")])[0] == 0
            assert "open for writing" in server.stderr()


def qemu_refuses_to_write_while_we_serve(program, folder):
    for format_name in ("raw", "qcow2"):
        image = os.path.join(folder, "served." + format_name)
        harness.run(["qemu-img", "create", "-f", format_name, image, "1M"])
        with harness.serve(["-f", format_name, image]):
            wrote, said = qemu_writes(image, format_name)
            assert not wrote and "lock" in said, said
            # Readers are welcome.
            assert harness.run(["qemu-img", "info", image])[0] == 0
        wrote, said = qemu_writes(image, format_name)
        assert wrote, said
        with harness.serve(["-U", "-f", format_name, image]):
            wrote, said = qemu_writes(image, format_name)
            assert wrote, said


def main():
    program = sys.argv[1]
    os.environ["UNDERLAY_NBD"] = program
    for rule in (what_is_written_is_refused, a_parent_that_is_written_is_refused,
                 a_folder_refuses_only_what_is_written, qemu_refuses_to_write_while_we_serve):
        with tempfile.TemporaryDirectory() as folder:
            rule(program, folder)
        print("ok  ", rule.__name__)


main()
