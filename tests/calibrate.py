"""How far a lecture's claims are from their bands, over many seeds.

    python -m tests.calibrate notebooks/01_planar_flows.ipynb --seeds 20
    ATEN_CPU_CAPABILITY=default python -m tests.calibrate notebooks/01_planar_flows.ipynb

Runs the notebook's code cells in this process once a seed, with every `seed_everything` moved by
a multiple of 1000, and prints each claim about a trained model with its band and the range of
what was measured. A claim that fails at one seed is printed all the same; the exit code then is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from tqdm import tqdm

from dgm_course import claims, training


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=1)
    options = parser.parse_args()
    if training.quick():
        parser.error("calibration needs full training; unset DGM_COURSE_QUICK")

    cells = [c.source for c in nbformat.read(options.notebook, 4).cells if c.cell_type == "code"]
    os.chdir(options.notebook.parent)
    measured: dict[str, list[float]] = {}
    bands: dict[str, str] = {}
    failed: list[str] = []
    claim, seed_everything = claims.claim, training.seed_everything

    def record(sentence: str, value: Any, **band: Any) -> None:
        if band.get("trained"):
            numbers = np.asarray(value.detach() if hasattr(value, "detach") else value, float)
            measured.setdefault(sentence, []).extend(np.ravel(numbers).tolist())
            bands[sentence] = " ".join(f"{k}={v:g}" for k, v in band.items() if k != "trained")
        try:
            claim(sentence, value, **band)
        except claims.ClaimError as error:
            failed.append(str(error))

    claims.claim = record
    for offset in tqdm(range(options.first, options.first + options.seeds), unit="seed"):
        training.seed_everything = lambda seed, offset=offset: seed_everything(seed + 1000 * offset)
        names: dict[str, Any] = {"__name__": "__main__"}
        with contextlib.redirect_stdout(io.StringIO()):
            for source in cells:
                exec(source, names)

    width = max(map(len, measured), default=0)
    for sentence, values in measured.items():
        print(f"{sentence:{width}}  {bands[sentence]:24}  {min(values):.4g} … {max(values):.4g}")
    print("\n".join(sorted(set(failed))) or "every claim held at every seed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
