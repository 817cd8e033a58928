#!/usr/bin/python3
"""underlay-img check against qemu-img check: exit status, output for people and the JSON fields that
both have, for every image of an image maker, and for damaged ones. Where the two differ, a reason
stands beside it.

usage: img_check_test.py UNDERLAY_IMG IMAGE_MAKER

A format whose damaged images are made here has a module img_check_FORMAT.py with
    damaged(folder)  Damage after Damage, made in the folder
    IGNORED          {code of a finding: why qemu-img does not count it}
and may have
    UNCOUNTED        counts of ours for which qemu-img has none
    FOUND            {image of the maker that is read although it is damaged: codes of findings}
"""
import importlib
import json
import os
import subprocess
import sys
import tempfile

import image_set

TIME_LIMIT = 60
# qemu-img's fields that are counts; it leaves those of 0 out.
COUNTS = ("image-end-offset", "total-clusters", "allocated-clusters", "fragmented-clusters",
          "compressed-clusters", "corruptions", "leaks", "check-errors")
CLEAN, FAILED, CORRUPT, LEAKS, NOTHING_TO_CHECK = 0, 1, 2, 3, 63
KINDS = {"corruption": "corruptions", "leak": "leaks", "failure": "check-errors", "notice": None}


class Checked:
    """One run of a program's check, with JSON and without."""

    def __init__(self, program, words):
        self.text = run(program, ["check", *words])
        self.done = run(program, ["check", "--output=json", *words])
        self.status = self.done.returncode
        self.document = json.loads(self.done.stdout) if self.done.stdout.strip() else None
        assert self.text.returncode == self.status, (self.text, self.done)

    @property
    def counts(self):
        return {key: self.document[key] for key in COUNTS if key in self.document}

    @property
    def said(self):
        """All words of it."""
        return self.done.stdout + self.done.stderr + self.text.stderr

    def count_of(self, codes):
        return sum(1 for finding in self.document["findings"] if finding["code"] in codes)


def run(program, words):
    return subprocess.run([program, *words], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, errors="replace", check=False, timeout=TIME_LIMIT)


def check_words(image):
    """Of the options of underlay-nbd that the image needs, those that check has."""
    words = list(image["args"])
    if "-l" in words:
        del words[words.index("-l"):words.index("-l") + 2]
    return [*words, image["path"]]


def judge_document(checked, path):
    """What holds of our JSON whatever the image."""
    document = checked.document
    assert document["version"] == 1, document
    assert document["filename"] in path, document
    for key in COUNTS:
        assert key == "check-errors" or document.get(key) != 0, f"{key} is 0"
    for finding in document["findings"]:
        assert set(finding) - {"offset"} == {"kind", "code", "message"}, finding
        assert "\n" not in finding["message"], finding
        counted = KINDS[finding["kind"]]
        assert counted is None or document[counted] > 0, finding
    expected = (FAILED if document["check-errors"] else CORRUPT if "corruptions" in document
                else LEAKS if "leaks" in document else CLEAN)
    assert checked.status == expected, checked.done


class Rules:
    def __init__(self, program, damage):
        self.program = program
        self.ignored = damage.IGNORED if damage else {}
        self.uncounted = getattr(damage, "UNCOUNTED", set())
        self.found = getattr(damage, "FOUND", {})

    def both(self, image):
        words = check_words(image)
        ours = Checked(self.program, words)
        judge_document(ours, words[-1])
        return ours, Checked("qemu-img", words)

    def whole(self, image):
        """As qemu-img says; where it checks nothing, or cannot open the image, it is clean."""
        ours, theirs = self.both(image)
        if image["name"] in self.found:
            codes = {finding["code"] for finding in ours.document["findings"]}
            assert ours.status == CORRUPT and self.found[image["name"]] <= codes, ours.done
            return
        assert ours.status == CLEAN, ours.done
        judged = "qemu" in image["oracles"] and theirs.status != NOTHING_TO_CHECK
        if judged:
            self.agree(ours, theirs)
            # The counts stand in the text as well.
            assert self.uncounted or ours.text.stdout == theirs.text.stdout, (ours.text, theirs.text)

    def agree(self, ours, theirs):
        """Equal counts, but for findings that qemu-img does not have."""
        assert theirs.document is not None, theirs.done
        more = ours.count_of(self.ignored)
        expected = dict(theirs.counts)
        if more:
            expected["corruptions"] = expected.get("corruptions", 0) + more
        counts = {key: count for key, count in ours.counts.items() if key not in self.uncounted}
        assert counts == expected, f"{ours.counts}, not {expected}: {ours.done.stdout[:3000]}"
        if not more:
            assert ours.status == theirs.status, (ours.done, theirs.done)
        for key in ("filename", "format"):
            assert ours.document[key] == theirs.document[key]

    def refused(self, image):
        """What cannot be served is no clean image."""
        words = check_words(image)
        done = run(self.program, ["check", "--output=json", *words])
        assert done.returncode in (FAILED, CORRUPT), done
        assert image["refused"] in json_text(done.stdout) + done.stderr, done

    def agrees(self, ours, theirs):
        try:
            self.agree(ours, theirs)
        except AssertionError:
            return False
        return ours.status == theirs.status

    def damaged(self, damage):
        ours, theirs = self.both({"args": damage.args, "path": damage.path})
        codes = {finding["code"] for finding in ours.document["findings"]}
        assert damage.codes <= codes, f"{codes}, not {damage.codes}: {ours.done.stdout[:3000]}"
        assert damage.status in (None, ours.status), ours.done
        if damage.differs:
            assert not self.agrees(ours, theirs), f"qemu-img says the same: {ours.done}"
        # What qemu-img cannot even open has no counts.
        elif theirs.document or damage.status is not None:
            self.agree(ours, theirs)


def json_text(text):
    """The messages as they were said, without JSON's escapes."""
    if not text.strip():
        return ""
    return "\n".join(finding["message"] for finding in json.loads(text)["findings"])


def damage_of(format_name):
    name = "img_check_" + format_name
    folder = os.path.dirname(os.path.abspath(__file__))
    return importlib.import_module(name) if os.path.exists(f"{folder}/{name}.py") else None


def judge_damaged(rules, damage, folder):
    failed, count = [], 0
    for case in damage.damaged(folder):
        count += 1
        failed += image_set.judge([{"name": case.name}], lambda _, case=case: rules.damaged(case),
                                  "damaged")
        os.unlink(case.path)
    return failed + ([] if count else ["no damaged images"])


def main():
    program, maker = sys.argv[1:]
    damage = damage_of(image_set.format_of(maker))
    rules = Rules(program, damage)
    with tempfile.TemporaryDirectory() as folder:
        images, refused = image_set.shared_images(maker, folder)
        failed = image_set.judge(images, rules.whole, "whole")
        failed += image_set.judge(refused, rules.refused, "refused")
        if damage:
            failed += judge_damaged(rules, damage, folder)
        image_set.exit_when_failed(failed, images)


main()
