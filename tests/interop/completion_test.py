#!/usr/bin/python3
"""Completion in bash, zsh and fish knows every command and option that --help of our programs names,
and no other; and what their values may be: fixed words, files, folders, volumes.

usage: completion_test.py PROGRAMS_FOLDER COMPLETION_FOLDER
"""
import os
import sys
import tempfile

from completion_shells import SHELLS
from program_help import commands_of, help_of, options_of

PROGRAMS = ["underlay-nbd", "underlay-thin", "underlay-img"]
FORMATS = {"raw", "qcow2", "vpc", "vhd", "vhdx", "vmdk", "vdi", "qcow"}
FILES = {"disk image.raw", "disk.qcow2", "folder"}
# (what is typed, what is offered), in the folder of prepare().
VALUES = [
    ("underlay-img info -f ", FORMATS),
    ("underlay-img info --format=v", {"vpc", "vhd", "vhdx", "vmdk", "vdi"}),
    ("underlay-img info --output ", {"human", "json"}),
    ("underlay-img compare -F q", {"qcow2", "qcow"}),
    ("underlay-img compare disk.qcow2 disk", {"disk image.raw", "disk.qcow2"}),
    ("underlay-img info --reader ", {"own", "libyal"}),
    ("underlay-img info ", FILES),
    ("underlay-img info --output json ", FILES),
    ("underlay-img info --output=json d", {"disk image.raw", "disk.qcow2"}),
    ("underlay-img info --allow-path ", {"folder"}),
    ("underlay-img info --parent child.vdi=disk.", {"disk.qcow2"}),
    ("underlay-img info --parent ch", set()),
    ("underlay-img dump --structure ", set()),
    ("underlay-nbd disk", {"disk image.raw", "disk.qcow2"}),
    ("underlay-nbd disk.qcow2 --cache=n", {"none"}),
    ("underlay-nbd ctl s", {"status", "statistics"}),
    ("underlay-nbd ctl --socket ", FILES),
    ("underlay-nbd ctl status ", set()),
    ("underlay-nbd -t -k disk", {"disk image.raw", "disk.qcow2"}),
    ("underlay-nbd --cache=w", {"writeback", "writethrough"}),
    ("underlay-nbd --aio=", {"threads", "native", "io_uring"}),
    ("underlay-nbd --discard=", {"ignore", "unmap"}),
    ("underlay-nbd --detect-zeroes=", {"off", "on", "unmap"}),
    ("underlay-nbd --export db=disk.", {"disk.qcow2"}),
    ("underlay-nbd -p ", set()),
    ("underlay-thin create --direct ", {"auto", "always", "never"}),
    ("underlay-thin pool create --discards ", {"ignore", "unmap"}),
    ("underlay-thin create vm9 --format=q", {"qcow2", "qcow"}),
    ("underlay-thin create vm9 --image disk.", {"disk.qcow2"}),
    ("underlay-thin create ", set()),
    ("underlay-thin attach d", {"disk image.raw", "disk.qcow2"}),
]
# With a program that lists volumes and pools; the real one wants root, and its registry.
LISTED = [
    ("underlay-thin status ", {"vm1", "vm2"}),
    ("underlay-thin --json status ", {"vm1", "vm2"}),
    ("underlay-thin --state-dir folder snapshot ", {"vm1", "vm2"}),
    ("underlay-thin activate --all vm", {"vm1", "vm2"}),
    ("underlay-thin pool status ", {"pool1"}),
    ("underlay-thin create vm9 --pool=", {"pool1"}),
    ("underlay-thin create vm9 --pool ", {"pool1"}),
]
LISTS = r"""#!/bin/sh
case "$*" in
    list) printf 'NAME  POOL\nvm1   pool1\nvm2   pool1\n' ;;
    'pool list') printf 'NAME   ACTIVE\npool1  yes\n' ;;
    *) exit 1 ;;
esac
"""
FORBIDDEN = "#!/bin/sh\necho needs root >&2\nexit 1\n"


def write_file(path, text):
    with open(path, "w", encoding="utf-8") as out:
        out.write(text)


def prepare(folder):
    for name in ("here/folder", "home", "lists", "forbids"):
        os.makedirs(os.path.join(folder, name))
    for name in ("disk.qcow2", "disk image.raw"):
        write_file(os.path.join(folder, "here", name), "")
    for name, script in (("lists", LISTS), ("forbids", FORBIDDEN)):
        path = os.path.join(folder, name, "underlay-thin")
        write_file(path, script)
        os.chmod(path, 0o755)


def told_by_help(program):
    """(what is typed, what is offered) of a program's commands and options."""
    name = os.path.basename(program)
    text = help_of(program)
    commands = commands_of(text)
    lines = []
    if commands:
        words = {command.split()[0] for command in commands}
        takes_file = text.splitlines()[0].endswith(" FILE")
        lines.append((f"{name} ", words | (FILES if takes_file else set())))
    for group in {command.split()[0] for command in commands if " " in command}:
        lines.append((f"{name} {group} ", {command.split()[1] for command in commands
                                           if command.startswith(group + " ")}))
    for command in ["", *commands]:
        options = options_of(help_of(program, command))
        assert options, f"{name} {command}: no options"
        lines.append((" ".join([name, *command.split(), "-"]),
                      set().union(*(option.spellings for option in options))))
    return lines


def as_words(line, found):
    """Without what shells add: the option before the value, quoting, a folder's slash."""
    before_value = line.split()[-1].rpartition("=")[0] + "="
    return {word.replace("\\", "").rstrip("/").removeprefix(before_value) for word in found}


def judge(shell, completions, programs, folder, lines):
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "TERM": "dumb",
                   "HOME": os.path.join(folder, "home"), "PWD": os.path.join(folder, "here")}
    answers = SHELLS[shell](completions, environment, [line for line, _ in lines])
    wrong = []
    for (line, wanted), answer in zip(lines, answers, strict=True):
        found = as_words(line, answer)
        if not wanted:
            # zsh has options in mind where no value or operand is.
            found = {word for word in found if not word.startswith("-")}
        if found != wanted:
            wrong.append(f"{shell}: \"{line}\": {sorted(found)}, not {sorted(wanted)}")
    return wrong


def main():
    programs, completions = map(os.path.abspath, sys.argv[1:])
    told = sum((told_by_help(os.path.join(programs, name)) for name in PROGRAMS), [])
    unlisted = [(line, set()) for line, _ in LISTED]
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        prepare(folder)
        for shell in SHELLS:
            for programs_here, lines in ((programs, told + VALUES),
                                         (os.path.join(folder, "lists"), LISTED),
                                         (os.path.join(folder, "forbids"), unlisted)):
                wrong += judge(shell, completions, programs_here, folder, lines)
    print("\n".join(wrong) or f"{len(told + VALUES + LISTED)} command lines are completed")
    sys.exit(1 if wrong else 0)


main()
