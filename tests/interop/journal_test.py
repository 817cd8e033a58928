#!/usr/bin/python3
"""What the server writes to the journal: a real systemd-journald, in a mount namespace of its own.

usage: journal_test.py UNDERLAY_NBD [RULE...]     RULE: part of a rule's name; only those run
Exit status 77: this machine has no systemd-journald, or lets nobody mount.
"""
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys

import harness
import rules_in_folders
from program_rules import Lab, MIB, check, connect, expect, make_image

JOURNALD = "/usr/lib/systemd/systemd-journald"
SOCKET = "/run/systemd/journal/socket"
ENTRIES = "/run/log/journal"
SKIPPED = 77
PRIVATE = "UNDERLAY_TEST_HAS_ITS_OWN_RUN"
ERROR, WARNING, INFO = "3", "4", "6"  # PRIORITY


class Journal:
    """A journald that has nothing of anybody else."""

    def __init__(self):
        for folder in (os.path.dirname(SOCKET), ENTRIES):
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
        self.process = subprocess.Popen([JOURNALD], stdin=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)

    def close(self):
        self.process.kill()
        self.process.wait()

    def entries(self, *matches):
        """Those of our programs with these fields."""
        done = subprocess.run(["journalctl", "-D", ENTRIES, "-o", "json", "--all", "--quiet",
                               "SYSLOG_IDENTIFIER=underlay-nbd", *matches], capture_output=True,
                              text=True, check=False, timeout=60)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def wait_for(self, *matches):
        """The first entry with these fields."""
        harness.wait_for(lambda: self.entries(*matches), 2 * harness.DEADLINE,
                         f"an entry with {' '.join(matches)}; there are {self.entries()}")
        return self.entries(*matches)[0]


@contextlib.contextmanager
def journal():
    started = Journal()
    try:
        harness.wait_for(lambda: os.path.exists(SOCKET), harness.DEADLINE, "journald listens")
        yield started
    finally:
        started.close()


def expect_fields(entry, **fields):
    for name, value in fields.items():
        expect(entry.get(name), value, name)


def read_until_it_fails(server, name=""):
    """The image has been cut short: reads fail, once the server has noticed."""
    with connect(server, name) as connection:
        harness.wait_for(lambda: connection.read(3 * MIB, 512).error != 0, 2 * harness.DEADLINE,
                         "EIO")


