#!/usr/bin/python3
"""A script that calls `qemu-nbd -r` runs unchanged: both programs take the same command lines, and
serve the same thing under them.

usage: qemu_nbd_options_test.py UNDERLAY_NBD
"""
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile

from harness import DEADLINE, connect, listens, run, start, uri, wait_for

# {raw}, {qcow2} (with the internal snapshot s1, id 1), {missing}: files. Each line also gets
# -r -t --fork --pid-file and -k.
ACCEPTED = [
    "-f raw {raw}",
    "-fraw {raw}",
    "-f qcow2 {qcow2}",
    "--format=qcow2 {qcow2}",
    "{qcow2}",
    "{raw} -f raw",
    "-f raw -- {raw}",
    "-f qcow2 -f raw {raw}",
    "-f raw file:{raw}",
    "-f raw -o 0 {raw}",
    "-f raw -o 512 {raw}",
    "-f raw -o 0x200 {raw}",
    "-f raw -o 01000 {raw}",
    "-f raw --offset=524288 {raw}",
    "-f raw -o 1048576 {raw}",
    "-f raw -e 0 {raw}",
    "-f raw -e 0x10 {raw}",
    "-f raw --sh=3 {raw}",
    "-f raw --persist -vA {raw}",
    "-f raw -D text {raw}",
    "-f raw --export-name= {raw}",
    "-f raw -n {raw}",
    "-f raw --cache=none --aio=native {raw}",
    "-f raw --cache writeback --aio threads {raw}",
    "-f raw --aio=io_uring {raw}",
    "-f raw --discard=unmap --detect-zeroes=unmap {raw}",
    "-f qcow2 -l s1 {qcow2}",
    "-f qcow2 -l 1 {qcow2}",
    "-f qcow2 --load-snapshot=snapshot.id=1,snapshot.name=s1 {qcow2}",
    "-f qcow2 -l snapshot.name=s1 {qcow2}",
    "--image-opts driver=qcow2,file.filename={qcow2}",
    "--image-opts driver=raw,file.driver=file,file.filename={raw}",
    "--image-opts driver=raw,file.filename={raw},read-only=on,cache.direct=off",
    "-l s1 --image-opts driver=qcow2,file.filename={qcow2}",
    "-f qcow2 -B b0 --bitmap=b1 {qcow2}",
    "-B b0 --image-opts driver=qcow2,file.filename={qcow2}",
    "--object secret,id=s,file={raw} -f raw {raw}",
    "--object secret,id=s,file={key} --image-opts driver=qcow2,encrypt.key-secret=s,"
    "file.filename={qcow2}",
    "--object secret,id=s,file={key} --image-opts driver=qcow2,encrypt.format=luks,"
    "encrypt.key-secret=s,file.filename={luks}",
]
REFUSED = [
    "",
    "{raw} {qcow2}",
    "--nope {raw}",
    "--s=2 {raw}",
    "--fork=1 {raw}",
    "-f nosuchformat {raw}",
    "-f=raw {raw}",
    "-f qcow2 {raw}",
    "-f raw {missing}",
    "-f raw -e -1 {raw}",
    "-f raw -e x {raw}",
    "-f raw -e 2147483648 {raw}",
    "-f raw -o 1K {raw}",
    "-f raw -o -1 {raw}",
    "-f raw -o 1048577 {raw}",
    "-f raw -o 9223372036854775808 {raw}",
    "-f raw -k relative.sock {raw}",
    "-f raw --cache=foo {raw}",
    "-f raw -n --cache=none {raw}",
    "-f raw --aio=foo {raw}",
    "-f raw --aio=threads --aio=threads {raw}",
    "-f raw --discard=foo {raw}",
    "-f raw --detect-zeroes=unmap {raw}",
    "-f raw -B nosuchbitmap {raw}",
    "-f qcow2 -B nosuchbitmap {qcow2}",
    "-f qcow2 -o 512 -B b0 {qcow2}",
    "-L -B b0",
    "-f qcow2 {luks}",
    "--object secret,id=s,file={raw} --image-opts driver=qcow2,encrypt.key-secret=s,"
    "file.filename={luks}",
    "--image-opts driver=qcow2,encrypt.key-secret=nosuch,file.filename={luks}",
    "--object secret,id=s,file={key} --image-opts driver=qcow2,encrypt.format=luks,"
    "encrypt.key-secret=s,file.filename={qcow2}",
    "--object secret,file={key} -f raw {raw}",
    "--object nosuch,id=s -f raw {raw}",
    "-f raw --tls-creds=nosuch {raw}",
    "-f qcow2 -l nosuch {qcow2}",
    "-f qcow2 -l snapshot.id=2 {qcow2}",
    "-f qcow2 -l snapshot.name=1 {qcow2}",
    "-f qcow2 -l snapshot.foo=1 {qcow2}",
    "-f qcow2 --image-opts driver=qcow2,file.filename={qcow2}",
    "--image-opts {qcow2}",
    "--image-opts driver=qcow2",
    "--image-opts driver=qcow2,file.filename={qcow2},foo=bar",
    "-L {raw}",
    "-L -f raw",
    "-L -c /dev/null",
    "-L -d",
    "-d",
    "-d {raw} {qcow2}",
    "-d {missing}",
]


