"""What a process for a student's code may see and use: bubblewrap's command line.

The walls are bubblewrap's (https://github.com/containers/bubblewrap): no network, its own process
numbers, and a file system that consists of what is listed here: the interpreter, its packages, the
system's shared libraries, the few files of the course that students may import, and a private
/tmp. Nothing of a submission is mounted: its text and files arrive through the pipe. The limits
on memory, CPU, processes, files and system calls are set inside, before any of that text runs
(`worker`).

As root the code runs under a random uid of its own: root is above the limit on processes, and two
students' processes must not share one count. A normal user gets a user namespace instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import site
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# What a student may import of the course: data, and what checks are made of. Not the answers.
IMPORTABLE = (
    "__init__.py",
    "checks.py",
    "data",
    "grading/__init__.py",
    "grading/answers.py",
    "grading/checks.py",
    "grading/protocol.py",
    "grading/running.py",
    "grading/system_calls.py",
    "grading/worker.py",
)
# What holds answers: the course, installed or checked out, and its archives.
FOLDERS = ("/dgm_course", "/notebooks/assignments", "/tests/assignment")
ARCHIVE = re.compile(r"dgm[-_]course.*\.(whl|egg|zip|gz|bz2|xz)")
COURSE = "/course"
SYSTEM = ("/usr/lib", "/usr/lib64", "/lib", "/lib64")
FOUND = "DGM_COURSE_ANSWERS"  # paths that hide the answers, kept for the grader's processes
PRIVATE = ("/tmp", "/dev/shm")  # what a student's process can write to
START = (
    "import sys; sys.path[:0] = [{!r}]; sys.path += {!r}; "
    "from dgm_course.grading import worker; worker.main()"
)
MISSING = (
    "students' code runs only inside a sandbox, and there is none: install bubblewrap 0.8 or newer "
    "(Debian, Ubuntu: apt-get install bubblewrap), on Linux"
)


class SandboxMissing(RuntimeError):
    """No sandbox can be made on this machine."""


@dataclass(frozen=True)
class Limits:
    """What a student's process may use: bytes and seconds."""

    seconds: float = 30  # wall clock of one question, and its CPU time in each process
    seconds_in_all: float = 300  # wall clock of one submission
    address_space: int = 4_000_000_000  # of one process; PyTorch alone takes 0.6 GB
    memory: int = 3_000_000_000  # resident, all processes together
    processes: int = 256  # and threads: a notebook asks for 64 of them, or 16 loaders of data
    file_size: int = 64_000_000
    disk: int = 128_000_000  # of /tmp, which is memory
    output: int = 64_000_000  # printed in one question
    answers: int = 256_000_000  # sent to the tests in one question, call-backs included


def processes(limits: Limits) -> int:
    """The limit on processes that means ``limits.processes`` inside.

    Before Linux 5.14 the count of a normal user's processes went on in a user namespace.
    """
    release = tuple(int(n) for n in re.findall(r"\d+", os.uname().release)[:2])
    if as_root() or release >= (5, 14):
        return limits.processes
    mine = 0
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            mine += path.stat().st_uid == os.getuid() and len(os.listdir(path / "task"))
    return limits.processes + mine


