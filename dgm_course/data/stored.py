"""What lectures compute beforehand: stored in the package, so that a notebook needs no folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).resolve().parent.parent / "results"


def results(name: str) -> dict[str, np.ndarray]:
    """The arrays of a stored result, by their names in it.

    Args:
        name: of a file in ``dgm_course/results``, without ``.npz``. The command that makes it again
            is ``python notebooks/results/NAME.py``, which also says what its arrays are.

    Raises:
        ValueError: if there is no such result.

    Example:
        >>> results("elbo_surgery")["betas/4"].shape  # seeds, checkpoints, terms of the KL
        (3, 14, 3)
    """
    path = RESULTS / f"{name}.npz"
    if not path.is_file():
        there = ", ".join(sorted(path.stem for path in RESULTS.glob("*.npz")))
        raise ValueError(f"name must be that of a stored result ({there}), got {name!r}")
    with np.load(path) as file:
        return dict(file)


def save_results(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a ``.npz`` file whole or not at all: a run that is stopped spoils nothing.

    Args:
        path: of the file, ``.npz``; the file that has the name is replaced.
        arrays: by their names.
    """
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, **arrays)  # type: ignore[arg-type]  # a name may be any str
    part.replace(path)
