#!/usr/bin/python3
"""What every subcommand of underlay-img does: help, usage errors, files that are none, streams that
are closed or full, silence, no write to the image, no privileges, odd names, JSON, interruption.
Commands that --help lists are judged; nobody has to add one here.

usage: img_contract_test.py UNDERLAY_IMG
"""
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import harness
import image_set
from img_commands import all_commands, run
from program_help import Option

STOP_TIME = 10  # seconds within which an interrupted command ends
HELP = Option("h", "help", "")
FORMAT = "vmdk"  # one with structures to be told, checked and printed


class Lab:
    """A folder with images of one disk, which users other than root may read."""

    def __init__(self, folder):
        self.folder = folder
        os.chmod(folder, 0o755)
        raw = self.path("disk.raw")
        with open(raw, "wb") as out:
            out.write(os.urandom(100_000))
            out.truncate(1 << 20)
        self.good = self.path("disk." + FORMAT)
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", FORMAT, raw, self.good],
                       check=True)

    def path(self, name):
        if isinstance(name, bytes):
            return os.path.join(os.fsencode(self.folder), name)
        return os.path.join(self.folder, name)

    def stated_for(self, command):
        """The format of the good image, so that nothing is guessed, and nothing warned of."""
        other = ["-F", FORMAT] if command.name == "compare" else []
        return ["-f", FORMAT, *other] if command.has("-f") else []


def fails_with_one_line(done, status, *named):
    assert done.status == status, f"exit status {done.status}: {done.stderr}"
    lines = [line for line in done.error_lines() if not line.startswith("underlay-img: try '")]
    assert len(lines) == 1, done.stderr
    for text in named:
        assert text in lines[0], f"\"{text}\" is not in: {lines[0]}"
    assert done.stdout == b"", f"said on standard output: {done.stdout[:200]}"


# The rules. Each takes a command and the lab.

def help_names_every_option(command, _):
    for option in ("--help", "-h"):
        done = run([command.program, command.name, option])
        assert (done.status, done.stderr) == (0, b""), done
        assert done.stdout.decode().startswith(f"Usage: underlay-img {command.name} "), done.stdout
    assert HELP in command.options
    # What help names is known: the operand is what is missing.
    if any(operand.startswith("[") for operand in command.operands):
        return
    for option in command.options - {HELP}:
        value = [f"--{option.name}"] + (["value"] if option.value else [])
        done = run([command.program, command.name, *value])
        fails_with_one_line(done, command.usage_status)
        assert b"unrecognized" not in done.stderr, done.stderr


def usage_errors_are_told(command, lab):
    done = run([*command.words(lab.good)[:2], "--no-such-option", lab.good])
    fails_with_one_line(done, command.usage_status, "no-such-option")
    assert f"'underlay-img {command.name} --help'" in done.stderr.decode(), done.stderr
    fails_with_one_line(run([*command.words(lab.good), lab.good]), command.usage_status,
                        command.name, str(len(command.operands) + 1))
    if not any(operand.startswith("[") for operand in command.operands):
        for count in range(len(command.operands)):
            fails_with_one_line(run([command.program, command.name, *[lab.good] * count]),
                                command.usage_status, command.name, str(count))
    if command.has("--output"):
        fails_with_one_line(command.run(lab.good, options=["--output=xml"]), command.usage_status,
                            "--output", "xml")
    for option in command.options:
        if option.value:
            done = run([command.program, command.name, f"--{option.name}"])
            fails_with_one_line(done, command.usage_status, option.name)


def what_is_no_image_is_refused(command, lab):
    """A folder, a name of nothing, a file that may not be read, a pipe that nobody writes to; as
    each of the operands."""
    unreadable = lab.path("unreadable.vmdk")
    if not os.path.exists(unreadable):
        with open(unreadable, "wb"):
            pass
        os.chmod(unreadable, 0)
        os.mkfifo(lab.path("fifo"))
    for bad in (lab.folder, lab.path("missing"), unreadable, lab.path("fifo"), ""):
        for place in range(command.images):
            operands = [lab.good] * command.images
            operands[place] = bad
            done = command.run(*operands, options=lab.stated_for(command), as_nobody=True,
                               time_limit=STOP_TIME)
            fails_with_one_line(done, command.error_status, os.path.basename(bad))


def empty_file_is_no_crash(command, lab):
    empty = lab.path("empty")
    with open(empty, "wb"):
        pass
    for options in ([], ["-f", "raw"], ["-f", FORMAT]) if command.has("-f") else ([],):
        done = command.run(empty, options=options)
        if done.status not in command.other_status:
            assert done.status in (0, command.error_status), done
            assert len(done.error_lines()) == (0 if done.status == 0 else 1), done.stderr


def closed_and_full_streams(command, lab):
    options = lab.stated_for(command)
    good = command.run(lab.good, options=options)
    assert good.status == 0, good
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as closed_pipe, open("/dev/full", "wb") as full:
        done = command.run(lab.good, options=options, stdout=closed_pipe)
        assert done.status != 0 or not good.stdout, done
        assert done.status in (-signal.SIGPIPE, command.error_status) or not good.stdout, done
        done = command.run(lab.good, options=options, stdout=full)
        assert done.status == (command.error_status if good.stdout else 0), done
        assert len(done.error_lines()) == (1 if good.stdout else 0), done.stderr
    quoted = ['exec "$@" <&-', 'exec "$@" >&-', 'exec "$@" 2>&-']
    statuses = [0, command.error_status if good.stdout else 0, 0]
    for shell, status in zip(quoted, statuses):
        done = run(["sh", "-c", shell, "sh", *command.words(lab.good, options=options)])
        assert done.status == status, f"{shell}: {done}"
    done = run(["sh", "-c", 'exec "$@" 2>&-', "sh", *command.words(lab.path("missing"))])
    assert done.status == command.error_status, f"an error without a standard error: {done}"


