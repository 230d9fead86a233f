"""Files that were handed in: listed in a folder or an archive, then read one by one, within limits.

A listing opens no file, and what it says of sizes and kinds is a claim: `Reader.read` counts the
bytes that come. Archives are read in memory and never unpacked to disk.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

LARGEST = 20_000_000  # bytes of a notebook
LARGEST_FILE = 2_500_000  # bytes of a file beside it
LARGEST_ARCHIVE = LARGEST + LARGEST_FILE  # bytes of an archive, packed
LARGEST_SUM = 100_000_000  # bytes that are read for one submission, all together
MEMBERS = 10_000  # files of a folder with those below it, or of an archive
MANY = 50_000  # files of all submissions in one archive
LONGEST_NAME = 500  # characters; those of an archive stand before each of its files
DEPTH = 4  # names in a path, its file's included
PIECE = 1 << 16  # bytes that are read at a time
ARCHIVES = (
    *(".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz"),
    *(".rar", ".7z"),  # these are not read, but recognised
)
LIMITS = {".ipynb": LARGEST, ".npz": LARGEST_FILE, **dict.fromkeys(ARCHIVES, LARGEST_ARCHIVE)}
LITTER = ("__macosx", "thumbs.db", "desktop.ini", "@eadir", "lost+found")
FOLDER = "a folder"
CHECKPOINTS = ".ipynb_checkpoints"
UNPACK: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
FOREIGN = {b"Rar!": "a RAR archive", b"7z\xbc\xaf": "a 7z archive", b"%PDF": "a PDF"}


@dataclass(frozen=True)
class File:
    """A file, not read yet.

    Args:
        name: its path in the submission.
        size: in bytes, as it claims.
        stream: opens its contents.
        why_not: what speaks against reading it, "" if nothing does.
        packed: its bytes as they lie on disk, if they are not the contents.
    """

    name: str
    size: int
    stream: Callable[[], IO[bytes]]
    why_not: str = ""
    packed: Callable[[], Iterator[bytes]] | None = None

    @property
    def suffix(self) -> str:
        return suffix_of(self.name)

    @property
    def is_checkpoint(self) -> bool:
        """Whether Jupyter saved it by itself beside the notebook that the student saved."""
        path = PurePosixPath(self.name)
        return CHECKPOINTS in path.parts or path.stem.endswith("-checkpoint")

    def raw(self) -> Iterator[bytes]:
        """The bytes on disk, piece by piece."""
        if self.packed is not None:
            yield from self.packed()
        else:
            with self.stream() as file:
                yield from pieces(file, self.size)


def suffix_of(name: str) -> str:
    """How a name ends, of those that are looked at; "" for another."""
    return next((suffix for suffix in LIMITS if name.lower().endswith(suffix)), "")


def is_litter(path: PurePosixPath) -> bool:
    """Whether a program left a file there for itself. Jupyter's checkpoints are no litter."""
    parts = [part.lower() for part in path.parts if part not in (CHECKPOINTS, "..")]
    return any(part in LITTER or part.startswith((".", "~$")) for part in parts)


def pieces(file: IO[bytes], size: int) -> Iterator[bytes]:
    """The next ``size`` bytes of a file, or fewer at its end."""
    while size > 0 and (piece := file.read(min(size, PIECE))):
        size -= len(piece)
        yield piece


class Reader:
    """Reads files up to a limit on all together, so that no number of them fills the memory."""

    def __init__(self) -> None:
        self.left = LARGEST_SUM
        self.files_left = MEMBERS

    def read(self, file: File) -> bytes:
        """The contents.

        Raises:
            OSError: with the reason, if it cannot be read, or more came than may come.
        """
        limit = LIMITS[file.suffix]
        if file.size > limit:
            raise OSError(f"{file.size} bytes, the limit is {limit}")
        try:
            with file.stream() as opened:
                return self._count(opened, limit)
        except OSError as error:
            raise OSError(error.strerror or str(error)) from error
        except NotImplementedError as error:
            raise OSError("packed in a way that is not read: ask for an ordinary zip") from error
        except Exception as error:  # whatever a damaged archive brings about
            raise OSError(f"damaged: {type(error).__name__}: {error}") from error

    def _count(self, opened: IO[bytes], limit: int) -> bytes:
        contents = bytearray()
        while piece := opened.read(PIECE):
            contents += piece
            self.left -= len(piece)
            if len(contents) > limit:
                raise OSError(f"more than {limit} bytes")
            if self.left < 0:
                raise OSError(f"more than {LARGEST_SUM} bytes in all")
        return bytes(contents)

    def unpack(self, archive: File) -> list[File]:
        """The files in an archive, whatever it is called.

        Raises:
            OSError: as `read`, or if the archives hold too many files together.
        """
        data = self.read(archive)
        for start, what in FOREIGN.items():
            if data.startswith(start):
                raise OSError(f"{what}, which is not read: ask for a zip")
        try:
            if data.startswith((b"PK\3\4", b"PK\5\6")):
                files = in_zip(io.BytesIO(data), most=MEMBERS)
            else:
                files = self._in_tar(data)
        except OSError:
            raise
        except Exception as error:  # as above
            raise OSError(f"damaged: {type(error).__name__}: {error}") from error
        self.files_left -= len(files)
        if self.files_left < 0:
            raise OSError(f"more than {MEMBERS} files in all")
        return files

    def _in_tar(self, data: bytes) -> list[File]:
        for start, unpack in UNPACK.items():
            if data.startswith(start):
                with unpack(io.BytesIO(data)) as opened:
                    data = self._count(opened, LARGEST_SUM)
        return in_tar(data)


@lru_cache(maxsize=1)
def _members_of(archive: Path, _changed: int) -> list[File]:
    return in_zip(archive, most=MANY, depth=DEPTH + 2, folders=True)


