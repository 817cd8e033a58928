"""Rules: what convert refuses, and what is left when it fails."""
import os
import resource
import signal
import stat
import subprocess
import time

import harness
from img_convert_lab import TARGETS, check_with_qemu, same_bytes
from img_lab import KIB, MIB

# options, what the refusal names
REFUSED = [
    (["-O", "vdi"], "not written"),
    (["-O", "vhdx"], "not written"),
    (["-O", "ext4"], "unknown file format 'ext4'"),
    (["-c"], "-c"),
    (["-O", "vpc", "-c"], "-c"),
    (["-O", "vmdk", "-c"], "-c"),
    (["-O", "qcow2", "-o", "cluster_size=3000"], "cluster_size"),
    (["-O", "qcow2", "-o", "cluster_size=256"], "cluster_size"),
    (["-O", "qcow2", "-o", "cluster_size=4M"], "cluster_size"),
    (["-O", "qcow2", "-o", "compat=1.0"], "compat"),
    (["-O", "qcow2", "-o", "compression_type=lz4"], "compression_type"),
    (["-O", "qcow2", "-o", "compression_type=zstd,compat=0.10"], "needs compat=1.1"),
    (["-O", "qcow2", "-o", "preallocation=full"], "preallocation"),
    (["-O", "qcow2", "-o", "refcount_bits=1"], "refcount_bits"),
    (["-O", "qcow2", "-o", "backing_file=b"], "backing_file"),
    (["-O", "qcow2", "-o", "compat=v4"], "compat"),
    (["-O", "qcow2", "-o", "compression_type=zstd,compat=v2"], "needs compat=1.1"),
    (["-O", "qcow2", "-o", "lazy_refcounts"], "lazy_refcounts"),
    (["-O", "qcow2", "-o", "extended_l2=true"], "extended_l2"),
    (["-O", "qcow2", "-o", "data_file_raw=on"], "data_file_raw"),
    (["-O", "qcow2", "-o", "encryption=on"], "encryption"),
    (["-O", "qcow2", "-o", "subformat=fixed"], "subformat"),
    (["-O", "vpc", "-o", "subformat=sparse"], "subformat"),
    (["-O", "vpc", "-o", "force_size=perhaps"], "force_size"),
    (["-O", "vmdk", "-o", "subformat=monolithicFlat"], "subformat"),
    (["-O", "vmdk", "-o", "adapter_type=sata"], "adapter_type"),
    (["-O", "vmdk", "-o", 'hwversion=4"'], "hwversion"),
    (["-O", "vmdk", "-o", "zeroed_grain=on"], "zeroed_grain"),
    (["-O", "vmdk", "-o", "compat6"], "compat6"),
    (["-S", "1000"], "-S"),
    (["-S", "17M"], "-S"),
    (["-m", "0"], "-m"),
    (["-m", "17"], "-m"),
    (["-t", "fast"], "-t"),
    (["-T", "fast"], "-T"),
]


def refused_with(lab, named, *words, **how):
    """In one line, which is returned, besides the one about --help, that has all of `named`."""
    before = lab.left_in_folder()
    done = lab.run("convert", *words, **how)
    lines = [line for line in done.stderr.splitlines() if "try 'underlay-img" not in line]
    assert done.status == 1 and len(lines) == 1 and not done.stdout, done
    assert named in lines[0], f'"{named}" is not in: {lines[0]}'
    assert lab.left_in_folder() == before, lab.left_in_folder()
    return lines[0]


def rule_what_cannot_be_made_is_refused_before_anything_is_written(lab):
    raw = lab.disk("a sector")
    for options, named in REFUSED:
        refused_with(lab, named, "-f", "raw", *options, raw, lab.path("target"))
    for option in ("-n", "-C", "--bitmaps", "--salvage", "--target-is-zero", "-r"):
        refused_with(lab, option.lstrip("-"), option, raw, lab.path("target"))
    for name in ('quo"te.vmdk', "new\nline.vmdk"):
        refused_with(lab, "descriptor", "-f", "raw", "-O", "vmdk", raw, lab.path(name))


