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
from dgm_course.grading.answers import CheckFailed, NotAnswered, unpack_weights
from dgm_course.grading.notebook import (
    Cell,
    Submission,
    forbidden_imports,
    read_cells,
)
from dgm_course.grading.notes import LOOK, cut, fold
from dgm_course.grading.questions import Student
from dgm_course.grading.sandbox import Ended
from dgm_course.grading.submissions import Entry, Unreadable, digest, parse, read
from dgm_course.grading.walls import Limits

CRASHED = ("crashed", "timed out", "over the limit", "not run")
LONGEST_SEARCHED = 200_000  # characters of a cell that are searched for imports
LONGEST_ANSWER = 50_000  # characters of a written one
LONGEST = 2_000  # characters of a message


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

    @property
    def setup(self) -> list[Cell]:
        """The locked cells before the first answer: they run once, before anything else."""
        first = next(i for i, cell in enumerate(self.cells) if cell.is_answer)
        return [cell for cell in self.cells[:first] if is_setup(cell)]


def is_setup(cell: Cell) -> bool:
    """Whether a source's cell runs as it was released."""
    is_ours = bool(cell.grade_id) and not cell.is_answer and not cell.is_test
    return cell.is_run and is_ours


def grade(
    assignment: Assignment, entry: Entry, *, seed: int, limits: Limits, unsafe: bool = False
) -> dict[str, Any]:
    """The result of a submission, as plain data for JSON."""
    start = time.monotonic()
    tests, notes, written = [_result(test, "not run") for test in assignment.tests], [], []
    # The digest first: what changes while it is read is graded again.
    status, seen = "unreadable", digest(entry)
    try:
        handed_in = read(entry, assignment.name)
        notes = handed_in.notes
        cells = parse(handed_in.notebook, notes)
    except Unreadable as error:
        notes = [f"{error}; {LOOK}"]
    else:
        own = match(cells, assignment, notes)
        written = list(_written(own, assignment, notes))
        student = Student(
            [cell.source for cell in assignment.setup],
            handed_in.files,
            seed,
            limits,
            unsafe,
        )
        with closing(student):
            tests = _ask(student, own, assignment, seed)
        notes += _what_happened(student, own)
        states = [test["status"] for test in tests]
        status = (
            "crashed"
            if student.fatal or any(state in CRASHED for state in states)
            else "passed"
            if all(state == "passed" for state in states)
            else "failed"
        )
    if not sum(test["points"] for test in tests) and status != "unreadable":
        notes.append(f"no point at all; {LOOK}")
    notes = fold(notes)
    if unsafe:
        notes.insert(0, "graded WITHOUT a sandbox (--unsafe): the result can be forged")
    result = _record(assignment, entry, seed, unsafe, status, tests, notes)
    seconds = round(time.monotonic() - start, 3)
    return result | {"written": written, "digest": seen, "seconds": seconds}


def unfinished(
    assignment: Assignment, entry: Entry, seed: int, unsafe: bool, why: str
) -> dict[str, Any]:
    """The result of a submission whose grading did not come to an end."""
    tests = [_result(test, "not run") for test in assignment.tests]
    return _record(assignment, entry, seed, unsafe, "crashed", tests, [f"{why}; {LOOK}"])


