"""Which of a student's cells is which of the release's, and what runs before a test.

The grader and a student's own check decide it here, so that they cannot disagree. A cell is a
released one by its id. Where an id occurs nowhere, its cell is looked for; what is found so may
count for an answer that was moved, but a cell that differs from the release is never dropped or
replaced for it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from dgm_course.grading.notebook import Cell
from dgm_course.grading.notes import LOOK, cut
from dgm_course.grading.running import without_magics

PLACEHOLDER = "YOUR ANSWER HERE"
LONGEST_PARSED = 50_000  # characters
STUB = "raise NotImplementedError"
# The names that a cell binds at its left margin. Names are evidence only: no parser is needed.
BINDS = re.compile(r"^(?:(?:async +)?def|class) +(\w+)|^(\w+) *(?::[^=\n]*)?=(?!=)", re.MULTILINE)
PICTURE = re.compile(r"\]\(attachment:|data:image")
REGION = r"^[ \t]*### BEGIN {0}\n(?:.*\n)*?[ \t]*### END {0}[^\n]*\n?"


@dataclass(frozen=True)
class Own:
    """A student's cell, and the released cell that it is, if any.

    Args:
        differs: whether its text is another than the release's.
        again: whether another cell is that one already.
    """

    cell: Cell
    of: Cell | None
    differs: bool = True
    again: bool = False

    @property
    def runs(self) -> bool:
        """Whether it is run before a test. Tests are not, nor what is tagged training or picture.

        Where set-up differs from the release, it runs besides the release's.
        """
        if not self.cell.is_run or self.of is None:
            return self.cell.is_run
        if self.of.is_answer:
            return self.of.kind == "code"
        return self.differs and not self.of.is_test


def as_released(cell: Cell) -> str:
    """The text of a source's cell as the release has it, but for the stubs of code."""
    if cell.is_written and PLACEHOLDER not in cell.source and "BEGIN SOLUTION" not in cell.source:
        return PLACEHOLDER
    text = f"{cell.source}\n"
    for what in ("HIDDEN TESTS", "MARK SCHEME"):
        text = re.sub(REGION.format(what), "", text, flags=re.MULTILINE)
    return re.sub(REGION.format("SOLUTION"), f"{PLACEHOLDER}\n", text, flags=re.MULTILINE)


def _bare(text: str) -> str:
    """A text without what editors change by themselves: line ends, space at ends of lines."""
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def is_setup(cell: Cell) -> bool:
    """Whether a released cell runs as it was released."""
    is_ours = bool(cell.grade_id) and not cell.is_answer and not cell.is_test
    return cell.is_run and is_ours


def first_setup(released: Sequence[Cell]) -> list[Cell]:
    """The locked cells before the first answer: they run once, before anything else."""
    first = next((i for i, cell in enumerate(released) if cell.is_answer), len(released))
    return [cell for cell in released[:first] if is_setup(cell)]


# --- which cell is which --------------------------------------------------------------------


def recognise(cells: Sequence[Cell], released: Sequence[Cell], notes: list[str]) -> list[Own]:
    """The student's cells, each with the released cell that it is."""
    known = {cell.grade_id: cell for cell in released if cell.grade_id}
    text_of = {cell.number: _bare(as_released(cell)) for cell in released}
    fixed = [cell for cell in released if not cell.is_answer and (cell.grade_id or not cell.is_run)]
    texts = {text_of[cell.number]: cell for cell in fixed}
    own = []
    for cell in cells:
        of = known.get(cell.grade_id)
        if cell.grade_id and of is None:
            notes.append(f"cell {cell.number} has an unknown id, {cut(cell.grade_id, 60)}")
        differs = of is None or _bare(cell.source) != text_of[of.number]
        if of is None and cell.kind == "code" and (of := texts.get(_bare(cell.source))):
            differs = False
        own.append(Own(cell, of, differs))
    own = _tell_copies(own, notes)
    for answer in released:
        if answer.is_answer and not any(mine.of is answer for mine in own):
            own = _find(answer, own, notes)
    _look_at_answers(own, notes)
    if not any(mine.of for mine in own):
        notes.append(f"no cell has an id of this assignment; {LOOK}")
    return own


