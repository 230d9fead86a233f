from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.browser.chromium import MISSING, chromium, executable
from tests.browser.jupyterlab import Lab, jupyterlab


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    if executable() is None:
        if os.environ.get("CI") == "true":
            pytest.fail(MISSING.replace("skipped", "cannot run"))
        pytest.skip(MISSING)
    with chromium() as found:
        yield found


@pytest.fixture(scope="session")
def lab(browser, tmp_path_factory) -> Iterator[Lab]:
    with jupyterlab(tmp_path_factory.mktemp("home"), browser) as running:
        yield running