def rule_disks_that_are_too_large_are_refused(lab):
    for size, options, named in (
            (3 << 40, TARGETS["vhd"].options, "too large for a vhd"),
            (3 << 40, TARGETS["vhd-fixed-exact"].options, "too large for a vhd"),
            (1 << 40, TARGETS["qcow2-512"].options, "cluster_size"),
            (1 << 60, TARGETS["vmdk-stream"].options, "too large for a vmdk")):
        image = lab.qcow2("large.qcow2", size, options="cluster_size=2M")
        refused_with(lab, named, *options, image, lab.path("target"))
    # Just not.
    lab.convert(lab.qcow2("large.qcow2", 2040 << 30), "target", *TARGETS["vhd"].options,
                source_format="qcow2")


def rule_only_what_begins_at_its_beginning_goes_to_standard_output(lab):
    raw = lab.disk("a sector")
    for target in TARGETS.values():
        if not target.streams:
            refused_with(lab, "standard output", "-f", "raw", *target.options, raw, "-")
    with open("/dev/full", "wb") as full:
        done = lab.run("convert", "-f", "raw", raw, "-", stdout=full)
    assert done.status == 1 and "standard output: cannot be written" in done.stderr, done
    large = lab.disk("full")
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as closed:
        done = lab.run("convert", "-f", "raw", large, "-", stdout=closed)
    assert done.status == -signal.SIGPIPE and not done.stderr, done


def rule_a_terminal_gets_no_image(lab):
    main, terminal = os.openpty()
    try:
        done = lab.run("convert", "-f", "raw", lab.disk("a sector"), "-", stdout=terminal)
    finally:
        os.close(main)
        os.close(terminal)
    assert done.status == 1 and "terminal" in done.stderr, done


def rule_no_file_of_the_image_is_replaced(lab):
    base = lab.qcow2("base.qcow2", "4M", "write -P 1 0 1M")
    top = lab.qcow2("top.qcow2", "4M", "write -P 2 1M 1M", backing=base)
    os.link(base, lab.path("hard-link"))
    os.symlink("base.qcow2", lab.path("link"))
    for name in ("base.qcow2", "top.qcow2", "hard-link", "link"):
        refused_with(lab, "is a file of the image", top, lab.path(name))
    with open(top, "ab") as out:
        done = lab.run("convert", top, "-", stdout=out)
    assert done.status == 1 and "standard output is a file of the image" in done.stderr, done
    for image in (base, top):
        check_with_qemu(image, "qcow2")


def rule_images_in_use_are_not_replaced(lab):
    raw, used = lab.disk("a sector"), lab.qcow2("used.qcow2", "4M")
    for readonly in ([], ["-r"]):
        with harness.start(["qemu-nbd", "-t", *readonly, "-f", "qcow2", "-k", lab.path("socket"),
                            used], lab.path("socket")):
            refused_with(lab, "has it open as an image", "-f", "raw", raw, used)
            with open(used, "ab") as out:
                done = lab.run("convert", "-f", "raw", raw, "-", stdout=out)
            assert done.status == 1 and "has it open as an image" in done.stderr, done
    lab.convert(raw, used)
    assert same_bytes(raw, used)


def rule_targets_that_are_no_files_are_refused(lab):
    raw = lab.disk("a sector")
    os.mkdir(lab.path("folder"))
    os.mkfifo(lab.path("fifo"))
    for name in ("folder", "fifo"):
        refused_with(lab, "no regular file", "-f", "raw", raw, lab.path(name))
    refused_with(lab, "missing", "-f", "raw", raw, lab.path("missing/target"))
    refused_with(lab, "file", "-f", "raw", raw, "")
    refused_with(lab, "has a protocol", "-f", "raw", raw, "nbd:localhost:10809")
    refused_with(lab, "json:", "-f", "raw", raw, 'json:{"driver":"raw"}')


