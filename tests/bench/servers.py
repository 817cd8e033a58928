"""The servers under comparison: how each is asked to serve an image, what it uses while it does."""
import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

import harness

UNDERLAY = "underlay-nbd"
QEMU = "qemu-nbd"
NBDKIT = "nbdkit"

DEADLINE = 20  # seconds to start, and to stop


class ServerFailure(Exception):
    """A server did not start, or ended by itself."""


class Server:
    """A server in the foreground, in a session of its own: Ctrl-C ends the benchmark, which then
    ends its servers. `port`: TCP on 127.0.0.1, or None for the unix socket `path`."""

    def __init__(self, command, path, port):
        self.command = command
        self.path = path
        self.port = port
        self._messages = tempfile.TemporaryFile()
        self.started = time.monotonic()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._messages,
                                        stderr=self._messages, start_new_session=True)
        self.pid = self.process.pid

    @property
    def target(self):
        """Where nbd-load finds it."""
        return [self.path] if self.port is None else ["--tcp", f"127.0.0.1:{self.port}"]

    @property
    def uri(self):
        return harness.uri(self.path) if self.port is None else f"nbd://127.0.0.1:{self.port}"

    def check_alive(self):
        if self.process.poll() is not None:
            self._messages.seek(0)
            messages = self._messages.read().decode(errors="replace").strip()
            raise ServerFailure(f"{' '.join(self.command)}: exit status "
                                f"{self.process.returncode}\n{messages}")

    def wait_until_it_listens(self):
        deadline = time.monotonic() + DEADLINE
        while not harness.listens(self.port or self.path):
            self.check_alive()
            if time.monotonic() > deadline:
                raise ServerFailure(f"{' '.join(self.command)}: does not listen")
            time.sleep(0.01)

    def cpu_seconds(self):
        """Of all its threads, also those that have ended, in the kernel and out of it."""
        # The kernel's name for a process's CPU clock (CPUCLOCK_SCHED).
        return time.clock_gettime_ns((~self.pid << 3) | 2) / 1e9

    def memory_bytes(self, field):
        """VmRSS: resident now, VmHWM: at most so far."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) * 1024
        raise ServerFailure(f"{' '.join(self.command)}: has no {field}")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._messages.close()


class Programs:
    """Where the programs are, and what underlay-nbd can do."""

    def __init__(self, folder):
        self.folder = folder
        self.underlay_nbd = os.path.join(folder, "underlay-nbd")
        self.nbd_load = os.path.join(folder, "nbd-load")
        self._help = subprocess.run([self.underlay_nbd, "--help"], check=True, text=True,
                                    stdout=subprocess.PIPE).stdout

    def has_option(self, option):
        return option in re.split(r"[\s=,]+", self._help)

    def reads(self, image_format):
        # The words behind --format, up to the next option.
        formats = re.search(r"--format=(.*?)\n\s+-", self._help, re.DOTALL)[1]
        return image_format in re.findall(r"\w+", formats)

    def command(self, server, image, options, path, port):
        """All serve read-only, any number of clients, the format given, in the foreground."""
        if server == NBDKIT:
            where = ["-U", path] if port is None else ["-i", "127.0.0.1", "-p", str(port)]
            return ["nbdkit", "-f", "-r", *where, *options, "file", image.path]
        program = self.underlay_nbd if server == UNDERLAY else "qemu-nbd"
        where = ["-k", path] if port is None else ["-b", "127.0.0.1", "-p", str(port)]
        return [program, "-r", "-t", "-e", "0", "-f", image.format, *where, *options, image.path]

    def versions(self):
        """{program: its own word}"""
        found = {}
        for name, command in ((UNDERLAY, [self.underlay_nbd, "-V"]), (QEMU, ["qemu-nbd", "-V"]),
                              (NBDKIT, ["nbdkit", "--version"]), ("fio", ["fio", "--version"])):
            if shutil.which(command[0]):
                output = subprocess.run(command, text=True, stdout=subprocess.PIPE).stdout
                found[name] = output.splitlines()[0].strip() if output else "?"
        return found


@contextlib.contextmanager
def spawn(programs, server, image, options=(), transport="unix"):
    """A server from its start, before it listens, until the end of the block."""
    # Beneath /tmp because the path of a Unix socket may not be long.
    with tempfile.TemporaryDirectory(prefix="underlay-bench-", dir="/tmp") as folder:
        path = os.path.join(folder, "socket")
        port = harness.free_port() if transport == "tcp" else None
        running = Server(programs.command(server, image, options, path, port), path, port)
        try:
            yield running
        finally:
            running.stop()


@contextlib.contextmanager
def serve(programs, server, image, options=(), transport="unix"):
    """The same, from when it listens."""
    with spawn(programs, server, image, options, transport) as running:
        running.wait_until_it_listens()
        yield running
