"""A notebook that was handed in, or is about to be: is it complete, and what passes?

The student's own cells are run in this process, the tests as they stand in the notebook against
`Answers`. This is what `dgm assignment check` shows a student; nobody's points rest on it.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import hashlib
import io
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dgm_course.grading import checks
from dgm_course.grading.answers import Answers, CheckFailed, NotAnswered, read_weights

NOT_RUN = {"training", "picture"}  # tags of cells that only the student runs
ALLOWED = ("dgm_course.data", "dgm_course.grading.answers", "dgm_course.grading.checks")
STUBS = ("raise NotImplementedError()", "YOUR ANSWER HERE")
MAGIC = re.compile(r"^\s*[%!].*$", re.MULTILINE)


@dataclass
class Cell:
    """One cell, and what nbgrader's metadata say of it."""

    number: int
    kind: str
    source: str
    tags: list[str]
    marks: dict[str, Any]

    @property
    def grade_id(self) -> str:
        return str(self.marks.get("grade_id", ""))

    @property
    def is_answer(self) -> bool:
        return bool(self.marks.get("solution"))

    @property
    def is_test(self) -> bool:
        return bool(self.marks.get("grade")) and not self.is_answer

    @property
    def is_run(self) -> bool:
        """Whether it is code that a check of the notebook runs, if it is no test."""
        return self.kind == "code" and NOT_RUN.isdisjoint(self.tags)

    @property
    def is_written(self) -> bool:
        return bool(self.marks.get("grade")) and self.is_answer

    @property
    def points(self) -> int:
        return int(self.marks.get("points", 0))

    @property
    def title(self) -> str:
        """The first line of a test, or the name of a written answer."""
        if self.is_test:
            return self.source.partition("\n")[0].lstrip("# ").rpartition(",")[0]
        return f"{self.grade_id.rpartition('-')[2]} · a written answer"

    @property
    def is_empty(self) -> bool:
        """Whether an answer, or a part of it, is still the release's placeholder."""
        untouched = self.marks.get("checksum") == checksum(self)
        return self.is_answer and (untouched or any(stub in self.source for stub in STUBS))

    @property
    def is_changed(self) -> bool:
        """Whether a cell that the release locks differs from it, by nbgrader's checksum."""
        locked = self.is_test or (self.marks.get("locked") and not self.is_answer)
        return bool(locked and self.marks.get("checksum", checksum(self)) != checksum(self))


def checksum(cell: Cell) -> str:
    """nbgrader's: md5 of the source, the type, the marks, the id and the points."""
    is_locked = not cell.is_answer and (cell.is_test or bool(cell.marks.get("locked")))
    graded = bool(cell.marks.get("grade"))
    parts = [cell.source, cell.kind, str(graded), str(cell.is_answer), str(is_locked)]
    parts += [cell.grade_id, *([str(float(cell.points))] if graded else [])]
    return hashlib.md5("".join(parts).encode()).hexdigest()


class NotANotebook(ValueError):
    """A file that cannot be handed in."""


