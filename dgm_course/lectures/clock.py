"""How long a lecture takes when it is read aloud: the minutes that its sections state.

python -m dgm_course.lectures.clock notebooks/01_planar_flows.ipynb
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

from dgm_course.lectures.cells import is_lesson, source_of, tags_of

WORDS_A_MINUTE = 130
# Minutes for each: what a lecturer needs to explain it and a class to look at it.
FORMULA, FIGURE, PANEL, CODE_LINE, EXERCISE = 0.5, 0.7, 1.5, 0.08, 2.0
CORE_MINUTES = 45
# Formulas, links' targets, tags and code: a word each.
NOT_SPOKEN = re.compile(r"\$\$.+?\$\$|\$[^$]+\$|\]\([^)]*\)|<[^>]+>|`[^`]*`", re.DOTALL)


class Section(NamedTuple):
    """A section's heading, whether it is core, the minutes it states, those it takes aloud."""

    title: str
    is_core: bool
    stated: int | None
    measured: float


def sections(notebook: Any) -> list[Section]:
    """The numbered sections of a lecture, with the minutes that reading them aloud takes."""
    found: list[Section] = []
    is_core = False
    for cell in notebook["cells"]:
        source = source_of(cell)
        if cell["cell_type"] == "markdown":
            for line in source.splitlines():
                if line.startswith("# "):
                    is_core = line.strip() == "# Core"
                elif heading := re.match(r"## (.+)", line):
                    found.append(Section(heading[1].strip(), is_core, None, 0.0))
        if not found:
            continue
        last = found[-1]
        if stated := re.search(r"^\*(\d+) minutes?\*$", source, re.MULTILINE):
            last = last._replace(stated=int(stated[1]))
        found[-1] = last._replace(measured=last.measured + minutes(cell))
    return [section for section in found if re.match(r"\d+\. ", section.title)]


def minutes(cell: Any) -> float:
    """What a cell takes when it is read aloud, and what it shows is looked at."""
    source = source_of(cell)
    if cell["cell_type"] == "markdown":
        formulas = len(re.findall(r"\$\$.+?\$\$", source, re.DOTALL))
        words = re.sub(
            r"\$\$.+?\$\$|\$[^$]+\$|\]\([^)]*\)|<[^>]+>|`[^`]*`", " x ", source, flags=re.S
        )
        n_words = len(re.findall(r"[^\W\d_][\w’'-]*", words))
        return n_words / WORDS_A_MINUTE + FORMULA * formulas
    if cell["cell_type"] != "code":
        return 0.0
    if "exercise" in tags_of(cell):
        return EXERCISE
    if re.search(r"^(explore|live|listen)\(", source, re.MULTILINE):
        return PANEL
    has_figure = any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
    lines = len(source.splitlines()) if is_lesson(cell) else 0
    return FIGURE * has_figure + CODE_LINE * lines


def main(paths: list[str]) -> str:
    """A table of each lecture's sections with their minutes, as stated and as measured."""
    lines = []
    for path in map(Path, paths):
        found = sections(json.loads(path.read_text(encoding="utf-8")))
        lines.append(f"{path.stem}: stated, measured")
        for s in found:
            part = "core" if s.is_core else "    "
            lines.append(f"  {s.stated or '–':>3} {s.measured:6.1f}  {part}  {s.title}")
        core = [s for s in found if s.is_core]
        total = sum(s.stated or 0 for s in core), sum(s.measured for s in core)
        lines.append(f"  {total[0]:>3} {total[1]:6.1f}  the core; at most {CORE_MINUTES}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1:]) + "\n")
