"""Grades one submission: takes the student's cells, asks the questions, writes down what came."""

from __future__ import annotations

import contextlib
import platform
import time
import traceback
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import dgm_course
from dgm_course.grading import matching
from dgm_course.grading.answers import CheckFailed, NotAnswered
from dgm_course.grading.matching import Own, first_setup, program, recognise
from dgm_course.grading.notebook import (
    Cell,
    NotANotebook,
    forbidden_imports,
    parse,
    read_cells,
)
from dgm_course.grading.notes import LOOK, cut, fold
from dgm_course.grading.questions import Student
from dgm_course.grading.rehearsal import Submission, execute
from dgm_course.grading.running import LONGEST
from dgm_course.grading.sandbox import Ended
from dgm_course.grading.submissions import Entry, Unreadable, digest, read
from dgm_course.grading.walls import Limits

CRASHED = ("crashed", "timed out", "over the limit", "not run")
LONGEST_ANSWER = 50_000  # characters of a written one


@dataclass(frozen=True)
class Assignment:
    """An assignment's source: its cells, with the tests, public and hidden."""

    name: str
    cells: list[Cell]
    digest: str

    @classmethod
    def read(cls, path: Path) -> Assignment:
        """From the source notebook."""
        return cls(path.stem, read_cells(path), sha256(path.read_bytes()).hexdigest())

    @property
    def tests(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.is_test]

    @property
    def written(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.is_written]


def grade(
    assignment: Assignment, entry: Entry, seed: int, limits: Limits, unsafe: bool = False
) -> dict[str, Any]:
    """The result of a submission, as plain data for JSON."""
    start = time.monotonic()
    result = unfinished(assignment, entry, seed, unsafe, "not graded yet")
    # The digest first: what changes while it is read is graded again.
    result |= {"status": "unreadable", "digest": digest(entry)}
    try:
        handed_in = read(entry, assignment.name)
        notes = handed_in.notes
        cells = parse(handed_in.notebook, notes)
    except (Unreadable, NotANotebook) as error:
        notes = [f"{error}; {LOOK}"]
    else:
        own = recognise(cells, assignment.cells, notes)
        result["written"] = list(_written(own, assignment, notes))
        student = Student(
            [cell.source for cell in first_setup(assignment.cells)],
            handed_in.files,
            derived(seed, assignment, "answers") % 2**32,  # NumPy's global stream takes no more
            limits,
            unsafe,
        )
        with closing(student):
            result["tests"] = _ask(student, own, assignment, seed)
        notes += _what_happened(student, own)
        result["points"] = sum(test["points"] for test in result["tests"])
        states = [test["status"] for test in result["tests"]]
        result["status"] = (
            "crashed"
            if student.fatal or any(state in CRASHED for state in states)
            else "passed"
            if all(state == "passed" for state in states)
            else "failed"
        )
        if not result["points"]:
            notes.append(f"no point at all; {LOOK}")
    result["notes"] = fold(notes)
    if unsafe:
        warning = "graded WITHOUT a sandbox (--unsafe): the result can be forged"
        result["notes"].insert(0, warning)
    return result | {"seconds": round(time.monotonic() - start, 3)}


