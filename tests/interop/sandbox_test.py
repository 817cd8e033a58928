#!/usr/bin/python3
"""What a server can still do once it serves, and who may connect to it.

usage: sandbox_test.py UNDERLAY_NBD
The rules about the sandbox need a program without sanitizers; the others hold with them, too. Rules
about other users need root.
"""
import os
import pwd
import shutil
import subprocess
import sys
import tempfile

import harness

NOBODY = pwd.getpwnam("nobody")
FORMATS = ["raw", "qcow2", "qcow", "vpc", "vhdx", "vmdk", "vdi"]


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as lines:
        return dict(line.rstrip("\n").split(":\t", 1) for line in lines if ":\t" in line)


def make_image(folder, format_name):
    path = os.path.join(folder, "disk." + format_name)
    options = ["-o", "subformat=monolithicFlat"] if format_name == "vmdk" else []
    status, _, err = harness.run(["qemu-img", "create", "-f", format_name, *options, path, "2M"])
    assert status == 0, err
    return path


def size_by_client(uri, as_nobody=False):
    command = ["nbdinfo", "--size", uri]
    if as_nobody:
        command = ["setpriv", f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}",
                   "--clear-groups", *command]
    status, out, _ = harness.run(command)
    return int(out) if status == 0 else None


def nothing_forbidden_is_possible(program, folder):
    for options in ([], ["--directory", folder], ["--directory", folder, "--allow-path", "/usr"]):
        status, out, err = harness.run([program, "--sandbox-test", *options])
        lines = [line for line in out.splitlines() if not line.startswith("note")]
        assert status == 0 and not err, out + err
        assert len(lines) > 20 and all(line.startswith("ok ") for line in lines), out


def an_open_cage_is_noticed(program, folder):
    """What is tried would be possible outside: a folder of the plan is no secret."""
    status, out, _ = harness.run([program, "--sandbox-test", "--directory",
                                  tempfile.gettempdir()])
    assert status == 1 and "FAIL  could read a file" in out, out


def a_server_serves_caged(program, folder):
    image = make_image(folder, "qcow2")
    with harness.serve(["-f", "qcow2", image]) as server:
        # It listens before it is in the cage.
        harness.wait_for(lambda: status_of(server.pid)["Seccomp"].strip() == "2", 10, "the cage")
        status = status_of(server.pid)
        assert status["NoNewPrivs"].strip() == "1", status
        reading = 1 << 1 | 1 << 2 | 1 << 3  # DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER
        assert int(status["CapPrm"], 16) & ~reading == 0, status
        for thread in os.listdir(f"/proc/{server.pid}/task"):
            assert status_of(f"{server.pid}/task/{thread}")["Seccomp"].strip() == "2"
        assert harness.run(["nbdcopy", server.uri, "null:"])[0] == 0
    with harness.serve(["--sandbox=off", "-f", "qcow2", image]) as server:
        assert status_of(server.pid)["Seccomp"].strip() == "0"


def files_of_a_folder_are_opened_from_within(program, folder):
    for format_name in FORMATS:
        make_image(folder, format_name)
    outside = tempfile.mkdtemp()
    try:
        base = make_image(outside, "qcow2")
        harness.run(["qemu-img", "create", "-f", "qcow2", "-b", base, "-F", "qcow2",
                     os.path.join(folder, "child.qcow2")])
        with harness.serve(["-e", "0", "--directory", folder]) as server:
            assert status_of(server.pid)["Seccomp"].strip() in ("0", "2")
            for format_name in FORMATS:
                if format_name == "raw":
                    continue  # never guessed
                name = "disk." + format_name
                assert size_by_client(server.named_uri(name)) is not None, server.stderr()
            assert size_by_client(server.named_uri("child.qcow2")) is None
        with harness.serve(["-e", "0", "--directory", folder, "--allow-path", outside]) as server:
            assert size_by_client(server.named_uri("child.qcow2")) == 2 << 20, server.stderr()
    finally:
        shutil.rmtree(outside)


