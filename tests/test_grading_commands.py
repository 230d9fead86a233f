"""dgm assignment grade and report, as an assistant uses them."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dgm_course.cli import main
from dgm_course.grading import commands, sandbox, walls
from tests.grading import light
from tests.needs import needs

Dgm = Callable[..., Result]


@pytest.fixture
def dgm(tmp_path: Path) -> Dgm:
    """``dgm assignment COMMAND light ...`` on the folder of the test, where ann and bob are."""
    light.write_source(tmp_path)
    for student in ("ann", "bob"):
        light.write(light.submission(), tmp_path / "all" / student / "light.ipynb")

    def run(command: str, *options: str) -> Result:
        return CliRunner().invoke(main, [*light.command(command, tmp_path), *options])

    return run


def results(tmp_path: Path) -> dict[str, float]:
    found = [json.loads(p.read_text()) for p in (tmp_path / "out" / "results").glob("*.json")]
    return {result["student"]: result["points"] for result in found}


@needs("bubblewrap")
def test_a_second_call_grades_what_is_new_or_changed(dgm: Dgm, tmp_path: Path) -> None:
    first = dgm("grade")
    assert first.exit_code == 0, first.output
    assert "2 passed, 0 failed, 0 crashed" in first.output
    assert "graded already" not in first.output
    again = dgm("grade")
    assert "2 of 2 are graded already" in again.output
    light.write(light.submission(answer_1="x = 1"), tmp_path / "all" / "bob" / "light.ipynb")
    light.write(light.submission(), tmp_path / "all" / "cid.ipynb")
    changed = dgm("grade")
    assert "1 of 3 are graded already" in changed.output
    assert results(tmp_path) == {"ann": 8, "bob": 5, "cid": 8}
    one = dgm("grade", "--student", "ann")
    assert "1 passed, 0 failed" in one.output
    assert "graded already" not in one.output
    source = tmp_path / "assignments" / "light" / "source" / "light.ipynb"
    source.write_text(source.read_text() + " ")
    assert "graded already" not in dgm("grade").output
    assert (tmp_path / "out" / "grades.csv").read_text().count("light,") == 3


@needs("bubblewrap")
def test_of_a_new_download_what_has_changed_is_graded(dgm: Dgm, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "all")
    students = {"Ann Lee_11": light.submission(), "Bob_12": light.submission(answer_1="x = 1")}
    tree = {f"{name}_assignsubmission_file_/light.ipynb": made for name, made in students.items()}

    def download() -> None:
        with zipfile.ZipFile(tmp_path / "all", "w") as archive:
            for name, made in tree.items():
                archive.writestr(name, json.dumps(made))
            archive.writestr("Cid_13_assignsubmission_file_/light.rar", b"Rar!")

    download()
    assert "1 passed, 1 failed, 1 crashed" in dgm("grade").output
    assert results(tmp_path) == {"Ann Lee_11": 8, "Bob_12": 5, "Cid_13": 0}
    tree["Bob_12_assignsubmission_file_/light.ipynb"] = light.submission()
    download()
    again = dgm("grade")
    assert "2 of 3 are graded already" in again.output
    assert results(tmp_path) == {"Ann Lee_11": 8, "Bob_12": 8, "Cid_13": 0}
    assert "ask for a zip" in (tmp_path / "out" / "report.html").read_text()
    rows = (tmp_path / "out" / "grades.csv").read_text().splitlines()[1:]
    assert [row.split(",")[3] for row in rows] == ["Ann Lee_11", "Bob_12", "Cid_13"]


def test_what_is_no_archive_is_refused(dgm: Dgm, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "all")
    (tmp_path / "all").write_bytes(b"Rar!")
    refused = dgm("grade", "--unsafe")
    assert refused.exit_code == 1
    assert "all cannot be read: BadZipFile" in refused.output


@needs("bubblewrap")
def test_points_by_hand_and_late_days_reach_the_grades(dgm: Dgm, tmp_path: Path) -> None:
    assert dgm("grade").exit_code == 0
    scores = tmp_path / "out" / "by_hand" / "scores.csv"
    scores.write_text(scores.read_text().replace("ann,answer-4,2,,", "ann,answer-4,2,2,fine"))
    students = tmp_path / "students.csv"
    students.write_text("student_id,days_late,penalty_per_day\n*,,1\nbob,3,\neve,,\n")
    done = dgm("report", "--students", str(students))
    assert done.exit_code == 0, done.output
    rows = [line.split(",") for line in (tmp_path / "out" / "grades.csv").read_text().split("\n")]
    assert [(row[3], *row[7:]) for row in rows[1:-1]] == [
        ("ann", "10.0", "0.0", "10.0", "10.0"),
        ("bob", "8.0", "3.0", "5.0", "10.0"),
        ("eve", "0.0", "0.0", "0.0", "10.0"),
    ]
    assert "fine" in (tmp_path / "out" / "feedback" / "ann.html").read_text()
    assert "nothing handed in" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize("text", ["", '{"cells": [', "[1]", '{"nbformat": 3}'])
def test_a_source_or_a_release_that_is_no_notebook_is_named(
    text: str, dgm: Dgm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "assignments" / "light"
    (folder / "source" / "light.ipynb").write_text(text)
    (folder / "release").mkdir()
    (folder / "release" / "light.ipynb").write_text(text)
    monkeypatch.setattr(commands, "_folder", lambda: tmp_path / "assignments")
    handed_in = str(tmp_path / "all" / "ann" / "light.ipynb")
    check = CliRunner().invoke(main, ["assignment", "check", handed_in])
    for refused, place in ((dgm("grade"), "source"), (dgm("report"), "source"), (check, "release")):
        assert refused.exit_code == 1
        assert f"Error: {folder / place / 'light.ipynb'}: light.ipynb must be" in refused.output


def test_without_a_sandbox_grading_refuses(
    dgm: Dgm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walls.shutil, "which", lambda name: None)
    refused = dgm("grade")
    assert refused.exit_code == 1
    assert "apt-get install bubblewrap" in refused.output
    assert not (tmp_path / "out" / "results").exists()


def test_on_another_system_grading_refuses(dgm: Dgm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    refused = dgm("grade", "--unsafe")
    assert refused.exit_code == 1
    assert "on Linux" in refused.output


def test_unsafe_says_so_in_every_result(
    dgm: Dgm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "command", lambda limits: pytest.fail("no sandbox was asked for"))
    done = dgm("grade", "--unsafe")
    assert done.exit_code == 0, done.output
    assert "warning: no sandbox" in done.output
    for path in (tmp_path / "out" / "results").glob("*.json"):
        assert "WITHOUT a sandbox" in json.loads(path.read_text())["notes"][0]
    assert "without a sandbox" in (tmp_path / "out" / "report.html").read_text()


@needs("bubblewrap")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard", "2/2"], "expected i/n"),
        (["--shard", "1"], "expected i/n"),
        (["--student", "nobody"], "no submission of nobody"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_options_that_cannot_be_are_refused(options: list[str], message: str, dgm: Dgm) -> None:
    refused = dgm("grade", *options)
    assert refused.exit_code == 2
    assert message in refused.output


def test_a_mistake_in_the_table_of_students_is_named(dgm: Dgm, tmp_path: Path) -> None:
    students = tmp_path / "students.csv"
    students.write_text("student_id,override\nann,3\n")
    refused = dgm("report", "--students", str(students))
    assert refused.exit_code == 1
    assert "the override of ann needs a reason" in refused.output
