"""What a program of ours says of itself for --help: its commands, their operands and options."""
import re
import subprocess
from typing import NamedTuple

OPTION = re.compile(r"^ {2,6}(?:-(?P<letter>\w)(?:,| \[) )?--(?P<name>[\w-]+)(?: \])?"
                    r"(?:[= ](?P<value>[A-Z][A-Z_]*(?:=[A-Z]+)?)(?= |$))?\s*(?P<help>.*)$")
COMMAND = re.compile(r"^  (?P<words>[a-z]+(?: [a-z]+)?)"
                     r"(?P<operands>(?: \[?[A-Z0-9]+(?:=[A-Z]+)?\]?(?:\.\.\.)?)*)"
                     r"(?:  +(?P<help>.*))?$")


class Option(NamedTuple):
    letter: str  # "" for none
    name: str
    value: str   # how --help calls its value, "" when it takes none
    help: str

    @property
    def spellings(self):
        return ([f"-{self.letter}"] if self.letter else []) + [f"--{self.name}"]

    @property
    def is_repeatable(self):
        return "repeatable" in self.help


class Command(NamedTuple):
    name: str        # "pool create"; "" for the program itself
    operands: tuple  # "NAME", "FILE1"
    help: str
    options: tuple

    @property
    def words(self):
        return self.name.split()


class Program(NamedTuple):
    name: str
    itself: Command  # what stands before a command, or where no command does
    commands: tuple

    @property
    def everywhere(self):
        """Options of the program and of each of its commands."""
        return [option for option in self.itself.options
                if all(option in command.options for command in self.commands)]

    def next_words(self, group=""):
        """{word: what it is for} of the words that may follow `group`, the first words of some
        commands; "" for what is a group itself."""
        words = {}
        for command in self.commands:
            prefix, _, word = command.name.rpartition(" ")
            if prefix == group:
                words[word] = command.help
            elif not group:
                words.setdefault(prefix, "")
        return words

    @property
    def has_both(self):
        """May an operand stand where a command may?"""
        return bool(self.commands and self.itself.operands)

    @property
    def groups(self):
        """The first words of commands that have two."""
        return [word for word, purpose in self.next_words().items() if not purpose]


def help_of(path, words):
    return subprocess.run([path, *words, "--help"], check=True, stdout=subprocess.PIPE,
                          text=True).stdout


def with_continuations(text):
    """The lines of the help, those that go on below their first joined to it."""
    lines = []
    for line in text.splitlines():
        if re.match(r" {16,}\S", line) and lines:
            lines[-1] = lines[-1].rstrip() + "  " + line.strip()
        else:
            lines.append(line)
    return lines


def options_of(text):
    found = filter(None, map(OPTION.match, with_continuations(text)))
    return tuple(Option(option["letter"] or "", option["name"], option["value"] or "",
                        " ".join(option["help"].split()))
                 for option in found)


def read_program(path, name):
    """Asks the program `path`."""
    text = help_of(path, [])
    commands = []
    if "COMMAND" in text:
        paragraph = text.split("\n\n")[1]
        for found in filter(None, map(COMMAND.match, paragraph.splitlines())):
            words = found["words"].split()
            operands = tuple(word.strip("[].") for word in found["operands"].split())
            commands.append(Command(found["words"], operands, found["help"] or "",
                                    options_of(help_of(path, words))))
    takes_file = not commands or text.splitlines()[0].endswith(" FILE")
    itself = Command("", ("FILE",) if takes_file else (), "", options_of(text))
    return Program(name, itself, tuple(commands))
