"""What a value or an operand may be: the one thing that --help does not tell a program."""
import re
from typing import NamedTuple

IMAGE_FORMATS = ("raw", "qcow2", "vpc", "vhd", "vhdx", "vmdk", "vdi", "qcow")
OUTPUTS = ("human", "json")


class Kind(NamedTuple):
    what: str         # "file", "folder", "named file" (NAME=PATH), "volume", "pool", "words", "text"
    words: tuple = () # of "words"


FILE, FOLDER, NAMED_FILE = Kind("file"), Kind("folder"), Kind("named file")
VOLUME, POOL, TEXT = Kind("volume"), Kind("pool"), Kind("text")

# Of options and operands, by (command, option), or by the option alone.
FIXED = {
    ("map", "output"): ("human", "json", "svg", "png"),
    "target-format": ("raw", "qcow2", "vpc", "vhd", "vmdk"),
    ("digest", "algorithm"): ("sha1", "sha224", "sha256", "sha384", "sha512"),
    ("bench", "cache"): ("writeback", "writethrough", "unsafe"),
    ("bench", "aio"): ("threads", "io_uring"),
    ("ctl", "COMMAND"): ("exports", "clients", "add", "remove", "drain", "reload", "status",
                         "statistics", "cache", "log-level"),
    "output": OUTPUTS,
    "format": IMAGE_FORMATS,
    "b-format": IMAGE_FORMATS,
    "backing-format": IMAGE_FORMATS,
    "log": ("auto", "stderr", "journal"),
    "reader": ("own", "libyal"),
    "direct": ("auto", "always", "never"),
    "discards": ("ignore", "unmap"),
    "target-cache": ("unsafe", "none", "writeback", "writethrough", "directsync"),
    "cache": ("none", "writeback", "writethrough", "directsync", "unsafe"),
    "aio": ("threads", "native", "io_uring"),
    "prefetch": ("all", "boot"),
    "discard": ("ignore", "unmap"),
    "detect-zeroes": ("off", "on", "unmap"),
}
# By what --help calls the value of an option, or an operand.
NAMED = {
    "FILE": FILE, "IMAGE": FILE, "PATH": FILE, "DEV": FILE, "PROGRAM": FILE, "TREE": FILE,
    "TARGET": FILE,
    "DIR": FOLDER, "POOL": POOL, "CHILD=PATH": NAMED_FILE, "NAME=IMAGE": NAMED_FILE,
}
NEW_NAMES = {"pool create", "create", "import"}  # NAME is none that there is


def of_option(command, option):
    words = FIXED.get((command.name, option.name)) or FIXED.get(option.name)
    return Kind("words", words) if words else NAMED.get(option.value, TEXT)


def of_operand(command, operand):
    if operand == "NAME" and command.name not in NEW_NAMES:
        return POOL if command.words[0] == "pool" else VOLUME
    if words := FIXED.get((command.name, operand)):
        return Kind("words", words)
    return NAMED.get(re.sub(r"\d+$", "", operand), TEXT)