@cache
def as_root() -> bool:
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
    if bwrap is None or (setpriv is None and as_root()):
        raise SandboxMissing(MISSING)
    walls = "--unshare-ipc --unshare-net --unshare-pid --unshare-uts --unshare-cgroup-try".split()
    walls += "--die-with-parent --hostname sandbox --proc /proc --dev /dev".split()
    if as_root():
        walls = ["--cap-drop", "ALL", *walls]
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):  # until setpriv has run
            walls += ["--cap-add", capability]
        uid = str(_last_uid() // 2 + secrets.randbelow(_last_uid() // 2))
        identity = [str(setpriv), "--reuid", uid, "--regid", uid, "--clear-groups"]
        identity += ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    else:
        walls = ["--unshare-user", "--disable-userns", *walls]
        identity = []
    for folder in PRIVATE:
        walls += ["--perms", "1777", "--size", str(limits.disk), "--tmpfs", folder]
    walls += [*_mounts(), "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]
    for name, value in environment("/tmp").items():
        walls += ["--setenv", name, value]
    return [bwrap, *walls, "--", *identity, *python(COURSE, inside)]


def inside(path: str) -> str:
    """Where a file of the machine is seen: at its own path, but never in a private folder.

    An environment may have been made in /tmp; there a student could change it, and `worker`, which
    empties that folder after each question, would meet it.
    """
    is_private = any(Path(path).is_relative_to(folder) for folder in PRIVATE)
    return f"/outside{path}" if is_private else path


def python(course: str, seen: Callable[[str], str] = str) -> list[str]:
    """The command line of `worker`, with the course found in this folder.

    Args:
        seen: where a file of the machine is seen.
    """
    # -I: nothing is imported from the working folder, the user's packages or PYTHONPATH;
    # -S: no .pth file of an installed package runs.
    start = START.format(course, [*map(seen, site.getsitepackages())])
    namespace = os.readlink("/proc/self/ns/pid")
    return [seen(sys.executable), "-I", "-S", "-B", "-c", start, namespace]


def environment(home: str) -> dict[str, str]:
    """All environment variables of a student's process."""
    one_thread = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    # OpenMP ends the process where it cannot have the threads that it is told to take;
    # torch.compile would need a compiler.
    one_thread |= {"OMP_THREAD_LIMIT": "1", "TORCHDYNAMO_DISABLE": "1"}
    return {"HOME": home, "LANG": "C.UTF-8", "PATH": "/usr/bin", "MPLBACKEND": "agg", **one_thread}


def _folders() -> list[str]:
    """The folders that are mounted as they are."""
    system = [folder for folder in SYSTEM if not os.path.islink(folder)]
    prefixes = {f"{prefix}/lib" for prefix in (sys.base_prefix, sys.prefix)} - {*SYSTEM}
    return [folder for folder in (*system, *sorted(prefixes)) if os.path.isdir(folder)]


def _answers() -> list[str]:
    """Every folder and file below a mounted folder that may hold the course's own answers.

    To look takes a second, of which a run of the grader spends one: the processes that it starts
    find what was found in their environment.
    """
    if FOUND not in os.environ:
        os.environ[FOUND] = json.dumps(answers_below(_folders()))
    return list(json.loads(os.environ[FOUND]))


def answers_below(tops: list[str]) -> list[str]:
    """The course's packages, checkouts and archives, and what links of such names lead to, at any
    depth below some folders."""
    real = {os.path.realpath(top): Path(top) for top in tops}
    found, waiting = set(), [*tops]
    while waiting:
        try:
            entries = [*os.scandir(waiting.pop())]
        except OSError:  # nor can a student read it
            continue
        for entry in entries:
            if entry.path.endswith(FOLDERS) or ARCHIVE.fullmatch(entry.name):
                path = Path(os.path.realpath(entry.path))
                tops_above = [top for top in real if path.is_relative_to(top) and path.exists()]
                found |= {str(real[top] / path.relative_to(top)) for top in tops_above}
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
    return sorted(found)


def _mounts() -> list[str]:
    """Everything that can be seen, as arguments: what, from where, to where."""
    mounts: list[tuple[str, ...]] = []
    for folder in SYSTEM:
        if os.path.islink(folder):
            mounts.append(("--symlink", os.readlink(folder), folder))
    real = os.path.realpath(sys.executable)
    files = f"{sys.prefix}/pyvenv.cfg", "/etc/ld.so.cache", real
    for path in (*_folders(), *filter(os.path.exists, files)):
        mounts.append(("--ro-bind", path, inside(path)))
    if real != sys.executable:
        mounts.append(("--symlink", inside(real), inside(sys.executable)))
    for path in _answers():
        if os.path.isdir(path):
            mounts.append(("--size", "4096", "--tmpfs", inside(path)))
        else:
            mounts.append(("--ro-bind", os.devnull, inside(path)))
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
