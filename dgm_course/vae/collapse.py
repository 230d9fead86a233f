"""Which latents a trained encoder uses."""

from __future__ import annotations

from torch import Tensor

from dgm_course.checks import check_number, check_points, check_tensor


def activity(means: Tensor) -> Tensor:
    """A_j = Var_x(E_q[z_j]), for each latent j: how much its posterior mean varies over the data.

    Of a second stochastic layer E_q[z₂|x] has no formula, for q(z₂|x) is an average of q(z₂|z₁)
    over q(z₁|x). It is estimated by the mean over S draws of z₁, which adds 1/S of what they vary
    for one x; that share is taken off again. A_j is then right on average, and may fall below 0.

    Source: Burda, Grosse & Salakhutdinov 2016, section 5, https://arxiv.org/abs/1509.00519.

    Args:
        means: E_q[z|x] of the data ``(N, M)``, ``model.encode(x).mean``; or E_q[z₂|z₁] for S draws
            z₁ ~ q(z₁|x) a point, ``(S, N, M)``. Means, not draws of z itself: these would vary
            even if x told them nothing.

    Shapes: returns ``(M,)``, in units of the prior's variance where that is 1.

    Raises:
        ValueError: for means that are not finite, of fewer than two points, or with S = 1.
    """
    check_tensor(means, "means")
    check_points(means.flatten(0, -2) if means.ndim == 3 else means, None, None, "means")
    if means.shape[-2] < 2:
        raise ValueError(f"means must hold at least two points, got {means.shape[-2]}")
    if means.ndim == 2:
        return means.var(0)
    if len(means) < 2:
        raise ValueError("means must hold at least two draws a point (S, N, M), got S = 1")
    return means.mean(0).var(0) - means.var(0).mean(0) / len(means)


def active_units(means: Tensor, threshold: float = 0.01) -> Tensor:
    """A_j > threshold, for each latent j: which of them say something about x.

    Args:
        means: as for `activity`.
        threshold: in units of the prior's variance, which is 1.

    Shapes: returns booleans ``(M,)``; their sum is the number of active units.

    Raises:
        ValueError: as for `activity`, or for a negative threshold.

    Omits: a latent whose mean is constant while its variance varies with x counts as inactive.
    """
    check_number(threshold, "threshold", or_zero=True)
    return activity(means) > threshold
