"""Inside the test kernel, where systemd is the first process and our packages are installed: the
units do what they are for, and so do the packages' scripts, while clients and a file system are
there. systemd_prepare.py has made the machine. Rules run in order, and build on each other."""
import contextlib
import json
import os
import pathlib
import pwd
import sys
import threading
import time

import guest
from guest import JOB, MIB, check, equal, must, run, wait_for

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "interop"))
import nbd_client  # pylint: disable=wrong-import-position

SOCKET = "/run/underlay-nbd.sock"
IMAGES = pathlib.Path("/var/lib/underlay-images")
MOUNT = pathlib.Path("/srv/vm1")
PROGRAMS = ("underlay-nbd", "underlay-thin", "underlay-img")
ACTIVATE, WATCH = "underlay-thin-activate.service", "underlay-thin-watch.service"
SERVICE = "underlay-nbd.service"
INSTANCE = "underlay-nbd@one.service"
LONG = 60  # seconds for what takes a second or two when nobody else uses the machine
CONTENTS = (JOB / "disk.raw").read_bytes()


def show(unit, name):
    return must("systemctl", "show", "--value", "-p", name, unit).strip()


def active(unit):
    return show(unit, "ActiveState") == "active"


def main_pid(unit=SERVICE):
    return int(show(unit, "MainPID"))


def is_mounted():
    return os.path.ismount(MOUNT)


def nbdinfo(name):
    return json.loads(must("nbdinfo", "--json", f"nbd+unix:///{name}?socket={SOCKET}"))["exports"][0]


class Client:
    """Reads all the time, on one connection, and compares."""

    def __init__(self, name="disk.raw", address=SOCKET):
        self.connection = nbd_client.in_transmission(address, name, timeout=LONG)
        self.reads = 0
        self.failure = None
        self.ends = False
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self):
        step = 64 << 10
        try:
            while not self.ends:
                at = self.reads * step % len(CONTENTS)
                answer = self.connection.read(at, step)
                equal(answer.error, 0, f"the error of a read at {at}")
                check(answer.data == CONTENTS[at:at + step], f"other bytes at {at}")
                self.reads += 1
                time.sleep(0.01)  # others want the one processor, too
        except Exception as error:  # told by goes_on()
            self.failure = error

    def goes_on(self):
        before = self.reads
        wait_for(lambda: self.failure or self.reads > before + 10, "a client reads", LONG)
        check(self.failure is None, f"a client's read: {self.failure}")

    def close(self):
        self.ends = True
        self.thread.join()
        self.connection.close()


@contextlib.contextmanager
def client(*arguments):
    """Who is attached during the block, and must not notice anything."""
    attached = Client(*arguments)
    try:
        attached.goes_on()
        yield attached
        attached.goes_on()
    finally:
        attached.close()


def entries(*matches):
    """Of the journal."""
    _, output, _ = run("journalctl", "-o", "json", "--quiet", *matches)
    return [json.loads(line) for line in output.splitlines()]


# --- The units


def the_boot_brings_the_volume_up_before_its_file_system():
    check(active(ACTIVATE), f"{ACTIVATE} is {show(ACTIVATE, 'ActiveState')}")
    check(is_mounted(), f"{MOUNT} is not mounted")
    brought_up = int(show(ACTIVATE, "ActiveEnterTimestampMonotonic"))
    mounted = int(show("srv-vm1.mount", "ActiveEnterTimestampMonotonic"))
    check(brought_up < mounted, f"mounted at {mounted} us, brought up at {brought_up} us")
    equal((MOUNT / "contents").read_bytes(), CONTENTS, "a file on the volume")
    equal(must("systemctl", "list-units", "--failed", "--no-legend").strip(), "", "failed units")
    scopes = must("systemctl", "list-units", "--no-legend", "--type=scope")
    equal(scopes.count("underlay-nbd /var/lib/underlay/template.qcow2"), 1,
          f"the volume's server in a scope of its own ({scopes})")


def the_first_client_starts_the_server():
    check(active("underlay-nbd.socket"), "nobody listens")
    equal(show(SERVICE, "ActiveState"), "inactive", "the service before anybody came")
    equal(nbdinfo("disk.raw")["export-size"], len(CONTENTS), "size of the export")
    wait_for(lambda: active(SERVICE), "the server says that it is ready", LONG)
    equal(show(SERVICE, "Type"), "notify", "Type")
    status = pathlib.Path(f"/proc/{main_pid()}/status").read_text(encoding="ascii")
    for line in ("Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000",
                 f"Uid:\t{pwd.getpwnam('underlay').pw_uid}"):
        check(line in status, f"no {line!r} in {status}")


