"""Where the time of a test run goes: a table by file, as a plugin of pytest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MOST = 25  # rows
FEWEST = 10  # files, below which nobody asks


def table(reports: Iterable[Any]) -> list[str]:
    """Tests and seconds (set-up, call and teardown) by file, the slowest first, and in all."""
    tests: dict[str, set[str]] = {}
    seconds: dict[str, float] = {}
    for report in reports:
        file = report.nodeid.partition("::")[0]
        tests.setdefault(file, set()).add(report.nodeid)
        seconds[file] = seconds.get(file, 0) + report.duration
    slowest = sorted(seconds, key=lambda file: -seconds[file])
    width = max((len(file) for file in slowest[:MOST]), default=0)
    lines = [f"{'file':<{width}}  tests  seconds"]
    lines += [f"{file:<{width}}  {len(tests[file]):5}  {seconds[file]:7.1f}" for file in slowest]
    total = f"{sum(map(len, tests.values())):5}  {sum(seconds.values()):7.1f}"
    rest = f"{len(slowest)} files in all"
    return [*lines[: 1 + MOST], f"{rest:<{width}}  {total}"]


class Plugin:
    """Prints the table at the end of a run over many files."""

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        reports = [
            report
            for reports in terminalreporter.stats.values()
            for report in reports
            if hasattr(report, "duration") and hasattr(report, "when")
        ]
        if len({report.nodeid.partition("::")[0] for report in reports}) >= FEWEST:
            terminalreporter.write_sep("=", "seconds by file")
            for line in table(reports):
                terminalreporter.write_line(line)
