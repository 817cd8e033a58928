"""What tests of underlay-nbd share: starting servers on unix sockets, and asking their clients."""
import os
import signal
import socket
import subprocess
import time

DEADLINE = 10


def until(condition, what):
    """Waits for a condition of another process; fails after DEADLINE seconds."""
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {DEADLINE} seconds")
        time.sleep(0.01)


def listens(path):
    """Is there a listening socket? Reads the kernel's table: a connection would count as a client."""
    with open("/proc/net/unix", encoding="utf-8") as table:
        lines = [line.split() for line in table]
    # Flags 00010000: __SO_ACCEPTCON.
    return any(words[-1] == path and words[3] == "00010000" for words in lines)


class Server:
    """A server in the foreground, stopped at the end of the `with`."""

    def __init__(self, command, path):
        self.command = [str(word) for word in command]
        self.path = path

    def __enter__(self):
        self.process = subprocess.Popen(self.command)

        def ready():
            if self.process.poll() is not None:
                raise AssertionError(f"{self.command}: ended with {self.process.returncode}")
            return listens(self.path)
        until(ready, f"{self.command} listens")
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE)
        if os.path.exists(self.path):
            os.unlink(self.path)


def run(command):
    """Exit status, output, errors."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=60)
    return done.returncode, done.stdout, done.stderr


def uri(path, name=""):
    return f"nbd+unix:///{name}?socket={path}"


def connect(path):
    """A client that only reads the greeting."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(DEADLINE)
    client.connect(path)
    return client
