import re
import shutil
import sys
from pathlib import Path

import pytest

# Windows has no make; there the README's plain pip commands take its place.
collect_ignore = [] if shutil.which("make") else ["test_makefile.py"]
# Students' code is graded on Linux alone.
collect_ignore_glob = [] if sys.platform == "linux" else ["test_grading_*.py"]


def pytest_addoption(parser):
    parser.addoption("--screenshots", type=Path, metavar="DIR", help="where browser tests draw")


@pytest.fixture
def screenshot(request):
    """Save a page's picture under the test's name, if --screenshots says where."""

    def save(page, what, **options):
        if folder := request.config.getoption("--screenshots"):
            name = re.sub(r"\W+", "-", f"{request.node.name}-{what}")
            page.screenshot(path=folder / f"{name}.png", **options)

    return save


def pytest_terminal_summary(terminalreporter):
    """What browser tests measured, and in one line why they were skipped."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "browser" and report.when == "call":
                terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {value}")
    skipped = [str(report.longrepr) for report in terminalreporter.getreports("skipped")]
    if found := re.search(r"browser tests skipped:[^\n'\"]*", "\n".join(skipped)):
        terminalreporter.write_line(found[0])
