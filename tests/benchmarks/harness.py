"""Timing in turn, and the table that is printed."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple


class Row(NamedTuple):
    """One measurement beside what it is compared with, and the ratio it must not exceed."""

    what: str
    ours: float  # seconds
    theirs: float  # seconds; a peer's, or a limit's
    peer: str
    limit: float | None  # of ours / theirs; None where the ratio is only shown

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs

    @property
    def held(self) -> bool:
        return self.limit is None or self.ratio <= self.limit


def in_turn(
    functions: dict[str, Callable[[], object]],
    rounds: int = 40,
    of_all: Callable[[list[float]], float] = statistics.median,
) -> dict[str, float]:
    """Median seconds of each function, called in turn, so that a slow moment slows them all.

    With ``of_all=min`` the least, where a machine that others use has few quiet moments.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 3):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: of_all(values[3:]) for name, values in times.items()}


ALONE = """
import re, time
from pathlib import Path
def memory(what):  # in MB; Linux
    found = re.search(what + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024
{setup}
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before, start = memory("VmRSS"), time.perf_counter()
{call}
print(time.perf_counter() - start, memory("VmHWM") - before)
"""


def alone(setup: str, call: str) -> tuple[float, float]:
    """Seconds of a call and its peak above what was there before, in MB, in a fresh interpreter."""
    command = [sys.executable, "-c", ALONE.format(setup=setup, call=call)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak = (float(word) for word in run.stdout.split())
    return seconds, peak


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| what | ours, ms | beside | its ms | ratio | at most |", "|---|---|---|---|---|---|"]
    for row in rows:
        limit = "" if row.limit is None else f"{row.limit:g}{'' if row.held else ' (MISSED)'}"
        lines.append(
            f"| {row.what} | {row.ours * 1e3:.3g} | {row.peer} | {row.theirs * 1e3:.3g} "
            f"| {row.ratio:.2f} | {limit} |"
        )
    return "\n".join(lines)
