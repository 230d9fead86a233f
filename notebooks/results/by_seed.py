"""What makers of stored results share: rows of many seeds, written after each, and resumed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from dgm_course.data.stored import RESULTS, save_results
from dgm_course.training import quick

Arrays = dict[str, np.ndarray]
Runs = Mapping[str, tuple[Callable[..., Arrays], int]]  # name: (of seed and n_steps; seeds)


def options(doc: str, name: str, names: Collection[str], steps: int) -> argparse.Namespace:
    """The command line of a maker, whose file is ``name``; it trains in full, in one thread."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--seeds", type=int, help="at most so many of each")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.npz")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help="anew")
    found = parser.parse_args()
    if quick():
        parser.error("what is stored needs full training; unset DGM_COURSE_QUICK")
    torch.set_num_threads(1)
    return found


def stored(out: Path, only: Collection[str] | None = None) -> Arrays:
    """What a file has, without the runs that are to be made anew."""
    if not out.exists():
        return {}
    with np.load(out) as file:
        return {key: file[key] for key in file if key.split("/")[0] not in (only or ())}


def make(
    asked: argparse.Namespace,
    runs: Runs,
    found: Arrays | None = None,
    whole: Collection[str] = ("pictures",),
) -> None:
    """Run what ``found``, or else the file, lacks, and write the file after each seed.

    A run's arrays become ``NAME/key``, a row for each seed; of the keys in ``whole`` there is one
    array, of the seed that has it. Others may be of the first seeds alone.
    """
    found = stored(asked.out, asked.only) if found is None else found
    for name in asked.only or runs:
        run, n_seeds = runs[name]
        for seed in range(n_made(found, name, whole), min(n_seeds, asked.seeds or n_seeds)):
            new = run(seed=seed, n_steps=asked.steps)
            for key, value in new.items():
                before = found.get(f"{name}/{key}")
                rows = value[None] if before is None else np.concatenate([before, value[None]])
                found[f"{name}/{key}"] = value if key in whole else rows
            save_results(asked.out, found)
            small = {k: np.round(v, 2) for k, v in new.items() if np.size(v) <= 8}
            print(name, seed, small, flush=True)


def n_made(found: Arrays, name: str, whole: Collection[str]) -> int:
    rows = {key: v for key, v in found.items() if key.split("/")[0] == name}
    return max((len(v) for key, v in rows.items() if key.split("/")[1] not in whole), default=0)


def numbers(model: nn.Module) -> list[Tensor]:
    """All that a stored vector of a model holds."""
    return [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]


def as_float16(model: nn.Module) -> np.ndarray:
    """The model's numbers as float16; the model has these from now on."""
    vector = parameters_to_vector(numbers(model)).detach().half()
    vector_to_parameters(vector.float(), numbers(model))
    return vector.numpy()
