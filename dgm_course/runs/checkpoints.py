"""Checkpoints that are there whole or not at all, and that are known to be whole when read.

``torch.save`` of one dict by one process: under DistributedDataParallel every rank holds all of
the state, and one file can be checked, copied and renamed as one. torch.distributed.checkpoint
writes a file for each rank in place, and neither notices a bit that was turned; so a digest of
our own stands beside the file.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import torch

from dgm_course.files import write_whole

KEPT = 3

State = dict[str, Any]


def write_checkpoint(folder: Path, step: int, state: State) -> Path:
    """Put ``step-0000040.pt`` there, whole, and take away all but the last `KEPT`.

    Its digest is written first, so that a checkpoint never stands without one.

    Raises:
        OSError: for a disk that is full, or not to be written; older checkpoints are untouched.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data, path = buffer.getbuffer(), folder / f"step-{step:07d}.pt"
    digest = f"{hashlib.sha256(data).hexdigest()}  {path.name}\n"  # as sha256sum -c reads it
    try:
        write_whole(path.with_suffix(".sha256"), digest.encode())
        write_whole(path, data)
    except OSError as error:
        left = [old.name for old in checkpoints_in(folder) if old != path]
        raise OSError(
            f"cannot write {path}: {error.strerror or error}; "
            + (f"the last one is {left[-1]}" if left else "there is none before it")
        ) from error
    for old in checkpoints_in(folder)[:-KEPT]:
        old.unlink()
        old.with_suffix(".sha256").unlink(missing_ok=True)
    return path


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints, whole or not, the newest last."""
    return sorted(folder.glob("step-*.pt"))


def sweep(folder: Path) -> None:
    """Remove what a killed process left half-written."""
    for path in folder.glob(".step-*.tmp"):
        path.unlink()


def read_checkpoint(path: Path) -> bytes:
    """The bytes of a checkpoint that is whole.

    Raises:
        ValueError: if it is not what was written, with the reason.
    """
    try:
        digest = path.with_suffix(".sha256").read_text(encoding="utf-8").split()[:1]
    except FileNotFoundError:
        raise ValueError(f"{path} is damaged: its .sha256 is missing") from None
    data = path.read_bytes()
    if [found := hashlib.sha256(data).hexdigest()] != digest:
        raise ValueError(
            f"{path} is damaged: its {len(data)} bytes have the SHA-256 {found[:12]}…, and the "
            f"one beside it says {''.join(digest)[:12] or 'nothing'}…"
        )
    return data


def newest_checkpoint(folder: Path) -> tuple[bytes | None, list[str]]:
    """The newest that is whole, or None where there is none at all; and what is damaged.

    Raises:
        ValueError: where there are damaged ones only, each with its reason.
    """
    damaged: list[str] = []
    for path in reversed(checkpoints_in(folder)):
        try:
            return read_checkpoint(path), damaged
        except ValueError as error:
            damaged.append(str(error))
    if damaged:
        raise ValueError("no checkpoint is whole: " + "; ".join(damaged))
    return None, damaged


def load_state(data: bytes, recipe: str) -> State:
    """What `write_checkpoint` was given, on the CPU; no code of the file's is run.

    Raises:
        ValueError: for what another recipe, or another program, has written.
    """
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        of = state["recipe"]
    except (pickle.UnpicklingError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(f"the checkpoint was not written by dgm train: {error}") from error
    if of != recipe:
        raise ValueError(f"the checkpoint is of the recipe {of}, and {recipe} was asked for")
    return state
