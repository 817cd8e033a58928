#!/usr/bin/python3
"""underlay-img audit finds what is in the way of serving an image, and opens nothing else. It agrees
with the server on every image of the image makers; and each of its rules has an image, made with one
wrong field, in which it finds that and nothing else.

usage: img_audit_test.py UNDERLAY_IMG UNDERLAY_NBD IMAGES_FOLDER
"""
import json
import os
import subprocess
import sys
import tempfile

import audit_images
import harness
import image_set
from opened_files import OpenedFiles

MAKERS = ("ova", "qcow", "qcow2", "raw", "vdi", "vhd", "vhdx", "vmdk")
TIME_LIMIT = 60

# What the server refuses, and audit cannot know: exit status 0.
UNKNOWN = {
    "qcow": {"qcow-truncated": "it is refused when what is missing is read"},
    "qcow2": {"qcow2-loop": "the parent of its parent is its parent"},
    "vhd": {"vhd-refused-other-parent": "whether its parent is the right one says the parent"},
    "vhdx": {"vhdx-wrong-parent": "whether its parent is the right one says the parent"},
    "vmdk": {"changed-parent": "whether its parent is the right one says the parent",
             "truncated-cowd": "the header of its extent says that it is truncated",
             "sesparse-journal": "the header of its extent says so"},
}
# What the server serves, and audit refuses as it cannot know.
UNSURE = {
    "qcow": {name: "its parent is guessed, and served because it names no further file"
             for name in ("qcow-backed-qcow", "qcow-backed-qcow2")},
}
# What it cannot audit before the operator says which disk is meant: exit status 1.
UNCLEAR = {"ova": {"two.ova", "two.ova#disk3.vmdk"}}


def audit(program, path, *options):
    return subprocess.run([program, "audit", *options, "--", path], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False, timeout=TIME_LIMIT)


def report_of(program, path, *options):
    done = audit(program, path, "--output=json", *options)
    assert done.returncode in (0, 2) and done.stderr == "", (done.returncode, done.stderr)
    report = json.loads(done.stdout)
    # Of --image-opts the name of the file stands in `path`.
    assert report["version"] == 1 and report["filename"] in path, report
    assert report["verdict"] == ("refuse" if done.returncode == 2 else "serve"), report
    refused = any(finding["level"] == "refuse" for finding in report["findings"])
    assert refused == (done.returncode == 2), report
    return report


def codes_of(report):
    """"code" of what refuses, "(code)" of what warns; each once."""
    return sorted({finding["code"] if finding["level"] == "refuse" else f"({finding['code']})"
                   for finding in report["findings"]})


def options_of(image):
    """Of the maker's options those that audit has; and whether these are all."""
    options, rest = [], list(image["args"])
    while rest:
        if rest[0] in ("-f", "--object"):
            options += rest[:2]
            rest = rest[2:]
        elif rest[0] == "--image-opts" or rest[0].startswith("--object="):
            options.append(rest.pop(0))
        else:
            return options, False
    return options, True


class Agreement:
    """With the server, on the images of one maker."""

    def __init__(self, program, maker):
        self.program = program
        self.unknown = UNKNOWN.get(maker, {})
        self.unsure = UNSURE.get(maker, {})
        self.unclear = UNCLEAR.get(maker, set())
        self.exceptions = self.unknown.keys() | self.unsure.keys() | self.unclear

    def on_read_images(self, image):
        options, complete = options_of(image)
        report = report_of(self.program, image["path"], *options)
        # What is read with options that audit does not have may be refused without them.
        name = image["name"]
        self.exceptions -= {name}
        wanted = "refuse" if name in self.unsure else "serve"
        assert report["verdict"] == wanted or not complete, report["findings"]

    def on_refused_images(self, image):
        options, complete = options_of(image)
        done = audit(self.program, image["path"], *options)
        name = image["name"]
        self.exceptions -= {name}
        wanted = 0 if name in self.unknown else 1 if name in self.unclear else 2
        assert done.returncode == wanted or not complete, (done.returncode, done.stdout, done.stderr)


