#!/usr/bin/python3
"""underlay-img digest: of every image of the image makers it is sha256sum's of the raw disk; and its
hash trees are veritysetup's, in both directions, whatever is damaged.

usage: img_digest_test.py UNDERLAY_IMG IMAGES_FOLDER
"""
import hashlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time

import harness
import image_set
from img_lab import ProgramInFolder, interrupted

MIB = 1 << 20
TIB = 1 << 40
TIME_LIMIT = 120
MAKERS = ("ova", "qcow", "qcow2", "raw", "vdi", "vhd", "vhdx", "vmdk")
# Of its tables, clusters and buffers, with what the program has itself: 32 + 64 + 40.
MEMORY_LIMIT = 192 * MIB
ALGORITHMS = ("sha1", "sha224", "sha256", "sha384", "sha512")


class Lab(ProgramInFolder):
    def digest(self, *words):
        """Exit status, output, lines on standard error that are no warnings."""
        done = subprocess.run([self.program, "digest", *map(str, words)], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=TIME_LIMIT)
        errors = [line for line in done.stderr.splitlines() if "warning: " not in line]
        return done.returncode, done.stdout, errors

    def json(self, *words, status=0):
        code, output, errors = self.digest("--output=json", *words)
        assert code == status, (code, output, errors)
        document = json.loads(output)
        assert document["version"] == 1
        return document

    def refused(self, named, *words):
        """In one line, with nothing on standard output."""
        code, output, errors = self.digest(*words)
        assert (code, output) == (1, ""), (code, output, errors)
        wanted = [line for line in errors if not line.startswith("underlay-img: try '")]
        assert len(wanted) == 1 and named in wanted[0], errors

    def disk(self, name, size, runs=()):
        """A sparse raw disk with random bytes in `runs`: (offset, length)."""
        path = self.path(name)
        with open(path, "wb") as out:
            for offset, length in runs:
                out.seek(offset)
                out.write(os.urandom(length))
            out.truncate(size)
        return path

    def qcow2(self, raw, *options):
        path = raw + ".qcow2"
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, raw, path)
        return path


def run(*words, fails=False):
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=TIME_LIMIT)
    assert (done.returncode != 0) == fails, f"{words}: {done}"
    return done.stdout


def sum_of(path, algorithm="sha256"):
    return run(algorithm + "sum", path).split()[0].removeprefix("\\")


def every_image_has_the_sum_of_its_raw_source(lab, images_folder):
    failed, total = [], []
    for maker in MAKERS:
        with tempfile.TemporaryDirectory() as folder:
            images, refused = image_set.shared_images(os.path.join(images_folder, maker + ".py"),
                                                    folder)

            def has_the_sum(image):
                code, output, errors = lab.digest(*image["args"], image["path"])
                assert code == 0, errors
                assert output.split()[0] == sum_of(image["raw"]), output

            def has_none(image):
                code, output, errors = lab.digest(*image["args"], image["path"])
                assert (code, output) == (1, "") and len(errors) == 1, (code, output, errors)

            failed += image_set.judge(images, has_the_sum, "digest")
            failed += image_set.judge(refused, has_none, "no digest")
            total += images + refused
    return failed, total


def rule_all_algorithms_are_those_of_the_sum_programs(lab):
    raw = lab.disk("algorithms.raw", 5 * MIB, [(0, 100), (3 * MIB, MIB)])
    image = lab.qcow2(raw, "-c")
    for algorithm in ALGORITHMS:
        document = lab.json("--algorithm", algorithm, image)
        assert document["digest"] == sum_of(raw, algorithm), document
        assert document["algorithm"] == algorithm
    lab.refused("md5", "--algorithm=md5", image)


