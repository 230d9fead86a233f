"""A process for a student's code: it sees almost nothing, may use little, and ends when told.

The walls are bubblewrap's (https://github.com/containers/bubblewrap): no network, its own process
numbers, and a file system that consists of what is listed here: the interpreter, its packages, the
system's shared libraries, the few files of the course that students may import, and a private
/tmp. Nothing of the submission is mounted: its text and files arrive through the pipe. The limits
on memory, CPU, processes and files are set inside, before any of that text runs (`worker`).

As root the code runs under a random uid of its own: root is above the limit on processes, and two
students' processes must not share one count. A normal user gets a user namespace instead.
"""

from __future__ import annotations

import os
import secrets
import selectors
import shutil
import signal
import site
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dgm_course.grading.protocol import LENGTHS, lengths, pack, unpack

# What a student may import of the course: data, and what checks are made of. Not the answers.
IMPORTABLE = (
    "__init__.py",
    "data",
    "probability.py",
    "training.py",
    "grading/__init__.py",
    "grading/answers.py",
    "grading/checks.py",
    "grading/protocol.py",
    "grading/worker.py",
)
COURSE = "/course"
START = (
    "import sys; sys.path[:0] = [{!r}]; sys.path += {!r}; "
    "from dgm_course.grading import worker; worker.main()"
)
KEPT_OUTPUT = 4_000  # bytes of what a question printed
MISSING = (
    "students' code runs only inside a sandbox, and there is none: install bubblewrap 0.8 or newer "
    "(Debian, Ubuntu: apt-get install bubblewrap), on Linux"
)


class SandboxMissing(RuntimeError):
    """No sandbox can be made on this machine."""


class Ended(Exception):
    """The student's process is gone, or had to go.

    Args:
        status: "crashed", "timed out" or "over the limit".
        message: one sentence.
    """

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(frozen=True)
class Limits:
    """What a student's process may use: bytes and seconds."""

    seconds: float = 30  # wall clock of one question, and its CPU time in each process
    seconds_in_all: float = 300  # wall clock of one submission
    address_space: int = 4_000_000_000  # of one process; PyTorch alone takes 0.6 GB
    memory: int = 3_000_000_000  # resident, all processes together
    processes: int = 32
    file_size: int = 64_000_000
    disk: int = 128_000_000  # of /tmp, which is memory
    output: int = 64_000_000  # printed in one question


@cache
def _as_root() -> bool:
    """Whether this is a root that can become somebody else."""
    return os.geteuid() == 0 and _last_uid() > 1000


def _last_uid() -> int:
    first, _, count = map(int, Path("/proc/self/uid_map").read_text().split("\n")[0].split())
    return min(first + count, 2**31) - 1


