"""What the rules about TLS share: keys, a server that has them, and the clients that people use."""
import contextlib
import os
import ssl

import harness
import nbd_client as nbd
import tls_keys
from clients_lab import Lab as ClientsLab
from protocol_rules import check, expect


class Lab(ClientsLab):
    """Files, an authority, a server's certificate and a client's."""

    def __init__(self, program, folder):
        super().__init__(program, folder)
        self.image, self.contents = self.raw("disk.raw")
        self.authority = tls_keys.Authority(self.path("authority"))
        self.server_folder = self.path("server")
        self.client_folder = self.path("client")
        self.authority.issue(self.server_folder, "server", "localhost")
        self.authority.issue(self.client_folder, "client", "alice")

    def x509(self, *more):
        """Options of a server with certificates; `more`: fields of the object."""
        return ["--object", ",".join(["tls-creds-x509", "id=tls0", f"dir={self.server_folder}",
                                      "endpoint=server", *more]), "--tls-creds", "tls0"]

    def psk(self, folder):
        return ["--object", f"tls-creds-psk,id=tls0,dir={folder},endpoint=server", "--tls-creds",
                "tls0"]

    @contextlib.contextmanager
    def serve_tcp(self, *args):
        """On 127.0.0.1; server.socket is the port."""
        port = harness.free_port()
        command = [self.program, "-t", "-e", "0", "-b", "127.0.0.1", "-p", port, "-f", "raw", *args,
                   self.image]
        with harness.start(command, port) as server:
            yield server

    def tls_uri(self, server, folder=None):
        """For libnbd's programs."""
        return f"nbds://localhost:{server.socket}/?tls-certificates={folder or self.client_folder}"

    def read_all(self, uri):
        """nbdcopy's exit status and errors; the contents must be right when it succeeds."""
        copy = self.path("copy")
        status, _, errors = harness.run(["nbdcopy", uri, copy])
        if status == 0:
            with open(copy, "rb") as file:
                check(file.read() == self.contents, f"{uri}: nbdcopy reads other contents")
        if os.path.exists(copy):
            os.unlink(copy)
        return status, errors

    def check_served(self, uri):
        status, errors = self.read_all(uri)
        check(status == 0, f"nbdcopy {uri}: {errors}")

    def check_qemu_reads(self, server, credentials):
        """`credentials`: an object of qemu's, without its id."""
        status, output, errors = harness.run(
            ["qemu-img", "compare", "--object", f"{credentials},id=c,endpoint=client",
             "--image-opts", f"driver=nbd,host=localhost,port={server.socket},tls-creds=c",
             f"driver=raw,file.filename={self.image}"])
        expect(status, 0, f"qemu-img compare: {output}{errors}")

    def check_refused(self, uri):
        status, _ = self.read_all(uri)
        check(status != 0, f"nbdcopy {uri} is served")

    def refuses_to_start(self, *args, words):
        """The server must end with status 1 and say all of `words` in one line."""
        status, _, errors = harness.run([self.program, "-k", self.path("never"), "-f", "raw", *args,
                                         self.image])
        expect(status, 1, f"exit status; it said {errors}")
        lines = errors.splitlines()
        expect(len(lines), 1, f"lines of {errors!r}")
        for word in words:
            check(word in lines[0], f"{word!r} is not in {lines[0]!r}")


def start_tls(connection):
    """Answers STARTTLS' acknowledgement as a client that asks for no proof."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    expect(connection.option_result(nbd.OPT_STARTTLS), nbd.REP_ACK, "reply to STARTTLS")
    connection.socket = context.wrap_socket(connection.socket)


def encrypted(server):
    """A connection after STARTTLS, nothing negotiated."""
    connection = nbd.Connection(server.socket)
    connection.greeting()
    start_tls(connection)
    return connection