def _tell_copies(own: list[Own], notes: list[str]) -> list[Own]:
    """Of several cells that are one locked cell, all but one are copies: run if they differ."""
    chosen: dict[int, Own] = {}
    # The one with the id before one without, the release's text before another.
    for mine in sorted(own, key=lambda mine: (not mine.cell.grade_id, mine.differs)):
        if mine.of and not mine.of.is_answer:
            chosen.setdefault(mine.of.number, mine)
    return [_told(mine, chosen, notes) for mine in own]


def _told(mine: Own, chosen: dict[int, Own], notes: list[str]) -> Own:
    of, number = mine.of, mine.cell.number
    if of is None or of.is_answer or (mine is chosen[of.number] and not mine.differs):
        return mine
    if mine is chosen[of.number]:
        if of.kind == "code":
            what = "the release's is asked" if of.is_test else "it runs after the release's"
            notes.append(f"cell {number} is {of.grade_id}, but changed: {what}")
        return mine
    if mine.differs:
        notes.append(f"cell {number} is a changed copy of {of.grade_id}: run as one's own")
        return Own(mine.cell, None)
    return Own(mine.cell, of, differs=False, again=True)


def _find(answer: Cell, own: list[Own], notes: list[str]) -> list[Own]:
    """An answer whose id occurs nowhere: the one cell without an id that binds its names."""
    names = _bound(answer.source) if answer.kind == "code" else set()
    found = [
        mine
        for mine in own
        if mine.of is None and mine.cell.kind == "code" and names & _bound(mine.cell.source)
    ]
    found = [mine for mine in found if STUB not in mine.cell.source] or found
    if len(found) != 1:
        several = cut(", ".join(str(mine.cell.number) for mine in found), 40)
        which = f" (cells {several}?)" if found else ""
        notes.append(f"{answer.grade_id} is missing, or its id is{which}; {LOOK}")
        return own
    notes.append(f"cell {found[0].cell.number} has lost its id; taken for {answer.grade_id}")
    return [Own(mine.cell, answer) if mine is found[0] else mine for mine in own]


def _bound(source: str) -> set[str]:
    return {name for names in BINDS.findall(source) for name in names if name}


def _look_at_answers(own: list[Own], notes: list[str]) -> None:
    seen: set[int] = set()
    for mine in own:
        cell, of = mine.cell, mine.of
        if of is None or not of.is_answer:
            continue
        if of.number in seen:
            notes.append(f"{of.grade_id} occurs twice: the cells run in their order; {LOOK}")
        if of.kind != cell.kind:
            notes.append(f"{of.grade_id} is a {cut(cell.kind, 20)} cell, not {of.kind}; {LOOK}")
        elif of.kind == "code" and not cell.is_run:
            notes.append(
                f"{of.grade_id} is tagged {cut(', '.join(cell.tags), 60)}: not run; {LOOK}"
            )
        seen.add(of.number)


# --- what runs ------------------------------------------------------------------------------


def program(
    own: Sequence[Own], released: Sequence[Cell], test: Cell | None = None
) -> dict[int, str]:
    """The cells that run before a test, by number; before none, all of them.

    Set-up cells come from the release, each before the student's cells that follow it there; they
    have negative numbers. The first ones (`first_setup`) are left out: they have run.
    """
    above = [cell for cell in released if test is None or cell.number < test.number]
    waiting = [cell for cell in above if is_setup(cell)][len(first_setup(released)) :]
    cells: dict[int, str] = {}
    for i in sorted(_seen(own, test.number)) if test else range(len(own)):
        mine = own[i]
        while mine.of and waiting and waiting[0].number <= mine.of.number:
            setup = waiting.pop(0)
            cells[-setup.number] = setup.source
        if mine.runs:
            cells[mine.cell.number] = mine.cell.source
    return cells | {-cell.number: cell.source for cell in waiting}


