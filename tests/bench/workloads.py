"""What is measured, and what is wanted of it: a table."""
import collections
import itertools

from servers import NBDKIT, QEMU, UNDERLAY

FIO = "fio"
NBD_LOAD = "nbd-load"

# label: in reports; options: besides the usual ones
Contender = collections.namedtuple("Contender", "label server kind options", defaults=((),))

# metric: of measuring.METRICS. The ratio of ours to `peer` (a label), at least or at most `wanted`.
Target = collections.namedtuple("Target", "metric peer at_least wanted")

# contenders: ours first. range_bytes: at the image's front; None: all data. operations: instead of
# a time. cold: not in the page cache. discard: the client drops payload in the kernel.
# needs: an option that underlay-nbd must have.
Workload = collections.namedtuple(
    "Workload", "name contenders size depth sequential connections batch transport range_bytes "
    "operations cold discard client quick needs targets",
    defaults=(False, 1, False, "unix", None, None, False, False, NBD_LOAD, False, None, ()))

KIB = 1 << 10
MIB = 1 << 20
COLD_OPERATIONS = 30000  # an eighth of a template of 1 GiB: most stays cold until the end

UNCOMPRESSED = ("raw", "qcow2", "vhd", "vhdx", "vmdk")
MAIN = ("raw", "qcow2")  # where every format would tell the same
SPARSE_VMDK = "vmdk"
QUICK = ("qcow2",)


def at_least(ratio, peer=QEMU, metric="iops"):
    return Target(metric, peer, True, ratio)


def at_most(ratio, peer, metric):
    return Target(metric, peer, False, ratio)


def beside_peers(kind, options=()):
    """nbdkit serves the raw template, whatever we serve."""
    return (Contender(UNDERLAY, UNDERLAY, kind, options), Contender(QEMU, QEMU, kind),
            Contender(NBDKIT, NBDKIT, "raw"))


def beside_qemu(kind):
    return (Contender(UNDERLAY, UNDERLAY, kind), Contender(QEMU, QEMU, kind))


def small_random():
    cpu = (at_most(1 / 6, QEMU, "cpu_us_per_operation"),
           at_most(1 / 2, NBDKIT, "cpu_us_per_operation"))
    latency = (at_most(0.55, QEMU, "median_us"), at_most(1, NBDKIT, "median_us"))
    for kind in UNCOMPRESSED:
        yield Workload(f"unix/4k-random-q1/{kind}", beside_peers(kind), 4 * KIB, 1,
                       quick=kind in QUICK, targets=latency)
    for kind in MAIN:
        yield Workload(f"unix/4k-random-q1-poll50/{kind}", beside_peers(kind, ("--poll", "50")),
                       4 * KIB, 1, needs="--poll",
                       targets=(at_most(0.4, QEMU, "median_us"),))
    for kind in UNCOMPRESSED:
        wanted = at_least(18 if kind == SPARSE_VMDK else 6)
        yield Workload(f"unix/4k-random-q32/{kind}", beside_peers(kind), 4 * KIB, 32,
                       quick=kind in QUICK, targets=(wanted, at_least(2, NBDKIT), *cpu))
    for kind in MAIN:
        yield Workload(f"unix/4k-random-q32-4conn/{kind}", beside_peers(kind), 4 * KIB, 32,
                       connections=4, targets=(at_least(6), at_least(2, NBDKIT)))
    for kind, connections in itertools.product(MAIN, (1, 4)):
        suffix = "" if connections == 1 else f"-{connections}conn"
        yield Workload(f"unix/4k-random-q128-batch{suffix}/{kind}", beside_peers(kind),
                       4 * KIB, 128, connections=connections, batch=True, targets=(at_least(8),),
                       quick=kind in QUICK and connections == 1)


def both_clients(workload):
    """Targets are judged where the client's copy of the payload does not limit; the client that
    copies it is shown beside that."""
    name, _, kind = workload.name.rpartition("/")
    yield workload._replace(name=f"{name}-discard/{kind}", discard=True)
    yield workload._replace(quick=False, targets=())


def large():
    for kind in UNCOMPRESSED:
        yield from both_clients(Workload(
            f"unix/64k-random-q16/{kind}", beside_peers(kind), 64 * KIB, 16, quick=kind in QUICK,
            targets=(at_least(4), at_least(2, NBDKIT), at_most(1 / 3, NBDKIT, "cpu_s_per_gib"))))
    for kind in UNCOMPRESSED:
        yield from both_clients(Workload(
            f"unix/256k-sequential-q8/{kind}", beside_peers(kind), 256 * KIB, 8, sequential=True,
            quick=kind in QUICK, targets=(at_least(3), at_least(2, NBDKIT))))


