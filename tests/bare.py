"""The tests on a machine that has Python and nothing else.

    python -m tests.bare

Hides every program that `tests.needs` knows, collects all tests and runs those that need one of
these programs: each must be skipped and name what it needs. Exits with 1 if a test passes, fails,
or is skipped for another reason. That no other test needs such a program is seen in every run,
because `tests.needs` hides them from tests that are not marked.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from tests import needs

PROGRAMS = {name for name, need in needs.NEEDS.items() if need.programs}


class Outcomes:
    """Runs tests that need a program, and keeps what became of each."""

    def __init__(self) -> None:
        self.due: dict[str, set[str]] = {}
        self.skipped: dict[str, str] = {}
        self.others: dict[str, str] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        self.due = {item.nodeid: mine for item in items if (mine := needs.of(item) & PROGRAMS)}
        config.hook.pytest_deselected(items=[i for i in items if i.nodeid not in self.due])
        items[:] = [item for item in items if item.nodeid in self.due]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped:
            self.skipped[report.nodeid] = str(report.longrepr)
        elif report.when == "call" or report.failed:
            self.others[report.nodeid] = report.outcome

    def wrong(self) -> list[str]:
        """A line for each test that did not do as it should."""
        found = [f"{test}: {outcome}, should be skipped" for test, outcome in self.others.items()]
        for test, names in self.due.items():
            said = self.skipped.get(test, "nothing")
            if not all(f"needs {name}: " in said for name in names):
                found.append(f"{test}: needs {sorted(names)}, said {said}")
        for name in PROGRAMS - {name for names in self.due.values() for name in names}:
            found.append(f"{name}: no test needs it")
        return found


def main(*arguments: Any) -> int:
    os.environ.pop("CI", None)  # there, what is missing fails
    outcomes, hiding = Outcomes(), needs.Hiding()
    with hiding.hidden(PROGRAMS):
        code = pytest.main(["-q", "-p", "no:cacheprovider", *arguments], plugins=[outcomes])
    hiding.close()
    wrong = outcomes.wrong()
    print(*wrong, sep="\n")
    print(f"{len(outcomes.due)} tests need a program; {len(outcomes.skipped)} were skipped")
    return int(bool(wrong) or code != pytest.ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
