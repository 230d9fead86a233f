"""What was handed in, read without believing it: names, links, sizes, archives, damaged files.

A submission is a folder per student with the notebook and the files beside it, the notebook alone,
or an archive (zip, tar) of such a folder; folders inside a student's folder are several attempts.
Archives are read in memory and never unpacked to disk.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

LARGEST = 20_000_000  # bytes of a notebook
LARGEST_FILE = 2_500_000  # bytes of a file beside it
FILES = ("weights.npz",)  # what is passed on beside the notebook
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
IGNORED = (".", "__MACOSX")


class Unreadable(ValueError):
    """A submission that holds no notebook that can be read."""


@dataclass(frozen=True, order=True)
class Entry:
    """Where a submission lies, and whose it is; ``attempt`` is "" unless there are several."""

    student: str
    attempt: str
    path: Path = field(compare=False)


@dataclass
class HandedIn:
    """The contents of a submission, and what a person should know of it."""

    notebook: bytes
    files: dict[str, bytes]
    notes: list[str]

    @property
    def digest(self) -> str:
        parts = [self.notebook, *(data for _, data in sorted(self.files.items()))]
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def find(folder: Path) -> tuple[list[Entry], list[str]]:
    """The submissions in a folder, by student, and the names of what is none."""
    found: dict[str, list[tuple[str, Path]]] = {}
    others = []
    for path in sorted(folder.iterdir()):
        suffix = next((s for s in (*ARCHIVES, ".ipynb") if path.name.lower().endswith(s)), None)
        if path.name.startswith(IGNORED):
            continue
        if path.is_dir() and not path.is_symlink():
            inside = sorted(p for p in path.iterdir() if not p.name.startswith(IGNORED))
            folders = [p for p in inside if p.is_dir() and not p.is_symlink()]
            if folders and not any(p.suffix == ".ipynb" for p in inside):
                found.setdefault(path.name, []).extend((p.name, p) for p in folders)
            else:
                found.setdefault(path.name, []).append((path.name, path))
        elif suffix:
            found.setdefault(path.name[: -len(suffix)], []).append((path.name, path))
        else:
            others.append(path.name)
    return [
        Entry(student, attempt if len(attempts) > 1 else "", path)
        for student, attempts in found.items()
        for attempt, path in attempts
    ], others


def read(path: Path, name: str) -> HandedIn:
    """The notebook (preferably ``name``.ipynb) and the files beside it.

    Raises:
        Unreadable: if there is no notebook, or it is too large.
    """
    notes: list[str] = []
    if path.is_symlink():
        raise Unreadable(f"{path.name} is a link")
    try:
        if path.is_dir():
            contents = dict(_folder(path, notes))
        elif path.suffix == ".ipynb":
            contents = {path.name: _regular(path, LARGEST)}
        else:
            contents = dict(_archive(path, notes))
    except Unreadable:
        raise
    except Exception as error:  # damaged archives raise what they like
        raise Unreadable(f"{path.name} cannot be read: {type(error).__name__}: {error}") from error
    notebooks = sorted(key for key in contents if key.endswith(".ipynb"))
    if not notebooks:
        what = "; ".join([", ".join(sorted(contents)) or "nothing else", *notes])
        raise Unreadable(f"there is no notebook (*.ipynb): {what}")
    chosen = f"{name}.ipynb" if f"{name}.ipynb" in notebooks else notebooks[0]
    if len(notebooks) > 1:
        notes.append(f"{len(notebooks)} notebooks: graded {chosen}, not the others; needs a look")
    elif chosen != f"{name}.ipynb" and path.is_dir():
        notes.append(f"the notebook is named {chosen}, not {name}.ipynb")
    files = {key: contents[key] for key in FILES if key in contents}
    return HandedIn(contents[chosen], files, notes)


def _regular(path: Path, largest: int) -> bytes:
    """The contents of a regular file; never a link's, and nothing that could wait for ever."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode):
            raise OSError("not a regular file")
        if state.st_size > largest:
            raise OSError(f"{state.st_size} bytes, the limit is {largest}")
        return file.read(largest)


def _wanted(name: str) -> int:
    """The largest size of a file that is read, by its name; 0 for one that is not."""
    if name.startswith(IGNORED):
        return 0
    return LARGEST if name.endswith(".ipynb") else LARGEST_FILE if name in FILES else 0


def _folder(folder: Path, notes: list[str]) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.iterdir()):
        if not (largest := _wanted(path.name)):
            if not path.name.startswith(IGNORED):
                notes.append(f"not read: {path.name}")
            continue
        try:
            yield path.name, _regular(path, largest)
        except OSError as error:
            why = "a link" if path.is_symlink() else error.strerror or str(error)
            notes.append(f"not read: {path.name} ({why}); needs a look")


def _archive(path: Path, notes: list[str]) -> Iterator[tuple[str, bytes]]:
    data = io.BytesIO(_regular(path, LARGEST + LARGEST_FILE))
    if path.name.lower().endswith(".zip"):
        with zipfile.ZipFile(data) as archive:
            members = [
                (
                    m.filename,
                    m.file_size,
                    stat.S_IFMT(m.external_attr >> 16) in (0, stat.S_IFREG),
                    m,
                )
                for m in archive.infolist()
                if not m.is_dir()
            ]
            yield from _members(members, archive.open, notes)
    else:
        with tarfile.open(fileobj=data, mode="r|*") as tar:
            left = 10 * LARGEST
            for n, m in enumerate(tar):
                left -= m.size
                if n > 1000 or left < 0:
                    raise Unreadable("the archive is too large")
                if not m.isdir():
                    one = [(m.name, m.size, m.isreg(), m)]
                    yield from _members(one, tar.extractfile, notes)


def _members(members: list[Any], opened: Any, notes: list[str]) -> Iterator[tuple[str, bytes]]:
    for full, size, is_file, member in members[:1000]:
        path = PurePosixPath(full.replace("\\", "/"))
        largest = _wanted(path.name)
        if ".." in path.parts or path.is_absolute():
            notes.append(f"not read: {full} (its name leads outside); needs a look")
        elif "__MACOSX" in path.parts or not largest:
            continue
        elif not is_file or len(path.parts) > 2:
            notes.append(f"not read: {full} (a link, a device or too deep); needs a look")
        elif size > largest:
            notes.append(f"not read: {full} ({size} bytes, the limit is {largest}); needs a look")
        else:
            with opened(member) as file:
                yield path.name, file.read(largest)
