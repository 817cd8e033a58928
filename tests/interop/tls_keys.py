"""Makes what TLS needs, with the programs that operators use: certtool and psktool (GnuTLS).

Folders with the file names that qemu and libnbd look for: ca-cert.pem, ca-crl.pem, server-*.pem,
client-*.pem, keys.psk.
"""
import os
import shutil

import harness
from protocol_rules import check

SERVER_NAMES = 'dns_name = "localhost"\nip_address = "127.0.0.1"\n'


def run(*command):
    status, output, errors = harness.run(command)
    check(status == 0, f"{' '.join(map(str, command))}: exit {status}\n{output}{errors}")


def write(path, text):
    with open(path, "w", encoding="utf-8") as out:
        out.write(text)


class Authority:
    """A certificate authority, in a folder of its own."""

    def __init__(self, folder, name="Underlay tests"):
        self.folder = folder
        os.makedirs(folder)
        self.key = os.path.join(folder, "key.pem")
        self.certificate = os.path.join(folder, "ca-cert.pem")
        run("certtool", "--generate-privkey", "--key-type=ecdsa", "--outfile", self.key)
        template = os.path.join(folder, "ca.template")
        write(template, f'cn = "{name}"\nca\ncert_signing_key\ncrl_signing_key\n')
        run("certtool", "--generate-self-signed", "--load-privkey", self.key, "--template",
            template, "--outfile", self.certificate)

    def issue(self, folder, role, name, days="expiration_days = 10", password=None):
        """`role`: server or client. Writes ROLE-key.pem and ROLE-cert.pem, and the authority's
        certificate, into `folder`. `days`: of its validity, in certtool's words."""
        os.makedirs(folder, exist_ok=True)
        key = os.path.join(folder, f"{role}-key.pem")
        plain = os.path.join(folder, f"{role}-key.plain") if password else key
        certificate = os.path.join(folder, f"{role}-cert.pem")
        template = os.path.join(folder, f"{role}.template")
        write(template, f'cn = "{name}"\norganization = "Tests"\n{days}\nsigning_key\n'
              f"tls_www_{role}\n" + (SERVER_NAMES if role == "server" else ""))
        run("certtool", "--generate-privkey", "--key-type=ecdsa", "--outfile", plain)
        if password:
            run("certtool", "--to-p8", "--load-privkey", plain, "--password", password, "--outfile",
                key)
        run("certtool", "--generate-certificate", "--load-privkey", plain, "--load-ca-privkey",
            self.key, "--load-ca-certificate", self.certificate, "--template", template,
            "--outfile", certificate)
        shutil.copy(self.certificate, os.path.join(folder, "ca-cert.pem"))
        return certificate

    def revoke(self, certificate, folder):
        """Writes ca-crl.pem, which names `certificate`, into `folder`."""
        template = os.path.join(self.folder, "crl.template")
        write(template, "crl_next_update = 10\ncrl_number = 1\n")
        run("certtool", "--generate-crl", "--load-ca-privkey", self.key, "--load-ca-certificate",
            self.certificate, "--load-certificate", certificate, "--template", template,
            "--outfile", os.path.join(folder, "ca-crl.pem"))


def pre_shared(folder, user):
    """Writes keys.psk with a new key of `user`; its path."""
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "keys.psk")
    run("psktool", "--username", user, "--keysize", "32", "--pskfile", path)
    return path
