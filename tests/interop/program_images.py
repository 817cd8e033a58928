"""Rules of images: bad ones are refused in one line, several are served side by side."""
import os
import struct

import nbd_client as nbd
from program_rules import (MIB, check, connect, expect, go_result, list_names, make_image, patched,
                           qemu_img, qemu_io, read_file, served_contents, wait_for, write_file)

U32_MAX, U64_MAX = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF


def be32(value):
    return struct.pack(">I", value)


def be64(value):
    return struct.pack(">Q", value)


def le32(value):
    return struct.pack("<I", value)


def le64(value):
    return struct.pack("<Q", value)


def sealed(data, start, length, checksum_at):
    """`data` with a new VHD checksum over the structure at `start`."""
    part = patched(data[start:start + length], checksum_at, bytes(4))
    return patched(data, start + checksum_at, be32(~sum(part) & U32_MAX))


def with_footer_field(data, offset, new):
    """A dynamic VHD with a changed field in both of its footers."""
    for start in (0, len(data) - 512):
        data = sealed(patched(data, start + offset, new), start, 512, 64)
    return data


def with_header_field(data, offset, new):
    """A dynamic VHD with a changed field in its dynamic disk header."""
    return sealed(patched(data, 512 + offset, new), 512, 1024, 36)


def bad_qcow2(data):
    fields = {
        "no magic": (0, b"QFJ\xfb"), "version": (4, be32(9)), "cluster_bits 0": (20, be32(0)),
        "cluster_bits 63": (20, be32(63)), "size": (24, be64(U64_MAX)),
        "crypt_method": (32, be32(1)), "l1_size": (36, be32(U32_MAX)), "l1_size 0": (36, be32(0)),
        "l1_table_offset": (40, be64(1 << 62)), "l1_table_offset unaligned": (40, be64(65537)),
        "backing_file": (8, be64(1 << 40) + be32(10)), "backing_file_size": (8, be64(200) +
                                                                               be32(U32_MAX)),
        "incompatible_features": (72, be64(1 << 40)), "header_length": (100, be32(U32_MAX)),
        "header_length odd": (100, be32(105)), "extension": (112, be32(0x12345678) + be32(U32_MAX)),
        "nb_snapshots": (60, be32(U32_MAX) + be64(65536)),
    }
    for name, (offset, new) in fields.items():
        # Snapshots matter where one is asked for.
        yield name, patched(data, offset, new), ["-l", "x"] if name == "nb_snapshots" else []


def bad_vpc(data):
    for name, offset, new in [("disk_type", 60, be32(9)), ("data_offset", 16, be64(1 << 62)),
                              ("data_offset none", 16, be64(U64_MAX)),
                              ("current_size", 48, be64(U64_MAX))]:
        yield name, with_footer_field(patched_size_from_footer(data), offset, new), []
    for name, offset, new in [("cookie", 0, b"cxsparsf"), ("table_offset", 16, be64(1 << 62)),
                              ("header_version", 24, be32(U32_MAX)),
                              ("max_table_entries", 28, be32(U32_MAX)),
                              ("max_table_entries 0", 28, be32(0)), ("block_size 0", 32, be32(0)),
                              ("block_size odd", 32, be32(3 << 20)),
                              ("block_size large", 32, be32(1 << 31))]:
        yield name, with_header_field(data, offset, new), []
    yield "header checksum", patched(data, 512 + 36, be32(1)), []
    yield "no footer", patched(patched(data, 0, bytes(512)), -512, bytes(512)), []


def patched_size_from_footer(data):
    """The size that counts is current_size, not the geometry: that of a creator "win "."""
    return with_footer_field(data, 28, b"win ")


def bad_vmdk(data):
    fields = {
        "no magic": (0, b"KDMW"), "version": (4, le32(99)), "flags": (8, le32(U32_MAX)),
        "capacity": (12, le64(U64_MAX)), "grain_size 0": (20, le64(0)),
        "grain_size odd": (20, le64(9)), "grain_size large": (20, le64(1 << 60)),
        "desc_offset": (28, le64(1 << 60)), "desc_size": (36, le64(U64_MAX)),
        "num_gtes 0": (44, le32(0)), "num_gtes": (44, le32(U32_MAX)),
        "gd_offset": (56, le64(1 << 60)), "gd_offset wraps": (56, le64((1 << 55) + 21)),
        "check bytes": (73, b"\n \n\n"), "compress_algorithm": (77, struct.pack("<H", 9)),
    }
    for name, (offset, new) in fields.items():
        yield name, patched(data, offset, new), []


