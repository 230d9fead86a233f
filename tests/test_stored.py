"""Stored results are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

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
