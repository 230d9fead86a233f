"""Folds and the clock, on notebooks written here, then on the lectures."""

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from dgm_course.lectures import clock, reading
from dgm_course.lectures.notebooks import LECTURES
from dgm_course.lectures.reading import mark

PICTURE = new_output("display_data", {"image/png": "", "text/plain": "a picture"})


def lecture(*cells):
    head = [new_markdown_cell("# 01 · A title"), new_code_cell("import math\n\nseed_everything(1)")]
    return new_notebook(cells=[*head, new_markdown_cell("# Core\n\n## 1. Why?"), *cells])


def is_folded(cell):
    hidden = cell.metadata.get("jupyter", {}).get("source_hidden", False)
    assert hidden == ("hide-input" in cell.metadata.get("tags", []))
    return hidden


@pytest.mark.parametrize(
    ("source", "folded"),
    [
        ("def layer(x):\n    return x", False),
        ("model = layer(2)\nprint(model)", False),
        ("xs = 1\n\n\ndef draw_it(fig):\n    return 'x'", True),
        ("plots.show(draw_it)", True),
        ("explore(draw_it, a=(0, 1))", True),
        ("live(\n    run, draw_it\n)", True),
        ('listen({"a": tone}, 8000)', True),
        ("y = 2\nclaim('it holds', y, above=1)", True),
        ("check(answer, test, expected='', why='', hint='')", True),
        ("def f():\n    claim('not at a line start of the cell', 1, above=0)", False),
    ],
)
def test_what_draws_checks_or_claims_is_folded(source, folded):
    notebook = lecture(new_code_cell(source))
    mark(notebook)
    assert is_folded(notebook.cells[-1]) == folded
    assert is_folded(notebook.cells[1])  # the imports


def test_an_answer_to_be_written_stays_open_and_a_tag_folds_plumbing():
    answer = new_code_cell("def layer(x):\n    ...", metadata={"tags": ["exercise"]})
    plumbing = new_code_cell("table = {}", metadata={"tags": ["plumbing"]})
    notebook = lecture(answer, plumbing)
    mark(notebook)
    assert not is_folded(answer)
    assert is_folded(plumbing)
    assert plumbing.metadata.tags == ["plumbing", "hide-input"]


def test_a_cell_that_became_the_lesson_is_opened_again():
    cell = new_code_cell("claim('a', 1, above=0)", metadata={"jupyter": {"outputs_hidden": False}})
    notebook = lecture(cell)
    mark(notebook)
    assert is_folded(cell)
    cell.source = "def layer(x):\n    return x"
    mark(notebook)
    assert not is_folded(cell)
    assert cell.metadata.jupyter == {"outputs_hidden": False}
    assert "tags" not in cell.metadata


def test_a_notebook_without_a_core_is_left_alone():
    notebook = new_notebook(cells=[new_markdown_cell("# Homework"), new_code_cell("claim(1)")])
    before = json.dumps(notebook)
    mark(notebook)
    assert json.dumps(notebook) == before


def test_marking_changes_the_marks_only_and_twice_is_once(tmp_path):
    path = tmp_path / "01_a.ipynb"
    notebook = lecture(new_code_cell("claim('a', 1, above=0)"), new_code_cell("x = 1"))
    nbformat.write(notebook, path)
    reading.main([str(path)])
    once = path.read_text(encoding="utf-8")
    reading.main([str(path)])
    marked = nbformat.read(path, 4)
    assert path.read_text(encoding="utf-8") == once == nbformat.writes(marked) + "\n"
    for cell in marked.cells:
        cell.metadata.clear()
    assert marked == notebook


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)
def test_lectures_are_stored_as_they_are_marked(path):
    stored = path.read_text(encoding="utf-8")
    notebook = json.loads(stored)
    mark(notebook)
    assert notebook == json.loads(stored), f"python -m dgm_course.lectures.reading {path.name}"


# --- the clock ------------------------------------------------------------------------------


def test_the_clock_counts_words_formulas_figures_panels_code_and_exercises():
    words = " ".join(["word"] * 129) + " $a + b$"
    notebook = lecture(
        new_markdown_cell(f"*6 minutes*\n\n{words}"),  # two words of its own
        new_markdown_cell("$$\nx = 1\n$$"),
        new_code_cell("a = 1\nb = 2"),
        new_code_cell("plots.show(draw)", outputs=[PICTURE]),
        new_code_cell("explore(draw, a=(0, 1))"),
        new_code_cell("claim('a', 1, above=0)"),
        new_code_cell("answer = ...", metadata={"tags": ["exercise"]}),
        new_markdown_cell("# Further\n\n## 2. More?\n\n*1 minute*"),
        new_markdown_cell("## Summary\n\nNot a section."),
    )
    first, second = clock.sections(notebook)
    assert (first.title, first.is_core, first.stated) == ("1. Why?", True, 6)
    assert (second.title, second.is_core, second.stated) == ("2. More?", False, 1)
    parts = clock.FORMULA + 2 * clock.CODE_LINE + clock.FIGURE + clock.PANEL + clock.EXERCISE
    assert first.measured == pytest.approx(parts + 1, abs=0.06)


@pytest.fixture(scope="module", params=LECTURES, ids=lambda path: path.stem)
def sections(request):
    return clock.sections(nbformat.read(request.param, 4))


def test_every_section_states_its_minutes_as_the_clock_measures_them(sections):
    for section in sections:
        assert section.stated is not None, section.title
        assert abs(section.stated - section.measured) <= 1, section


def test_the_core_fits_a_lecture(sections):
    core = [section.stated for section in sections if section.is_core]
    assert len(core) >= 4
    assert sum(core) <= clock.CORE_MINUTES
