"""What needs a look is seen, however much else there is to say, and a cut says that it is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dgm_course.grading.grade import Assignment, grade
from dgm_course.grading.notes import LOOK, MOST, cut, fold
from dgm_course.grading.submissions import find
from dgm_course.grading.walls import Limits
from tests.grading import light
from tests.grading.prepared import sandboxes
from tests.needs import needs

DOUBLE = f"answer-2 occurs twice; {LOOK}"


@pytest.mark.parametrize(
    "many",
    [
        [f"not read: picture {i}.png" for i in range(60)],
        [f"cell {i} has an unknown id, x{i}" for i in range(70)],
        [f"cell {i} stopped: NameError: name 'x{i}' is not defined" for i in range(70)],
        [f"cell {i}: left out %magic" for i in range(70)],
        [f"not read: {i}.png (a link); {LOOK}" for i in range(500)],
        [f"cell {i} imports os; {LOOK}" for i in range(70)],
        ["the same"] * 60,
    ],
)
def test_many_notes_of_a_kind_are_one(many: list[str]) -> None:
    folded = fold([*many, DOUBLE])
    assert len(folded) == 2
    assert DOUBLE in folded
    assert LOOK in folded[0]
    (other,) = (note for note in folded if note != DOUBLE)
    assert other.startswith(many[0])
    assert str(len(many)) in other or f"{len(many) - 1} others" in other


def test_a_few_notes_stay_as_they_are() -> None:
    notes = ["not read: a.png", "not read: b.png", f"answer-1 is missing; {LOOK}"]
    assert fold(notes) == [notes[2], *notes[:2]]
    answers = [f"answer-{i} occurs twice; {LOOK}" for i in range(9)]
    assert fold(answers) == answers


def test_what_is_left_out_is_counted() -> None:
    kinds = [f"{chr(200 + i)}: odd; {LOOK}" for i in range(70)]
    folded = fold(["fine", *kinds])
    assert folded == [*kinds[:MOST], f"and {71 - MOST} other notes; {LOOK}"]
    assert cut("x" * 10, 10) == "x" * 10
    assert cut("x" * 11, 10) == "x" * 10 + " … (10 of 11 characters)"


# --- of a submission ------------------------------------------------------------------------------


def pictures(_: dict[str, Any], folder: Path) -> None:
    for i in range(60):
        (folder / f"picture {i}.png").write_bytes(b"")


def odd_cells(made: dict[str, Any], _: Path) -> None:
    made["cells"] += [light.cell("code", "%who", f"unknown-{i}") for i in range(70)]


def errors(made: dict[str, Any], _: Path) -> None:
    made["cells"] += [light.cell("code", "undefined") for _ in range(70)]


def a_long_answer(made: dict[str, Any], _: Path) -> None:
    made["cells"][-1]["source"] = "word " * 20_000


@needs("bubblewrap")
@pytest.mark.parametrize("more", [pictures, odd_cells, errors, a_long_answer])
def test_a_doubled_answer_is_seen_among_much_else(
    more: Callable[[dict[str, Any], Path], None], tmp_path: Path
) -> None:
    assignment = Assignment.read(light.write(light.source(), tmp_path / "light.ipynb"))
    folder, made = tmp_path / "all" / "ann", light.submission()
    folder.mkdir(parents=True)
    made["cells"].append(made["cells"][2])
    more(made, folder)
    light.write(made, folder / "light.ipynb")
    (entry,), _ = find(tmp_path / "all", "light")
    with sandboxes():
        result = grade(assignment, entry, seed=0, limits=Limits(seconds=60, seconds_in_all=600))
    assert len(result["notes"]) < 10
    looks = [note for note in result["notes"] if LOOK in note]
    assert looks == result["notes"][: len(looks)]
    assert any("answer-1 occurs twice" in note for note in looks)
    (written,) = result["written"]
    if len(written["text"]) > 1000:
        assert written["text"].endswith("characters)")
        assert any("answer-4 has 100000 characters" in note for note in looks)
