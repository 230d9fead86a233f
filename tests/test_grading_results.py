"""The folder of results: which of them count, and what becomes of a damaged one."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dgm_course.cli import main
from dgm_course.grading import batch, results, sandbox
from dgm_course.grading.batch import Batch, NotStored, run_seed
from dgm_course.grading.grade import Assignment, unfinished, versions
from dgm_course.grading.results import file_name
from dgm_course.grading.submissions import Entry, digest, find
from dgm_course.grading.walls import Limits
from tests.grading import light
from tests.test_grading_report import result

LIMITS = Limits(seconds=30, seconds_in_all=300)


class Class:
    """A folder of submissions whose grading is done: no call has anything to grade but changes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        self.assignment = Assignment.read(light.write_source(folder))

    def hand_in(self, *students: str, lot: str = "all") -> None:
        for student in students:
            light.write(light.submission(), self.folder / lot / student / "light.ipynb")

    def graded(self, entry: Entry, **changes: Any) -> dict[str, Any]:
        """A full result, as it would be of this submission."""
        rests_on = {"digest": digest(entry), "seed": 1}
        made = unfinished(self.assignment, entry, 1, False, "") | rests_on
        made |= {"versions": versions(), "limits": asdict(LIMITS), "notes": []}
        made["tests"] = [t | {"status": "passed", "points": t["out_of"]} for t in made["tests"]]
        own = result(entry.student)["written"]
        return made | {"status": "passed", "points": 8, "written": own} | changes

    def __call__(self, command: str, *options: str, lot: str = "all") -> Result:
        done = CliRunner().invoke(main, [*light.command(command, self.folder, lot), *options])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    def in_grades(self) -> list[str]:
        rows = (self.out / "grades.csv").read_text().splitlines()[1:]
        return [row.split(",")[3] for row in rows]

    def result_of(self, student: str) -> Path:
        return self.out / "results" / f"{file_name(student)}.json"


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Class:
    """Ann, bob and cid are graded; whoever comes is graded at once and in full."""
    made = Class(tmp_path)

    def run(self: Batch, entries: list[Entry], jobs: int) -> Any:
        for entry in entries:
            self.store(entry, made.graded(entry))
            yield "passed"

    monkeypatch.setattr(Batch, "run", run)
    monkeypatch.setattr(sandbox, "check", lambda: None)
    made.hand_in("ann", "bob", "cid")
    run_seed(made.out, "light", 1)
    assert made("grade").exit_code == 0
    return made


def written(course: Class) -> set[str]:
    return {path.name for path in (course.out / "by_hand" / "answer-4").glob("*.txt")}


# --- which count -------------------------------------------------------------------------------


def withdrawn(course: Class) -> None:
    shutil.rmtree(course.folder / "all" / "bob")


def renamed(course: Class) -> None:
    (course.folder / "all" / "bob").rename(course.folder / "all" / "bob2")


def a_second_attempt(course: Class) -> None:
    (course.folder / "all" / "bob").rename(course.folder / "all" / "1")
    (course.folder / "all" / "bob").mkdir()
    (course.folder / "all" / "1").rename(course.folder / "all" / "bob" / "1")
    light.write(light.submission(), course.folder / "all" / "bob" / "2" / "light.ipynb")


@pytest.mark.parametrize(
    ("change", "there"),
    [(withdrawn, []), (renamed, ["bob2"]), (a_second_attempt, ["bob@1", "bob@2"])],
)
@pytest.mark.parametrize("options", [[], ["--shard", "0/2"]])
def test_a_result_without_its_submission_is_set_aside_and_comes_back(
    change: Callable[[Class], None], there: list[str], options: list[str], course: Class
) -> None:
    scores = course.out / "by_hand" / "scores.csv"
    scores.write_text(scores.read_text().replace("bob,answer-4,2,,", "bob,answer-4,2,1.5,good"))
    change(course)
    done = course("grade", *options)
    done = course("grade") if not options else course("report")
    assert done.exit_code == 0, done.output
    assert "set aside, no submission now: bob\n" in done.output
    assert "line 3: bob has no answer-4 now; not counted" in done.output
    names = sorted(p.stem for p in (course.out / "results").glob("*.json"))
    assert "bob" not in names
    assert {"ann", "cid"} <= {*names}
    assert options or names == sorted(["ann", "cid", *there])
    assert course.in_grades() == sorted({name.partition("@")[0] for name in names})
    pages = {page.stem for page in (course.out / "feedback").iterdir()}
    assert pages == {*course.in_grades()}
    assert "bob.txt" not in written(course)
    report = (course.out / "report.html").read_text()
    assert "bob" in report.partition("Set aside")[2]
    assert f"{len(names)} submissions" in report
    for name in there:
        shutil.rmtree(course.folder / "all" / name.partition("@")[0], ignore_errors=True)
    course.hand_in("bob")
    back = course("grade")
    assert "3 of 3 are graded already" in back.output
    assert "set aside" not in back.output or there
    assert course.in_grades() == ["ann", "bob", "cid"]
    row = (course.out / "grades.csv").read_text().splitlines()[2].split(",")
    assert float(row[7]) == 9.5


