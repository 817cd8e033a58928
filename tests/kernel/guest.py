"""Inside the test kernel: what the scenarios share.

A group of scenarios is a program that ends with main(); tests/kernel/run_scenarios.py boots a
kernel for it. Each scenario is a function with @scenario, called in order; one that fails does not
hide the others. After each, whatever it left in the kernel is taken down by force.
"""
import contextlib
import glob
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import traceback

JOB = pathlib.Path("/run/job")
WORK = pathlib.Path("/run/scenario")  # a folder for the scenario that runs, in memory
PROGRAMS = pathlib.Path(os.environ.get("UNDERLAY_PROGRAMS", "."))
THIN = PROGRAMS / "underlay-thin"
MIB = 1 << 20
COMPARE_STEP = 4 * MIB

_scenarios = []


def scenario(function):
    """The name says the rule. REQUIRES: no kernel message of an I/O error, a warning or worse."""
    _scenarios.append((function, False))
    return function


def scenario_with_io_errors(function):
    """A scenario in which the kernel has to report I/O errors."""
    _scenarios.append((function, True))
    return function


class Failed(AssertionError):
    """A rule does not hold."""


def check(condition, what):
    if not condition:
        raise Failed(what)


def equal(found, expected, what):
    check(found == expected, f"{what}: {found!r}, not {expected!r}")


def wait_for(condition, what, seconds=20):
    """The first true value of condition()."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        check(time.monotonic() < deadline, f"{what}: not within {seconds} s")
        time.sleep(0.02)


# --- Programs


def run(*command, seconds=60, env=None):
    """Exit status, output, errors."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=seconds,
                          env={**os.environ, **(env or {})})
    return done.returncode, done.stdout, done.stderr


def must(*command, seconds=60):
    """The output of a command that has to succeed."""
    status, output, errors = run(*command, seconds=seconds)
    check(status == 0, f"{' '.join(map(str, command))}: exit {status}: {errors.strip()}")
    return output


@contextlib.contextmanager
def started(*command, log=None):
    """A program that runs during the block, and not longer, whatever happens. `log`: a file for what
    it says."""
    with contextlib.ExitStack() as stack:
        said = stack.enter_context(open(log, "wb")) if log else None
        process = stack.enter_context(subprocess.Popen([str(word) for word in command], stderr=said,
                                                       stdin=subprocess.DEVNULL))
        try:
            yield process
        finally:
            process.kill()


def thin(*arguments, seconds=60):
    """What `underlay-thin --json ARGUMENT...` answers; {} for commands that answer nothing."""
    output = must(THIN, "--json", *arguments, seconds=seconds)
    if not output.strip():
        return {}
    answer = json.loads(output)
    equal(answer["version"], 1, f"the version in the answer of {' '.join(map(str, arguments))}")
    return answer


def thin_refuses(*arguments, words=()):
    """The one line that says why; with exit status 1."""
    name = " ".join(map(str, arguments))
    status, _, errors = run(THIN, *arguments)
    equal(status, 1, f"the exit status of {name} (stderr {errors!r})")
    check(errors.startswith("underlay-thin: ") and errors.count("\n") == 1,
          f"{name} does not say why in one line: {errors!r}")
    for word in words:
        check(str(word) in errors, f"{name}: no {word!r} in {errors!r}")
    return errors


# --- Templates


class Template:
    def __init__(self, fields):
        self.name = fields["name"]
        self.path = fields["path"]
        self.format = fields["format"]
        self.raw = fields["raw"]
        self.file_system = fields["file_system"]
        self.size = os.path.getsize(self.raw)
        self.image = ["--image", self.path, "--format", self.format]

    def digest(self):
        return digest(self.path)

    def copy(self, folder=None):
        """A copy that the scenario may spoil."""
        place = pathlib.Path(folder or WORK) / self.name
        shutil.copy(self.path, place)
        return Template({"name": self.name, "path": str(place), "format": self.format,
                         "raw": self.raw, "file_system": self.file_system})


def templates():
    with open(JOB / "templates/templates.json", encoding="utf-8") as listed:
        return [Template(fields) for fields in json.load(listed)]


def template(name):
    return next(one for one in templates() if one.name == name)


def digest(path):
    sum_ = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(COMPARE_STEP):
            sum_.update(part)
    return sum_.hexdigest()


# --- Devices


def device_size(device):
    with open(device, "rb") as file:
        return file.seek(0, os.SEEK_END)


def drop_caches():
    """What is read next comes from the devices."""
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")


def same_contents(device, raw, size=None):
    """The device has the bytes of the file `raw`, and zeros behind them up to `size`."""
    expected_size = size or os.path.getsize(raw)
    equal(device_size(device), expected_size, f"the size of {device}")
    drop_caches()
    with open(device, "rb") as found, open(raw, "rb") as truth:
        for at in range(0, expected_size, COMPARE_STEP):
            length = min(COMPARE_STEP, expected_size - at)
            expected = truth.read(length).ljust(length, b"\0")
            got = found.read(length)
            if got != expected:
                first = next((i for i, (a, b) in enumerate(zip(got, expected)) if a != b), len(got))
                raise Failed(f"{device} differs from {raw} at byte {at + first}")


def write_at(device, offset, data):
    descriptor = os.open(device, os.O_WRONLY)
    try:
        check(os.pwrite(descriptor, data, offset) == len(data), f"a short write to {device}")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_at(device, offset, length):
    descriptor = os.open(device, os.O_RDONLY)
    try:
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


def nbd_devices():
    """Names of the nbd devices that are connected."""
    return [os.path.basename(os.path.dirname(path)) for path in glob.glob("/sys/block/nbd*/pid")]


