"""A sandbox that is started once for many submissions: its start costs more than most of them.

Graders start a new one for each submission. To tests that ask what a submission is due it makes
no difference: the first process of a sandbox runs no student's code, and after each question
everything else in it is killed and its files are removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dgm_course.grading import grade
from dgm_course.grading.questions import Student
from dgm_course.grading.sandbox import Sandbox


class Waiting:
    """The sandbox that the last submission left as it was, if it did."""

    sandbox: Sandbox | None = None


@contextmanager
def sandboxes() -> Iterator[Waiting]:
    """Within, `grade.grade` hands a sandbox on from submission to submission.

    All must be of one assignment and have the same limits, those on seconds excepted.
    """
    waiting = Waiting()

    class Heir(Student):
        asking = False

        def __post_init__(self) -> None:
            super().__post_init__()
            self._sandbox, waiting.sandbox = waiting.sandbox, None
            if self._sandbox is not None:
                self._sandbox.limits = self.limits

        def ask(self, *question: Any) -> None:
            self.asking = True
            try:
                super().ask(*question)
            finally:
                self.asking = False

        def close(self) -> None:
            if self.asking:  # something is wrong with this one
                super().close()
            else:
                self._sandbox, waiting.sandbox = None, self._sandbox

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grade, "Student", Heir)
        try:
            yield waiting
        finally:
            if waiting.sandbox is not None:
                waiting.sandbox.close()
