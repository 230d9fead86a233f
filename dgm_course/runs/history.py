"""What a run has found so far: one JSON object a line, in the order in which it was found."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from dgm_course.files import write_whole


class History:
    """``history.jsonl``: losses by the step, and what evaluations gave.

    Args:
        path: of the file.
        n_lines: how many lines count: those that a checkpoint knows of. What a killed run wrote
            after it is cut off, and found again.
    """

    def __init__(self, path: Path, n_lines: int) -> None:
        self.path = path
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        self.after = [json.loads(line) for line in lines[n_lines:] if line.endswith(b"\n")]
        self.kept = lines[:n_lines]
        self.n_lines = len(self.kept)

    def last_test(self) -> dict[str, float]:
        """What was evaluated after the checkpoint; empty if nothing was."""
        found = [line["test"] for line in self.after if "test" in line]
        return found[-1] if found else {}

    def open(self) -> None:
        """Cut off what came after, once it is known that the run goes on."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, b"".join(self.kept))

    def add(self, **found: Any) -> None:
        """One more line, on the disk when this returns."""
        with open(self.path, "ab") as file:
            file.write(json.dumps(found).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.n_lines += 1


def read_history(path: Path) -> list[dict[str, Any]]:
    """All lines of a ``history.jsonl``."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
