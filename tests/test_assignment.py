"""The PixelCNN assignment: its release, what a student is told, and what the tests accept."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
import pytest
from click.testing import CliRunner, Result

from dgm_course.cli import main
from dgm_course.grading.answers import CheckFailed
from dgm_course.grading.notebook import Cell, read_cells
from dgm_course.grading.rehearsal import Submission, run_test
from dgm_course.grading.release import release
from tests.assignment import (
    RELEASE,
    ROOT,
    SOLUTION,
    SOURCE,
    TASKS,
    WEIGHTS,
    grade,
    lost,
    submission,
    table_row,
)
from tests.assignment.mutants import MUTANTS, Mutant
from tests.assignment.variants import VARIANTS, Variant

PAGE = ROOT / "docs" / "teaching" / "assignment_pixelcnn.md"

# Lines that give nothing away, and stand both in a region and outside of one.
SHARED = {
    "centre = kernel_size // 2",
    "reach = kernel_size // 2 * n_layers",
    "test_field(kernel_size, n_layers)",
    'test_masks(kernel_size, "A")',
    'test_masks(kernel_size, "B")',
}

# --- the release ----------------------------------------------------------------------------


def regions(source: str, what: str) -> list[str]:
    """The lines between the markers of a cell, but for those that say nothing."""
    inside = re.findall(rf"### BEGIN {what}\n(.*?)### END {what}", source, re.DOTALL)
    lines = [line.strip() for text in inside for line in text.splitlines()]
    return [line for line in lines if len(line) > 12]


def test_the_release_is_what_the_source_makes() -> None:
    assert release(SOURCE) == RELEASE.read_text(encoding="utf-8")


def test_the_release_holds_no_solution_and_no_hidden_test() -> None:
    text = RELEASE.read_text(encoding="utf-8")
    for marker in ("BEGIN SOLUTION", "END SOLUTION", "HIDDEN TESTS"):
        assert marker not in text
    released = {line.strip() for cell in read_cells(RELEASE) for line in cell.source.splitlines()}
    secret = {
        line
        for cell in read_cells(SOURCE)
        for what in ("SOLUTION", "HIDDEN TESTS")
        for line in regions(cell.source, what)
    }
    assert len(secret) > 70
    assert secret & released == SHARED
    for cell in nbformat.read(RELEASE, 4).cells:
        assert not cell.get("outputs")


def test_points_are_twenty_task_by_task() -> None:
    points: dict[str, int] = {}
    for cell in read_cells(RELEASE):
        if cell.points:
            (task,) = re.findall(r"-(\d)", cell.grade_id)
            points[task] = points.get(task, 0) + cell.points
    assert points == {"1": 2, "2": 1, "3": 3, "4": 2, "5": 3, "6": 4, "7": 3, "8": 2}
    assert sum(points.values()) == 20


# --- as a student ---------------------------------------------------------------------------


def test_a_student_fills_in_the_release_and_sees_each_check_fail_then_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The released cells, one after the other, in one namespace as in a kernel."""
    monkeypatch.chdir(tmp_path)
    drawn: list[int] = []  # how many pictures each figure holds

    def display(figure: Any, metadata: dict[str, dict[str, str]]) -> None:
        assert metadata["image/png"]["alt"]
        drawn.append(len(figure.axes))

    names: dict[str, Any] = {"__name__": "__main__", "display": display}

    def execute(source: str) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(source, "cell", "exec"), names)
        return printed.getvalue()

    cells = [cell for cell in read_cells(RELEASE) if cell.kind == "code"]
    passed = []
    for number, cell in enumerate(cells):
        if cell.is_answer:
            with contextlib.suppress(NotImplementedError):  # a class fails where it is defined
                execute(cell.source)
            following = next(c for c in cells[number:] if c.is_test)
            with pytest.raises(CheckFailed, match="not answered yet|there is no .* yet"):
                execute(following.source)
            execute(SOLUTION[cell.grade_id])
        elif "training" in cell.tags:
            reference(Path("weights.npz"))  # half a minute of training; nbval does it
        elif cell.is_test:
            assert execute(cell.source).startswith("✓ ")
            passed.append(cell.grade_id)
        else:
            execute(cell.source)
    assert passed == [cell.grade_id for cell in cells if cell.is_test]
    assert drawn == [6, 5, 4]  # the masks, what the network sees, the blind spot


def test_the_first_pictures_come_before_the_last_third() -> None:
    cells = read_cells(RELEASE)
    at = [i / len(cells) for i, cell in enumerate(cells) if "picture" in cell.tags]
    assert len(at) == 3
    assert [i < bound for i, bound in zip(at, (0.2, 0.45, 0.8), strict=True)] == [True] * 3


def dgm(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["assignment", *map(str, arguments)])


