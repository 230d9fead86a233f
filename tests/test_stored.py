"""Stored results are written whole or not at all, and their makers go on where they stopped."""

from __future__ import annotations

import importlib
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dgm_course.data.stored import save_results


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    path = tmp_path / "runs.npz"
    save_results(path, {"of a name/nats": np.arange(3.0), "steps": np.array(1)})
    save_results(path, {"of a name/nats": np.arange(4.0)})
    with np.load(path) as found:
        assert {name: found[name].tolist() for name in found} == {"of a name/nats": [0, 1, 2, 3]}
    assert [*tmp_path.iterdir()] == [path]


def test_a_run_that_is_stopped_while_it_writes_spoils_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.npz"
    save_results(path, {"nats": np.arange(3.0)})

    def stopped(file: Path, **arrays: np.ndarray) -> None:
        Path(file).write_bytes(b"PK")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", stopped)
    with pytest.raises(KeyboardInterrupt):
        save_results(path, {"nats": np.arange(4.0)})
    with np.load(path) as found:
        assert found["nats"].tolist() == [0, 1, 2]


# --- rows of many seeds -------------------------------------------------------------------------

MAKERS = Path(__file__).parent.parent / "notebooks" / "results"


@pytest.fixture
def by_seed(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(MAKERS)
    return importlib.import_module("by_seed")


def asked(out: Path, **others: Any) -> Namespace:
    return Namespace(**{"out": out, "only": None, "seeds": None, "steps": 7} | others)


def runs(stop_at: int | None = None) -> dict[str, tuple[Callable[..., Any], int]]:
    """Of which "many" has a picture of its first seed and samples of the first two."""

    def many(seed: int, n_steps: int) -> dict[str, np.ndarray]:
        if seed == stop_at:
            raise KeyboardInterrupt
        found = {"nats": np.array([seed, n_steps])}
        found |= {"pictures": np.zeros((5, 8))} if seed == 0 else {}
        return found | ({"samples": np.full(3, seed)} if seed < 2 else {})

    return {"one": (lambda seed, n_steps: {"share": np.array(0.5)}, 1), "many": (many, 4)}


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    with np.load(path) as file:
        return {name: file[name].shape for name in file}


ALL = {"one/share": (1,), "many/nats": (4, 2), "many/pictures": (5, 8), "many/samples": (2, 3)}


def test_rows_are_those_of_a_run_that_nobody_stopped(by_seed: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "runs.npz"
    with pytest.raises(KeyboardInterrupt):
        by_seed.make(asked(path), runs(stop_at=3))
    assert shapes(path) == ALL | {"many/nats": (3, 2)}
    by_seed.make(asked(path), runs())
    assert shapes(path) == ALL
    assert np.load(path)["many/nats"].tolist() == [[0, 7], [1, 7], [2, 7], [3, 7]]
    assert np.load(path)["many/samples"][:, 0].tolist() == [0, 1]


def test_what_stands_is_made_again_if_asked_for(by_seed: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "runs.npz"
    by_seed.make(asked(path, seeds=1), runs())
    by_seed.make(asked(path, steps=9), runs())
    assert np.load(path)["many/nats"][:, 1].tolist() == [7, 9, 9, 9]
    by_seed.make(asked(path, steps=9, only=["many"]), runs())
    assert np.load(path)["many/nats"][:, 1].tolist() == [9, 9, 9, 9]
    assert shapes(path) == ALL
