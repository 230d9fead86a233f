"""From the results of many submissions to grades: one row a student, as nbgrader exports them.

What the course decides beyond the tests (late days, which attempt counts, overrides) comes from one
table, ``--students FILE.csv``; docs/teaching/grading.md says what its columns mean.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dgm_course.grading.tables import clean, csv_text, harmless, number, read_table

# nbgrader 0.9.6, plugins/export.py
COLUMNS = (
    "assignment,duedate,timestamp,student_id,last_name,first_name,email,"
    "raw_score,late_submission_penalty,score,max_score"
).split(",")
RULES = "days_late,free_days,penalty_per_day,keep,override,reason".split(",")
Result = dict[str, Any]
Rows = Mapping[str, Mapping[str, str]]


@dataclass
class Grade:
    """A student's grade, the attempt that it rests on (None: nothing was handed in), and why."""

    student: str
    result: Result | None
    by_hand: float
    penalty: float
    score: float
    out_of: float
    about: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def raw(self) -> float:
        return (self.result["points"] if self.result else 0.0) + self.by_hand


def read_students(path: Path) -> dict[str, dict[str, str]]:
    """The table of students, by their ids.

    Raises:
        ValueError: if a column is unknown, a row is double, a number or a date is none, or an
            override has no reason.
    """
    table = read_table(path, {"student_id"})
    known = {*COLUMNS, *RULES, ""}
    if unknown := ", ".join(sorted({*table.header} - known)):
        raise ValueError(f"{path}: expected columns of {sorted(known - {''})}, got {unknown}")
    rows: dict[str, dict[str, str]] = {}
    for line, cells in table.records([name for name in table.header if name]):
        row = {name: cell for name, cell in cells.items() if cell}
        student = row.pop("student_id", "")
        try:
            if not student or student in rows:
                raise ValueError(f"expected each student_id once, got {student!r} again")
            rows[student] = _checked(student, row)
        except ValueError as error:
            raise ValueError(f"{table.at(line)}: {error}") from error
    return rows


def _checked(student: str, row: dict[str, str]) -> dict[str, str]:
    """A student's row with numbers as Python writes them.

    Raises:
        ValueError: if it holds what cannot be.
    """
    if row.get("override") and not row.get("reason"):
        raise ValueError(f"the override of {student} needs a reason")
    if "keep" in row:
        row["keep"] = row["keep"].lower()
        if row["keep"] not in ("best", "last"):
            raise ValueError(f"expected keep to be best or last, got {row['keep']!r}")
    for name in sorted({"days_late", "free_days", "penalty_per_day", "override"} & {*row}):
        row[name] = str(number(row[name], f"{name} of {student}"))
    for name in sorted({"duedate", "timestamp"} & {*row}):
        try:
            _date(row[name])
        except ValueError:
            what = f"{name} of {student} to be a date as 2026-11-20 or 2026-11-20T23:59"
            raise ValueError(f"expected {what}, got {row[name]!r}") from None
    return row


def grades(
    results: list[Result], rows: Rows, by_hand: Mapping[tuple[str, str], float]
) -> list[Grade]:
    """One grade a student: of those with a result, and of those in the table without one.

    Args:
        rows: of `read_students`.
        by_hand: points of written answers, by `key_of` their submission and by task.
    """
    attempts = defaultdict(list)
    for result in results:
        attempts[result["student"]].append(result)
    listed = {student.partition("/")[0] for student in rows} - {"*"}
    made = []
    for student in sorted({*attempts, *listed}):
        graded = [_grade(student, result, rows, by_hand) for result in attempts[student]]
        rule = {**rows.get("*", {}), **rows.get(student, {})}
        if not graded:
            out_of = max((r["out_of"] + r["out_of_by_hand"] for r in results), default=0.0)
            graded = [Grade(student, None, 0.0, 0.0, 0.0, out_of, rule, ["nothing handed in"])]
        # Of equal attempts the later one, as it is what the student meant in the end.
        last = rule.get("keep", "best") == "last"
        best = graded[-1] if last else max(reversed(graded), key=lambda g: g.score)
        if len(graded) > 1:
            which = best.result["attempt"] if best.result else ""
            best.remarks.append(f"{'last' if last else 'best'} of {len(graded)} attempts: {which}")
        if rule.get("override"):
            best.remarks.append(f"override of {best.score:g}: {rule['reason']}")
            best.score = float(rule["override"])
        made.append(best)
    return made


def _grade(
    student: str, result: Result, rows: Rows, by_hand: Mapping[tuple[str, str], float]
) -> Grade:
    keys = ("*", student, f"{student}/{result['attempt']}")
    rule = {name: text for key in keys for name, text in rows.get(key, {}).items()}
    remarks = []
    key = key_of(result)
    scores = [(by_hand.get((key, task["id"])), task["empty"]) for task in result["written"]]
    if missing := sum(score is None and not empty for score, empty in scores):
        remarks.append(f"{missing} written answers not graded yet")
    hand = sum(score or 0.0 for score, _ in scores)
    days = _days_late(rule)
    free = float(rule.get("free_days") or 0)
    raw = result["points"] + hand
    penalty = min(raw, math.ceil(max(0.0, days - free)) * float(rule.get("penalty_per_day") or 0))
    if days > 0:
        remarks.append(f"{days:g} days late, {free:g} free: {penalty:g} points less")
    out_of = result["out_of"] + result["out_of_by_hand"]
    return Grade(student, result, hand, penalty, raw - penalty, out_of, rule, remarks)


def _days_late(rule: Mapping[str, str]) -> float:
    if rule.get("duedate") and rule.get("timestamp") and not rule.get("days_late"):
        due, came = (_date(rule[name]) for name in ("duedate", "timestamp"))
        return max(0.0, (came - due).total_seconds() / 86400)
    return float(rule.get("days_late") or 0)


def _date(text: str) -> datetime:
    date = datetime.fromisoformat(text)
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def key_of(result: Result) -> str:
    """A submission's name in tables: the student, and the attempt if there are several."""
    attempt = f"/{result['attempt']}" if result["attempt"] else ""
    return clean(harmless(result["student"] + attempt))


def versions(results: list[Result]) -> list[str]:
    """That results were made with different versions of what they may depend on, if they were."""
    made = sorted({", ".join(f"{k} {v}" for k, v in r["versions"].items()) for r in results})
    return [f"results were made with different versions: {'; '.join(made)}"] if made[1:] else []


def grades_csv(made: list[Grade], assignment: str) -> str:
    """The table that `nbgrader export` writes."""
    rows = []
    for grade in made:
        numbers = (grade.raw, grade.penalty, grade.score, grade.out_of)
        row = dict(zip(COLUMNS[-4:], (str(float(n)) for n in numbers), strict=True))
        row |= {"assignment": assignment, "student_id": grade.student}
        rows.append({name: grade.about.get(name, "") for name in COLUMNS} | row)
    return csv_text(COLUMNS, rows)
