"""The PixelCNN assignment under test: submissions that are wrong or look different.

python -m tests.assignment mutants      # the table of the teacher's notes
python -m tests.assignment calibrate    # the trained reference over many seeds
python -m tests.assignment weights      # trains the weights that the tests here use
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dgm_course.grading.notebook import Cell, read_cells
from dgm_course.grading.rehearsal import Result, Submission, run_test

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "notebooks" / "assignments" / "pixelcnn"
SOURCE = FOLDER / "source" / "pixelcnn.ipynb"
RELEASE = FOLDER / "release" / "pixelcnn.ipynb"
WEIGHTS = Path(__file__).parent / "weights.npz"

CELLS = read_cells(SOURCE)
SOLUTION = {
    cell.grade_id: re.sub(r"^ *### (BEGIN|END) SOLUTION\n?", "", cell.source, flags=re.MULTILINE)
    for cell in CELLS
    if cell.is_answer and cell.kind == "code"
}
TASKS = ("1", "2", "3", "4", "5", "6", "7")


def submission(answers: Mapping[str, str]) -> Submission:
    """The source's code cells with some answers replaced, run."""
    cells = [
        Cell(c.number, c.kind, answers.get(c.grade_id, c.source), c.tags, c.marks) for c in CELLS
    ]
    return Submission(cells).run()


def grade(submitted: Submission, tasks: Iterable[str] = TASKS) -> dict[str, list[Result]]:
    """The results of some tasks' tests, the hidden ones too; weights.npz is read from here."""
    names = submitted.tests_namespace()
    results: dict[str, list[Result]] = {}
    for task in tasks:
        for cell in CELLS:
            if cell.is_test and cell.grade_id.startswith(f"test-{task}"):
                results.setdefault(task, []).append(run_test(cell, names))
    return results


def lost(results: Mapping[str, list[Result]]) -> dict[str, int]:
    """The points that are lost, by task."""
    return {task: sum(r.out_of - r.points for r in of_task) for task, of_task in results.items()}


def trained(seed: int, answers: Mapping[str, str] | None = None) -> Any:
    """A submission's names, and its network trained from a seed; by default the reference's."""
    import torch

    from dgm_course.data import digits

    names = submission(answers or {}).names
    torch.manual_seed(seed)
    model = names["build_model"]()
    names["train"](model, digits("train").images)
    return names, model


def table_row(mutant: Any, results: Iterable[Result]) -> str:
    """A mutant's row in the teacher's notes: its task, what it is, why, which tests reject it."""
    by = ", ".join(r.grade_id.removeprefix("test-") for r in results if r.message)
    return f"| {mutant.task} | {mutant.name} | {mutant.cause} | {by} |"
