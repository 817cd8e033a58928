"""Hostile names in images: of files outside, devices, protocols, loops; and files that are swapped while
an image is opened."""
import contextlib
import itertools
import os
import socket
import struct
import threading

from hostile_image_lab import COMMANDS, REFUSED, Case, Image, other, write

CLUSTER = 4096
SIZE = 8 * CLUSTER
SECRET = b"the secret of another file. " * 2000
NAMES = (
    b"../secret", b"../../secret", b"/etc/passwd", b"/dev/zero", b"/dev/null", b"/dev/stdin",
    b"/dev/fd/0", b"/proc/self/mem", b"/proc/self/exe", b"/proc/self/cwd/secret", b"/proc/version",
    b"fifo", b"socket", b"folder", b"link", b"links/secret", b"up/secret", b"loop", b"dangling", b"",
    b".", b"..", b"/", b"//etc/passwd", b"./../secret", b"folder/../../secret", b"base.img/",
    b"base.img/../../secret", b"base.img\0", b"\0base.img", b"base.img\0/../../secret",
    b"nbd://localhost/x", b"nbd+unix:///x?socket=y", b"json:{\"driver\":\"file\"}", b"fat:/etc",
    b"file:/etc/passwd", b"file:base.img", b"https://localhost/x", b"ssh://x/y", b"host_device:/dev/sda",
    b"rbd:x/y", b"..\\secret", b"C:\\secret", b"\\\\host\\share", b"\x1b[2J\x1b]0;x\7", b"\xff\xfe",
    b"a" * 255, b"a" * 256, b"b/" * 500, b"\n", b"base.img\n", b" base.img", b"top.qcow2", b"self",
    b"child-of-top.qcow2",
)
FILES = (b"child-of-top.qcow2",)
RIGHT_AS_RAW = other("a file of the folder, whatever is in it, can be a raw disk")


def extension(kind, data):
    return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)


def header(name=b"", backing_format=b"", data_file=None):
    """A qcow2 with one L2 table, empty, whose first cluster is this."""
    extensions = b""
    if backing_format:
        extensions += extension(0xE2792ACA, backing_format)
    if data_file is not None:
        extensions += extension(0x44415441, data_file)
    extensions += extension(0, b"")
    at = 104 + len(extensions)
    head = struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, at if name else 0, len(name), 12, SIZE, 0,
                       1, CLUSTER, 2 * CLUSTER, 1, 0, 0, 0 if data_file is None else 4, 0, 0, 4, 104)
    return (head + extensions + name).ljust(CLUSTER, b"\0")


def qcow2(**names):
    """Header, L1, refcount table, refcount block; all clusters are the backing file's."""
    refcounts = struct.pack(">5H", *[1] * 5).ljust(CLUSTER, b"\0")
    table = struct.pack(">Q", 3 * CLUSTER).ljust(CLUSTER, b"\0")
    return header(**names) + bytes(CLUSTER) + table + refcounts


def surroundings(folder):
    os.makedirs(os.path.join(folder, "folder"))
    write(os.path.join(folder, "..", "secret"), SECRET)
    write(os.path.join(folder, "base.img"), b"\x5a" * SIZE)
    os.mkfifo(os.path.join(folder, "fifo"))
    for name, target in (("link", "../secret"), ("links", ".."), ("up", "../"), ("loop", "loop"),
                         ("dangling", "nowhere"), ("self", "top.qcow2")):
        os.symlink(target, os.path.join(folder, name))
    write(os.path.join(folder, "child-of-top.qcow2"), qcow2(name=b"top.qcow2", backing_format=b"qcow2"))
    with socket.socket(socket.AF_UNIX) as server, working_in(folder):
        server.bind("socket")


