"""The released assignments in JupyterLab: a check fails; with the solution pasted, it passes."""

from __future__ import annotations

import re

import nbformat
import pytest

from dgm_course.lectures.notebooks import NOTEBOOKS
from tests.browser.jupyterlab import NotebookPage

RELEASED = sorted(NOTEBOOKS.glob("assignments/*/release/**/*.ipynb"))


def code(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def first_task(release):
    """Where the first answer and its check stand among the code cells, and the solution."""
    cells = code(release)
    settings = [cell.metadata.get("nbgrader", {}) for cell in cells]
    answer = next(i for i, setting in enumerate(settings) if setting.get("solution"))
    check = next(i for i in range(answer, len(cells)) if settings[i].get("grade"))
    (source,) = release.parent.parent.glob(f"source/**/{release.name}")
    (solved,) = (
        cell.source
        for cell in code(source)
        if cell.metadata.get("nbgrader", {}).get("grade_id") == settings[answer]["grade_id"]
    )
    return answer, check, re.sub(r"^ *### (BEGIN|END) SOLUTION\n?", "", solved, flags=re.MULTILINE)


@pytest.mark.parametrize("release", RELEASED, ids=lambda path: path.stem)
def test_a_check_fails_and_with_the_solution_passes(lab, release, screenshot):
    answer, check, solution = first_task(release)
    notebook = NotebookPage(lab, release.relative_to(NOTEBOOKS).as_posix())
    page = notebook.page
    cells = page.locator(".jp-Notebook .jp-CodeCell")

    def run(i, text=None):
        """Run a code cell, with ``text`` in place of what it holds; its output."""
        cells.nth(i).locator(".cm-content").click()
        if text is not None:
            page.keyboard.press("ControlOrMeta+A")
            page.keyboard.insert_text(text)
        before = cells.nth(i).locator(".jp-InputPrompt").inner_text()
        page.keyboard.press("Control+Enter")
        page.wait_for_function(
            "([e, old]) => e.textContent !== old && /[0-9]/.test(e.textContent)",
            arg=[cells.nth(i).locator(".jp-InputPrompt").element_handle(), before],
        )
        return cells.nth(i).locator(".jp-OutputArea")

    for i in range(answer + 1):
        run(i)
    run(check).get_by_text("is not answered yet").first.wait_for()
    screenshot(page, "fails")
    run(answer, solution)
    passed = run(check).get_by_text("✓")
    passed.wait_for()
    screenshot(page, "passes")
    assert not notebook.errors()
    notebook.close()