def nbd_reads():
    """Read requests that all nbd devices have answered, ever."""
    return sum(int(pathlib.Path(path).read_text().split()[0])
               for path in glob.glob("/sys/block/nbd*/stat"))


def device_mapper_devices():
    return sorted(name for name in os.listdir("/dev/mapper") if name != "control")


def loop_devices():
    """{device: its file}"""
    return {"/dev/" + path.split("/")[3]: pathlib.Path(path).read_text().strip()
            for path in glob.glob("/sys/block/loop*/loop/backing_file")}


def running(name):
    """Pids of the programs with this name."""
    kernel_keeps = 15  # characters
    return [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc")))
            if process_name(pid) == name[:kernel_keeps]]


def servers():
    return running("underlay-nbd")


def process_name(pid):
    """"" when the process has ended, a zombie included."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    name, rest = stat.split("(", 1)[1].rsplit(")", 1)
    return "" if rest.split()[0] in "ZX" else name


def everything():
    """What a command could leave behind."""
    return {"dm": device_mapper_devices(), "nbd": nbd_devices(), "loop": loop_devices(),
            "servers": servers()}


@contextlib.contextmanager
def mounted(device, *options):
    place = WORK / ("mount-of-" + os.path.basename(device))
    place.mkdir()
    must("mount", *options, device, place)
    try:
        yield place
    finally:
        must("umount", place)
        place.rmdir()


@contextlib.contextmanager
def pool(name="pool", size="256M", *options):
    """A pool on files. At the end of the block its volumes and itself are removed, orderly, and
    nothing is left."""
    folder = WORK / name
    folder.mkdir()
    before = everything()
    thin("pool", "create", name, "--file", folder, "--size", size, *options)
    yield name
    for volume in thin("list")["volumes"]:
        if volume["pool"] == name:
            thin("remove", volume["name"])
    thin("pool", "remove", name)
    equal(everything(), before, f"what is left after pool {name} was removed")
    shutil.rmtree(folder)


def create(name, template_, *options, pool_name="pool"):
    """The device of a new volume on the template."""
    device = thin("create", name, *template_.image, "--pool", pool_name, *options)["device"]
    equal(device, f"/dev/mapper/{name}", "the device that create names")
    return device


# --- Kernel messages

TROUBLE = ("I/O error", "EXT4-fs error", "Buffer I/O", "BUG:", "WARNING:", "blocked for more than",
           "Call Trace", "device-mapper: thin: aborting", "metadata operation")


class KernelMessages:
    """What the kernel says from now on."""

    def __init__(self):
        self._descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self._descriptor, 0, os.SEEK_END)

    def news(self):
        lines = []
        while True:
            try:
                record = os.read(self._descriptor, 8192).decode(errors="replace")
            except BlockingIOError:
                return lines
            lines.append(record.split(";", 1)[1].split("\n", 1)[0])

    def trouble(self):
        return [line for line in self.news() if any(word in line for word in TROUBLE)]

    def close(self):
        os.close(self._descriptor)


# --- Running


def remove_device_mapper_devices():
    """Those that nothing holds first: a volume whose pool has become an error hangs."""
    before = None
    while (devices := device_mapper_devices()) != before:
        before = devices
        for name in devices:
            run("dmsetup", "remove", name, seconds=10)
    for name in devices:
        run("dmsetup", "remove", "--force", name, seconds=10)


def take_down():
    """Forgets everything that a scenario left in the kernel, by force; says what would not go."""
    shutil.rmtree("/var/lib/underlay", ignore_errors=True)
    mounts = pathlib.Path("/proc/mounts").read_text().split("\n")
    for line in reversed(mounts):
        if line and line.split()[1].startswith(f"{WORK}/"):
            run("umount", "-l", line.split()[1])
    for pid in running(THIN.name) + servers():
        os.kill(pid, signal.SIGKILL)
    for name in nbd_devices():  # before what stands on them: no I/O waits for a server then
        run("nbd-client", "-d", "/dev/" + name)
    remove_device_mapper_devices()
    for device in loop_devices():
        run("losetup", "-d", device)
    shutil.rmtree("/run/underlay", ignore_errors=True)
    shutil.rmtree(WORK, ignore_errors=True)
    left = {kind: what for kind, what in everything().items() if what}
    check(not left, f"left behind: {left}")


def attempt(function, may_have_io_errors):
    """Runs a scenario; None, or what failed."""
    messages = KernelMessages()
    try:
        WORK.mkdir()
        function()
        trouble = messages.trouble()
        check(may_have_io_errors or not trouble, "the kernel reports " + "; ".join(trouble[:4]))
    except Exception as error:  # the other scenarios are still to be run
        if not isinstance(error, Failed):
            traceback.print_exc(file=sys.stdout)
        return f"{type(error).__name__}: {error}"
    finally:
        messages.close()
    return None


def main():
    """Runs all scenarios, or those named on the command line. Exits 1 when one failed."""
    chosen = [(function, errors) for function, errors in _scenarios
              if function.__name__ in sys.argv[1:] or not sys.argv[1:]]
    failed = []
    for function, may_have_io_errors in chosen:
        started = time.monotonic()
        reason = attempt(function, may_have_io_errors)
        try:
            take_down()
        except (Failed, subprocess.TimeoutExpired) as error:
            reason = reason or f"taken down: {error}"
        took = time.monotonic() - started
        print("FAIL" if reason else "ok  ", function.__name__, f"({took:.1f} s)", reason or "",
              flush=True)
        if reason:
            failed.append(function.__name__)
    if failed or not chosen:
        sys.exit(f"{len(failed)} of {len(chosen)} scenarios failed: {' '.join(failed)}")
