"""Reading mode: as a lecture opens, a reader sees text, the lesson's code, pictures and panels.

Cells that only draw, check or claim are folded. A click opens them, and they run all the same.
``dgm run --in-place`` marks folds and slides; ``python -m dgm_course.lectures.reading NOTEBOOK...``
does nothing else.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from dgm_course.lectures.cells import is_lesson, source_of, tags_of
from dgm_course.lectures.slides import mark_slides


def mark(notebook: Any) -> None:
    """Set the slides and the folds of a lecture. Without a core it is none, and left as it is."""
    if any(re.match(r"# Core\b", source_of(cell)) for cell in notebook["cells"]):
        mark_slides(notebook)
        fold(notebook)


def fold(notebook: Any) -> None:
    """Collapse the code cells that are not the lesson: in JupyterLab, and as MyST-NB reads it."""
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        metadata = cell["metadata"]
        tags = [tag for tag in tags_of(cell) if tag != "hide-input"]
        jupyter = dict(metadata.pop("jupyter", {}))
        jupyter.pop("source_hidden", None)
        if not is_lesson(cell):
            tags.append("hide-input")
            jupyter["source_hidden"] = True
        if jupyter:
            metadata["jupyter"] = jupyter
        metadata.pop("tags", None)
        if tags:
            metadata["tags"] = tags


def main(paths: list[str]) -> None:
    """Mark the notebooks, and change nothing else in them."""
    for path in map(Path, paths):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        mark(notebook)
        text = json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True)
        path.write_text(text + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
