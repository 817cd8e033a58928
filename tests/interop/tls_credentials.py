"""Who may connect, by which keys: real clients with right and wrong ones."""
import json
import os
import shutil

import harness
import tls_keys
from protocol_rules import check, expect


def rule_certificates_serve_the_clients_that_people_use(lab):
    with lab.serve_tcp(*lab.x509()) as server:
        lab.check_served(lab.tls_uri(server))
        status, output, errors = harness.run(["nbdinfo", "--json", lab.tls_uri(server)])
        expect(status, 0, f"nbdinfo: {errors}")
        check(json.loads(output)["TLS"], "nbdinfo sees no TLS")
        lab.check_qemu_reads(server, f"tls-creds-x509,dir={lab.client_folder}")


def rule_pre_shared_keys_serve_the_clients_that_people_use(lab):
    folder = lab.path("psk")
    keys = tls_keys.pre_shared(folder, "qemu")
    with lab.serve_tcp(*lab.psk(folder)) as server:
        lab.check_served(f"nbds://qemu@localhost:{server.socket}/?tls-psk-file={keys}")
        lab.check_qemu_reads(server, f"tls-creds-psk,dir={folder}")


def rule_a_wrong_or_unknown_pre_shared_key_is_refused(lab):
    keys = tls_keys.pre_shared(lab.path("psk"), "alice")
    other = tls_keys.pre_shared(lab.path("other"), "alice")
    with lab.serve_tcp(*lab.psk(lab.path("psk"))) as server:
        uri = f"nbds://alice@localhost:{server.socket}/?tls-psk-file="
        lab.check_refused(uri + other)
        lab.check_refused(uri.replace("alice", "bob") + keys)
        lab.check_served(uri + keys)


def rule_a_client_without_certificate_is_refused(lab):
    bare = lab.path("bare")
    os.makedirs(bare)
    shutil.copy(lab.authority.certificate, os.path.join(bare, "ca-cert.pem"))
    with lab.serve_tcp(*lab.x509()) as server:
        lab.check_refused(lab.tls_uri(server, bare))
        lab.check_served(lab.tls_uri(server))
    with lab.serve_tcp(*lab.x509("verify-peer=no")) as server:
        lab.check_served(lab.tls_uri(server, bare))


def rule_certificates_of_strangers_expired_ones_and_those_of_servers_are_refused(lab):
    stranger = tls_keys.Authority(lab.path("stranger"), "Strangers")
    folders = {name: lab.path(name) for name in ("foreign", "expired", "early", "wrong-use")}
    stranger.issue(folders["foreign"], "client", "mallory")
    shutil.copy(lab.authority.certificate, os.path.join(folders["foreign"], "ca-cert.pem"))
    lab.authority.issue(folders["expired"], "client", "bob",
                        'activation_date = "2020-01-01 00:00:00 UTC"\n'
                        'expiration_date = "2021-01-01 00:00:00 UTC"')
    lab.authority.issue(folders["early"], "client", "bob",
                        'activation_date = "2090-01-01 00:00:00 UTC"\n'
                        'expiration_date = "2091-01-01 00:00:00 UTC"')
    os.makedirs(folders["wrong-use"])
    for kind in ("key", "cert"):  # what a server's certificate says that it is for
        shutil.copy(os.path.join(lab.server_folder, f"server-{kind}.pem"),
                    os.path.join(folders["wrong-use"], f"client-{kind}.pem"))
    shutil.copy(lab.authority.certificate, os.path.join(folders["wrong-use"], "ca-cert.pem"))
    with lab.serve_tcp(*lab.x509()) as server:
        for folder in folders.values():
            lab.check_refused(lab.tls_uri(server, folder))
        lab.check_served(lab.tls_uri(server))


