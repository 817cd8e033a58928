#!/usr/bin/python3
"""underlay-img measure tells what qemu-img measure tells, of every image of the image makers and of new
disks, for each option that changes the size; and refuses what qemu-img refuses.

usage: img_measure_test.py UNDERLAY_IMG IMAGES_FOLDER
"""
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile

import harness
import image_set
from img_lab import ProgramInFolder, interrupted
from nbd_servers import nbdkit

TIME_LIMIT = 60
MAKERS = ("ova", "qcow", "qcow2", "raw", "vdi", "vhd", "vhdx", "vmdk")
KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
FOR_EACH_IMAGE = (["-O", "raw"], ["-O", "qcow2"], ["-O", "qcow2", "-o", "cluster_size=4k"],
                  ["-O", "qcow2", "-o", "compat=0.10,preallocation=full"])

# The format of a maker's images, for those that it leaves to be guessed: qemu-img does not know a
# fixed vhd by itself.
FORMATS = {"vhd": "vpc"}
# qemu maps no vhdx: all is data, and its numbers are the larger ones.
UNMAPPED = {"vhdx"}
# In images that qemu takes for preallocated, for their kind or because the file takes much less space
# than its clusters do, it asks the file system for holes: its numbers are the smaller ones.
PREALLOCATED = {"qcow2-preallocated-metadata", "qcow2-bitmaps", "vdi-qemu-static-7340032",
                "vdi-qemu-static-7342592"}


class Lab(ProgramInFolder):
    def both(self, *words):
        """(exit status, JSON, errors) of ours and of qemu-img."""
        return [measured([program, "measure", "--output=json", *words])
                for program in (self.program, "qemu-img")]

    def equal(self, *words):
        (our_status, ours, errors), (their_status, theirs, their_errors) = self.both(*words)
        assert (our_status, their_status) == (0, 0), (words, errors, their_errors)
        assert ours.pop("version") == 1
        assert ours == theirs, f"{words}: {ours}, and qemu-img {theirs}"
        assert list(ours) == list(theirs), "order"

    def ordered(self, words, smaller, larger):
        """Which of the two tells the smaller size."""
        (_, ours, errors), (_, theirs, _) = self.both(*words)
        assert ours, errors
        assert ours["fully-allocated"] == theirs["fully-allocated"], (words, ours, theirs)
        required = {"ours": ours["required"], "theirs": theirs["required"]}
        assert required[smaller] <= required[larger], (words, required)

    def refused(self, *words):
        ours, theirs = self.both(*words)
        assert ours[0] == theirs[0] == 1, (words, ours, theirs)
        lines = [line for line in ours[2].splitlines()
                 if "warning: " not in line and not line.startswith("underlay-img: try '")]
        assert len(lines) == 1 and ours[1] is None, (words, ours)
        return lines[0]


def measured(words):
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=TIME_LIMIT)
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def run(*words):
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   timeout=TIME_LIMIT)


def every_image_is_measured_as_qemu_img_measures_it(lab, images_folder):
    failed, total = [], []
    for maker in MAKERS:
        with tempfile.TemporaryDirectory() as folder:
            images, _ = image_set.shared_images(os.path.join(images_folder, maker + ".py"), folder)
            images = [image for image in images if "qemu" in image["oracles"]]
            # Opening the image is what a sanitizer looks at: each is measured once then, in turns.
            turns = itertools.cycle([[words] for words in FOR_EACH_IMAGE] if lab.sanitized
                                    else [FOR_EACH_IMAGE])

            def is_measured(image, maker=maker, turns=turns):
                stated = ["-f", FORMATS.get(maker, maker)]
                if {"-f", "--image-opts"} & set(image["args"]):
                    stated = []
                for words in next(turns):
                    words = [*words, *stated, *image["args"], image["path"]]
                    if maker in UNMAPPED:
                        lab.ordered(words, "ours", "theirs")
                    elif image["name"] in PREALLOCATED:
                        lab.ordered(words, "theirs", "ours")
                    else:
                        lab.equal(*words)

            failed += image_set.judge(images, is_measured, "measure")
            total += images
    return failed, total


def rule_new_disks(lab):
    for size in (0, 1, 512, 513, 65536, 65537, 10 * MIB, GIB, 100 * GIB + 512, 8 * TIB):
        for words in (["-O", "raw"], [], ["-O", "qcow2"],
                      ["-O", "qcow2", "-o", "cluster_size=2M,extended_l2=on"]):
            lab.equal("--size", str(size), *words)
    for text in ("1.5G", "100k", "1T", "64M", "0x10000", "7E"):
        lab.equal("--size", text)


