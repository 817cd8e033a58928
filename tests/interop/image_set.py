"""The images of an image maker (tests/images/common.py), judged one by one."""
import json
import os
import subprocess
import sys
import traceback


def make_images(maker, folder):
    """Runs the maker; the lines of its manifest."""
    subprocess.run([sys.executable, maker, folder], check=True)
    manifest = os.path.join(folder, format_of(maker) + ".jsonl")
    with open(manifest, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


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


def exit_when_failed(failed, images):
    """Also when there were no images: nothing was proved then."""
    if failed or not images:
        sys.exit(f"{len(failed)} of {len(images)} images failed: {' '.join(failed)}")
