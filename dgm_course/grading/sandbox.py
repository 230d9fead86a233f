"""A running process for a student's code: spoken to in frames, watched, and ended when told."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from dgm_course.grading.protocol import LENGTHS, MAX_ANSWER, as_bytes, lengths, pack, unpack
from dgm_course.grading.walls import (
    MISSING,
    Limits,
    SandboxMissing,
    command,
    environment,
    processes,
    python,
)

START_SECONDS = 120  # for the interpreter and the set-up cells' imports
KEPT_OUTPUT = 4_000  # bytes of what a question printed last
LEAST_MORE = 0.05  # seconds that are worth waiting for
LONGEST_ROUND = 1.0  # seconds; whoever waits looks at the time more often


class Watch:
    """Seconds that count: `time.monotonic`, less the time for which this process was stopped.

    A batch is paused by Ctrl-Z or with its machine; no student's time passes meanwhile.
    """

    def __init__(self) -> None:
        self._passed = self._last = time.monotonic()

    def __call__(self) -> float:
        now = time.monotonic()
        self._passed += min(now - self._last, LONGEST_ROUND)
        self._last = now
        return self._passed

    def leave_out(self, seconds: float) -> None:
        """Let this much of the past not count; deadlines move away by as much."""
        self._passed -= seconds


running_time = Watch()


class Ended(Exception):
    """The student's process is gone, or had to go.

    Args:
        status: "crashed", "timed out" or "over the limit".
        message: one sentence.
    """

    cell: int | None = None  # the one that ran, if the others can still be run

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


class Sandbox:
    """A running process, spoken to in frames, each answer awaited up to a deadline.

    Args:
        unsafe: without walls, as a plain process of this user. The limits stay.

    Raises:
        SandboxMissing: if bubblewrap is not installed.
    """

    def __init__(self, limits: Limits, *, unsafe: bool = False) -> None:
        course = str(Path(__file__).resolve().parent.parent.parent)
        self.limits = limits
        self._process = subprocess.Popen(
            python(course) if unsafe else command(limits),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # no terminal to type into, and one group to end
            env=environment(os.environ.get("TMPDIR", "/tmp")) if unsafe else {},
        )
        pipes = self._process.stdin, self._process.stdout, self._process.stderr
        self._pipes = [pipe for pipe in pipes if pipe]
        self._to, self._from, self._err = (pipe.fileno() for pipe in self._pipes)
        self._selector = selectors.DefaultSelector()
        for fd in (self._to, self._from, self._err):
            os.set_blocking(fd, False)
        self._selector.register(self._err, selectors.EVENT_READ)
        self._watched = 0.0
        self.fresh()

    def begin(self, setup: Sequence[str] = ()) -> list[str]:
        """Set the limits inside and run cells of ours; the errors, if there were any.

        Raises:
            Ended: if it does not start.
        """
        deadline, limits = running_time() + START_SECONDS, self.limits
        bounds = [limits.address_space, processes(limits), limits.file_size]
        self.send(deadline, "begin", cells=[as_bytes(text) for text in setup], limits=bounds)
        _, fields = self.receive(deadline)
        return [error for error in fields["errors"] if error]

    def fresh(self) -> None:
        """Count what is used from here on as a new question's."""
        self.printed, self.sent, self._said = 0, 0, bytearray()
        self._before, self._left_out = self._times(), 0.0

    def send(self, deadline: float, kind: str, **fields: Any) -> None:
        """Send a frame; the process must take it before ``deadline`` (of `running_time`)."""
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
        header, data = lengths(self._read(LENGTHS.size, deadline), MAX_ANSWER)
        self.sent += header + data
        if self.sent > self.limits.answers:
            raise Ended("over the limit", f"it sent over {self.limits.answers} bytes of answers")
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
                left = deadline - running_time()
                if left <= 0 and not (left := self._more_time()):
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
        self._said = (self._said + part)[-KEPT_OUTPUT:]
        if self.printed > self.limits.output:
            raise Ended("over the limit", f"it printed over {self.limits.output} bytes")

    def _look_at_memory(self) -> None:
        used = sum(_resident(pid) for pid in _family(self._process.pid))
        if used > self.limits.memory:
            raise Ended("over the limit", f"it took over {self.limits.memory} bytes of memory")

    def _more_time(self) -> float:
        """Seconds for which the question's processes waited for a processor, as they could not run.

        On a busy machine these are no time of the student's. Where the student's own processes
        are what makes it busy, they have used up the time; and none gets more than twice of it.
        """
        times = [
            (ran - self._before.get(pid, (0, 0))[0], waited - self._before.get(pid, (0, 0))[1])
            for pid, (ran, waited) in self._times().items()
        ]
        longest = max((waited for _, waited in times), default=0)
        more = min(longest, self.limits.seconds) - self._left_out
        if more < LEAST_MORE or sum(ran for ran, _ in times) >= self.limits.seconds:
            return 0.0
        self._left_out += more
        running_time.leave_out(more)
        return more

    def _times(self) -> dict[int, tuple[float, float]]:
        """For how many seconds each process has run and waited for a processor since it began."""
        family = ((pid, _proc(f"{pid}/schedstat").split()) for pid in _family(self._process.pid))
        return {
            pid: (int(numbers[0]) / 1e9, int(numbers[1]) / 1e9)
            for pid, numbers in family
            if len(numbers) == 3
        }

    def _last_words(self) -> str:
        if self._err in self._selector.get_map():
            self._take_output()
        said = self._said.decode(errors="replace").strip()
        return f"; it said: {said[-300:]}" if said else ""

    def close(self) -> None:
        """End the whole process group, and with the first process of the sandbox all others."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._selector.close()
        for pipe in self._pipes:
            pipe.close()


def _family(root: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := _proc(f"{name}/stat")):
            parents[int(name)] = int(stat.rpartition(")")[2].split()[1])
    family = [root]
    for pid in family:  # which grows meanwhile
        family += [child for child, parent in parents.items() if parent == pid]
    return family


def _resident(pid: int) -> int:
    """Bytes of memory that a process holds for itself or shares with others by intent."""
    lines = _proc(f"{pid}/status").splitlines()
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShm"))]
    return 1000 * sum(kilobytes)


def _proc(name: str) -> str:
    """A small file of /proc; nothing if the process has ended."""
    # Many files, four times a second: no Path, no buffer.
    with suppress(OSError), open(f"/proc/{name}", "rb", buffering=0) as file:
        return file.read(1 << 16).decode(errors="replace")
    return ""


def check() -> None:
    """Start an empty sandbox.

    Raises:
        SandboxMissing: if that does not work, with what bubblewrap says.
    """
    with closing(Sandbox(Limits())) as sandbox:
        try:
            sandbox.begin()
        except (Ended, ValueError) as error:
            raise SandboxMissing(f"{MISSING}; {error}") from error