def rule_options_of_qcow2(lab):
    options = ["compat=0.10", "compat=1.1", "preallocation=off", "preallocation=metadata",
               "preallocation=falloc", "preallocation=full", "lazy_refcounts=on", "lazy_refcounts",
               "extended_l2=on", "extended_l2=yes", "compression_type=zstd", "backing_file=a,,b",
               "backing_file=b,backing_fmt=raw", "data_file=x,data_file_raw=on", "encryption=on",
               "encrypt.format=aes", "nocow=on", "extent_size_hint=1M", "size=5G",
               "cluster_size=1M,extended_l2=off"]
    options += [f"cluster_size={512 << i}" for i in range(13)]
    options += [f"refcount_bits={1 << i}" for i in range(7)]
    options += [f"refcount_bits={1 << i},cluster_size=512" for i in range(7)]
    for option in options:
        for size in ("3G",) if lab.sanitized else ("0", "3G", "100M"):
            lab.equal("-O", "qcow2", "--size", size, "-o", option)
    lab.equal("-O", "qcow2", "--size", "9G", "-o", "cluster_size=2M", "-o", "extended_l2=on")
    lab.equal("-O", "qcow2", "--size", "9G", "-o", "cluster_size=2M", "-o", "cluster_size=4k")


def rule_luks(lab):
    with open(lab.path("passphrase"), "wb") as out:
        out.write(b"passphrase")
    secret = ["--object", f"secret,id=s,file={lab.path('passphrase')}"]
    shortest, longest = ",cipher-alg=cast5-128,cipher-mode=cbc", ""
    for options in (longest, shortest, ",cipher-alg=aes-192", ",cipher-mode=cbc",
                    ",cipher-alg=twofish-256", ",hash-alg=sha1"):
        equal_in_time(lab, *secret, "-O", "luks", "--size", "1G", "-o",
                      "iter-time=10,key-secret=s" + options)
    # Between them lie the other ones, as many clusters as the key material takes.
    for options, cluster in ((longest, "4k"), (shortest, "4k"), (longest, "2M")):
        equal_in_time(lab, *secret, "-O", "qcow2", "--size", "1G", "-o",
                      f"cluster_size={cluster},encrypt.format=luks,encrypt.key-secret=s,"
                      "encrypt.iter-time=10" + options.replace(",", ",encrypt."))


def equal_in_time(lab, *words):
    """qemu-img derives keys for nothing, which takes seconds, and fails when what that takes is too
    short to be told."""
    for _ in range(50):
        (_, ours, errors), (_, theirs, _) = lab.both(*words)
        if theirs is not None:
            assert ours and ours.pop("version") == 1 and ours == theirs, (words, ours, theirs, errors)
            return
    raise AssertionError(f"qemu-img cannot measure {words}")


def rule_data_of_an_image(lab):
    image = lab.path("data.qcow2")
    run("qemu-img", "create", "-f", "qcow2", image, "1G")
    run("qemu-io", "-f", "qcow2", "-c", "write 100k 1", "-c", "write -z 1M 1M", "-c", "write 4M 3M",
        "-c", "write -c 8M 64k", "-c", f"write {GIB - 512} 512", image)
    for cluster in ("512", "64k", "2M"):
        lab.equal("-O", "qcow2", "-o", f"cluster_size={cluster}", image)
        lab.equal("-O", "qcow2", "-o", f"cluster_size={cluster},backing_file=x,backing_fmt=raw",
                  image)
    lab.equal("-O", "qcow2", "-f", "raw", image)
    lab.equal("-O", "qcow2", "--image-opts", f"driver=qcow2,file.filename={image}")
    child = lab.path("child.qcow2")
    run("qemu-img", "create", "-f", "qcow2", "-b", image, "-F", "qcow2", child, "2G")
    run("qemu-io", "-f", "qcow2", "-c", "write 4M 64k", "-c", "write 1536M 1M", child)
    lab.equal("-O", "qcow2", child)


def rule_snapshots(lab):
    image = lab.path("snapshots.qcow2")
    run("qemu-img", "create", "-f", "qcow2", image, "100M")
    run("qemu-io", "-f", "qcow2", "-c", "write 0 5M", image)
    run("qemu-img", "snapshot", "-c", "five", image)
    run("qemu-io", "-f", "qcow2", "-c", "write 50M 9M", image)
    for words in ([], ["-l", "five"], ["-l", "1"], ["-l", "snapshot.name=five"]):
        lab.equal("-O", "qcow2", *words, image)
    assert "none" in lab.refused("-O", "qcow2", "-l", "none", image)


def rule_bitmaps(lab):
    image = lab.path("bitmaps.qcow2")
    run("qemu-img", "create", "-f", "qcow2", image, "300G")
    for name, granularity in (("a", "64k"), ("a longer name", "4k"), ("c" * 1000, "2G")):
        run("qemu-img", "bitmap", "--add", "-g", granularity, image, name)
    for cluster in ("4k", "64k", "2M"):
        lab.equal("-O", "qcow2", "-o", f"cluster_size={cluster}", image)
    # qemu-img measures an image whose tables qemu-img could not make so large.
    assert lab.both("-O", "qcow2", "-o", "cluster_size=512", image)[0][0] == 1
    lab.equal("-O", "qcow2", "-o", "compat=0.10", image)
    lab.equal("-O", "raw", image)
    set_in_use(image)
    lab.equal("-O", "qcow2", image)
    old = lab.path("old.qcow2")
    run("qemu-img", "create", "-f", "qcow2", "-o", "compat=0.10", old, "1G")
    lab.equal("-O", "qcow2", old)


