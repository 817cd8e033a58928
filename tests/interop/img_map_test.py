#!/usr/bin/python3
"""underlay-img map of every image of an image maker: where it says that bytes lie, they lie, and what
it says is zero is zero; and it says what qemu-img map says, line by line, of the images that qemu
reads rightly. Where the two differ on purpose, DIFFERENCES says why.

usage: img_map_test.py UNDERLAY_IMG IMAGE_MAKER
"""
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile

import image_set

QEMU_FORMATS = {"vhd": "vpc"}  # where qemu's name is not the maker's

# What may differ, in which formats, and why.
DIFFERENCES = {
    "hole": (None, "stored bytes that are a hole of the file are known to be zeros, in every format; "
                   "qemu-img looks for holes in some formats only, and calls them data in some"),
    "padding": ({"raw", "qcow2"}, "zeros that fill up the last sector of a file of odd length are in "
                                  "no file; qemu-img takes them for a hole of the file"),
    "place of zeros": ({"qcow2"}, "qemu-img tells the offset of clusters that have space set aside, "
                                  "also where they are zeros or the parent's: no byte of the disk"),
    "compressed": ({"qcow2"}, "compressed and encrypted bytes are told apart, which qemu-img does "
                              "since 8.2"),
    "vhdx": ({"vhdx"}, "qemu-img takes all of a VHDX for data, and does not know where it lies"),
    "libqcow": ({"qcow"}, "libqcow reads these images, and does not tell where bytes lie"),
}


def normalised(entries, fields):
    """Neighbours that are equal in `fields` as one."""
    merged = []
    for entry in entries:
        key = {field: entry.get(field) for field in fields}
        if key.get("offset") is not None:
            key["offset"] -= entry["start"]
        if merged and merged[-1]["key"] == key:
            merged[-1]["end"] = entry["start"] + entry["length"]
        else:
            merged.append({"start": entry["start"], "end": entry["start"] + entry["length"],
                           "key": key})
    return merged


def side_by_side(ours, theirs):
    """(start, end, entry of ours, entry of theirs): both maps, cut at the borders of both."""
    cuts = sorted({entry["start"] for entry in ours + theirs} |
                  {entry["start"] + entry["length"] for entry in ours + theirs})
    iterators = [iter(ours), iter(theirs)]
    now = [next(iterator) for iterator in iterators]
    for start, end in itertools.pairwise(cuts):
        for i, iterator in enumerate(iterators):
            while now[i]["start"] + now[i]["length"] <= start:
                now[i] = next(iterator)
        yield start, end, *now


