"""Which cells of a lecture are slides: the title, and the core sections.

``dgm run --in-place`` marks them; ``python -m dgm_course.slides NOTEBOOK...`` does nothing else.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any


def mark_slides(notebook: Any) -> None:
    """Give every cell its slide type, as jupyterlab-rise and nbconvert read it.

    A section's first cell starts a slide, and what follows goes below it, one cell a screen. Cells
    that only check or only say how to draw (claims, exercises' answers, drawing functions) are left
    out, and so is all that is not core. A notebook without a core is left as it is.
    """
    cells = [(cell, "".join(cell["source"])) for cell in notebook["cells"]]
    if not any(re.match(r"# Core\b", source) for _, source in cells):
        return
    part = "title"
    for cell, source in cells:
        if cell["cell_type"] == "markdown":
            heading = re.match(r"# (.+)", source)
            if heading and part != "title":
                part = "core" if heading[1].strip() == "Core" else "further"
            kind = "slide" if source.startswith("#") else "subslide"
            if part == "title":
                kind, part = "slide", "imports"
        else:
            has_picture = any("image/png" in o.get("data", {}) for o in cell.get("outputs", []))
            checks = re.search(r"^(claim|check)\(", source, re.MULTILINE) and not has_picture
            draws = re.match(r"def draw_", source) and not has_picture
            is_answer = "exercise" in cell["metadata"].get("tags", [])
            kind = "skip" if checks or draws or is_answer else "subslide"
        if part == "further" or (part == "imports" and kind != "slide"):
            kind = "skip"
        cell["metadata"]["slideshow"] = {"slide_type": kind}


def main(paths: list[str]) -> None:
    """Mark the slides of the notebooks, and change nothing else."""
    for path in map(Path, paths):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        mark_slides(notebook)
        text = json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True)
        path.write_text(text + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
