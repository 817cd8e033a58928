#!/usr/bin/python3
"""tools/quickstart IMAGE serves that image until it is interrupted, and leaves nothing behind.

usage: quickstart_test.py SOURCE_FOLDER
"""
import os
import re
import signal
import subprocess
import sys
import tempfile


def main():
    script = os.path.join(sys.argv[1], "tools", "quickstart")
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
                if "nbd-client" in line:
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
        left = os.path.exists(os.path.dirname(uri.split("socket=")[1]))
    if int(size) != 17 << 20 or left:
        sys.exit(f"size {size.strip()}, folder left behind: {left}")
    print("ok")


main()
