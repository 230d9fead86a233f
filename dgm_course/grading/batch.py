"""Grades a folder of submissions: several at a time, each in a process of its own, and resumable.

Each result is a file, written whole or not at all. Killing this at any moment therefore loses at
most the submissions that were being graded, and they are graded again the next time.
"""

from __future__ import annotations

import ctypes
import errno
import json
import multiprocessing
import os
import resource
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import dgm_course
from dgm_course.files import write_whole
from dgm_course.grading.grade import Assignment, grade, unfinished
from dgm_course.grading.results import RUN, read_result, readable, result_path, wrong_in
from dgm_course.grading.sandbox import running_time
from dgm_course.grading.submissions import Entry, digest
from dgm_course.grading.walls import Limits

PR_SET_PDEATHSIG = 1
MEMORY = 12_000_000_000  # address space of a grading process, lest a submission's text fill it


class NotStored(Exception):
    """A result that could not be written: why, and whether no other can be either."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"{path} cannot be written: {error.strerror}")
        self.for_all = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass
class Batch:
    """One run over many submissions.

    Args:
        out: where results go, to ``out/results``.
        seed: of the tests' inputs and the answers' random streams.
        folder: where the submissions lie, for the results to say.
        problems: results that could not be stored.
    """

    assignment: Assignment
    out: Path
    seed: int
    limits: Limits = field(default_factory=Limits)
    unsafe: bool = False
    folder: str = ""
    problems: list[str] = field(default_factory=list)

    def waiting(self, entries: list[Entry]) -> list[Entry]:
        """Those without a result, or whose result rests on something else than there is now.

        That is the contents, the tests, the seed, the course's version; and the limits, if the
        result met one: what ended within its limits ends within larger ones, and nobody loses
        points to smaller ones.
        """
        return [entry for entry in entries if not self._is_done(entry)]

    def _is_done(self, entry: Entry) -> bool:
        try:
            result = read_result(self._path(entry))
        except (OSError, ValueError):
            return False
        now = digest(entry), self.assignment.digest, self.seed, self.unsafe
        same = now == tuple(result.get(key) for key in ("digest", "source", "seed", "unsafe"))
        same &= result.get("versions", {}).get("dgm_course") == dgm_course.__version__
        return same and (
            result["status"] != "crashed" or result.get("limits") == asdict(self.limits)
        )

    def run(self, entries: list[Entry], jobs: int) -> Iterator[str]:
        """Grade these, ``jobs`` at a time; the status of each as it ends.

        Raises:
            NotStored: if there is no space for results.
        """
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
                    running[process.sentinel] = process, entry, running_time()
                wait(list(running), timeout=0.5)
                now = running_time()
                for sentinel, (process, entry, start) in list(running.items()):
                    if now - start > 3 * self.limits.seconds_in_all + 120:
                        process.kill()
                    if not process.is_alive():
                        del running[sentinel]
                        yield self._status(entry, process.exitcode)
        finally:
            for process, _, _ in running.values():
                process.kill()

    def _status(self, entry: Entry, exit_code: int | None) -> str:
        try:
            if exit_code != 0:
                self.finish(entry, f"the grader's own process ended with exit code {exit_code}")
            status: str = read_result(self._path(entry))["status"]
        except NotStored as error:
            if error.for_all:
                raise
            self.problems.append(str(error))
        except (OSError, ValueError) as error:
            self.problems.append(str(error))
        else:
            return status
        return "crashed"

    def finish(self, entry: Entry, why: str, trace: str = "") -> None:
        """Store that grading did not come to an end."""
        result = unfinished(self.assignment, entry, self.seed, self.unsafe, why)
        self.store(entry, result | {"trace": trace, "digest": "unfinished"})

    def store(self, entry: Entry, result: dict[str, Any]) -> None:
        """Write a result, with what it rests on.

        Raises:
            NotStored: if that is not possible.
        """
        result |= {"limits": asdict(self.limits), "folder": self.folder}
        try:
            write_whole(self._path(entry), json.dumps(result, indent=1))
        except OSError as error:
            raise NotStored(self._path(entry), error) from error

    def _path(self, entry: Entry) -> Path:
        return result_path(self.out, entry.student, entry.attempt)


def _job(batch: Batch, entry: Entry) -> None:
    """Grade one submission in this process, which ends with the run that started it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        try:
            result = grade(batch.assignment, entry, batch.seed, batch.limits, batch.unsafe)
            batch.store(entry, result)
        except NotStored:
            raise
        except Exception as error:
            why = f"the grader stopped with {type(error).__name__}: {error}"
            batch.finish(entry, why, traceback.format_exc())
    except NotStored:
        sys.exit(1)  # the run that started this meets it too, and says so


def run_seed(out: Path, assignment: str, given: int | None) -> int:
    """The seed of the run in ``out``: recorded by the first call, the same from then on.

    A record that has lost its contents is made again from the results.

    Raises:
        ValueError: if ``out`` belongs to another assignment or was begun with another seed.
        OSError: if the record cannot be read or written.
    """
    path = out / "run.json"
    out.mkdir(parents=True, exist_ok=True)
    if (run := _recorded(path)) is None:
        seed = given if given is not None else int.from_bytes(os.urandom(4), "big")
        text = json.dumps(_recovered(out) or {"assignment": assignment, "seed": seed})
        if path.exists():
            write_whole(path, text)
        else:
            draft = out / f".run.json.{os.getpid()}"
            try:
                draft.write_text(text, encoding="utf-8")
                os.link(draft, path)  # fails if another shard was first
            except FileExistsError:
                pass
            finally:
                draft.unlink(missing_ok=True)
        run = json.loads(path.read_text(encoding="utf-8"))
    if run["assignment"] != assignment:
        raise ValueError(f"{out} holds grades of {run['assignment']}, not of {assignment}")
    if given is not None and given != run["seed"]:
        raise ValueError(f"{out} was begun with --seed {run['seed']}, got {given}")
    return int(run["seed"])


def _recorded(path: Path) -> dict[str, Any] | None:
    """What a run's record says; None if there is none, or what is there is none."""
    try:
        run = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return None if wrong_in(run, RUN) else run


def _recovered(out: Path) -> dict[str, Any] | None:
    """A run's record as its results have it.

    Raises:
        ValueError: if they differ.
    """
    runs = {(result["assignment"], result["seed"]) for result in readable(out).values()}
    if len(runs) > 1:
        raise ValueError(f"{out / 'run.json'} holds no record, and the results have several seeds")
    return next(({"assignment": name, "seed": seed} for name, seed in runs), None)


def shard(entries: list[Entry], number: int, of: int) -> list[Entry]:
    """Every ``of``-th student's submissions, beginning with number ``number``."""
    students = sorted({entry.student for entry in entries})
    mine = {*students[number::of]}
    return [entry for entry in entries if entry.student in mine]


def count(statuses: Counter[str]) -> str:
    """A live count, in one line."""
    crashed = statuses["crashed"] + statuses["unreadable"]
    return f"{statuses['passed']} passed, {statuses['failed']} failed, {crashed} crashed"
