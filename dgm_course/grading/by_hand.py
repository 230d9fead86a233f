"""Written answers: to a folder for hand grading with their rubrics, and back from a table.

``by_hand/TASK/STUDENT.txt`` holds the answers and ``by_hand/TASK/RUBRIC.txt`` what to look for;
``by_hand/scores.csv`` has a row for each answer, to be filled in. Rows that are filled in stay.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

from dgm_course.grading.batch import file_name, write_whole
from dgm_course.grading.grade import Assignment
from dgm_course.grading.report import Result, key_of, number, printable, table

COLUMNS = ["student_id", "grade_id", "max_points", "points", "comment"]
MARKERS = re.compile(r"^### (BEGIN|END) (SOLUTION|MARK SCHEME)\n?", re.MULTILINE)


def hand_out(assignment: Assignment, results: list[Result], out: Path) -> None:
    """Write what is to be graded by hand."""
    folder = out / "by_hand"
    for task in assignment.written:
        rubric = MARKERS.sub("", task.source).strip()
        write_whole(folder / task.grade_id / "RUBRIC.txt", f"{task.points} points\n\n{rubric}\n")
    rows = {(row["student_id"], row["grade_id"]): row for row in _rows(folder / "scores.csv")}
    for result in results:
        for task in result["written"]:
            if task["empty"]:
                continue
            name = f"{file_name(result['student'], result['attempt'])}.txt"
            write_whole(folder / task["id"] / name, printable(task["text"]) + "\n")
            key = key_of(result), task["id"]
            new = dict(zip(COLUMNS, (*key, str(task["out_of"]), "", ""), strict=True))
            rows.setdefault(key, new)
    write_whole(folder / "scores.csv", table(COLUMNS, [rows[key] for key in sorted(rows)]))


Filled = dict[tuple[str, str], Any]  # by submission and task


def take_back(out: Path) -> tuple[Filled, Filled]:
    """The points that are filled in, and the comments.

    Raises:
        ValueError: if points are no number, or more than there are.
    """
    points, comments = {}, {}
    for row in _rows(out / "by_hand" / "scores.csv"):
        what = f"the points of {row['student_id']} for {row['grade_id']}"
        if row["comment"].strip():
            comments[row["student_id"], row["grade_id"]] = row["comment"]
        if not row["points"].strip():
            continue
        value = number(row["points"].replace(",", "."), what)
        if value > float(row["max_points"]):
            raise ValueError(f"expected {what} to be at most {row['max_points']}, got {value:g}")
        points[row["student_id"], row["grade_id"]] = value
    return points, comments


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with open(path, encoding="utf-8-sig", newline="") as file:
        return [{name: row.get(name) or "" for name in COLUMNS} for row in csv.DictReader(file)]
