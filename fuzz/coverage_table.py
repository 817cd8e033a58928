#!/usr/bin/env python3
"""Prints which lines the fuzz targets reached, by folder.  coverage_table.py LLVM-COV-EXPORT

Fails when formats/ as a whole, or the protocol code, is below the goal."""
import collections
import json
import pathlib
import sys

GOAL = 90.0
ROOT = pathlib.Path(__file__).resolve().parents[1]
# What a peer's bytes reach in the server without sockets; the rest of server/ moves them.
PROTOCOL = ["block_status", "handover_message", "handshake", "reply", "request"]


def group_of(path):
    if path.parts[0] == "formats":
        return str(path.parent) + "/"
    if path.parts[0] == "server" and path.stem in PROTOCOL:
        return "server/ (protocol)"
    return None


def percent(lines):
    return 100.0 * lines["covered"] / lines["count"] if lines["count"] else 100.0


def row(name, lines):
    return f"{name:36} {lines['count']:6} {lines['covered']:7} {percent(lines):6.1f} %"


def main(export):
    folders = collections.defaultdict(collections.Counter)
    files = []
    for entry in json.loads(pathlib.Path(export).read_text())["data"][0]["files"]:
        path = pathlib.Path(entry["filename"]).resolve()
        if not path.is_relative_to(ROOT):
            continue
        path = path.relative_to(ROOT)
        group = group_of(path)
        if group is None:
            continue
        lines = {key: entry["summary"]["lines"][key] for key in ("count", "covered")}
        total = "formats/, all" if path.parts[0] == "formats" else "server/ (protocol), all"
        for name in (group, total):
            folders[name].update(lines)
        files.append((str(path), lines))
    print(f"{'':36} {'lines':>6} {'reached':>7}")
    for name in sorted(folders):
        print(row(name, folders[name]))
    print(f"\nFiles below {GOAL:.0f} %:")
    for name, lines in sorted(files):
        if percent(lines) < GOAL:
            print(row(name, lines))
    totals = [name for name in folders if name.endswith("all")]
    return 0 if all(percent(folders[name]) >= GOAL for name in totals) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
