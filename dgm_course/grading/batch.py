"""Grades a folder of submissions: several at a time, each in a process of its own, and resumable.

Each result is a file, written whole or not at all. Killing this at any moment therefore loses at
most the submissions that were being graded, and they are graded again the next time.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dgm_course.grading.grade import Assignment, grade, unfinished
from dgm_course.grading.submissions import Entry, Unreadable, read
from dgm_course.grading.walls import Limits

PR_SET_PDEATHSIG = 1
MEMORY = 12_000_000_000  # address space of a grading process, lest a submission's text fill it


@dataclass
class Batch:
    """One run over many submissions.

    Args:
        out: where results go, to ``out/results``.
        seed: of the tests' inputs and the answers' random streams.
    """

    assignment: Assignment
    out: Path
    seed: int
    limits: Limits = field(default_factory=Limits)
    unsafe: bool = False

    def waiting(self, entries: list[Entry]) -> list[Entry]:
        """Those without a result, or whose result belongs to other contents, tests or seed."""
        return [entry for entry in entries if not self._is_done(entry)]

    def _is_done(self, entry: Entry) -> bool:
        try:
            result = json.loads(result_path(self.out, entry).read_text())
        except (OSError, ValueError):
            return False
        try:
            digest = read(entry.path, self.assignment.name).digest
        except Unreadable:
            digest = ""
        now = digest, self.assignment.digest, self.seed, self.unsafe
        return now == tuple(result.get(key) for key in ("digest", "source", "seed", "unsafe"))

    def run(self, entries: list[Entry], jobs: int) -> Iterator[str]:
        """Grade these, ``jobs`` at a time; the status of each as it ends."""
        # A server that has imported everything and runs no thread forks each process.
        context = multiprocessing.get_context("forkserver")
        # Each process imports the main module again, by its name or through the command's script.
        main = getattr(sys.modules["__main__"], "__spec__", None)
        modules = ["dgm_course.grading.batch", main.name if main else "dgm_course.cli"]
        if any("digits(" in test.source for test in self.assignment.tests):
            modules += ["dgm_course.data", "sklearn.datasets"]  # seconds of each process
        context.set_forkserver_preload(modules)
        todo = list(reversed(entries))
        running: dict[int, tuple[Any, Entry, float]] = {}
        try:
            while todo or running:
                while todo and len(running) < jobs:
                    entry = todo.pop()
                    process = context.Process(target=_job, args=(self, entry))
                    process.start()
                    running[process.sentinel] = process, entry, time.monotonic()
                wait(list(running), timeout=1)
                for sentinel, (process, entry, start) in list(running.items()):
                    if time.monotonic() - start > 1.5 * self.limits.seconds_in_all + 120:
                        process.kill()
                    if not process.is_alive():
                        del running[sentinel]
                        yield self._status(entry, process.exitcode)
        finally:
            for process, _, _ in running.values():
                process.kill()

    def _status(self, entry: Entry, exit_code: int | None) -> str:
        if exit_code != 0:
            why = f"the grader's own process ended with exit code {exit_code}"
            store(unfinished(self.assignment, entry, self.seed, self.unsafe, why), self.out, entry)
        status: str = json.loads(result_path(self.out, entry).read_text())["status"]
        return status


def _job(batch: Batch, entry: Entry) -> None:
    """Grade one submission in this process, which ends with the run that started it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    options: dict[str, Any] = {"limits": batch.limits, "unsafe": batch.unsafe}
    result = grade(batch.assignment, entry, seed=batch.seed, **options)
    store(result, batch.out, entry)


def result_path(out: Path, entry: Entry) -> Path:
    """The file of a submission's result."""
    return out / "results" / f"{file_name(entry.student, entry.attempt)}.json"


def file_name(student: str, attempt: str = "") -> str:
    """A name that is a file's on every system, and no two submissions share."""
    return "@".join(_short(part) for part in (student, attempt) if part)


def _short(part: str) -> str:
    name = quote(part, safe=" ", errors="surrogateescape")
    return name if len(name) <= 100 else f"{name[:80]} {sha256(name.encode()).hexdigest()[:16]}"


def store(result: dict[str, Any], out: Path, entry: Entry) -> None:
    """Write a result, whole or not at all."""
    write_whole(result_path(out, entry), json.dumps(result, indent=1))


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old contents or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def run_seed(out: Path, assignment: str, given: int | None) -> int:
    """The seed of the run in ``out``: recorded by the first call, the same from then on.

    Raises:
        ValueError: if ``out`` belongs to another assignment or was begun with another seed.
    """
    path = out / "run.json"
    out.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        seed = given if given is not None else int.from_bytes(os.urandom(4), "big")
        draft = out / f".run.json.{os.getpid()}"
        draft.write_text(json.dumps({"assignment": assignment, "seed": seed}))
        try:
            os.link(draft, path)  # fails if another shard was first
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    run = json.loads(path.read_text())
    if run["assignment"] != assignment:
        raise ValueError(f"{out} holds grades of {run['assignment']}, not of {assignment}")
    if given is not None and given != run["seed"]:
        raise ValueError(f"{out} was begun with --seed {run['seed']}, got {given}")
    return int(run["seed"])


def shard(entries: list[Entry], number: int, of: int) -> list[Entry]:
    """Every ``of``-th student's submissions, beginning with number ``number``."""
    students = sorted({entry.student for entry in entries})
    mine = {*students[number::of]}
    return [entry for entry in entries if entry.student in mine]


def count(statuses: Counter[str]) -> str:
    """A live count, in one line."""
    crashed = statuses["crashed"] + statuses["unreadable"]
    return f"{statuses['passed']} passed, {statuses['failed']} failed, {crashed} crashed"
