"""Forty submissions of the PixelCNN assignment, and what a right one costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dgm_course.grading.batch import Batch, store
from dgm_course.grading.grade import Assignment, grade
from dgm_course.grading.submissions import find
from dgm_course.grading.walls import Limits
from tests.assignment import SOURCE
from tests.grading.prepared import sandboxes
from tests.grading.real import fill
from tests.grading.scale import not_as_due
from tests.needs import needs


@needs("bubblewrap")
@pytest.mark.slow
def test_forty_real_submissions_get_what_they_are_due(tmp_path: Path) -> None:
    """Two as assistants grade them, side by side; the others, one by one, in one sandbox."""
    chosen = fill(tmp_path, 40, sparing=True)
    patient = Limits(seconds=300, seconds_in_all=3000)  # the machine may be busy
    batch = Batch(Assignment.read(SOURCE), tmp_path, 3, patient)
    entries, _ = find(tmp_path / "submissions")
    together = entries[::20]
    with sandboxes():
        for entry in entries:
            if entry not in together:
                result = grade(batch.assignment, entry, seed=batch.seed, limits=patient)
                store(result, batch.out, entry)
    assert batch.waiting(entries) == together
    assert len([*batch.run(together, jobs=2)]) == 2
    assert batch.waiting(entries) == []
    wrong = []
    for i, real in enumerate(chosen):
        result = json.loads((tmp_path / "results" / f"s{i:03d}.json").read_text())
        if not_as_due(real, result):
            wrong.append((real.name, real.task, messages(result)))
    assert wrong == []


def messages(result: dict[str, Any]) -> list[str]:
    return [*result["notes"], *(t["message"] for t in result["tests"] if t["status"] != "passed")]
