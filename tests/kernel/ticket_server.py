#!/usr/bin/python3
"""A server of a raw file with OpenSSL's TLS 1.3, which sends session tickets when the handshake is
over: a peer that is not GnuTLS. Simple replies only; one thread for each client.

    ticket_server.py PORT CREDENTIALS FILE

CREDENTIALS: a folder with server-cert.pem and server-key.pem.
"""
import os
import socket
import ssl
import struct
import sys
import threading

NBDMAGIC, IHAVEOPT = 0x4e42444d41474943, 0x49484156454f5054
OPTION_REPLY, REQUEST, REPLY = 0x3e889045565a9, 0x25609513, 0x67446698
STARTTLS, GO = 5, 7
ACK, INFO = 1, 3
READ, DISCONNECT = 0, 2
FLAGS = 1 | 2  # HAS_FLAGS, READ_ONLY


def receive(connection, count):
    data = b""
    while len(data) < count:
        got = connection.recv(count - len(data))
        if not got:
            raise ConnectionError
        data += got
    return data


def take_option(connection, expected):
    magic, option, length = struct.unpack(">QII", receive(connection, 16))
    if (magic, option) != (IHAVEOPT, expected):
        raise ConnectionError(f"option {option}, not {expected}")
    receive(connection, length)


def answer(connection, option, kind, data=b""):
    connection.sendall(struct.pack(">QIII", OPTION_REPLY, option, kind, len(data)) + data)


def serve(connection, context, path):
    connection.sendall(struct.pack(">QQH", NBDMAGIC, IHAVEOPT, 1))
    receive(connection, 4)
    take_option(connection, STARTTLS)
    answer(connection, STARTTLS, ACK)
    connection = context.wrap_socket(connection, server_side=True)
    take_option(connection, GO)
    answer(connection, GO, INFO, struct.pack(">HQH", 0, os.path.getsize(path), FLAGS))
    answer(connection, GO, ACK)
    with open(path, "rb") as file:
        while True:
            magic, _, kind, cookie, offset, length = struct.unpack(">IHHQQI",
                                                                   receive(connection, 28))
            if magic != REQUEST or kind != READ:
                return
            data = os.pread(file.fileno(), length, offset)
            connection.sendall(struct.pack(">IIQ", REPLY, 0, cookie) + data)


def serve_or_say(connection, context, path):
    try:
        serve(connection, context, path)
    except OSError as error:
        print("ticket_server:", error, file=sys.stderr, flush=True)
    finally:
        connection.close()


def main():
    port, folder, path = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(f"{folder}/server-cert.pem", f"{folder}/server-key.pem")
    with socket.create_server(("127.0.0.1", int(port))) as listening:
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=serve_or_say, args=(connection, context, path),
                             daemon=True).start()


main()
