"""SIGHUP, and the command that does the same."""
import os
import shutil
import signal

import harness
import nbd_client as nbd
import tls_keys
from clients_lab import check_read, connect, unix_uri
from control_lab import check_unknown, hang_up
from protocol_rules import check, expect


def write_config(lab, **exports):
    """A configuration file with these exports of raw images; its path."""
    path = lab.path("etc", "server.conf")
    lines = [f"control = {lab.control}", "format = raw",
             *(f"export = {name}={image}" for name, image in exports.items())]
    tls_keys.write(path + ".new", "\n".join(lines) + "\n")
    os.rename(path + ".new", path)  # as editors do
    return path


def rule_exports_come_and_go_with_the_file(lab):
    config = write_config(lab, one=lab.one)
    with lab.serve("-e", "0", "--config", config) as server:
        lab.check_copy(unix_uri(server, "one"), lab.contents)
        write_config(lab, one=lab.one, two=lab.other)
        hang_up(server, 'export "two": added')
        lab.check_copy(unix_uri(server, "two"), lab.other_contents)
        harness.wait_for(lambda: not lab.ask("clients"), 10, "nbdcopy has left")
        write_config(lab, two=lab.other)
        hang_up(server, 'export "one": removed')
        check_unknown(server, "one")
        expect(lab.names(), ["two"], "exports")
        expect(lab.ask("reload"), {"changes": []}, "changes when nothing has changed")


def rule_clients_keep_what_the_file_has_no_more(lab):
    config = write_config(lab, one=lab.one)
    with lab.serve("-e", "0", "--config", config) as server:
        with connect(server, "one") as reader:
            write_config(lab, two=lab.other)
            hang_up(server, 'export "one": hidden until its 1 clients have left')
            check_unknown(server, "one")
            check_read(reader, lab.contents, 0, 1 << 20)
        harness.wait_for(lambda: len(lab.ask("exports")) == 1, 10, "it is closed")


def rule_a_changed_image_is_opened_again_when_nobody_uses_it(lab):
    config = write_config(lab, one=lab.one)
    with lab.serve("-e", "0", "--config", config) as server:
        with connect(server, "one") as reader:
            write_config(lab, one=lab.other)
            hang_up(server, "clients use it, so it stays as it was opened")
            check_read(reader, lab.contents, 0, 4096)
        harness.wait_for(lambda: not lab.ask("clients"), 10, "the reader has left")
        hang_up(server, 'export "one": opened again')
        lab.check_copy(unix_uri(server, "one"), lab.other_contents)
        harness.wait_for(lambda: not lab.ask("clients"), 10, "nbdcopy has left")
        # Another file under the same name.
        shutil.copy(lab.one, lab.path("images", "new"))
        os.rename(lab.path("images", "new"), lab.other)
        hang_up(server, 'export "one": opened again')
        lab.check_copy(unix_uri(server, "one"), lab.contents)


def rule_an_error_leaves_everything_as_it_was(lab):
    config = write_config(lab, one=lab.one)
    with lab.serve("-e", "0", "--config", config) as server:
        write_config(lab, two=lab.other, missing=lab.path("images", "missing"))
        hang_up(server, "all stays as it was")
        expect(lab.names(), ["one"], "exports")
        tls_keys.write(config, "export = one\n")
        hang_up(server, "all stays as it was")
        check("--export" in server.stderr(), server.stderr())
        check("NAME=IMAGE" in lab.refused("reload"), "what the command says")
        lab.check_copy(unix_uri(server, "one"), lab.contents)


def rule_other_options_count_from_the_next_start(lab):
    config = write_config(lab, one=lab.one)
    with lab.serve("--config", config) as server:
        with open(config, "a", encoding="utf-8") as file:
            file.write("shared = 7\nthreads = 2\n")
        hang_up(server, "--threads: counts from the next start")
        check("--shared: counts from the next start" in server.stderr(), server.stderr())


def rule_without_a_file_sighup_ends_the_server(lab):
    server = harness.Server([lab.program, "-t", "-k", lab.path("nbd"), "-f", "raw", lab.one],
                            lab.path("nbd"))
    try:
        server.wait_until_it_listens()
        os.kill(server.pid, signal.SIGHUP)
        expect(server.process.wait(10), 0, "exit status")
    finally:
        server.close()


def rule_sighup_without_a_control_socket_reloads_as_well(lab):
    config = lab.path("etc", "server.conf")
    tls_keys.write(config, f"format = raw\nexport = one={lab.one}\n")
    with lab.serve("--config", config) as server:
        tls_keys.write(config, f"format = raw\nexport = two={lab.one}\n")
        hang_up(server, 'export "two": added')
        lab.check_copy(unix_uri(server, "two"), lab.contents)


def rule_a_renewed_certificate_is_for_connections_to_come(lab):
    authority = tls_keys.Authority(lab.path("authority"))
    folder, client = lab.path("server"), lab.path("client")
    authority.issue(folder, "server", "localhost")
    authority.issue(client, "client", "alice")
    config = lab.path("etc", "server.conf")
    tls_keys.write(config, "persistent = on\nshared = 0\ntls-creds = t\n"
                   f"object = tls-creds-x509,id=t,dir={folder},endpoint=server\n"
                   f"format = raw\nexport = one={lab.one}\n")
    port = harness.free_port()
    command = [lab.program, "-b", "127.0.0.1", "-p", port, "--control", lab.control, "--config",
               config]
    with harness.start(command, port) as server:
        def copy(keys):
            return harness.run(["nbdcopy", f"nbds://localhost:{port}/one?tls-certificates={keys}",
                                lab.path("copy")])[0]
        expect(copy(client), 0, "nbdcopy")
        # Another authority: whoever trusts the old one is refused.
        renewed = tls_keys.Authority(lab.path("renewed"), "Another")
        newer = lab.path("newer")
        renewed.issue(folder, "server", "localhost")
        renewed.issue(newer, "client", "alice")
        check(copy(newer) != 0, "the new certificate counts before the reload")
        expect(lab.ask("reload")["changes"],
               ["TLS credentials: loaded again, for connections to come"], "changes")
        expect(copy(newer), 0, "nbdcopy with new keys")
        check(copy(client) != 0, "the old certificate still counts")
        # Broken ones are not taken.
        tls_keys.write(os.path.join(folder, "server-cert.pem"), "nonsense\n")
        check("server-cert.pem" in lab.refused("reload"), "the file is not named")
        hang_up(server, "all stays as it was")
        expect(copy(newer), 0, "nbdcopy after a failed reload")
