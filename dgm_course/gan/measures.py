"""What a generator has found: the modes of a known mixture, and the way between two samples."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.distributions import Independent, MixtureSameFamily, Normal

from dgm_course.checks import (
    check_count,
    check_floating,
    check_number,
    check_points,
    check_same_shape,
)

Way = Literal["line", "sphere"]


class ModeReport(NamedTuple):
    """Which modes of a mixture a sample lies on, and how evenly."""

    counts: Tensor  # (K,) points near each mode, int64
    share: float  # of the points that lie near any mode
    n_covered: int  # modes with at least a part `least` of the points that are theirs

    @property
    def weights(self) -> Tensor:
        """The modes' shares of the points near any, ``(K,)``, to lay beside the mixture's."""
        return self.counts / self.counts.sum().clamp_min(1)


def mode_report(
    x: Tensor, mixture: MixtureSameFamily, *, within: float = 3.0, least: float = 0.1
) -> ModeReport:
    """Points within 3 σ of a mode: how many at each, their share of all, the modes covered.

    A point counts for its nearest mode, k, if ‖(x − μ_k) / σ_k‖ ≤ within. Of the mixture's own
    samples in the plane, where modes lie apart, that is a share 1 − exp(−within² / 2): 0.989 at 3,
    and no generator should have more. Mode k of weight π_k is covered if at least least · π_k N
    points lie there.

    Source: Srivastava et al. 2017 (VEEGAN), section 4.1, https://arxiv.org/abs/1705.07761, whose
    modes are captured by a single point.

    Args:
        x: samples ``(N, D)``.
        mixture: of Gaussians with independent features, such as `eight_gaussians_density()` and
            `gaussian_grid_density()`; its means μ ``(K, D)``, scales σ and weights π are read.
        within: how many scales.
        least: the part of its due that covers a mode, in (0, 1].

    Raises:
        ValueError: for x of other features or not finite, another mixture, or such bounds.

    Example:
        >>> from dgm_course.data import eight_gaussians, eight_gaussians_density
        >>> mode_report(eight_gaussians(800, 0), eight_gaussians_density()).n_covered
        8
    """
    parts = getattr(mixture, "component_distribution", None)
    if not isinstance(parts, Independent) or not isinstance(parts.base_dist, Normal):
        raise ValueError(
            "mixture must be a MixtureSameFamily of Independent(Normal(...), 1), got "
            f"{type(mixture).__name__}"
        )
    check_points(x, parts.mean.shape[1], None, "x")
    check_number(within, "within")
    check_number(least, "least")
    if least > 1:
        raise ValueError(f"least must be at most 1, got {least}")
    apart = (x[:, None] - parts.mean.to(x)) / parts.stddev.to(x)  # (N, K, D)
    distance, mode = apart.norm(dim=2).min(1)
    counts = torch.bincount(mode[distance <= within], minlength=len(parts.mean))
    due = least * len(x) * mixture.mixture_distribution.probs.to(x)
    n_covered = int((counts >= due).sum())
    return ModeReport(counts, counts.sum().item() / len(x), n_covered)


def interpolate(a: Tensor, b: Tensor, n: int, *, way: Way = "sphere") -> Tensor:
    """n points from a to b, both included: (1 − t) a + t b, or at a steady angle round the origin.

    "sphere" turns the direction and changes the length evenly, from ‖a‖ to ‖b‖. In M dimensions
    the draws of N(0, I) have lengths near √M, and a line between two of them passes √(M/2), where
    hardly a draw lies.

    Source: Shoemake 1985; White 2016, section 2.1, https://arxiv.org/abs/1609.04468.

    Args:
        a: starts ``(..., M)``; b: ends, of the same shape.
        n: number of points, at least 2.
        way: "line" or "sphere".

    Shapes: to ``(n, ..., M)``.

    Raises:
        ValueError: for ends of different shapes; on the sphere, for an end at the origin, or two
            that are opposite, between which no direction is nearer than the others.

    Example:
        >>> half = interpolate(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0]), 3)[1]
        >>> round(half.norm().item(), 6)
        2.0
    """
    check_floating(a, "a")
    check_floating(b, "b")
    check_same_shape("a", a, "b", b)
    n = check_count(n, "n", 2)
    if way not in get_args(Way):
        raise ValueError(f"way must be one of {get_args(Way)}, got {way!r}")
    t = torch.linspace(0, 1, n).to(a).view(n, *[1] * a.ndim)
    if way == "line":
        return torch.lerp(a, b, t)
    from_, to = (end.norm(dim=-1, keepdim=True) for end in (a, b))
    if (from_ == 0).any() or (to == 0).any():
        raise ValueError("a and b must not be the origin, which has no direction")
    u, v = a / from_, b / to
    # Not acos(u · v), which has no digits left near 0 and π.
    half = torch.atan2((u - v).norm(dim=-1, keepdim=True), (u + v).norm(dim=-1, keepdim=True))
    if ((u + v).norm(dim=-1) < 1e-5).any():
        raise ValueError("a and b must not be opposite: every way round is as near")
    # sin(tω)/sin ω by sinc, so that equal directions divide nothing by 0.
    share = lambda t: t * torch.sinc(2 * t * half / torch.pi) / torch.sinc(2 * half / torch.pi)  # noqa: E731
    return (share(1 - t) * u + share(t) * v) * torch.lerp(from_, to, t)
