#!/usr/bin/python3
"""underlay-img dump tells the truth: of every image of the image makers, each field lies in the file,
with the bytes that --hex prints, and the fields that a specification puts at fixed places have their
values there. Damaged images are dumped as far as that goes, and never crash it.

usage: img_dump_test.py UNDERLAY_IMG IMAGES_FOLDER
"""
import fnmatch
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile

import harness
import image_set
from img_lab import interrupted, qcow2_of_many_tables
from nbd_servers import nbdkit

# Of each format: (structure, field, offset in the structure, struct's format of the number).
KNOWN_FIELDS = {
    "raw": [],
    "vhd": [
        ("footer*", "data_offset", 16, ">Q"), ("footer*", "current_size", 48, ">Q"),
        ("footer*", "cylinders", 56, ">H"), ("footer*", "disk_type", 60, ">I"),
        ("dynamic disk header", "table_offset", 16, ">Q"),
        ("dynamic disk header", "max_table_entries", 28, ">I"),
        ("dynamic disk header", "block_size", 32, ">I"), ("BAT", "[1]", 4, ">I"),
    ],
    "vhdx": [
        ("header ?", "SequenceNumber", 8, "<Q"), ("header ?", "LogLength", 68, "<I"),
        ("header ?", "LogOffset", 72, "<Q"), ("region table ?", "EntryCount", 8, "<I"),
        ("region table ?", "Entry[0].FileOffset", 32, "<Q"), ("BAT", "[1]", 8, "<Q"),
    ],
    "vdi": [
        ("header", "signature", 64, "<I"), ("header", "image_type", 76, "<I"),
        ("header", "offset_bmap", 340, "<I"), ("header", "disk_size", 368, "<Q"),
        ("header", "blocks_allocated", 388, "<I"), ("block map", "[1]", 4, "<I"),
    ],
    "vmdk": [("header", "version", 4, "<I"), ("header", "flags", 8, "<I"),
             ("header", "capacity", 12, "<Q"), ("header", "grainSize", 20, "<Q"),
             ("header", "numGTEsPerGT", 44, "<I"), ("header", "gdOffset", 56, "<Q"),
             ("header", "uncleanShutdown", 72, "<B"), ("footer", "gdOffset", 56, "<Q"),
             ("footer marker", "type", 12, "<I"), ("metadata marker", "val", 0, "<Q"),
             ("grain marker *", "lba", 0, "<Q"), ("grain marker *", "size", 8, "<I"),
             ("grain directory", "[0]", 0, "<I"), ("grain table 0", "[1]", 4, "<I"),
             ("redundant grain table 0", "[1]", 4, "<I")],
}
TIME_LIMIT = 60
HEADING = re.compile(r"^(\S.*): (\d+) bytes at 0x([0-9a-f]+)$", re.MULTILINE)


def dump(program, image, *options):
    words = [program, "dump", *format_option(image), *options, "--", image["path"]]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False,
                          timeout=TIME_LIMIT)


def format_option(image):
    """The maker's -f alone: dump takes no other options of underlay-nbd's."""
    args = image["args"]
    return args[args.index("-f"):][:2] if "-f" in args else []


def document_of(program, image, *options):
    done = dump(program, image, "--output=json", *options)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    document = json.loads(done.stdout)
    assert document["version"] == 1 and document["filename"] == image["path"], document
    return document


def is_json(text):
    try:
        json.loads(text)
        return True
    except json.JSONDecodeError:
        return False


