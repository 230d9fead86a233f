from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.chromium import chromium
from tests.browser.jupyterlab import Lab, jupyterlab
from tests.needs import needs


def pytest_itemcollected(item: pytest.Item) -> None:
    """Whatever opens a page needs a browser; the site's pages need what npm brings, too."""
    fixtures = getattr(item, "fixturenames", ())
    if "browser" in fixtures:
        item.add_marker(needs("chromium"))
    if "site" in fixtures:
        item.add_marker(needs("npm"))


# Not for the session: Playwright has an event loop run in this thread for as long as it lives, and
# tests of other folders start loops of their own.
@pytest.fixture(scope="package")
def browser() -> Iterator[object]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="package")
def lab(browser, tmp_path_factory) -> Iterator[Lab]:
    with jupyterlab(tmp_path_factory.mktemp("home"), browser) as running:
        yield running
