"""Lecture 14: sparse attention beside dense causal attention, forward and backward."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from dgm_course.sequences import score_entries, sparse_attention
from dgm_course.sequences.sparse_attention import Pattern
from tests.benchmarks.harness import Row, in_turn

PATTERNS: tuple[Pattern, ...] = ("strided", "fixed")
LENGTHS = (64, 128, 256, 512, 1024, 4096)
HEADS, DIM = 4, 32


def seconds(n: int) -> dict[str, float]:
    """Least seconds of each attention on n positions, at l = ⌈√n⌉, backward included."""
    torch.manual_seed(0)
    qkv = [torch.randn(1, HEADS, n, DIM, requires_grad=True) for _ in range(3)]
    weights = torch.randn(1, HEADS, n, DIM)
    stride = math.isqrt(n - 1) + 1

    def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return scaled_dot_product_attention(q, k, v, is_causal=True)

    attentions = {"dense": dense} | {
        pattern: partial(sparse_attention, stride=stride, pattern=pattern) for pattern in PATTERNS
    }

    def step(name: str) -> None:
        torch.autograd.grad(attentions[name](*qkv), qkv, weights)

    rounds = 10 if n > 1024 else 40
    return in_turn({name: partial(step, name) for name in attentions}, rounds, min)


def attention() -> list[Row]:
    """Every length, and the one from which on sparse attention is the cheaper."""
    times = {n: seconds(n) for n in LENGTHS}
    rows = [
        Row(
            f"{pattern} attention: {n:,} positions, {HEADS} x {DIM}, forward and backward",
            times[n][pattern], times[n]["dense"], "dense causal", 0.2 if n == 4096 else None,
        )
        for pattern in PATTERNS for n in LENGTHS
    ]  # fmt: skip
    for pattern in PATTERNS:
        ratios = [times[n][pattern] / times[n]["dense"] for n in LENGTHS]
        what = f"{pattern} attention: break-even, positions"
        rows.append(Row(what, break_even(ratios) / 1e3, 1.024, "at most", 1.0))
    return rows


def break_even(ratios: list[float]) -> float:
    """Where the ratios of LENGTHS last come down to 1, on straight lines between logarithms."""
    above = [i for i, ratio in enumerate(ratios) if ratio > 1]
    if not above or above[-1] + 1 == len(ratios):
        return LENGTHS[0] if not above else math.inf
    (a, b), (high, low) = LENGTHS[above[-1] :][:2], ratios[above[-1] :][:2]
    return a * (b / a) ** (math.log(high) / math.log(high / low))


def entries() -> list[Row]:
    """Scores that the masks leave, counted, beside n (n + 1) of two dense causal heads."""
    n, root = 4096, 64
    rows = []
    for pattern in PATTERNS:
        ours = score_entries(n, root, pattern)
        what = f"{pattern} attention: thousands of scores of two heads, {n:,} positions"
        rows.append(Row(what, ours / 1e6, n * (n + 1) / 1e6, "dense causal", 0.024))
        exponent = math.log(score_entries(16 * n, 4 * root, pattern) / ours, 16)
        what = f"{pattern} attention: exponent of the scores"
        rows.append(Row(what, exponent / 1e3, 1.5e-3, "at most", 1.001))
    return rows


SECTIONS = (attention, entries)
