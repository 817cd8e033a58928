"""underlay-nbd under nbd-client, and a thin volume that dmsetup makes on that: no underlay-thin."""
import contextlib

from guest import MIB, PROGRAMS, WORK, must, started, wait_for, write_at

POOL_DATA, POOL_METADATA = "/dev/ram0", "/dev/ram1"
SECTOR = 512


@contextlib.contextmanager
def attached(one, *client_options, server_options=(), log=None, device="/dev/nbd0"):
    """(the device of the template, the server). `log`: a file for the server's messages."""
    socket = WORK / "socket"
    with started(PROGRAMS / "underlay-nbd", "-t", "-k", socket, "-f", one.format, *server_options,
                 one.path, log=log) as server:
        wait_for(socket.exists, "the server listens", 10)
        must("nbd-client", "-unix", socket, device, *client_options)
        yield device, server
        must("nbd-client", "-d", device)
    socket.unlink()  # the next server's is another


def thin_on(origin, size, name="volume"):
    """A thin volume of `size` bytes with an external origin, in a new pool."""
    write_at(POOL_METADATA, 0, bytes(4096))
    must("dmsetup", "create", "pool", "--table",
         f"0 {128 * MIB // SECTOR} thin-pool {POOL_METADATA} {POOL_DATA} 128 0")
    must("dmsetup", "message", "pool", "0", "create_thin 0")
    must("dmsetup", "create", name, "--table",
         f"0 {size // SECTOR} thin /dev/mapper/pool 0 {origin}")
    return f"/dev/mapper/{name}"


def remove_thin(name="volume"):
    must("dmsetup", "remove", name)
    must("dmsetup", "remove", "pool")
