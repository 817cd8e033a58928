#!/usr/bin/python3
"""A program's manual page and what the program prints for --help name the same commands, operands,
options and values; and the page is well-formed.

usage: manual_test.py PROGRAM POD [SOURCE_FOLDER]

A page's =head2 is a command when it is called as --help calls it ("pool create NAME"), else a group of
options: those that a command's text links to (L</GROUP>) are its options, too. Groups that no command
links to, and options outside of any =head2, belong to the program.

With SOURCE_FOLDER: the codes of findings and the names of JSON fields that the formats have stand in
the page, too.
"""
import glob
import os
import re
import subprocess
import sys

from program_help import Option, commands_of, help_of, options_of

# Of a program with commands: not a command's own options, though --help of each may list them.
HELP = {Option("h", "help", ""), Option("V", "version", "")}
ALL = "Options of all commands"


def options_of_page(text):
    items = re.findall(r"^=item (?:B<-(\w)>, )?B<--([\w-]+)>(?:[= ]I<([^>]+)>)?$", text,
                       flags=re.MULTILINE)
    return {Option(*option) for option in items}


def sections_of_page(text):
    """({title of a =head2: its text}, what lies outside of them)"""
    sections = {}
    outside = ""
    for part in re.split(r"^(?==head[12] )", text, flags=re.MULTILINE):
        title, _, body = part.partition("\n")
        if title.startswith("=head2 "):
            sections[title.removeprefix("=head2 ")] = body
        else:
            outside += part
    return sections, outside


def groups_of(body, sections):
    """The groups of options that a command's text links to."""
    titles = re.findall(r"L</([^>]*)>", body.replace("\n", " "))
    return [title for title in titles if options_of_page(sections.get(title, ""))]


def differences(program, page):
    sections, outside = sections_of_page(page)
    wrong = []

    def same(what, helped, written):
        if helped != written:
            wrong.append(f"{what}: only --help has {sorted(map(str, helped - written))}, only the "
                         f"manual page {sorted(map(str, written - helped))}")

    program_help = help_of(program)
    commands = commands_of(program_help)
    own = set()  # of the program, not of a command
    linked = set()
    for name, title in commands.items():
        body = sections.get(title)
        if body is None:
            wrong.append(f"{name}: the manual page has no section \"{title}\"")
            continue
        groups = groups_of(body, sections)
        linked.update(groups)
        written = options_of_page(body + "".join(sections[group] for group in groups))
        for_all = options_of_page(sections.get(ALL, ""))
        helped = options_of(help_of(program, name))
        same(name, helped - for_all - HELP, written - for_all)
        same(f"{name}: what all commands have", for_all - HELP, (helped & for_all) - HELP)
    for title, body in sections.items():
        if title not in commands.values() and title not in linked:
            own |= options_of_page(body)
            if re.match(r"[a-z]", title):
                wrong.append(f"--help knows no \"{title}\"")
    same("the program", options_of(program_help), own | options_of_page(outside))
    return wrong, len(commands)


def complaints(pod):
    """What podchecker and groff say of the page."""
    checked = subprocess.run(["podchecker", "-warnings", "-warnings", pod], capture_output=True,
                             text=True, check=False)
    if checked.returncode:
        return checked.stderr.splitlines()
    page = subprocess.run(["pod2man", "--utf8", "--section=1", pod], check=True,
                          capture_output=True).stdout
    shown = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-"], input=page,
                           capture_output=True, check=True,
                           env={"MANWIDTH": "80", "PATH": "/usr/bin:/bin"})
    assert b"SYNOPSIS" in shown.stdout, shown.stdout
    return shown.stderr.decode().splitlines()


def words_with_dashes(source):
    """Those that stand as strings in the sources of what is told of images: codes of findings, and
    names of JSON fields."""
    files = [file for described in glob.glob(os.path.join(source, "formats/*/*_describe.cc"))
             for file in glob.glob(os.path.join(os.path.dirname(described), "*.cc"))]
    files = [file for file in files if "_dump" not in file]  # names of the specifications
    files += glob.glob(os.path.join(source, "tools/img/audit*.cc"))
    words = set()
    for path in files:
        with open(path, encoding="utf-8") as file:
            words.update(re.findall(r'"([a-z0-9]+(?:-[a-z0-9]+)+)"(?!sv)', file.read()))
    assert len(words) > 100, "the sources lie elsewhere"
    return {word for word in words if not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-.*", word)}


def stands_in(page, word):
    """As a word of its own, or as what others end with: B<-WORD>."""
    return re.search(rf"(?:(?<![\w-])|(?<=<-)){word}(?![\w-])", page)


def main():
    program, pod, *source = sys.argv[1:]
    with open(pod, encoding="utf-8") as file:
        page = file.read()
    wrong, commands = differences(program, page)
    wrong += complaints(pod)
    wrong += [f"the manual page does not have \"{word}\"" for folder in source
              for word in sorted(words_with_dashes(folder)) if not stands_in(page, word)]
    print("\n".join(wrong) or f"as the manual page says: the program and {commands} commands")
    sys.exit(1 if wrong or not options_of(help_of(program)) else 0)


main()