BAD_FIELDS = {"qcow2": bad_qcow2, "vpc": bad_vpc, "vmdk": bad_vmdk}


def check_refused(lab, format_name, name, data, args=()):
    path = write_file(lab.path("bad image"), data)
    try:
        lab.refused("-f", format_name, *args, path, names=path)
    except AssertionError as error:
        raise AssertionError(f"{format_name}, {name}: {error}") from error


def rule_wrong_fields_are_refused_in_one_line(lab):
    for format_name, fields in BAD_FIELDS.items():
        for name, data, args in fields(read_file(make_image(lab, format_name)[0])):
            check_refused(lab, format_name, name, data, args)


def rule_cut_images_are_refused_in_one_line(lab):
    for format_name in BAD_FIELDS:
        data = read_file(make_image(lab, format_name)[0])
        for length in (0, 1, 3, 4, 71, 511, 512, 513, 1024, 1535):
            check_refused(lab, format_name, f"cut to {length} bytes", data[:length])


def rule_images_that_are_cut_in_their_data_are_refused_in_one_line(lab):
    for format_name in BAD_FIELDS:
        path, _ = make_image(lab, format_name)
        check_refused(lab, format_name, "cut in its data", read_file(path)[:-MIB - 512])


def rule_reads_of_what_a_huge_image_has_lost_fail(lab):
    """Tables that are too large to be looked at when the image is opened tell when they are read."""
    step, steps = 512 * MIB, 48
    for format_name in ("qcow2", "vmdk"):
        path = lab.path("huge")
        qemu_img("create", "-q", "-f", format_name, path, str(step * steps))
        writes = [f"write -q -P {number + 1} {number * step} 64k" for number in range(steps)]
        qemu_io(path, *writes, format_name=format_name)
        os.truncate(path, os.path.getsize(path) - 4096)
        with lab.serve("-f", format_name, path) as server:
            with connect(server) as connection:
                answers = [connection.read(number * step, 65536) for number in range(steps)]
            check(all(answer.error == nbd.EIO or answer.data == bytes([number + 1]) * 65536
                      for number, answer in enumerate(answers)), f"{format_name}: wrong bytes")
            failed = sum(answer.error == nbd.EIO for answer in answers)
            expect(failed, 1, f"{format_name}: reads that failed")
            wait_for(lambda: path in server.stderr(), 3, "a line in the log")


def rule_what_is_no_file_is_refused_in_one_line(lab):
    os.mkfifo(lab.path("fifo"))
    for path in (lab.path("fifo"), lab.folder, "/dev/null", lab.path("missing"),
                 lab.path("new\nline\x1b[2J")):
        lab.refused("-f", "raw", path, names=path.split("\n")[0])


# What each format's signs look like when something else about them is wrong.
def damaged_images(lab):
    yield "qcow2", patched(read_file(make_image(lab, "qcow2")[0]), 4, be32(9))
    dynamic = read_file(make_image(lab, "vpc")[0])
    yield "vpc", patched(patched(dynamic, 64, be32(1)), -512 + 64, be32(1))
    yield "vmdk", patched(read_file(make_image(lab, "vmdk")[0]), 4, le32(99))


def rule_damaged_images_are_not_guessed_raw_but_served_as_raw_when_asked(lab):
    for format_name, data in damaged_images(lab):
        path = write_file(lab.path("damaged"), data)
        line = lab.refused(path, names=path)
        check(format_name in line and "-f raw" in line, line)
        with lab.serve("-f", "raw", path) as server:
            served = served_contents(server)
        expect(served[:len(data)] == data, True, f"{format_name} served as raw")


def rule_raw_is_guessed_with_a_warning_and_stated_without(lab):
    path, contents = make_image(lab, "raw")
    with lab.serve(path) as server:
        expect(served_contents(server) == contents, True, "contents")
        check("warning" in server.stderr() and "-f raw" in server.stderr(), server.stderr())
    with lab.serve("-f", "raw", path) as server:
        expect(served_contents(server) == contents, True, "contents")
        expect(server.stderr(), "", "standard error")