def what_the_server_made_is_removed(program, folder):
    image = make_image(folder, "raw")
    socket, pid_file = os.path.join(folder, "sub", "socket"), os.path.join(folder, "pid")
    os.mkdir(os.path.dirname(socket))
    command = [program, "-t", "-k", socket, "--pid-file", pid_file, "--handover",
               os.path.join(folder, "next"), "-f", "raw", image]
    with harness.start(command, socket):
        assert os.path.exists(pid_file)
    left = sorted(os.listdir(folder)) + os.listdir(os.path.dirname(socket))
    assert left == ["disk.raw", "sub"], left


def a_server_in_the_background_is_caged(program, folder):
    image = make_image(folder, "raw")
    socket, pid_file = os.path.join(folder, "socket"), os.path.join(folder, "pid")
    status, _, err = harness.run([program, "--fork", "-t", "-k", socket, "--pid-file", pid_file,
                                  "-f", "raw", image])
    assert status == 0, err
    with open(pid_file, encoding="ascii") as text:
        pid = int(text.read())
    try:
        assert size_by_client(harness.uri(socket)) == 2 << 20
        assert os.readlink(f"/proc/{pid}/fd/2") == "/dev/null"
    finally:
        os.kill(pid, 15)
        harness.wait_for(lambda: not os.path.exists(pid_file), harness.DEADLINE, "the end")


def a_server_becomes_another_user(program, folder):
    os.chmod(folder, 0o755)
    image = make_image(folder, "raw")
    os.chmod(image, 0o600)  # opened before
    with harness.serve(["--user", "nobody", "-f", "raw", image]) as server:
        size_by_client(server.uri)  # it serves by then
        status = status_of(server.pid)
        assert status["Uid"].split() == [str(NOBODY.pw_uid)] * 4, status
        assert status["Gid"].split() == [str(NOBODY.pw_gid)] * 4, status
        assert int(status["CapPrm"], 16) == 0, status
        assert size_by_client(server.uri) == 2 << 20
    for wrong in ("no-such-user", "nobody:no-such-group", "4294967295"):
        code, _, err = harness.run([program, "--user", wrong, "-k", "/tmp/never", image])
        assert code == 1 and len(err.splitlines()) == 1 and "--user" in err, err


def only_the_peers_that_may_connect(program, folder):
    os.chmod(folder, 0o755)
    image = make_image(folder, "raw")
    for options, root_may, nobody_may in (
            ([], True, True),
            (["--peer-user", "nobody"], False, True),
            (["--peer-user", "root"], True, False),
            (["--peer-user", "0", "--peer-user", str(NOBODY.pw_uid)], True, True),
            (["--peer-group", str(NOBODY.pw_gid)], False, True),
            (["--peer-user", "daemon"], False, False)):
        socket = os.path.join(folder, "socket")
        command = [program, "-t", "-e", "0", "-k", socket, *options, "-f", "raw", image]
        with harness.start(command, socket) as server:
            os.chmod(socket, 0o777)
            said = f"{options}: {server.stderr()}"
            assert (size_by_client(server.uri) is not None) == root_may, said
            assert (size_by_client(server.uri, as_nobody=True) is not None) == nobody_may, said
            if not root_may:
                harness.wait_for(lambda: "may not connect" in server.stderr(), 5, "the reason")


CAGED = [nothing_forbidden_is_possible, an_open_cage_is_noticed, a_server_serves_caged]
ALWAYS = [files_of_a_folder_are_opened_from_within, what_the_server_made_is_removed,
          a_server_in_the_background_is_caged, a_server_becomes_another_user,
          only_the_peers_that_may_connect]


def main():
    program = sys.argv[1]
    os.environ["UNDERLAY_NBD"] = program
    status, _, err = harness.run([program, "--sandbox-test"])
    rules = ALWAYS if status != 0 and "sanitizers" in err else CAGED + ALWAYS
    for rule in rules:
        with tempfile.TemporaryDirectory() as folder:
            rule(program, folder)
        print("ok  ", rule.__name__, flush=True)


main()
