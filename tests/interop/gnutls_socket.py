"""A client's end of a TLS connection by GnuTLS itself, for what Python's ssl cannot ask for: new keys
in the middle of a connection (RFC 8446, "Key and Initialization Vector Update") and short records
(RFC 8449). It is no proof of anything: no certificate is looked at."""
import ctypes
import socket
import struct
import time

CLIENT = 1 << 1
NO_SIGNAL = 1 << 6
CRD_CERTIFICATE = 1
KU_PEER = 1  # the peer shall have new keys, too
E_AGAIN, E_INTERRUPTED = -28, -52

_gnutls = ctypes.CDLL("libgnutls.so.30")
_gnutls.gnutls_strerror.restype = ctypes.c_char_p
for _function in ("gnutls_record_send", "gnutls_record_recv", "gnutls_record_set_max_recv_size"):
    getattr(_gnutls, _function).restype = ctypes.c_ssize_t


class TlsError(OSError):
    """What GnuTLS says."""


def _checked(status):
    if status < 0:
        raise TlsError(_gnutls.gnutls_strerror(ctypes.c_int(status)).decode())
    return status


class GnutlsSocket:
    """Takes a connected socket over, as much of it as nbd_client.Connection uses."""

    def __init__(self, connected, max_record=None, priority="NORMAL:-VERS-ALL:+VERS-TLS1.3"):
        """`max_record`: the longest record that the server may send, in bytes of data."""
        self._socket = connected
        self.longest_record = 0
        self._credentials = ctypes.c_void_p()
        self._session = ctypes.c_void_p()
        _checked(_gnutls.gnutls_certificate_allocate_credentials(ctypes.byref(self._credentials)))
        _checked(_gnutls.gnutls_init(ctypes.byref(self._session), CLIENT | NO_SIGNAL))
        _checked(_gnutls.gnutls_priority_set_direct(self._session, priority.encode(), None))
        _checked(_gnutls.gnutls_credentials_set(self._session, CRD_CERTIFICATE, self._credentials))
        if max_record:
            _checked(_gnutls.gnutls_record_set_max_recv_size(self._session,
                                                             ctypes.c_size_t(max_record)))
        # Its reads and writes block, and end with the kernel's time limits.
        self._seconds = int(connected.gettimeout() or 10)
        connected.settimeout(None)
        limit = struct.pack("@ll", self._seconds, 0)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            connected.setsockopt(socket.SOL_SOCKET, option, limit)
        descriptor = connected.fileno()
        _gnutls.gnutls_transport_set_int2(self._session, descriptor, descriptor)
        _checked(_gnutls.gnutls_handshake(self._session))

    def update_keys(self, of_peer):
        """This side's keys are new from here on, and the server is asked for the same if `of_peer`."""
        _checked(_gnutls.gnutls_session_key_update(self._session, KU_PEER if of_peer else 0))

    def sendall(self, data):
        while data:
            sent = _checked(_gnutls.gnutls_record_send(self._session, data,
                                                       ctypes.c_size_t(len(data))))
            data = data[sent:]

    def recv(self, count):
        """At most one record."""
        buffer = ctypes.create_string_buffer(count)
        deadline = time.monotonic() + self._seconds
        while True:
            got = _gnutls.gnutls_record_recv(self._session, buffer, ctypes.c_size_t(count))
            if got not in (E_AGAIN, E_INTERRUPTED):
                self.longest_record = max(self.longest_record, _checked(got))
                return buffer.raw[:got]
            # Said after new keys of the server's, too.
            if time.monotonic() > deadline:
                raise socket.timeout("the server does not answer")

    def close(self):
        if self._session:
            _gnutls.gnutls_deinit(self._session)
            _gnutls.gnutls_certificate_free_credentials(self._credentials)
            self._session = None
        self._socket.close()
