#!/usr/bin/python3
"""Uncompressed data of an image is read from its file by the kernel alone: equal contents, no
request to the server, and faster."""
import re
import statistics

import guest
from guest import (MIB, WORK, check, create, equal, mounted, nbd_reads, pool, same_contents,
                   scenario, started, template, thin)

UNCOMPRESSED = ["plain.qcow2", "chain.qcow2", "dynamic.vhd", "differencing.vhd", "sparse.vmdk"]
HYBRID = "chain-on-compressed.qcow2"
COMPRESSED = ["compressed.qcow2", "stream.vmdk"]
BLOCK = 4096
RUNS = 5


def origin_of(volume):
    return thin("status", volume)["origin"]


@scenario
def uncompressed_images_cause_no_request():
    with pool():
        for name in UNCOMPRESSED:
            one = template(name)
            device = create("volume", one)
            before = nbd_reads()
            same_contents(device, one.raw)
            equal(nbd_reads(), before, f"nbd requests of {name}")
            origin = origin_of("volume")
            check(origin["direct"] > 0, f"{name}: nothing of it is direct")
            equal(origin["direct"] + origin["zero"], one.size, f"what of {name} needs no server")
            equal(origin["nbd"], None, f"the nbd device of {name}, which nobody needs")
            thin("remove", "volume")


@scenario
def a_partly_compressed_image_has_both():
    one = template(HYBRID)
    with pool():
        device = create("volume", one)
        origin = origin_of("volume")
        check(0 < origin["direct"] < one.size, f"direct: {origin['direct']}")
        check(origin["nbd"], f"the compressed rest needs nbd: {origin}")
        before = nbd_reads()
        same_contents(device, one.raw)
        check(nbd_reads() > before, "compressed data was read without a request")


@scenario
def never_means_all_through_the_server():
    with pool():
        for name in UNCOMPRESSED + [HYBRID]:
            one = template(name)
            device = create("volume", one, "--direct", "never")
            equal(origin_of("volume")["direct"], 0, f"direct, of {name}")
            before = nbd_reads()
            same_contents(device, one.raw)
            check(nbd_reads() > before, f"{name} was read without a request")
            thin("remove", "volume")


@scenario
def always_refuses_what_cannot_be_direct():
    with pool():
        for name in COMPRESSED:
            one = template(name)
            guest.thin_refuses("create", "volume", *one.image, "--pool", "pool", "--direct",
                               "always", words=[one.path])
            equal(thin("list")["volumes"], [], "volumes after a refusal")


@scenario
def a_volume_on_a_direct_map_is_written_and_activated_again():
    with pool():
        for name in ("chain.qcow2", "differencing.vhd", HYBRID):
            one = template(name)
            with mounted(create("volume", one)) as files:
                (files / "written").write_text(name)
            thin("deactivate", "--all")
            thin("activate", "--all")
            with mounted("/dev/mapper/volume") as files:
                equal((files / "written").read_text(), name, "written")
                equal((files / "marker").read_text(), "as in the template\n", "marker")
            thin("remove", "volume")


@scenario
def odd_sizes_are_direct_too():
    one = template("odd.qcow2")
    with pool():
        same_contents(create("volume", one, "--size", str(16 * MIB)), one.raw, 16 * MIB)


def direct_reads_per_second(device):
    """4 KiB reads past the page cache, one at a time, all over the device: the median of RUNS."""
    rates = []
    for _ in range(RUNS + 1):  # the first warms up
        # One write for many reads: a system call is most of what a fast read costs here.
        _, _, words = guest.run("dd", f"if={device}", "of=/dev/null", "ibs=4k", "obs=1M",
                                "iflag=direct")
        copied = re.search(r"(\d+) bytes.* copied, ([0-9.e-]+) s", words)
        rates.append(int(copied[1]) / BLOCK / float(copied[2]))
    return statistics.median(rates[1:])


def direct_reads_of_origin(one, mode):
    create("volume", one, "--direct", mode)
    origin = origin_of("volume")
    rate = direct_reads_per_second(origin["nbd"] or origin["device"])
    thin("remove", "volume")
    return rate


def direct_reads_of_qemu_nbd(one):
    socket = WORK / "qemu.sock"
    with started("qemu-nbd", "-r", "-t", "-f", one.format, "-k", socket, one.path):
        guest.wait_for(socket.exists, "qemu-nbd listens")
        device = thin("attach", f"nbd+unix:///?socket={socket}")["device"]
        rate = direct_reads_per_second(device)
        thin("detach", device)
    return rate


@scenario
def direct_reads_are_faster_than_through_a_server():
    one = template("plain.qcow2").copy()  # in memory, like a page cache that has it
    with pool():
        qemu = direct_reads_of_qemu_nbd(one)
        server = direct_reads_of_origin(one, "never")
        direct = direct_reads_of_origin(one, "always")
    print(f"    4 KiB direct reads a second, medians of {RUNS}: nbd with qemu-nbd {qemu:.0f}, with "
          f"underlay-nbd {server:.0f}, direct map {direct:.0f}: {direct / qemu:.1f} and "
          f"{direct / server:.1f} times", flush=True)
    check(direct / qemu >= 5, f"only {direct / qemu:.1f} times as fast as qemu-nbd")
    # The floor of a system call is what keeps it below 5: the server is that fast, too.
    check(direct / server >= 3, f"only {direct / server:.1f} times as fast as the server")


guest.main()
