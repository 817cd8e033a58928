#!/usr/bin/python3
"""Every image of an image maker reads as its raw source, through the readers alone; or, with ORACLE,
through a program that is not ours, for the images that name it among their oracles. So a maker cannot
err in the same way as our readers unseen. Images that must be refused are, in one line with the
reason; and every feature that README tells has an image that shows it.

usage: readers_test.py IMAGE_MAKER PROGRAM [ORACLE]
Our disk-dump is run as PROGRAM ARGS IMAGE OUTPUT, an oracle as PROGRAM IMAGE [PARENT...] OUTPUT.
"""
import os
import subprocess
import sys
import tempfile

import image_set


def main():
    maker, program, *oracle = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        images, refused = image_set.shared_images(maker, folder)
        output = os.path.join(folder, "dumped")
        if oracle:
            images = [image for image in images if oracle[0] in image["oracles"]]

        def reads_as_its_source(image):
            words = [image["path"], *image["parents"]] if oracle else [*image["args"], image["path"]]
            assert subprocess.run([program, *words, output]).returncode == 0, "not readable"
            assert subprocess.run(["cmp", "--", output, image["raw"]]).returncode == 0, "differs"

        def is_refused(image):
            done = subprocess.run([program, *image["args"], image["path"], output],
                                  stderr=subprocess.PIPE, text=True)
            assert done.returncode == 1, f"exit status {done.returncode}"
            errors = [line for line in done.stderr.splitlines() if "warning: " not in line]
            assert len(errors) == 1 and image["refused"] in errors[0], f"said: {done.stderr}"

        failed = image_set.judge(images, reads_as_its_source, "read")
        if not oracle:
            failed += image_set.judge(refused, is_refused, "refused")
            failed += [f"feature {key}" for key in
                       image_set.features_without_an_image(maker, images, refused)]
        image_set.exit_when_failed(failed, images)


main()
