"""Starts and stops NBD servers for tests, and judges how they ended.

    with harness.serve(["-f", "raw", image]) as server:
        ... server.socket, server.uri, server.pid, server.stderr() ...

serve() runs the `program` argument, else $UNDERLAY_NBD, on a socket of its own; start() any command.
Several servers may run at the same time.
"""
import contextlib
import mmap
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

DEADLINE = 10  # seconds that starting, stopping or answering may take

SANITIZER_REPORT = re.compile(
    r"ERROR: (Address|Leak|Memory)Sanitizer|WARNING: ThreadSanitizer|runtime error:")


def sanitized(program):
    """Was it built with a sanitizer that costs time and memory, which are no property of the program?"""
    with open(program, "rb") as file, \
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as contents:
        return any(contents.find(name) >= 0 for name in (b"__asan_init", b"__tsan_init"))


class ServerFailure(AssertionError):
    """The server itself misbehaved: it did not start, crashed, leaked, or did not stop."""


def wait_for(condition, seconds, what):
    """Waits for a condition of another process."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


def run(command):
    """Exit status, output, errors."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=60)
    return done.returncode, done.stdout, done.stderr


def uri(path, name=""):
    return f"nbd+unix:///{name}?socket={path}"


def listens(address):
    """Is there a listening socket at `address`, a path or a TCP port? Reads the kernel's tables: a
    connection would count as a client."""
    if isinstance(address, int):
        tables = ("/proc/net/tcp", "/proc/net/tcp6")  # a kernel may know no IPv6
        return any(listens_on_port(address, table) for table in tables if os.path.exists(table))
    with open("/proc/net/unix", encoding="utf-8") as table:
        lines = [line.split() for line in table]
    # Flags 00010000: __SO_ACCEPTCON.
    return any(words[-1] == address and words[3] == "00010000" for words in lines)


def listens_on_port(port, table):
    """`table`: of the kernel's, by its path."""
    with open(table, encoding="ascii") as text:
        lines = [line.split() for line in text][1:]
    # State 0A: TCP_LISTEN.
    return any(int(words[1].rsplit(":", 1)[1], 16) == port and words[3] == "0A" for words in lines)


def free_port(host="127.0.0.1"):
    """A TCP port of `host` that nobody has now; somebody may take it before a server does."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def connect(path):
    """A client that says nothing."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(DEADLINE)
    client.connect(path)
    return client


class Server:
    """A server in the foreground."""

    def __init__(self, command, address, env=None):
        self.command = [str(word) for word in command]
        self.socket = address  # a path or a TCP port
        self._output = tempfile.TemporaryFile()
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL,
                                        stdout=self._output, stderr=self._output,
                                        env={**os.environ, **(env or {})})
        self.pid = self.process.pid

    @property
    def uri(self):
        """The URI of the default export."""
        return self.named_uri("")

    def named_uri(self, name):
        return uri(self.socket, name)

    def stderr(self):
        """What the server wrote so far, standard output included."""
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode(errors="replace")

    def running(self):
        return self.process.poll() is None

    def resident_bytes(self, field="VmRSS"):
        """Physical memory in use; with VmHWM the most that ever was."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) * 1024
        raise ServerFailure(f"the server has no {field}: it has ended\n" + self.stderr())

    def opened(self):
        """What its descriptors are of."""
        folder = f"/proc/{self.pid}/fd"
        targets = []
        for name in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):  # closed since the folder was listed
                targets.append(os.readlink(os.path.join(folder, name)))
        return targets

    def fail(self, what):
        raise ServerFailure(f"{' '.join(self.command)}: {what}\n{self.stderr()}")

    def wait_until_it_listens(self):
        def ready():
            if not self.running():
                self.fail(f"exit status {self.process.returncode} before it listened")
            return listens(self.socket)
        wait_for(ready, DEADLINE, f"{' '.join(self.command)} listens")

    def terminate(self):
        """SIGTERM, without waiting; for tests of the shutdown itself."""
        self.process.send_signal(signal.SIGTERM)

    def stop(self):
        """Ends the server and fails unless it ends orderly and was well until then."""
        if self.running():
            self.terminate()
        try:
            status = self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.kill()
            self.fail(f"does not end within {DEADLINE} s of SIGTERM")
        if SANITIZER_REPORT.search(self.stderr()):
            self.fail("a sanitizer reported")
        if status != 0:
            self.fail(f"exit status {status}")

    def close(self):
        """Leaves nothing behind, whatever happened."""
        if self.running():
            self.kill()
        self._output.close()
        if isinstance(self.socket, str) and os.path.exists(self.socket):
            os.unlink(self.socket)

    def kill(self):
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def start(command, address, env=None):
    """The server `command`, from when it listens at `address` (a path or a TCP port); stopped and
    judged at the end of the block."""
    server = Server(command, address, env)
    try:
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
        server.close()


@contextlib.contextmanager
def serve(args, *, env=None, program=None):
    """A server with `args` besides -t and the socket."""
    program = program or os.environ["UNDERLAY_NBD"]
    # Not under $TMPDIR, which may be too deep for a socket's name (107 bytes).
    folder = tempfile.mkdtemp(prefix="underlay-test-", dir="/tmp")
    try:
        path = os.path.join(folder, "socket")
        with start([program, "-t", "-k", path, *args], path, env) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_rules(names, wanted):
    """Calls each rule_... of `names` ({name: function}, a module's), or those that are `wanted`, with a
    folder of its own."""
    rules = {name: rule for name, rule in names.items() if name.startswith("rule_")}
    for name in wanted or list(rules):
        print(name, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            rules[name](folder)
