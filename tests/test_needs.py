"""What a machine lacks is said once, and no test finds a program that it does not name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from shutil import which
from types import SimpleNamespace

import pytest

from tests import bare, durations, needs

ROOT = Path(__file__).parent.parent
CONFTEST = """
from tests import needs

def pytest_configure(config):
    config.pluginmanager.register(needs.Plugin())
"""
TWO = """
from shutil import which
from tests.needs import needs

@needs("npm")
def test_marked():
    assert which("npm")

def test_not_marked():
    assert which("npm") is None
    assert which("other")
"""


def program(folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)


# --- hiding -----------------------------------------------------------------------------------


def test_a_hidden_program_is_not_found_and_its_neighbours_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, names in {"bin": ["bwrap", "other", "npm"], "more": ["third"]}.items():
        for name in names:
            program(tmp_path / folder, name)
    path = os.pathsep.join(str(tmp_path / folder) for folder in ("bin", "more", "nowhere"))
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("CHROMIUM", "other")
    hiding = needs.Hiding()
    with hiding.hidden(["bubblewrap", "chromium"]):
        assert which("bwrap") is None
        assert all(map(which, ["other", "npm", "third"]))
        assert "CHROMIUM" not in os.environ
        assert str(tmp_path / "more") in os.environ["PATH"]  # nothing to hide: as it is
    assert which("bwrap")
    assert (os.environ["PATH"], os.environ["CHROMIUM"]) == (path, "other")
    hiding.close()


# --- a run of pytest --------------------------------------------------------------------------


def run(folder: Path, test: str, **variables: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_it.py").write_text(test)
    program(folder / "bin", "other")
    alone = {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment = {"PATH": str(folder / "bin"), **alone, **variables}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    command += ["--rootdir", str(folder), str(folder)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_with_the_program_both_tests_pass(tmp_path: Path) -> None:
    program(tmp_path / "bin", "npm")
    done = run(tmp_path, TWO)
    assert "2 passed" in done.stdout, done.stdout


def test_without_it_one_is_skipped_and_a_line_says_what_to_install(tmp_path: Path) -> None:
    done = run(tmp_path, TWO)
    assert "1 passed, 1 skipped" in done.stdout, done.stdout
    (line,) = (line for line in done.stdout.splitlines() if "npm" in line)
    assert line == f"1 test skipped that needs npm: {needs.NEEDS['npm'].install}"


def test_in_ci_it_fails(tmp_path: Path) -> None:
    done = run(tmp_path, TWO, CI="true")
    assert "1 passed, 1 error" in done.stdout, done.stdout
    assert "needs npm: there is no npm on PATH" in done.stdout


def test_who_misses_a_hidden_program_is_told(tmp_path: Path) -> None:
    program(tmp_path / "bin", "npm")
    done = run(tmp_path, TWO.replace('@needs("npm")\n', ""))
    assert "1 failed, 1 passed" in done.stdout, done.stdout
    assert "npm: seen by tests that say so alone" in done.stdout


def test_a_need_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, TWO.replace('needs("npm")', 'needs("nmp")'))
    assert done.returncode != 0
    assert "got {'nmp'}" in done.stdout + done.stderr


# --- what is said -----------------------------------------------------------------------------


def test_each_missing_thing_has_its_line() -> None:
    reasons = ["needs chromium: x", "needs chromium: x; needs npm: y", "another reason: z"]
    found = needs.lines(reasons)
    assert [line.partition(":")[0] for line in found] == [
        "2 tests skipped that need chromium",
        "1 test skipped that needs npm",
    ]


def report(nodeid: str, outcome: str = "passed", when: str = "call", **more: object) -> object:
    made = {"nodeid": nodeid, "outcome": outcome, "when": when, "longrepr": "", "duration": 1.0}
    return SimpleNamespace(**{**made, outcome: True, **more})


def test_a_bare_machine_where_a_test_passes_or_says_nothing_is_not_right() -> None:
    outcomes = bare.Outcomes()
    outcomes.due = {"a": {"npm"}, "b": {"npm"}, "c": {"npm", "chromium"}, "d": {"make"}}
    outcomes.skipped = {"a": "needs npm: it", "b": "too slow", "c": "needs npm: it"}
    outcomes.others = {"d": "passed"}
    wrong = "\n".join(outcomes.wrong())
    assert "a:" not in wrong.split()
    assert "b: needs ['npm'], said too slow" in wrong
    assert "c: needs ['chromium', 'npm'], said needs npm" in wrong
    assert "d: passed, should be skipped" in wrong
    assert "bubblewrap: no test needs it" in wrong


def test_the_table_of_files_is_sorted_and_complete() -> None:
    reports = [report("quick.py::a", when=when, duration=0.5) for when in ("setup", "call")]
    reports += [report(f"slow.py::{i}", duration=30.0) for i in range(4)]
    reports += [report(f"{i}.py::a", duration=0.1) for i in range(durations.MOST)]
    lines = durations.table(reports)
    assert lines[1].split() == ["slow.py", "4", "120.0"]
    assert lines[2].split() == ["quick.py", "1", "1.0"]
    assert len(lines) == durations.MOST + 2
    assert lines[-1].split() == ["27", "files", "in", "all", "30", "123.5"]
