"""The first page, ``00_start_here.ipynb``, and the site's course map: made from the ledger.

``python -m dgm_course.lectures.start`` makes the first page again; do so when the ledger, or a
lecture's title, question, minutes, sections or picture has changed.
"""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path
from typing import Any

from dgm_course.lectures.ledger import ROOT, problems, read_ledger
from dgm_course.lectures.tables import (
    WAYS,
    Place,
    file_of,
    shown,
    the_assignment,
    the_lectures,
    the_ways,
    what_is_missing,
)

FIRST_PAGE = "00_start_here.ipynb"

TITLE = """\
# Start here

**How can a program learn, from examples alone, what is probable, and make new examples?**

This is a course on deep generative models: mixtures, variational autoencoders, flows, \
autoregressive models, adversarial models. Each lecture is one notebook and answers one question. \
Its models are small enough to be trained while you look on, and beside most of what is learned \
stands the exact answer. Everything runs offline, on two processor cores, in minutes.

- New here? Read *How to use it*, try it on the example below it, then open \
[lecture 1](01_planar_flows.ipynb).
- Giving a lecture? [Which section covers my slides](#Three-ways-through) goes through five decks, \
slide by slide.
"""

HOW_TO = """\
## How to use it

The course works by one habit: **question, predict, move, check.**

1. **Question.** A lecture, and each of its sections, asks one. Read it, and stop.
2. **Predict.** Where you read *Predict*, decide what you expect before you read on. A wrong \
prediction teaches more than no prediction.
3. **Move.** Below a figure stands the same figure with sliders, or with a play button that \
trains the model. Move them until you see why.
4. **Check.** In an exercise you replace the three dots of `name = ...` by your answer. The cell \
below it checks the answer.

**To run a cell,** click on it and press Shift+Enter. *Run → Run All Cells* runs them all, which \
takes about a minute a lecture. Panels move once their cell has run.

**Folded cells.** Cells that only draw, check or claim are folded, so that you see text, the \
lesson's code, and pictures. A click on the bar or the dots beside it opens one. Folded cells run \
like any other.

**What a check says.** `not answered yet` as long as the dots stand. `✗ not yet` comes with what \
was expected, what came, and a hint: try again. `✓ right` comes with the reason. Other lines with \
a ✓ are the text's own claims: sentences that the notebook tests each time it runs.

**On a slow machine** set the environment variable `DGM_COURSE_QUICK=1` before you start \
JupyterLab: training then takes a twentieth of its steps. Claims about trained models are not \
tested then, and say so.
"""

TRY_IT = """\
## Try it: twenty seconds

**Question.** Draw numbers from a Gaussian of standard deviation 1, and multiply each by $s$. The \
numbers spread. What happens to the height of their density at 0?

**Predict.** By what factor does the height at 0 fall when $s$ goes from 1 to 2? Write the number \
in place of the dots, and run the cell with Shift+Enter. Run the folded cell below it, too: it \
checks your answer. Then **move** the slider.
"""

ANSWER = "factor = ..."

PANEL = """\
import torch

from dgm_course import plots
from dgm_course.claims import check
from dgm_course.widgets import explore


def density(x, s):
    return torch.distributions.Normal(0, s).log_prob(torch.as_tensor(x)).exp()


def draw_stretched(fig, s=1.0):
    (ax,) = plots.axes(fig)
    x = torch.linspace(-8, 8, 401)
    after, before = {"after": density(x, s)}, {"before": density(x, 1.0)}
    plots.lines(ax, x, after, exact=before, xlabel="x", ylabel="density", ylim=(0, 0.45))
    return f"A Gaussian before and after stretching by {s:.1f}."


check(
    factor, lambda f: abs(f - density(0.0, 1.0) / density(0.0, 2.0)) < 0.01, name="factor",
    expected="a number above 1", hint="the area under the curve stays 1: how wide is it now?",
    why="Twice the room for the same probability. Lecture 1 bends space instead of stretching it.",
)  # fmt: skip
explore(draw_stretched, size=(6.4, 3.0), s=(1.0, 4.0, 0.1))
"""

HELP = """\
## Where help is

- A word or a letter that you do not know: the [notation table](../docs/notation.md) gives each \
letter its one meaning, and a lecture defines a word where it first uses it.
- A cell raises an error: run the notebook from the top (*Kernel → Restart Kernel and Run All \
Cells*); a cell needs those above it.
- What a function does: `help(name)`, or Shift+Tab with the cursor in its name. Its text opens \
with the equation and its source.
- The commands: `dgm --help` in a terminal (in JupyterLab: *File → New → Terminal*).
"""


# --- pages ----------------------------------------------------------------------------------


def course_map(root: Path = ROOT) -> str:
    """The site's page, for the root of its sources: lectures, decks, what is missing."""
    ledger = read_ledger(root / "docs" / "ledger.toml")
    lectures, place = shown(ledger, root), Place("notebooks/", is_site=True)
    ways = [text for _, text in the_ways(ledger, lectures, place)]
    parts = ["# Course map\n", the_lectures(lectures, place), WAYS, *ways]
    return "\n".join([*parts, what_is_missing(ledger, lectures), the_assignment(place)])


def first_page(root: Path = ROOT) -> Any:
    """The first page as a notebook whose code has not run."""
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    ledger = read_ledger(root / "docs" / "ledger.toml")
    lectures, place = shown(ledger, root), Place("", is_site=False)
    ways = {key.lower(): text for key, text in the_ways(ledger, lectures, place)}
    before = {"title": TITLE, "how-to": HOW_TO, "try-it": TRY_IT}
    after = {
        "lectures": the_lectures(lectures, place),
        "ways": WAYS,
        **ways,
        "missing": what_is_missing(ledger, lectures),
        "assignment": the_assignment(place),
        "help": HELP,
    }
    folded = {"jupyter": {"source_hidden": True}, "tags": ["hide-input"]}
    cells = [
        *(new_markdown_cell(text.rstrip(), id=name) for name, text in before.items()),
        new_code_cell(ANSWER, id="answer", metadata={"tags": ["exercise"]}),
        new_code_cell(PANEL.rstrip(), id="panel", metadata=folded),
        *(new_markdown_cell(text.rstrip(), id=name) for name, text in after.items()),
    ]
    (table,) = (cell for cell in cells if cell.id == "lectures")
    table["attachments"] = {
        file_of(lecture): {"image/png": base64.b64encode(lecture.picture).decode()}
        for lecture in lectures.values()
        if lecture.picture
    }
    return new_notebook(cells=cells)


def main() -> None:
    """Make the first page again. Its code runs only where it is not what has run before."""
    import nbformat

    from dgm_course.lectures.running import run_notebook, write

    if found := problems(read_ledger()):
        sys.exit("\n".join(found))
    path, page = ROOT / "notebooks" / FIRST_PAGE, first_page()
    old = nbformat.read(path, as_version=4) if path.is_file() else page
    has_run = {cell.id: cell for cell in old.cells if cell.get("execution_count")}
    code = [cell for cell in page.cells if cell.cell_type == "code"]
    if all(c.id in has_run and c.source == has_run[c.id].source for c in code):
        page.cells = [has_run.get(cell.id, cell) for cell in page.cells]
        page.metadata = old.metadata
        write(page, path)
        return
    write(page, path)
    with tempfile.TemporaryDirectory() as folder:
        outcome, report = run_notebook(path, Path(folder), None, in_place=True, timeout=120)
    sys.exit(report if outcome != "passed" else None)


if __name__ == "__main__":
    main()
