"""Sampling pixel by pixel: the loop, and what it asks of a model.

The cache of each model stands beside that model.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Cache(Protocol):
    """The logits of one pixel after the other, row by row, the channels of a pixel in order.

    For each row: `start_row`; then for each column j and channel c: `logits`, then `put`.
    """

    def start_row(self) -> None:
        """Go on to the next row, the first one at first."""

    def logits(self, j: int, c: int) -> Tensor:
        """The logits of channel c at column j of this row, ``(N, n_levels)``."""

    def put(self, j: int, c: int, levels: Tensor) -> None:
        """Say which levels ``(N,)`` channel c at column j has got."""


def sample_pixels(
    cache: Cache, given: Tensor, temperature: float, generator: torch.Generator | None
) -> Tensor:
    """``given`` ``(N, C, H, W)`` with each −1 replaced by a draw from its softmax."""
    x = given.clone()
    _, n_channels, height, width = x.shape
    # Nearer to 0 all but the likeliest have no chance; a quotient would overflow.
    temperature = max(temperature, torch.finfo(torch.float32).tiny)
    unknown = (given < 0).any(0).tolist()  # (C, H, W)
    for i in range(height):
        cache.start_row()
        for j in range(width):
            for c in range(n_channels):
                logits = cache.logits(j, c)  # (N, n_levels)
                if unknown[c][i][j]:
                    below = logits - logits.amax(1, keepdim=True)
                    p = torch.softmax(below / temperature, 1)
                    drawn = torch.multinomial(p, 1, generator=generator).squeeze(1)  # (N,)
                    x[:, c, i, j] = torch.where(given[:, c, i, j] < 0, drawn, given[:, c, i, j])
                cache.put(j, c, x[:, c, i, j])
    return x
