"""Images that lie, made field by field, and what must hold for each.

An Image is a right image with its contents; a Case is one lie about it. Every case goes through the
readers and through underlay-img's info, map, check, audit and dump, by the program image-judge. What
must hold:
  * it is refused with one printable line, or served, and then every sector is the right one or fails;
  * no crash, no hang (SECONDS), no more memory than the budgets (PEAK_KIB, ADDRESS_SPACE);
  * where the image is served and qemu-img reads it too, both show the same bytes;
  * `map` and `audit` fail where the reader refuses, `check` too where a read fails.
A field's Rule says more where more is known.
"""
import contextlib
import json
import math
import os
import re
import subprocess
import time
import unicodedata
from typing import NamedTuple

import harness

SECONDS = 10
# On top of the program itself. The caches' budgets are 96 MiB, the largest table or block that is
# held besides 64 MiB.
PEAK_KIB = 160 << 10
ADDRESS_SPACE = 1 << 30
# With a sanitizer each case takes several times as long, and what it frees stays its own: then fewer
# cases of each image are looked at, and their memory is not judged.
SANITIZED_CASES = 100
SANITIZED_SECONDS = 60
COMMANDS = (["info", "--output=json"], ["map", "--output=json"], ["check"], ["audit"], ["dump"])
SAID = re.compile(r"^underlay-img: ")
WARNING = re.compile(r"^underlay-img: warning: ")
OTHER_FILE = re.compile("parent|extent|backing|data file|names (the file|itself)")
STORED = re.compile("stream|an xz block|zstd frame|compressed grain")
# Of `check`: clean, corrupt, leaks, failed, a format without a check.
CHECK_STATUSES = {0, 1, 2, 3, 63}


class Rule(NamedTuple):
    name: str
    why: str = ""


SAFE = Rule("safe")                # refused, or each sector is right or fails, and the size is right
REFUSED = Rule("refused")          # nothing but a refusal will do


def ignored(why):
    """The field says nothing about the contents: every value is served, whole and right."""
    return Rule("ignored", why)


def other(why, peer=True):
    """The field decides what the contents are, so there are others; `peer`: qemu-img tells which,
    where it reads the image."""
    return Rule("other" if peer else "other, unlike qemu-img", why)


def differs_from_qemu(why):
    """As SAFE, but qemu-img shows something else."""
    return Rule("safe, unlike qemu-img", why)


class Case(NamedTuple):
    name: str
    patches: tuple = ()  # (offset, bytes)
    length: int = -1     # the file is cut or extended to this; -1: as it is
    rule: Rule = SAFE
    crc32c: tuple = ()   # structures whose CRC-32C is put right behind the patches

    def is_cut(self):
        """Nothing is changed but the file's length."""
        return not self.patches and self.length >= 0


class Field(NamedTuple):
    name: str
    at: int
    width: int = 4
    rule: Rule = SAFE
    more: tuple = ()     # values besides those that are wrong for most
    order: str = ""      # of its bytes, "little" or "big"; "" as the image's


