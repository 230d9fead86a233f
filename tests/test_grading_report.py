"""From results to grades, pages and back from hand grading; nothing of a student's gets through."""

from __future__ import annotations

import csv
import html.parser
import io
from pathlib import Path
from typing import Any

import pytest

from dgm_course.grading import by_hand, pages, report
from dgm_course.grading.grade import Assignment
from tests.grading import light

EVIL = "<script>alert(1)</script>=2+5\x1b[2J\x9b\u202e"


def result(student: str = "ann", attempt: str = "", **changes: Any) -> dict[str, Any]:
    test = {
        "id": "test-1",
        "title": "1 · softmax",
        "points": 3,
        "out_of": 3,
        "status": "passed",
        "message": "",
        "hidden": False,
        "seconds": 0.1,
    }
    written = {"id": "answer-4", "out_of": 2, "text": "22 steps", "empty": False}
    made = {
        "assignment": "light",
        "student": student,
        "attempt": attempt,
        "status": "passed",
        "points": 3,
        "out_of": 3,
        "out_of_by_hand": 2,
        "tests": [test],
        "written": [written],
        "notes": [],
        "unsafe": False,
    }
    return made | changes


def rows(text: str, tmp_path: Path) -> dict[str, dict[str, str]]:
    path = tmp_path / "students.csv"
    path.write_text(text)
    return report.read_students(path)


# --- grades -----------------------------------------------------------------------------------


def test_the_table_has_the_columns_that_nbgrader_exports(tmp_path: Path) -> None:
    plugin = pytest.importorskip("nbgrader.plugins.export")
    source = Path(plugin.__file__).read_text()
    names = [f'"{name}"' for name in report.COLUMNS]
    places = [source.index(name) for name in names]
    assert places == sorted(places)
    text = report.grades_csv(report.grades([result()], {}, {("ann", "answer-4"): 1.5}), "light")
    (row,) = csv.DictReader(io.StringIO(text))
    assert list(row) == list(report.COLUMNS)
    numbers = {name: float(row[name]) for name in report.COLUMNS[-4:]}
    assert numbers == {"raw_score": 4.5, "late_submission_penalty": 0, "score": 4.5, "max_score": 5}


def test_late_days_cost_what_the_table_says(tmp_path: Path) -> None:
    table = rows(
        "student_id,days_late,free_days,penalty_per_day,duedate,timestamp,last_name\n"
        "*,,2,0.5,2026-11-20T23:59,,\n"
        "ann,2.5,,,,,Lee\n"
        "bob,1,,,,,\n"
        "cid,,0,,,2026-11-22T00:00,\n"
        "dan,99,,,,,\n"
        "eve,,,,,,\n",
        tmp_path,
    )
    made = report.grades([result(name) for name in ("ann", "bob", "cid", "dan")], table, {})
    found = {grade.student: (grade.raw, grade.penalty, grade.score) for grade in made}
    assert found == {
        "ann": (3, 0.5, 2.5),
        "bob": (3, 0, 3),
        "cid": (3, 1.0, 2.0),
        "dan": (3, 3, 0),
        "eve": (0, 0, 0),
    }
    assert made[0].about["last_name"] == "Lee"
    assert "2.5 days late, 2 free: 0.5 points less" in made[0].remarks
    assert made[4].remarks == ["nothing handed in"]
    assert made[4].out_of == 5


def test_the_best_or_the_last_attempt_counts(tmp_path: Path) -> None:
    attempts = [
        result(name, str(i), points=points)
        for name in ("ann", "bob", "cid")
        for i, points in enumerate((1, 3, 2))
    ]
    table = rows(
        "student_id,keep,days_late,penalty_per_day\nbob,last,,\ncid/1,,2,1\ncid/2,,0,\n", tmp_path
    )
    made = report.grades(attempts, table, {})
    assert [grade.score for grade in made] == [3, 2, 2]
    assert [grade.result["attempt"] for grade in made if grade.result] == ["1", "2", "2"]
    assert made[0].remarks[-1] == "best of 3 attempts: 1"
    assert made[1].remarks[-1] == "last of 3 attempts: 2"


def test_an_override_replaces_the_score_and_shows_its_reason(tmp_path: Path) -> None:
    table = rows("student_id,override,reason\nann,4,appeal of 3 May\n", tmp_path)
    (grade,) = report.grades([result()], table, {})
    assert (grade.raw, grade.score) == (3, 4)
    assert "override of 3: appeal of 3 May" in grade.remarks
    assert "appeal of 3 May" in pages.class_report([grade], [result()], [])
    assert "appeal of 3 May" in pages.feedback(grade, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\nann\n", "expected columns"),
        ("student_id,points\nann,3\n", "got points"),
        ("student_id\nann\nann\n", "once, got 'ann'"),
        ("student_id,override\nann,3\n", "needs a reason"),
        ("student_id,override,reason\nann,x,y\n", "override of ann to be a number from 0, got 'x'"),
        ("student_id,days_late\nann,-1\n", "got '-1'"),
        ("student_id,days_late\nann,nan\n", "got 'nan'"),
        ("student_id,keep\nann,worst\n", "got 'worst'"),
        ("student_id,timestamp\nann,yesterday\n", "yesterday"),
        ("student_id,override,days_late,reason\nann,x,y,z\n", "days_late of ann .* got 'y'"),
    ],
)
def test_a_table_with_a_mistake_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        rows(text, tmp_path)