def read_cells(path: Path) -> list[Cell]:
    """The cells of a notebook file.

    Raises:
        NotANotebook: if it is none, or of another version than 4.
    """
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        if notebook["nbformat"] != 4:
            raise ValueError(f"format {notebook['nbformat']}")
        return [
            Cell(
                number,
                cell["cell_type"],
                "".join(cell["source"]),
                list(cell["metadata"].get("tags", [])),
                dict(cell["metadata"].get("nbgrader", {})),
            )
            for number, cell in enumerate(notebook["cells"], start=1)
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        came = f"{type(error).__name__}: {error}"
        raise NotANotebook(f"{path.name} must be a notebook of format 4, got {came}") from error


def problems(cells: list[Cell]) -> list[str]:
    """Why a notebook is not accepted; nothing if it is."""
    found = []
    ids = [cell.grade_id for cell in cells if cell.grade_id]
    if not ids:
        return ["this is not an assignment: no cell of it has an id for grading"]
    for name in sorted({name for name in ids if ids.count(name) > 1}):
        found.append(f"the cell {name} occurs {ids.count(name)} times: delete the copies")
    for cell in cells:
        if cell.marks.get("cell_type", cell.kind) != cell.kind:
            found.append(f"the cell {cell.grade_id} must be a {cell.marks['cell_type']} cell")
        elif cell.is_changed:
            found.append(f"the cell {cell.grade_id} was changed: take it from the release again")
    return found


def missing(cells: list[Cell], release: list[Cell]) -> list[str]:
    """Which of the release's cells a notebook lacks, in words."""
    ids = {cell.grade_id for cell in cells} | {""}
    lost = [cell.grade_id for cell in release if cell.grade_id not in ids]
    return [f"the cell {name} is missing: take it from the release again" for name in lost]


# --- running --------------------------------------------------------------------------------


def forbidden_imports(source: str) -> list[str]:
    """The modules of this package that a source imports and may not."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return []  # it says so when it is run
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = [f"{node.module}.{alias.name}" for alias in node.names]
            names += parts if node.module in ("dgm_course", "dgm_course.grading") else [node.module]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # importlib.import_module("dgm_course.flows") and its like
            names += re.findall(r"^dgm_course\.[\w.]+$", node.value)
    return sorted({name for name in names if not may_import(name)})


def may_import(name: str) -> bool:
    """Whether an answer may import a module, given its dotted name."""
    if name.partition(".")[0] != "dgm_course":
        return True
    parents = ("dgm_course", "dgm_course.grading")
    return name in parents or any(f"{name}.".startswith(f"{ok}.") for ok in ALLOWED)


def _guarded_import(name: str, *args: Any, **kwargs: Any) -> Any:
    """``__import__`` for answers: of this package only what they may use."""
    fromlist = args[2] if len(args) > 2 else kwargs.get("fromlist") or ()
    parents = name in ("dgm_course", "dgm_course.grading")
    for full in [f"{name}.{part}" for part in fromlist or ()] if parents else [name]:
        if not may_import(full):
            raise ImportError(f"{full} cannot be imported where answers are graded")
    return builtins.__import__(name, *args, **kwargs)


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
    """The names that a notebook's own cells define, and the cells that stopped."""

    cells: list[Cell]
    names: dict[str, Any] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)

    def run(self) -> Submission:
        """All code cells in their order, but for tests and those tagged training or picture."""
        guarded = vars(builtins) | {"__import__": _guarded_import}
        self.names.update(__name__="__main__", __builtins__=guarded, display=lambda *_, **__: None)
        for cell in self.cells:
            if not cell.is_run or cell.is_test:
                continue
            source = MAGIC.sub("", cell.source)
            try:
                with _quiet():
                    exec(compile(source, f"cell {cell.number}", "exec"), self.names)
            except (Exception, SystemExit) as error:
                if cell.is_empty:
                    continue
                said = f"{type(error).__name__}: {error}"
                self.stopped.append(f"cell {cell.number} stopped: {said}")
        return self

    def test(self) -> Iterator[Result]:
        """The notebook's tests, one after the other, in a namespace of their own."""
        names = self.tests_namespace()
        for cell in self.cells:
            if cell.is_test:
                yield run_test(cell, names)

    def tests_namespace(self) -> dict[str, Any]:
        """What a test cell can name: `call`, the checks, and what the set-up cell imports."""
        ours = {name: value for name, value in vars(checks).items() if not name.startswith("_")}
        given = {"call": Answers(self.names), "digits": _digits, "read_weights": read_weights}
        return ours | given | {"__name__": "tests"}


def _digits(split: str = "train") -> Any:
    """`data.digits`, which imports PyTorch: not every assignment needs it."""
    from dgm_course.data import digits

    return digits(split)


def run_test(cell: Cell, names: dict[str, Any]) -> Result:
    """One test cell, in the namespace that it shares with those before it."""
    start = time.perf_counter()
    message = ""
    try:
        with _quiet():
            exec(compile(cell.source, cell.grade_id, "exec"), names)
    except NotAnswered as error:
        message = str(error)
    except CheckFailed as error:
        message = str(error)
    except (Exception, SystemExit) as error:
        message = f"the test stopped with {type(error).__name__}: {error}"
    seconds = time.perf_counter() - start
    got = 0 if message else cell.points
    return Result(cell.grade_id, cell.title, got, cell.points, message, seconds)


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