def quiet_is_silent(command, lab):
    if not command.has("-q"):
        return
    for option in ("-q", "--quiet"):
        done = command.run(lab.good, options=[*lab.stated_for(command), option])
        assert done == (0, b"", b""), done
    done = command.run(lab.path("missing"), options=["-q"])
    fails_with_one_line(done, command.error_status, "missing")


def state_of(folder):
    """All that a write would change; not the time of access."""
    state = {}
    for entry in os.scandir(folder):
        status = entry.stat(follow_symlinks=False)
        content = b""
        if entry.is_file(follow_symlinks=False):
            with open(entry.path, "rb") as file:
                content = hashlib.sha256(file.read()).digest()
        state[entry.name] = (status.st_ino, status.st_mode, status.st_size, status.st_blocks,
                             status.st_mtime_ns, status.st_ctime_ns, content)
    return state


def image_is_never_written(command, lab):
    """As root, who could; and as a user who cannot, which makes no difference."""
    before = state_of(lab.folder)
    options = lab.stated_for(command)
    as_root = command.run(lab.good, options=options)
    as_nobody = command.run(lab.good, options=options, as_nobody=True)
    assert state_of(lab.folder) == before
    assert as_root.status == as_nobody.status == 0, (as_root, as_nobody)
    if command.name != "bench":  # which tells times
        assert as_root == as_nobody, (as_root, as_nobody)


def odd_names_are_names(command, lab):
    options = lab.stated_for(command)
    names = [b"with space.vmdk", b"new\nline.vmdk", b"\xff\xfe.vmdk", b"-q", b"--help",
             b"esc\x1b[2J.vmdk", b"quote'\".vmdk", "ümlaut.vmdk".encode(), b"50%d{}.vmdk",
             b"a:b.vmdk"]
    for name in names:
        path = lab.path(name)
        os.link(lab.good, path)
        try:
            for operand in (path, b"./" + name, *([name] if b":" not in name else [])):
                done = command.run(operand, options=options, cwd=lab.folder)
                assert done.status == 0, f"{operand}: {done}"
                assert b"\x1b" not in done.stdout + done.stderr, done
            if command.has("--output"):
                done = command.run(path, options=[*options, "--output=json"])
                check_json(done, os.fsdecode(path))
        finally:
            os.unlink(path)
        done = command.run(path, options=options)
        assert b"\x1b" not in done.stderr, done.stderr
        fails_with_one_line(done, command.error_status)


def check_json(done, path):
    assert done.status == 0, done
    document = json.loads(done.stdout.decode("utf-8"))
    first = document[0] if isinstance(document, list) else document
    assert first["version"] == 1, first
    try:
        path.encode()
    except UnicodeEncodeError:  # not UTF-8
        return
    assert first.get("filename", path) == path, first


def json_has_a_version(command, lab):
    if not command.has("--output"):
        return
    check_json(command.run(lab.good, options=[*lab.stated_for(command), "--output=json"]), lab.good)


def progress_is_on_standard_error(command, lab):
    if not command.has("-p"):
        return
    options = lab.stated_for(command)
    silent, shown = (command.run(lab.good, options=[*options, *more]) for more in ([], ["-p"]))
    assert silent.status == shown.status == 0 and silent.stderr == b"", (silent, shown)
    assert silent.stdout == shown.stdout or command.name == "bench", (silent, shown)
    assert shown.stderr, "no progress with -p"


def interrupted_ends_by_the_signal(command, lab):
    """Reading an export that takes half a second for each answer."""
    with slow_export(lab) as uri:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            words = command.words(uri, options=["-f", "raw"] if command.has("-f") else [])
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE)
            try:
                time.sleep(0.3)
                process.send_signal(number)
                output = process.communicate(timeout=STOP_TIME)
            finally:
                process.kill()
                process.wait()
            assert process.returncode == -number, (process.returncode, output)


@contextlib.contextmanager
def slow_export(lab):
    path = lab.path("slow.sock")
    with harness.start(["nbdkit", "-f", "-r", "-U", path, "--filter=delay", "pattern", "64M",
                        "rdelay=500ms", "delay-open=500ms"], path):
        yield harness.uri(path)


RULES = [
    help_names_every_option, usage_errors_are_told, what_is_no_image_is_refused,
    empty_file_is_no_crash, closed_and_full_streams, quiet_is_silent, image_is_never_written,
    odd_names_are_names, json_has_a_version, progress_is_on_standard_error,
    interrupted_ends_by_the_signal,
]


def main():
    commands = all_commands(os.path.abspath(sys.argv[1]))
    failed = []
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        lab = Lab(folder)
        for command in commands:
            for rule in RULES:
                what = rule.__name__.replace("_", " ")
                failed += image_set.judge([{"name": command.name}],
                                          lambda _, rule=rule: rule(command, lab), what)
    image_set.exit_when_failed(failed, commands)


main()