class Image:
    """A right image. `seal`: called with the changed bytes (a bytearray), puts checksums right."""

    def __init__(self, name, path, data, truth, format_name, order="little", seal=None, parents=(),
                 backing_format="", qemu_format="", commands=COMMANDS, stated=True, crc32c=(), opened=""):
        self.name, self.path, self.data, self.truth = name, str(path), bytes(data), bytes(truth)
        self.format, self.order, self.seal = format_name if stated else "", order, seal
        self.parents, self.backing_format = list(parents), backing_format
        self.qemu_format = qemu_format
        self.commands = commands
        self.opened = str(opened) or self.path  # what is opened, when it only names this file
        self.crc32c = list(crc32c)  # (first byte, length) of structures with a CRC-32C at 4
        self.cases = [Case("as it is", rule=ignored("it is right"))]
        write(self.path, self.data)

    def number(self, at, width=4, order=""):
        return int.from_bytes(self.data[at:at + width], order or self.order)

    def change(self, name, *patches, rule=SAFE, length=-1, seal=True):
        """Adds a case; `patches`: (offset, bytes)."""
        patches = tuple((at, bytes(raw)) for at, raw in patches)
        if seal and self.seal:
            patches = self._sealed(patches)
        self.cases.append(Case(name, patches, length, rule, tuple(self.crc32c) if seal else ()))

    def _sealed(self, patches):
        changed = bytearray(self.data)
        for at, raw in patches:
            changed[at:at + len(raw)] = raw
        return patches + tuple(self.seal(changed))

    def field(self, name, at, width=4, rule=SAFE, more=(), order="", seal=True):
        """Adds a case for each wrong value of a number."""
        order = order or self.order
        was = self.number(at, width, order)
        for value in wrong_values(was, width, len(self.data), more):
            self.change(f"{name}={value:#x}", (at, value.to_bytes(width, order)), rule=rule,
                        seal=seal)

    def fields(self, *fields, seal=True):
        for field in fields:
            self.field(field.name, field.at, field.width, field.rule, field.more, field.order, seal)

    def without_seal(self, name, at, rule=REFUSED):
        """A byte that no checksum agrees with."""
        self.change(name, (at, bytes([self.data[at] ^ 0x10])), rule=rule, seal=False)

    def cuts(self, step=512, rule=SAFE, first=0, end=math.inf):
        """Adds the file cut at every `step` bytes between these."""
        last = min(end, len(self.data)) - 1
        for length in range(last // step * step, first - 1, -step):
            self.cases.append(Case(f"cut at {length}", (), length, rule))

    @contextlib.contextmanager
    def changed(self, case):
        """The file as the case has it during the block, and right again after it."""
        with open(self.path, "r+b", buffering=0) as file:
            patch(file, case.patches)
            if case.length >= 0:
                file.truncate(case.length)
            try:
                yield
            finally:
                patch(file, [(at, self.data[at:at + len(raw)]) for at, raw in case.patches])
                if 0 <= case.length < len(self.data):
                    patch(file, [(case.length, self.data[case.length:])])
                file.truncate(len(self.data))


def patch(file, patches):
    for at, raw in patches:
        file.seek(at)
        file.write(raw)


def write(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as out:
        out.write(data)
    return path


def wrong_values(was, width, file_size, more=()):
    """Nothing, one, the most, the sign, one off, twice, half, the file's size in bytes and sectors."""
    bits = width * 8
    top = (1 << bits) - 1
    values = [0, 1, top, top - 1, 1 << (bits - 1), (1 << (bits - 1)) - 1, was - 1, was + 1, was * 2,
              was // 2, was ^ 1 << (bits // 2), file_size, file_size - 512, file_size // 512, *more]
    return [value for value in dict.fromkeys(values) if 0 <= value <= top and value != was]


class Judge:
    """Runs image-judge over images, and tells which cases do not hold."""

    def __init__(self, program, folder, table=False):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.sanitized = harness.sanitized(program)
        self.seconds = SANITIZED_SECONDS if self.sanitized else SECONDS
        self.peak_kib = math.inf if self.sanitized else PEAK_KIB
        self.folder = folder
        self.table = table
        self.failed = []
        self.counts = {}
        self.peak = ("", 0)
        self.slowest = ("", 0)

    def close(self):
        self.process.stdin.close()
        if self.process.wait(30) != 0:
            self.failed.append("image-judge itself")

    def judge(self, image):
        started = time.monotonic()
        truth = write(os.path.join(self.folder, "truth"), image.truth)
        chosen = image.cases
        if self.sanitized:
            chosen = chosen[::math.ceil(len(chosen) / SANITIZED_CASES)]
        cuts = [case for case in chosen if case.is_cut()]
        lies = [case for case in chosen if not case.is_cut()]
        served = []
        for cases, commands in ((lies, image.commands), (cuts, ())):
            for case, told in zip(cases, self.ask(image, image.path, truth, cases, commands)):
                if self.holds(image, case, told, commands) and "refused" not in told:
                    served.append((case, told))
        for case, told in served:
            if image.qemu_format and not case.is_cut() and (
                    case.rule.name == "other" and told["differs"] or
                    case.rule.name == "safe" and not told["failed"]):
                self.compare_with_qemu(image, case, told)
        print(f"{image.name}: {len(chosen)} of {len(image.cases)} cases, {time.monotonic() - started:.1f} s",
              flush=True)

    def ask(self, image, path, truth, cases, commands):
        """What image-judge tells of each case."""
        stated = []
        if image.format:
            stated += ["-f", image.format]
        opened = image.opened if path == image.path else path
        request = {"image": path, "opened": opened, "format": image.format, "backing_format": image.backing_format,
                   "parents": image.parents, "truth": truth, "seconds": self.seconds,
                   "memory": 0 if self.sanitized else ADDRESS_SPACE,
                   "commands": [list(words[:1]) + stated + list(words[1:]) for words in commands],
                   "cases": [{"name": case.name, "length": case.length,
                              "patches": [[at, raw.hex()] for at, raw in case.patches],
                              "crc32c": [list(part) for part in case.crc32c]}
                             for case in cases]}
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        for case in cases:
            told = json.loads(self.process.stdout.readline())
            assert told["name"] == case.name, f"{told} is no answer to {case}"
            yield told

    def holds(self, image, case, told, commands):
        wrong = list(self.wrong_of(image, case, told))
        if "died" not in told:
            for words, done in zip(commands, told["commands"]):
                wrong += [f"{words[0]}: {what}" for what in self.beyond_limits(done)]
                wrong += [f"{words[0]}: {what}" for what in
                          wrong_of_command(words[0], told, done, image.opened == image.path)]
        for what in wrong:
            self.fail(image, case, what)
        outcome = outcome_of(told)
        self.counts[outcome] = self.counts.get(outcome, 0) + 1
        if self.table and (case.length < 0 or outcome not in ("refused", "some fail")):
            print(f"  {outcome:10} {case.name:44} {told.get('refused') or told.get('errors')}"
                  f" {told.get('differs') or ''} {told.get('warnings') or ''}")
        if "kib" in told:
            self.peak = max(self.peak, (f"{image.name} {case.name}", told["kib"]),
                            key=lambda pair: pair[1])
            self.slowest = max(self.slowest, (f"{image.name} {case.name}", told["seconds"]),
                               key=lambda pair: pair[1])
        return not wrong

    def fail(self, image, case, what):
        self.failed.append(f"{image.name} {case.name}")
        print(f"FAIL {image.name} {case.name}: {what}", flush=True)

    def compare_with_qemu(self, image, case, told):
        """Where qemu-img reads the image, we show what it shows."""
        shown = os.path.join(self.folder, "shown")
        try:
            with image.changed(case):
                done = subprocess.run(["qemu-img", "convert", "-f", image.qemu_format, "-O", "raw",
                                       image.path, shown],
                                      stdin=subprocess.DEVNULL, capture_output=True, timeout=5)
                if done.returncode == 0 and os.path.getsize(shown) < 1 << 28:
                    again, = self.ask(image, image.path, shown, [Case(case.name)], ())
                    if again.get("differs") or again.get("size") != os.path.getsize(shown):
                        self.fail(image, case, f"qemu-img shows {os.path.getsize(shown)} bytes, "
                                  f"others than the {again.get('size')} of ours: "
                                  f"{again.get('differs')}")
        except subprocess.TimeoutExpired:
            pass  # that is qemu-img's business
        finally:
            if os.path.exists(shown):
                os.unlink(shown)

    def beyond_limits(self, done):
        """Of time and memory."""
        if done["seconds"] > self.seconds:
            yield f"took {done['seconds']} s"
        if done["kib"] > self.peak_kib:
            yield f"took {done['kib']} KiB"

    def wrong_of(self, image, case, told):
        """What does not hold of the readers."""
        if "died" in told:
            yield f"ended the process: {told['died']}"
        elif "thrown" in told:
            yield f"threw {told['thrown']}"
        else:
            yield from self.beyond_limits(told)
            yield from wrong_contents(image, case, told)


def outcome_of(told):
    if "died" in told:
        return "died"
    if "refused" in told:
        return "refused"
    if told.get("differs"):
        return "other"
    return "some fail" if told.get("failed") else "served"


def wrong_contents(image, case, told):
    """What does not hold of what was served, or of the refusal."""
    rule = case.rule.name
    if "refused" in told:
        if not is_printable_line(told["refused"]):
            yield f"said {told['refused']!r}"
        if rule == "ignored":
            yield f"refused: {told['refused']}"
        return
    for line in told["errors"] + told["warnings"]:
        if not is_printable_line(line):
            yield f"said {line!r}"
    yield from told["broken"]
    if rule == "refused":
        yield "served"
    if rule == "ignored" and told["failed"]:
        yield f"some fail: {told['errors']}"
    if not rule.startswith("other"):
        if told["differs"]:
            yield f"shows other bytes: {told['differs'][:4]}"
        if told["size"] != -(-len(image.truth) // 512) * 512:
            yield f"has {told['size']} bytes instead of {len(image.truth)}"


def is_printable_line(text):
    """No character that moves a terminal's cursor or turns the writing's direction."""
    if text.isprintable():  # much faster, and stricter
        return bool(text)
    return not any(unicodedata.category(char) in ("Cc", "Cf") for char in text)


def wrong_of_command(name, told, done, alone):
    """What does not hold of what underlay-img made of it."""
    if done["thrown"]:
        yield f"threw {done['thrown']}"
        return
    status = done["status"]
    lines = done["stderr"].splitlines()
    errors = [line for line in lines if SAID.match(line) and not WARNING.match(line)]
    if name != "check" and not all(map(SAID.match, lines)):
        yield f"said {lines}"
    printed = [line for line in lines + done["stdout"].split("\n") if line and not is_printable_line(line)]
    if printed:
        yield f"printed {printed[0]!r}"
    if status == 1 and len(errors) != 1:
        yield f"failed with {errors}"
    if status == 0 and errors:
        yield f"status 0 and {errors}"
    refused = "refused" in told
    allowed = {"check": CHECK_STATUSES, "audit": {0, 1, 2}}.get(name, {0, 1})
    if status not in allowed:
        yield f"status {status}"
    if refused and name == "map" and status == 0:
        yield f"status 0, though refused: {told['refused']}"
    # Audit opens nothing but the image: what is wrong with another file it cannot know.
    if (refused and name == "audit" and status == 0 and alone
            and not OTHER_FILE.search(told["refused"])):
        yield f"may be served, though refused: {told['refused']}"
    # Check looks at metadata alone, as qemu-img's.
    if (not refused and told.get("failed") and name == "check" and status == 0
            and not any(STORED.search(line) for line in told["errors"])):
        yield f"clean, though reads fail: {told['errors']}"
    if not refused and name == "audit" and status == 2 and not done["stdout"]:
        yield "refuses without a reason"