@pytest.mark.parametrize("command", ["run", "release"])
@pytest.mark.parametrize("text", ["", '{"cells": [', "[1]", '{"cells": [], "nbformat": 3}'])
def test_a_damaged_source_is_named(command: str, text: str, tmp_path: Path) -> None:
    source = tmp_path / "mine" / "source" / "mine.ipynb"
    source.parent.mkdir(parents=True)
    source.write_text(text, encoding="utf-8")
    result = dgm(command, "mine", "--assignments", tmp_path)
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {source}: ")
    assert len(result.output.splitlines()) == 1


def handed_in(folder: Path, change: Callable[[Any], object]) -> Path:
    """A copy of the release, changed."""
    notebook = nbformat.read(RELEASE, 4)
    change({cell.metadata.get("nbgrader", {}).get("grade_id"): cell for cell in notebook.cells})
    nbformat.write(notebook, folder / "mine.ipynb")
    return folder / "mine.ipynb"


def test_check_of_the_release_says_that_all_is_empty() -> None:
    result = dgm("check", RELEASE)
    assert result.exit_code == 0
    assert result.output.startswith("pixelcnn.ipynb: accepted\n")
    assert "causal_mask is not answered yet" in result.output
    assert "there is no PixelCNN yet" in result.output
    (empty,) = re.findall(r"^empty: (.+)$", result.output, re.MULTILINE)
    assert set(empty.split(", ")) == {*SOLUTION, "answer-6c", "answer-6d", "answer-8"}
    assert "points so far: 0 of 16, and up to 4 by hand" in result.output


def test_check_of_a_filled_in_notebook_counts_its_points(tmp_path: Path) -> None:
    def fill_in(cells: dict[str, Any]) -> None:
        for name, source in SOLUTION.items():
            cells[name].source = source
        cells["answer-1b"].source = "def colour_mask(*_):\n    return 'ones'"
        cells["answer-6c"].source = "It lies to the upper right."

    path = handed_in(tmp_path, fill_in)
    reference(tmp_path / "weights.npz")
    result = dgm("check", path)
    assert result.exit_code == 0
    assert "points so far: 15 of 16" in result.output
    assert "got 'ones'" in result.output
    assert re.search(r"^empty: answer-6d, answer-8$", result.output, re.MULTILINE)
    assert result.output.count("✓") == 13


def quick_check(path: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    """A check without its tests."""
    monkeypatch.setattr("dgm_course.grading.rehearsal.Submission.test", lambda self: [])
    return dgm("check", path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["test-1a"].update(source="pass"), "the cell test-1a was changed"),
        (lambda c: c["setup"].update(source="call = print"), "the cell setup was changed"),
        (lambda c: c["test-2"].metadata.update(nbgrader={}), "the cell test-2 is missing"),
        (lambda c: c["answer-3"].metadata.clear(), "the cell answer-3 is missing"),
        (
            lambda c: c["answer-2"].metadata.update(c["answer-5"].metadata),
            "answer-5 occurs 2 times",
        ),
        (lambda c: c["answer-6c"].update(cell_type="raw"), "answer-6c must be a markdown cell"),
        (lambda c: [cell.metadata.clear() for cell in c.values()], "this is not an assignment"),
    ],
)
def test_a_notebook_that_cannot_be_graded_is_not_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], object], said: str
) -> None:
    result = quick_check(handed_in(tmp_path, change), monkeypatch)
    assert result.exit_code == 1
    assert "mine.ipynb: not accepted" in result.output
    assert said in result.output


@pytest.mark.parametrize("text", ["", "%PDF-1.7", "{}", '{"cells": [', '{"nbformat": 3}'])
def test_a_file_that_is_no_notebook_is_not_accepted(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.ipynb"
    path.write_text(text)
    result = dgm("check", path)
    assert result.exit_code == 1
    assert result.output.startswith("Error: mine.ipynb ")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import dgm_course.flows", "imports dgm_course.flows"),
        ("from dgm_course import plots", "imports dgm_course.plots"),
        ("from dgm_course.training import fit", "imports dgm_course.training"),
        ("from dgm_course.grading import release", "imports dgm_course.grading.release"),
        (
            "import importlib; importlib.import_module('dgm_course.flows')",
            "imports dgm_course.flows",
        ),
        ("1 / 0", "stopped: ZeroDivisionError"),
        ("raise SystemExit", "stopped: SystemExit"),
        ("def f(:", "stopped: SyntaxError"),
        ("-" * 100_000 + "1", "stopped: "),  # no source that the parser holds
        ("x" + ".x" * 100_000, "stopped: "),
        ("x\0", "stopped: "),
    ],
    ids=lambda text: text[:20],
)
def test_what_an_answer_may_not_do_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    path = handed_in(tmp_path, lambda c: c["answer-1a"].update(source=source))
    result = quick_check(path, monkeypatch)
    assert re.search(rf"cell \d+ {re.escape(said)}", result.output), result.output


