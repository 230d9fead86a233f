"""Critics on the line whose best slope is known, with and without a penalty on that slope."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily, Normal

from dgm_course.checks import check_finite, check_floating, check_number

Line = Normal | MixtureSameFamily  # a Gaussian on the line, or a mixture of them
Branch = Literal["right", "wrong"]
Parts = tuple[Tensor, Tensor, Tensor]  # weights, means and scales, each (K,), float64


class LineCritic(NamedTuple):
    """A critic f on the line, at the points that were asked for, and what it tells."""

    slope: Tensor  # f′(x), (G,), float64
    f: Tensor  # f(x), (G,): the slope's integral by the trapezoid rule, 0 at x[0]
    value: float  # E_p f − E_q f over the whole line


def optimal_critic(p: Line, q: Line, x: Tensor) -> LineCritic:
    """f′ = sign ΔF, ΔF = F_q − F_p: of all f with |f′| ≤ 1 the one with the largest E_p f − E_q f.

    E_p f − E_q f = ∫ ΔF f′ dx, by parts. So the slope is 1 wherever samples lie too far to the
    left, −1 where too far to the right, and the value is W₁ = ∫ |ΔF| dx.

    Source: Villani 2009, remark 6.5, https://doi.org/10.1007/978-3-540-71050-9.

    Args:
        p: density of the data: a `Normal`, or a `MixtureSameFamily` of Normals.
        q: density of the samples.
        x: increasing points, at which slope and f are given; the value does not depend on them.

    Shapes: ``(G,)``, G ≥ 2.

    Raises:
        ValueError: for other distributions, or points that do not increase.

    Example:
        >>> p, q = Normal(2.0, 1.0), Normal(0.0, 1.0)
        >>> critic = optimal_critic(p, q, torch.linspace(-1, 3, 5))
        >>> critic.f.tolist(), round(critic.value, 6)
        ([0.0, 1.0, 2.0, 3.0, 4.0], 2.0)
    """
    a, b = _parts(p, "p"), _parts(q, "q")
    return _critic(a, b, x, lambda x: _gap(a, b, x).sign(), _breaks(a, b))


def penalised_critic(
    p: Line, q: Line, x: Tensor, weight: float, *, branch: Branch = "right"
) -> LineCritic:
    """f′ = sign(ΔF) (1 + |ΔF| / 2λρ): what E_p f − E_q f − λ E_ρ (|f′| − 1)² is greatest for.

    ρ is the density of random interpolates, `interpolates_density`. The value E_p f − E_q f is
    W₁ + (1/2λ) ∫ ΔF²/ρ dx ≥ W₁ (1 + W₁/2λ): more than the distance, and not by a constant factor.
    The one-sided penalty, max(0, |f′| − 1)², has the same optimum, and no other.

    The two-sided one has a second local optimum, its wrong branch: f′ = sign(ΔF) (|ΔF|/2λρ − 1)
    wherever |ΔF|/2λρ < 1. To leave it a slope must pass 0, where the penalty is greatest. In more
    than one dimension a gradient can turn instead.

    Source: derived here, pointwise, from Gulrajani et al. 2017, equation 3,
    https://arxiv.org/abs/1704.00028; one-sided: Petzka, Fischer & Lukovnikov 2018,
    https://arxiv.org/abs/1709.08894.

    Args:
        p: as `optimal_critic`; q, x: the same.
        weight: the penalty's λ > 0.
        branch: "right" or "wrong"; where the wrong one does not exist, the slope is the right one.

    Shapes and errors: as `optimal_critic`; for λ ≤ 0, and as `interpolates_density`. Far out, where
    ΔF and ρ underflow, the slope is given as 0.

    Example:
        >>> p, q, x = Normal(2.0, 1.0), Normal(0.0, 1.0), torch.linspace(-1, 3, 5)
        >>> [round(penalised_critic(p, q, x, weight).value, 2) for weight in (0.1, 1.0, 10.0)]
        [23.03, 4.1, 2.21]
    """
    check_number(weight, "weight")
    if branch not in get_args(Branch):
        raise ValueError(f"branch must be one of {get_args(Branch)}, got {branch!r}")
    a, b = _parts(p, "p"), _parts(q, "q")

    def excess(x: Tensor) -> Tensor:
        rho = _density(a, b, x)
        return torch.where(rho > 0, _gap(a, b, x).abs() / (2 * weight * rho), 0)

    def slope(x: Tensor) -> Tensor:
        more = excess(x)
        is_wrong = (more < 1) & (branch == "wrong")
        return _gap(a, b, x).sign() * torch.where(is_wrong, more - 1, more + 1)

    breaks = _breaks(a, b)
    if branch == "wrong":
        breaks = _split(breaks, lambda x: excess(x) - 1)
    return _critic(a, b, x, slope, breaks)


def interpolates_density(p: Line, q: Line, x: Tensor) -> Tensor:
    """ρ(x), the density of ε X + (1 − ε) Y, X ~ p, Y ~ q, ε uniform on [0, 1], all independent.

    Of two Gaussians it is ∫₀¹ N(x; εμ + (1 − ε)ν, ε²σ² + (1 − ε)²τ²) dε, by Gauss and Legendre's
    rule on panels; of mixtures the weighted sum over pairs.

    Args:
        p: as `optimal_critic`; q: the same.
        x: points, in any order.

    Shapes: ``(G,)`` to ``(G,)``, float64.

    Raises:
        ValueError: for other distributions, or parts whose scale is below a thousandth of their
            distance or of one another.

    Example:
        >>> p, q = Normal(1.0, 0.01), Normal(0.0, 0.01)
        >>> interpolates_density(p, q, torch.tensor([-1.0, 0.5]))  # E 1/|X − Y|, not 1
        tensor([0.0000, 1.0002], dtype=torch.float64)
    """
    a, b = _parts(p, "p"), _parts(q, "q")
    check_floating(x, "x")
    if x.ndim != 1:
        raise ValueError(f"x must have shape (G,), got shape {tuple(x.shape)}")
    return _density(a, b, x.detach().double().cpu())


def _density(a: Parts, b: Parts, x: Tensor) -> Tensor:
    rho = torch.zeros_like(x)
    gauss = lambda z: z.square_().mul_(-0.5).exp_()  # noqa: E731
    for w, mu, sigma in zip(*a, strict=True):
        for v, nu, tau in zip(*b, strict=True):
            apart = (mu - nu).abs() + sigma + tau
            ratio = (apart * torch.hypot(sigma, tau) / (sigma * tau)).item()  # by the least scale
            if ratio > 3000:
                raise ValueError(
                    "p and q must not be narrower than a thousandth of their distance, got the "
                    f"means {mu.item():g} and {nu.item():g} with scales {sigma.item():g} and "
                    f"{tau.item():g}"
                )
            eps, part = _panels(torch.linspace(0, 1, 3 + 3 * math.ceil(ratio), dtype=x.dtype))
            mean = eps * mu + (1 - eps) * nu
            scale = torch.hypot(eps * sigma, (1 - eps) * tau)
            part = w * v * part / (scale * math.sqrt(2 * math.pi))
            some = max(1, 2**18 // len(eps))  # at a time: all at once may need gigabytes
            rho += torch.cat([gauss((xs[:, None] - mean) / scale) @ part for xs in x.split(some)])
    return rho


def _parts(density: Line, name: str) -> Parts:
    normal: Distribution = density
    weights = torch.ones(1)
    if isinstance(density, MixtureSameFamily):
        normal, weights = density.component_distribution, density.mixture_distribution.probs
    if not isinstance(normal, Normal) or normal.batch_shape not in ((), (1,), weights.shape):
        raise ValueError(
            f"{name} must be a Normal on the line, or a MixtureSameFamily of such, got {density}"
        )
    kept = (weights, normal.mean, normal.stddev)
    w, mean, scale = (part.detach().double().cpu().reshape(-1) for part in kept)
    return w, mean, scale


def _gap(a: Parts, b: Parts, x: Tensor) -> Tensor:
    """F_b − F_a, to a relative error also in both tails."""

    def tail(parts: Parts, side: int) -> Tensor:
        w, mean, scale = parts
        # not `ndtr`, which is (1 + erf) / 2 and 0 from 9 deviations on
        return torch.erfc(-side * (x[:, None] - mean) / (scale * math.sqrt(2))) @ w / 2

    below = tail(b, 1) - tail(a, 1)
    return torch.where(tail(a, 1) + tail(b, 1) < 1, below, tail(a, -1) - tail(b, -1))


def _critic(
    a: Parts, b: Parts, x: Tensor, slope: Callable[[Tensor], Tensor], breaks: Tensor
) -> LineCritic:
    check_floating(x, "x")
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(f"x must have shape (G,), G >= 2, got shape {tuple(x.shape)}")
    check_finite(x[:, None], "x", "points")
    x = x.detach().double().cpu()
    if not (x.diff() > 0).all():
        raise ValueError(f"x must increase, got {int((x.diff() <= 0).sum())} steps that do not")
    at_x = slope(x)
    f = torch.cat([x.new_zeros(1), torch.cumulative_trapezoid(at_x, x)])
    nodes, part = _panels(breaks)
    return LineCritic(at_x, f, (part * _gap(a, b, nodes) * slope(nodes)).sum().item())


def _breaks(a: Parts, b: Parts) -> Tensor:
    """Ends of panels on which densities are smooth and ΔF has one sign; 1e-22 lies beyond them."""
    steps = torch.arange(-10, 11, dtype=torch.float64)
    all_parts = (parts[i] for parts in (a, b) for i in (1, 2))
    mean, scale, other_mean, other_scale = all_parts
    means, scales = torch.cat([mean, other_mean]), torch.cat([scale, other_scale])
    breaks = (means[:, None] + scales[:, None] * steps).flatten().unique()
    return _split(breaks, lambda x: _gap(a, b, x))


def _split(breaks: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """The breaks and the function's roots, each by bisection between nodes of two signs."""
    nodes, _ = _panels(breaks)
    sign = function(nodes).sign()
    at = (sign[:-1] * sign[1:] < 0).nonzero().squeeze(1)
    low, high, of_low = nodes[at], nodes[at + 1], sign[at]
    for _ in range(50):
        middle = (low + high) / 2
        is_low = function(middle).sign() == of_low
        low, high = torch.where(is_low, middle, low), torch.where(is_low, high, middle)
    return torch.cat([breaks, low]).unique()


@cache
def _legendre(n: int = 16) -> tuple[Tensor, Tensor]:
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return torch.as_tensor(nodes), torch.as_tensor(weights)


def _panels(breaks: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss and Legendre's rule on each panel, in one row."""
    nodes, weights = _legendre()
    half = breaks.diff()[:, None] / 2
    return (breaks[:-1, None] + half * (1 + nodes)).flatten(), (half * weights).flatten()
