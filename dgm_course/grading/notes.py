"""What a person should know of a submission, so short that what matters is read."""

from __future__ import annotations

import re

LOOK = "needs a look"
MOST = 50  # kinds of notes
ALIKE = 3  # notes of a kind that stand each by itself


def fold(notes: list[str]) -> list[str]:
    """The notes with what needs a look first, repeated ones as one, and few enough.

    Notes are of a kind if they begin alike but for a cell's number; of more than three of a kind
    the first stands for the others.
    """
    kinds: dict[tuple[bool, str], list[str]] = {}
    for note in notes:
        start = re.sub(r"\bcell \d+", "cell", re.split(r": |, | \(", note, maxsplit=1)[0])
        kinds.setdefault((LOOK not in note, start), []).append(note)
    folded = []
    for _, alike in sorted(kinds.items(), key=lambda item: item[0][0]):
        different = [*dict.fromkeys(alike)]
        if len(different) > ALIKE:
            folded.append(f"{different[0]} (and {len(alike) - 1} others like this)")
        else:
            folded += [note + _times(alike.count(note)) for note in different]
    if (more := len(folded) - MOST) > 0:
        folded[MOST:] = [f"and {more} other notes; {LOOK}"]
    return folded


def _times(n: int) -> str:
    return f" ({n} times)" if n > 1 else ""


def cut(text: str, most: int) -> str:
    """The text, or its beginning and how much there was."""
    return text if len(text) <= most else f"{text[:most]} … ({most} of {len(text)} characters)"