def rule_a_file_that_exists_is_replaced_as_what_it_is(lab):
    raw = lab.disk("a sector")
    target, link = lab.path("target"), lab.path("link")
    with open(target, "wb") as out:
        out.write(b"what was there before" * 1000)
    if os.geteuid() == 0:
        os.chown(target, 1234, 5678)
    os.chmod(target, 0o640)
    before = os.stat(target)
    os.symlink("target", link)
    lab.convert(raw, link, "-t", "none")
    assert os.path.islink(link) and same_bytes(raw, target)
    after = os.stat(target)
    assert stat.S_IMODE(after.st_mode) == 0o640
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid), after
    lab.convert(raw, "new")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(os.stat(lab.path("new")).st_mode) == 0o666 & ~mask


def rule_a_target_that_cannot_be_written_stays_as_it_was(lab):
    raw = lab.disk("full")
    target = lab.path("target")
    for existing in (None, b"what was there before"):
        if existing:
            with open(target, "wb") as out:
                out.write(existing)
        before = lab.left_in_folder()
        for name, kind in TARGETS.items():
            done = subprocess.run([lab.program, "convert", "-f", "raw", *kind.options, raw, target],
                                  capture_output=True, text=True, timeout=60, check=False,
                                  preexec_fn=limit_files)
            assert done.returncode == 1 and done.stderr.count("\n") == 1, (name, done)
            assert "target: cannot" in done.stderr and "File too large" in done.stderr, done
            assert lab.left_in_folder() == before, name
        if existing:
            with open(target, "rb") as kept:
                assert kept.read() == existing


def limit_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))


def rule_a_source_that_cannot_be_read_makes_no_image(lab):
    whole = lab.disk("full")
    image = lab.path("lost.qcow2")
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", whole, image], check=True)
    os.truncate(image, os.path.getsize(image) - MIB)
    for target in TARGETS.values():
        refused_with(lab, "lost.qcow2", "-f", "qcow2", *target.options, image, lab.path("target"))


def rule_an_interrupted_run_leaves_nothing(lab):
    address = lab.path("slow.sock")
    with harness.start(["nbdkit", "-f", "-r", "-U", address, "--filter=delay", "pattern", "64M",
                        "rdelay=300ms"], address):
        before = lab.left_in_folder()
        for name in ("raw", "qcow2-zlib", "vhd", "vmdk-stream"):
            process = subprocess.Popen(
                [lab.program, "convert", "-f", "raw", *TARGETS[name].options, harness.uri(address),
                 lab.path("target")], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            try:
                # It is under way: the file beside the target is there.
                harness.wait_for(lambda: len(lab.left_in_folder()) > len(before), 20, "it writes")
                assert not os.path.exists(lab.path("target"))
                process.send_signal(signal.SIGINT)
                errors = process.communicate(timeout=20)[1]
            finally:
                process.kill()
                process.wait()
            assert process.returncode == -signal.SIGINT, process.returncode
            assert "interrupted: " in errors and "bytes converted" in errors, errors
            assert lab.left_in_folder() == before, lab.left_in_folder()


def rule_a_reader_that_waits_can_be_left_by_a_signal(lab):
    """Standard output is a pipe that nobody reads on."""
    raw = lab.raw_of("large.raw", 4 * MIB, [(0, 4 * MIB, "random")])
    process = subprocess.Popen([lab.program, "convert", "-f", "raw", raw, "-"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    try:
        assert len(process.stdout.read(64 * KIB)) == 64 * KIB
        time.sleep(0.2)
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def rule_a_source_that_changes_meanwhile_makes_no_image(lab):
    raw = lab.raw_of("changing.raw", 64 * MIB, [(0, 64 * MIB, "random")])
    reader, writer = os.pipe()
    process = subprocess.Popen([lab.program, "convert", "-f", "raw", raw, "-"],
                               stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.PIPE,
                               text=True)
    os.close(writer)
    with open(reader, "rb") as output:
        assert len(output.read(MIB)) == MIB
        with open(raw, "r+b") as image:
            image.write(b"another content")
        while output.read(MIB):
            pass
    errors = process.communicate(timeout=20)[1]
    assert process.returncode == 1 and "was written to" in errors, (process.returncode, errors)
