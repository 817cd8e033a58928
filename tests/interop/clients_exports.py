"""Rules of what is exported: several images, folders, offsets, files that images name."""
import os
import struct

import harness
import nbd_client as nbd
from clients_lab import MIB, check_read, connect, run, unix_uri
from protocol_rules import check, expect


def listed(server):
    """The names that LIST gives."""
    with nbd.Connection(server.socket) as connection:
        connection.greeting()
        replies = connection.option(nbd.OPT_LIST)
        return [reply.data[4:4 + struct.unpack(">I", reply.data[:4])[0]].decode()
                for reply in replies[:-1]]


def refusal(server, name):
    """The error that INFO and GO give for `name`."""
    kinds = set()
    for option in (nbd.OPT_INFO, nbd.OPT_GO):
        with nbd.Connection(server.socket) as connection:
            connection.greeting()
            kinds.add(connection.info(option, name))
    check(len(kinds) == 1, f"INFO and GO of {name!r} differ: {kinds}")
    return kinds.pop()


def rule_exports_have_any_name_beside_the_default(lab):
    exports = {name: lab.raw(f"{seed}.raw", seed=seed) for seed, name in
               enumerate(["", "db", "two words", "a/b c/d", "\u00e4"])}
    words = [word for name, (path, _) in exports.items() if name
             for word in ("--export", f"{name}={path}")]
    with lab.serve("-e", "8", "-f", "raw", *words, exports[""][0]) as server:
        expect(sorted(listed(server)), sorted(exports), "names")
        for name, (_, contents) in exports.items():
            lab.check_copy(unix_uri(server, name), contents)
        for name in ("a/b c", "two", "DB", "db "):
            expect(refusal(server, name), nbd.ERR_UNKNOWN, f"name {name!r}")
    with lab.serve("-e", "8", "-f", "raw", *words) as server:
        expect(refusal(server, ""), nbd.ERR_UNKNOWN, "the default export, which nothing names")


def rule_an_export_name_stands_for_one_image(lab):
    image, _ = lab.raw("disk.raw")
    status, _, errors = harness.run([lab.program, "-k", lab.path("socket"), "-f", "raw",
                                     "--export", f"a={image}", "--export", f"a={image}"])
    expect(status, 2, "exit status")
    check("\"a\"" in errors and errors.count("\n") <= 2, errors)


def rule_a_folder_is_exported_image_by_image(lab):
    images = {name: lab.image("folder", name, seed=seed)
              for seed, name in enumerate(["one.qcow2", "two words.qcow2"])}
    lab.image("folder", ".hidden.qcow2")
    lab.image("folder", "sub", "inner.qcow2")
    lab.image("outside.qcow2")  # for the name "../outside.qcow2"
    broken, _ = lab.image("folder", "broken.qcow2")
    with open(broken, "r+b") as file:
        file.truncate(60)
    os.symlink("one.qcow2", lab.path("folder", "link.qcow2"))
    images["link.qcow2"] = images["one.qcow2"]
    os.symlink("nowhere", lab.path("folder", "dangling.qcow2"))
    with lab.serve("-e", "8", "--directory", lab.path("folder")) as server:
        expect(listed(server), sorted([*images, "broken.qcow2"]), "names")
        with connect(server, "one.qcow2") as before:
            expect(refusal(server, "broken.qcow2"), nbd.ERR_PLATFORM, "broken.qcow2")
            check("broken.qcow2" in server.stderr(), "the log does not tell why")
            check_read(before, images["one.qcow2"][1], 12345, 70000)
        for name, (_, contents) in images.items():
            lab.check_copy(unix_uri(server, name), contents)
        for name in ("", ".", "..", ".hidden.qcow2", "../outside.qcow2", "sub/inner.qcow2",
                     "./one.qcow2", lab.path("folder", "one.qcow2"), "gone.qcow2",
                     "dangling.qcow2"):
            expect(refusal(server, name), nbd.ERR_UNKNOWN, f"name {name!r}")
        expect(refusal(server, "sub"), nbd.ERR_PLATFORM, "a folder in the folder")


