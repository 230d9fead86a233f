"""Lecture 4: the aggregated posterior's log-density beside the broadcast form, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from dgm_course.vae import AggregatedPosterior
from tests.benchmarks.harness import Row, alone, in_turn

N, DIM, THREADS = 10_000, 10, 2
PEAK_MB = 300


def codes(n: int, dim: int = DIM) -> tuple[Tensor, Tensor, Tensor]:
    """Means, scales and one draw from each of n posteriors, ``(n, D)`` in float64."""
    torch.manual_seed(0)
    mean = torch.randn(n, dim, dtype=torch.float64)
    scale = 0.1 + 0.9 * torch.rand(n, dim, dtype=torch.float64)
    return mean, scale, mean + scale * torch.randn(n, dim, dtype=torch.float64)


def broadcast(mean: Tensor, scale: Tensor, z: Tensor, rows: int) -> Tensor:
    """log q(z) as disentanglement libraries have it: an array (rows, n, D), then sum, then log-sum.

    In chunks of rows, for at n = 10,000 the whole would take 8 GB.
    """
    log_variance = 2 * scale.log()
    found = []
    for part in z.split(rows):
        difference = part[:, None] - mean[None]  # (R, n, D)
        norm = -0.5 * (math.log(2 * math.pi) + log_variance)
        log_density = norm - 0.5 * (difference**2 * torch.exp(-log_variance))
        found.append(torch.logsumexp(log_density.sum(2), 1) - math.log(len(mean)))
    return torch.cat(found)


@torch.no_grad()
def log_density() -> list[Row]:
    mean, scale, z = codes(N)
    q = Independent(Normal(mean, scale), 1)
    torch.set_num_threads(THREADS)
    try:
        small = z[:200]  # the broadcast form's best chunk
        chunks: dict[str, Callable[[], object]] = {
            str(r): lambda r=r: broadcast(mean, scale, small, r) for r in (2, 4, 20, 100)
        }
        times = in_turn(chunks, rounds=3)
        rows = int(min(times, key=lambda r: times[r]))
        times = in_turn(
            {
                "ours": lambda: AggregatedPosterior(q).log_prob(z),
                "broadcast": lambda: broadcast(mean, scale, z, rows),
            },
            rounds=1,
        )
        half = Independent(Normal(mean[: N // 2], scale[: N // 2]), 1)
        grown = in_turn(
            {
                "n": lambda: AggregatedPosterior(q).log_prob(z),
                "n/2": lambda: AggregatedPosterior(half).log_prob(z[: N // 2]),
            },
            rounds=9,
        )
        difference = AggregatedPosterior(q).log_prob(small) - broadcast(mean, scale, small, rows)
        assert difference.abs().max() < 1e-9, "the two do not compute the same"
    finally:
        torch.set_num_threads(1)
    what = f"log q(z), n = {N:,} codes at {N:,} points, D = {DIM}, {THREADS} threads"
    peer = f"the broadcast form, {rows} points at a time"
    return [
        Row(what, times["ours"], times["broadcast"], peer, 0.15),
        Row(f"{what}: growth", grown["n"], grown["n/2"], f"n = {N // 2:,} at {N // 2:,}", None),
    ]


SETUP = f"""
import torch
from tests.benchmarks.surgery import codes
from dgm_course.vae import AggregatedPosterior
from torch.distributions import Independent, Normal
torch.set_num_threads({THREADS})
torch.set_grad_enabled(False)
mean, scale, z = codes({{n}})
q = Independent(Normal(mean, scale), 1)
AggregatedPosterior(q).log_prob(z[:64])
"""


def measured(n: int) -> tuple[float, float]:
    """Seconds and the peak in MB."""
    return alone(SETUP.format(n=n), "assert AggregatedPosterior(q).log_prob(z).isfinite().all()")


def size() -> list[Row]:
    """A fresh interpreter each: the peak of n = 10,000, and n = 60,000, whose cost is 36 times."""
    seconds, peak = measured(N)
    large, large_peak = measured(60_000)
    where = "as MB, not ms: peak of log q(z)"
    return [
        Row(f"{where}, n = {N:,}", peak / 1e3, PEAK_MB / 1e3, f"{PEAK_MB} MB", 1),
        Row(f"{where}, n = 60,000", large_peak / 1e3, PEAK_MB / 1e3, f"{PEAK_MB} MB", 1),
        Row("log q(z), n = 60,000 at 60,000 points", large, 36 * seconds, "36 × n = 10,000", None),
    ]


SECTIONS = (log_density, size)