def unfinished(
    assignment: Assignment, entry: Entry, seed: int, unsafe: bool, why: str
) -> dict[str, Any]:
    """The result of a submission whose grading did not come to an end."""
    tests = [_result(test, "not run") for test in assignment.tests]
    return {
        "assignment": assignment.name,
        "student": entry.student,
        "attempt": entry.attempt,
        "status": "crashed",
        "points": 0,
        "out_of": sum(test["out_of"] for test in tests),
        "out_of_by_hand": sum(cell.points for cell in assignment.written),
        "tests": tests,
        "written": [],
        "notes": [f"{why}; {LOOK}"],
        "seed": seed,
        "digest": "",
        "source": assignment.digest,
        "unsafe": unsafe,
        "seconds": 0.0,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """What the result may depend on."""
    packages = {name: version(name) for name in ("numpy", "torch")}
    return {"python": platform.python_version(), "dgm_course": dgm_course.__version__, **packages}


def _written(own: list[Own], assignment: Assignment, notes: list[str]) -> Iterator[dict[str, Any]]:
    for task, text in matching.written(own, assignment.cells, notes):
        if len(text) > LONGEST_ANSWER:
            notes.append(
                f"{task.grade_id} has {len(text)} characters, cut for hand grading; {LOOK}"
            )
        text = cut(text, LONGEST_ANSWER)
        yield {"id": task.grade_id, "out_of": task.points, "text": text, "empty": not text}


# --- asking ---------------------------------------------------------------------------------


def _ask(
    student: Student, own: list[Own], assignment: Assignment, seed: int
) -> list[dict[str, Any]]:
    # Shared by the tests, as in the notebook.
    names = Submission([], files=student.files).tests_namespace()
    results = []
    for test in assignment.tests:
        start = time.monotonic()

        def ask(call: Any, test: Cell = test) -> None:
            names["call"] = call
            with draws(derived(seed, assignment, test.grade_id)):
                execute(test, names)

        try:
            student.ask(program(own, assignment.cells, test), ask)
            result = _result(test, "passed")
        except Ended as error:
            result = _stopped(test, error.status, error)
        except NotAnswered as error:
            result = _stopped(test, "not answered", error)
        except CheckFailed as error:
            result = _stopped(test, "failed", error)
        except Exception as error:  # a test that trips over an answer
            why = f"the test stopped with {type(error).__name__}: "
            result = _stopped(test, "failed", error, why)
        results.append(result | {"seconds": round(time.monotonic() - start, 3)})
    return results


def derived(run: int, assignment: Assignment, purpose: str) -> int:
    """A seed for one purpose, from which no other follows: neither the run's nor another's.

    The student's process holds the one of its own random streams, and sees inputs drawn from
    others. A run's seed may be small enough to try all; the source's digest is not, and nobody has
    it who has not the hidden tests.
    """
    text = f"{run}/{assignment.digest}/{purpose}"
    return int.from_bytes(sha256(text.encode()).digest()[:16], "big")


@contextlib.contextmanager
def draws(run: int) -> Iterator[None]:
    """NumPy's generators that tests make from a number or nothing are made from the run's seed too.

    So the inputs of a released test, whose numbers students can read, are others in each run, and
    those of a test that gives no number are the same whenever the run is repeated.
    """
    make = np.random.default_rng

    def make_for_this_run(seed: Any = None) -> np.random.Generator:
        if seed is None:
            seed = 2**32  # no number that a test would give
        return make([run, int(seed)]) if isinstance(seed, int | np.integer) else make(seed)

    np.random.default_rng = make_for_this_run
    try:
        yield
    finally:
        np.random.default_rng = make


def _result(test: Cell, status: str, message: str = "", hidden: bool = False) -> dict[str, Any]:
    return {
        "id": test.grade_id,
        "title": test.title,
        "points": test.points if status == "passed" else 0,
        "out_of": test.points,
        "status": status,
        "message": message,
        "hidden": hidden,
        "seconds": 0.0,
    }


def _stopped(test: Cell, status: str, error: Exception, why: str = "") -> dict[str, Any]:
    message = cut(f"{why}{error}", LONGEST)
    return _result(test, status, message, _is_hidden(error, test))


def _is_hidden(error: BaseException, test: Cell) -> bool:
    """Whether hidden tests of this cell had begun when it stopped.

    From then on the student's code knows their inputs, and can write them into any message.
    """
    lines: list[int] = []
    cause: BaseException | None = error
    while cause is not None:  # what a test raises may become an error of another kind
        for at in traceback.extract_tb(cause.__traceback__):
            if (at.filename, at.name) == (test.grade_id, "<module>"):
                lines.append(at.lineno or 0)
        cause = cause.__cause__ or cause.__context__
    above = test.source.split("\n")[: max(lines, default=0)]
    return any("BEGIN HIDDEN TESTS" in line for line in above)


def _what_happened(student: Student, own: list[Own]) -> list[str]:
    notes = []
    for number, why in sorted(student.stopped.items()):
        look = f"; {LOOK}" if number in student.fatal else ""
        notes.append(f"cell {number} stopped: {why}{look}")
    for number, magics in sorted(student.magics.items()):
        notes.append(f"cell {number}: left out {cut(', '.join(magics), 200)}")
    for mine in own:
        if mine.cell.kind == "code" and (names := forbidden_imports(mine.cell.source)):
            notes.append(f"cell {mine.cell.number} imports {cut(', '.join(names), 200)}; {LOOK}")
    return notes