def entry_of_a_cut_image(name):
    """What the journal has of it, once somebody uses it."""
    with nbd_client.in_transmission(SOCKET, f"{name}.raw", timeout=LONG) as connection:
        os.truncate(IMAGES / f"{name}.raw", MIB)
        wait_for(lambda: connection.read(2 * MIB, 4096).error != 0, "reads fail", LONG)
        noticed = wait_for(lambda: entries(f"UNDERLAY_EXPORT={name}.raw", "PRIORITY=3"), "an entry",
                           LONG)[0]
    for field, value in {"SYSLOG_IDENTIFIER": "underlay-nbd", "_TRANSPORT": "journal",
                         "UNDERLAY_FILE": str(IMAGES / f"{name}.raw"), "_SYSTEMD_UNIT": SERVICE,
                         "_PID": str(main_pid())}.items():
        equal(noticed.get(field), value, f"{field} of {noticed}")


def the_journal_finds_lines_by_their_export():
    entry_of_a_cut_image("cut")


def a_reload_hands_all_clients_over():
    before = main_pid()
    with client() as attached:
        must("systemctl", "reload", "underlay-nbd", seconds=LONG)
        attached.goes_on()
        after = main_pid()
        check(after not in (before, 0), f"process {before} is still the main one")
        check(not os.path.exists(f"/proc/{before}"), "the old server still runs")
        check(active(SERVICE), "the service is not active")
        equal(show(SERVICE, "NRestarts"), "0", "restarts")
    entry_of_a_cut_image("cut-again")  # of the successor


def a_reload_that_fails_leaves_the_server_as_it_is():
    config = pathlib.Path("/etc/underlay/underlay-nbd.conf")
    text, before = config.read_text(encoding="utf-8"), main_pid()
    with client():
        config.write_text(text + "no-such-option = 1\n", encoding="utf-8")
        status, _, _ = run("systemctl", "reload", "underlay-nbd", seconds=LONG)
        config.write_text(text, encoding="utf-8")
        check(status != 0, "the reload does not fail")
        equal(main_pid(), before, "the main process")
        check(active(SERVICE), "the service is not active")


def a_server_that_hangs_is_restarted_by_the_watchdog():
    drop_in = pathlib.Path(f"/run/systemd/system/{SERVICE}.d/test.conf")
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Service]\nWatchdogSec=5\n", encoding="ascii")
    must("systemctl", "daemon-reload")
    must("systemctl", "restart", SERVICE, seconds=LONG)
    hanging = main_pid()
    os.kill(hanging, guest.signal.SIGSTOP)
    wait_for(lambda: main_pid() not in (hanging, 0) and active(SERVICE), "another server", LONG)
    check(int(show(SERVICE, "NRestarts")) > 0, "no restart is counted")
    check(any("Watchdog timeout" in entry["MESSAGE"] for entry in entries(f"UNIT={SERVICE}")),
          "it was not the watchdog")
    drop_in.unlink()
    drop_in.parent.rmdir()
    must("systemctl", "daemon-reload")
    with client():
        pass


# --- The packages' scripts


def install(*names):
    packages = [package for name in names for package in sorted(JOB.glob(f"packages/{name}_*.deb"))]
    must("dpkg", "--force-depends", "--install", *packages, seconds=2 * LONG)


def an_upgrade_hands_all_clients_over():
    before, watch, restarts = main_pid(), main_pid(WATCH), show(SERVICE, "NRestarts")
    brought_up = show(ACTIVATE, "ActiveEnterTimestampMonotonic")
    served_by = guest.thin("status", "vm1")
    with client():
        install(*PROGRAMS)
        check(main_pid() not in (before, 0), "the old program serves still")
        equal(show(SERVICE, "NRestarts"), restarts, "restarts")
    check(main_pid(WATCH) not in (watch, 0), "the old program watches still")
    equal(show(ACTIVATE, "ActiveEnterTimestampMonotonic"), brought_up,
          "when volumes were brought up")
    equal(guest.thin("status", "vm1"), served_by, "the volume")
    guest.drop_caches()
    equal((MOUNT / "contents").read_bytes(), CONTENTS, "a file on the volume")


def left_files(listed):
    """What there is of us, besides what users own; `listed` are the packages' own files."""
    found = [path for path in listed if os.path.lexists(path)]
    for folder in ("/etc", "/run/systemd", "/var/lib/systemd"):
        for path, folders, files in os.walk(folder):
            found += [os.path.join(path, name) for name in folders + files
                      if "underlay" in name and "var-lib-underlay" not in name]  # a mount of the test's
    return sorted(found)