class Test:
    def __init__(self, underlay, folder):
        self.underlay = underlay
        self.socket = os.path.join(folder, "socket")
        self.pid_file = os.path.join(folder, "pid")
        self.raw = os.path.join(folder, "disk.raw")
        self.files = {"raw": self.raw, "qcow2": os.path.join(folder, "disk.qcow2"),
                      "missing": os.path.join(folder, "missing"),
                      "key": os.path.join(folder, "key"), "luks": os.path.join(folder, "luks")}
        with open(self.raw, "wb") as out:
            out.write(os.urandom(1 << 20))
        for command in (["convert", "-O", "qcow2", self.raw, self.files["qcow2"]],
                        ["snapshot", "-c", "s1", self.files["qcow2"]],
                        ["bitmap", "--add", self.files["qcow2"], "b0"],
                        ["bitmap", "--add", self.files["qcow2"], "b1"]):
            subprocess.run(["qemu-img", *command], check=True)
        with open(self.files["key"], "w", encoding="utf-8") as out:
            out.write("open sesame")
        secret = ["--object", f"secret,id=s,file={self.files['key']}"]
        options = "encrypt.format=luks,encrypt.iter-time=100,encrypt.key-secret=s"
        command = ["qemu-img", "create", "-q", *secret, "-f", "qcow2", "-o", options,
                   self.files["luks"], "1M"]
        # It measures how fast it derives keys, and may fail to on a busy machine.
        wait_for(lambda: subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0, 300,
                 "qemu-img makes an encrypted image")

    def words(self, line):
        return line.format(**self.files).split()

    def background(self, program, line):
        """Exit status, and what a client sees (size and content) when it is 0."""
        command = [program, "-k", self.socket, "-r", "-t", "--fork", "--pid-file", self.pid_file]
        # Not run(): the server keeps pipes of ours open under -v.
        status = subprocess.run(command + self.words(line), stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                timeout=60).returncode
        if status != 0:
            assert not listens(self.socket), f"{command} {line}: failed, and serves"
            return status, None
        with open(self.pid_file, encoding="utf-8") as text:
            pid = int(text.read())
        try:
            size = run(["nbdinfo", "--size", uri(self.socket)])
            content = subprocess.run(["nbdcopy", uri(self.socket), "-"], capture_output=True,
                                     timeout=60)
            return 0, (size, content.returncode, content.stdout)
        finally:
            os.kill(pid, signal.SIGTERM)
            wait_for(lambda: not listens(self.socket), DEADLINE, f"{program} ends")
            if program == self.underlay:
                wait_for(lambda: not os.path.exists(self.pid_file), DEADLINE,
                         "the pid file is removed")
            elif os.path.exists(self.pid_file):  # qemu-nbd leaves it behind
                os.unlink(self.pid_file)

    def same_for_both(self, line, accepted):
        theirs = self.background("qemu-nbd", line)
        ours = self.background(self.underlay, line)
        assert (theirs[0] == 0) == accepted, f"qemu-nbd exits with {theirs[0]}"
        assert (ours[0] == 0) == accepted, f"underlay-nbd exits with {ours[0]}"
        assert theirs[1] == ours[1], "the clients see different disks"

    def foreground(self, *words):
        return start([self.underlay, "-k", self.socket, "-r", "-f", "raw", *words, self.raw],
                     self.socket)

    def ends_with_its_last_client(self):
        with self.foreground() as server:
            assert run(["nbdinfo", "--size", uri(self.socket)])[0] == 0
            assert server.process.wait(DEADLINE) == 0
            assert not os.path.exists(self.socket), "leaves its socket behind"

    def persists(self):
        with self.foreground("-t") as server:
            for _ in range(3):
                assert run(["nbdinfo", "--size", uri(self.socket)])[0] == 0
            assert server.process.poll() is None

    def serves_one_client_at_a_time(self):
        with self.foreground("-t"):
            first = connect(self.socket)
            assert first.recv(8) == b"NBDMAGIC"
            second = connect(self.socket)
            second.settimeout(0.3)
            try:
                assert second.recv(8) == b"never", "a second client is served"
            except socket.timeout:
                pass
            first.close()
            second.settimeout(DEADLINE)
            assert second.recv(8) == b"NBDMAGIC", "the second client is not served afterwards"
            second.close()

    def serves_many_clients(self):
        for limit, clients in (("3", 3), ("0", 20)):
            with self.foreground("-t", "-e", limit):
                connected = [connect(self.socket) for _ in range(clients)]
                for client in connected:
                    assert client.recv(8) == b"NBDMAGIC"
                for client in connected:
                    client.close()

    def has_one_name(self):
        with self.foreground("-t", "-x", "name", "-D", "some text"):
            status, output, _ = run(["nbdinfo", "--json", uri(self.socket, "name")])
            export = json.loads(output)["exports"][0]
            assert status == 0 and export["export-name"] == "name"
            assert export["description"] == "some text"
            assert run(["nbdinfo", uri(self.socket, "other")])[0] != 0
            assert run(["nbdinfo", uri(self.socket)])[0] != 0

    def takes_a_socket_of_systemd(self):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.socket)
        listener.listen()
        # LISTEN_PID is the program's own number, so a process sets it and becomes the program.
        script = ("import os, sys\n"
                  "os.dup2(int(sys.argv[1]), 3)\n"
                  "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')\n"
                  "os.execv(sys.argv[2], sys.argv[2:])\n")
        command = [sys.executable, "-c", script, str(listener.fileno()), self.underlay, "-r",
                   "-f", "raw", self.raw]
        with subprocess.Popen(command, pass_fds=[listener.fileno()]) as process:
            listener.close()
            assert run(["nbdinfo", "--size", uri(self.socket)])[1] == "1048576\n"
            assert process.wait(DEADLINE) == 0
        os.unlink(self.socket)

    def rejects_a_busy_port_in_one_line(self):
        with socket.socket() as busy:
            busy.bind(("127.0.0.1", 0))
            busy.listen()
            port = busy.getsockname()[1]
            status, _, errors = run([self.underlay, "-r", "-f", "raw", "-b", "127.0.0.1", "-p",
                                     port, self.raw])
        assert status == 1, status
        assert errors.count("\n") == 1 and f":{port}: Address already in use" in errors, errors

    def tells_why_the_fork_failed(self):
        status, _, errors = run([self.underlay, "-r", "-f", "raw", "--fork", "-k",
                                 "/nonexistent/socket", self.raw])
        assert status == 1 and "/nonexistent/socket" in errors and errors.count("\n") == 1, errors

    def exits_with_2_for_unknown_options(self):
        status, _, errors = run([self.underlay, "--nope", self.raw])
        assert status == 2 and "unrecognized option '--nope'" in errors, errors


def main():
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        test = Test(sys.argv[1], folder)
        lines = [(line, True) for line in ACCEPTED] + [(line, False) for line in REFUSED]
        cases = [(f"{'takes' if accepted else 'refuses'}: {line}",
                  lambda line=line, accepted=accepted: test.same_for_both(line, accepted))
                 for line, accepted in lines]
        for rule in (test.ends_with_its_last_client, test.persists, test.has_one_name,
                     test.serves_one_client_at_a_time, test.serves_many_clients,
                     test.takes_a_socket_of_systemd, test.rejects_a_busy_port_in_one_line,
                     test.tells_why_the_fork_failed, test.exits_with_2_for_unknown_options):
            cases.append((rule.__name__.replace("_", " "), rule))
        for name, case in cases:
            try:
                case()
                print("ok  ", name, flush=True)
            except (AssertionError, OSError, subprocess.SubprocessError, ValueError) as error:
                print("FAIL", name, "--", error, flush=True)
                failed.append(name)
    sys.exit(f"{len(failed)} of {len(cases)} failed" if failed else 0)


main()
