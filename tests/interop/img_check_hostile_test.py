#!/usr/bin/python3
"""underlay-img check of images whose tables are large, and wrong in each of their millions of entries,
takes seconds and less than 256 MiB of memory; it counts all of them, and tells the first 1000.

usage: img_check_hostile_test.py UNDERLAY_IMG
"""
import json
import os
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "images"))
import vhd_builder  # noqa: E402
import vhdx_builder  # noqa: E402
import vmdk_builder  # noqa: E402

MIB = 1 << 20
TIB = 1 << 40
MAX_SECONDS = 10  # wording each finding took 13 and 20, counting them takes 1
MAX_RESIDENT = 256 * MIB
MAX_TOLD = 1000
CORRUPT = 2


def vhdx_beyond_end(path):
    """64 TiB in blocks of 4 MiB, all of them beyond the end; 128 MiB of BAT. The number of blocks."""
    size, block_size = 64 * TIB, 4 * MIB
    blocks = size // block_size
    ratio = (1 << 23) * 512 // block_size
    bat_bytes = -(-(blocks + (blocks - 1) // ratio) * 8 // MIB) * MIB
    chunk = struct.pack("<Q", 1 << 50 | vhdx_builder.FULLY) * ratio + bytes(8)
    with open(path, "wb") as file:
        file.write(b"vhdxfile")
        for number, at in enumerate(vhdx_builder.HEADERS_AT, 1):
            file.seek(at)
            file.write(vhdx_builder.header(number, "hostile"))
        for at in vhdx_builder.TABLES_AT:
            file.seek(at)
            file.write(vhdx_builder.region_table(bat_bytes))
        file.seek(vhdx_builder.METADATA_AT)
        file.write(vhdx_builder.metadata(size, block_size, 512, 0, None))
        file.seek(vhdx_builder.BAT_AT)
        for _ in range(blocks // ratio):
            file.write(chunk)
        file.truncate(vhdx_builder.BAT_AT + bat_bytes)
    return blocks


def vhd_in_footer_copy(path):
    """2040 GiB in blocks of 64 KiB, all of them at sector 0: a hole. The number of blocks."""
    size, block_size = 2040 << 30, 64 << 10
    blocks = size // block_size
    footer = vhd_builder.footer(size, vhd_builder.DYNAMIC, "hostile")
    header = vhd_builder.sealed(struct.pack(">8sQQIII984x", b"cxsparse", (1 << 64) - 1, 1536, 0x10000,
                                            blocks, block_size), 36)
    with open(path, "wb") as file:
        file.write(footer + header)
        file.seek(1536 + blocks * 4)
        file.write(footer)
    return blocks


def vmdk_beyond_end(path):
    """1 TiB in grains of 64 KiB, all of them beyond the end; 64 MiB of tables. The number of grains."""
    grain, desc_sectors = 128, 2
    capacity = TIB // 512
    tables = capacity // (grain * vmdk_builder.GTES)
    directory = 1 + desc_sectors
    first_table = directory + tables * 4 // 512
    overhead = -(-(first_table + tables * 4) // grain) * grain
    text = vmdk_builder.descriptor("monolithicSparse", [f'RW {capacity} SPARSE "hostile.vmdk"'])
    with open(path, "wb") as file:
        file.write(vmdk_builder.header(capacity, grain, desc_sectors, directory, overhead))
        file.write(text.ljust(desc_sectors * 512, b"\0"))
        file.write(struct.pack(f"<{tables}I", *range(first_table, first_table + tables * 4, 4)))
        for _ in range(tables):
            file.write(b"\xff" * 4 * vmdk_builder.GTES)
        file.truncate(overhead * 512)
    return tables * vmdk_builder.GTES


def judge(program, words, errors):
    """Its standard output; `errors`: where its standard error goes."""
    begun = time.monotonic()
    process = subprocess.Popen([program, "check", *words], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=errors, text=True)
    output = process.stdout.read()
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds, resident = time.monotonic() - begun, usage.ru_maxrss * 1024
    print(" ".join(map(os.path.basename, words)), f"{seconds:.2f} s, {resident / MIB:.0f} MiB",
          flush=True)
    assert process.returncode == CORRUPT, (process.returncode, output[:1000])
    assert seconds < MAX_SECONDS and resident < MAX_RESIDENT
    return output


def main():
    program, = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        for format_name, make, code in (("vhdx", vhdx_beyond_end, "block-beyond-end"),
                                        ("vpc", vhd_in_footer_copy, "block-in-metadata"),
                                        ("vmdk", vmdk_beyond_end, "grain-beyond-end")):
            path = os.path.join(folder, make.__name__)
            blocks = make(path)
            words = ["-f", format_name, path]
            document = json.loads(judge(program, ["--output=json", *words], subprocess.DEVNULL))
            # The disk opens: tables so large are looked at where they are used.
            findings = document["findings"]
            counts = {key: value for key, value in document.items() if key != "findings"}
            assert counts["corruptions"] == counts["allocated-clusters"] == blocks, counts
            assert len(findings) == MAX_TOLD, len(findings)
            assert all(finding["code"] == code for finding in findings), findings[-1]
            assert counts["findings-not-listed"] == blocks - MAX_TOLD, counts
            with tempfile.TemporaryFile("w+") as errors:
                judge(program, words, errors)
                errors.seek(0)
                lines = errors.read().splitlines()
            assert len(lines) == MAX_TOLD + 1, len(lines)
            assert lines[-1] == f"... and {blocks - MAX_TOLD} more", lines[-1]
            os.unlink(path)


main()
