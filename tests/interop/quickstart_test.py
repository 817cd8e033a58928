#!/usr/bin/python3
"""tools/quickstart IMAGE serves that image until it is interrupted, and leaves nothing behind.
tools/quickstart makes a disk from a template, in a kernel that it names, and leaves nothing either.

usage: quickstart_test.py SOURCE_FOLDER
"""
import glob
import os
import re
import signal
import subprocess
import sys
import tempfile

LEFT = ("/tmp/underlay-quickstart-*", "/tmp/underlay-volume-*",
        "/dev/mapper/quickstart-*")


def left():
    return {path for pattern in LEFT for path in glob.glob(pattern)}


def serves_an_image(script):
    with tempfile.TemporaryDirectory() as folder:
        image = os.path.join(folder, "image.qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "17M"], check=True)
        quickstart = subprocess.Popen([script, image], stdout=subprocess.PIPE, text=True,
                                      start_new_session=True)
        try:
            uri = None
            for line in quickstart.stdout:
                found = re.search(r"nbdinfo '(.*)'", line)
                uri = found.group(1) if found else uri
                if "underlay-thin create" in line:
                    break
            size = subprocess.run(["bash", "-c", 'for _ in {1..100}; do nbdinfo --size "$0" && exit; '
                                   "sleep 0.1; done 2>/dev/null; exit 1", uri],
                                  check=True, stdout=subprocess.PIPE, text=True).stdout
            os.killpg(quickstart.pid, signal.SIGINT)
            quickstart.wait(20)
        finally:
            if quickstart.poll() is None:
                os.killpg(quickstart.pid, signal.SIGKILL)
                quickstart.wait()
        kept = os.path.exists(os.path.dirname(uri.split("socket=")[1]))
    if int(size) != 17 << 20 or kept:
        sys.exit(f"size {size.strip()}, folder left behind: {kept}")


def shows_the_whole_story(script):
    before = left()
    done = subprocess.run([script], stdout=subprocess.PIPE, text=True, check=False, timeout=600)
    digests = set(re.findall(r"^([0-9a-f]{64})  ", done.stdout, flags=re.MULTILINE))
    needed = (r"^== A disk from the template, in (user-mode Linux|this machine's kernel), \d",
              r"^\$ cat files/written\n[0-9a-f]{64}  /tmp/.*/template\.qcow2$",
              r"^/tmp/.*/template\.qcow2: OK$", r"^== It works")
    missing = [words for words in needed if not re.search(words, done.stdout, flags=re.MULTILINE)]
    # Those of the raw copy and of the template, which was written to the disk.
    if done.returncode != 0 or missing or len(digests) != 2:
        sys.exit(f"exit {done.returncode}, missing {missing}, digests {digests}:\n{done.stdout}")
    if left() - before:
        sys.exit(f"left behind: {left() - before}")


def main():
    script = os.path.join(sys.argv[1], "tools", "quickstart")
    serves_an_image(script)
    shows_the_whole_story(script)
    print("ok")


main()
