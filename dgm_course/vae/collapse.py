"""Which latents a trained encoder uses."""

from __future__ import annotations

from torch import Tensor

from dgm_course.checks import check_number, check_points


def active_units(means: Tensor, threshold: float = 0.01) -> Tensor:
    """Var_x(E_q[z_j]) > threshold, for each latent j.

    Source: Burda, Grosse & Salakhutdinov 2016, section 5, https://arxiv.org/abs/1509.00519.

    Args:
        means: E_q[z|x] of the data, ``(N, M)``: ``model.encode(x).mean``.
        threshold: in units of the prior's variance, which is 1.

    Shapes: returns booleans ``(M,)``; their sum is the number of active units.

    Raises:
        ValueError: for means that are not finite ``(N, M)``, N ≥ 2, or a negative threshold.

    Omits: a latent whose mean is constant while its variance varies with x counts as inactive.
    """
    check_points(means, None, None, "means")
    if len(means) < 2:
        raise ValueError(f"means must hold at least two points, got {len(means)}")
    check_number(threshold, "threshold", or_zero=True)
    return means.var(0) > threshold