def _seen(own: Sequence[Own], test: int) -> set[int]:
    """The places of the student's cells that a test sees: all above it.

    If it is not there, its place is the next released cell after the one that it followed. An
    answer that was moved below it counts too, with the own cells right above that answer.
    """
    at = {m.of.number: i for i, m in reversed([*enumerate(own)]) if m.of and not m.again}
    if (place := at.get(test, -1)) < 0:
        before = at[max(n for n in at if n < test)] if min(at, default=test) < test else -1
        place = min((i for i in at.values() if i > before), default=len(own))
    seen = set(range(place))
    above = {mine.of.number for mine in own[:place] if mine.of}
    for i, mine in enumerate(own[place:], start=place):
        of = mine.of
        if of and of.is_answer and of.number < test and of.number not in above:
            seen.add(i)
            while i > place and own[i - 1].of is None:
                seen.add(i := i - 1)
    return seen


# --- written answers ------------------------------------------------------------------------


def written(
    own: Sequence[Own], released: Sequence[Cell], notes: list[str]
) -> Iterator[tuple[Cell, str]]:
    """The tasks that are answered in words, each with the student's text; "" if there is none.

    The text is the answer's own cell, whatever its kind, and the text cells of the student's own
    below it. If these hold the placeholder alone, it is those above and what was added to the text
    of the task; and if there is nothing either, code cells below that hold words and no code.
    """
    places = {mine.of.number: n for n, mine in enumerate(own) if mine.of}
    for i, task in enumerate(released):
        if not task.is_written:
            continue
        has_id = [mine for mine in own if mine.of is task]
        last = places.get(max((n for n in places if n <= task.number), default=-1), -1)
        below, above = _beside(own[last + 1 :]), _beside(own[:last][::-1])[::-1]
        above = [mine for mine in above if has_id and mine.cell.kind != "code"]
        above += [m for m in own if i and m.of is released[i - 1] and m.of.kind == "markdown"]
        texts = [mine for mine in below if mine.cell.kind != "code"]
        prose = [mine for mine in below if _is_prose(mine.cell.source)]
        for some in ([*has_id, *texts], above, prose):
            if parts := [(mine, text) for mine in some if (text := _answer(mine, task))]:
                break
        yield task, "\n\n".join(text for _, text in parts)
        if not parts and (words := [str(m.cell.number) for m in own if m in below or _adds(m)]):
            which = cut(", ".join(words), 60)
            notes.append(f"{task.grade_id} is empty, but words may be in cell {which}; {LOOK}")
        elsewhere = [str(mine.cell.number) for mine, _ in parts if mine.of is not task]
        if elsewhere:
            notes.append(f"{task.grade_id}: taken from cell {cut(', '.join(elsewhere), 60)} too")
        if any(PLACEHOLDER in text for _, text in parts):
            notes.append(f"{task.grade_id} still holds the placeholder beside a text")
        if any(PICTURE.search(text) for _, text in parts):
            notes.append(f"{task.grade_id} shows a picture: read it in the notebook; {LOOK}")


def _beside(own: Sequence[Own]) -> list[Own]:
    """The student's own cells up to the next released one."""
    return [*takewhile(lambda mine: mine.of is None, own)]


def _is_prose(source: str) -> bool:
    """Whether a code cell holds comments and texts only, or what is no Python at all."""
    try:
        lines = ast.parse(without_magics(source[:LONGEST_PARSED])[0]).body
    except SyntaxError:
        return True
    except (ValueError, RecursionError, MemoryError):
        return False
    return all(isinstance(x, ast.Expr) and isinstance(x.value, ast.Constant) for x in lines)


def _adds(mine: Own) -> bool:
    """Whether it is a text of the student's own, or the release's with something added."""
    is_other = mine.of is None or (mine.differs and not mine.of.is_answer)
    return mine.cell.kind != "code" and is_other and bool(mine.cell.source.strip())


def _answer(mine: Own, task: Cell) -> str:
    """A cell's text; "" if nothing stands in it but the release's own."""
    of = mine.of or task
    given = {PLACEHOLDER} if of is mine.cell else {*_bare(as_released(of)).split("\n")}
    lines = [line for line in _bare(mine.cell.source).split("\n") if line not in given]
    if not any(line.replace(PLACEHOLDER, "").strip(" \t*_#>:.") for line in lines):
        return ""
    return mine.cell.source if of is task else "\n".join(lines).strip()
