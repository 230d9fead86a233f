"""Which cells of a lecture are slides: the title, and the core sections."""

from __future__ import annotations

import re
from typing import Any


def mark_slides(notebook: Any) -> None:
    """Give every cell its slide type, as jupyterlab-rise and nbconvert read it.

    A section's first cell starts a slide, and what follows goes below it, one cell a screen. Cells
    that only check (claims, exercises' answers) are left out, and so is all that is not core.
    """
    part = "title"
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = re.match(r"# (.+)", cell.source)
            if heading and part != "title":
                part = "core" if heading[1].strip() == "Core" else "further"
            kind = "slide" if cell.source.startswith("#") else "subslide"
            if part == "title":
                kind, part = "slide", "imports"
        else:
            has_picture = any("image/png" in o.get("data", {}) for o in cell.get("outputs", []))
            checks = re.search(r"^(claim|check)\(", cell.source, re.MULTILINE) and not has_picture
            is_answer = "exercise" in cell.metadata.get("tags", [])
            kind = "skip" if checks or is_answer else "subslide"
        if part == "further" or (part == "imports" and kind != "slide"):
            kind = "skip"
        cell.metadata["slideshow"] = {"slide_type": kind}
