"""Slides are the title and the core; the lectures carry their marks."""

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from dgm_course.slides import main, mark_slides
from tests.lectures import LECTURES


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


def test_a_notebook_without_a_core_is_left_alone():
    notebook = new_notebook(cells=[new_markdown_cell("# Homework"), new_code_cell("1")])
    mark_slides(notebook)
    assert kinds(notebook) == [None, None]


def test_marking_changes_the_marks_only_and_twice_is_once(tmp_path):
    path = tmp_path / "01_a.ipynb"
    notebook, _ = lecture()
    nbformat.write(notebook, path)
    main([str(path)])
    once = path.read_text(encoding="utf-8")
    main([str(path)])
    assert path.read_text(encoding="utf-8") == once == nbformat.writes(json_notebook(path)) + "\n"
    for cell in (marked := json.loads(once))["cells"]:
        cell["metadata"].pop("slideshow")
    assert marked == json.loads(nbformat.writes(notebook))


def json_notebook(path):
    return nbformat.read(path, 4)


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)
def test_every_lecture_is_marked(path):
    notebook = nbformat.read(path, 4)
    before = kinds(notebook)
    mark_slides(notebook)
    assert before == kinds(notebook), f"run: python -m dgm_course.slides notebooks/{path.name}"
    assert before.count("slide") >= 4
