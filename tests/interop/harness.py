"""Starts and stops the NBD server for tests, and judges how it ended.

    with harness.serve(["-f", "raw", image]) as server:
        ... server.socket, server.uri, server.pid, server.stderr() ...

The program is the `program` argument, else $UNDERLAY_NBD. Several servers may run at the same time.
"""
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

START_SECONDS = 10
STOP_SECONDS = 10

SANITIZER_REPORT = re.compile(
    r"ERROR: (Address|Leak|Memory)Sanitizer|WARNING: ThreadSanitizer|runtime error:")


class ServerFailure(AssertionError):
    """The server itself misbehaved: it did not start, crashed, leaked, or did not stop."""


class Server:
    """A running server. It listens on the Unix socket `socket`."""

    def __init__(self, program, args, env, folder):
        self.socket = os.path.join(folder, "socket")
        self.uri = "nbd+unix:///?socket=" + self.socket
        self._stderr_path = os.path.join(folder, "stderr")
        self.command = [program, "-t", "-k", self.socket, *map(str, args)]
        with open(self._stderr_path, "wb") as stderr:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL,
                                            stdout=stderr, stderr=stderr,
                                            env={**os.environ, **(env or {})})
        self.pid = self.process.pid

    def named_uri(self, name):
        """The URI of the export `name`."""
        return f"nbd+unix:///{name}?socket={self.socket}"

    def stderr(self):
        """What the server wrote so far, standard output included."""
        with open(self._stderr_path, encoding="utf-8", errors="replace") as text:
            return text.read()

    def running(self):
        return self.process.poll() is None

    def resident_bytes(self):
        """Physical memory in use (VmRSS)."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        raise ServerFailure("the server has no VmRSS: it has ended\n" + self.stderr())

    def fail(self, what):
        raise ServerFailure(f"{' '.join(self.command)}: {what}\n{self.stderr()}")

    def wait_until_it_listens(self):
        deadline = time.monotonic() + START_SECONDS
        while True:
            if not self.running():
                self.fail(f"exit status {self.process.returncode} before it listened")
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(self.socket)
                    return
                except (FileNotFoundError, ConnectionRefusedError):
                    pass
            if time.monotonic() > deadline:
                self.fail(f"does not listen after {START_SECONDS} s")
            time.sleep(0.02)

    def terminate(self):
        """SIGTERM, without waiting; for tests of the shutdown itself."""
        self.process.send_signal(signal.SIGTERM)

    def stop(self):
        """Ends the server and fails unless it ends orderly and was well until then."""
        if self.running():
            self.terminate()
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            self.fail(f"does not end within {STOP_SECONDS} s of SIGTERM")
        if SANITIZER_REPORT.search(self.stderr()):
            self.fail("a sanitizer reported")
        if status != 0:
            self.fail(f"exit status {status}")

    def kill(self):
        if self.running():
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def serve(args, *, env=None, program=None):
    """A server with `args` besides the socket; stopped and judged at the end of the block."""
    program = program or os.environ["UNDERLAY_NBD"]
    # Not under $TMPDIR, which may be too deep for a socket's name (107 bytes).
    folder = tempfile.mkdtemp(prefix="underlay-test-", dir="/tmp")
    server = None
    try:
        server = Server(program, args, env, folder)
        server.wait_until_it_listens()
        try:
            yield server
        except BaseException as failure:
            # The test failed: when the server is why, say so as well.
            try:
                server.stop()
            except ServerFailure as reason:
                raise reason from failure
            raise
        server.stop()
    finally:
        if server is not None:
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)