def rule_a_slow_request_is_found_by_its_fields(lab):
    """The sandbox is on."""
    path, contents = make_image(lab, "raw")
    with journal() as entries, \
            lab.serve("--log=journal", "-e", "0", "--slow-requests", "100", "--export-rule",
                      "*,bandwidth=1M", "--export", f"disk={path}", "-f", "raw") as server:
        with connect(server, "disk") as connection:
            for _ in range(3):
                expect(connection.read(MIB, MIB // 2).data, contents[MIB:3 * MIB // 2], "contents")
        entry = entries.wait_for("UNDERLAY_EXPORT=disk")
        expect_fields(entry, PRIORITY=WARNING, SYSLOG_IDENTIFIER="underlay-nbd",
                      UNDERLAY_COMMAND="0", UNDERLAY_OFFSET=str(MIB),
                      UNDERLAY_LENGTH=str(MIB // 2), UNDERLAY_CLIENT="1",
                      UNDERLAY_PEER_PID=str(os.getpid()), UNDERLAY_PEER_UID=str(os.getuid()),
                      _PID=str(server.pid))
        check(int(entry["UNDERLAY_DURATION_US"]) >= 100_000, entry["UNDERLAY_DURATION_US"])
        check(entry["MESSAGE"].startswith('slow: export "disk": command 0, 524288 bytes'),
              entry["MESSAGE"])
        expect(server.stderr(), "", "what is on standard error as well")


def rule_a_read_that_fails_names_its_file(lab):
    path, _ = make_image(lab, "raw")
    with journal() as entries, lab.serve("--log=journal", "-f", "raw", path) as server:
        os.truncate(path, 2 * MIB)
        read_until_it_fails(server)
        entry = entries.wait_for(f"UNDERLAY_FILE={path}")
        expect_fields(entry, PRIORITY=ERROR, UNDERLAY_EXPORT="")
        check(path in entry["MESSAGE"], entry["MESSAGE"])
        expect(server.stderr(), "", "what is on standard error as well")


def rule_a_name_with_a_newline_makes_no_fields(lab):
    path, _ = make_image(lab, "raw")
    name = "disk\nUNDERLAY_FILE"
    with journal() as entries, \
            lab.serve("--log=journal", "-f", "raw", "--export", f"{name}={path}") as server:
        os.truncate(path, 512)
        entry = entries.wait_for("UNDERLAY_EXPORT=" + name)
        expect_fields(entry, PRIORITY=ERROR, UNDERLAY_FILE=path)
        expect(server.stderr(), "", "what is on standard error as well")


def rule_without_a_word_it_is_the_journal_when_standard_error_goes_there(lab):
    """As systemd starts services: JOURNAL_STREAM names what it made standard error."""
    path, _ = make_image(lab, "raw")
    address, said = lab.path("socket"), lab.path("stderr")
    with journal() as entries:
        for own in (True, False):
            with open(said, "w", encoding="utf-8") as log:
                file = os.fstat(log.fileno())
                stream = f"{file.st_dev}:{file.st_ino if own else file.st_ino + 1}"
                server = subprocess.Popen([lab.program, "-v", "-t", "-k", address, "-f", "raw", path],
                                          stderr=log, env={**os.environ, "JOURNAL_STREAM": stream})
            try:
                harness.wait_for(lambda: harness.listens(address), harness.DEADLINE, "it listens")
                if own:
                    entry = entries.wait_for(f"_PID={server.pid}", f"PRIORITY={INFO}")
                    expect(entry["MESSAGE"], f"listening on {address}", "message")
            finally:
                server.terminate()
                expect(server.wait(harness.DEADLINE), 0, "exit status")
            with open(said, encoding="utf-8") as log:
                line = log.readline()
            expect(line, "" if own else f"underlay-nbd: listening on {address}\n", "standard error")
        expect(entries.entries(f"_PID={server.pid}"), [], "entries of a server with its own stderr")


def rule_standard_error_may_be_asked_for(lab):
    path, _ = make_image(lab, "raw")
    with journal() as entries, lab.serve("--log=stderr", "-v", "-f", "raw", path) as server:
        check("underlay-nbd: listening on " in server.stderr(), server.stderr())
        expect(entries.entries(f"_PID={server.pid}"), [], "entries")


def rule_a_server_in_the_background_goes_on_to_log(lab):
    """Its standard error is closed, as qemu-nbd's."""
    path, _ = make_image(lab, "raw")
    address, pid_file = lab.path("socket"), lab.path("pid")
    with journal() as entries:
        status, _, errors = harness.run([lab.program, "--log=journal", "-t", "-k", address, "--fork",
                                         "--pid-file", pid_file, "-f", "raw", path])
        expect(status, 0, f"exit status ({errors})")
        with open(pid_file, encoding="ascii") as file:
            pid = int(file.read())
        try:
            os.truncate(path, 512)
            entries.wait_for(f"_PID={pid}", f"UNDERLAY_FILE={path}")
        finally:
            os.kill(pid, signal.SIGTERM)
        harness.wait_for(lambda: not harness.listens(address), harness.DEADLINE, "it ends")


def rule_without_a_journal_no_line_is_lost(lab):
    path, _ = make_image(lab, "raw")
    shutil.rmtree(os.path.dirname(SOCKET), ignore_errors=True)
    with lab.serve("--log=journal", "-v", "-f", "raw", path) as server:
        check(f"underlay-nbd: warning: {SOCKET}: cannot reach the journal" in server.stderr(),
              server.stderr())
        check("underlay-nbd: listening on " in server.stderr(), server.stderr())


def rule_a_journal_that_ends_loses_no_line(lab):
    path, _ = make_image(lab, "raw")
    with journal() as entries, \
            lab.serve("--log=journal", "-v", "-f", "raw", path) as server:
        entries.wait_for(f"PRIORITY={INFO}")
        expect(server.stderr(), "", "standard error")
        entries.close()
        os.truncate(path, 2 * MIB)
        read_until_it_fails(server)
        check(f" {path}: " in server.stderr(), server.stderr())


def rule_a_journal_that_hangs_holds_up_nobody(lab):
    path, _ = make_image(lab, "raw")
    with journal() as entries, lab.serve("--log=journal", "-f", "raw", path) as server:
        harness.wait_for(lambda: harness.run(["journalctl", "-D", ENTRIES, "-n1"])[0] == 0,
                         harness.DEADLINE, "journald works")
        entries.process.send_signal(signal.SIGSTOP)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    other.sendto(b"MESSAGE=flood\n", SOCKET)
        os.truncate(path, 2 * MIB)
        read_until_it_fails(server)
        check(f" {path}: " in server.stderr(), server.stderr())
        entries.process.send_signal(signal.SIGCONT)


def rule_a_target_that_is_none_is_refused(lab):
    status, errors = lab.run("--log=syslog", "-f", "raw", lab.path("image"))
    expect(status, 2, "exit status")
    check('--log: "syslog"' in errors, errors)


def in_namespace():
    """Starts this test anew, where /run is its own."""
    if not os.path.exists(JOURNALD):
        print(f"no {JOURNALD}: tools/install-packages test")
        sys.exit(SKIPPED)
    # Who is root has files of others, too.
    for rights in (["--mount"], ["--user", "--map-root-user", "--mount"]):
        private = ["unshare", *rights, "sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$0" "$@"']
        if subprocess.run([*private, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            os.environ[PRIVATE] = "1"
            os.execvp("unshare", [*private, sys.executable, "-B", *sys.argv])
    print("this machine lets nobody mount")
    sys.exit(SKIPPED)


if PRIVATE not in os.environ:
    in_namespace()
rules_in_folders.main(Lab, sys.modules[__name__])