# --- what students wrote ----------------------------------------------------------------------


class Tags(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_pages_hold_no_tag_and_no_control_character_of_a_student() -> None:
    evil = result(EVIL, EVIL, status=EVIL, notes=[EVIL, f"{EVIL} needs a look"])
    evil["tests"][0] |= {"message": EVIL, "title": EVIL, "status": EVIL}
    evil["written"][0]["id"] = EVIL
    made = report.grades([evil, result(EVIL, "2")], {}, {})
    for page in (
        pages.class_report(made, [evil], [EVIL]),
        pages.feedback(made[0], {(report.key_of(evil), EVIL): EVIL}),
        pages.feedback(report.Grade(EVIL, None, 0, 0, 0, 0), {}),
    ):
        tags = Tags(page)
        assert "script" not in tags.found
        assert tags.attributes <= {"lang", "charset", "http-equiv", "content", "class", "style"}
        assert "alert(1)" in page
        assert all(c.isprintable() or c == "\n" for c in page)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\n=1", "\r=1"])
def test_no_cell_is_a_formula(text: str) -> None:
    (grade,) = report.grades([result(text)], {}, {})
    grade.about["email"] = text
    (row,) = csv.DictReader(io.StringIO(report.grades_csv([grade], "light")))
    for cell in row.values():
        assert not cell.lstrip().startswith(("=", "+", "-", "@", "\t", "\r"))


def test_hidden_tests_are_named_not_shown() -> None:
    one = result(status="failed")
    one["tests"][0] |= {"hidden": True, "message": "expected 42", "status": "failed", "points": 0}
    (grade,) = report.grades([one], {}, {})
    page = pages.feedback(grade, {})
    assert "42" not in page
    assert "1 · softmax" in page
    assert "hidden" in page


def test_the_class_report_says_whom_to_look_at() -> None:
    crashed = result("bob", status="crashed")
    crashed["tests"][0] |= {"status": "timed out", "message": "it took too long"}
    odd = result("cid", notes=["two notebooks; needs a look"])
    unsafe = result("dan", unsafe=True)
    results = [result(), crashed, odd, unsafe]
    page = pages.class_report(report.grades(results, {}, {}), results, ["notes.txt"])
    look = page.partition("To look at")[2]
    assert "it took too long" in look
    assert "two notebooks" in look
    assert ">ann<" not in look.partition("<h2>Late")[0]
    assert "Graded without a sandbox" in page
    assert "notes.txt" in page


# --- by hand ----------------------------------------------------------------------------------


def test_written_answers_go_out_and_points_come_back(tmp_path: Path) -> None:
    assignment = Assignment.read(light.write(light.source(), tmp_path / "light.ipynb"))
    out = tmp_path / "out"
    results = [result("ann"), result("=b", "2"), result("cid", written=[])]
    by_hand.hand_out(assignment, results, out)
    folder = out / "by_hand"
    assert "one for the number" in (folder / "answer-4" / "RUBRIC.txt").read_text()
    assert (folder / "answer-4" / "ann.txt").read_text() == "22 steps\n"
    table = (folder / "scores.csv").read_text()
    assert table.splitlines()[1:] == ["'=b/2,answer-4,2,,", "ann,answer-4,2,,"]
    (folder / "scores.csv").write_text(table.replace("ann,answer-4,2,,", "ann,answer-4,2,1.5,good"))
    by_hand.hand_out(assignment, [*results, result("dan")], out)  # a second run keeps it
    points, comments, _ = by_hand.take_back(assignment, results, out)
    assert points == {("ann", "answer-4"): 1.5}
    made = {grade.student: grade for grade in report.grades(results, {}, points)}
    assert made["ann"].score == 4.5
    assert made["=b"].remarks == ["1 written answers not graded yet"]
    assert "good" in pages.feedback(made["ann"], comments)


@pytest.mark.parametrize("points", ["3", "-1", "x", "nan"])
def test_points_by_hand_that_cannot_be_are_refused(points: str, tmp_path: Path) -> None:
    (tmp_path / "by_hand").mkdir()
    text = f"student_id,grade_id,max_points,points,comment\nann,answer-4,2,{points},\n"
    (tmp_path / "by_hand" / "scores.csv").write_text(text)
    with pytest.raises(ValueError, match="the points of ann"):
        by_hand.take_back(Assignment("light", [], ""), [], tmp_path)
