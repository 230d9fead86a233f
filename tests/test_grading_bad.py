"""Every bad submission gets what it is due, and nothing else happens."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dgm_course.grading.grade import Assignment, grade
from dgm_course.grading.submissions import find
from dgm_course.grading.walls import Limits
from tests.grading import light
from tests.grading.bad import BAD, CANARY
from tests.grading.prepared import sandboxes
from tests.needs import needs

LIMITS = Limits(
    seconds_in_all=600,
    address_space=500_000_000,
    memory=700_000_000,
    processes=16,
    file_size=20_000_000,
    disk=30_000_000,
    output=40_000_000,
)


@pytest.fixture(scope="module")
def assignment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Assignment]:
    """The light assignment; a sandbox that a bad submission leaves as it was serves the next."""
    path = tmp_path_factory.mktemp("source") / "light.ipynb"
    with sandboxes():
        yield Assignment.read(light.write(light.source(), path))


@pytest.fixture(autouse=True)
def finite() -> Iterator[None]:
    """Whatever holds the grader for ever fails its test."""

    def stop(*_: object) -> None:
        pytest.fail("graded for more than five minutes")  # no Exception: nothing catches it

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_there_are_enough() -> None:
    assert len(BAD) >= 50


@needs("bubblewrap")
@pytest.mark.parametrize("name", BAD)
def test_bad_submission(
    name: str, assignment: Assignment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "1")
    points, status, note, make, seconds = BAD[name]
    folder = tmp_path / "submissions" / "mallory"
    folder.mkdir(parents=True)
    make(folder)
    (entry,), _ = find(folder.parent)
    result = grade(assignment, entry, seed=7, limits=replace(LIMITS, seconds=seconds))
    said = [*result["notes"], *(test["message"] for test in result["tests"])]
    hidden = ["hidden"] * any(test["hidden"] for test in result["tests"])
    assert (result["points"], result["status"]) == (points, status), said
    assert any(note in text for text in [*said, *hidden]) or not note, said
    assert not os.path.exists(CANARY)
    assert points or any("needs a look" in text for text in said), "a silent 0"