def agree(program, images_folder):
    failed, total = [], []
    for maker in MAKERS:
        with tempfile.TemporaryDirectory() as folder:
            images, refused = image_set.shared_images(os.path.join(images_folder, maker + ".py"), folder)
            rules = Agreement(program, maker)
            failed += image_set.judge(images, rules.on_read_images, "serve")
            failed += image_set.judge(refused, rules.on_refused_images, "refuse")
            failed += [f"no image {maker} {name}" for name in rules.exceptions]
            total += images + refused
    return failed, total


def find_what_is_wrong(program):
    def finds(case):
        with tempfile.TemporaryDirectory(prefix="underlay-audit-") as folder:
            images = os.path.join(folder, "images")
            os.makedirs(images)
            path = case["make"](images)
            with OpenedFiles(folder) as opened:
                report = report_of(program, path, *case["options"])
            assert codes_of(report) == sorted(case["finds"].split()), report["findings"]
            for key, value in case["touches"].items():
                assert value in [touch[key] for touch in report["touches"]], report["touches"]
            others = opened.paths - {path.split("file.filename=")[-1].split(",")[0].split("#")[0]}
            assert not others, f"opened {others}"

    cases = audit_images.cases()
    return image_set.judge(cases, finds, "audit"), cases


def speaks_for_people_and_for_scripts(program):
    """Exit statuses, the list for people, -q."""
    with tempfile.TemporaryDirectory() as folder:
        good = audit_images.write(folder, "good.raw", bytes(4096))
        bad = audit_images.descriptor(folder, 'RW 8 FLAT "/etc/\x1b[31mpasswd" 0')
        done = audit(program, good, "-f", "raw")
        assert (done.returncode, done.stderr) == (0, ""), done
        assert done.stdout == f"{good}: may be served (0 to refuse it, 0 to warn of)\n", done.stdout
        done = audit(program, bad)
        lines = done.stdout.splitlines()
        assert done.returncode == 2 and done.stderr == "", done
        assert lines[0].startswith('refuse: outside: extent "/etc/\\x1b[31mpasswd" leads out'), lines
        assert lines[-2].startswith('touches: extent "/etc/\\x1b[31mpasswd" (FLAT), /etc/'), lines
        assert lines[-2].endswith(", outside"), lines
        assert lines[-1] == f"{bad}: must not be served (1 to refuse it, 0 to warn of)", lines
        for path in (good, bad):
            for output in ([], ["--output=json"]):
                quiet = audit(program, path, "-q", *output)
                assert (quiet.stdout, quiet.stderr) == ("", ""), quiet
                assert quiet.returncode == audit(program, path).returncode
        for path, options in ((os.path.join(folder, "gone"), []), (folder, []),
                              (good, ["-f", "unheard-of"]), (good, ["--output=xml"])):
            done = audit(program, path, *options)
            assert done.returncode == 1 and done.stdout == "", done
            assert len(done.stderr.splitlines()) <= 2 and done.stderr, done.stderr


def looks_at_exports(program, server_program):
    """What an export has is all that there is: no file that it names lies beside it."""
    with tempfile.TemporaryDirectory() as folder:
        overlay = audit_images.overlay(folder, "base")
        with harness.serve(["-f", "raw", overlay], program=server_program) as server:
            report = report_of(program, server.uri, "-f", "qcow2")
            assert codes_of(report) == ["outside"], report["findings"]
        good = audit_images.qcow2(folder)
        with harness.serve(["-f", "raw", good], program=server_program) as server:
            assert report_of(program, server.uri, "-f", "qcow2")["verdict"] == "serve"


def main():
    program, server_program, images_folder = sys.argv[1:]
    failed, cases = find_what_is_wrong(program)
    speaks_for_people_and_for_scripts(program)
    looks_at_exports(program, server_program)
    disagreed, images = agree(program, images_folder)
    image_set.exit_when_failed(failed + disagreed, cases + images)


main()
