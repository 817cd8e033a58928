"""What a program of ours prints for --help."""
import re
import subprocess
from typing import NamedTuple


class Option(NamedTuple):
    letter: str  # "" for none
    name: str
    value: str   # "" when it takes none

    def __str__(self):
        return ((f"-{self.letter}, " if self.letter else "") + f"--{self.name}" +
                (f" {self.value}" if self.value else ""))

    @property
    def spellings(self):
        return {f"--{self.name}"} | ({f"-{self.letter}"} if self.letter else set())


def help_of(program, command=""):
    return subprocess.run([program, *command.split(), "--help"], check=True, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=60).stdout


def options_of(text):
    found = re.findall(r"^ {2,6}(?:-(\w)(?:,| \[) )?--([\w-]+)(?: \])?"
                       r"(?:[= ]([A-Z][A-Z_]*(?:=[A-Z]+)?)(?= |$))?", text, flags=re.MULTILINE)
    return {Option(*option) for option in found}


def commands_of(text):
    """{"pool create": "pool create NAME"}; nothing of a program without commands."""
    found = {}
    commands = text.split("\n\n")[1] if "COMMAND" in text else ""
    for line in re.findall(r"^  ([a-z].*?)(?:  .*)?$", commands, flags=re.MULTILINE):
        name = " ".join(word for word in line.split() if word.islower())
        found[name] = line
    return found
