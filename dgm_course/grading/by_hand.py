"""Written answers: to a folder for hand grading with their rubrics, and back from a table.

``by_hand/TASK/STUDENT.txt`` holds the answers and ``by_hand/TASK/RUBRIC.txt`` what to look for;
``by_hand/scores.csv`` has a row for each answer, to be filled in. Rows are added to it, and nothing
else in it is ever changed. A text in which a person has written stays as it is, or, if there is
another one to hand out, beside it. ``by_hand/handed_out.json`` remembers what was written, and
which answer points were given for.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from math import inf
from pathlib import Path
from typing import Any

from dgm_course.files import write_whole
from dgm_course.grading.grade import Assignment
from dgm_course.grading.report import Result, key_of
from dgm_course.grading.results import file_name, wrong_in
from dgm_course.grading.tables import (
    NUMBER,
    Table,
    clean,
    csv_text,
    harmless,
    number,
    printable,
    read_table,
)

COLUMNS = ["student_id", "grade_id", "max_points", "points", "comment"]
MARKERS = re.compile(r"^### (BEGIN|END) (SOLUTION|MARK SCHEME)\n?", re.MULTILINE)
Key = tuple[str, str]  # a submission, as in `key_of`, and a task
Write = Callable[[Path, str | bytes], None]


@dataclass(frozen=True)
class Row:
    """What a person filled in: points (None: nothing yet) and a comment."""

    line: int
    points: float | None
    comment: str


def hand_out(
    assignment: Assignment, results: list[Result], out: Path, write: Write = write_whole
) -> list[str]:
    """Write what is to be graded by hand; the answers that have changed since they were graded.

    Raises:
        ValueError: if the table of points is not understood; then nothing is written.
    """
    folder, changed, new = out / "by_hand", [], {}
    table, rows = _read(folder / "scores.csv", assignment, results)
    memory = _Memory(folder, write)
    for task in assignment.written:
        rubric = MARKERS.sub("", task.source).strip()
        memory.put(f"{task.grade_id}/RUBRIC.txt", f"{task.points} points\n\n{rubric}\n")
    for result in results:
        for task in result["written"]:
            name = f"{task['id']}/{file_name(result['student'], result['attempt'])}.txt"
            text = "" if task["empty"] else printable(task["text"]) + "\n"
            key = key_of(result), task["id"]
            if key in rows and memory.is_graded_for_another(name, text, rows[key]):
                what = "has changed since it was graded by hand: change its points or comment"
                changed.append(f"{key[0]}: {key[1]} {what}")
            if text:
                memory.put(name, text)
            if text and key not in rows:
                cells = (*key, str(task["out_of"]), "", "")
                new[key] = dict(zip(COLUMNS, cells, strict=True))
    added = [new[key] for key in sorted(new)]
    if added or not table.path.exists():
        write(table.path, table.with_rows(added))
    memory.keep()
    return changed


class _Memory:
    """What was handed out until now, and what points were given for: ``handed_out.json``."""

    def __init__(self, folder: Path, write: Write) -> None:
        self.folder, self.write = folder, write
        known: dict[str, dict[str, Any]] = {"texts": {}, "graded": {}}
        with contextlib.suppress(OSError, ValueError, RecursionError):
            found = json.loads((folder / "handed_out.json").read_bytes())
            known = known if wrong_in(found, known) else found
        self.texts, self.graded = known["texts"], known["graded"]

    def put(self, name: str, text: str) -> None:
        """Write a text, unless it stands there, maybe with what a person wrote into it."""
        path, before = self.folder / name, self.texts.get(name)
        self.texts[name] = _digest(text)
        try:
            here = path.read_bytes().decode(errors="replace")
        except OSError:
            here = ""
        is_edited = here and _digest(here) != before
        if here == text or (is_edited and self.texts[name] == before):
            return
        if is_edited:
            free = (path.with_name(f"{path.stem} (before {n}).txt") for n in count(1))
            self.write(next(kept for kept in free if not kept.exists()), here)
        self.write(path, text)

    def is_graded_for_another(self, name: str, text: str, row: Row) -> bool:
        """Whether points were given while another text was there than this."""
        if row.points is None:
            return False
        now, given = _digest(text), [row.points, row.comment]
        if self.graded.get(name, [])[:2] != given:
            self.graded[name] = [*given, self.texts.get(name, now)]
        return self.graded[name][2] != now

    def keep(self) -> None:
        known = {"texts": self.texts, "graded": self.graded}
        self.write(self.folder / "handed_out.json", json.dumps(known, indent=1))


def _digest(text: str) -> str:
    return sha256(text.encode(errors="replace")).hexdigest()


def take_back(
    assignment: Assignment, results: list[Result], out: Path
) -> tuple[dict[Key, float], dict[Key, str], list[str]]:
    """The points that are filled in, the comments, and the rows that belong to no answer now.

    Raises:
        ValueError: if points are no number or more than there are, or two rows of one answer
            differ.
    """
    path = out / "by_hand" / "scores.csv"
    _, rows = _read(path, assignment, results)
    known = _answers(results)
    points = {key: row.points for key, row in rows.items() if row.points is not None}
    comments = {key: row.comment for key, row in rows.items() if row.comment}
    strangers = [
        f"{path}, line {row.line}: {student} has no {task} now; not counted"
        for (student, task), row in rows.items()
        if (student, task) in {*points, *comments} - known
    ]
    return points, comments, strangers


def _answers(results: list[Result]) -> set[Key]:
    return {(key_of(result), task["id"]) for result in results for task in result["written"]}


def _read(
    path: Path, assignment: Assignment, results: list[Result]
) -> tuple[Table, dict[Key, Row]]:
    """The table, without rows if there is none yet, and what is filled in for each answer.

    Args:
        assignment: says how many points there are for a task.
        results: say whose number a spreadsheet has written without its zeros.
    """
    if not path.exists():
        return Table(path, COLUMNS, [], text=csv_text(COLUMNS, [])), {}
    table = read_table(path, {"student_id", "grade_id", "points"})
    most = {task.grade_id: float(task.points) for task in assignment.written}
    rows: dict[Key, Row] = {}
    for line, cells in table.records(COLUMNS):
        student, task, largest, points, comment = (cells[name] for name in COLUMNS)
        if not (student and task) and not points:
            continue  # a line of the person's own
        try:
            if not (student and task):
                raise ValueError(f"expected a student_id and a grade_id of the points {points}")
            bound = most.get(task, number(largest, f"max_points of {task}") if largest else inf)
            if NUMBER.fullmatch(comment):  # "1,5" without quotes, or a cell too far to the right
                raise ValueError(
                    f"expected words as the comment on {student} for {task}, got {comment!r}"
                )
            what = f"the points of {student} for {task}"
            row = Row(line, number(points, what, bound) if points else None, comment)
            other = rows.setdefault((clean(harmless(student)), task), row)
            if (other.points, other.comment) != (row.points, row.comment):
                came = f"got another than in line {other.line}"
                raise ValueError(f"expected one row of {student} for {task}, {came}")
        except ValueError as error:
            raise ValueError(f"{table.at(line)}: {error}") from error
    known = _answers(results)
    for student, task in {*rows} - known:  # "007" comes back as 7
        lost = known - {*rows}
        same = [key for key in lost if (key[0].lstrip("0"), key[1]) == (student, task)]
        if len(same) == 1:
            rows[same[0]] = rows.pop((student, task))
    return table, rows
