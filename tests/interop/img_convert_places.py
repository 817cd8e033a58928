"""Rules: where convert puts an image, and what is there when something goes wrong on the way."""
import ctypes
import errno
import os
import platform
import shutil
import stat
import struct
import subprocess

from img_convert_lab import TARGETS, same_bytes
from img_lab import MIB

FSYNC = {"x86_64": 74, "aarch64": 82}  # the system call's number

# Options of qemu-img's that are written in another way, or stand for what is made anyway.
SAME = [
    ("qcow2", "compat=v3", "compat=1.1"),
    ("qcow2", "compat=v2", "compat=0.10"),
    ("qcow2", "lazy_refcounts=false,extended_l2=no,data_file_raw=off,encryption=n", "compat=1.1"),
    ("qcow2", "refcount_bits=16,preallocation=off", "compat=1.1"),
    ("vmdk", "zeroed_grain=off,compat6=false", "adapter_type=ide"),
    ("vpc", "force_size=true", "force_size=on"),
]


def rule_the_options_of_qemu_img_are_taken_as_it_writes_them(lab):
    raw = lab.disk("a sector")
    os.mkdir(lab.path("other"))
    for target, given, same in SAME:
        one = lab.convert(raw, "disk", "-O", target, "-o", given)
        other = lab.convert(raw, "other/disk", "-O", target, "-o", same)
        assert same_bytes(one, other), (target, given)


def rule_a_target_is_named_as_qemu_img_names_it(lab):
    raw = lab.disk("a sector")
    before = lab.left_in_folder()
    target = lab.path("new")
    assert lab.output("convert", "-f", "raw", raw, "file:" + target) == b""
    assert same_bytes(raw, target) and lab.left_in_folder() == sorted([*before, "new"])
    program = os.path.abspath(lab.program)
    done = subprocess.run([program, "convert", "-f", "raw", raw, "file:-"], cwd=lab.folder,
                          capture_output=True, timeout=60, check=True)
    assert not done.stdout and same_bytes(raw, lab.path("-"))
    long = lab.convert(raw, "n" * 255)
    assert same_bytes(raw, long)


def rule_a_link_that_leads_to_nothing_yet_is_followed(lab):
    raw = lab.disk("a sector")
    os.mkdir(lab.path("folder"))
    os.symlink("folder/second", lab.path("first"))
    os.symlink("../there", lab.path("folder/second"))
    lab.convert(raw, "first")
    assert os.path.islink(lab.path("first")) and os.path.islink(lab.path("folder/second"))
    assert not os.path.islink(lab.path("there")) and same_bytes(raw, lab.path("there"))
    os.symlink("itself", lab.path("itself"))
    assert "no regular file" in lab.refusal("convert", "-f", "raw", raw, lab.path("itself"))
    os.symlink("missing/target", lab.path("nowhere"))
    assert "cannot create" in lab.refusal("convert", "-f", "raw", raw, lab.path("nowhere"))


def rule_a_group_keeps_what_it_was_allowed_and_no_other_gets_it(lab):
    if os.geteuid() != 0:
        return
    owner, group, user = 1234, 5678, 4321
    os.chmod(lab.folder, 0o711)
    folder = lab.path("shared")
    os.mkdir(folder)
    os.chown(folder, user, user)
    # That user may not be allowed to go where the program is.
    program = shutil.copy(lab.program, lab.path("program"))
    raw = lab.disk("a sector")
    os.chmod(raw, 0o644)
    target = os.path.join(folder, "target")
    for groups, mode, owned_by in (([group], 0o664, group), ([], 0o604, user)):
        with open(target, "wb") as out:
            os.fchown(out.fileno(), owner, group)
            os.fchmod(out.fileno(), 0o664)
        subprocess.run([program, "convert", "-f", "raw", raw, target], check=True, timeout=60,
                       cwd="/", user=user, group=user, extra_groups=groups)
        status = os.stat(target)
        assert (status.st_uid, status.st_gid) == (user, owned_by), status
        assert stat.S_IMODE(status.st_mode) == mode, oct(status.st_mode)
        assert same_bytes(raw, target)


def rule_who_no_longer_reads_the_progress_does_no_harm(lab):
    raw = lab.disk("full")
    before = lab.left_in_folder()
    reader, writer = os.pipe()
    os.close(reader)
    try:
        for command in (["convert", "-p", "-f", "raw", raw, lab.path("new")],
                        ["digest", "-p", "-f", "raw", raw, "--tree", lab.path("new")]):
            status = subprocess.run([lab.program, *command], stdin=subprocess.DEVNULL,
                                    stdout=subprocess.DEVNULL, stderr=writer, timeout=60,
                                    check=False).returncode
            assert status == 0, (command, status)
            assert lab.left_in_folder() == sorted([*before, "new"]), lab.left_in_folder()
            os.unlink(lab.path("new"))
    finally:
        os.close(writer)


def without_fsync():
    """From here on, fsync() fails with EIO in this process (seccomp(2), a filter in BPF)."""
    load, jump_if_equal, give = 0x20, 0x15, 0x06
    allow, fail = 0x7FFF0000, 0x00050000 | errno.EIO
    code = b"".join(struct.pack("=HBBI", *step) for step in (
        (load, 0, 0, 0), (jump_if_equal, 0, 1, FSYNC[platform.machine()]), (give, 0, 0, fail),
        (give, 0, 0, allow)))
    steps = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("@HP", 4, ctypes.addressof(steps)))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    zero = ctypes.c_ulong(0)
    if (libc.prctl(no_new_privileges, ctypes.c_ulong(1), zero, zero, zero) != 0 or
            libc.prctl(set_seccomp, ctypes.c_ulong(filter_mode), program, zero, zero) != 0):
        raise OSError(ctypes.get_errno(), "prctl")


def rule_what_does_not_get_to_the_disk_is_told_when_that_is_asked_for(lab):
    if platform.machine() not in FSYNC:
        return
    raw = lab.disk("full")
    for target in ("-", lab.path("kept")):
        for cache in ("none", "writeback", "writethrough", "directsync", "unsafe"):
            for name in ("kept", "out"):
                with open(lab.path(name), "wb") as old:
                    old.write(b"what was there before")
            with open(lab.path("out"), "wb") as out:
                done = subprocess.run([lab.program, "convert", "-f", "raw", "-t", cache, raw,
                                       target], stdin=subprocess.DEVNULL, stdout=out, timeout=60,
                                      stderr=subprocess.PIPE, text=True, check=False,
                                      preexec_fn=without_fsync)
            written = lab.path("out" if target == "-" else "kept")
            if cache == "unsafe":
                assert done.returncode == 0 and same_bytes(raw, written), done
                continue
            assert done.returncode == 1 and "to the disk" in done.stderr, (cache, done)
            assert target == "-" or os.path.getsize(written) < MIB, cache
    # A pipe has no disk.
    for target in ("raw", "vmdk-stream"):
        image = lab.output("convert", "-f", "raw", "-t", "none", *TARGETS[target].options, raw, "-")
        assert len(image) >= 4 * MIB, target
