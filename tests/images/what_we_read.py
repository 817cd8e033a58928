#!/usr/bin/python3
"""The tables in README.md of what is read, made from the features that the image makers show.

usage: what_we_read.py README.md           writes the tables
       what_we_read.py --check README.md   fails when they are not what stands there
"""
import json
import os
import subprocess
import sys

BEGIN = "<!-- tests/images/what_we_read.py writes from here"
END = "to here -->"
# Image makers, with the names that -f takes; none: what may lie around an image of any format.
FORMATS = (
    ("raw", ("raw",)),
    ("qcow2", ("qcow2",)),
    ("vhd", ("vpc", "vhd")),
    ("vhdx", ("vhdx",)),
    ("vmdk", ("vmdk",)),
    ("vdi", ("vdi",)),
    ("qcow", ("qcow",)),
    ("ova", ()),
)


def features_of(maker):
    folder = os.path.dirname(os.path.abspath(__file__))
    said = subprocess.run([sys.executable, os.path.join(folder, maker + ".py"), "--features"],
                          stdout=subprocess.PIPE, check=True)
    return json.loads(said.stdout)


def table(maker, names):
    """One format: what is read, then what is refused and why."""
    options = " or ".join(f"`-f {name}`" for name in names)
    heading = f"{maker} ({options})" if names else "archives and compressed files"
    rows = [f"| {heading} | |", "|---|---|"]
    features = features_of(maker)
    for feature in sorted(features, key=lambda feature: bool(feature["refused"])):
        verdict = f"refused: {feature['refused']}" if feature["refused"] else "read"
        rows.append(f"| {feature['text']} | {verdict} |")
    return "\n".join(rows)


def with_tables(text):
    tables = "\n\n".join(table(*names) for names in FORMATS)
    before, rest = text.split(BEGIN, 1)
    comment, rest = rest.split("-->\n", 1)
    _, after = rest.split("<!-- " + END, 1)
    return f"{before}{BEGIN}{comment}-->\n{tables}\n<!-- {END}{after}"


def main():
    check, (readme,) = sys.argv[1] == "--check", sys.argv[-1:]
    with open(readme, encoding="utf-8") as file:
        text = file.read()
    wanted = with_tables(text)
    if wanted == text:
        return
    if check:
        sys.exit(f"{readme} does not say what the image makers show: run {__file__} {readme}")
    with open(readme, "w", encoding="utf-8") as file:
        file.write(wanted)


main()
