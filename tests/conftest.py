import gc
import re
from pathlib import Path

import pytest

from tests import durations, foreign, needs


def pytest_addoption(parser):
    parser.addoption("--screenshots", type=Path, metavar="DIR", help="where browser tests draw")
    parser.addoption(
        "--all-slides", action="store_true", help="page through every lecture's slides"
    )


def pytest_configure(config):
    config.pluginmanager.register(needs.Plugin())
    config.pluginmanager.register(durations.Plugin())
    config.pluginmanager.register(foreign.Plugin())


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Ten thousand tests are made, and none of them is garbage until the end of the run."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.fixture
def screenshot(request):
    """Save a page's picture under the test's name, if --screenshots says where."""

    def save(page, what, **options):
        if folder := request.config.getoption("--screenshots"):
            name = re.sub(r"\W+", "-", f"{request.node.name}-{what}")
            page.screenshot(path=folder / f"{name}.png", **options)

    return save


def pytest_terminal_summary(terminalreporter):
    """What browser tests measured."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "browser" and report.when == "call":
                terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {value}")
