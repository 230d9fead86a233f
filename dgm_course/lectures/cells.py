"""What a cell of a lecture is: text and tags, and whether its code is the lesson."""

from __future__ import annotations

import re
from typing import Any

# What keeps a cell folded, where it starts a line.
NOT_THE_LESSON = re.compile(
    r"^(?:claim|check|explore|live|listen|plots\.show)\(|^def draw_|^seed_everything\(",
    re.MULTILINE,
)


def source_of(cell: Any) -> str:
    return "".join(cell["source"])  # a list of lines in a file, a text in nbformat's cells


def tags_of(cell: Any) -> list[str]:
    return list(cell["metadata"].get("tags", []))


def is_lesson(cell: Any) -> bool:
    """Whether a code cell is read: an answer to be written, or code that does nothing aside.

    A cell tagged ``plumbing`` is folded, whatever stands in it.
    """
    tags = tags_of(cell)
    is_aside = "plumbing" in tags or NOT_THE_LESSON.search(source_of(cell)) is not None
    return "exercise" in tags or not is_aside