def test_a_folder_that_becomes_an_archive_keeps_its_grade(course: Class) -> None:
    bob = course.folder / "all" / "bob"
    shutil.make_archive(str(bob), "zip", bob)
    shutil.rmtree(bob)
    done = course("grade")
    assert "2 of 3 are graded already" in done.output  # what it rests on are the bytes
    assert "set aside" not in done.output
    assert course.in_grades() == ["ann", "bob", "cid"]


def test_shards_set_nothing_of_each_other_aside(course: Class) -> None:
    course.hand_in("dan", "eve")
    for i in (0, 1):
        assert course("grade", "--shard", f"{i}/2").exit_code == 0
    done = course("report")
    assert "set aside" not in done.output
    assert course.in_grades() == ["ann", "bob", "cid", "dan", "eve"]


def test_another_folder_is_added_or_refused(course: Class) -> None:
    course.hand_in("dan", lot="more")
    refused = course("grade", lot="more")
    assert refused.exit_code == 1
    assert "give --add" in refused.output
    assert course("grade", "--add", lot="more").exit_code == 0
    assert course.in_grades() == ["ann", "bob", "cid", "dan"]
    withdrawn(course)
    assert "set aside, no submission now: bob" in course("grade", "--add").output
    assert course.in_grades() == ["ann", "cid", "dan"]
    course.hand_in("ann", lot="more")
    twice = course("grade", "--add", lot="more")
    assert twice.exit_code == 1
    assert "each submission in one folder, got ann in" in twice.output
    assert course.in_grades() == ["ann", "cid", "dan"]


def test_a_new_download_of_the_same_class_takes_the_place_of_the_old(course: Class) -> None:
    course.hand_in("ann", "cid", "dan", lot="new")
    assert "set aside, no submission now: bob" in course("grade", lot="new").output
    assert course.in_grades() == ["ann", "cid", "dan"]


# --- what a result rests on ---------------------------------------------------------------------


def test_a_result_that_met_its_limits_rests_on_them(course: Class) -> None:
    entries, _ = find(course.folder / "all")
    run = Batch(course.assignment, course.out, 1, LIMITS)
    for entry, status in zip(entries, ("crashed", "failed", "passed"), strict=True):
        run.store(entry, course.graded(entry, status=status))
    assert run.waiting(entries) == []
    for seconds in (60, 10):
        run.limits = Limits(seconds=seconds, seconds_in_all=10 * seconds)
        assert [entry.student for entry in run.waiting(entries)] == ["ann"]


def test_another_version_of_the_course_grades_again(course: Class) -> None:
    entries, _ = find(course.folder / "all")
    run = Batch(course.assignment, course.out, 1, LIMITS)
    old = {**versions(), "dgm_course": "0.0"}
    run.store(entries[0], course.graded(entries[0], versions=old))
    assert run.waiting(entries) == entries[:1]
    run.store(entries[0], course.graded(entries[0], versions={**versions(), "numpy": "1.0"}))
    assert run.waiting(entries) == []
    assert "different versions: python" in course("report").output
    assert "numpy 1.0" in (course.out / "report.html").read_text()


# --- damage --------------------------------------------------------------------------------------

DAMAGE: dict[str, bytes | None] = {
    "empty": b"",
    "null": b"null",
    "a list": b"[]",
    "a number": b"5",
    "truncated": b'{"assignment": "light", "stu',
    "of another form": b'{"assignment": "light", "student": "bob"}',
    "too deep": b"[" * 100_000,
    "not text": b"\xff\xfe\x00",
    "a folder": None,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_result_is_one_students_and_is_graded_again(name: str, course: Class) -> None:
    path = course.result_of("bob")
    path.unlink()
    if (data := DAMAGE[name]) is None:
        path.mkdir()
    else:
        path.write_bytes(data)
    done = course("report")
    assert done.exit_code == 0, done.output
    assert "to look at: bob" in done.output
    assert course.in_grades() == ["ann", "bob", "cid"]
    assert "bob.json" in (course.out / "report.html").read_text().partition("To look at")[2]
    if data is None:
        path.rmdir()
    again = course("grade")
    assert "2 of 3 are graded already" in again.output
    assert "to look at" not in again.output
    assert (course.out / "grades.csv").read_text().count(",8.0,10.0") == 3


@pytest.mark.parametrize(
    "change",
    [
        {"points": "8"},
        {"points": None},
        {"points": float("nan")},
        {"tests": [{"id": "test-1"}]},
        {"tests": {}},
        {"written": [None]},
        {"notes": "none"},
        {"student": 5},
        {"student": "ann"},
        {"unsafe": 0},
    ],
)
def test_a_result_with_another_form_is_damaged(change: dict[str, Any], course: Class) -> None:
    path = course.result_of("bob")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=r"bob\.json: expected"):
        results.read_result(path)
    assert "to look at: bob" in course("report").output


