"""What people do in notebooks and is right gets its points, from the grader and in the check."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import matplotlib
import matplotlib.pyplot as plt
import pytest

from dgm_course.grading import answers
from dgm_course.grading.grade import Assignment, grade
from dgm_course.grading.matching import recognise, written
from dgm_course.grading.notebook import read_cells
from dgm_course.grading.notes import fold
from dgm_course.grading.rehearsal import Submission
from dgm_course.grading.submissions import find
from dgm_course.grading.walls import Limits
from tests.grading import light
from tests.grading.lived import LIVED
from tests.grading.prepared import sandboxes
from tests.needs import needs


@pytest.fixture(scope="module")
def assignment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Assignment]:
    path = tmp_path_factory.mktemp("source") / "light.ipynb"
    with sandboxes():
        yield Assignment.read(light.write(light.source(), path))


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """A check runs a notebook's cells in this process, whose later tests must not meet them."""
    with mock.patch.dict(os.environ), warnings.catch_warnings(), matplotlib.rc_context():
        yield
    plt.close("all")


def test_there_are_enough() -> None:
    assert len(LIVED) >= 90


@needs("bubblewrap")
@pytest.mark.parametrize("name", LIVED)
def test_a_notebook_that_was_lived_in(
    name: str, assignment: Assignment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_torch", lambda: None)  # other tests have imported it
    change, note = LIVED[name]
    made = light.submission()
    change(made)
    path = light.write(made, tmp_path / "all" / "ann" / "light.ipynb")
    (entry,), _ = find(tmp_path / "all")
    result = grade(assignment, entry, seed=7, limits=Limits(seconds=60))
    said = [*result["notes"], *(test["message"] for test in result["tests"])]
    assert (result["points"], result["status"]) == (8, "passed"), said
    assert note is None or (any(note in text for text in said) if note else not any(said)), said

    release = read_cells(light.write(light.released(), tmp_path / "release.ipynb"))
    with contextlib.chdir(path.parent):
        submission = Submission(read_cells(path), release, {})
        tests = [*submission.test()]
        by_hand = [*written(submission.own, release, submission.notes)]
    assert [test.points for test in tests] == [3, 2, 3], [test.message for test in tests]
    assert [text for _, text in by_hand] == [answer["text"] for answer in result["written"]]
    found = [*submission.notes, *submission.stopped]
    assert fold(found) == [text for text in result["notes"] if "left out" not in text]


@pytest.mark.parametrize("place", ["the title", "a text cell at the top", "print", "a variable"])
def test_an_empty_answer_whose_words_may_be_elsewhere_needs_a_look(
    place: str, tmp_path: Path
) -> None:
    made, words = light.submission(answer_4="YOUR ANSWER HERE"), "4: it halves, 22 times"
    release = read_cells(light.write(light.released(), tmp_path / "release.ipynb"))
    notes: list[str] = []
    empty = recognise(read_cells(light.write(made, tmp_path / "empty.ipynb")), release, [])
    assert [text for _, text in written(empty, release, notes)] == [""]
    assert not notes
    if place == "the title":
        made["cells"][0]["source"] += f"\n\n{words}"
    elif place == "a text cell at the top":
        made["cells"].insert(1, light.cell("markdown", words))
    else:
        code = f"print('{words}')" if place == "print" else f"answer = '{words}'"
        made["cells"].append(light.cell("code", code))
    own = recognise(read_cells(light.write(made, tmp_path / "light.ipynb")), release, [])
    assert [text for _, text in written(own, release, notes)] == [""]
    assert ["answer-4 is empty" in note and "needs a look" in note for note in notes] == [True]
