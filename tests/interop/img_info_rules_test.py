#!/usr/bin/python3
"""underlay-img info beyond what it says of the image makers' images: chains, exports, containers,
text of strangers.

usage: img_info_rules_test.py UNDERLAY_IMG [RULE...]     RULE: part of a rule's name; only those run
"""
import os
import subprocess
import sys
import tarfile

import harness
import rules_in_folders
from img_lab import KIB, MIB, Lab
from opened_files import OpenedFiles


def chain_of_three(lab):
    base = lab.raw("base.img", 3 * MIB, "write 0 64k")
    middle = lab.qcow2("middle.qcow2", 4 * MIB, backing=base, backing_format="raw")
    return lab.qcow2("top.qcow2", 5 * MIB, backing=middle)


def names(document):
    return [os.path.basename(each["filename"]) for each in document]


def rule_a_chain_is_opened_only_when_asked(lab):
    top = chain_of_three(lab)
    with OpenedFiles(lab.folder) as opened:
        assert lab.json("info", "--output=json", top)["backing-filename"] == "middle.qcow2"
    assert opened.paths == {top}, opened.paths
    with OpenedFiles(lab.folder) as opened:
        document = lab.json("info", "--output=json", "--backing-chain", top)
    assert names(document) == ["top.qcow2", "middle.qcow2", "base.img"], document
    assert [each["version"] for each in document] == [1, 1, 1], document
    assert {os.path.basename(path) for path in opened.paths} == set(names(document)), opened.paths


def told_names(program, command, folder, image):
    """The files that a command tells of when it runs in a folder."""
    text = subprocess.run([program, *command, image], cwd=folder, check=True, text=True,
                          stdin=subprocess.DEVNULL, capture_output=True).stdout
    if command[0] == "map":
        return [line.split()[-1] for line in text.splitlines()]
    return [line for line in text.splitlines() if line.startswith("image: ")]


def rule_files_are_called_from_the_folder_that_was_named(lab):
    chain_of_three(lab)
    parent, folder = os.path.split(lab.folder)
    for command in (["info", "--backing-chain"], ["map"]):
        for place, image in ((lab.folder, "top.qcow2"), (parent, f"{folder}/top.qcow2"),
                             (lab.folder, "./top.qcow2"), (lab.folder, lab.path("top.qcow2"))):
            theirs = told_names("qemu-img", command, place, image)
            assert len(theirs) >= 2, theirs
            ours = told_names(lab.program, command, place, image)
            assert ours == theirs, (ours, theirs)


def rule_a_parent_that_is_a_pipe_stops_nobody(lab):
    top = chain_of_three(lab)
    os.unlink(lab.path("middle.qcow2"))
    os.mkfifo(lab.path("middle.qcow2"))
    assert lab.json("info", "--output=json", top)["virtual-size"] == 5 * MIB
    assert "middle.qcow2" in lab.refusal("info", "--output=json", "--backing-chain", top)


def rule_what_is_there_of_a_broken_chain_is_told_to_people(lab):
    top = chain_of_three(lab)
    os.unlink(lab.path("base.img"))
    done = lab.run("info", "--backing-chain", top)
    assert done.status == 1 and "base.img" in done.stderr, done
    assert [line for line in done.stdout.decode().splitlines() if line.startswith("image: ")] == [
        f"image: {top}", f"image: {lab.path('middle.qcow2')}"], done
    done = lab.run("info", "--backing-chain", "--output=json", top)
    assert done.status == 1 and not done.stdout, done


def rule_a_chain_is_walked_by_the_rules_of_serving(lab):
    """Outside the image's folder only where the operator allows it; where he says a parent is."""
    outside = lab.path("outside")
    os.mkdir(outside)
    os.rename(lab.raw("base.img", MIB), os.path.join(outside, "base.img"))
    image = lab.path("image.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "../elsewhere/base.img",
                    "-F", "raw", image, "1M"], check=True)
    inner = lab.path("inner")
    os.mkdir(inner)
    os.rename(image, os.path.join(inner, "image.qcow2"))
    os.rename(outside, lab.path("elsewhere"))
    image = os.path.join(inner, "image.qcow2")
    assert "--allow-path" in lab.refusal("info", "--backing-chain", "--output=json", image)
    base = lab.path("elsewhere/base.img")
    for option in (["--allow-path", lab.path("elsewhere")], ["--parent", f"image.qcow2={base}"]):
        document = lab.json("info", "--backing-chain", "--output=json", *option, image)
        assert [each["filename"] for each in document] == [image, base], document


def rule_an_actual_path_starts_where_the_image_is(lab):
    top = chain_of_three(lab)
    os.mkdir(lab.path("sub"))
    os.symlink(top, lab.path("sub/link.qcow2"))
    for image in (top, os.path.join(lab.folder, "sub", "..", "top.qcow2")):
        ours = lab.output("info", image)
        theirs = subprocess.run(["qemu-img", "info", image], check=True, capture_output=True)
        lines = [line for line in theirs.stdout.splitlines() if line.startswith(b"backing file")]
        assert len(lines) == 2 and all(line in ours.splitlines() for line in lines), (ours, theirs)


