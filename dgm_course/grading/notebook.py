"""A notebook that was handed in, or is about to be: its cells, and whether it is complete."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOT_RUN = {"training", "picture"}  # tags of cells that only the student runs
ALLOWED = ("dgm_course.data", "dgm_course.grading.answers", "dgm_course.grading.checks")
CONVERT = "jupyter nbconvert --to notebook --inplace FILE makes it one"
MARKS = {  # nbgrader's that are read, and their types
    **dict.fromkeys(("grade_id", "cell_type", "checksum"), str),
    **dict.fromkeys(("solution", "grade", "locked"), bool),
    "points": int,
}
LONGEST_SEARCHED = 200_000  # characters of a cell that are searched for imports
STUBS = ("raise NotImplementedError()", "YOUR ANSWER HERE")


@dataclass
class Cell:
    """One cell, and what nbgrader's metadata say of it; numbers rise from a notebook's top."""

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
        NotANotebook: if it cannot be read as one.
    """
    try:
        return parse(path.read_bytes(), [])
    except (OSError, NotANotebook) as error:
        raise NotANotebook(f"{path.name} must be a notebook of format 4: {error}") from error


def parse(data: bytes, notes: list[str]) -> list[Cell]:
    """The cells of a notebook's text, each a plain record whatever stands in the file.

    Raises:
        NotANotebook: if it is no notebook of format 4.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
        notes.append("the file is not UTF-8; read as Latin-1")
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError, MemoryError) as error:
        kind = "empty" if not text.strip() else "a PDF" if text.startswith("%PDF") else "damaged"
        raise NotANotebook(f"the notebook is {kind}: {type(error).__name__}") from error
    cells, version = _get(notebook, "cells"), _get(notebook, "nbformat")
    if version != 4 or type(cells) is not list:
        hint = f" but of {version}: {CONVERT}" if version in (1, 2, 3) else ""
        raise NotANotebook(f"the file is no notebook of format 4{hint}")
    kernel = _get(notebook, "metadata")
    language = _get(_get(kernel, "kernelspec"), "language") or _get(
        _get(kernel, "language_info"), "name"
    )
    if str(language or "python").lower() not in ("python", "ipython"):
        notes.append(f"the notebook's kernel is for {str(language)[:40]}; run as Python")
    return [_cell(number, cell) for number, cell in enumerate(cells, start=1)]


def _get(value: Any, key: str) -> Any:
    return value.get(key) if type(value) is dict else None


def _cell(number: int, cell: Any) -> Cell:
    source, metadata = _get(cell, "source"), _get(cell, "metadata")
    if type(source) is list and all(type(line) is str for line in source):
        source = "".join(source)
    marks, tags = _get(metadata, "nbgrader"), _get(metadata, "tags")
    return Cell(
        number,
        str(_get(cell, "cell_type")),
        source if type(source) is str else "",
        [tag for tag in tags if type(tag) is str] if type(tags) is list else [],
        {name: value for name in MARKS if type(value := _get(marks, name)) is MARKS[name]},
    )


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


# --- what answers may import ---------------------------------------------------------------


def forbidden_imports(source: str) -> list[str]:
    """The modules of this package that a source imports and may not."""
    try:
        tree = ast.parse(source[:LONGEST_SEARCHED])
    except (SyntaxError, ValueError, RecursionError, MemoryError):
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
