"""The images of an image maker (tests/images/common.py), judged one by one."""
import fcntl
import json
import os
import shutil
import subprocess
import sys
import traceback


def make_images(maker, folder):
    """Runs the maker; the lines of its manifest: images to be read, images to be refused."""
    subprocess.run([sys.executable, maker, folder], check=True)
    return read_manifest(maker, folder)


def shared_images(maker, folder):
    """The same for who changes none of them and puts nothing beside them. Where the environment names
    a folder in UNDERLAY_IMAGES, many tests share what one of them has made there."""
    shared = os.environ.get("UNDERLAY_IMAGES")
    if not shared:
        return make_images(maker, folder)
    place = os.path.join(shared, format_of(maker))
    made = place + ".made"
    os.makedirs(shared, exist_ok=True)
    with open(place + ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_newer_than_makers(made, os.path.dirname(maker)):
            shutil.rmtree(place, ignore_errors=True)
            os.makedirs(place)
            make_images(maker, place)
            os.sync()  # until then, what a file takes may still change
            with open(made, "w", encoding="ascii"):
                pass
    return read_manifest(maker, place)


def is_newer_than_makers(path, makers):
    changed = max(os.path.getmtime(os.path.join(makers, name)) for name in os.listdir(makers)
                  if name.endswith(".py"))
    return os.path.exists(path) and os.path.getmtime(path) > changed


def read_manifest(maker, folder):
    manifest = os.path.join(folder, format_of(maker) + ".jsonl")
    with open(manifest, encoding="utf-8") as lines:
        images = [json.loads(line) for line in lines]
    return ([image for image in images if "refused" not in image],
            [image for image in images if "refused" in image])


def features_of(maker):
    """What README says of the format: its features, those that are read and those that are not."""
    said = subprocess.run([sys.executable, maker, "--features"], stdout=subprocess.PIPE, check=True)
    return json.loads(said.stdout)


def features_without_an_image(maker, images, refused):
    """Every feature that README tells must be shown by an image, and no image by another word."""
    def wrong(features, shown):
        return {feature["key"] for feature in features} ^ {image["feature"] for image in shown}

    features = features_of(maker)
    return sorted(wrong([feature for feature in features if not feature["refused"]], images) |
                  wrong([feature for feature in features if feature["refused"]], refused))


def format_of(maker):
    return os.path.basename(maker).removesuffix(".py")


def judge(images, rule, what):
    """Calls rule(image) for each; the names of those for which it raised. `what` names the rule."""
    failed = []
    for image in images:
        try:
            rule(image)
            print("ok  ", what, image["name"], flush=True)
        except Exception as error:  # this image failed; the others are still looked at
            failed.append(image["name"])
            print("FAIL", what, image["name"], f"{type(error).__name__}: {error}", flush=True)
            if not isinstance(error, AssertionError):
                traceback.print_exc(file=sys.stdout)
    return failed


def judge_rules(namespace, lab):
    """Calls each function rule_... of a module's globals() with the lab; the names of those that raised."""
    rules = [{"name": name.removeprefix("rule_").replace("_", " "), "rule": rule}
             for name, rule in namespace.items() if name.startswith("rule_")]
    assert rules, "no rules"
    return judge(rules, lambda each: each["rule"](lab), "rule")


class Matrix:
    """How many images of each feature hold in each column, of how many."""

    def __init__(self):
        self.failed = []  # "IMAGE COLUMN"
        self._cells = {}  # (feature, column): [held, all]
        self._columns = []

    def judge(self, image, column, rule):
        cell = self._cells.setdefault((str(image["feature"]), column), [0, 0])
        if column not in self._columns:
            self._columns.append(column)
        cell[1] += 1
        if judge([image], lambda _: rule(), column):
            self.failed.append(f"{image['name']} {column}")
        else:
            cell[0] += 1

    def __str__(self):
        features = sorted({feature for feature, _ in self._cells})
        width = max(map(len, features), default=0)
        lines = [" " * width + "".join(f"{column:>12}" for column in self._columns)]
        for feature in features:
            cells = [self._cells.get((feature, column), (0, 0)) for column in self._columns]
            lines.append(f"{feature:{width}}" +
                         "".join(f"{held:>8}/{total:<3}" for held, total in cells))
        return "\n".join(lines)


def exit_when_failed(failed, images):
    """Also when there were no images: nothing was proved then."""
    if failed or not images:
        sys.exit(f"{len(failed)} of {len(images)} images failed: {' '.join(failed)}")