def rule_an_export_is_raw(lab):
    image = lab.qcow2("a.qcow2", 3 * MIB, "write 0 64k")
    path = lab.path("socket")
    with harness.start(["qemu-nbd", "-r", "-t", "-f", "qcow2", "-k", path, image], path):
        uri = harness.uri(path)
        document = lab.json("info", "--output=json", uri)
        assert (document["format"], document["virtual-size"]) == ("raw", 3 * MIB), document
        assert document["filename"] == uri and "actual-size" not in document, document
        lines = lab.output("info", uri).decode().splitlines()
        assert "disk size: unavailable" in lines and f"image: {uri}" in lines, lines
        assert lab.json("info", "--backing-chain", "--output=json", uri) == [document]
    assert "cannot" in lab.refusal("info", harness.uri(lab.path("nothing")))


def rule_the_container_of_an_image_is_told(lab):
    image = lab.qcow2("disk.qcow2", MIB, "write 0 64k")
    archive = lab.path("a.tar")
    with tarfile.open(archive, "w") as out:
        out.add(image, "folder/disk.qcow2")
    document = lab.json("info", "--output=json", archive)
    assert document["container"] == {"filename": archive, "member": "folder/disk.qcow2",
                                     "compressed": False}, document
    assert document["filename"] == archive and document["format"] == "qcow2", document
    assert f"container: {archive}, member folder/disk.qcow2\n" in \
        lab.output("info", f"{archive}#folder/disk.qcow2").decode()
    packed = lab.path("disk.qcow2.xz")
    subprocess.run(["xz", "--block-size=64KiB", "-k", image], check=True)
    document = lab.json("info", "--output=json", packed)
    assert document["container"] == {"filename": packed, "compressed": True}, document
    assert document["actual-size"] == os.stat(packed).st_blocks * 512, document
    assert "container" not in lab.json("info", "--output=json", image)


def rule_text_of_an_image_drives_no_terminal(lab):
    evil = "\x1b[2J\nfile format: raw"
    image = lab.path("a.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", evil, "-F", "raw", image,
                    "1M"], check=True)
    subprocess.run(["qemu-img", "snapshot", "-c", evil, image], check=False, capture_output=True)
    text = lab.output("info", image).decode()
    assert "\x1b" not in text and "\\x1b[2J\\x0afile format: raw" in text, text
    assert [line for line in text.splitlines() if line.startswith("file format")] == [
        "file format: qcow2"], text
    assert lab.json("info", "--output=json", image)["backing-filename"] == evil


def rule_dates_are_of_the_operators_time_zone(lab):
    image = lab.qcow2("a.qcow2", MIB)
    subprocess.run(["qemu-img", "snapshot", "-c", "first", image], check=True)
    for zone in ("UTC", "Asia/Tokyo", "America/New_York"):
        env = {"TZ": zone}
        ours = lab.run("info", image, env=env).stdout.splitlines()
        theirs = subprocess.run(["qemu-img", "info", image], check=True, capture_output=True,
                                env={**os.environ, **env}).stdout.splitlines()
        line = next(line for line in theirs if line.startswith(b"1 "))
        assert line in ours, (ours, line)


def rule_what_an_image_hides_is_told(lab):
    """A vhd's two sizes, and which of them holds."""
    image = lab.path("a.vhd")
    subprocess.run(["qemu-img", "create", "-q", "-f", "vpc", image, "100M"], check=True)
    specific = lab.json("info", "--output=json", "-f", "vpc", image)["format-specific"]
    assert specific["type"] == "vpc", specific
    sizes = specific["data"]
    assert sizes["geometry-size"] == 104865792 and "qemu" in sizes["size-rule"], sizes
    text = lab.output("info", "-f", "vpc", image).decode()
    assert "    geometry size: 104865792\n" in text and "\ncreator: QEMU" in text, text


def rule_a_raw_guess_is_warned_of(lab):
    done = lab.run("info", lab.raw("a.img", MIB + 100))
    assert done.status == 0 and "probing guessed raw" in done.stderr, done
    assert b"virtual size: 1 MiB (1049088 bytes)" in done.stdout, done
    assert b"notice: size 1048676 is no multiple of 512" in done.stdout, done


def rule_a_damaged_image_is_told_as_far_as_it_goes(lab):
    image = lab.qcow2("a.qcow2", 64 * MIB, "write 0 64M")
    os.truncate(image, 100 * KIB)
    document = lab.json("info", "--output=json", image)
    kinds = {each["kind"] for each in document["findings"]}
    assert document["virtual-size"] == 64 * MIB and kinds & {"corruption", "failure"}, document
    assert "\nFindings:\n    corruption: " in lab.output("info", image).decode()


if __name__ == "__main__":
    rules_in_folders.main(Lab, sys.modules["__main__"])
