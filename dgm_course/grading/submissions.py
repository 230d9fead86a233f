"""What was handed in: whose each submission is, and its notebook, without believing any of it.

A submission is a folder with the notebook and the files beside it, the notebook alone, or an
archive of either. The folder of all is one that an assistant has made, or what a learning platform
gives to download, as its zip or unpacked.
"""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from dgm_course.grading.files import (
    ARCHIVES,
    CHECKPOINTS,
    FOLDER,
    LIMITS,
    File,
    Reader,
    files_of,
    is_litter,
    listing,
    suffix_of,
)
from dgm_course.grading.layouts import is_several, layout, plain

WEIGHTS = "weights.npz"  # what is passed on beside the notebook
NESTED = 3  # archives in one another
LATE = "handed in late, says Canvas"
OURS = {"run.json", "results", "set_aside", "feedback", "by_hand", "grades.csv", "report.html"}


class Unreadable(ValueError):
    """A submission that holds no notebook that can be read."""


@dataclass(frozen=True, order=True)
class Entry:
    """Where a submission lies, and whose it is.

    Args:
        attempt: "" unless there are several.
        path: a folder or zip archive of submissions.
        parts: files and folders in ``path``, each with its name in the submission.
        notes: what a person should know of it.
    """

    student: str
    attempt: str
    path: Path = field(compare=False)
    parts: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)


@dataclass
class HandedIn:
    """The contents of a submission, and what a person should know of it."""

    notebook: bytes
    files: dict[str, bytes]
    notes: list[str]


# --- whose is it ----------------------------------------------------------------------------

Parts = list[tuple[str, str]]


def find(source: Path, name: str = "") -> tuple[list[Entry], list[str]]:
    """The submissions in a folder or a zip archive, by student, and the names of what is none.

    Args:
        name: of the assignment. A student's folder of this name stands for all of the student's
            folders: nbgrader keeps one for each assignment.

    Raises:
        ValueError: if the folder or the archive itself cannot be read.
    """
    try:
        source, within = _start(source) or (source, _wrapping(source))
        tops = _tops(source, within)
    except Exception as error:  # whatever a damaged archive brings about
        raise ValueError(f"{source} cannot be read: {type(error).__name__}: {error}") from error
    found: dict[str, dict[str, Parts]] = {}  # by student and attempt
    late, others = set(), []
    for top, is_folder in tops.items():
        suffix, inside = suffix_of(top), "" if is_folder else top
        if named := layout(top, is_folder=is_folder):
            student, attempt, inside = named.student, named.attempt, named.file or inside
        elif is_folder and _is_output(source, within, top, tops):
            others.append(f"{top} (results of a run)")
            continue
        elif is_folder or suffix not in ("", ".npz"):
            student, attempt = top if is_folder else top[: -len(suffix)], top
        else:
            is_link = os.path.islink(source / within / top)
            others.append(f"{top} (a link)" if is_link else top)
            continue
        # macOS writes an accent as a letter of its own; tables and other systems do not.
        student = unicodedata.normalize("NFC", student)
        late |= {student} if named and named.late else set()
        attempts = found.setdefault(student, {})
        attempts.setdefault(attempt, []).append((within + top, inside))
    entries = []
    for student, attempts in found.items():
        for attempt, parts, notes in _split(source, attempts, name):
            notes += [LATE] if student in late else []
            whose = plain(student), plain(attempt)
            entries.append(Entry(*whose, source, tuple(parts), tuple(notes)))
    return entries, others


def _tops(source: Path, within: str) -> dict[str, bool]:
    """The names in a folder of ``source``, and whether each is a folder."""
    tops: dict[str, bool] = {}
    if source.is_dir():
        with os.scandir(source / within) as found:
            tops = {one.name: one.is_dir(follow_symlinks=False) for one in found}
    else:
        for file in listing(source):
            if file.name.startswith(within):
                top, slash, _ = file.name.removeprefix(within).partition("/")
                tops[top] = tops.get(top, False) or bool(slash) or file.why_not == FOLDER
    return {
        top: tops[top]
        for top in sorted(tops)
        if not is_litter(PurePosixPath(top)) and top != CHECKPOINTS
    }


