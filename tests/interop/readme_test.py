#!/usr/bin/python3
"""README.md tells the truth: its commands run, and print what stands there.

usage: readme_test.py SOURCE_FOLDER PROGRAM_FOLDER

Every ```console block is run, the blocks in order, commands of one block in one shell: in a folder of
their own, but for those that begin with ./tools, which run in the source folder. What differs from
run to run (temporary folders, UUIDs, hashes) is compared by shape only.
"""
import os
import re
import subprocess
import sys
import tempfile

TIME_LIMIT = 600
VARYING = [
    # The folder that the commands run in.
    (r"/tmp/tmp\w+/|/srv/images/", "/FOLDER/"),
    (r"/tmp/underlay-quickstart-\w+", "/tmp/FOLDER"),
    (r"\b[0-9a-f]{64}\b", "HASH"),
    # Known only where file(1) is installed, with a UUID that mke2fs chooses.
    (r"\tcontent: .*", "\tcontent: CONTENT"),
]


def console_blocks(text):
    return re.findall(r"^```console\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


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


def main():
    source, programs = map(os.path.abspath, sys.argv[1:])
    environment = {**os.environ, "PATH": programs + ":" + os.environ["PATH"]}
    with open(os.path.join(source, "README.md"), encoding="utf-8") as readme:
        blocks = console_blocks(readme.read())
    commands = 0
    failed = 0
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        for block in blocks:
            for command, wanted in steps(block):
                where = source if command.startswith("./tools/") else folder
                done = subprocess.run(["bash", "-c", command], cwd=where, env=environment,
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, text=True, timeout=TIME_LIMIT)
                commands += 1
                if normalised(done.stdout) == normalised(wanted):
                    print("ok  ", command, flush=True)
                    continue
                failed += 1
                print(f"FAIL {command}\n--- README.md\n{wanted}--- printed\n{done.stdout}", flush=True)
    print(f"{commands} commands, {failed} failed")
    if failed or commands == 0:
        sys.exit(1)


main()
