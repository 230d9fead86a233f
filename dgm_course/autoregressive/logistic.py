"""Mixtures of logistics on levels: a few numbers a pixel in place of one for each level."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dgm_course.checks import check_count, check_floating
from dgm_course.probability import logistic_level_log_prob


def discretised_logistics_log_prob(
    levels: Tensor, logits: Tensor, means: Tensor, log_scales: Tensor, *, n_levels: int
) -> Tensor:
    """log Σₖ πₖ [σ(bₖ) − σ(aₖ)], π = softmax(logits): of the observed level alone, in nats.

    Each component's mass of a level is `logistic_level_log_prob`: edges half a step to either side,
    open at level 0 and at the highest.

    Source: Salimans et al. 2017, equation 2, https://arxiv.org/abs/1701.05517.

    Args:
        levels: integers 0 … n_levels − 1.
        logits: of the mixture's K weights; any number may be added to all.
        means: in the units in which the levels go from −1 to 1.
        log_scales: logs of the scales in these units.
        n_levels: number of levels V, at least 2.

    Shapes: levels ``(N, …)``, the others ``(N, K, …)``; to ``(N, …)``.

    Raises:
        ValueError: for levels that are not integers in that range, a mixture of 0 components, or
            means and scales of another shape than the logits.

    Example:
        >>> logits, means = torch.zeros(1, 2), torch.tensor([[-1.0, 1.0]])
        >>> log_scales = torch.full((1, 2), -9.0)  # two needles, at the first level and the last
        >>> log_p = discretised_logistics_log_prob(
        ...     torch.tensor([4]), logits, means, log_scales, n_levels=5
        ... )
        >>> log_p.exp()
        tensor([0.5000])
    """
    check_mixture(logits, means, log_scales)
    log_mass = logistic_level_log_prob(levels[:, None], means, log_scales, n_levels=n_levels)
    return torch.logsumexp(logits.log_softmax(1) + log_mass, 1)


def discretised_logistics(
    logits: Tensor, means: Tensor, log_scales: Tensor, *, n_levels: int
) -> Tensor:
    """The log-probabilities of all levels at once; arguments as `discretised_logistics_log_prob`.

    V · K numbers a pixel: to train, the observed level's are enough.

    Shapes: each ``(N, K, …)``, to ``(N, V, …)``: logits whose softmax they are themselves.

    Example:
        >>> logits, means = torch.zeros(1, 2), torch.tensor([[-1.0, 1.0]])
        >>> log_p = discretised_logistics(logits, means, torch.full((1, 2), -9.0), n_levels=5)
        >>> log_p.exp()
        tensor([[0.5000, 0.0000, 0.0000, 0.0000, 0.5000]])
    """
    check_mixture(logits, means, log_scales)
    check_count(n_levels, "n_levels", 2)
    shape = (1, n_levels, 1) + (1,) * (means.ndim - 2)
    levels = torch.arange(n_levels, device=means.device).view(shape)  # (1, V, 1, …)
    mean, log_scale = means[:, None], log_scales[:, None]  # (N, 1, K, …)
    log_mass = logistic_level_log_prob(levels, mean, log_scale, n_levels=n_levels)
    return torch.logsumexp(logits.log_softmax(1)[:, None] + log_mass, 2)


def check_mixture(logits: Tensor, means: Tensor, log_scales: Tensor) -> None:
    """Raise a ValueError unless the three are floating, of one shape ``(N, K, …)``, K ≥ 1."""
    for name, values in (("logits", logits), ("means", means), ("log_scales", log_scales)):
        check_floating(values, name)
        if values.ndim < 2 or values.shape[1] == 0 or values.shape != logits.shape:
            raise ValueError(
                f"{name} must have shape (N, K, …) with K >= 1 components, that of logits "
                f"{tuple(logits.shape)}, got shape {tuple(values.shape)}"
            )


class LogisticMixture(NamedTuple):
    """p(x₁ … x_C) = Σₖ πₖ Πc [σ(b_kc) − σ(a_kc)]: the channels of a pixel, under one component.

    The mean of channel c moves with the channels before it: m_kc + Σ_{d<c} r_kcd x_d.

    Source: Salimans et al. 2017, section 2.2, equation 3, https://arxiv.org/abs/1701.05517.

    Shapes: logits ``(N, K, H, W)``; means and log_scales ``(N, K, C, H, W)``; slopes
    ``(N, K, C (C − 1) / 2, H, W)``, those of channel 1, of channel 2, …
    """

    logits: Tensor
    means: Tensor
    log_scales: Tensor
    slopes: Tensor
    n_levels: int

    @classmethod
    def from_features(
        cls, h: Tensor, *, n_levels: int, n_channels: int, n_components: int
    ) -> LogisticMixture:
        """Of K sets of `numbers_of_a_component`, ``(N, K · numbers, H, W)``."""
        c = n_channels
        parts = h.unflatten(1, (n_components, -1)).split([1, c, c, c * (c - 1) // 2], 2)
        logits, means, log_scales, slopes = parts
        return cls(logits[:, :, 0], means, log_scales, slopes, n_levels)

    def moved(self, values: Tensor) -> Tensor:
        """The means, given the channels before: from values ``(N, C, H, W)``."""
        columns, start = [], 0
        for c in range(self.means.shape[2]):
            slopes = self.slopes[:, :, start : start + c]  # (N, K, c, H, W)
            columns.append(self.means[:, :, c] + (slopes * values[:, None, :c]).sum(2))
            start += c
        return torch.stack(columns, 2)

    def masses(self, values: Tensor) -> Tensor:
        """Each component's log-mass of each channel's own level, ``(N, K, C, H, W)``."""
        levels = ((values.detach() + 1) * ((self.n_levels - 1) / 2)).round().long()
        levels = levels.clamp(0, self.n_levels - 1)[:, None]
        means = self.moved(values)
        return logistic_level_log_prob(levels, means, self.log_scales, n_levels=self.n_levels)

    def log_prob(self, values: Tensor) -> Tensor:
        """log p of each pixel, its channels together: ``(N, C, H, W)`` to ``(N, H, W)``."""
        return torch.logsumexp(self.logits.log_softmax(1) + self.masses(values).sum(2), 1)

    def log_probs(self, values: Tensor) -> Tensor:
        """log p(x_c = v | x₍<c₎) of every level v: ``(N, C, H, W)`` to ``(N, V, C, H, W)``.

        The channels before c say which component the pixel is likely to be of: of its logits, those
        of the masses of these channels are a part.
        """
        before = self.masses(values).cumsum(2)[:, :, :-1]
        before = torch.cat([torch.zeros_like(self.means[:, :, :1]), before], 2)
        logits = self.logits[:, :, None] + before  # (N, K, C, H, W)
        means = self.moved(values)
        return discretised_logistics(logits, means, self.log_scales, n_levels=self.n_levels)


def numbers_of_a_component(n_channels: int) -> int:
    """1 + 2 C + C (C − 1) / 2: its weight, its means, its scales and its slopes."""
    return 1 + 2 * n_channels + n_channels * (n_channels - 1) // 2