def rule_odd_sizes_are_filled_up_as_qemu_img_fills_them(lab):
    for size in (1, 511, 512, 513, 65535, 65537, MIB + 1):
        raw = lab.disk(f"odd-{size}.raw", size, [(0, size)])
        converted = lab.path("converted.raw")
        run("qemu-img", "convert", "-f", "raw", "-O", "raw", raw, converted)
        document = lab.json("-f", "raw", raw)
        assert document["digest"] == sum_of(converted), size
        assert document["virtual-size"] == os.path.getsize(converted), document
    lab.disk("empty.raw", 0)
    assert lab.json("-f", "raw", lab.path("empty.raw"))["digest"] == hashlib.sha256().hexdigest()


def rule_the_line_is_that_of_sha256sum(lab):
    for name in ("plain.raw", "with space.raw", "back\\slash.raw", "new\nline.raw"):
        path = lab.disk(name, MIB, [(5000, 5000)])
        code, output, _ = lab.digest("-f", "raw", path)
        assert (code, output) == (0, run("sha256sum", path)), output
        sums = lab.path("sums")
        with open(sums, "w", encoding="utf-8") as out:
            out.write(output)
        run("sha256sum", "--check", "--strict", sums)


def rule_check_compares(lab):
    raw = lab.disk("check.raw", MIB, [(0, MIB)])
    right = sum_of(raw)
    wrong = "0" * 64
    given = ["-f", "raw", raw]
    assert lab.digest(*given, "--check", right.upper()) == (0, f"{raw}: OK\n", [])
    assert lab.digest(*given, "--check", wrong) == (1, f"{raw}: FAILED\n", [])
    assert lab.digest(*given, "-q", "--check", right) == (0, "", [])
    assert lab.digest(*given, "-q", "--check", wrong) == (1, "", [])
    assert lab.json(*given, "--check", right)["matches"] is True
    assert lab.json(*given, "--check", wrong, status=1)["matches"] is False
    assert lab.digest(*given, "--check", sum_of(raw, "sha1"), "--algorithm=sha1")[0] == 0
    for bad in (right[1:], right + "00", right[:-1] + "g", ""):
        lab.refused("64 hexadecimal digits", *given, "--check", bad)


def rule_bytes_are_counted_exactly(lab):
    raw = lab.disk("counted.raw", 100 * MIB, [(0, 65536), (50 * MIB, 3 * 65536)])
    image = lab.qcow2(raw)
    document = lab.json(image)
    assert document["bytes-hashed"] == document["virtual-size"] == 100 * MIB, document
    assert document["bytes-read"] == 4 * 65536, document


def rule_what_cannot_be_read_has_no_digest(lab):
    raw = lab.disk("lost.raw", 8 * MIB, [(0, 8 * MIB)])
    image = lab.qcow2(raw)
    os.truncate(image, os.path.getsize(image) - 2 * MIB)
    lab.refused("truncated", image)
    tree = lab.path("lost.tree")
    lab.refused("truncated", image, "--tree", tree)
    no_leftovers(lab, "lost.tree")


def no_leftovers(lab, name=".underlay-"):
    """Of that name, nor of a tree that is being written."""
    assert not [entry for entry in os.listdir(lab.folder)
                if entry.startswith((name, ".underlay-"))], name


def interrupt(lab, *words):
    status, output, errors = interrupted([lab.program, "digest", *words])
    assert status == -signal.SIGINT and output == "", (status, output)
    counts = re.fullmatch(r"underlay-img: interrupted: (\d+) of (\d+) bytes hashed, (\d+) of them "
                          r"read\n", errors)
    assert counts, errors
    return [int(count) for count in counts.groups()]


def huge_disk(lab):
    """1 TiB, of which 8 MiB are data at the front, and 1 MiB at the end."""
    path = lab.path("huge.qcow2")
    if not os.path.exists(path):
        run("qemu-img", "create", "-f", "qcow2", path, "1T")
        run("qemu-io", "-f", "qcow2", "-c", "write -P 17 0 8M", "-c", f"write -P 18 {TIB - MIB} 1M",
            path)
    return path


