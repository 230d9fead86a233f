"""The folder of results: a file for each submission, and none for one that is not there any more.

Each file is written whole or not at all, and read without believing that it is what was written.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from dgm_course.grading.grade import Assignment, unfinished
from dgm_course.grading.submissions import Entry

# What Windows takes for a device whatever the suffix, and the file beside students' answers.
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d|rubric)(?![^. ])", re.IGNORECASE)
RUN = {"assignment": str, "seed": int}
RESULT = RUN | {
    "student": str,
    "attempt": str,
    "status": str,
    "points": float,
    "out_of": float,
    "out_of_by_hand": float,
    "tests": [
        {"id": str, "title": str, "status": str, "message": str, "hidden": bool}
        | {"points": float, "out_of": float}
    ],
    "written": [{"id": str, "out_of": float, "text": str, "empty": bool}],
    "notes": [str],
    "unsafe": bool,
    "versions": {},
}


def file_name(student: str, attempt: str = "") -> str:
    """A name that is a file's on every system, and no two submissions share.

    Where they are plain, letters, digits and spaces stay: "anna" is anna's. What takes "Anna" for
    the same name is refused by `check_names`.
    """
    return "@".join(_short(part) for part in (student, attempt) if part)


def _short(part: str) -> str:
    name = quote(part, safe=" ", errors="surrogateescape")
    ends = {i for i in (0, len(name) - 1) if name[i] in ". "} | (
        {0} if RESERVED.match(name) else set()
    )
    name = "".join(f"%{ord(c):02X}" if i in ends else c for i, c in enumerate(name))
    # No other name holds "+": quote() writes it as a number.
    return name if len(name) <= 100 else f"{name[:80]}+{sha256(name.encode()).hexdigest()[:16]}"


def result_path(out: Path, student: str, attempt: str) -> Path:
    """The file of a submission's result."""
    return out / "results" / f"{file_name(student, attempt)}.json"


def check_names(out: Path, entries: list[Entry]) -> None:
    """Raise a ValueError if ``out`` lies where two of these names are one.

    Linux tells capitals apart; a folder of Windows or macOS that it uses does not.
    """
    names: dict[str, list[str]] = {}
    for entry in entries:
        name = file_name(entry.student, entry.attempt)
        names.setdefault(name.casefold(), []).append(name)
    twins = next((twins for twins in names.values() if len(twins) > 1), None)
    if twins and (out / "RUN.JSON").exists():
        raise ValueError(
            f"expected --out in a folder that tells capitals apart, got {out}, where "
            f"{' and '.join(twins)} are one name"
        )


def read_result(path: Path) -> dict[str, Any]:
    """A stored result.

    Raises:
        ValueError: if the file is none, or another submission's.
        OSError: if it cannot be read.
    """
    try:
        result = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: expected a result in JSON, got {type(error).__name__}"
        ) from error
    if wrong := wrong_in(result, RESULT):
        raise ValueError(f"{path}: expected a result, got {wrong}")
    if path.stem != (name := file_name(result["student"], result["attempt"])):
        raise ValueError(f"{path}: expected the result of this name, got that of {name}")
    return result


def wrong_in(value: Any, form: Any, name: str = "it") -> str:
    """What is not of a form, a type or a dictionary or list of forms; "" if all is."""
    if form is float:
        is_number = type(value) in (int, float) and 0 <= value < math.inf
        return "" if is_number else f"{name} as {json.dumps(value)[:40]}"
    kind: Any = form if isinstance(form, type) else type(form)
    if type(value) is not kind:
        return f"{name} as {type(value).__name__}"
    found: Iterable[str] = ()
    if isinstance(form, dict):
        found = (
            wrong_in(value[key], part, key) if key in value else f"no {key}"
            for key, part in form.items()
        )
    elif isinstance(form, list):
        found = (wrong_in(item, form[0], name) for item in value)
    return next(filter(None, found), "")


def readable(out: Path) -> dict[Path, dict[str, Any]]:
    """The results that can be read, by their files."""
    found = {}
    for path in (out / "results").glob("*.json"):
        with contextlib.suppress(OSError, ValueError):
            found[path] = read_result(path)
    return found


def load_results(out: Path, assignment: Assignment) -> list[dict[str, Any]]:
    """All results, by student and attempt; for a file that holds none, that it is to be graded."""
    results = []
    for path in sorted((out / "results").glob("*.json")):
        try:
            results.append(read_result(path))
        except (OSError, ValueError) as error:
            why = f"{error}; grade it again"
            entry = Entry(*_names(path.stem), path)
            broken = unfinished(assignment, entry, 0, False, why)
            results.append(broken | {"status": "unreadable"})
    return sorted(results, key=lambda result: (result["student"], result["attempt"]))


def _names(file: str) -> tuple[str, str]:
    """The student and the attempt of `file_name`; of names that are too long a part."""
    student, _, attempt = file.partition("@")
    return unquote(student), unquote(attempt)


def set_aside(out: Path, entries: list[Entry], folder: str, add: bool) -> None:
    """Keep in ``out/results`` only what belongs to a submission that there is.

    Results without one are moved to ``out/set_aside``, and back when it comes back.

    Args:
        folder: where the submissions lie.
        add: it is one of several folders: what was graded from others stays.

    Raises:
        ValueError: if this folder has none of the submissions that were graded from another one,
            or, as one of several, has one that another has too.
    """
    aside = out / "set_aside" / "results"
    here = {result_path(out, entry.student, entry.attempt) for entry in entries}
    for path in here:
        if not path.exists() and (aside / path.name).exists():
            _move(aside / path.name, path)
    there = {*(out / "results").glob("*.json")}
    lies_in = {path: result.get("folder", folder) for path, result in readable(out).items()}
    elsewhere = {path: other for path, other in lies_in.items() if other != folder}
    if not add and elsewhere and not here & there:
        other = next(iter(elsewhere.values()))
        raise ValueError(
            f"{out} holds the results of {other}, and none of these is in {folder}: give --add "
            "if it is another part of the class, or another --out"
        )
    both = [path for path in here & {*elsewhere} if Path(elsewhere[path]).exists()]
    if add and both:
        twice = sorted(both, key=lambda path: path.stem)
        names = ", ".join(path.stem for path in twice[:20])
        raise ValueError(
            f"expected with --add each submission in one folder, got {names} "
            f"in {elsewhere[twice[0]]} and in {folder}"
        )
    for path in there - here - ({*elsewhere} if add else set()):
        _move(path, aside / path.name)


def aside(out: Path, assignment: Assignment, graded: set[str]) -> list[str]:
    """The submissions whose results are set aside; their pages and answers are moved there too.

    Args:
        graded: names of the pages of students who have a grade.
    """
    names = sorted(path.stem for path in (out / "set_aside" / "results").glob("*.json"))
    written = [
        f"by_hand/{task.grade_id}/{name}.txt" for task in assignment.written for name in names
    ]
    pages = [path for path in (out / "feedback").glob("*.html") if path.stem not in graded]
    for path in (*(out / name for name in written), *pages):
        _move(path, out / "set_aside" / path.relative_to(out))
    return ["/".join(filter(None, _names(name))) for name in names]


def _move(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):  # another shard was first
        os.replace(path, to)
