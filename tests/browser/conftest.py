from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.browser.chromium import MISSING, chromium, executable


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    if executable() is None:
        if os.environ.get("CI") == "true":
            pytest.fail(MISSING.replace("skipped", "cannot run"))
        pytest.skip(MISSING)
    with chromium() as found:
        yield found