def set_in_use(image):
    """The first bitmap was not closed: it is inconsistent."""
    with open(image, "r+b") as file:
        content = file.read(1 << 20)
        extension = content.index((0x23852875).to_bytes(4, "big"))
        directory = int.from_bytes(content[extension + 24:extension + 32], "big")
        file.seek(directory + 12)
        file.write((1).to_bytes(4, "big"))


def rule_what_qemu_img_refuses_is_refused(lab):
    image = lab.path("refused.qcow2")
    run("qemu-img", "create", "-f", "qcow2", image, "1M")
    for named, words in {
            "--size": [], "--format requires": ["-f", "raw"], "cannot be used": ["--size=1M", image],
            "--snapshot requires": ["-l", "x"], "--image-opts requires": ["--image-opts"],
            "0 operand": None, "suffix": ["--size=foo"], "9223372036854775807": ["--size=8E"],
            "xml": ["--output=xml", image], "missing": [lab.path("missing")]}.items():
        if words is not None:
            assert named in lab.refused(*words), named
    for form, named in {"vmdk": "does not support size measurement", "vpc": "does not support",
                        "qcow": "does not support", "foo": "unknown file format"}.items():
        assert named in lab.refused("-O", form, "--size=1G"), form
    for option, named in {
            "help": "\"help\"", "foo=1": "\"foo\"", "cluster_size=100": "2048k",
            "cluster_size=4M": "2048k", "cluster_size": "cluster_size", "compat=2": "compat",
            "refcount_bits=3": "refcount_bits", "refcount_bits=128": "refcount_bits",
            "refcount_bits=8,compat=0.10": "compat=1.1", "preallocation=bar": "bar",
            "extended_l2=on,cluster_size=4k": "16384", "lazy_refcounts=maybe": "maybe",
            "cluster_size=64k,": "\"\"", ",compat=1.1": "\"\"", "cluster_size=512": "too large",
    }.items():
        assert named in lab.refused("-O", "qcow2", "--size=1T", "-o", option), option
    assert "too large" in lab.refused("-O", "qcow2", "--size=4E")
    assert "cluster_size" in lab.refused("-O", "raw", "--size=1G", "-o", "cluster_size=64k")
    assert "operands" in lab.refused(image, image)


def rule_bitmaps_of_an_export(lab):
    """They lie in the qcow2 image that the export is; of an image that a server has opened, no
    client sees them."""
    image = lab.path("exported.qcow2")
    run("qemu-img", "create", "-f", "qcow2", image, "10G")
    run("qemu-img", "bitmap", "--add", "-g", "64k", image, "a")
    for served, opened, has_bitmaps in (("raw", "qcow2", True), ("qcow2", "raw", False)):
        with harness.serve(["-r", "-e", "2", "-f", served, image], program="qemu-nbd") as server:
            for words in (["-O", "qcow2"], ["-O", "raw"]):
                lab.equal(*words, "-f", opened, server.uri)
            (_, ours, errors), _ = lab.both("-O", "qcow2", "-f", opened, server.uri)
            assert ours.get("bitmaps", 0) > 0 if has_bitmaps else "bitmaps" not in ours, (ours, errors)


def rule_who_interrupts_is_told_how_far_it_got(lab):
    size = 1 << 40
    with nbdkit("--filter=delay", "memory", str(size), "delay-extents=50ms") as server:
        status, out, errors = interrupted([lab.program, "measure", "-O", "qcow2", "-f", "raw",
                                           server.uri])
    assert status == -signal.SIGINT and not out, (status, out)
    told = re.fullmatch(rf"underlay-img: interrupted: (\d+) of {size} bytes measured\n", errors)
    assert told and 0 < int(told[1]) < size, errors


def rule_people_read_the_same(lab):
    image = lab.path("people.qcow2")
    run("qemu-img", "create", "-f", "qcow2", image, "1G")
    for words in (["-O", "qcow2", image], ["-O", "raw", image], ["--size", "1G", "-O", "qcow2"]):
        ours, theirs = (subprocess.run([program, "measure", *words], capture_output=True,
                                       check=True).stdout for program in (lab.program, "qemu-img"))
        assert ours == theirs, (ours, theirs)


def main():
    program, images_folder = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(os.path.abspath(program), folder)
        failed = image_set.judge_rules(globals(), lab)
        more_failed, images = every_image_is_measured_as_qemu_img_measures_it(lab, images_folder)
    image_set.exit_when_failed(failed + more_failed, images)


main()
