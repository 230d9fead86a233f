"""q(z), the aggregated posterior: where the encoder sends the data as a whole."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, constraints

from dgm_course.checks import check_points, check_tensor, values_are_checked

SHARP = 1e8  # (r / σ)²: beyond it the expanded square loses more than half its digits
FAR = 1e12  # |μ| / σ: four digits of z − μ are left
BLOCK = 2**18  # pairs (point, posterior) at a time: 2 MB, which a processor's cache holds


class AggregatedPosterior(Distribution):
    """q(z) = 1/n Σᵢ q(z | xᵢ): the mixture of all n posteriors, with equal weights.

    −½ Σ_d (z_d − μ_d)² / σ_d² is linear in [z², z], so that a chunk of points against all n
    posteriors is one matrix product, (R, 2M) by (2M, n), and no array (R, n, M) is ever made.
    Inside, all is float64: in float32 the terms that cancel would cost 0.03 nats at σ = 0.01. What
    is left of that loss is about 10⁻¹⁶ (r / σ)² nats, r being the distance from the codes' centre;
    where a code is as far out as 10⁴ σ, the differences z − μ are taken instead.

    Source: Hoffman & Johnson 2016,
    https://approximateinference.org/2016/accepted/HoffmanJohnson2016.pdf; as the prior that
    maximises the ELBO, Tomczak & Welling 2018, https://arxiv.org/abs/1705.07120.

    Args:
        q: the n posteriors, ``Independent(Normal(mean, scale), 1)`` of shape ``(n, M)``.

    Shapes: ``log_prob`` maps ``(..., M)`` to nats ``(...,)``; ``sample`` gives ``(..., M)``.

    Raises:
        ValueError: for another kind of q, an empty batch, means or scales that are not finite, or
            points of another width.

    Omits: ``rsample`` (the choice of i has no gradient), moments, ``expand``. Memory stays bounded
    without gradients only: a backward pass keeps all pairs.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector

    def __init__(self, q: Distribution) -> None:
        mean, scale = mean_and_scale(q)
        n, dim = mean.shape
        self._mean, self._scale = mean, scale
        self._dtype = q.base_dist.loc.dtype  # type: ignore[attr-defined]
        # Distances are taken from the codes' centre: less cancels there.
        self._centre = mean.mean(0)
        offset, precision = mean - self._centre, scale**-2
        self._weights = torch.cat([-0.5 * precision, offset * precision], 1).T  # (2M, n)
        self._constants = (
            -0.5 * offset.square() * precision - scale.log() - 0.5 * math.log(2 * math.pi)
        ).sum(1) - math.log(n)  # (n,)
        self._is_sharp = bool((offset.square() * precision > SHARP).any())
        super().__init__(event_shape=torch.Size((dim,)), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(z) in nats, ``(..., M)`` to ``(...,)``, in the dtype of z."""
        (dim,) = self.event_shape
        check_tensor(value, "z")
        if value.ndim == 0:
            raise ValueError(f"z must have shape (..., {dim}), got {value!r}")
        points = value.reshape(-1, value.shape[-1])
        check_points(points, dim, None, "z")
        return self.unchecked_log_prob(points.double()).to(value.dtype).reshape(value.shape[:-1])

    def unchecked_log_prob(self, z: Tensor) -> Tensor:
        """`log_prob` without checks, for float64 points ``(P, M)``: `BLOCK` pairs at a time."""
        rows = max(1, BLOCK // len(self._mean))
        log_joint = self._by_differences if self._is_sharp else self._by_squares
        return torch.cat([torch.logsumexp(log_joint(part), 1) for part in z.split(rows)])

    def _by_squares(self, z: Tensor) -> Tensor:
        """log q(z | xᵢ) − log n, ``(R, M)`` to ``(R, n)``, as one matrix product."""
        z = z - self._centre
        return torch.addmm(self._constants, torch.cat([z * z, z], 1), self._weights)

    def _by_differences(self, z: Tensor) -> Tensor:
        """The same, latent by latent."""
        log_joint = z.new_full((len(z), len(self._mean)), -math.log(len(self._mean)))
        for d in range(z.shape[1]):
            q = Normal(self._mean[:, d], self._scale[:, d], validate_args=False)
            log_joint = log_joint + q.log_prob(z[:, d, None])
        return log_joint

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws z ~ q(z) in q's dtype: a posterior i at random, then z ~ q(z | xᵢ)."""
        n, device = len(self._mean), self._mean.device
        i = torch.randint(n, torch.Size(sample_shape), device=device)
        return (self._mean[i] + self._scale[i] * torch.randn_like(self._mean[i])).to(self._dtype)


def gaussians(mean: Tensor, scale: Tensor) -> Distribution:
    """n diagonal Gaussians from μ and σ ``(n, M)``."""
    return Independent(Normal(mean, scale), 1)


def mean_and_scale(q: Any) -> tuple[Tensor, Tensor]:
    """μ and σ ``(n, M)`` of diagonal Gaussians, float64; a ValueError for anything else."""
    if not (
        isinstance(q, Independent)
        and isinstance(q.base_dist, Normal)
        and q.reinterpreted_batch_ndims == 1
        and len(q.batch_shape) == 1
    ):
        raise ValueError(
            "q must be a batch of n diagonal Gaussians, Independent(Normal(mean, scale), 1) of "
            f"shape (n, M), got {q if isinstance(q, Distribution) else type(q).__name__}"
        )
    mean, scale = q.base_dist.loc, q.base_dist.scale
    if 0 in mean.shape:
        raise ValueError(f"q must hold at least one posterior, got shape {tuple(mean.shape)}")
    mean, scale = mean.double(), scale.double()
    if values_are_checked():
        # 1/σ² must be finite too: a log-variance below −708 would make it overflow.
        good = mean.isfinite() & scale.isfinite() & scale.gt(0) & scale.pow(-2).isfinite()
        if not good.all():
            n_bad = int((~good).any(1).sum())
            raise ValueError(
                "q must have finite means and finite positive scales (did a log-variance "
                f"overflow?), got others in {n_bad} of {len(mean)} posteriors, scales from "
                f"{scale.min():.3g} to {scale.max():.3g}"
            )
        worst = (mean.abs() / scale).max().item()
        if worst > FAR:
            raise ValueError(
                f"q must have means within {FAR:.0e} scales of 0, or float64 leaves no digits of "
                f"z − μ, got {worst:.3g}"
            )
    return mean, scale
