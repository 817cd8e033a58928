#!/usr/bin/python3
"""Images of other servers with TLS (nbds://): the kernel's nbd client sends plain bytes, and the
kernel's TLS encrypts them."""
import contextlib
import os
import pathlib
import shutil
import socket
import sys

import guest
from guest import (PROGRAMS, THIN, WORK, check, equal, everything, must, pool, run, same_contents,
                   scenario, scenario_with_io_errors, started, template, thin, thin_refuses,
                   wait_for)
from reads_under_watch import under_load, watching

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../interop"))
import tls_keys

SERVER = PROGRAMS / "underlay-nbd"
TICKET_SERVER = pathlib.Path(__file__).resolve().parent / "ticket_server.py"
PORT = 10999
KEYS = pathlib.Path("/run/tls-keys")  # made once: WORK is emptied behind each scenario
USER = "alice"
RECOVERY = ["--recovery-timeout", "2", "--dead-timeout", "60"]


def load(*modules):
    must("modprobe", "-d", "/run/modules", "-a", *modules)


def make_keys():
    if KEYS.exists():
        return
    KEYS.mkdir()
    ours = tls_keys.Authority(str(KEYS / "authority"))
    ours.issue(str(KEYS / "server"), "server", "localhost")
    ours.issue(str(KEYS / "client"), "client", USER)
    ours.issue(str(KEYS / "expired"), "server", "localhost",
               'activation_date = "2001-01-01 00:00:00"\nexpiration_date = "2002-01-01 00:00:00"')
    shutil.copytree(KEYS / "client", KEYS / "anonymous")
    (KEYS / "anonymous/client-cert.pem").unlink()
    (KEYS / "anonymous/client-key.pem").unlink()
    stranger = tls_keys.Authority(str(KEYS / "strangers-authority"), "Strangers")
    stranger.issue(str(KEYS / "stranger"), "client", USER)
    tls_keys.pre_shared(str(KEYS / "psk"), USER)
    tls_keys.pre_shared(str(KEYS / "other-psk"), USER)


def ready():
    """What all scenarios but the first need."""
    load("tls", "gcm", "ctr", "ghash-generic")
    make_keys()


def uri(folder="client", host="localhost", name="", more=""):
    return f"nbds://{host}:{PORT}/{name}?tls-certificates={KEYS / folder}{more}"


def psk_uri(folder="psk", user=USER):
    return f"nbds://{user}@localhost:{PORT}/?tls-psk-file={KEYS / folder}/keys.psk"


def x509(folder="server", *more):
    return ["--object", ",".join([f"tls-creds-x509,id=tls,dir={KEYS / folder},endpoint=server",
                                  *more]), "--tls-creds", "tls"]


def psk():
    return ["--object", f"tls-creds-psk,id=tls,dir={KEYS / 'psk'},endpoint=server", "--tls-creds",
            "tls"]


def listening():
    return must("ss", "-Hltn", f"sport = :{PORT}").strip() != ""


@contextlib.contextmanager
def listens(*command):
    """A server on PORT."""
    with started(*command, log=WORK / "server.log") as server:
        wait_for(lambda: listening() or server.poll() is not None, "the server listens")
        check(server.poll() is None, (WORK / "server.log").read_text())
        yield server


def serve(one, options, *more):
    return listens(SERVER, "-t", "-e", "0", "-b", "127.0.0.1", "-p", PORT, "-f", one.format,
                   *options, *more, one.path)


def create(address, *options):
    return thin("create", "volume", "--image", address, "--pool", "pool", *options)["device"]


def check_contents(address, one, version="1.2", cipher="aes-gcm-256", connections=1):
    """Attached, it has them, by as many connections as the kernel encrypts."""
    device = thin("attach", address, "--connections", str(connections))["device"]
    same_contents(device, one.raw)
    equal(encrypted_by_kernel(version, cipher), connections, "connections")
    thin("detach", address)


def encrypted_by_kernel(version, cipher="aes-gcm-256"):
    """The nbd client's end of each connection, as ss sees it, speaks that."""
    lines = must("ss", "-Htni", "state", "established", f"dport = :{PORT}")
    check(f"tcp-ulp-tls version: {version} cipher: {cipher} rxconf: sw txconf: sw" in lines,
          f"the connections are {lines!r}")
    counters = dict(line.split() for line in
                    pathlib.Path("/proc/net/tls_stat").read_text().splitlines())
    connections = lines.count("tcp-ulp-tls")
    equal((counters["TlsCurrTxSw"], counters["TlsCurrRxSw"]), (str(connections),) * 2,
          "connections that the kernel encrypts")
    equal(counters["TlsDecryptError"], "0", "records that could not be decrypted")
    return connections


def refused(address, *words):
    """By `attach`, which leaves nothing."""
    before = everything(), run(THIN, "list")
    thin_refuses("attach", address, words=words)
    equal((everything(), run(THIN, "list")), before, "what there is after it")


# The first two have to be: what is loaded stays.
@scenario
def without_tls_in_the_kernel_it_is_refused_and_says_what_to_load():
    make_keys()
    check(not os.path.exists("/sys/module/tls"), "tls is loaded already")
    with serve(template("plain.qcow2"), x509()):
        refused(uri(), "the kernel has no TLS", "'modprobe tls'", "tunnel")


@scenario
def without_the_cipher_in_the_kernel_it_is_refused_and_says_what_to_load():
    load("tls")
    make_keys()
    with serve(template("plain.qcow2"), x509()):
        refused(uri(), "the kernel does not encrypt TLS 1.2 with AES-256-GCM", "modprobe -a gcm")


