"""Written answers: to a folder for hand grading with their rubrics, and back from a table.

``by_hand/TASK/STUDENT.txt`` holds the answers and ``by_hand/TASK/RUBRIC.txt`` what to look for;
``by_hand/scores.csv`` has a row for each answer, to be filled in. Rows are added to it, and nothing
else in it is ever changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path

from dgm_course.grading.grade import Assignment
from dgm_course.grading.report import Result, key_of
from dgm_course.grading.results import file_name, write_whole
from dgm_course.grading.tables import (
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
) -> None:
    """Write what is to be graded by hand.

    Raises:
        ValueError: if the table of points is not understood; then nothing is written.
    """
    folder = out / "by_hand"
    table, rows = _read(folder / "scores.csv", assignment)
    for task in assignment.written:
        rubric = MARKERS.sub("", task.source).strip()
        write(folder / task.grade_id / "RUBRIC.txt", f"{task.points} points\n\n{rubric}\n")
    new = {}
    for result in results:
        for task in result["written"]:
            if task["empty"]:
                continue
            name = f"{file_name(result['student'], result['attempt'])}.txt"
            write(folder / task["id"] / name, printable(task["text"]) + "\n")
            key = key_of(result), task["id"]
            if key not in rows:
                cells = (*key, str(task["out_of"]), "", "")
                new[key] = dict(zip(COLUMNS, cells, strict=True))
    added = [new[key] for key in sorted(new)]
    if table is None:
        write(folder / "scores.csv", csv_text(COLUMNS, added))
    elif added:
        write(folder / "scores.csv", table.with_rows(added))


def take_back(
    out: Path, assignment: Assignment | None = None
) -> tuple[dict[Key, float], dict[Key, str]]:
    """The points that are filled in, and the comments.

    Args:
        assignment: says how many points there are for a task; else the table does.

    Raises:
        ValueError: if points are no number or more than there are, or two rows of one answer
            differ.
    """
    _, rows = _read(out / "by_hand" / "scores.csv", assignment)
    points = {key: row.points for key, row in rows.items() if row.points is not None}
    return points, {key: row.comment for key, row in rows.items() if row.comment}


def strangers(out: Path, assignment: Assignment, results: list[Result]) -> list[str]:
    """Rows that are filled in and belong to no answer that there is, each with its line."""
    path = out / "by_hand" / "scores.csv"
    _, rows = _read(path, assignment)
    known = {(key_of(result), task["id"]) for result in results for task in result["written"]}
    return [
        f"{path}, line {row.line}: {student} has no {task} now; not counted"
        for (student, task), row in rows.items()
        if (student, task) not in known and (row.points is not None or row.comment)
    ]


def _read(path: Path, assignment: Assignment | None) -> tuple[Table | None, dict[Key, Row]]:
    """The table, None if there is none yet, and what is filled in for each answer."""
    if not path.exists():
        return None, {}
    table = read_table(path, {"student_id", "grade_id", "points"})
    most = {task.grade_id: float(task.points) for task in assignment.written} if assignment else {}
    rows: dict[Key, Row] = {}
    for line, cells in table.records(COLUMNS):
        student, task, largest, points, comment = (cells[name] for name in COLUMNS)
        if not (student and task) and not points:
            continue  # a line of the person's own
        try:
            if not (student and task):
                raise ValueError(f"expected a student_id and a grade_id of the points {points}")
            bound = most.get(task, number(largest, f"max_points of {task}") if largest else inf)
            what = f"the points of {student} for {task}"
            row = Row(line, number(points, what, bound) if points else None, comment)
        except ValueError as error:
            raise ValueError(f"{table.at(line)}: {error}") from error
        key = clean(harmless(student)), task
        other = rows.setdefault(key, row)
        if (other.points, other.comment) != (row.points, row.comment):
            raise ValueError(
                f"{table.at(line)}: expected one row of {student} for {task}, "
                f"got another than in line {other.line}"
            )
    return table, rows
