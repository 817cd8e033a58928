#!/usr/bin/python3
"""compare --second-opinion over every image of an image maker: the library reads the same, differs as
is known of it, or has nothing to say, in one line; it is never taken for the same when it is not. An
image that names a library as an oracle is read by it, unless that misreads all of its kind.

usage: img_second_opinion_test.py UNDERLAY_IMG IMAGE_MAKER
"""
import fnmatch
import json
import os
import subprocess
import sys
import tempfile

import image_set

LIBRARY = {"qcow": "libqcow", "qcow2": "libqcow", "vhd": "libvhdi", "vhdx": "libvhdi",
           "vmdk": "libvmdk"}

# Images that the library reads otherwise, and why they are ambiguous.
DIFFER = {
    # Two sizes are stated: we go by who made the image.
    "vhd-dynamic-by-vbox": "size", "vhd-dynamic-by-vpc": "size", "vhd-dynamic-by-wa": "size",
    "vhd-fixed-by-vbox": "size",
    # A device with the footer of a former image at its end.
    "vhd-device-another-footer": "size",
    # tapdisk's bitmaps are of fewer sectors than there are bits, or of none.
    "vhd-tapdisk-batmap-dynamic": "content", "vhd-tapdisk-hidden-0x00010003": "content",
    "vhd-tapdisk-sectors-*": "content",
}
# libvhdi reads those whose runs are of whole bytes of the bitmap; nobody says which are.
MISREAD = "misreads differencing images"
# Not an option of compare's: the library reads the active disk only.
SNAPSHOT = "-l"


def known_difference(name):
    found = [what for pattern, what in DIFFER.items() if fnmatch.fnmatch(name, pattern)]
    return found[0] if found else None


class Judge:
    def __init__(self, program, library):
        self.program = program
        self.library = library
        self.read = 0

    def ask(self, image, *options):
        done = subprocess.run([self.program, "compare", "--second-opinion", *options,
                               *image["args"], image["path"]], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, check=False, timeout=60)
        errors = [line for line in done.stderr.splitlines() if "warning: " not in line]
        return done.returncode, done.stdout, errors

    def is_honest(self, image):
        if SNAPSHOT in image["args"]:
            return
        status, out, errors = self.ask(image)
        assert status in (0, 1, 2), (status, out, errors)
        assert len(errors) == (1 if status == 2 else 0), errors
        assert (out == "") == (status == 2), out
        known = known_difference(image["name"])
        if status == 0:
            assert out == f"{image['path']}: {self.library} reads the same.\n", out
            self.read += 1
        elif status == 1:
            assert known, out
            assert f"{known} mismatch" in out and f", {self.library} reads " in out, out
        else:
            assert ": no second opinion: " in errors[0], errors
        oracle = self.library in image["oracles"]
        assert not oracle or status == 0 or (status == 2 and MISREAD in errors[0]), (out, errors)
        self.says_so_in_json(image, status)

    def says_so_in_json(self, image, status):
        json_status, out, errors = self.ask(image, "--output=json")
        assert json_status == status, (json_status, errors)
        if status == 2:
            assert not out, out
            return
        document = json.loads(out)
        assert document["version"] == 1 and document["filename"] == image["path"], document
        assert document["library"] == self.library, document
        assert document["identical"] is (status == 0), document
        assert document.get("mismatch") == (known_difference(image["name"]) if status else None)
        if document.get("mismatch") == "content":
            self.tells_the_bytes(image, document)

    def tells_the_bytes(self, image, document):
        own, other = (bytes.fromhex(one) for one in document["bytes"])
        with open(image["raw"], "rb") as raw:
            raw.seek(document["offset"])
            assert own == raw.read(len(own)), document
        assert len(other) == len(own) and other[0] != own[0], document
        assert document["layer"] == os.path.realpath(image["path"]), document

    def is_refused(self, image):
        """What our reader refuses is not given to the library."""
        status, out, errors = self.ask(image)
        assert status in (2, 3, 4) and not out and len(errors) == 1, (status, out, errors)
        assert "no second opinion" not in errors[0], errors


def main():
    program, maker = sys.argv[1:]
    judge = Judge(program, LIBRARY[image_set.format_of(maker)])
    with tempfile.TemporaryDirectory() as folder:
        images, refused = image_set.shared_images(maker, folder)
        failed = image_set.judge(images, judge.is_honest, "second opinion")
        failed += image_set.judge(refused, judge.is_refused, "refused")
    print(f"{judge.read} of {len(images)} images read alike")
    image_set.exit_when_failed(failed, images if judge.read else [])


main()