def command(limits: Limits) -> list[str]:
    """The command line of a sandbox around `worker`.

    Raises:
        SandboxMissing: if bubblewrap is not installed.
    """
    bwrap, setpriv = shutil.which("bwrap"), shutil.which("setpriv")
    if bwrap is None or (setpriv is None and _as_root()):
        raise SandboxMissing(MISSING)
    walls = "--unshare-ipc --unshare-net --unshare-pid --unshare-uts --unshare-cgroup-try".split()
    walls += "--die-with-parent --clearenv --hostname sandbox --proc /proc --dev /dev".split()
    if _as_root():
        walls = ["--cap-drop", "ALL", *walls]
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):  # until setpriv has run
            walls += ["--cap-add", capability]
        uid = str(_last_uid() // 2 + secrets.randbelow(_last_uid() // 2))
        identity = [str(setpriv), "--reuid", uid, "--regid", uid, "--clear-groups"]
        identity += ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    else:
        walls = ["--unshare-user", "--disable-userns", *walls]
        identity = []
    for folder in ("/tmp", "/dev/shm"):
        walls += ["--perms", "1777", "--size", str(limits.disk), "--tmpfs", folder]
    walls += [*_mounts(), "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]
    for name, value in _environment("/tmp").items():
        walls += ["--setenv", name, value]
    return [bwrap, *walls, "--", *identity, *_python(COURSE)]


def _python(course: str) -> list[str]:
    # -I: nothing is imported from the working folder, the user's packages or PYTHONPATH;
    # -S: no .pth file of an installed package runs.
    start = START.format(course, site.getsitepackages())
    return [sys.executable, "-I", "-S", "-B", "-c", start, _pid_namespace()]


def _environment(home: str) -> dict[str, str]:
    one_thread = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    return {"HOME": home, "LANG": "C.UTF-8", "PATH": "/usr/bin", "MPLBACKEND": "agg", **one_thread}


def _pid_namespace() -> str:
    return os.readlink("/proc/self/ns/pid")


def _mounts() -> list[str]:
    """Everything that can be seen, as arguments: what, from where, to where."""
    mounts: list[tuple[str, ...]] = []
    for folder in ("/usr/lib", "/usr/lib64", "/lib", "/lib64"):
        if os.path.islink(folder):
            mounts.append(("--symlink", os.readlink(folder), folder))
        elif os.path.isdir(folder):
            mounts.append(("--ro-bind", folder, folder))
    real = os.path.realpath(sys.executable)
    prefixes = {f"{prefix}/lib" for prefix in (sys.base_prefix, sys.prefix)}
    for path in (*sorted(prefixes), f"{sys.prefix}/pyvenv.cfg", "/etc/ld.so.cache", real):
        if os.path.exists(path):
            mounts.append(("--ro-bind", path, path))
    if real != sys.executable:
        mounts.append(("--symlink", real, sys.executable))
    for folder in site.getsitepackages():  # a course installed there holds the answers
        if os.path.isdir(f"{folder}/dgm_course"):
            mounts.append(("--size", "4096", "--tmpfs", f"{folder}/dgm_course"))
    if setpriv := shutil.which("setpriv"):
        mounts.append(("--ro-bind", setpriv, setpriv))
    package = Path(__file__).resolve().parent.parent
    for name in IMPORTABLE:
        mounts.append(("--ro-bind", str(package / name), f"{COURSE}/dgm_course/{name}"))
    arguments: list[str] = []
    made: set[Path] = set()
    for *how, to in mounts:  # bubblewrap makes missing folders for their owner alone
        for parent in reversed(Path(to).parents[:-1]):
            if parent not in made:
                arguments += ["--perms", "0755", "--dir", str(parent)]
                made.add(parent)
        arguments += [*how, to]
    return arguments


class Sandbox:
    """A running process, spoken to in frames, each answer awaited up to a deadline.

    Args:
        unsafe: without walls, as a plain process of this user. The limits stay.

    Raises:
        SandboxMissing: if bubblewrap is not installed.
    """

    def __init__(self, limits: Limits, *, unsafe: bool = False) -> None:
        course = str(Path(__file__).resolve().parent.parent.parent)
        self.limits, self.printed, self._said = limits, 0, bytearray()
        self._process = subprocess.Popen(
            _python(course) if unsafe else command(limits),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # no terminal to type into, and one group to end
            env=_environment(os.environ.get("TMPDIR", "/tmp")) if unsafe else {},
        )
        pipes = self._process.stdin, self._process.stdout, self._process.stderr
        assert all(pipes)
        self._to, self._from, self._err = (pipe.fileno() for pipe in pipes if pipe)
        self._selector = selectors.DefaultSelector()
        for fd in (self._to, self._from, self._err):
            os.set_blocking(fd, False)
        self._selector.register(self._err, selectors.EVENT_READ)
        self._watched = 0.0

    def send(self, deadline: float, kind: str, **fields: Any) -> None:
        """Send a frame; the process must take it before ``deadline`` (of time.monotonic)."""
        rest = memoryview(pack(kind, **fields))
        while rest:
            self._wait(self._to, selectors.EVENT_WRITE, deadline)
            try:
                rest = rest[os.write(self._to, rest) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise Ended("crashed", "the process ended" + self._last_words()) from None

    def receive(self, deadline: float) -> tuple[str, dict[str, Any]]:
        """The next frame.

        Raises:
            Ended: if the process ended, took too long or used too much.
            ProtocolError: if what came is no frame.
        """
        header, data = lengths(self._read(LENGTHS.size, deadline))
        return unpack(self._read(header, deadline), self._read(data, deadline))

    def _read(self, n: int, deadline: float) -> bytes:
        parts, missing = [], n
        while missing:
            self._wait(self._from, selectors.EVENT_READ, deadline)
            try:
                part = os.read(self._from, min(missing, 1 << 20))
            except BlockingIOError:
                continue
            if not part:
                raise Ended("crashed", "the process ended" + self._last_words())
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _wait(self, fd: int, event: int, deadline: float) -> None:
        """Until ``fd`` is ready; meanwhile take what is printed and look at the memory."""
        self._selector.register(fd, event)
        try:
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Ended("timed out", "it took too long")
                ready = {key.fd for key, _ in self._selector.select(min(left, 0.25))}
                if time.monotonic() - self._watched > 0.25:
                    self._watched = time.monotonic()
                    self._look_at_memory()
                if self._err in ready:
                    self._take_output()
                if fd in ready:
                    return
        finally:
            self._selector.unregister(fd)

    def _take_output(self) -> None:
        try:
            part = os.read(self._err, 1 << 20)
        except BlockingIOError:
            return
        if not part:
            self._selector.unregister(self._err)
        self.printed += len(part)
        self._said += part[: max(0, KEPT_OUTPUT - len(self._said))]
        if self.printed > self.limits.output:
            raise Ended("over the limit", f"it printed over {self.limits.output} bytes")

    def _look_at_memory(self) -> None:
        used = sum(_resident(pid) for pid in _family(self._process.pid))
        if used > self.limits.memory:
            raise Ended("over the limit", f"it took over {self.limits.memory} bytes of memory")

    def _last_words(self) -> str:
        if self._err in self._selector.get_map():
            self._take_output()
        said = self.said().strip()
        return f"; it said: {said[-300:]}" if said else ""

    def said(self) -> str:
        """The beginning of what was printed since the last time."""
        text = self._said.decode(errors="replace")
        self.printed, self._said = 0, bytearray()
        return text

    def end(self) -> None:
        """End the whole process group, and with the first process of the sandbox all others."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        self._selector.close()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def _family(root: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = Path("/proc", name, "stat").read_text(errors="replace")
            except OSError:  # it has ended meanwhile
                continue
            parents[int(name)] = int(stat.rpartition(")")[2].split()[1])
    family, frontier = [], [root]
    while frontier:
        pid = frontier.pop()
        family.append(pid)
        frontier += [child for child, parent in parents.items() if parent == pid]
    return family


def _resident(pid: int) -> int:
    """Bytes of memory that a process holds for itself or shares with others by intent."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return 0
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShm"))]
    return 1000 * sum(kilobytes)


def check() -> None:
    """Start an empty sandbox.

    Raises:
        SandboxMissing: if that does not work, with what bubblewrap says.
    """
    with Sandbox(Limits()) as sandbox:
        deadline = time.monotonic() + 60
        try:
            sandbox.send(deadline, "begin", cells=[], limits=[])
            sandbox.receive(deadline)
        except (Ended, ValueError) as error:
            raise SandboxMissing(f"{MISSING}; {error}") from error
