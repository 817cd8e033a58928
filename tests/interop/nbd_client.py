"""An NBD client on a plain socket, to say anything, byte by byte, and to see exactly what comes
back.

Constants and layouts are those of the NBD protocol (doc/proto.md of the NBD project). Every wait
has a time limit: a server that falls silent is a failed test, not a hanging one.
"""
import collections
import socket
import struct

NBDMAGIC = 0x4E42444D41474943
IHAVEOPT = 0x49484156454F5054
OPTION_REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
CHUNK_MAGIC = 0x668E33EF
EXT_REQUEST_MAGIC = 0x21E41C71
EXT_REPLY_MAGIC = 0x6E8A278C

FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES = 1, 2

(OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_PEEK, OPT_STARTTLS, OPT_INFO, OPT_GO,
 OPT_STRUCTURED_REPLY, OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT,
 OPT_EXTENDED_HEADERS) = range(1, 12)

REP_ACK, REP_SERVER, REP_INFO, REP_META_CONTEXT = 1, 2, 3, 4
(ERR_UNSUP, ERR_POLICY, ERR_INVALID, ERR_PLATFORM, ERR_TLS_REQD, ERR_UNKNOWN, ERR_SHUTDOWN,
 ERR_BLOCK_SIZE_REQD, ERR_TOO_BIG, ERR_EXT_HEADER_REQD) = range(0x80000001, 0x8000000B)

INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = range(4)

(HAS_FLAGS, READ_ONLY, SEND_FLUSH, SEND_FUA, ROTATIONAL, SEND_TRIM, SEND_WRITE_ZEROES, SEND_DF,
 CAN_MULTI_CONN, SEND_RESIZE, SEND_CACHE, SEND_FAST_ZERO,
 BLOCK_STATUS_PAYLOAD) = (1 << bit for bit in range(13))

(CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH, CMD_TRIM, CMD_CACHE, CMD_WRITE_ZEROES, CMD_BLOCK_STATUS,
 CMD_RESIZE) = range(9)
CMD_FLAG_FUA, CMD_FLAG_NO_HOLE, CMD_FLAG_DF, CMD_FLAG_REQ_ONE = 1, 2, 4, 8
CMD_FLAG_FAST_ZERO, CMD_FLAG_PAYLOAD_LEN = 16, 32

CHUNK_NONE, CHUNK_DATA, CHUNK_HOLE = 0, 1, 2
CHUNK_STATUS, CHUNK_STATUS_EXT = 5, 6
CHUNK_ERROR, CHUNK_ERROR_OFFSET = 0x8001, 0x8002
CHUNK_DONE = 1
CHUNK_CONTENT = (CHUNK_DATA, CHUNK_HOLE)

EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN = 1, 5, 12, 22, 28, 75, 95, 108
WIRE_ERRORS = {EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN}

# No sane reply is longer: the largest payload plus the longest message.
MAX_PAYLOAD = (32 << 20) + 4096 + 64

OptionReply = collections.namedtuple("OptionReply", "option kind data")
Export = collections.namedtuple("Export", "size flags infos")
# kind "simple" (error), or a chunk type (flags, payload); offset only under extended headers.
Simple = collections.namedtuple("Simple", "cookie error")
Chunk = collections.namedtuple("Chunk", "flags kind cookie offset payload")
# A whole answer. data: the assembled bytes of a read; status: {context id: [(length, flags)]}.
Answer = collections.namedtuple("Answer", "error data status chunks")


class ProtocolError(AssertionError):
    """The server broke the protocol."""


class Closed(Exception):
    """The server closed the connection."""


def check(condition, what):
    if not condition:
        raise ProtocolError(what)


def name_option(name, infos=()):
    """The data of INFO and GO."""
    raw = name.encode() if isinstance(name, str) else name
    return struct.pack(f">I{len(raw)}sH", len(raw), raw, len(infos)) + struct.pack(
        f">{len(infos)}H", *infos)


def meta_option(name, queries):
    """The data of LIST_META_CONTEXT and SET_META_CONTEXT."""
    raw = name.encode() if isinstance(name, str) else name
    data = struct.pack(f">I{len(raw)}sI", len(raw), raw, len(queries))
    for query in queries:
        data += struct.pack(">I", len(query)) + query.encode()
    return data


