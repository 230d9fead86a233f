"""The PixelCNN assignment: its release, what a student is told, and what the tests accept."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

from dgm_course.grading.notebook import read_cells
from dgm_course.grading.release import release

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "notebooks" / "assignments" / "pixelcnn"
SOURCE = FOLDER / "source" / "pixelcnn.ipynb"
RELEASE = FOLDER / "release" / "pixelcnn.ipynb"


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
    assert points == {"1": 3, "2": 2, "3": 3, "4": 2, "5": 3, "6": 3, "7": 2, "8": 2}
