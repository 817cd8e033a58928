"""HTTP servers for tests: nginx, with a configuration of its own; and one that breaks the protocol in
ways that nginx does not.

    with nginx(folder) as web:
        ... web.root, web.url("disk.raw"), web.requests() ...

    with faulty(content, answer) as server:
        ... server.url, server.requests ...
"""
import contextlib
import email.utils
import hashlib
import http.server
import os
import re
import socket
import threading

import harness

LOCATIONS = """
    # Else a body's length is refused before the method is.
    location /plain/   { alias ROOT/; client_max_body_size 0; }
    # A part of a second for a megabyte: enough to be cut off.
    location /slow/    { alias ROOT/; limit_rate 400k; }
    location /steady/  { alias ROOT/; limit_rate 4m; }
    location /noranges/ { alias ROOT/; max_ranges 0; }
    # nginx answers what exceeds this with 503.
    location /busy/    { alias ROOT/; limit_req zone=busy; }
    location /broken/  { return 500; }
    location /closed/  { return 444; }
    location /moved/   { rewrite ^/moved/(.*) http://127.0.0.1:PORT/plain/$1 redirect; }
    location /loop/    { return 302 /loop/again; }
    location /elsewhere/ { return 302 file:///etc/passwd; }
    location /untagged/ { alias ROOT/; etag off; }
    location /unknown/ { alias ROOT/; etag off; add_header Last-Modified ""; }
    location /put/     { alias ROOT/; dav_methods PUT; client_max_body_size 8m; }
    location /signed/  { if ($arg_signature != "s3cr3t") { return 403; } alias ROOT/; }
"""

CONFIGURATION = """
daemon off;
USER
worker_processes 1;
pid FOLDER/nginx.pid;
error_log FOLDER/error.log;
events { worker_connections 256; }
http {
  log_format line '$status $request_method $request_uri "$http_range" "$http_if_match" $connection';
  access_log FOLDER/access.log line;
  client_body_temp_path FOLDER/body;
  proxy_temp_path FOLDER/proxy;
  fastcgi_temp_path FOLDER/fastcgi;
  uwsgi_temp_path FOLDER/uwsgi;
  scgi_temp_path FOLDER/scgi;
  limit_req_zone $uri zone=busy:1m rate=8r/s;
  keepalive_timeout 60;
  server {
    listen 127.0.0.1:PORT;
    MORE
    LOCATIONS
  }
  server {
    listen 127.0.0.1:PROXY;
    access_log FOLDER/proxy.log line;
    location / { proxy_pass http://$http_host$request_uri; }
  }
  TLS
}
"""

TLS = """
  server {
    listen 127.0.0.1:SECURE ssl http2;
    ssl_certificate KEYS/server-cert.pem;
    ssl_certificate_key KEYS/server-key.pem;
    location /plain/ { alias ROOT/; }
    location /down/  { rewrite ^/down/(.*) http://127.0.0.1:PORT/plain/$1 redirect; }
  }
"""


def looked_up_name():
    """(name, address) on loopback that libcurl has to look up, unlike localhost, if there is one."""
    with open("/etc/hosts", encoding="utf-8") as lines:
        for line in lines:
            address, *names = line.split("#")[0].split() or [""]
            for name in names:
                if address.startswith("127.") and not name.startswith("localhost"):
                    return name, address
    return "localhost", "127.0.0.1"


