"""What the grader's tests need of the machine."""

from __future__ import annotations

import os
from functools import cache

import pytest

from dgm_course.grading.sandbox import check
from dgm_course.grading.walls import SandboxMissing


@cache
def _why_not() -> str:
    try:
        check()
    except SandboxMissing as error:
        return str(error)
    return ""


def sandbox() -> None:
    """Skip the test, saying why, where there is no sandbox; in CI (CI=true) fail."""
    if why := _why_not():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(why)
