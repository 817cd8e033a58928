"""Which files of a folder a program opens: inotify(7) tells."""
import ctypes
import os
import struct

IN_OPEN = 0x20
IN_ISDIR = 0x40000000
EVENT = struct.Struct("iIII")

libc = ctypes.CDLL(None, use_errno=True)


class OpenedFiles:
    """Within the block, what is opened beneath `folder` (folders excepted) is noted in `paths`."""

    def __init__(self, folder):
        self.paths = set()
        self._folder = folder
        self._watched = {}  # by the kernel's number of the watch

    def __enter__(self):
        self._fd = checked(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        for folder, _, _ in os.walk(self._folder):
            name = os.fsencode(folder)
            self._watched[checked(libc.inotify_add_watch(self._fd, name, IN_OPEN))] = name
        return self

    def __exit__(self, *_):
        try:
            while True:
                self._take(os.read(self._fd, 1 << 16))
        except BlockingIOError:
            os.close(self._fd)

    def _take(self, events):
        at = 0
        while at < len(events):
            watch, mask, _, length = EVENT.unpack_from(events, at)
            assert watch in self._watched, "too many events"
            name = events[at + EVENT.size:at + EVENT.size + length].rstrip(b"\0")
            if not mask & IN_ISDIR:
                self.paths.add(os.fsdecode(os.path.join(self._watched[watch], name)))
            at += EVENT.size + length


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