class Maps:
    """Of one image maker's images."""

    def __init__(self, program, format_name):
        self.program = program
        self.format_name = format_name
        self.seen = set()  # differences

    def run(self, program, image, *options):
        args = image["args"]
        if program == "qemu-img" and not args:  # which may guess raw
            args = ["-f", QEMU_FORMATS.get(self.format_name, self.format_name)]
        return subprocess.run([program, "map", *options, *args, "--", image["path"]], check=False,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                              errors="backslashreplace")

    def map_of(self, program, image):
        done = self.run(program, image, "--output=json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stdout

    def tells_the_truth(self, image):
        entries, _ = self.map_of(self.program, image)
        assert entries[0]["version"] == 1 and "version" not in entries[-1 if entries[1:] else 1:]
        at = 0
        with open(image["raw"], "rb") as raw:
            for entry in entries:
                assert entry["start"] == at and entry["length"] > 0, entry
                at += entry["length"]
                expected = raw.read(entry["length"]).ljust(entry["length"], b"\0")
                if entry["zero"]:
                    assert expected.count(0) == len(expected), entry
                elif "offset" in entry and "\ufffd" not in entry["filename"]:
                    with open(entry["filename"], "rb") as file:
                        file.seek(entry["offset"])
                        assert file.read(entry["length"]) == expected, entry
        assert at == -(-os.path.getsize(image["raw"]) // 512) * 512, f"ends at {at}"

    def is_as_qemus(self, image):
        ours, text = self.map_of(self.program, image)
        theirs, qemus_text = self.map_of("qemu-img", image)
        found = {self.difference(*parts) for parts in side_by_side(ours, theirs)} - {None}
        if not found and len(ours) != len(theirs):
            found = {"compressed"} if self.differ_in_compression(ours, theirs) else {"borders"}
        for difference in found:
            formats, _ = DIFFERENCES.get(difference, (set(), ""))
            assert formats is None or self.format_name in formats, difference
        self.seen |= found
        if not found:
            text = re.sub(r', "compressed": (true|false)|, "filename": "[^"]*"|, "version": 1', "",
                          text)
            assert text == qemus_text, f"{text}\nnot\n{qemus_text}"
        self.table_is_as_qemus(image, found)

    def table_is_as_qemus(self, image, differences):
        ours = self.run(self.program, image)
        theirs = self.run("qemu-img", image)
        assert ours.returncode == 0, ours.stderr
        lines = ours.stdout.splitlines()
        if "external, encrypted or compressed" in theirs.stderr:
            # It gives up there. We go on, with a word in the place of an offset.
            lines = lines[:len(theirs.stdout.splitlines())]
            words = re.findall(r"^\S+ +\S+ +(compressed|-) ", ours.stdout, re.MULTILINE)
            assert words or "vhdx" in differences, ours.stdout
        else:
            assert theirs.returncode == 0, theirs.stderr
        if not differences:
            assert lines == theirs.stdout.splitlines(), f"{ours.stdout}\nnot\n{theirs.stdout}"

    def difference(self, start, end, ours, theirs):
        """Which difference this part shows, None for none; fails for one without a reason."""
        where = f"bytes {start} to {end}: {ours}, qemu-img: {theirs}"
        if self.format_name == "vhdx":
            assert theirs["data"] and "offset" not in theirs, where
            return "vhdx"
        if ours["zero"] and not ours["present"] and start % 512 != 0 and end - start < 512:
            assert theirs["zero"], where
            return "padding"
        assert ours["depth"] == theirs["depth"] and ours["present"] == theirs["present"], where
        if (ours["zero"], ours["data"]) != (theirs["zero"], theirs["data"]):
            assert ours["zero"] and "offset" in ours and theirs["data"], where
            return "hole"
        if "offset" in ours:
            assert ours["offset"] - ours["start"] == theirs["offset"] - theirs["start"], where
        elif "offset" in theirs and ours["zero"]:
            return "place of zeros"
        elif "offset" in theirs:
            return "libqcow"
        return None

    @staticmethod
    def differ_in_compression(ours, theirs):
        fields = ("depth", "present", "zero", "data", "offset")
        return normalised(ours, fields) == normalised(theirs, fields)


def flush(folder):
    """A hole that the file system will make of zeros when it writes them is not yet one."""
    for entry in os.scandir(folder):
        if entry.is_file(follow_symlinks=False):
            with open(entry.path, "rb") as file:
                os.fsync(file.fileno())


def main():
    program, maker = sys.argv[1:]
    format_name = image_set.format_of(maker)
    with tempfile.TemporaryDirectory() as folder:
        images, refused = image_set.shared_images(maker, folder)
        flush(os.path.dirname(images[0]["path"]))
        # map shows the image, not one of its snapshots.
        images = [image for image in images if "-l" not in image["args"]]
        maps = Maps(program, format_name)
        failed = image_set.judge(images, maps.tells_the_truth, "true")
        failed += image_set.judge([image for image in images if "qemu" in image["oracles"]],
                                  maps.is_as_qemus, "as qemu-img")

        def is_refused(image):
            done = maps.run(program, image)
            assert done.returncode == 1, f"exit status {done.returncode}"
            assert image["refused"] in done.stderr, done.stderr

        failed += image_set.judge(refused, is_refused, "refused")
        for difference in sorted(maps.seen):
            print(f"differs: {difference}: {DIFFERENCES[difference][1]}")
        unseen = {name for name, (formats, _) in DIFFERENCES.items()
                  if formats == {format_name} and name not in maps.seen}
        failed += [f"no image shows the difference \"{name}\"" for name in sorted(unseen)]
        image_set.exit_when_failed(failed, images)


main()