@contextlib.contextmanager
def working_in(folder):
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def hostile_names(folder):
    """Every name as the backing file and as the data file: none of them is opened."""
    good = qcow2(name=b"base.img", backing_format=b"raw")
    image = Image("names-qcow2", os.path.join(folder, "top.qcow2"), good, b"\x5a" * SIZE, "qcow2")
    for name in NAMES:
        for backing_format in (b"raw", b"qcow2"):
            if name:  # a header without a name has no backing file
                image.change(f"backing {name[:40]} {backing_format}",
                             (0, header(name=name, backing_format=backing_format)),
                             rule=RIGHT_AS_RAW if backing_format == b"raw" and name in FILES else
                             REFUSED)
        image.change(f"data file {name[:40]}", (0, header(data_file=name)),
                     rule=RIGHT_AS_RAW if name in FILES else REFUSED)
    for backing_format in (b"", b"host_device", b"file", b"nbd", b"\0raw", b"raw\0", b"RAW", b"qcow2" * 40,
                           b"\x1b[2J"):
        image.change(f"format {backing_format[:20]}",
                     (0, header(name=b"base.img", backing_format=backing_format)), rule=REFUSED)
    return image


class Swapping:
    """A thread that puts one thing after the other in a name's place, as fast as it can."""

    def __init__(self, path, *makers):
        self.path, self.makers = path, makers
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        for number, make in zip(itertools.count(), itertools.cycle(self.makers)):
            if self.over.is_set():
                return
            spare = f"{self.path}.spare{number % 4}"
            with contextlib.suppress(OSError):
                os.unlink(spare)
            make(spare)
            os.rename(spare, self.path)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def races(folder):
    """The base is now the right file, now a link out of the folder, now a FIFO, a device, nothing."""
    folder = os.path.join(folder, "race")
    base = os.path.join(folder, "base.img")
    right = write(os.path.join(folder, "right.img"), b"\x5a" * SIZE)
    write(os.path.join(folder, "..", "secret.img"), SECRET)
    kinds = {
        "link": lambda path: os.symlink("../secret.img", path),
        "absolute": lambda path: os.symlink(os.path.join(folder, "../secret.img"), path),
        "fifo": os.mkfifo,
        "device": lambda path: os.symlink("/dev/zero", path),
    }
    for name, wrong in kinds.items():
        image = Image(f"race-{name}", os.path.join(folder, "top.qcow2"),
                      qcow2(name=b"base.img", backing_format=b"raw"), b"\x5a" * SIZE, "qcow2",
                      commands=())
        image.cases = [Case(f"try {number}") for number in range(400)]
        with Swapping(base, lambda path: os.link(right, path), wrong):
            yield image
    # The same of a folder on the way.
    right = os.path.join(folder, "right")
    os.makedirs(os.path.join(folder, "..", "outside"))
    write(os.path.join(folder, "..", "outside", "base.img"), SECRET)
    write(os.path.join(right, "base.img"), b"\x5a" * SIZE)
    image = Image("race-folder", os.path.join(folder, "top.qcow2"),
                  qcow2(name=b"way/base.img", backing_format=b"raw"), b"\x5a" * SIZE, "qcow2",
                  commands=())
    image.cases = [Case(f"try {number}") for number in range(400)]
    with Swapping(os.path.join(folder, "way"), lambda path: os.symlink("right", path),
                  lambda path: os.symlink("../outside", path)):
        yield image


def deep_chain(folder):
    """A chain longer than any that is served."""
    folder = os.path.join(folder, "deep")
    write(os.path.join(folder, "0.qcow2"), qcow2())
    for number in range(1, 300):
        write(os.path.join(folder, f"{number}.qcow2"),
              qcow2(name=b"%d.qcow2" % (number - 1), backing_format=b"qcow2"))
    image = Image("deep", os.path.join(folder, "top.qcow2"), qcow2(), bytes(SIZE), "qcow2",
                  commands=COMMANDS[:1])
    for number in (299, 256, 255):
        image.change(f"over {number}", (0, header(name=b"%d.qcow2" % number, backing_format=b"qcow2")),
                     rule=REFUSED)
    image.change("over 200", (0, header(name=b"200.qcow2", backing_format=b"qcow2")))
    return image


def images(folder):
    os.makedirs(folder)
    surroundings(folder)
    yield hostile_names(folder)
    yield from races(folder)
    yield deep_chain(folder)
