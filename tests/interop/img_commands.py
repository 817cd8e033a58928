"""The subcommands of underlay-img as --help tells them, run on images for tests."""
import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from typing import NamedTuple

from program_help import commands_of, help_of, options_of

PROGRAM = os.environ.get("UNDERLAY_IMG", "underlay-img")
TIME_LIMIT = 60
NOBODY = 65534
TARGET = "TARGET"  # the operand that is no image to be read
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]

# What a command needs to be a valid use, and to be quick.
EXTRA = {
    "bench": ["-c", "16"],
    "measure": ["-O", "qcow2"],
}
# Exit statuses where they are not 1.
USAGE_STATUS = {"compare": 2}
ERROR_STATUS = {"compare": 2}
# Of what is no failure, but no success either: there is nothing to check; it must not be served.
OTHER_STATUS = {"check": {63}, "audit": {2}}


class Done(NamedTuple):
    status: int
    stdout: bytes
    stderr: bytes

    def error_lines(self):
        return [line for line in self.stderr.decode(errors="replace").splitlines()
                if "warning: " not in line]


@functools.cache
def target_folder():
    """Anybody may write there. Gone when the program ends."""
    folder = tempfile.mkdtemp(prefix="underlay-target-", dir="/tmp")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.chmod(folder, 0o777)
    return folder


class ImgCommand(NamedTuple):
    program: str
    name: str
    operands: tuple  # "FILE", "[FILE]"
    options: frozenset

    @property
    def usage_status(self):
        return USAGE_STATUS.get(self.name, 1)

    @property
    def error_status(self):
        return ERROR_STATUS.get(self.name, 1)

    @property
    def other_status(self):
        return OTHER_STATUS.get(self.name, set())

    def has(self, option):
        return any(option in known.spellings for known in self.options)

    @property
    def images(self):
        """How many operands are read."""
        return len(self.operands) - self.operands.count(TARGET)

    def words(self, *images, options=()):
        """The command line with each of the images as an operand, the last one as all others; what
        is written goes to a folder of its own."""
        files = [*images, *[images[-1]] * self.images][:self.images]
        if TARGET in self.operands:
            files.append(os.path.join(target_folder(), "target"))
        return [self.program, self.name, *EXTRA.get(self.name, []), *options, "--", *files]

    def run(self, *images, options=(), as_nobody=False, **how):
        return run(self.words(*images, options=options), as_nobody, **how)


def run(words, as_nobody=False, time_limit=TIME_LIMIT, **how):
    how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
    done = subprocess.run([*(AS_NOBODY if as_nobody else []), *words], check=False,
                          timeout=time_limit, **how)
    return Done(done.returncode, done.stdout or b"", done.stderr or b"")


def all_commands(program):
    """One for each that --help lists."""
    return [ImgCommand(program, name, tuple(line.split()[1:]),
                       frozenset(options_of(help_of(program, name))))
            for name, line in commands_of(help_of(program)).items()]