@scenario
def a_volume_on_an_encrypted_connection_has_the_contents():
    ready()
    one = template("compressed.qcow2")
    with serve(one, x509()), pool():
        device = create(uri())
        same_contents(device, one.raw)
        equal(encrypted_by_kernel("1.2"), 1, "connections")
        thin("deactivate", "--all")
        thin("activate", "--all")
        same_contents(device, one.raw)


@scenario
def dd_reads_an_export_whose_name_is_escaped():
    ready()
    one = template("plain.qcow2")
    with serve(one, x509(), "-x", "a b"):
        device = thin("attach", uri(name="a%20b"))["device"]
        digest = must("sh", "-c", f"dd if={device} bs=64k iflag=direct status=none | sha256sum")
        equal(digest.split()[0], guest.digest(one.raw), "the contents")
        thin("detach", uri(name="a%20b"))
    equal(guest.nbd_devices(), [], "devices")


@scenario
def several_connections_are_encrypted_each():
    ready()
    one = template("plain.qcow2")
    with serve(one, x509()):
        check_contents(uri(), one, connections=2)


@scenario
def a_pre_shared_key_will_do():
    ready()
    one = template("plain.qcow2")
    with serve(one, psk()):
        check_contents(psk_uri(), one)


@scenario
def a_server_of_tls_1_3_alone_is_read_too():
    ready()
    one = template("plain.qcow2")
    only = "priority=NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM"
    with serve(one, x509("server", only)):
        check_contents(uri(), one, "1.3", "aes-gcm-128")
        # Such a server says so when the handshake is over.
        refused(uri("anonymous"), "alert")


@scenario
def session_tickets_of_openssl_do_no_harm():
    ready()
    one = template("plain.qcow2")
    with listens(TICKET_SERVER, PORT, KEYS / "server", one.raw):
        check_contents(uri(), one, "1.3")


@scenario
def servers_of_others_are_read():
    ready()
    one = template("plain.qcow2")
    nbdkit = ["nbdkit", "-f", "-r", "-i", "127.0.0.1", "-p", PORT, "--tls=require"]
    with listens("qemu-nbd", "-r", "-t", "-b", "127.0.0.1", "-p", PORT, "-f", one.format, *x509(),
                 one.path):
        check_contents(uri(), one)
    with listens(*nbdkit, f"--tls-certificates={KEYS / 'server'}", "--tls-verify-peer", "file",
                 one.raw):
        check_contents(uri(), one)
    with listens(*nbdkit, f"--tls-psk={KEYS / 'psk'}/keys.psk", "file", one.raw):
        check_contents(psk_uri(), one)


@scenario
def a_server_that_is_killed_under_reads_and_comes_back_costs_no_error():
    ready()
    one = template("compressed.qcow2")
    with pool(), contextlib.ExitStack() as servers:
        server = servers.enter_context(serve(one, x509()))
        device = create(uri(), *RECOVERY)
        with watching(), under_load(device, one):
            for _ in range(2):
                server.kill()
                server.wait()
                server = servers.enter_context(serve(one, x509()))
                wait_for(lambda: must("ss", "-Htn", "state", "established", f"dport = :{PORT}"),
                         "connected again")
        encrypted_by_kernel("1.2")


@scenario_with_io_errors
def a_server_that_comes_back_with_other_credentials_gets_no_connection():
    ready()
    one = template("compressed.qcow2")
    with pool():
        with serve(one, psk()):
            device = create(psk_uri(), "--recovery-timeout", "1", "--dead-timeout", "60")
        with serve(one, x509()):
            status, _, errors = run(THIN, "watch", "--once")
            equal(status, 1, "the exit status of watch")
            check("nothing in common" in errors, f"watch does not say why: {errors!r}")
            equal(must("ss", "-Htn", "state", "established", f"dport = :{PORT}"), "", "connections")
        with serve(one, psk()):
            thin("watch", "--once")
            same_contents(device, one.raw)


@scenario
def who_is_not_trusted_is_refused():
    ready()
    one = template("plain.qcow2")
    with serve(one, x509()):
        refused(uri("stranger"), "the server's certificate is refused", "issuer is unknown")
        refused(uri("anonymous"), "refuse", "ertificate")
        refused(uri(more="&tls-hostname=elsewhere.example"), "the server's certificate is refused",
                "does not match")
        refused(uri(name="other"), "no export named 'other'")
        refused(psk_uri(), "nothing in common", "pre-shared keys")
        refused(f"nbd://localhost:{PORT}/", "TLS")
        attached = thin("attach", uri(more="&tls-hostname=elsewhere.example&tls-verify-peer=no"))
        same_contents(attached["device"], one.raw)
    refused(uri(), "Connection refused")


@scenario
def expired_certificates_and_other_keys_are_refused():
    ready()
    one = template("plain.qcow2")
    command = ["nbdkit", "-f", "-r", "-i", "127.0.0.1", "-p", PORT, "--tls=require",
               f"--tls-certificates={KEYS / 'expired'}", "file", one.raw]
    with listens(*command):
        refused(uri(), "the server's certificate is refused", "expired")
    with serve(one, psk()):
        refused(psk_uri("other-psk"), "handshake")
        refused(psk_uri(user="bob"), "keys.psk", 'no key of user "bob"')


@scenario
def a_server_without_tls_is_refused_and_never_spoken_to_in_plain_text():
    ready()
    with serve(template("plain.qcow2"), []):
        refused(uri(), "does not offer TLS")


@scenario
def unix_sockets_are_refused():
    refused(f"nbds+unix:///?socket=/run/x&tls-certificates={KEYS / 'client'}", "on TCP only",
            "nbd+unix://")


@scenario
def a_server_that_says_nothing_is_not_waited_for_for_ever():
    ready()
    with socket.create_server(("127.0.0.1", PORT)):
        refused(uri(), "did not answer in time")


guest.main()
