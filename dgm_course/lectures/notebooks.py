"""The lectures of a folder of notebooks, and what each one's first text says of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

# Of the source checkout; the wheel holds the library only.
NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


class Lecture(NamedTuple):
    """A notebook ``NN_topic.ipynb``, its number, title and minutes on two cores ("?": unsaid)."""

    number: str
    title: str
    minutes: str
    path: Path


def lectures_in(folder: Path) -> list[Path]:
    """The notebooks ``NN_*.ipynb`` of a folder, by number; 00 is the first page, and no lecture."""
    return [path for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")) if path.name[:2] != "00"]


LECTURES = lectures_in(NOTEBOOKS)


def read_lecture(path: Path) -> Lecture:
    """What a notebook's first text says.

    Raises:
        ValueError: if the file is no notebook with a text in it.
    """
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = next("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    except (ValueError, LookupError, TypeError, StopIteration) as error:
        raise ValueError(
            f"{path} must be a notebook with a title in its first text cell, got {error!r}"
        ) from error
    title = re.sub(r"^#\s*(\d+\s*·\s*)?", "", text.partition("\n")[0]).strip()
    minutes = re.search(r"(\d+) minutes? on two cores", text)
    return Lecture(path.name[:2], title, minutes[1] if minutes else "?", path)


def read_lectures(folder: Path) -> list[Lecture]:
    """The lectures of a folder.

    Raises:
        ValueError: if there are none, or one is no notebook.
    """
    paths = lectures_in(folder)
    if not paths:
        raise ValueError(f"no lectures in {folder}: expected files named NN_*.ipynb")
    return [read_lecture(path) for path in paths]
