"""What a latent does, as arrays to be drawn: traversals, and maps of it over positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from dgm_course.checks import as_numbers, check_integers, check_points, check_shape


class LatentOrder(NamedTuple):
    """Latents by what they cost, the dearest first."""

    latents: Tensor  # (M,), their numbers
    kl: Tensor  # (M,), nats in that order


@torch.no_grad()
def latents_by_kl(q: Distribution) -> LatentOrder:
    """1/N Σ_i KL(q(z_j|x_i) ‖ N(0, 1)) of each latent in nats, sorted from the largest down.

    A latent that is not used costs about 0, and its traversal shows nothing.

    Args:
        q: the posteriors of N data, ``Independent(Normal(mean, scale), 1)`` of shape ``(N, M)``.
    """
    if not (isinstance(q, Independent) and isinstance(q.base_dist, Normal)) or q.mean.ndim != 2:
        raise ValueError(
            "q must be a batch of N diagonal Gaussians, Independent(Normal(mean, scale), 1) of "
            f"shape (N, M), got {q if isinstance(q, Distribution) else type(q).__name__}"
        )
    normal: Any = q.base_dist
    kl = kl_divergence(normal, Normal(torch.zeros_like(normal.loc), 1.0)).mean(0)
    return LatentOrder(kl.argsort(descending=True), kl.sort(descending=True).values)


@torch.no_grad()
def traversals(
    decode: Callable[[Tensor], Tensor],
    z: Tensor,
    values: Sequence[float] | Tensor,
    latents: Sequence[int] | Tensor | None = None,
) -> Tensor:
    """decode(z with z_j = value) for each latent j, in the order given, and each value.

    Source: Higgins et al. 2017, figure 7, https://openreview.net/forum?id=Sy2fzU9gl.

    Args:
        decode: codes ``(N, M)`` to data ``(N, ...)``, such as ``model.mean``.
        z: the code that the others share, ``(M,)``.
        values: V of them, in the units of z: the prior's standard deviations for N(0, I).
        latents: L numbers from 0 to M − 1, such as ``latents_by_kl(q).latents``; all as they come
            if none are given.

    Shapes: returns ``(L, V, ...)``.

    Raises:
        ValueError: for a z of another shape, or latents that there are not.

    Example:
        >>> traversals(lambda z: z, torch.zeros(2), [-1.0, 1.0], [1])
        tensor([[[ 0., -1.],
                 [ 0.,  1.]]])
    """
    steps = as_numbers(values, "values")
    if steps.ndim != 1 or not len(steps):
        raise ValueError(f"values must have shape (V,), got {tuple(steps.shape)}")
    check_points(z[None] if isinstance(z, Tensor) and z.ndim == 1 else z, None, None, "z")
    check_shape(z, (z.numel(),), "z")
    chosen = torch.arange(len(z)) if latents is None else as_numbers(latents, "latents")
    check_integers(chosen, 0, len(z) - 1, "latents")
    chosen = chosen.to(z.device)
    codes = z.repeat(len(chosen), len(steps), 1)  # (L, V, M)
    place = chosen[:, None, None].expand(-1, len(steps), 1)
    codes = codes.scatter(2, place, steps.to(z).expand(len(chosen), -1)[..., None])
    return decode(codes.flatten(0, 1)).unflatten(0, codes.shape[:2])


def heat_maps(codes: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The mean of each latent over the data at one position: a map that a place latent bends.

    Source: Higgins et al. 2017, figure 7; Burgess et al. 2018, figure 2,
    https://arxiv.org/abs/1804.03599.

    Args:
        codes: posterior means ``(N, M)``.
        x: the horizontal position of each, ``(N,)``.
        y: the vertical one, ``(N,)``.

    Shapes: returns ``(M, H, W)`` for H values of y and W of x, both in rising order; NaN where
    there are no data.

    Example:
        >>> x, y = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])
        >>> heat_maps(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), x, y)
        tensor([[[1., 2.],
                 [3., 4.]]])
    """
    check_points(codes, None, None, "codes")
    for name, place in (("x", x), ("y", y)):
        check_shape(place, (len(codes),), name)
    columns, column = x.unique(return_inverse=True)
    rows, row = y.unique(return_inverse=True)
    shape, cell = (len(rows), len(columns)), row * len(columns) + column
    sums = codes.new_zeros(len(rows) * len(columns), codes.shape[1]).index_add_(0, cell, codes)
    count = cell.bincount(minlength=len(sums)).to(codes)
    return (sums / count[:, None]).T.unflatten(1, shape)
