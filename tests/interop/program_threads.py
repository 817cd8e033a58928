"""Rules of several threads."""
import hashlib
import subprocess

from program_rules import MIB, expect, make_image


def rule_clients_on_several_threads_all_get_their_exports(lab):
    kinds = ["raw", "qcow2", "vpc", "vmdk"]
    images = [make_image(lab, kinds[i % 4], ("-c",) if i == 1 else
                         ("-o", "force_size=on") if kinds[i % 4] == "vpc" else (), 16 * MIB, i)
              for i in range(8)]
    exports = [word for i, (path, _) in enumerate(images)
               for word in ("--export", f"disk{i}={path}")]
    with lab.serve("-e", "8", "--threads", "4", *exports) as server:
        copies = [subprocess.Popen(["nbdcopy", "--connections=1", server.named_uri(f"disk{i}"),
                                    lab.path(f"copy{i}")]) for i in range(8)]
        for i, copy in enumerate(copies):
            expect(copy.wait(60), 0, f"exit status of nbdcopy {i}")
            with open(lab.path(f"copy{i}"), "rb") as file:
                got = hashlib.sha256(file.read()).digest()
            expect(got == hashlib.sha256(images[i][1]).digest(), True, f"contents of disk{i}")
