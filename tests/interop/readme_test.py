#!/usr/bin/python3
"""README.md tells the truth: its commands run, and print what stands there.

usage: readme_test.py SOURCE_FOLDER PROGRAM_FOLDER

Every ```console block is run, in order, each command in a shell of its own: in a folder of their
own, but for those that begin with ./tools, which run in the source folder. Those of a section whose
heading names underlay-thin run as root in the kernel that tools/test-kernel boots. What differs from
run to run (temporary folders, UUIDs, hashes, times) is compared by shape only.
"""
import os
import re
import shlex
import subprocess
import sys
import tempfile

TIME_LIMIT = 600
GUEST_FOLDER = "/tmp/tmpguest"
END = "--- end of the command's output"
VARYING = [
    # The folder that the commands run in.
    (r"/tmp/tmp\w+/|/srv/images/", "/FOLDER/"),
    (r"/tmp/underlay-(quickstart|volume)-\w+", "/tmp/FOLDER"),
    (r"quickstart-\d+", "quickstart-PID"),
    (r"underlay-[0-9a-f]{8}\b", "underlay-ID"),
    (r"process \d+", "process PID"),
    (r"in \d+ ms", "in TIME ms"),
    # What ext4 writes by itself, and when; how much the kernel's headers are.
    (r"\b[0-9.]+[KM] (of|stored|copied)", r"SIZE \1"),
    # What the file system makes of a sparse file.
    (r"disk size: .*", "disk size: SIZE"),
    (r"(mapped|zero): +[0-9.]+[KM]", r"\1: SIZE"),
    (r"\d+ bytes compressed", "BYTES compressed"),
    # This machine's kernel, where that can.
    (r"\nThis machine's kernel lacks .*\n", ""),
    (r"template, in .*", "template, in KERNEL"),
    (r"\b[0-9a-f]{64}\b", "HASH"),
    # Known only where file(1) is installed, with a UUID that mke2fs chooses.
    (r"\tcontent: .*", "\tcontent: CONTENT"),
]


def sections(text):
    """(heading, its console blocks)"""
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        yield section.split("\n", 1)[0], re.findall(r"^```console\n(.*?)^```$", section,
                                                    flags=re.MULTILINE | re.DOTALL)


def steps(block):
    """(command, output) pairs. Output that looks like a command belongs to tools/quickstart."""
    if block.startswith("$ ./tools/"):
        command, output = block.split("\n", 1)
        return [(command[2:], output)]
    found = []
    for line in block.splitlines(keepends=True):
        if line.startswith("$ "):
            found.append([line[2:].strip(), ""])
        else:
            found[-1][1] += line
    return [tuple(step) for step in found]


def normalised(text):
    for pattern, replacement in VARYING:
        text = re.sub(pattern, replacement, text)
    return text.strip("\n")


def run_here(commands, source, folder, programs):
    """What each of them prints."""
    environment = {**os.environ, "PATH": programs + ":" + os.environ["PATH"]}
    for command in commands:
        yield subprocess.run(["bash", "-c", command], env=environment, stdin=subprocess.DEVNULL,
                             cwd=source if command.startswith("./tools/") else folder,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             check=False, timeout=TIME_LIMIT).stdout


def run_in_kernel(commands, source, programs):
    """What each of them prints, in one boot."""
    script = f"PATH={shlex.quote(programs)}:$PATH; mkdir {GUEST_FOLDER}; cd {GUEST_FOLDER}\n"
    for command in commands:
        script += f"bash -c {shlex.quote(command)} 2>&1; echo {shlex.quote(END)}\n"
    kernel = os.path.join(source, "tools/test-kernel")
    done = subprocess.run([kernel, "--share", programs, "--", "bash", "-c", script], check=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                          timeout=TIME_LIMIT)
    return done.stdout.split(END + "\n")[:-1]


def main():
    source, programs = map(os.path.abspath, sys.argv[1:])
    with open(os.path.join(source, "README.md"), encoding="utf-8") as readme:
        text = readme.read()
    commands = 0
    failed = 0
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        for heading, blocks in sections(text):
            pairs = [pair for block in blocks for pair in steps(block)]
            wanted = [output for _, output in pairs]
            shown = [command for command, _ in pairs]
            if shown and "underlay-thin" in heading:
                printed = run_in_kernel(shown, source, programs)
            else:
                printed = run_here(shown, source, folder, programs)
            for command, expected, found in zip(shown, wanted, printed, strict=True):
                commands += 1
                if normalised(found) == normalised(expected):
                    print("ok  ", command, flush=True)
                    continue
                failed += 1
                print(f"FAIL {command}\n--- README.md\n{expected}--- printed\n{found}", flush=True)
    print(f"{commands} commands, {failed} failed")
    if failed or commands == 0:
        sys.exit(1)


main()