class Connection:
    """One connection. Context manager; closes the socket at the end of the block."""

    def __init__(self, address, timeout=10):
        """`address`: a path, or a TCP port of this machine."""
        tcp = isinstance(address, int)
        self.socket = socket.socket(socket.AF_INET if tcp else socket.AF_UNIX)
        # Not settimeout() yet: with that, a full backlog is an error and no reason to wait.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO,
                               struct.pack("@ll", int(timeout), 0))
        self.socket.connect(("127.0.0.1", address) if tcp else address)
        self.socket.settimeout(timeout)
        self.structured = False
        self.extended = False
        self.export = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    # Bytes.

    def send(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed from error

    def recv(self, count):
        """Exactly `count` bytes. Closed when the connection ends before the first one."""
        parts = bytearray()
        while len(parts) < count:
            try:
                part = self.socket.recv(min(count - len(parts), 1 << 20))
            except ConnectionResetError:
                part = b""
            except socket.timeout as error:
                raise ProtocolError(f"silence after {len(parts)} of {count} bytes") from error
            if not part:
                check(not parts, f"closed after {len(parts)} of {count} bytes")
                raise Closed
            parts += part
        return bytes(parts)

    def unpack(self, layout):
        return struct.unpack(layout, self.recv(struct.calcsize(layout)))

    def expect_closed(self, timeout=None):
        """The server must close now, without another byte."""
        if timeout is not None:
            self.socket.settimeout(timeout)
        try:
            data = self.recv(1)
        except Closed:
            return
        raise ProtocolError(f"expected the connection to be closed, got {data!r}...")

    def expect_silence(self, seconds=0.2):
        """The server must neither send nor close for a while."""
        before = self.socket.gettimeout()
        self.socket.settimeout(seconds)
        try:
            data = self.socket.recv(64)
        except socket.timeout:
            return
        finally:
            self.socket.settimeout(before)
        raise ProtocolError(f"expected silence, got {data!r}")

    # Handshake.

    def greeting(self, client_flags=FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES):
        """Takes the greeting and answers with `client_flags` (None: says nothing)."""
        magic, option_magic, flags = self.unpack(">QQH")
        check(magic == NBDMAGIC and option_magic == IHAVEOPT, "wrong magic in the greeting")
        if client_flags is not None:
            self.send(struct.pack(">I", client_flags))
        return flags

    def send_option(self, option, data=b"", length=None):
        """`length`: what the header says, when that shall differ from len(data)."""
        stated = len(data) if length is None else length
        self.send(struct.pack(">QII", IHAVEOPT, option, stated) + data)

    def option_reply(self):
        magic, option, kind, length = self.unpack(">QIII")
        check(magic == OPTION_REPLY_MAGIC, f"wrong magic {magic:#x} in an option reply")
        check(length <= 65536, f"option reply of {length} bytes")
        data = self.recv(length) if length else b""
        if kind & 0x80000000:
            check(len(data) <= 4096, "error message above 4096 bytes")
            check(b"\0" not in data, "NUL in an error message")
            data.decode("utf-8")
        return OptionReply(option, kind, data)

    def option(self, option, data=b""):
        """Sends an option; all its replies, the last of which is an ACK or an error."""
        self.send_option(option, data)
        return self.replies_to(option)

    def replies_to(self, option):
        replies = []
        while not replies or (replies[-1].kind != REP_ACK and replies[-1].kind < 0x80000000):
            reply = self.option_reply()
            check(reply.option == option, f"reply to option {reply.option}, sent was {option}")
            check(len(replies) < 1000, "endless option replies")
            replies.append(reply)
        if replies[-1].kind == REP_ACK:
            check(replies[-1].data == b"", "an ACK with data")
        return replies

    def option_result(self, option, data=b""):
        """The kind of the last reply: REP_ACK or an error."""
        return self.option(option, data)[-1].kind

    def negotiate_structured(self):
        check(self.option_result(OPT_STRUCTURED_REPLY) == REP_ACK, "no structured replies")
        self.structured = True

    def negotiate_extended(self):
        check(self.option_result(OPT_EXTENDED_HEADERS) == REP_ACK, "no extended headers")
        self.structured = self.extended = True

    def set_contexts(self, name, queries):
        """SET_META_CONTEXT: {context name: id}, or the error's kind."""
        replies = self.option(OPT_SET_META_CONTEXT, meta_option(name, queries))
        if replies[-1].kind != REP_ACK:
            return replies[-1].kind
        contexts = {}
        for reply in replies[:-1]:
            check(reply.kind == REP_META_CONTEXT and len(reply.data) >= 4, "odd reply to SET_META")
            context = reply.data[4:].decode()
            check(context not in contexts, f"{context} is told twice")
            contexts[context] = struct.unpack(">I", reply.data[:4])[0]
        check(len(set(contexts.values())) == len(contexts), "context ids are not unique")
        return contexts

    def info(self, option, name="", infos=()):
        """INFO or GO: an Export, or the error's kind."""
        replies = self.option(option, name_option(name, infos))
        if replies[-1].kind != REP_ACK:
            check(len(replies) == 1, "information before an error")
            return replies[-1].kind
        found = {}
        for reply in replies[:-1]:
            check(reply.kind == REP_INFO and len(reply.data) >= 2, "odd reply to INFO or GO")
            kind = struct.unpack(">H", reply.data[:2])[0]
            check(kind not in found, f"information {kind} is told twice")
            found[kind] = reply.data[2:]
        check(len(found.get(INFO_EXPORT, b"")) == 10, "no INFO_EXPORT of 12 bytes before the ACK")
        size, flags = struct.unpack(">QH", found[INFO_EXPORT])
        return Export(size, flags, found)

    def go(self, name="", infos=()):
        self.export = self.info(OPT_GO, name, infos)
        check(isinstance(self.export, Export), f"GO is refused: {self.export!r}")
        return self.export

    # Transmission.

    def request_bytes(self, command, offset=0, length=0, cookie=1, flags=0, payload=b""):
        if self.extended:
            head = struct.pack(">IHHQQQ", EXT_REQUEST_MAGIC, flags, command, cookie, offset, length)
        else:
            head = struct.pack(">IHHQQI", REQUEST_MAGIC, flags, command, cookie, offset, length)
        return head + payload

    def send_request(self, command, offset=0, length=0, cookie=1, flags=0, payload=b""):
        self.send(self.request_bytes(command, offset, length, cookie, flags, payload))

    def reply(self):
        """The next reply head with its payload: Simple (without a read's data) or Chunk."""
        magic = self.unpack(">I")[0]
        if magic == SIMPLE_REPLY_MAGIC and not self.extended:
            error, cookie = self.unpack(">IQ")
            return Simple(cookie, error)
        if magic == CHUNK_MAGIC and self.structured and not self.extended:
            flags, kind, cookie, length = self.unpack(">HHQI")
            offset = None
        elif magic == EXT_REPLY_MAGIC and self.extended:
            flags, kind, cookie, offset, length = self.unpack(">HHQQQ")
        else:
            raise ProtocolError(f"wrong magic {magic:#x} in a reply")
        check(length <= MAX_PAYLOAD, f"chunk of {length} bytes")
        return Chunk(flags, kind, cookie, offset, self.recv(length) if length else b"")

    def answer(self, length=0, offset=0, cookie=1, is_read=False, any_cookie=None):
        """The whole answer to one request; others must not come in between. With `any_cookie`, a
        dictionary {cookie: (offset, length)} of reads, the answer to whichever comes first."""
        first = self.reply()
        if any_cookie is not None:
            check(first.cookie in any_cookie, f"unknown cookie {first.cookie:#x}")
            cookie = first.cookie
            offset, length = any_cookie.pop(cookie)
            is_read = True
        if isinstance(first, Simple):
            check(first.cookie == cookie, "another request's cookie")
            check(first.error == 0 or first.error in WIRE_ERRORS, f"errno {first.error}")
            check(not (self.structured and is_read), "a simple reply to a structured READ")
            data = self.recv(length) if is_read and first.error == 0 and length else b""
            return Answer(first.error, data, {}, [])
        chunks = [first]
        while not chunks[-1].flags & CHUNK_DONE:
            chunks.append(self.reply())
        return assemble(chunks, cookie, offset, length, is_read, self.extended)

    def read(self, offset, length, cookie=1, flags=0):
        self.send_request(CMD_READ, offset, length, cookie, flags)
        return self.answer(length, offset, cookie, is_read=True)

    def command(self, command, offset=0, length=0, cookie=1, flags=0, payload=b""):
        """Any command but READ."""
        self.send_request(command, offset, length, cookie, flags, payload)
        return self.answer(length, offset, cookie)

    def command_error(self, *args, **kwargs):
        return self.command(*args, **kwargs).error


def in_transmission(address, name="", timeout=10, structured=False, extended=False, contexts=()):
    """A connection in transmission. `contexts`: their ids are in connection.contexts."""
    connection = Connection(address, timeout)
    connection.greeting()
    if extended:
        connection.negotiate_extended()
    elif structured:
        connection.negotiate_structured()
    if contexts:
        connection.contexts = connection.set_contexts(name, contexts)
    connection.go(name)
    return connection


def assemble(chunks, cookie, offset, length, is_read, extended):
    """Checks the chunks of one answer against each other and the request."""
    error = 0
    # Not for refused reads, whose length may be anything.
    has_content = is_read and any(chunk.kind in CHUNK_CONTENT for chunk in chunks)
    data = bytearray(length if has_content else 0)
    covered = []
    status = {}
    for chunk in chunks:
        check(chunk.cookie == cookie, "chunks of two requests between each other")
        check(chunk.flags in (0, CHUNK_DONE), f"unknown chunk flags {chunk.flags:#x}")
        check(not extended or chunk.offset == offset, "a reply with another offset")
        if chunk.kind == CHUNK_NONE:
            check(chunk.flags & CHUNK_DONE and not chunk.payload, "a wrong NONE chunk")
        elif chunk.kind & 0x8000:
            code = check_error_chunk(chunk)
            error = error or code
        elif chunk.kind in CHUNK_CONTENT and is_read:
            covered.append(place(chunk, data, offset))
        elif chunk.kind == (CHUNK_STATUS_EXT if extended else CHUNK_STATUS) and not is_read:
            context, extents = parse_status(chunk, extended)
            check(context not in status, "two status chunks of one context")
            status[context] = extents
        else:
            raise ProtocolError(f"chunk type {chunk.kind:#x} is no answer to this request")
    covered.sort()
    for (start, end), (following, _) in zip(covered, covered[1:]):
        check(end <= following, "content chunks overlap")
    if is_read and error == 0:
        check(sum(end - start for start, end in covered) == length, "chunks leave a gap")
    return Answer(error, bytes(data), status, chunks)


def place(chunk, data, offset):
    """Puts a content chunk where it belongs; its range within the read."""
    if chunk.kind == CHUNK_DATA:
        check(len(chunk.payload) > 8, "an empty data chunk")
        start = struct.unpack(">Q", chunk.payload[:8])[0] - offset
        end = start + len(chunk.payload) - 8
        content = chunk.payload[8:]
    else:
        check(len(chunk.payload) == 12, "a hole chunk is 12 bytes long")
        start, size = struct.unpack(">QI", chunk.payload)
        check(size > 0, "an empty hole chunk")
        start -= offset
        end = start + size
        content = bytes(size)
    check(0 <= start and end <= len(data), "a content chunk outside the request")
    data[start:end] = content
    return start, end


def check_error_chunk(chunk):
    """The error of an error chunk."""
    tail = {CHUNK_ERROR: 0, CHUNK_ERROR_OFFSET: 8}.get(chunk.kind)
    check(tail is not None, f"unknown error chunk {chunk.kind:#x}")
    code, length = struct.unpack(">IH", chunk.payload[:6])
    check(code in WIRE_ERRORS, f"errno {code} in an error chunk")
    check(length <= 4096 and len(chunk.payload) == 6 + length + tail, "a wrong error chunk")
    chunk.payload[6:6 + length].decode("utf-8")
    return code


def parse_status(chunk, extended):
    """(context id, [(length, flags)]) of a block status chunk."""
    if extended:
        context, count = struct.unpack(">II", chunk.payload[:8])
        layout, rest = ">QQ", chunk.payload[8:]
        check(len(rest) == 16 * count, "extent count and payload differ")
    else:
        context = struct.unpack(">I", chunk.payload[:4])[0]
        layout, rest = ">II", chunk.payload[4:]
        check(len(rest) % 8 == 0, "odd length of a status chunk")
    extents = list(struct.iter_unpack(layout, rest))
    check(extents and all(size > 0 for size, _ in extents), "no extent, or an empty one")
    return context, extents
