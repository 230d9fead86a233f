"""Which cells of a lecture are slides: the title, and the core sections."""

from __future__ import annotations

import re
from typing import Any

from dgm_course.lectures.cells import is_lesson, source_of


def mark_slides(notebook: Any) -> None:
    """Give every cell its slide type, as jupyterlab-rise and nbconvert read it.

    A section's first cell starts a slide, and what follows goes below it, one thought a screen: a
    panel stands under the words before it, words under the figure that they speak of, the folded
    answer to a question under its panel. Cells that
    only check or only say how to draw (claims, exercises' answers, drawing functions) are left out,
    so are figures that a panel shows again, and all that is not core.
    """
    cells = [(cell, source_of(cell)) for cell in notebook["cells"]]
    explored = {
        name for _, source in cells for name in re.findall(r"^explore\(\s*(\w+)", source, re.M)
    }
    part, before, asked = "title", "", False
    for cell, source in cells:
        if cell["cell_type"] == "markdown":
            if (heading := re.match(r"# (.+)", source)) and part != "title":
                part = "core" if heading[1].strip() == "Core" else "further"
            asked = "**Exercise" in source
            what = "heading" if source.startswith("#") else "exercise" if asked else "words"
            if re.fullmatch(r"<details>.*</details>", source.strip(), re.DOTALL):
                what = "answer"  # folded until it is asked for
        else:
            what = _what(cell, source, explored)
            what = "aside" if asked and what == "code" else what  # the answer and its check
        kind = {"heading": "slide", "aside": "skip"}.get(what, "subslide")
        if (before, what) in {("words", "panel"), ("figure", "words")}:
            kind, what = "-", "end"  # on the same slide, and no more on it
        elif what == "answer":
            kind, what = "-", before
        if part == "title":
            part = "imports"
        elif part != "core":
            kind = "skip"
        before = before if what == "aside" else what
        cell["metadata"]["slideshow"] = {"slide_type": kind}


def _what(cell: Any, source: str, explored: set[str]) -> str:
    """What a code cell is to a listener; an aside is for readers."""
    if re.search(r"^(explore|live|listen)\(", source, re.MULTILINE):
        return "panel"
    if any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
        shown = re.fullmatch(r"plots\.show\((\w+), size=\([^)]*\)\)", source)
        return "aside" if shown and shown[1] in explored else "figure"
    return "code" if is_lesson(cell) else "aside"
