"""Lecture 6: time and error of the log-ratio beside the densratio package (uLSIF), and the growth.

densratio takes about a second a thousand samples here: it is run once a dimension. Rows of errors
have no time: "ours" and "its" are root mean squared errors of the log-ratio, in thousandths.
"""

from __future__ import annotations

import contextlib
import io
import time

import numpy as np
import torch
from densratio import densratio
from torch import Tensor

from dgm_course.density_ratio import DensityRatio, Logistic
from tests.benchmarks.harness import Row, in_turn

DIMENSIONS, N = (1, 2, 10), 5000


def samples(dim: int, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """N(e₁, I) and N(0, I): the log-ratio is x₁ − ½."""
    generator = torch.Generator().manual_seed(seed)
    x_p, x_q = torch.randn(2, n, dim, generator=generator, dtype=torch.float64)
    x_p[:, 0] += 1
    return x_p, x_q


def error(log_ratio: np.ndarray, x: Tensor) -> float:
    return float(np.sqrt(np.mean((log_ratio - (x[:, 0].numpy() - 0.5)) ** 2)))


def beside_densratio() -> list[Row]:
    """Ours against uLSIF (α = 0: the plain ratio) with its own choice of width and penalty."""
    rows = []
    for dim in DIMENSIONS:
        x_p, x_q = samples(dim, N)
        fresh = torch.cat(samples(dim, 2000, seed=1))
        start = time.perf_counter()
        ours = DensityRatio(generator=0).fit(x_p, x_q)
        middle = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            theirs = densratio(x_p.numpy(), x_q.numpy(), alpha=0, verbose=False)
        end = time.perf_counter()
        # uLSIF's ratio can be 0 or below, where its logarithm is not a number.
        ratio = np.maximum(theirs.compute_density_ratio(fresh.numpy()), 1e-3)
        errors = error(ours.log_ratio(fresh).numpy(), fresh), error(np.log(ratio), fresh)
        what = f"{N:,} samples each in {dim}-D"
        rows += [
            Row(f"density ratio, {what}: fit", middle - start, end - middle, "densratio", 0.2),
            Row(f"density ratio, {what}: log-ratio error", *errors, "densratio", 0.5),
        ]
    return rows


def growth() -> list[Row]:
    """Four times the samples in at most about four times the time: the cost is linear.

    One classifier for both: the default may choose another one at another size.
    """
    small, large = samples(2, 25_000), samples(2, 100_000)
    times = in_turn(
        {
            "small": lambda: DensityRatio(Logistic(2), generator=0).fit(*small),
            "large": lambda: DensityRatio(Logistic(2), generator=0).fit(*large),
        },
        rounds=2,
    )
    what = "density ratio in 2-D, 100,000 samples each"
    return [Row(what, times["large"], times["small"], "25,000 samples each", 6)]


SECTIONS = (beside_densratio, growth)
