"""What underlay-img map's options mean, what it does with damage, and that it does not keep what it
tells."""
import json
import re
import signal
import struct
import subprocess

import harness
from img_lab import MIB, interrupted, l2_tables, patch
from nbd_servers import nbdkit


def without_our_fields(entries):
    ours = ("compressed", "filename", "version")
    return [{key: value for key, value in entry.items() if key not in ours} for entry in entries]


def rule_a_range_is_qemu_imgs(lab):
    image = lab.qcow2("a.qcow2", 8 * MIB, "write 1M 70k", "write -z 3M 1M", "write 7M 1M")
    for options in (["--start-offset=1M"], ["-s", "1100000", "-l", "64k"], ["-s", "1.5M"],
                    ["--max-length", "0x100"], ["-s8M"], ["-s", "9M"], ["-l0"],
                    ["--start-offset", "7M", "--max-length", "7E"]):
        ours = lab.json("map", "--output=json", "-f", "qcow2", *options, image)
        theirs = subprocess.run(["qemu-img", "map", "--output=json", "-f", "qcow2", *options, image],
                                check=True, capture_output=True)
        assert without_our_fields(ours) == json.loads(theirs.stdout), (options, ours, theirs)


def rule_a_range_that_is_none_is_refused(lab):
    image = lab.raw("a.img", MIB)
    for options in (["-s", "-1"], ["-s", "x"], ["-l", "1Q"], ["-l", ""], ["-s", "99999999999E"]):
        assert "--" in lab.run("map", "-f", "raw", *options, image).stderr
        assert lab.run("map", "-f", "raw", *options, image).status == 1


def rule_an_unknown_output_is_refused(lab):
    done = lab.run("map", "-f", "raw", "--output=gif", lab.raw("a.img", MIB))
    assert done.status == 1 and not done.stdout, done
    assert "human, json, svg or png" in done.stderr, done


def rule_an_empty_disk_has_one_entry_of_no_length(lab):
    entries = lab.json("map", "-f", "raw", "--output=json", lab.raw("a.img", 0))
    assert [(entry["start"], entry["length"]) for entry in entries] == [(0, 0)], entries


def rule_an_export_is_mapped_as_its_server_says(lab):
    image = lab.qcow2("a.qcow2", 8 * MIB, "write 1M 64k", "write -z 3M 1M", "write 7M 1M")
    path = lab.path("socket")
    with harness.start(["qemu-nbd", "-r", "-t", "-f", "qcow2", "-k", path, image], path):
        uri = harness.uri(path)
        ours = lab.json("map", "--output=json", uri)
        theirs = subprocess.run(["qemu-img", "map", "--output=json", "-f", "raw", uri], check=True,
                                capture_output=True)
    assert [entry["filename"] for entry in ours] == [uri] * len(ours), ours
    assert without_our_fields(ours) == json.loads(theirs.stdout), (ours, theirs)


def rule_an_external_data_file_is_named_as_by_qemu_img(lab):
    image = lab.qcow2("a.qcow2", 4 * MIB, "write 64k 128k", "write -z 1M 64k", "write 3M 64k",
                      options="data_file=" + lab.path("a.data"))
    ours = lab.output("map", "-f", "qcow2", image).decode()
    theirs = subprocess.run(["qemu-img", "map", "-f", "qcow2", image], check=True, capture_output=True,
                            text=True).stdout
    assert ours == theirs and ours.count(lab.path("a.data")) == 2, (ours, theirs)


def rule_damage_ends_the_map_behind_what_is_told(lab):
    image = lab.qcow2("a.qcow2", 8 * MIB, "write 0 8M")
    # A reserved bit in the entry of the cluster at 4 MiB.
    entry = l2_tables(image)[0] + 8 * 64
    patch(image, entry, b"\x80\x00\x00\x00\x00\x50\x00\x02")
    done = lab.run("map", "-f", "qcow2", "--output=json", image)
    assert done.status == 1 and len(done.stderr.splitlines()) == 1, done
    assert "reserved bits" in done.stderr and str(entry) in done.stderr, done
    lines = done.stdout.decode().splitlines()
    assert not lines[-1].endswith("]"), lines
    told = json.loads("".join(lines) + "]")
    assert told[-1]["start"] + told[-1]["length"] == 4 * MIB, told
    for output in ("svg", "png"):
        done = lab.run("map", "-f", "qcow2", f"--output={output}", image)
        assert done.status == 1 and not done.stdout, done


def rule_who_interrupts_is_told_how_far_it_got(lab):
    """What was mapped by then is what is told."""
    size = 1 << 40
    with nbdkit("--filter=delay", "memory", str(size), "delay-extents=50ms") as server:
        status, out, errors = interrupted([lab.program, "map", "--output=json", "-f", "raw",
                                           server.uri])
    assert status == -signal.SIGINT, (status, out)
    told = re.fullmatch(rf"underlay-img: interrupted: (\d+) of {size} bytes mapped\n", errors)
    assert told and 0 < int(told[1]) < size, errors
    entries = json.loads(out + "]")
    assert sum(entry["length"] for entry in entries) == int(told[1]), (out, errors)


def rule_memory_does_not_grow_with_the_map(lab):
    """Every second cluster is zeros: 8192 entries for each L2 table of 64 KiB."""
    image = lab.qcow2("a.qcow2", 16 << 30, *(f"write {i << 29} 64k" for i in range(32)))
    small = lab.qcow2("small.qcow2", 16 << 30)
    for table in l2_tables(image):
        patch(image, table, struct.pack(">QQ", 0, 1) * 4096)
    entries = lab.output("map", "-f", "qcow2", "--output=json", image)
    assert len(json.loads(entries)) == 32 * 8192 and len(entries) > 30 * MIB, len(entries)
    for output in ("human", "json", "svg", "png"):
        options = ("map", "-f", "qcow2", f"--output={output}")
        peak, lean = (lab.peak_bytes(*options, of) for of in (image, small))
        assert lab.sanitized or peak < lean + 8 * MIB, (output, peak, lean)