def rule_a_revoked_certificate_is_refused(lab):
    gone = lab.path("gone")
    lab.authority.revoke(lab.authority.issue(gone, "client", "carol"), lab.server_folder)
    with lab.serve_tcp(*lab.x509()) as server:
        lab.check_refused(lab.tls_uri(server, gone))
        lab.check_served(lab.tls_uri(server))


def rule_only_the_identity_that_is_allowed_may_connect(lab):
    other = lab.path("other")
    lab.authority.issue(other, "client", "bob")
    authz = ["--object", "authz-simple,id=a,identity=O=Tests,,CN=alice", "--tls-authz", "a"]
    with lab.serve_tcp(*lab.x509(), *authz) as server:
        lab.check_served(lab.tls_uri(server))
        lab.check_refused(lab.tls_uri(server, other))
        harness.wait_for(lambda: "is not allowed to connect" in server.stderr(), 10, "a log line")
        check("CN=bob" in server.stderr(), f"the log does not name bob: {server.stderr()}")


def rule_a_list_of_identities_decides_by_its_first_match(lab):
    other = lab.path("other")
    lab.authority.issue(other, "client", "bob")
    rules = lab.path("rules.json")
    tls_keys.write(rules, json.dumps({"policy": "deny", "rules": [
        {"match": "O=Tests,CN=bob", "policy": "deny", "format": "exact"},
        {"match": "O=Tests,CN=*", "policy": "allow", "format": "glob"}]}))
    authz = ["--object", f"authz-list-file,id=a,filename={rules}", "--tls-authz", "a"]
    with lab.serve_tcp(*lab.x509(), *authz) as server:
        lab.check_served(lab.tls_uri(server))
        lab.check_refused(lab.tls_uri(server, other))


def rule_a_key_may_be_locked(lab):
    folder = lab.path("locked")
    lab.authority.issue(folder, "server", "localhost", password="open sesame")
    tls_keys.write(lab.path("password"), "open sesame")
    tls_keys.write(lab.path("wrong"), "open barley")
    lab.server_folder = folder
    with lab.serve_tcp("--object", f"secret,id=p,file={lab.path('password')}",
                       *lab.x509("passwordid=p")) as server:
        lab.check_served(lab.tls_uri(server))
    lab.refuses_to_start("--object", f"secret,id=p,file={lab.path('wrong')}",
                         *lab.x509("passwordid=p"), words=["server-cert.pem", "cannot be loaded"])


def rule_a_server_does_not_start_with_credentials_that_cannot_serve(lab):
    empty = lab.path("empty")
    os.makedirs(empty)
    lab.refuses_to_start(*lab.psk(empty), words=["keys.psk", "No such file"])
    tls_keys.write(os.path.join(empty, "keys.psk"), "alice:nothex\n")
    lab.refuses_to_start(*lab.psk(empty), words=["keys.psk", "line 1", "hexadecimal"])
    lab.server_folder = empty
    lab.refuses_to_start(*lab.x509(), words=["ca-cert.pem", "No such file"])
    expired = lab.path("expired")
    lab.authority.issue(expired, "server", "localhost",
                        'activation_date = "2020-01-01 00:00:00 UTC"\n'
                        'expiration_date = "2021-01-01 00:00:00 UTC"')
    lab.server_folder = expired
    lab.refuses_to_start(*lab.x509(), words=["server-cert.pem", "expired"])


def rule_a_list_of_exports_is_read_through_tls(lab):
    with lab.serve_tcp(*lab.x509(), "-x", "disk") as server:
        status, output, errors = harness.run(
            [lab.program, "-L", "-b", "localhost", "-p", server.socket, "--object",
             f"tls-creds-x509,id=c,dir={lab.client_folder},endpoint=client", "--tls-creds", "c"])
        expect(status, 0, f"-L: {errors}")
        check("export: 'disk'" in output, f"-L says {output}")
        status, _, errors = harness.run([lab.program, "-L", "-b", "localhost", "-p", server.socket])
        expect(status, 1, f"-L without TLS: {errors}")