def test_the_rest_of_the_library_cannot_be_imported_by_an_answer() -> None:
    ran = submission({"answer-1a": "from dgm_course.flows import PlanarFlow"})
    assert "dgm_course.flows cannot be imported" in ran.stopped[0]
    allowed = "%matplotlib inline\nfrom dgm_course.data import two_moons\nimport dgm_course"
    assert not submission({"answer-1a": allowed}).stopped


@pytest.mark.parametrize("tag", ["training", "picture"])
def test_cells_that_train_or_draw_are_not_run(tag: str) -> None:
    cells = [Cell(1, "code", "ran = 1", [tag], {}), Cell(2, "code", "ran_too = 1", [], {})]
    names = Submission(cells).run().names
    assert {"ran", "ran_too"} & set(names) == {"ran_too"}


def test_a_release_needs_nbgrader_and_a_source_that_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "toy" / "source"
    folder.mkdir(parents=True)
    shutil.copy(SOURCE, folder / "toy.ipynb")
    assert "there are the assignments toy" in dgm("release", "no", "--assignments", tmp_path).output
    assert dgm("release", "toy", "--assignments", tmp_path).exit_code == 0
    made = tmp_path / "toy" / "release" / "toy.ipynb"
    assert made.read_bytes() == RELEASE.read_bytes()
    broken = SOURCE.read_text(encoding="utf-8").replace("### END SOLUTION", "### END", 1)
    (folder / "toy.ipynb").write_text(broken, encoding="utf-8")
    result = dgm("release", "toy", "--assignments", tmp_path)
    assert result.exit_code == 1
    assert "nbgrader does not release" in result.output
    monkeypatch.setitem(sys.modules, "nbgrader.converters", None)
    result = dgm("release", "toy", "--assignments", tmp_path)
    assert result.exit_code == 1
    assert '".[teach]"' in result.output


# --- mutants and variants -------------------------------------------------------------------


def graded(answers: dict[str, str], write: Callable[[Path], object], tasks: Iterable[str]) -> Any:
    """A submission's results, in a folder of its own with what it saved."""
    with TemporaryDirectory() as folder, contextlib.chdir(folder):
        write(Path("weights.npz"))
        submitted = submission(answers)
        assert not submitted.stopped
        return grade(submitted, tasks)


def reference(path: Path) -> None:
    shutil.copy(WEIGHTS, path)


def test_the_bank_is_large_enough_and_each_mutant_touches_one_task() -> None:
    assert len(MUTANTS) >= 30
    assert len(VARIANTS) >= 8
    assert {mutant.task for mutant in MUTANTS} == set(TASKS)
    for mutant in MUTANTS:
        assert {name.removeprefix("answer-")[0] for name in mutant.answers} <= {mutant.task}
        assert mutant.cause
    names = [(mutant.task, mutant.name) for mutant in MUTANTS]
    assert len(names) == len(set(names))


# Earlier tasks do not use a later answer, so the first points that a mutant can lose are its own.
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.task}: {m.name}")
def test_every_mutant_loses_points_at_its_task(mutant: Mutant) -> None:
    results = graded(mutant.answers, mutant.file or reference, [mutant.task])
    assert lost(results)[mutant.task] > 0
    for result in results[mutant.task]:
        assert not result.message.startswith("the test stopped"), result.message
    assert table_row(mutant, results[mutant.task]) in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("task", "name", "said"),
    [
        ("3", "softmax over the levels", r"expected logits.*sum to 1.*softmax at the end\?"),
        ("3", "sigmoid at the end", r"expected logits.*sigmoid at the end\?"),
        ("5", "the rows needed only", r"given whole images, 2 rows of 2 pixels; got 1 rows of 2"),
        ("5", "between 0 and 1", r"the samples to be whole numbers; got \[0\.5\] in them"),
    ],
)
def test_a_mistake_is_called_by_its_name(task: str, name: str, said: str) -> None:
    (mutant,) = [m for m in MUTANTS if (m.task, m.name) == (task, name)]
    first, *_ = graded(mutant.answers, reference, [task])[task]
    assert re.search(said, first.message), first.message


def test_a_network_that_changes_between_two_tests_is_measured_again() -> None:
    (overconfident,) = [m for m in MUTANTS if m.name == "overconfident"]
    with TemporaryDirectory() as folder, contextlib.chdir(folder):
        reference(Path("weights.npz"))
        submitted = submission({})
        names = submitted.tests_namespace()
        tests = {cell.grade_id: cell for cell in submitted.cells if cell.is_test}
        assert not run_test(tests["test-7a"], names).message
        exec(overconfident.answers["answer-7"], submitted.names)
        assert "less than" in run_test(tests["test-7b"], names).message


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
def test_every_right_variant_gets_every_point(variant: Variant) -> None:
    results = graded(variant.answers, variant.write, TASKS)
    missed = {r.grade_id: r.message for of_task in results.values() for r in of_task if r.message}
    assert tuple(missed) == variant.misses, missed
    assert all("the trained network to need less than" in said for said in missed.values())
