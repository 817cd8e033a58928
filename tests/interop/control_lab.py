"""What the rules about live control share: a server with a control socket, and what is said to it."""
import contextlib
import json
import os
import signal
import socket

import harness
import nbd_client as nbd
from clients_lab import Lab as ClientsLab
from protocol_rules import check, expect


class Lab(ClientsLab):
    """Two images; the server may read their folder."""

    def __init__(self, program, folder):
        super().__init__(program, folder)
        self.control = self.path("control")
        self.one, self.contents = self.raw("images", "one.raw", seed=1)
        self.other, self.other_contents = self.raw("images", "two.raw", seed=2)

    @contextlib.contextmanager
    def serve_live(self, *args):
        with self.serve("-e", "0", "--control", self.control, *args) as server:
            yield server

    @contextlib.contextmanager
    def serve_one(self, *args):
        """The export "one"."""
        with self.serve_live("-f", "raw", "--export", f"one={self.one}", *args) as server:
            yield server

    def ctl(self, *words):
        """Exit status, output, errors."""
        return harness.run([self.program, "ctl", "--socket", self.control, *words])

    def ask(self, *words):
        """What the server returns."""
        status, output, errors = self.ctl(*words)
        expect((status, errors), (0, ""), f"ctl {' '.join(words)}")
        return json.loads(output)

    def refused(self, *words):
        """The one line that says why."""
        status, output, errors = self.ctl(*words)
        expect((status, output), (1, ""), f"ctl {' '.join(words)}, {errors}")
        expect(len(errors.splitlines()), 1, f"lines of {errors!r}")
        return errors

    def names(self):
        return [export["name"] for export in self.ask("exports") if not export["hidden"]]

    def say(self, data, end=True):
        """Sends bytes to the control socket; the answer, b"" for none."""
        with harness.connect(self.control) as client:
            try:
                client.sendall(data)
                if end:
                    client.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the server has heard enough, and closed the connection
            return read_all(client)


def read_all(client):
    answer = b""
    try:
        while part := client.recv(1 << 16):
            answer += part
    except ConnectionResetError:
        pass  # not all was taken of what was sent
    return answer


def error_of(answer):
    """The message of an answer, which must be one line with an error."""
    check(answer.endswith(b"\n") and answer.count(b"\n") == 1, f"no line: {answer!r}")
    return json.loads(answer)["error"]["message"]


def hang_up(server, words):
    """SIGHUP; waits until the server has said so."""
    before = server.stderr()
    os.kill(server.pid, signal.SIGHUP)
    harness.wait_for(lambda: words in server.stderr()[len(before):], harness.DEADLINE,
                     f"{words!r} in the log")


def check_unknown(server, name):
    """New clients must not find the export."""
    with nbd.Connection(server.socket) as client:
        client.greeting()
        expect(client.option_result(nbd.OPT_GO, nbd.name_option(name)), nbd.ERR_UNKNOWN,
               f"GO {name}")