def rule_an_interrupted_run_tells_how_far_it_got(lab):
    done, size, stored = interrupt(lab, huge_disk(lab))
    assert 8 * MIB < done < size == TIB and done % MIB == 0, (done, size)
    assert stored == 8 * MIB, stored
    tree = lab.path("interrupted.tree")
    done, size, stored = interrupt(lab, huge_disk(lab), "--data-block-size=512", "--tree", tree)
    assert 0 < done < size, (done, size)
    no_leftovers(lab, "interrupted.tree")


def memory_of(lab, *words):
    """The most that a run took, in bytes."""
    process = subprocess.Popen([lab.program, "digest", "-q", *words], stdin=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, words
    return usage.ru_maxrss * 1024


def rule_memory_does_not_grow_with_the_image(lab):
    if lab.sanitized:
        return
    packed = lab.disk("packed.raw", 400 * MIB, [(i * MIB, MIB // 4) for i in range(400)])
    tree = lab.path("memory.tree")
    for words in ([lab.qcow2(packed, "-c", "-o", "cluster_size=2M")],
                  [huge_disk(lab), "--data-block-size=256k", "--tree", tree]):
        taken = memory_of(lab, *words)
        assert taken < MEMORY_LIMIT, f"{words}: {taken >> 20} MiB"
    os.unlink(packed)


# Hash trees.

def make_tree(lab, image, name, *options):
    path = lab.path(name)
    document = lab.json("--tree", path, "--overwrite", *options, image)
    assert document["tree-size"] == os.path.getsize(path), document
    return path, document["root-hash"]


def pinned(tree, root):
    """What --verify is given beside a tree, here one that is trusted."""
    with open(tree, "rb") as file:
        data_block, hash_block, blocks = struct.unpack_from("<IIQ", file.read(512), 64)
    return ["--verify", f"--data-blocks={blocks}", f"--data-block-size={data_block}",
            f"--hash-block-size={hash_block}", "--root-hash", root]


def verify(lab, image, tree, root, status=0):
    return lab.json("--tree", tree, *pinned(tree, root), image, status=status)


def peer_format(raw, tree, *options):
    """veritysetup's root hash."""
    if os.path.exists(tree):
        os.unlink(tree)
    output = run("veritysetup", "format", *options, raw, tree)
    return re.search(r"Root hash:\s+([0-9a-f]+)", output).group(1)


def without_uuid(path):
    with open(path, "rb") as file:
        content = file.read()
    return content[:16] + content[32:]


# name: size, runs of data, our options, veritysetup's options
TREES = {
    "one block": (4096, [(0, 4096)], [], []),
    "one small block": (512, [(0, 512)], [], ["--data-block-size=512"]),
    "one hash block": (128 * 4096, [(0, 4096)], [], []),
    "two hash blocks": (129 * 4096, [(4096, 8192)], [], []),
    "sparse": (200 * MIB + 8192, [(0, 5000), (65 * MIB, 3 * MIB), (200 * MIB, 8192)], [], []),
    "no data": (70 * MIB, [], [], []),
    "small blocks": (3 * MIB + 512, [(MIB, MIB)], ["--hash-block-size=512"],
                     ["--data-block-size=512", "--hash-block-size=512"]),
    "large blocks": (64 * MIB, [(MIB, MIB)],
                     ["--data-block-size=256k", "--hash-block-size=64k"],
                     ["--data-block-size=262144", "--hash-block-size=65536"]),
    "salted": (10 * MIB, [(MIB, MIB)], ["--salt=00ff1234"], ["--salt=00ff1234"]),
    "long salt": (MIB, [(0, 9)], ["--salt=" + 256 * "5a"], ["--salt=" + 256 * "5a"]),
    "sha1": (10 * MIB, [(MIB, MIB)], ["--algorithm=sha1"], ["--hash=sha1"]),
    "sha512": (10 * MIB, [(MIB, MIB)], ["--algorithm=sha512"], ["--hash=sha512"]),
}


def rule_trees_are_those_of_veritysetup(lab):
    for name, (size, runs, ours, theirs) in TREES.items():
        raw = lab.disk("tree.raw", size, runs)
        image = lab.qcow2(raw)
        tree, root = make_tree(lab, image, "tree", *ours)
        if not any(option.startswith("--salt") for option in theirs):
            theirs = [*theirs, "--salt=-"]
        their_tree = lab.path("their.tree")
        assert peer_format(raw, their_tree, *theirs) == root, name
        assert without_uuid(tree) == without_uuid(their_tree), name
        run("veritysetup", "verify", raw, tree, root)
        assert verify(lab, image, their_tree, root)["matches"] is True, name
        assert make_tree(lab, raw, "again", "-f", "raw", *ours)[1] == root
        assert without_uuid(tree) == without_uuid(lab.path("again"))


def rule_random_salts_of_veritysetup_are_read(lab):
    raw = lab.disk("salted.raw", 3 * MIB, [(0, MIB)])
    tree = lab.path("salted.tree")
    root = peer_format(raw, tree)
    document = verify(lab, lab.qcow2(raw), tree, root)
    assert document["damage"] == [] and document["bytes-verified"] == 3 * MIB, document
    assert document["bytes-read"] == MIB, document


def flip(path, *offsets):
    with open(path, "r+b") as file:
        for offset in offsets:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 1]))


def rule_damage_is_found_where_veritysetup_finds_it_and_all_of_it(lab):
    size = 20 * MIB
    raw = lab.disk("damaged.raw", size, [(0, MIB), (10 * MIB, MIB)])
    tree, root = make_tree(lab, raw, "damaged.tree", "-f", "raw")
    given = ["-f", "raw", raw]
    flip(raw, 5000, 8192, 3 * MIB, size - 1)
    run("veritysetup", "verify", raw, tree, root, fails=True)
    document = lab.json("--tree", tree, *pinned(tree, root), *given, status=1)
    assert document["damage"] == [
        {"kind": "data", "start": 4096, "length": 8192},
        {"kind": "data", "start": 3 * MIB, "length": 4096},
        {"kind": "data", "start": size - 4096, "length": 4096}], document
    assert document["damaged-bytes"] == 4 * 4096 and document["matches"] is False, document
    code, output, errors = lab.digest("--tree", tree, *pinned(tree, root), *given)
    assert (code, errors) == (1, []) and output.splitlines() == [
        "damaged: 8192 bytes at 4096", f"damaged: 4096 bytes at {3 * MIB}",
        f"damaged: 4096 bytes at {size - 4096}",
        f"{raw}: FAILED: 16384 bytes damaged, 0 bytes not verifiable"], output
    assert lab.digest("-q", "--tree", tree, *pinned(tree, root), *given) == (1, "", [])
    flip(raw, 5000, 8192, 3 * MIB, size - 1)
    # Leaves lie from the third block on, and stand for 512 KiB each.
    flip(tree, 2 * 4096 + 100, 3 * 4096)
    run("veritysetup", "verify", raw, tree, root, fails=True)
    document = lab.json("--tree", tree, *pinned(tree, root), *given, status=1)
    assert document["damage"] == [{"kind": "tree", "start": 0, "length": MIB,
                                   "tree-start": 8192, "tree-length": 8192}], document
    flip(tree, 2 * 4096 + 100, 3 * 4096)
    assert verify_given(lab, given, tree, root)["matches"] is True


def verify_given(lab, given, tree, root):
    return lab.json("--tree", tree, *pinned(tree, root), *given)


def rule_a_tree_with_another_root_is_told_at_once(lab):
    raw = lab.disk("rooted.raw", 20 * MIB, [(0, MIB)])
    tree, root = make_tree(lab, raw, "rooted.tree", "-f", "raw")
    given = ["-f", "raw", raw, "--tree", tree, *pinned(tree, root)[:-1]]
    other = "0" * 64
    lab.refused(root, *given, other)
    flip(tree, 4096)  # the top block
    lab.refused(root, *given, root)
    flip(tree, 4096)
    flip(tree, 88)  # the salt
    with open(tree, "r+b") as file:
        file.seek(80)
        file.write(b"\x01\x00")
    lab.refused(root, *given, root)


def rule_trees_of_another_disk_and_what_is_none_are_refused(lab):
    raw = lab.disk("other.raw", 20 * MIB, [(0, MIB)])
    tree, root = make_tree(lab, raw, "other.tree", "-f", "raw")
    larger = lab.disk("larger.raw", 21 * MIB, [(0, MIB)])
    words = [*pinned(tree, root), "-f", "raw"]
    lab.refused("another disk", *words, larger, "--tree", tree)
    lab.refused("has no superblock", *words, raw, "--tree", raw)
    lab.refused("other.raw.none", *words, raw, "--tree", raw + ".none")
    os.truncate(tree, os.path.getsize(tree) - 1)
    lab.refused("and a tree of 5120 blocks has", *words, raw, "--tree", tree)
    os.truncate(tree, 100)
    lab.refused("truncated", *words, raw, "--tree", tree)
    peer_format(raw, tree, "--format=0")
    lab.refused("hash_type is 0", *words, raw, "--tree", tree)


def rule_a_pin_holds_for_no_other_disk(lab):
    """The root hash alone would: of a disk that is the digests of another one's blocks."""
    raw = lab.disk("pinned.raw", MIB, [(0, MIB)])
    document = lab.json("--tree", lab.path("pinned.tree"), "-f", "raw", raw)
    tree, root, blocks = document["tree"], document["root-hash"], document["data-blocks"]
    with open(tree, "rb") as file:
        superblock = bytearray(file.read(4096))
        top, *leaves = iter(lambda: file.read(4096), b"")
    other = lab.disk("forged.raw", 4096 * len(leaves))
    with open(other, "wb") as file:
        file.write(b"".join(leaves))
    struct.pack_into("<Q", superblock, 72, len(leaves))
    forged = lab.path("forged.tree")
    with open(forged, "wb") as file:
        file.write(superblock + top)
    words = ["-f", "raw", other, "--tree", forged, "--verify", "--root-hash", root]
    lab.refused("goes with --data-blocks", *words)
    # It is what the root hash stands for, as far as that goes.
    assert lab.json(*words, f"--data-blocks={len(leaves)}")["matches"] is True
    lab.refused(f"states {len(leaves)} as --data-blocks, not {blocks}", *words, f"--data-blocks={blocks}")
    for option in ("data-block-size", "hash-block-size"):
        lab.refused(f"states 4096 as --{option}, not 512", *words, f"--data-blocks={len(leaves)}",
                    f"--{option}=512")


def rule_the_pin_is_printed_as_it_is_to_be_given(lab):
    raw = lab.disk("said.raw", MIB + 512, [(0, MIB)])
    for options in ([], ["--hash-block-size=512"]):
        given = ["-f", "raw", raw, "--tree", lab.path("said.tree")]
        code, output, errors = lab.digest(*given, "--overwrite", *options)
        last = output.splitlines()[-1]
        assert (code, errors) == (0, []) and last.startswith("pin: --data-blocks 2049 --data-block"), output
        pin = last.removeprefix("pin: ").split()
        assert ("--hash-block-size" in pin) == bool(options), pin
        assert lab.json(*given, "--verify", *pin)["matches"] is True


def rule_a_tree_overwrites_nothing_unless_told_and_never_the_image(lab):
    raw = lab.disk("kept.raw", MIB, [(0, MIB)])
    tree = lab.disk("kept.tree", 5)
    given = ["-f", "raw", raw, "--tree"]
    lab.refused("exists", *given, tree)
    assert os.path.getsize(tree) == 5
    os.symlink(raw, lab.path("link"))
    before = sum_of(raw)
    for name in (raw, lab.path("link")):
        lab.refused("", *given, name)
        lab.refused("", *given, name, "--overwrite")
    assert sum_of(raw) == before
    assert os.path.islink(lab.path("link"))
    lab.refused("no regular file", *given, lab.folder, "--overwrite")
    lab.refused("cannot create", *given, lab.path("no/such/tree"))
    assert lab.digest("-q", *given, tree, "--overwrite") == (0, "", [])
    assert verify_given(lab, ["-f", "raw", raw], tree, lab.json(
        *given, tree, "--overwrite")["root-hash"])["matches"] is True
    used = lab.path("kept.socket")
    with harness.start(["qemu-nbd", "-r", "-t", "-f", "raw", "-k", used, tree], used):
        lab.refused("has it open as an image", *given, tree, "--overwrite")
    no_leftovers(lab)


def rule_what_has_no_whole_blocks_is_refused_or_gets_smaller_ones(lab):
    raw = lab.disk("sectors.raw", MIB + 512, [(0, MIB)])
    tree = lab.path("sectors.tree")
    lab.refused("no multiple", "-f", "raw", raw, "--tree", tree, "--data-block-size=1024")
    assert lab.json("-f", "raw", raw, "--tree", tree)["data-block-size"] == 512
    lab.disk("nothing.raw", 0)
    lab.refused("no bytes", "-f", "raw", lab.path("nothing.raw"), "--tree", lab.path("no.tree"))


def rule_options_that_do_not_go_together_are_refused(lab):
    raw = lab.disk("usage.raw", MIB)
    tree = lab.path("usage.tree")
    root = "0" * 64
    for named, words in {
            "--verify goes with --tree": ["--verify", "--root-hash", root],
            "--verify goes with --root-hash": ["--verify", "--tree", tree],
            "--verify goes with --data-blocks": ["--verify", "--root-hash", root, "--tree", tree],
            "--data-blocks goes with --verify": ["--data-blocks=1", "--tree", tree],
            "--root-hash goes with --verify": ["--root-hash", root, "--tree", tree],
            "--salt goes with --tree": ["--salt=00"],
            "--overwrite goes with --tree": ["--overwrite"],
            "--check is of a digest": ["--check", root, "--tree", tree],
            "--salt is not for --verify": ["--verify", "--root-hash", root, "--tree", tree,
                                           "--data-blocks=1", "--salt=00"],
            "--salt: must be": ["--tree", tree, "--salt=0"],
            "--data-block-size 1000": ["--tree", tree, "--data-block-size=1000"],
            "--hash-block-size 256": ["--tree", tree, "--hash-block-size=256"],
            "--data-block-size 1048576": ["--tree", tree, "--data-block-size=1M"]}.items():
        lab.refused(named, "-f", "raw", raw, *words)
    no_leftovers(lab, "usage.tree")


def rule_the_tree_of_a_huge_sparse_disk_takes_seconds(lab):
    """Of 1 TiB with a digest for every 64 KiB; a digest for every 4096 bytes has 8 GiB of them."""
    start = time.monotonic()
    tree, root = make_tree(lab, huge_disk(lab), "huge.tree", "--data-block-size=64k")
    document = verify(lab, huge_disk(lab), tree, root)
    assert document["matches"] is True and document["bytes-read"] == 9 * MIB, document
    taken = time.monotonic() - start
    os.unlink(tree)
    assert lab.sanitized or taken < 30, f"{taken:.1f} s"


def main():
    program, images_folder = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(os.path.abspath(program), folder)
        failed = image_set.judge_rules(globals(), lab)
        more_failed, images = every_image_has_the_sum_of_its_raw_source(lab, images_folder)
    image_set.exit_when_failed(failed + more_failed, images)


main()