def rule_other_formats_are_guessed_without_a_warning(lab):
    for format_name, options in [("qcow2", ()), ("vpc", ("-o", "subformat=fixed,force_size=on")),
                                 ("vpc", ("-o", "force_size=on")), ("vmdk", ())]:
        path, contents = make_image(lab, format_name, options)
        with lab.serve(path) as server:
            expect(served_contents(server) == contents, True, f"{format_name} {options}")
            expect(server.stderr(), "", "standard error")


def rule_two_exports_are_served_at_once(lab):
    first, first_contents = make_image(lab, "qcow2", seed=1)
    second, second_contents = make_image(lab, "qcow2", seed=2)
    with lab.serve("-e", "4", "-f", "qcow2", "--export", f"one={first}", "--export",
                   f"two={second}") as server:
        expect(list_names(server), ["one", "two"], "names")
        with connect(server, "one") as one, connect(server, "two") as two:
            for offset in range(2 * MIB, 3 * MIB, 70001):
                for connection, contents in ((one, first_contents), (two, second_contents)):
                    expect(connection.read(offset, 4096).data == contents[offset:offset + 4096],
                           True, "contents")
        expect(go_result(server, "three"), nbd.ERR_UNKNOWN, "a name that is none")


def rule_bad_images_of_a_folder_fail_for_their_clients_only(lab):
    folder = lab.path("images")
    os.mkdir(folder)
    good, contents = make_image(lab, "qcow2")
    os.rename(good, os.path.join(folder, "good"))
    write_file(os.path.join(folder, "bad"), be32(0x514649FB) + be32(9) + bytes(4096))
    qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", "gone", "-F", "raw",
             os.path.join(folder, "orphan"), "1M")
    os.symlink("/etc/passwd", os.path.join(folder, "outside"))
    os.mkfifo(os.path.join(folder, "fifo"))
    with lab.serve("-e", "4", "--directory", folder) as server:
        names = list_names(server)
        check({"good", "bad", "orphan"} <= set(names) and "fifo" not in names, f"names {names}")
        with connect(server, "good") as before:
            for name in ("bad", "orphan", "outside", "fifo"):
                expect(go_result(server, name), nbd.ERR_PLATFORM, name)
                check(f"/{name}" in server.stderr() or f'"{name}"' in server.stderr(),
                      f"the log does not name {name}: {server.stderr()}")
            for name in ("none", "", "..", "../images/good", "/etc/passwd", "x" * 4096):
                expect(go_result(server, name), nbd.ERR_UNKNOWN, repr(name))
            expect(before.read(2 * MIB, 4096).data == contents[2 * MIB:2 * MIB + 4096], True,
                   "the client that was there before")
        expect(served_contents(server, "good") == contents, True, "contents")
        # What comes into the folder later is served, too.
        os.rename(make_image(lab, "vmdk", seed=3)[0], os.path.join(folder, "later"))
        check("later" in list_names(server), "a new file is listed")
        check(go_result(server, "later").size == 4 * MIB, "a new file is served")


def rule_depths_of_a_chain_are_told(lab):
    base, middle, top = (lab.path(name) for name in ("base", "middle", "top"))
    qemu_img("create", "-q", "-f", "qcow2", base, "1M")
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", middle)
    qemu_img("create", "-q", "-f", "qcow2", "-b", middle, "-F", "qcow2", top)
    for path, offset in ((base, 0), (middle, 128), (top, 256)):
        qemu_io(path, f"write -q -P 7 {offset}k 64k")
    with lab.serve("-A", "-f", "qcow2", top) as server:
        with nbd.Connection(server.socket) as connection:
            connection.greeting()
            connection.negotiate_structured()
            ids = connection.set_contexts("", ["qemu:allocation-depth", "base:allocation"])
            expect(len(ids), 2, "contexts")
            connection.go()
            status = connection.command(nbd.CMD_BLOCK_STATUS, 0, MIB).status
    unit = 64 << 10
    rest = MIB - 5 * unit
    expect([tuple(pair) for pair in status[ids["qemu:allocation-depth"]]],
           [(unit, 3), (unit, 0), (unit, 2), (unit, 0), (unit, 1), (rest, 0)], "depths")
    expect([tuple(pair) for pair in status[ids["base:allocation"]]],
           [(unit, 0), (unit, 3), (unit, 0), (unit, 3), (unit, 0), (rest, 3)], "allocation")