def tcp():
    for kind in MAIN:
        peers = beside_peers(kind)
        yield Workload(f"tcp/4k-random-q1/{kind}", peers, 4 * KIB, 1, transport="tcp")
        yield Workload(f"tcp/4k-random-q32/{kind}", peers, 4 * KIB, 32, transport="tcp",
                       quick=kind in QUICK, targets=(at_least(2.2), at_least(1.4, NBDKIT)))
        # The client that copies receives many replies at once, and is the faster one here.
        yield Workload(f"tcp/64k-random-q16/{kind}", peers, 64 * KIB, 16, transport="tcp",
                       targets=(at_least(2.5), at_least(1.2, NBDKIT)))
        yield from both_clients(Workload(
            f"tcp/256k-sequential-q8/{kind}", peers, 256 * KIB, 8, transport="tcp",
            sequential=True, targets=(at_least(3.5), at_least(1.7, NBDKIT))))


def compressed():
    # kind: inside the cache, far beyond it, sequential
    wanted = {"qcow2-zlib": (30, 2.5, 2), "qcow2-zstd": (12, 1.5, None),
              "vmdk-stream": (50, 2.5, 8)}
    for kind, (inside, beyond, sequential) in wanted.items():
        peers = beside_qemu(kind)
        yield Workload(f"unix/4k-random-q32-in-cache/{kind}", peers, 4 * KIB, 32,
                       range_bytes=32 * MIB, quick=kind == "qcow2-zstd",
                       targets=(at_least(inside),))
        yield Workload(f"unix/4k-random-q32-beyond-cache/{kind}", peers, 4 * KIB, 32,
                       targets=(at_least(beyond),))
        yield Workload(f"unix/256k-sequential-q8/{kind}", peers, 256 * KIB, 8, sequential=True,
                       targets=(at_least(sequential),) if sequential else ())


def chains():
    one = f"{UNDERLAY}, chain of 1"
    for length in (4, 16):
        contenders = (Contender(UNDERLAY, UNDERLAY, f"chain-{length}"),
                      Contender(one, UNDERLAY, "chain-1"),
                      Contender(QEMU, QEMU, f"chain-{length}"))
        yield Workload(f"unix/4k-random-q32/chain-{length}", contenders, 4 * KIB, 32,
                       targets=(at_least(0.9, one),) if length == 16 else ())


def threads():
    """Two ring threads beside one: how throughput grows, as far as the client leaves them cores."""
    for connections in (2, 4):
        contenders = (Contender(UNDERLAY, UNDERLAY, "qcow2", ("--threads", "2")),
                      Contender(f"{UNDERLAY}, 1 thread", UNDERLAY, "qcow2", ("--threads", "1")),
                      Contender(QEMU, QEMU, "qcow2"), Contender(NBDKIT, NBDKIT, "raw"))
        yield Workload(f"unix/4k-random-q32-{connections}conn-2threads/qcow2", contenders,
                       4 * KIB, 32, connections=connections, needs="--threads")


def cold():
    for kind in MAIN:
        yield Workload(f"unix/4k-random-q32-cold/{kind}", beside_peers(kind), 4 * KIB, 32,
                       operations=COLD_OPERATIONS, cold=True,
                       targets=(at_least(4), at_least(2, NBDKIT)))


def second_opinion():
    yield Workload("fio/4k-random-q32/qcow2", beside_peers("qcow2"), 4 * KIB, 32, client=FIO)
    yield Workload("fio/64k-random-q16/qcow2", beside_peers("qcow2"), 64 * KIB, 16, client=FIO)


def all_workloads():
    return [*small_random(), *large(), *compressed(), *tcp(), *chains(), *threads(), *cold(),
            *second_opinion()]


# Huge sparse disks: how long from the server's start to the first byte, and the memory after many
# reads. Limits are absolute here.
Scale = collections.namedtuple("Scale", "name kind reads depth quick first_byte_ms "
                               "memory_beyond_caches_mib")
CACHES_MIB = 64 + 32  # --cluster-cache and --table-cache, as they are by default


def all_scales():
    return [Scale(f"scale/{kind}", kind, 100_000, 32, kind == "vhd-2040G", 20, 64)
            for kind in ("qcow2-64T", "vhd-2040G")]


# Connections that are open and say nothing: what they add to a server.
Idle = collections.namedtuple("Idle", "name kind connections quick")


def all_idle():
    return [Idle("idle/1000-connections", "raw", 1000, True)]