class Web:
    def __init__(self, folder, keys):
        self.folder = os.path.join(folder, "nginx")
        self.root = os.path.join(folder, "files")
        self.files = 0  # written
        os.makedirs(self.folder)
        os.makedirs(self.root, exist_ok=True)
        self.port, self.proxy, self.secure = (harness.free_port() for _ in range(3))
        text = CONFIGURATION.replace("TLS", TLS if keys else "").replace("LOCATIONS", LOCATIONS)
        self.name, address = looked_up_name()
        more = "" if address == "127.0.0.1" else f"listen {address}:{self.port};"
        for word, value in (("MORE", more), ("FOLDER", self.folder), ("ROOT", self.root),
                            ("PORT", self.port),
                            ("PROXY", self.proxy), ("SECURE", self.secure), ("KEYS", keys or ""),
                            ("USER", "user root;" if os.geteuid() == 0 else "")):
            text = text.replace(word, str(value))
        self.configuration = os.path.join(self.folder, "nginx.conf")
        with open(self.configuration, "w", encoding="utf-8") as out:
            out.write(text)

    def url(self, name, location="plain"):
        return f"http://127.0.0.1:{self.port}/{location}/{name}"

    def secure_url(self, name, location="plain"):
        return f"https://localhost:{self.secure}/{location}/{name}"

    def requests(self, log="access.log"):
        """[(status, uri, range, if-match, connection)], oldest first."""
        with open(os.path.join(self.folder, log), encoding="utf-8") as lines:
            found = [re.match(r'(\d+) \w+ (\S+) "(.*?)" "(.*?)" (\d+)$', line) for line in lines]
        return [(int(one[1]), *one.groups()[1:]) for one in found if one]

    def write(self, name, content, seconds=None):
        """As deployments do it: a new file in the place of the old one. nginx makes an ETag of the
        time in `seconds` and the size: each file gets a time of its own unless that is given."""
        self.files += 1
        seconds = 10**9 + self.files if seconds is None else seconds
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path + ".new", "wb") as out:
            out.write(content)
        os.utime(path + ".new", (seconds, seconds))
        os.rename(path + ".new", path)
        return path


@contextlib.contextmanager
def nginx(folder, keys=None):
    """`keys`: a folder of tls_keys; then it also speaks TLS."""
    web = Web(folder, keys)
    command = ["/usr/sbin/nginx", "-e", os.path.join(web.folder, "error.log"), "-c",
               web.configuration]
    with harness.start(command, web.port):
        yield web


class Request:
    """One that the faulty server got, and how to answer it."""

    def __init__(self, handler, number):
        self.handler = handler
        self.number = number  # from 0
        self.headers = handler.headers
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", ""))
        self.range = (int(found[1]), int(found[2])) if found else None

    def reply(self, content, *, status=206, headers=(), cut=None, body=None, tag=None):
        """The range of `content`, with other `headers` ({name: value, None: left out}) if wanted;
        `cut`: only so many bytes of it, then the connection ends."""
        first, last = self.range
        part = content[first:last + 1] if body is None else body
        fields = {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(content)}",
                  "Content-Length": str(len(part)),
                  "ETag": tag or etag_of(content)}
        fields.update(headers)
        self.handler.send_response(status)
        for name, value in fields.items():
            if value is not None:
                self.handler.send_header(name, value)
        self.handler.end_headers()
        with contextlib.suppress(ConnectionError):
            self.handler.wfile.write(part if cut is None else part[:cut])
        if cut is not None:
            self.handler.close_connection = True

    def body(self):
        """All of the request's."""
        file = self.handler.rfile
        if self.headers.get("Transfer-Encoding") != "chunked":
            return file.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while True:
            size = int(file.readline(), 16)
            parts.append(file.read(size))
            if file.readline() != b"\r\n":
                raise ConnectionError("a chunk that is cut")
            if size == 0:
                return b"".join(parts)

    def refuse(self, status, headers=(), body=b""):
        self.handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **dict(headers)}.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()
        self.handler.wfile.write(body)

    def refuse_and_end(self, status, headers=(), body=b""):
        """The same, and the connection ends. What the client has sent is read first: the system tells
        a client of which there are bytes left that the connection was reset, and drops the reply."""
        self.refuse(status, {"Connection": "close", **dict(headers)}, body)
        handler = self.handler
        handler.close_connection = True
        handler.connection.settimeout(10)
        with contextlib.suppress(OSError):
            handler.connection.shutdown(socket.SHUT_WR)
            while handler.rfile.read1(1 << 16):
                pass


def etag_of(content):
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


class Faulty:
    def __init__(self, answer):
        self.answer = answer
        self.requests = []
        self.over = threading.Event()  # for answers that wait
        lock = threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                with lock:
                    request = Request(self, len(outer.requests))
                    outer.requests.append(request)
                request.path = self.path
                answer(request)

            do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_):
                pass  # clients may leave at any time

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/disk.raw"

    def __enter__(self):
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.server.shutdown()
        self.server.server_close()


def faulty(answer):
    """A server whose every request is answered by `answer(request)`."""
    return Faulty(answer)


def http_date(seconds):
    return email.utils.formatdate(seconds, usegmt=True)
