"""What models of sequences share: the checks of their arguments, and one token's draw."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dgm_course.checks import check_count, check_number, values_are_checked
from dgm_course.data.toy import Seed, as_generator


def check_request(
    n: Any,
    length: Any,
    given: Tensor | None,
    method: Any,
    methods: tuple[str, ...],
    generator: Seed | None,
) -> tuple[int, int, torch.Generator | None]:
    """n, length and generator; a ValueError unless sequences can be drawn as they are asked for.

    What the given tokens are is checked by the model, before; here, that they fit n and length.
    """
    n, length = check_count(n, "n"), check_count(length, "length")
    if method not in methods:
        raise ValueError(f"method must be one of {methods}, got {method!r}")
    if given is not None and (len(given) != n or given.shape[1] > length):
        shape = f"(n, P), n = {n} and P at most length = {length}"
        raise ValueError(f"given must have shape {shape}, got {tuple(given.shape)}")
    return n, length, None if generator is None else as_generator(generator)


def check_sharpness(temperature: Any, top_k: Any, n_tokens: int | None) -> None:
    """Raise a ValueError unless temperature > 0, and top_k is None or 1 … V, V = n_tokens.

    Real samples have no V, n_tokens = None, and so no k likeliest.
    """
    check_number(temperature, "temperature")
    if top_k is not None and n_tokens is None:
        raise ValueError(f"top_k must be None: the model is of real samples, got {top_k!r}")
    if top_k is not None and n_tokens is not None:
        check_count(top_k, "top_k", most=n_tokens)


def draw_tokens(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Tokens ``(N,)`` from p_v ∝ exp(logits_v / temperature), ``(N, V)``, of the top_k likeliest.

    Tokens as likely as the k-th stay in. Division keeps the order, so which they are is read from
    the logits themselves: after it, at a high temperature, near logits would round to one.

    Raises:
        ValueError: for logits that are NaN or +inf, or all -inf.
    """
    # Nearer to 0 all but the likeliest have no chance; a quotient would overflow.
    below = logits - logits.amax(1, keepdim=True)
    scores = below / max(temperature, torch.finfo(logits.dtype).tiny)
    if top_k is not None:
        scores = scores.masked_fill(logits < logits.topk(top_k, 1).values[:, -1:], -math.inf)
    # One number a token. In float64 u · whole is always below whole: no draw falls off the end.
    reached = scores.softmax(1).cumsum(1, dtype=torch.float64)  # p(v' <= v)
    whole = reached[:, -1:]
    if values_are_checked() and not math.isfinite(whole.sum().item()):
        n_bad = int((~whole.isfinite()).sum())
        raise ValueError(
            f"logits must be finite, got NaN, inf, or -inf alone in {n_bad} of {len(logits)} rows"
        )
    u = torch.rand(len(logits), 1, generator=generator, dtype=torch.float64).to(logits.device)
    return torch.searchsorted(reached, u * whole, right=True)[:, 0]