def start_an_instance():
    pathlib.Path("/etc/underlay/one.conf").write_text(
        f"directory = {IMAGES}\npersistent = on\nshared = 0\nsocket = /run/underlay-nbd@one/nbd.sock\n",
        encoding="ascii")
    must("systemctl", "start", INSTANCE, seconds=LONG)
    with client("disk.raw", "/run/underlay-nbd@one/nbd.sock"):
        pass


def a_removal_stops_all_of_it():
    start_an_instance()
    must("dpkg", "--remove", *PROGRAMS, seconds=2 * LONG)
    for unit in (ACTIVATE, WATCH, SERVICE, "underlay-nbd.socket", "srv-vm1.mount", INSTANCE):
        equal(show(unit, "ActiveState"), "inactive", f"state of {unit}")
    check(not is_mounted(), f"{MOUNT} is mounted still")
    equal(guest.everything(), {"dm": [], "nbd": [], "loop": {}, "servers": []}, "what is left running")
    check(not os.path.exists(SOCKET), f"{SOCKET} is still there")
    check(os.path.exists("/etc/underlay/underlay-nbd.conf"), "the configuration is gone")
    for unit in (ACTIVATE, "underlay-nbd.socket"):
        equal(show(unit, "LoadState"), "masked", f"LoadState of {unit}")


def what_was_enabled_is_so_again():
    install(*PROGRAMS)
    for unit in (ACTIVATE, "underlay-nbd.socket"):
        equal(show(unit, "UnitFileState"), "enabled", f"state of {unit}")
        equal(show(unit, "ActiveState"), "inactive", f"state of {unit}: nothing is started")


def a_purge_leaves_what_users_own():
    user = pwd.getpwnam("underlay")
    # Folders that others have, too, are of the host.
    listed = [path for path in must("dpkg", "--listfiles", *PROGRAMS).splitlines()
              if path.startswith("/") and not os.path.isdir(path)]
    check(len(listed) > 20, f"files of the packages: {listed}")
    os.unlink("/etc/underlay/one.conf")
    must("dpkg", "--purge", *PROGRAMS, seconds=2 * LONG)
    equal(left_files(listed), [], "what is left")
    equal(must("systemctl", "list-units", "--failed", "--no-legend").strip(), "", "failed units")
    equal(pwd.getpwnam("underlay"), user, "the user")
    check((IMAGES / "disk.raw").exists(), "images are gone")
    check(os.path.exists("/var/lib/underlay/template.qcow2"), "volumes are gone")


def a_new_installation_starts_nothing_and_finds_the_volumes():
    install(*PROGRAMS)
    for unit in (ACTIVATE, WATCH, SERVICE, "underlay-nbd.socket"):
        equal(show(unit, "UnitFileState"), "disabled", f"state of {unit}")
        equal(show(unit, "ActiveState"), "inactive", f"state of {unit}")
    must("systemctl", "start", "srv-vm1.mount", seconds=LONG)
    check(active(ACTIVATE) and active(WATCH), "the volume's units are not active")
    equal((MOUNT / "contents").read_bytes(), CONTENTS, "a file on the volume")


def the_end_comes_while_the_volume_is_mounted():
    """systemd powers the machine off behind this; who started it looks at what was left."""
    (MOUNT / "written").write_bytes(CONTENTS)  # not synced
    (JOB / "powers-off").write_text(str(int(time.time())), encoding="ascii")


RULES = (the_boot_brings_the_volume_up_before_its_file_system,
         the_first_client_starts_the_server,
         the_journal_finds_lines_by_their_export,
         a_reload_hands_all_clients_over,
         a_reload_that_fails_leaves_the_server_as_it_is,
         a_server_that_hangs_is_restarted_by_the_watchdog,
         an_upgrade_hands_all_clients_over,
         a_removal_stops_all_of_it,
         what_was_enabled_is_so_again,
         a_purge_leaves_what_users_own,
         a_new_installation_starts_nothing_and_finds_the_volumes,
         the_end_comes_while_the_volume_is_mounted)


def holds(rule):
    started = time.monotonic()
    try:
        rule()
        reason = ""
    except Exception as error:  # the others are still looked at
        reason = f"{type(error).__name__}: {error}"
    print("FAIL" if reason else "ok  ", rule.__name__, f"({time.monotonic() - started:.1f} s)", reason,
          flush=True)
    return not reason


def main():
    guest.THIN = pathlib.Path("/usr/bin/underlay-thin")
    failed = [rule.__name__ for rule in RULES if not holds(rule)]
    if failed:
        print(run("journalctl", "--no-pager", "-b", "-n", "300")[1])
        sys.exit(f"{len(failed)} of {len(RULES)} rules failed: {' '.join(failed)}")


main()
