"""Rules of image files that change while they are served: never a mixture, never made-up zeros."""
import os
import time

import nbd_client as nbd
from program_rules import (MIB, check, connect, expect, go_result, make_image, qemu_img,
                           served_contents, wait_for)

NOTICED_SECONDS = 3


def fails(connection):
    return connection.read(0, 512).error == nbd.EIO


def check_change_is_noticed(lab, format_name, change):
    path, contents = make_image(lab, format_name)
    with lab.serve("-f", format_name, "-e", "4", path) as server:
        with connect(server) as simple, connect(server, structured=True) as structured:
            expect(simple.read(3 * MIB, 512).data, contents[3 * MIB:3 * MIB + 512], "contents")
            change(path)
            for connection in (simple, structured):
                wait_for(lambda: fails(connection), NOTICED_SECONDS, "EIO")
            # Reads fail first and the log is written then: a log that blocks must not let them go on.
            wait_for(lambda: path in server.stderr(), NOTICED_SECONDS, "a line in the log")
            lines = [line for line in server.stderr().splitlines() if path in line]
            check(len(lines) == 1 and "fail from now on" in lines[0], f"log: {lines}")
            # The connection stays usable for what needs no image.
            expect(simple.command_error(nbd.CMD_FLUSH), 0, "FLUSH")
        with connect(server) as newcomer:
            check(fails(newcomer), "a newcomer reads the changed image")


def rule_under_hold_reads_of_a_changed_image_wait_and_are_never_answered(lab):
    for change in (overwrite, lambda path: os.truncate(path, 2 * MIB)):
        path, contents = make_image(lab, "raw")
        with lab.serve("--on-error=hold", "-f", "raw", path) as server:
            with connect(server) as connection:
                expect(connection.read(3 * MIB, 512).data, contents[3 * MIB:3 * MIB + 512], "contents")
                change(path)
                wait_for(lambda: "fail from now on" in server.stderr(), NOTICED_SECONDS, "a log line")
                connection.send_request(nbd.CMD_READ, 3 * MIB, 512)
                connection.expect_silence(2)
                check("is held until it can be answered" in server.stderr(), "it does not say so")
                # Whoever connects to the next server may ask again.
                server.terminate()
                connection.expect_closed()


def append(path):
    with open(path, "ab") as out:
        out.write(bytes(512))


def overwrite(path):
    with open(path, "r+b") as out:
        out.seek(3 * MIB)
        out.write(b"new" * 100)


def rule_an_image_that_is_written_to_fails_loudly(lab):
    check_change_is_noticed(lab, "qcow2", append)
    check_change_is_noticed(lab, "raw", overwrite)


def rule_a_backing_file_that_is_written_to_fails_loudly(lab):
    base, _ = make_image(lab, "raw")
    top = lab.path("top")
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top)
    with lab.serve("-f", "qcow2", top) as server:
        with connect(server) as connection:
            check(not fails(connection), "the chain is served")
            overwrite(base)
            wait_for(lambda: fails(connection), NOTICED_SECONDS, "EIO")
            wait_for(lambda: base in server.stderr(), NOTICED_SECONDS, "a line in the log")


def rule_a_file_that_is_replaced_by_rename_is_served_on(lab):
    path, contents = make_image(lab, "raw", seed=1)
    other, other_contents = make_image(lab, "raw", seed=2)
    with lab.serve("-f", "raw", "-e", "2", path) as server:
        os.rename(other, path)
        wait_for(lambda: "is another file now" in server.stderr(), NOTICED_SECONDS, "a warning")
        expect(served_contents(server) == contents, True, "the old contents")
    with lab.serve("-f", "raw", path) as server:
        expect(served_contents(server) == other_contents, True, "the new contents")


def rule_a_file_of_a_folder_that_is_replaced_is_new_for_newcomers(lab):
    folder = lab.path("images")
    os.mkdir(folder)
    path = os.path.join(folder, "disk")
    first, first_contents = make_image(lab, "qcow2", seed=1)
    second, second_contents = make_image(lab, "qcow2", seed=2)
    os.rename(first, path)
    with lab.serve("--directory", folder, "-e", "4") as server:
        with connect(server, "disk") as old:
            old.read(2 * MIB, 512)
            os.rename(second, path)
            with connect(server, "disk") as new:
                for offset in (2 * MIB, 3 * MIB, 4 * MIB - 512):
                    for connection, contents in ((old, first_contents), (new, second_contents)):
                        expect(connection.read(offset, 512).data == contents[offset:offset + 512],
                               True, "contents")


def rule_a_truncated_file_gives_errors_and_no_zeros(lab):
    for format_name in ("raw", "qcow2", "vpc", "vmdk"):
        path, contents = make_image(lab, format_name)
        with lab.serve("-f", format_name, "-e", "4", path) as server:
            with connect(server, structured=True) as connection:
                os.truncate(path, os.path.getsize(path) - MIB)
                failed = 0
                for offset in range(2 * MIB, 4 * MIB, 65536):
                    answer = connection.read(offset, 65536)
                    if answer.error:
                        expect(answer.error, nbd.EIO, f"{format_name}: error")
                        failed += 1
                    else:
                        check(answer.data == contents[offset:offset + 65536],
                              f"{format_name}: wrong bytes at {offset}")
                check(failed >= 15, f"{format_name}: only {failed} reads failed")
                wait_for(lambda: fails(connection), NOTICED_SECONDS, "EIO")
            check(isinstance(go_result(server, ""), nbd.Export), "the server lives")


def rule_a_file_that_is_removed_is_served_on(lab):
    path, contents = make_image(lab, "vmdk")
    with lab.serve("-f", "vmdk", path) as server:
        os.unlink(path)
        time.sleep(1.2)
        expect(served_contents(server) == contents, True, "contents")
