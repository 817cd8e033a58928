#!/usr/bin/python3
"""underlay-img info of every image of an image maker: it opens the image and nothing else, tells the
disk's size, and says what qemu-img info says of the images that qemu reads rightly, in JSON and to
people. Where the two differ on purpose, DIFFERENCES says why.

usage: img_info_test.py UNDERLAY_IMG IMAGE_MAKER
"""
import json
import os
import subprocess
import sys
import tempfile

import image_set
from opened_files import OpenedFiles

QEMU_FORMATS = {"vhd": "vpc"}  # where qemu's name is not the maker's

# Fields of qemu-img's, what of its output to people they are, in which formats they may differ, and
# why. "[]": of each element.
EXTENTS = "extents of other files are not opened, so what only they say is not told"
DIFFERENCES = {
    ".filename": ("image", {"qcow2"}, "of --image-opts the file's name is told, not a json: name"),
    ".actual-size": ("disk size", {"vmdk"}, EXTENTS),
    ".cluster-size": ("cluster_size", {"vmdk"}, EXTENTS),
    ".format-specific.data.extents[].cluster-size": ("cluster size", {"vmdk"}, EXTENTS),
    ".format-specific.data.extents[].filename":
        ("filename", {"vmdk"}, "names are told in UTF-8, whatever the descriptor's encoding is"),
}


def differences(ours, theirs, path=""):
    """Paths of the fields that qemu-img has and we do not, or have with another value."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in theirs.items():
            if key in ours:
                yield from differences(ours[key], value, f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for one, other in zip(ours, theirs):
            yield from differences(one, other, path + "[]")
    elif ours != theirs:
        yield path


def is_part_of(lines, others):
    """Are `lines` all among `others`, in their order? The first that is not, else None."""
    rest = iter(others)
    return next((line for line in lines if line not in rest), None)


class Infos:
    """Of one image maker's images."""

    def __init__(self, program, format_name, folder):
        self.program = program
        self.format_name = format_name
        self.folder = folder
        self.seen = set()  # fields that differ

    def run(self, program, image, *options):
        args = image["args"]
        if program == "qemu-img" and not args:  # which may guess raw
            args = ["-f", QEMU_FORMATS.get(self.format_name, self.format_name)]
        return subprocess.run([program, "info", *options, *args, "--", image["path"]], check=False,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                              errors="backslashreplace")

    def document_of(self, program, image, *options):
        done = self.run(program, image, "--output=json", *options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def opens_the_image_alone(self, image):
        with OpenedFiles(self.folder) as opened:
            done = self.run(self.program, image, "--output=json")
        assert done.returncode in (0, 1), done.stderr
        # FILE#MEMBER where no file is called so; the secrets are the operator's.
        mine = [path for path in opened.paths if not path.endswith(".key")]
        assert mine == [] or len(mine) == 1 and mine[0] in image["path"], opened.paths
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if "warning: " not in line]
            assert len(errors) == 1, done.stderr
            return
        document = json.loads(done.stdout)
        assert document["version"] == 1 and isinstance(document["findings"], list), document
        if "raw" in image:
            size = -(-os.path.getsize(image["raw"]) // 512) * 512
            assert document["virtual-size"] == size, document
            bad = [each for each in document["findings"] if each["kind"] != "notice"]
            assert not bad or image["feature"] == "unclean", bad

    def is_as_qemus(self, image):
        found = set(differences(self.document_of(self.program, image),
                                self.document_of("qemu-img", image)))
        for field in found:
            assert self.format_name in DIFFERENCES.get(field, ("", ()))[1], field
        self.seen |= found
        ours = self.run(self.program, image)
        theirs = self.run("qemu-img", image)
        assert ours.returncode == 0, ours.stderr
        explained = {DIFFERENCES[field][0] for field in found}
        lines = [line for line in theirs.stdout.splitlines()
                 if line.split(":")[0].strip() not in explained]
        missing = is_part_of(lines, ours.stdout.splitlines())
        assert missing is None, f"not so or not there: {missing}\n{ours.stdout}\n{theirs.stdout}"

    def chain_is_as_qemus(self, image):
        ours = self.document_of(self.program, image, "--backing-chain")
        theirs = self.document_of("qemu-img", image, "--backing-chain")
        assert len(ours) == len(theirs), f"{len(ours)}, qemu-img: {len(theirs)} images"
        for one, other in zip(ours, theirs):
            assert set(differences(one, other)) <= self.seen, (one, other)


def main():
    program, maker = sys.argv[1:]
    format_name = image_set.format_of(maker)
    with tempfile.TemporaryDirectory() as folder:
        images, refused = image_set.make_images(maker, folder)
        os.sync()  # until then, what a file takes may still change
        # info tells of the image, not of one of its snapshots.
        images = [image for image in images if "-l" not in image["args"]]
        infos = Infos(program, format_name, folder)
        failed = image_set.judge(images + refused, infos.opens_the_image_alone, "alone")
        # qemu-img info takes no options of a backing file.
        for_qemu = [image for image in images if "qemu" in image["oracles"]
                    and "backing." not in image["path"]]
        failed += image_set.judge(for_qemu, infos.is_as_qemus, "as qemu-img")
        failed += image_set.judge(for_qemu, infos.chain_is_as_qemus, "chain")
        for field in sorted(infos.seen):
            print(f"differs: {field}: {DIFFERENCES[field][2]}")
        unseen = {field for field, (_, formats, _) in DIFFERENCES.items()
                  if format_name in formats and field not in infos.seen}
        failed += [f"no image shows the difference {field}" for field in sorted(unseen)]
        image_set.exit_when_failed(failed, images)


main()