def folder_with_a_link_out(lab):
    """The folder, and what the image has that the link in it leads to."""
    lab.image("folder", "one.qcow2")
    _, contents = lab.image("outside", "two.qcow2", seed=2)
    os.symlink("../outside/two.qcow2", lab.path("folder", "link.qcow2"))
    return lab.path("folder"), contents


def rule_links_out_of_the_folder_are_served_only_with_allow_path(lab):
    folder, contents = folder_with_a_link_out(lab)
    with lab.serve("--directory", folder) as server:
        expect(refusal(server, "link.qcow2"), nbd.ERR_PLATFORM, "the link")
        check("--allow-path DIR" in server.stderr(), "the log does not say what to do")
    with lab.serve("--directory", folder, "--allow-path", lab.path("outside")) as server:
        lab.check_copy(unix_uri(server, "link.qcow2"), contents)


def rule_links_out_of_the_folder_are_not_listed(lab):
    folder, _ = folder_with_a_link_out(lab)
    with lab.serve("--directory", folder) as server:
        expect(listed(server), ["one.qcow2"], "names")


def refused_without_allow_path(lab, image, *options):
    status, _, errors = harness.run([lab.program, "-k", lab.path("socket"), *options, image])
    expect(status, 1, f"exit status of {image}")
    check(errors.count("\n") == 1 and "--allow-path DIR" in errors and image in errors, errors)


def served_only_with_allow_path(lab, image, format_name, contents):
    """What `image` names lies in the folder "outside"."""
    options = ["-f", format_name]
    refused_without_allow_path(lab, image, *options)
    os.makedirs(lab.path("elsewhere", ""), exist_ok=True)
    refused_without_allow_path(lab, image, *options, "--allow-path", lab.path("elsewhere"))
    with lab.serve(*options, "--allow-path", lab.path("elsewhere"), "--allow-path",
                   lab.path("outside"), image) as server:
        lab.check_copy(unix_uri(server), contents)


def rule_backing_files_outside_the_folder_need_allow_path(lab):
    base, contents = lab.raw("outside", "base.raw")
    for number, name in enumerate((base, "../outside/base.raw")):
        top = lab.path("inside", f"{number}.qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", name, "-F", "raw", top)
        served_only_with_allow_path(lab, top, "qcow2", contents)


def rule_data_files_outside_the_folder_need_allow_path(lab):
    raw, contents = lab.raw("source.raw")
    top = lab.path("inside", "top.qcow2")
    run("qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", "-o",
        "data_file=" + lab.path("outside", "top.data"), raw, top)
    served_only_with_allow_path(lab, top, "qcow2", contents)


def rule_vmdk_extents_outside_the_folder_need_allow_path(lab):
    flat, contents = lab.raw("outside", "flat.bin")
    for number, name in enumerate((flat, "../outside/flat.bin")):
        descriptor = lab.path("inside", f"{number}.vmdk")
        with open(descriptor, "w", encoding="utf-8") as out:
            out.write("# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
                      f'createType="monolithicFlat"\nRW {len(contents) // 512} FLAT "{name}" 0\n')
        served_only_with_allow_path(lab, descriptor, "vmdk", contents)


def rule_an_offset_gives_the_size_and_contents_that_qemu_nbd_gives(lab):
    image, contents = lab.raw("disk.raw", size=MIB)
    for offset in (0, 5, 512, 513, MIB - 1):
        arguments = ["-r", "-o", str(offset), "-f", "raw", image]
        with harness.serve(arguments, program="qemu-nbd") as qemu, connect(qemu) as connection:
            size = connection.export.size
        shown = contents[offset:] + bytes(offset % 512)
        expect(size, len(shown), f"size that qemu-nbd gives with -o {offset}")
        with lab.serve(*arguments) as server, connect(server) as connection:
            expect(connection.export.size, size, f"size with -o {offset}")
            check_read(connection, shown, max(0, size - 4096), min(size, 4096))