def listing(archive: Path) -> list[File]:
    """Everything in a download, folders included."""
    return _members_of(archive, archive.stat().st_mtime_ns)


def files_of(source: Path, parts: tuple[tuple[str, str], ...]) -> list[File]:
    """The files of a submission: what lies in parts of a folder or a zip archive.

    Args:
        parts: names of files and folders in ``source``, each with its name in the submission.
    """
    files: list[File] = []
    for where, inside in parts:
        path = source / where
        if not source.is_dir():
            found = [
                replace(file, name=file.name[len(where) + 1 :])
                for file in listing(source)
                if f"{file.name}/".startswith(f"{where}/") and file.why_not != FOLDER
            ]
        elif os.path.isdir(path) and not os.path.islink(path):
            found = list(in_folder(path))
        else:
            found = [on_disk(path, "")]
        files += [replace(file, name=f"{inside}/{file.name}".strip("/")) for file in found]
    return files


def in_folder(top: Path) -> Iterator[File]:
    """The files in a folder and those below it, the nearest first; links are not followed."""
    n, waiting = 0, deque([top])
    while waiting:
        folder = waiting.popleft()
        try:
            found = sorted(os.scandir(folder), key=lambda one: one.name)
        except OSError as error:
            name = folder.relative_to(top).as_posix()
            yield _not(name if folder != top else top.name, error.strerror or str(error))
            continue
        for one in found:
            path = Path(one.path)
            name = path.relative_to(top).as_posix()
            if is_litter(PurePosixPath(name)):
                continue
            n += 1
            if n > MEMBERS:
                yield _not(name, f"there are more than {MEMBERS} files")
                return
            if not one.is_dir(follow_symlinks=False):
                yield on_disk(path, name)
            elif name.count("/") + 1 < DEPTH:
                waiting.append(path)
            else:
                yield _not(name, "too deep")


def on_disk(path: Path, name: str) -> File:
    """A file on disk, under another name."""
    try:
        state = path.lstat()
    except OSError as error:
        return _not(name, error.strerror or str(error))
    why_not = "" if stat.S_ISREG(state.st_mode) else "not a regular file"
    why_not = "a link" if stat.S_ISLNK(state.st_mode) else why_not
    return File(name, state.st_size, lambda: _open(path), why_not)


def _open(path: Path) -> IO[bytes]:
    """A regular file; never a link, and nothing that could wait for ever."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    file = os.fdopen(fd, "rb")
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        file.close()
        raise OSError("not a regular file")
    return file


def _not(name: str, why_not: str) -> File:
    return File(name, 0, io.BytesIO, why_not)


def in_zip(
    source: Path | io.BytesIO, *, most: int, depth: int = DEPTH, folders: bool = False
) -> list[File]:
    """The files in a zip archive; with ``folders`` also these, as files that are not to be read.

    Raises:
        OSError: if there are too many.
        zipfile.BadZipFile: and others, if it is damaged.
    """
    archive = zipfile.ZipFile(source)
    members = archive.infolist()
    if len(members) > most:
        raise OSError(f"{len(members)} files, the limit is {most}")

    def raw_file() -> IO[bytes]:
        return open(source, "rb") if isinstance(source, Path) else io.BytesIO(source.getvalue())

    def file(member: zipfile.ZipInfo) -> File:
        is_file = stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG)
        why_not = "" if is_file else "a link or a device"
        if member.flag_bits & 1:
            why_not = "encrypted: ask for one without a password"
        if member.is_dir():
            why_not = FOLDER

        def packed() -> Iterator[bytes]:
            with raw_file() as raw:
                raw.seek(member.header_offset + 26)
                raw.seek(sum(struct.unpack("<HH", raw.read(4))), os.SEEK_CUR)
                yield from pieces(raw, min(member.compress_size, LARGEST_ARCHIVE))

        def opened() -> IO[bytes]:
            if member.compress_type == zipfile.ZIP_BZIP2:  # zipfile would unpack 4 GB at a time
                return cast(IO[bytes], bz2.open(io.BytesIO(b"".join(packed()))))
            return archive.open(member)

        return File(member.filename, member.file_size, opened, why_not, packed)

    return _members([file(one) for one in members if folders or not one.is_dir()], depth)


def in_tar(data: bytes) -> list[File]:
    """The files in a tar archive, unpacked.

    Raises:
        OSError: if there are too many.
        tarfile.TarError: and others, if it is damaged.
    """
    files = []
    tar = tarfile.open(fileobj=io.BytesIO(data), mode="r:")
    for n, member in enumerate(tar):
        if n >= MEMBERS:
            raise OSError(f"more than {MEMBERS} files")
        why_not = "" if member.isreg() else "a link or a device"

        def opened(member: tarfile.TarInfo = member) -> IO[bytes]:
            return tar.extractfile(member) or io.BytesIO()

        if not member.isdir():
            files.append(File(member.name, member.size, opened, why_not))
    return _members(files, DEPTH)


def _members(files: list[File], depth: int) -> list[File]:
    """With names as those of paths, without litter; of equal names the last one comes first."""
    kept = []
    for file in reversed(files):
        path = PurePosixPath(file.name[:LONGEST_NAME].replace("\\", "/"))
        why_not = file.why_not or ("too deep" if len(path.parts) > depth else "")
        if len(file.name) > LONGEST_NAME:
            why_not = f"its name has {len(file.name)} characters, the limit is {LONGEST_NAME}"
        if ".." in path.parts or path.is_absolute():
            why_not = "its name leads outside"
        if not is_litter(path):
            kept.append(replace(file, name=str(path).lstrip("/"), why_not=why_not))
    return kept