class DumpRules:
    """What holds of the dump of any image."""

    def __init__(self, program, known_fields):
        self.program = program
        self.known_fields = known_fields
        self.seen = set()  # (structure, field) of the known ones that an image has

    def lies_in_the_file(self, image):
        document = document_of(self.program, image, "--hex")
        assert document["structures"], "no structure"
        with open(image["path"], "rb") as file:
            size = file.seek(0, os.SEEK_END)
            for structure in document["structures"]:
                for field in structure["fields"]:
                    self._judge_field(file, size, structure, field)

    def _judge_field(self, file, size, structure, field):
        where = f"{structure['name']}.{field['name']}"
        begin, end = field["offset"], field["offset"] + field["length"]
        assert end <= size, f"{where} at {begin} lies behind the end, {size}"
        assert structure["offset"] <= begin, f"{where} lies before its structure"
        file.seek(begin)
        stored = file.read(field["length"])
        shown = field["bytes"]
        wanted = " ".join(f"{byte:02x}" for byte in stored[:64]) + (" ..." if len(stored) > 64 else "")
        assert shown == wanted, f"{where}: the file has {wanted}, the dump {shown}"
        for pattern, name, offset, number in self.known_fields:
            if field["name"] != name or not fnmatch.fnmatch(structure["name"], pattern):
                continue
            assert begin - structure["offset"] == offset, f"{where} at {begin}"
            value = struct.unpack(number, stored)[0]
            assert field["value"] == value, f"{where}: {value} stored, {field['value']} told"
            self.seen.add((pattern, name))

    def is_the_same_for_people(self, image):
        """Every structure has its heading; every field stands in it, or in a run."""
        document = document_of(self.program, image)
        printed = dump(self.program, image, "--all").stdout.decode()
        headings = HEADING.findall(printed)
        assert len(headings) == len(document["structures"]), printed[:2000]
        for (_, length, offset), structure in zip(headings, document["structures"]):
            assert (int(length), int(offset, 16)) == (structure["length"], structure["offset"])
        lines = re.findall(r"^  0x([0-9a-f]+)  \S", printed, re.MULTILINE)
        fields = [field for structure in document["structures"] for field in structure["fields"]]
        assert [int(offset, 16) for offset in lines] == [field["offset"] for field in fields]
        summed = dump(self.program, image).stdout.decode()
        assert len(summed) <= len(printed)
        listed = dump(self.program, image, "--list").stdout.decode()
        assert listed.splitlines() == re.findall(r"^\S.*$", printed, re.MULTILINE)

    def survives_damage(self, image):
        """Refused images: told as far as that goes, or one line why not."""
        for options in ([], ["--output=json"]):
            done = dump(self.program, image, *options)
            assert done.returncode in (0, 1), f"exit status {done.returncode}: {done.stderr}"
            errors = [line for line in done.stderr.decode().splitlines() if "warning: " not in line]
            assert len(errors) == done.returncode, errors
            if options:
                assert is_json(done.stdout) == (done.returncode == 0), done.stdout[-200:]


def interruption_tells_how_many_structures_there_were(program):
    """What was printed by then."""
    with tempfile.TemporaryDirectory() as folder:
        image = qcow2_of_many_tables(os.path.join(folder, "disk.qcow2"))
        with nbdkit("--filter=delay", "file", image, "rdelay=2ms") as server:
            status, out, errors = interrupted([program, "dump", "-f", "qcow2", server.uri], after=3)
    assert status == -signal.SIGINT, (status, errors)
    told = re.fullmatch(r"underlay-img: interrupted: (\d+) structures dumped\n", errors)
    assert told and int(told[1]) > 2, errors
    assert len(HEADING.findall(out)) == int(told[1]), (errors, out[-1000:])


def main():
    program, images_folder = sys.argv[1:]
    failed = []
    total = []
    for name, known_fields in KNOWN_FIELDS.items():
        with tempfile.TemporaryDirectory() as folder:
            images, refused = image_set.shared_images(os.path.join(images_folder, name + ".py"), folder)
            rules = DumpRules(program, known_fields)
            failed += image_set.judge(images, rules.lies_in_the_file, "dump")
            # That is about printing, which a sanitizer sees in a few of them.
            printed = images[::5] if harness.sanitized(program) else images
            failed += image_set.judge(printed, rules.is_the_same_for_people, "dump for people")
            failed += image_set.judge(refused, rules.survives_damage, "dump of a refused image")
            total += images + refused
            failed += [f"{name}: no image shows {structure}.{field}"
                       for structure, field, _, _ in known_fields
                       if (structure, field) not in rules.seen]
    failed += image_set.judge([{"name": "qcow2"}],
                              lambda _: interruption_tells_how_many_structures_there_were(program),
                              "interrupted dump")
    image_set.exit_when_failed(failed, total)


main()
