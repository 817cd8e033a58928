"""NBD servers for tests of clients: nbdkit, and one that answers whatever a test wants."""
import contextlib
import os
import shutil
import socket
import struct
import tempfile
import threading

import harness
import nbd_client as nbd

MIB = 1 << 20


@contextlib.contextmanager
def nbdkit(*words):
    """The words are its options, plugin and parameters."""
    folder = tempfile.mkdtemp(prefix="underlay-test-", dir="/tmp")
    try:
        path = os.path.join(folder, "socket")
        with harness.start(["nbdkit", "-f", "-r", "-U", path, *words], path) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def option_reply(option, kind, data=b""):
    return struct.pack(">QIII", nbd.OPTION_REPLY_MAGIC, option, kind, len(data)) + data


def receive(connection, count):
    data = b""
    while len(data) < count:
        got = connection.recv(count - len(data))
        if not got:
            raise ConnectionError
        data += got
    return data


def greet(connection, size, more_flags=0):
    """The server's part of the handshake, with structured replies and base:allocation as id 1."""
    connection.sendall(struct.pack(">QQH", nbd.NBDMAGIC, nbd.IHAVEOPT, 3))
    receive(connection, 4)
    while True:
        _, option, length = struct.unpack(">QII", receive(connection, 16))
        receive(connection, length)
        if option == nbd.OPT_SET_META_CONTEXT:
            connection.sendall(option_reply(option, nbd.REP_META_CONTEXT,
                                            struct.pack(">I", 1) + b"base:allocation"))
        elif option == nbd.OPT_GO:
            flags = nbd.HAS_FLAGS | nbd.READ_ONLY | more_flags
            connection.sendall(option_reply(option, nbd.REP_INFO,
                                            struct.pack(">HQH", nbd.INFO_EXPORT, size, flags)))
        elif option != nbd.OPT_STRUCTURED_REPLY:
            connection.sendall(option_reply(option, nbd.ERR_UNSUP))
            continue
        connection.sendall(option_reply(option, nbd.REP_ACK))
        if option == nbd.OPT_GO:
            return


@contextlib.contextmanager
def misbehaving(answer, size=MIB, handshake=greet):
    """The URI of a server that calls answer(connection, command, cookie, offset, length) for each
    request; False: it hangs up."""
    folder = tempfile.mkdtemp(prefix="underlay-test-", dir="/tmp")
    path = os.path.join(folder, "socket")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(8)

    def serve(connection):
        with connection, contextlib.suppress(OSError):
            handshake(connection, size)
            while True:
                _, flags, kind, cookie, offset, length = struct.unpack(">IHHQQI",
                                                                       receive(connection, 28))
                if kind == nbd.CMD_DISC or not answer(connection, kind, cookie, offset, length):
                    return

    def accept():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield harness.uri(path)
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        shutil.rmtree(folder, ignore_errors=True)


def chunk(kind, cookie, payload=b"", done=True):
    return struct.pack(">IHHQI", nbd.CHUNK_MAGIC, nbd.CHUNK_DONE if done else 0, kind, cookie,
                       len(payload)) + payload
