"""What tests need of the machine beyond Python and its packages: asked here and nowhere else.

    @needs("bubblewrap")
    def test_the_walls_hold(): ...

Where what a test needs is missing, the test is skipped, and the last lines of the run say how many
were and what to install; in CI (CI=true), where everything is installed, it fails. A test that is
not marked does not find the program on PATH, not even where it is installed, so that no test comes
to need one unnoticed. `python -m tests.bare` runs all that are marked with the programs hidden.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from shutil import which
from typing import Any

import pytest

needs = pytest.mark.needs


@dataclass(frozen=True)
class Need:
    """Something that may be missing.

    Args:
        why_not: why it is missing; "" if it is there.
        install: one sentence.
        programs: what is hidden from tests that are not marked.
        variables: in which users name such a program.
        installable: whether CI can be asked to have it.
    """

    why_not: Callable[[], str]
    install: str
    programs: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    installable: bool = True


def no_program(name: str) -> Callable[[], str]:
    return lambda: "" if which(name) else f"there is no {name} on PATH"


def no_sandbox() -> str:
    from dgm_course.grading.sandbox import check
    from dgm_course.grading.walls import SandboxMissing

    try:
        check()
    except SandboxMissing as error:
        return str(error)
    return ""


def no_root() -> str:
    from dgm_course.grading.walls import as_root

    return "" if as_root() else "this user cannot become another"


def no_chromium() -> str:
    from tests.browser.chromium import executable

    return "" if executable() else "there is no Chromium and no Chrome"


def no_modes() -> str:
    if os.name != "posix":
        return "files have no mode bits"
    if os.geteuid() != 0:
        return ""
    try:
        os.seteuid(65534)
        try:
            Path(tempfile.gettempdir(), ".").stat()
        finally:
            os.seteuid(0)
    except OSError as error:
        return str(error)
    return ""


NEEDS = {
    "Linux": Need(
        lambda: "" if sys.platform == "linux" else f"this is {sys.platform}",
        "students' code is graded on Linux alone",
    ),
    "bubblewrap": Need(
        no_sandbox,
        "on Debian and Ubuntu `apt-get install bubblewrap` (0.8 or newer) brings the sandbox "
        "for students' code; a container must allow it to make namespaces",
        ("bwrap",),
    ),
    "root": Need(
        no_root, "only root can become another user: run the tests as root", installable=False
    ),
    "permissions": Need(
        no_modes,
        "run the tests as a user whom a folder's mode can refuse, or as a root who can become one",
        installable=False,
    ),
    "chromium": Need(
        no_chromium,
        "on Debian and Ubuntu `apt-get install chromium fonts-dejavu-core`, elsewhere Chrome",
        ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"),
        ("CHROMIUM",),
    ),
    "npm": Need(
        no_program("npm"),
        "on Debian and Ubuntu `apt-get install npm`, elsewhere Node.js, brings the scripts that "
        "the site serves",
        ("npm",),
    ),
    "make": Need(
        no_program("make"),
        "on Debian and Ubuntu `apt-get install make`; without it there are the plain commands of "
        "the README",
        ("make",),
    ),
}
MODULES = {"test_grading_*.py": "Linux"}  # which other systems cannot even import
why_not = cache(lambda name: NEEDS[name].why_not())


def of(item: pytest.Item) -> set[str]:
    """The names of what a test needs."""
    names = {name for mark in item.iter_markers("needs") for name in mark.args}
    if unknown := names - {*NEEDS}:
        raise pytest.UsageError(f"{item.nodeid}: expected needs among {[*NEEDS]}, got {unknown}")
    return names


def reason(names: Iterable[str]) -> str:
    """Why a test cannot run, in a form that `lines` reads."""
    return "; ".join(f"needs {name}: {why_not(name)}" for name in names)


def lines(reasons: Iterable[str], unit: str = "test") -> list[str]:
    """A line for each thing that is missing: how many were skipped, and what to install."""
    found = [name for text in reasons for name in re.findall(r"needs (\w+): ", text)]
    count = Counter(name for name in found if name in NEEDS)
    return [
        f"{n} {unit}{'s' * (n > 1)} skipped that {'need' if n > 1 else 'needs'} {name}: "
        f"{NEEDS[name].install}"
        for name, n in count.items()
    ]


# --- programs that a test does not see --------------------------------------------------------


class Hiding:
    """PATH without some programs: folders that hold one are replaced by links to the rest."""

    def __init__(self) -> None:
        self._links = tempfile.TemporaryDirectory(prefix="without-")
        self._path = cache(self._without)

    @contextmanager
    def hidden(self, names: Iterable[str]) -> Iterator[None]:
        """Run something where the programs of these needs seem not to be installed."""
        chosen = [NEEDS[name] for name in names]
        before = dict(os.environ)
        programs = frozenset(program for need in chosen for program in need.programs)
        os.environ["PATH"] = self._path(before.get("PATH", os.defpath), programs)
        for need in chosen:
            for variable in need.variables:
                os.environ.pop(variable, None)
        try:
            yield
        finally:
            for variable in ("PATH", *(v for need in chosen for v in need.variables)):
                os.environ.pop(variable, None)
                if variable in before:
                    os.environ[variable] = before[variable]

    def _without(self, path: str, programs: frozenset[str]) -> str:
        if os.name != "posix":  # links are for administrators
            return path
        return os.pathsep.join(self._folder(name, programs) for name in path.split(os.pathsep))

    def _folder(self, name: str, programs: frozenset[str]) -> str:
        if not any(os.path.lexists(os.path.join(name, program)) for program in programs):
            return name
        made = tempfile.mkdtemp(dir=self._links.name)
        for entry in os.scandir(name):
            if entry.name not in programs:
                os.symlink(os.path.abspath(entry.path), os.path.join(made, entry.name))
        return made

    def close(self) -> None:
        self._links.cleanup()


# --- as a plugin of pytest --------------------------------------------------------------------


class Elsewhere(pytest.File):
    """A module of tests for another system: not imported, one skip."""

    def collect(self) -> Iterable[pytest.Item]:
        name = next(name for glob, name in MODULES.items() if fnmatch(self.path.name, glob))
        pytest.skip(reason([name]), allow_module_level=True)


class Plugin:
    """Asks for what tests need, hides what they do not name, and says what was missing."""

    def __init__(self) -> None:
        self._hiding = Hiding()

    def pytest_configure(self, config: pytest.Config) -> None:
        config.addinivalue_line("markers", "needs(name, ...): of the machine; see tests/needs.py")

    @pytest.hookimpl(tryfirst=True)
    def pytest_pycollect_makemodule(self, module_path: Path, parent: pytest.Collector) -> Any:
        for glob, name in MODULES.items():
            if fnmatch(module_path.name, glob) and why_not(name):
                return Elsewhere.from_parent(parent, path=module_path)
        return None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        if any(NEEDS[name].programs for name in of(item)):
            return (yield)  # its PATH is the machine's: what runs a sandbox shows where it lies
        with self._hiding.hidden(NEEDS):
            return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        missing = sorted(name for name in of(item) if why_not(name))
        if os.environ.get("CI") == "true" and any(NEEDS[name].installable for name in missing):
            pytest.fail(reason(missing), pytrace=False)
        if missing:
            pytest.skip(reason(missing))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        """Say to whoever misses a program that it is hidden, not lost."""
        report = yield
        programs = {program for need in NEEDS.values() for program in need.programs}
        words = {*re.findall(r"[\w-]+", str(report.longrepr))}
        if report.failed and not of(item) and (named := programs & words):
            text = f"{', '.join(sorted(named))}: seen by tests that say so alone (tests/needs.py)"
            report.sections.append(("Programs that this test does not see", text))
        return report

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        skipped = terminalreporter.getreports("skipped")
        for kind, unit in ((pytest.TestReport, "test"), (pytest.CollectReport, "file")):
            for line in lines((str(r.longrepr) for r in skipped if type(r) is kind), unit):
                terminalreporter.write_line(line)

    def pytest_unconfigure(self) -> None:
        self._hiding.close()