def _record(
    assignment: Assignment,
    entry: Entry,
    seed: int,
    unsafe: bool,
    status: str,
    tests: list[dict[str, Any]],
    notes: list[str],
) -> dict[str, Any]:
    return {
        "assignment": assignment.name,
        "student": entry.student,
        "attempt": entry.attempt,
        "status": status,
        "points": sum(test["points"] for test in tests),
        "out_of": sum(test["out_of"] for test in tests),
        "out_of_by_hand": sum(cell.points for cell in assignment.written),
        "tests": tests,
        "written": [],
        "notes": notes,
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


# --- which cell is which --------------------------------------------------------------------


@dataclass(frozen=True)
class Own:
    """A student's cell, and the cell of the assignment that it answers to, if any."""

    cell: Cell
    of: Cell | None


def match(cells: list[Cell], assignment: Assignment, notes: list[str]) -> list[Own]:
    """Recognise cells by their grade ids, those without one by their first line."""
    known = {cell.grade_id: cell for cell in assignment.cells if cell.grade_id}
    lines = [_first_line(cell) for cell in known.values()]
    by_line = {
        _first_line(cell): cell
        for cell in known.values()
        if cell.kind == "code" and lines.count(_first_line(cell)) == 1
    }
    own, seen = [], set()
    for cell in cells:
        of = known.get(cell.grade_id)
        if cell.grade_id and of is None:
            notes.append(f"cell {cell.number} has an unknown id, {cut(cell.grade_id, 60)}")
        elif of is None and cell.kind == "code" and (of := by_line.get(_first_line(cell))):
            if of.is_answer:
                notes.append(f"cell {cell.number} has lost its id; taken for {of.grade_id}")
        if of is not None and of.is_answer and of.grade_id in seen:
            notes.append(f"{of.grade_id} occurs twice: the cells run in their order; {LOOK}")
        if of is not None and of.is_answer and of.kind != cell.kind:
            notes.append(f"{of.grade_id} is a {cut(cell.kind, 20)} cell, not {of.kind}; {LOOK}")
        if of is not None:
            seen.add(of.grade_id)
        own.append(Own(cell, of))
    for cell in assignment.cells:
        if cell.is_answer and cell.grade_id not in seen:
            notes.append(f"{cell.grade_id} is missing, or its id is; {LOOK}")
    if not seen:
        notes.append(f"no cell has an id of this assignment; {LOOK}")
    return own


def _first_line(cell: Cell) -> str:
    return next((line.strip() for line in cell.source.split("\n") if line.strip()), "")


def program(own: list[Own], assignment: Assignment, test: Cell) -> dict[int, str]:
    """The cells that run before a test, by number: a student's own up to the test's place.

    Set-up cells come from the source, each before the student's cells that follow it there; they
    have negative numbers. Test cells, and those tagged training or picture, are left out.
    """
    order = {cell.grade_id: i for i, cell in enumerate(assignment.cells) if cell.grade_id}
    place = order[test.grade_id]
    needed = [
        i for i, mine in enumerate(own) if mine.of is not None and order[mine.of.grade_id] <= place
    ]
    waiting = [
        (order[cell.grade_id], cell)
        for cell in assignment.cells[:place]
        if is_setup(cell) and cell not in assignment.setup
    ]
    cells: dict[int, str] = {}
    for mine in own[: max(needed) + 1] if needed else own:
        while mine.of is not None and waiting and waiting[0][0] < order[mine.of.grade_id]:
            at, cell = waiting.pop(0)
            cells[-at - 1] = cell.source
        runs = mine.of is None or mine.of.is_answer
        if runs and mine.cell.is_run:
            cells[mine.cell.number] = mine.cell.source
    return cells | {-at - 1: cell.source for at, cell in waiting}


def _written(own: list[Own], assignment: Assignment, notes: list[str]) -> Iterator[dict[str, Any]]:
    for task in assignment.written:
        texts = [mine.cell.source for mine in own if mine.of is task]
        text = "\n\n".join(texts)
        if len(text) > LONGEST_ANSWER:
            notes.append(
                f"{task.grade_id} has {len(text)} characters, cut for hand grading; {LOOK}"
            )
        text = cut(text, LONGEST_ANSWER)
        empty = not text.strip() or "YOUR ANSWER HERE" in text
        yield {
            "id": task.grade_id,
            "out_of": task.points,
            "text": text,
            "empty": empty,
        }


# --- asking ---------------------------------------------------------------------------------


def _ask(
    student: Student, own: list[Own], assignment: Assignment, seed: int
) -> list[dict[str, Any]]:
    def read_weights(path: str = "weights.npz") -> tuple[list[str], list[np.ndarray]]:
        return unpack_weights(student.files.get(path), path)

    names = Submission([]).tests_namespace()  # shared by the tests, as in the notebook
    names |= {"read_weights": read_weights}
    results = []
    for test in assignment.tests:
        start = time.monotonic()
        result = _result(test, "passed", points=test.points)

        def ask(call: Any, test: Cell = test) -> None:
            names["call"] = call
            with contextlib.redirect_stdout(None), contextlib.redirect_stderr(None), draws(seed):
                exec(compile(test.source, test.grade_id, "exec"), names)

        try:
            student.ask(program(own, assignment, test), ask)
        except Ended as error:
            result = _result(test, error.status, error.message)
        except NotAnswered as error:
            result = _result(test, "not answered", str(error))
        except CheckFailed as error:
            result = _result(test, "failed", str(error), hidden=_is_hidden(error, test))
        except Exception as error:  # a test that trips over an answer
            message = cut(f"the test stopped with {type(error).__name__}: {error}", LONGEST)
            result = _result(test, "failed", message, hidden=_is_hidden(error, test))
        results.append(result | {"seconds": round(time.monotonic() - start, 3)})
    return results


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


def _result(
    test: Cell, status: str, message: str = "", *, points: int = 0, hidden: bool = False
) -> dict[str, Any]:
    return {
        "id": test.grade_id,
        "title": test.title,
        "points": points,
        "out_of": test.points,
        "status": status,
        "message": message,
        "hidden": hidden,
        "seconds": 0.0,
    }


def _is_hidden(error: BaseException, test: Cell) -> bool:
    """Whether the line of the test cell that failed stands among its hidden tests."""
    lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if _is(at, test)]
    above = test.source.split("\n")[: (lines or [0])[0] or 0]
    begun = sum("BEGIN HIDDEN TESTS" in line for line in above)
    return begun > sum("END HIDDEN TESTS" in line for line in above)


def _is(frame: traceback.FrameSummary, test: Cell) -> bool:
    return frame.filename == test.grade_id and frame.name == "<module>"


def _what_happened(student: Student, own: list[Own]) -> list[str]:
    notes = []
    for number, why in sorted(student.stopped.items()):
        look = f"; {LOOK}" if number in student.fatal else ""
        notes.append(f"cell {number} stopped: {why}{look}")
    for number, magics in sorted(student.magics.items()):
        notes.append(f"cell {number}: left out {cut(', '.join(magics), 200)}")
    for mine in own:
        if mine.cell.kind == "code" and (names := _imports(mine.cell.source)):
            notes.append(f"cell {mine.cell.number} imports {cut(', '.join(names), 200)}; {LOOK}")
    return notes


def _imports(source: str) -> list[str]:
    try:
        return forbidden_imports(source[:LONGEST_SEARCHED])
    except (ValueError, RecursionError, MemoryError):  # no source that Python reads, either
        return []