def _start(source: Path, within: str = "", below: int = 2) -> tuple[Path, str] | None:
    """Where a platform's download begins: there, or in the one folder or zip that lies there."""
    tops = _tops(source, within)
    candidates = [
        top
        for top, is_folder in tops.items()
        if (not _is_output(source, within, top, tops) if is_folder else suffix_of(top))
    ]
    if candidates and all(map(layout, candidates)):
        return source, within
    if len(candidates) != 1 or not below:
        return None
    (top,) = candidates
    with suppress(Exception):  # a student's folder or archive, which cannot be read
        if tops[top]:
            return _start(source, f"{within}{top}/", below - 1)
        if source.is_dir() and suffix_of(top) == ".zip":
            return _start(source / within / top, "", below - 1)
    return None


def _wrapping(source: Path) -> str:
    """The one folder of an archive, if it holds the folders of several students."""
    tops = [] if source.is_dir() else [*_tops(source, "").items()]
    wraps = len(tops) == 1 and tops[0][1] and sum(_tops(source, f"{tops[0][0]}/").values()) > 1
    return f"{tops[0][0]}/" if wraps else ""


def _is_output(source: Path, within: str, top: str, beside: Iterable[str]) -> bool:
    """Whether a folder was made by a run of the grader, or is a part of what one made."""
    files = files_of(source, ((within + top, ""),))
    own = {file.name.partition("/")[0] for file in files}
    made = [own, {*beside}] if top in OURS else [own]
    is_made = any("run.json" in names or len(names & OURS) > 1 for names in made)
    return is_made and not any(map(_is_work, files))


def _is_work(file: File) -> bool:
    return not file.is_checkpoint and file.suffix not in ("", ".npz")


def _split(
    source: Path, attempts: dict[str, Parts], name: str
) -> Iterator[tuple[str, Parts, list[str]]]:
    """The attempts, with notes: folders that hold a notebook each are attempts of their own."""
    for attempt, parts in attempts.items():
        label = [attempt] * (len(attempts) > 1)
        homes: dict[str, str] = {}
        for where, inside in parts:
            files = [file for file in files_of(source, ((where, inside),)) if _is_work(file)]
            if any("/" not in file.name and file.suffix == ".ipynb" for file in files):
                homes = {}
                break
            if not inside:
                folders = {file.name.partition("/")[0] for file in files if "/" in file.name}
                homes |= {folder: f"{where}/{folder}" for folder in sorted(folders)}
        others = [folder for folder in homes if folder != name]
        if len(homes) < 2 or is_several(homes):
            yield "/".join(label), parts, []
        elif name in homes:
            yield "/".join(label), [(homes[name], "")], [f"the folder {name}, not {some(others)}"]
        else:
            for folder, where in homes.items():
                yield "/".join([*label, folder]), [(where, "")], []


# --- what is it -----------------------------------------------------------------------------


def digest(entry: Entry) -> str:
    """What a result rests on: the names in a submission, and the bytes on disk of what is read.

    Nothing is unpacked. What cannot be read counts by its name and the reason.
    """
    seen = sha256()
    for file in files_of(entry.path, entry.parts):
        about = [file.name, str(file.size), file.why_not]
        try:
            if not file.why_not and file.size <= LIMITS.get(file.suffix, -1):
                contents = sha256()
                for piece in file.raw():
                    contents.update(piece)
                about.append(contents.hexdigest())
        except Exception as error:  # it vanished, for example
            about.append(type(error).__name__)
        seen.update(json.dumps(about).encode())
    return seen.hexdigest()


def read(entry: Entry, name: str) -> HandedIn:
    """The notebook (preferably ``name``.ipynb) and the files beside it.

    Raises:
        Unreadable: if there is no notebook that can be read.
    """
    bag, wanted = _Bag(entry), f"{name}.ipynb"
    for _ in range(NESTED):
        if not (bag.has(wanted) and bag.has(WEIGHTS)):
            bag.unpack()
    notebooks = bag.ranked(wanted)
    if is_several(part for file in notebooks for part in PurePosixPath(file.name).parts):
        raise Unreadable("the submissions of several students: grade this download by itself")
    notebook = bag.first(notebooks)
    if notebook is None:
        raise Unreadable("; ".join(["there is no notebook (*.ipynb)", *bag.notes()]))
    file, contents = notebook
    weights = bag.first(bag.ranked(WEIGHTS, beside=file))
    notes = [*entry.notes]
    tops = [where.rpartition("/")[2] for where, _ in entry.parts]
    if PurePosixPath(file.name).name not in (wanted, *tops):
        notes.append(f"the notebook is named {some([file.name])}, not {wanted}")
    if weights and PurePosixPath(weights[0].name).name != WEIGHTS:
        notes.append(f"{some([weights[0].name])} is taken for {WEIGHTS}")
    files = {WEIGHTS: weights[1]} if weights else {}
    return HandedIn(contents, files, notes + bag.notes())


