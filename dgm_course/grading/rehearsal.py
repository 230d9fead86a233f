"""A rehearsal of the grading in this process: what `dgm assignment check` shows a student.

Cells are recognised, ordered and run by the grader's own code (`matching`, `running`); what it
lacks is the sandbox, the hidden tests and the grader's seed. Nobody's points rest on it.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dgm_course.grading import checks
from dgm_course.grading.answers import (
    Answers,
    CheckFailed,
    NotAnswered,
    read_weights,
    unpack_weights,
)
from dgm_course.grading.matching import Own, first_setup, program, recognise
from dgm_course.grading.notebook import Cell, may_import
from dgm_course.grading.running import Page, Stopped

SLOW = 10  # seconds of a cell; where it is graded, a test has 30 for all of them


@dataclass
class Result:
    """One test: its points if it passed, else what it said."""

    grade_id: str
    title: str
    points: int
    out_of: int
    message: str
    seconds: float


@dataclass
class Submission:
    """A notebook's cells, run as the grader runs them, and what is to be said of them.

    Args:
        released: the release's cells, or the source's; if there is none, the notebook's own.
        files: contents of the files beside the notebook; if not given, they lie in this folder.
    """

    cells: Sequence[Cell]
    released: Sequence[Cell] = ()
    files: Mapping[str, bytes] | None = None
    notes: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    page: Page = field(default_factory=Page)

    def __post_init__(self) -> None:
        self.released = self.released or self.cells
        self.own: list[Own] = recognise(self.cells, self.released, self.notes)
        self._ran: list[tuple[int, str]] = []

    @property
    def names(self) -> dict[str, Any]:
        """What the cells that have run define."""
        return self.page.names

    def run(self, test: Cell | None = None) -> Submission:
        """Run what a test sees, or all; if that begins with what has run, only the rest."""
        setup = [(-1 - i, cell.source) for i, cell in enumerate(first_setup(self.released))]
        wanted = setup + [*program(self.own, self.released, test).items()]
        if not self._ran or wanted[: len(self._ran)] != self._ran:
            self._ran = []
            self.page = Page(__builtins__=vars(builtins) | {"__import__": _guarded_import})
        with as_a_kernel(self.page):
            for number, source in wanted[len(self._ran) :]:
                start = time.perf_counter()
                error, _ = self.page.run(source, f"cell {number}")
                self._say(number, error, time.perf_counter() - start)
        self._ran = wanted
        return self

    def _say(self, number: int, error: str, seconds: float) -> None:
        is_stub = any(cell.number == number and cell.is_empty for cell in self.cells)
        said = [f"cell {number} stopped: {error}"] if error and not is_stub else []
        if seconds > SLOW:
            said.append(
                f"cell {number} took {seconds:.0f} seconds: too long unless tagged training"
            )
        self.stopped += [text for text in said if text not in self.stopped]

    def test(self) -> Iterator[Result]:
        """The release's tests, one after the other, in a namespace of their own."""
        names = self.tests_namespace()
        for cell in self.released:
            if cell.is_test:
                self.run(cell)
                names["call"] = Answers(self.names)
                with as_a_kernel(self.page):
                    result = run_test(cell, names)
                yield result

    def tests_namespace(self) -> dict[str, Any]:
        """What a test cell can name: `call`, the checks, and what the set-up cell imports."""
        ours = {name: value for name, value in vars(checks).items() if not name.startswith("_")}
        given = {"call": Answers(self.names), "digits": _digits, "read_weights": self._weights}
        return ours | given | {"__name__": "tests"}

    def _weights(self, path: str = "weights.npz") -> Any:
        if self.files is None:
            return read_weights(path)
        return unpack_weights(self.files.get(path), path)


def _digits(split: str = "train") -> Any:
    """`data.digits`, which imports PyTorch: not every assignment needs it."""
    from dgm_course.data import digits

    return digits(split)


def run_test(cell: Cell, names: dict[str, Any]) -> Result:
    """One test cell, in the namespace that it shares with those before it."""
    start = time.perf_counter()
    message = ""
    try:
        execute(cell, names)
    except (NotAnswered, CheckFailed) as error:
        message = str(error)
    except (Exception, SystemExit) as error:
        message = f"the test stopped with {type(error).__name__}: {error}"
    seconds = time.perf_counter() - start
    got = 0 if message else cell.points
    return Result(cell.grade_id, cell.title, got, cell.points, message, seconds)


def execute(test: Cell, names: dict[str, Any]) -> None:
    """Run a test cell; what it prints is not shown."""
    with _quiet():
        exec(compile(test.source, test.grade_id, "exec", dont_inherit=True), names)


@contextlib.contextmanager
def as_a_kernel(page: Page) -> Iterator[None]:
    """This process as a page's cells see it: ``__main__`` is theirs, nobody answers `input`."""
    main, path, stdin = sys.modules["__main__"], [*sys.path], sys.stdin
    sys.modules["__main__"], sys.stdin = page.module, io.StringIO()
    sys.path.insert(0, "")
    try:
        with _quiet():
            yield
    finally:
        sys.modules["__main__"], sys.path[:], sys.stdin = main, path, stdin


@contextlib.contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """Ctrl-C ends what runs here, the cell and all; where it is ignored, it still is."""

    def stop(*_: object) -> None:
        raise Stopped

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _guarded_import(name: str, *args: Any, **kwargs: Any) -> Any:
    """``__import__`` for answers: of this package only what they may use."""
    fromlist = args[2] if len(args) > 2 else kwargs.get("fromlist") or ()
    parents = name in ("dgm_course", "dgm_course.grading")
    for full in [f"{name}.{part}" for part in fromlist or ()] if parents else [name]:
        if not may_import(full):
            raise ImportError(f"{full} cannot be imported where answers are graded")
    return builtins.__import__(name, *args, **kwargs)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What cells print is not shown, and their figures open no window."""
    chosen = "MPLBACKEND" in os.environ
    os.environ.setdefault("MPLBACKEND", "Agg")
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        # A kernel that this process starts later would inherit it and show no figure.
        if not chosen:
            del os.environ["MPLBACKEND"]
