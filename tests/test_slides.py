"""Slides are the title and the core; the lectures carry their marks."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from dgm_course.lectures.notebooks import LECTURES
from dgm_course.lectures.reading import mark
from dgm_course.lectures.slides import mark_slides


def kinds(notebook):
    return [cell["metadata"].get("slideshow", {}).get("slide_type") for cell in notebook["cells"]]


def lecture():
    picture = new_output("display_data", {"image/png": "", "text/plain": "a picture"})
    exercise = {"tags": ["exercise"]}
    cells = [
        (new_markdown_cell("# 01 · A title"), "slide"),
        (new_code_cell("import math"), "skip"),
        (new_markdown_cell("# Core\n\n## 1. Why?"), "slide"),
        (new_code_cell("def model(x):\n    return x"), "subslide"),
        (new_code_cell("x = 1\n\n\ndef draw_it(fig, a=0):\n    return 'a picture'"), "skip"),
        (new_code_cell("plots.show(draw_it, size=(4, 3))", outputs=[picture]), "skip"),
        (new_markdown_cell("Predict, then move the slider."), "subslide"),
        (new_code_cell("explore(draw_it, a=(0, 1))"), "-"),  # below the words
        (new_code_cell('claim("it holds", 1, above=0)'), "skip"),
        (new_code_cell("plots.show(draw_it, size=(4, 3), a=1)", outputs=[picture]), "subslide"),
        (new_code_cell('claim("here, too", 1, above=0)'), "skip"),
        (new_markdown_cell("What to notice in it."), "-"),  # below the figure
        (new_markdown_cell("And what follows."), "subslide"),
        (new_code_cell("plots.show(draw_other)", outputs=[picture]), "subslide"),
        (new_markdown_cell("What to notice there, and what to predict."), "-"),
        (new_code_cell("live(run, draw_other)"), "subslide"),  # a figure and words are enough
        (new_markdown_cell("**Exercise 1.** Predict."), "subslide"),
        (new_code_cell("answer = ...", metadata=exercise), "skip"),
        (new_code_cell("def test(answer):\n    return answer > 0"), "skip"),
        (new_code_cell("check(answer, test)"), "skip"),
        (new_markdown_cell("## 2. Then what?\n\n**Exercise 2.** Compute."), "slide"),
        (new_code_cell("answer = ...", metadata=exercise), "skip"),
        (new_markdown_cell("# Further\n\n## 3. More?"), "skip"),
        (new_code_cell("explore(draw_it, a=(0, 1))"), "skip"),
        (new_markdown_cell("## Summary"), "skip"),
    ]
    return new_notebook(cells=[cell for cell, _ in cells]), [kind for _, kind in cells]


def test_the_title_and_the_core_are_slides():
    notebook, expected = lecture()
    mark_slides(notebook)
    assert kinds(notebook) == expected


def test_a_folded_answer_stands_under_its_panel():
    answer = "<details>\n<summary>What happens</summary>\n\nIt moves.\n\n</details>"
    for after, kind in [(answer, "-"), (answer + "\n\nAnd more.", "subslide")]:
        cells = [new_markdown_cell("# 01 · A"), new_markdown_cell("# Core\n\n## 1. Why?")]
        cells += [new_markdown_cell("Predict."), new_code_cell("explore(draw, a=(0, 1))")]
        notebook = new_notebook(cells=[*cells, new_markdown_cell(after)])
        mark_slides(notebook)
        assert kinds(notebook)[3:] == ["-", kind]


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)
def test_every_lecture_is_marked(path):
    notebook = nbformat.read(path, 4)
    before = [dict(cell.metadata) for cell in notebook.cells]
    mark(notebook)
    after = [cell.metadata for cell in notebook.cells]
    assert before == after, f"run: python -m dgm_course.lectures.reading notebooks/{path.name}"
    assert kinds(notebook).count("slide") >= 4