@pytest.mark.parametrize("text", ["", "null", "{}", '{"assignment": "light", "seed": "1"}', "{"])
def test_a_record_of_the_run_is_made_again_from_the_results(text: str, course: Class) -> None:
    (course.out / "run.json").write_text(text)
    done = course("grade")
    assert done.exit_code == 0, done.output
    assert "3 of 3 are graded already" in done.output
    assert json.loads((course.out / "run.json").read_text())["seed"] == 1


def test_a_record_that_the_results_contradict_is_refused(course: Class) -> None:
    path = course.result_of("bob")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": 2}))
    (course.out / "run.json").write_text("")
    refused = course("grade")
    assert refused.exit_code == 1
    assert "several seeds" in refused.output


@pytest.mark.parametrize(
    "place",
    [
        "feedback/bob.html",
        "by_hand/answer-4/bob.txt",
        "by_hand/answer-4/RUBRIC.txt",
        "report.html",
        "grades.csv",
    ],
)
def test_a_page_that_cannot_be_written_is_named_and_the_others_are_there(
    place: str, course: Class
) -> None:
    path = course.out / place
    path.unlink()
    path.mkdir()
    others = [*course.out.glob("feedback/*.html"), *course.out.glob("*.csv")]
    others = [other for other in others if other.is_file()]
    for other in others:
        other.unlink()
    done = course("report")
    assert done.exit_code == 1
    assert f"{path} cannot be written" in done.output
    assert all(other.is_file() for other in others)


@pytest.mark.parametrize("place", ["run.json", "by_hand/scores.csv"])
def test_a_folder_in_a_files_place_is_named(place: str, course: Class) -> None:
    (course.out / place).unlink()
    (course.out / place).mkdir()
    refused = course("grade")
    assert refused.exit_code == 1
    assert place.rpartition("/")[2] in refused.output


def test_a_table_that_is_open_elsewhere_is_named_and_the_grades_are_made(
    course: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows refuses to replace a file that a spreadsheet has open."""
    replace = os.replace

    def refuse(path: Path, to: Path) -> None:
        if Path(to).name == "scores.csv":
            raise PermissionError(errno.EACCES, "Permission denied")
        replace(path, to)

    course.hand_in("dan")
    before = (course.out / "by_hand" / "scores.csv").read_bytes()
    monkeypatch.setattr(os, "replace", refuse)
    done = course("grade")
    assert done.exit_code == 1
    assert "scores.csv cannot be written: Permission denied; is it open" in done.output
    assert (course.out / "by_hand" / "scores.csv").read_bytes() == before
    assert course.in_grades() == ["ann", "bob", "cid", "dan"]


@pytest.mark.parametrize("place", ["set_aside", "feedback", "by_hand/answer-4"])
def test_a_file_in_a_folders_place_is_named(place: str, course: Class) -> None:
    shutil.rmtree(course.out / place, ignore_errors=True)
    (course.out / place).write_text("")
    withdrawn(course)
    refused = course("grade")
    assert refused.exit_code == 1
    assert place in refused.output


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_stops_the_run_with_a_sentence(
    course: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    course.hand_in("dan")
    monkeypatch.setattr(os, "fsync", full)
    stopped = course("grade")
    assert stopped.exit_code == 1
    assert "No space left on device; the same command goes on from here" in stopped.output
    monkeypatch.undo()
    assert not [path for path in course.out.rglob(".*")]
    assert course.in_grades() == ["ann", "bob", "cid"]


def test_a_result_that_cannot_be_stored_is_named_and_the_others_go_on(course: Class) -> None:
    """Where a grading process ended without one."""
    entries, _ = find(course.folder / "all")
    run = Batch(course.assignment, course.out, 1, LIMITS)
    path = course.result_of("bob")
    path.unlink()
    path.mkdir()
    statuses = [run._status(entry, code) for entry, code in zip(entries, (0, 1, 1), strict=True)]
    assert statuses == ["passed", "crashed", "crashed"]
    (problem,) = run.problems
    assert f"{path} cannot be written: Is a directory" in problem
    assert "exit code 1" in json.loads(course.result_of("cid").read_text())["notes"][0]
    assert run.waiting(entries) == entries[1:]


def test_whatever_stops_a_grader_is_its_submissions_alone(
    course: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "grade", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(batch.resource, "setrlimit", lambda *_: None)
    monkeypatch.setattr(batch.ctypes, "CDLL", lambda _: type("C", (), {"prctl": lambda *_: None}))
    (entry,) = (e for e in find(course.folder / "all")[0] if e.student == "bob")
    batch._job(Batch(course.assignment, course.out, 1, LIMITS), entry)
    stored = json.loads(course.result_of("bob").read_text())
    assert "the grader stopped with ZeroDivisionError" in stored["notes"][0]
    assert "1 / 0" in stored["trace"]
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SystemExit):
        batch._job(Batch(course.assignment, course.out, 1, LIMITS), entry)
    with pytest.raises(NotStored, match="No space left"):
        Batch(course.assignment, course.out, 1, LIMITS)._status(entry, 1)