class _Bag:
    """The files of one submission, and what became of them."""

    def __init__(self, entry: Entry) -> None:
        self.files: list[File] = []
        self._archives: list[File] = []
        self._refused: dict[str, list[str]] = {}  # names by reason
        self._said: list[str] = []
        self._taken: set[str] = set()
        self._unpacking, self._reading = Reader(), Reader()
        self._add(files_of(entry.path, entry.parts))

    def _add(self, files: list[File]) -> None:
        for file in files:
            if file.why_not:
                self._refuse(file, file.why_not)
            else:
                (self._archives if file.suffix in ARCHIVES else self.files).append(file)

    def _refuse(self, file: File, why: str) -> None:
        self._refused.setdefault(why, []).append(file.name)

    def unpack(self) -> None:
        """Add the contents of the archives, of which some may be archives again."""
        archives, self._archives = self._archives, []
        for archive in archives:
            try:
                found = self._unpacking.unpack(archive)
            except OSError as error:
                self._refuse(archive, str(error))
            else:
                self._add([replace(file, name=f"{archive.name}/{file.name}") for file in found])

    def has(self, wanted: str) -> bool:
        return any(not file.is_checkpoint for file in self.ranked(wanted))

    def ranked(self, wanted: str, beside: File | None = None) -> list[File]:
        """What a name may mean, the likeliest first: any notebook, or weights named alike."""
        name = PurePosixPath(wanted)

        def rank(file: File) -> tuple[Any, ...]:
            path = PurePosixPath(file.name)
            elsewhere = beside is not None and path.parent != PurePosixPath(beside.name).parent
            is_other = path.name != wanted, not _is_like(file, name.stem)
            return file.is_checkpoint, elsewhere, *is_other, len(path.parts), file.name

        files = [file for file in self.files if file.suffix == name.suffix]
        if name.suffix != ".ipynb":
            files = [file for file in files if _is_like(file, name.stem)]
        return sorted(files, key=rank)

    def first(self, files: list[File]) -> tuple[File, bytes] | None:
        """The first of them that can be read, with its contents; the others are named."""
        for i, file in enumerate(files):
            try:
                contents = self._reading.read(file)
            except OSError as error:
                self._refuse(file, str(error))
                continue
            self._taken |= {other.name for other in files}
            others = [other.name for other in files[i + 1 :] if not other.is_checkpoint]
            if file.is_checkpoint:
                said = f"{some([file.name])} is Jupyter's own copy, and no other can be read"
                self._said.append(f"{said}; needs a look")
            elif others:
                what = "notebooks" if file.suffix == ".ipynb" else "files of weights"
                said = f"{len(others) + 1} {what}: graded {some([file.name])}, not {some(others)}"
                self._said.append(f"{said}; needs a look")
            return file, contents
        return None

    def notes(self) -> list[str]:
        """What was not read, and why."""
        refused = {name for names in self._refused.values() for name in names}
        names = [file.name for file in [*self.files, *self._archives]]
        ignored = [name for name in names if name not in self._taken | refused]
        return [
            *self._said,
            *(f"not read: {some(n)} ({why}); needs a look" for why, n in self._refused.items()),
            *([f"not read: {some(ignored)}"] if ignored else []),
        ]


def _is_like(file: File, stem: str) -> bool:
    """Whether a name is that of a copy: "pixelcnn (1).ipynb", "Copy of pixelcnn.ipynb"."""
    return stem.casefold() in PurePosixPath(file.name).name.casefold()


def some(names: list[str]) -> str:
    """Names in a sentence: the first ten, each cut."""
    shown = ", ".join(name if len(name) <= 100 else f"{name[:97]}..." for name in names[:10])
    return shown + (f" and {len(names) - 10} more" if len(names) > 10 else "")
