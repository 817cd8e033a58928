#!/usr/bin/python3
"""The manual page of underlay-thin and what its commands print for --help name the same commands,
operands and options.

usage: thin_manual_test.py UNDERLAY_THIN MANUAL_PAGE
"""
import re
import subprocess
import sys

ALL = "Options of all commands"
IMAGE = "Image options"
GENERAL = {ALL, IMAGE}
TRAPS = "WHAT CAN GO WRONG"


def help_of(program, *command):
    return subprocess.run([program, *command, "--help"], check=True, stdout=subprocess.PIPE,
                          text=True).stdout


def options_of_help(text):
    """"-f, --format FORMAT" for each."""
    found = re.findall(r"^  (?:-(\w) \[ )?--([\w-]+)(?: \])?(?: ([A-Z]+(?:=[A-Z]+)?)\b)?", text,
                       flags=re.MULTILINE)
    return {option_words(*option) for option in found}


def option_words(short, name, value):
    return (f"-{short}, " if short else "") + f"--{name}" + (f" {value}" if value else "")


def commands_of_help(text):
    """{"pool create": "pool create NAME"}"""
    lines = re.findall(r"^  ([a-z]+(?: [a-z]+)??) ((?:\[?[A-Z]+\]? )*) +[a-z]", text,
                       flags=re.MULTILINE)
    return {name: f"{name} {operands}".strip() for name, operands in lines}


def sections_of_page(text):
    """{title of a subsection: (its options, does it have the image options?)}"""
    text = text.split(f".Sh {TRAPS}")[0]
    found = {}
    for section in re.split(r"^\.Ss ", text, flags=re.MULTILINE)[1:]:
        title, body = section.split("\n", 1)
        body = re.split(r"^\.Sh ", body, flags=re.MULTILINE)[0]
        options = re.findall(r"^\.It Fl (?:(\w) , )?-([\w-]+)(?: Ar ([A-Z]+(?:=[A-Z]+)?))?$", body,
                             flags=re.MULTILINE)
        found[title] = {option_words(*option) for option in options}, f".Sx {IMAGE}" in body
    return found


def main():
    program, page = sys.argv[1:]
    with open(page, encoding="utf-8") as file:
        sections = sections_of_page(file.read())
    wrong = []

    def same(what, helped, written):
        if helped != written:
            wrong.append(f"{what}: only --help has {sorted(helped - written)}, only the manual page "
                         f"{sorted(written - helped)}")

    commands = commands_of_help(help_of(program))
    same("commands", set(commands.values()), set(sections) - GENERAL)
    same("options of all commands", options_of_help(help_of(program)), sections[ALL][0])
    for name, title in commands.items():
        own, has_image_options = sections.get(title, (set(), False))
        written = own | sections[ALL][0] | (sections[IMAGE][0] if has_image_options else set())
        same(name, options_of_help(help_of(program, *name.split())), written)
    print("\n".join(wrong) or f"{len(commands)} commands are as the manual page says")
    sys.exit(1 if wrong or len(commands) < 2 else 0)


main()
