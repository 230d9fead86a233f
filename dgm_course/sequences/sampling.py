"""What samplers of sequences share: their arguments, and one token drawn from its logits."""

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
        ValueError: for logits of which the largest is not finite.
    """
    largest = logits.amax(1, keepdim=True)
    if values_are_checked() and not math.isfinite(largest.sum().item()):
        n_bad = int((~largest.isfinite()).sum())
        raise ValueError(
            f"logits must be finite, got NaN, inf or nothing else than -inf in {n_bad} of "
            f"{len(logits)} rows; have the model's weights diverged?"
        )
    # Nearer to 0 all but the likeliest have no chance; a quotient would overflow.
    scores = (logits - largest) / max(temperature, torch.finfo(logits.dtype).tiny)
    if top_k is not None:
        least = logits.topk(top_k, 1).values[:, -1:]
        scores = scores.masked_fill(logits < least, -math.inf)
    # The token of the least E / p, E exponential, is one drawn from p.
    waits = torch.empty(logits.shape, dtype=logits.dtype).exponential_(generator=generator)
    return (scores - waits.to(logits.device).log()).argmax(1)
