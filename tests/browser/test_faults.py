"""What the tests of lectures look for is found when it is there."""

from __future__ import annotations

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tests.browser.jupyterlab import NotebookPage

BROKEN = """
from dgm_course import plots
from dgm_course.widgets import explore

def draw(fig, a=1.0):
    if a > 2:
        raise RuntimeError("no picture beyond 2")
    plots.line(plots.axes(fig)[0], [0, 1], [0, 1], label="a")
    return "The same picture for every a."

explore(draw, a=(0.0, 4.0))
"""


def test_what_goes_wrong_is_noticed(lab):
    """A picture that stays as it is, a cell that raises, a page that asks somebody else."""
    cells = [
        new_markdown_cell("![a picture from elsewhere](http://192.0.2.1/picture.png)"),
        new_code_cell(BROKEN),
        new_code_cell("1 / 0"),
        new_code_cell("2"),
    ]
    kernel = {"kernelspec": {"display_name": "Python 3 (ipykernel)", "name": "python3"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), lab.folder / "broken.ipynb")
    notebook = NotebookPage(lab, "broken.ipynb")
    notebook.run_all()
    assert notebook.unfinished() == ["cell 3: [ ]:"]
    assert "ZeroDivisionError" in "".join(notebook.errors())
    assert "http://192.0.2.1/picture.png" in "".join(notebook.errors())
    (panel,) = notebook.panels()
    thumb = panel.root.locator(".noUi-handle")
    thumb.focus()
    with pytest.raises(AssertionError, match="ArrowLeft changes no picture"):
        panel.changes("ArrowLeft", lambda: notebook.page.keyboard.press("ArrowLeft"), seconds=2)
    thumb.press("End")
    notebook.page.get_by_role("alert").wait_for()
    assert "no picture beyond 2" in "".join(notebook.errors())
    notebook.page.evaluate("setTimeout(() => { throw new Error('in the page') })")
    notebook.page.wait_for_timeout(100)
    assert "page error: in the page" in "".join(notebook.errors())
    notebook.close()
