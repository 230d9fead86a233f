"""Flows that treat each feature by itself: a stretch and a shift, and the inverse-CDF map."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.special import log_ndtr

from dgm_course.checks import as_numbers, check_count, check_points
from dgm_course.flows.bijection import Bijection


class Affine(Bijection):
    """x_i = exp(log_scale_i) z_i + shift_i, of log|det| Σ log_scale_i; it starts as the identity.

    Source: Dinh, Krueger & Bengio 2015, section 3.3, https://arxiv.org/abs/1410.8516: the diagonal
    layer next to the noise, without which NICE keeps every volume. NICE is
    ``Chain(Affine(dim), CouplingFlow(dim, law="additive"))``.

    Args:
        dim: number of features D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim = check_count(dim, "dim")
        self.log_scale = nn.Parameter(torch.zeros(dim))
        self.shift = nn.Parameter(torch.zeros(dim))

    def extra_repr(self) -> str:
        return f"{self.dim}"

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x = exp(log_scale) z + shift and Σ log_scale."""
        self.check(z, "z")
        return z * self.log_scale.exp() + self.shift, self.log_scale.sum().expand(len(z))

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z = (x − shift) exp(−log_scale) and −Σ log_scale."""
        self.check(x, "x")
        return (x - self.shift) * (-self.log_scale).exp(), -self.log_scale.sum().expand(len(x))


class MixtureCdf(Bijection):
    """x = F⁻¹(Φ(z)), F the CDF of Σ w_k N(m_k, s_k²) on the line: log|det| = log φ(z) − log p(x).

    The one flow on the line, so that z ~ N(0, 1) makes x ~ the mixture, exactly. Both CDFs are
    compared by the logarithm of their nearer tail: Φ(z) itself is 1 in float32 for z > 5.4, and in
    float64 for z > 8.3. F⁻¹ is a bisection between the least and the largest m_k + s_k z, where
    F is at most and at least Φ(z).

    Args:
        weights: w_k > 0 that sum to 1, ``(K,)``.
        means: m_k, ``(K,)``.
        scales: s_k > 0, ``(K,)``. All three are fixed buffers in float64.

    Shapes: ``forward`` and ``inverse`` map ``(N, 1)`` in float64 to ``(N, 1)``, nats ``(N,)``.

    Raises:
        ValueError: for weights, means and scales that are not as above, or a bad batch, of which
            one in float32 is.

    Omits: third derivatives; gradients with respect to the mixture.

    Example:
        >>> flow = MixtureCdf([0.5, 0.5], [-2.0, 2.0], [1.0, 1.0])
        >>> x, log_det = flow(torch.tensor([[-6.0], [6.0]], dtype=torch.float64))
        >>> x.squeeze(1)
        tensor([-7.8864,  7.8864], dtype=torch.float64)
    """

    dim = 1
    weights: Tensor
    means: Tensor
    scales: Tensor

    def __init__(
        self, weights: Sequence[float], means: Sequence[float], scales: Sequence[float]
    ) -> None:
        super().__init__()
        given = {"weights": weights, "means": means, "scales": scales}
        values = {name: as_numbers(v, name, torch.float64) for name, v in given.items()}
        shapes = [tuple(v.shape) for v in values.values()]
        if len({*shapes}) > 1 or len(shapes[0]) != 1 or not shapes[0][0]:
            raise ValueError(f"weights, means and scales must have one shape (K,), got {shapes}")
        for name, value in values.items():
            if not value.isfinite().all() or (name != "means" and (value <= 0).any()):
                what = "finite" if name == "means" else "positive and finite"
                raise ValueError(f"{name} must be {what}, got {value.tolist()}")
            self.register_buffer(name, value)
        if abs((total := self.weights.sum().item()) - 1) > 1e-6:  # of single precision
            raise ValueError(f"weights must sum to 1, got a sum of {total:.8g}")
        self.weights /= total

    def check(self, points: Tensor, name: str) -> None:
        """Raise a ValueError unless ``points`` is a finite ``(N, 1)`` in float64."""
        check_points(points, 1, torch.float64, name)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x = F⁻¹(Φ(z)) and log φ(z) − log p(x)."""
        self.check(z, "z")
        with torch.no_grad():
            side = torch.where(z < 0, 1.0, -1.0).to(z)  # the nearer tail: 1 the left, −1 the right
            edges = self.means + self.scales * z  # (N, K)
            low, high = edges.amin(1, keepdim=True), edges.amax(1, keepdim=True)
            target = log_ndtr(side * z)
            for _ in range(60):  # a bracket of width 50 is below a rounding error then
                x = (low + high) / 2
                is_short = (self._log_tail(x, side) < target) == (side > 0)
                low, high = torch.where(is_short, x, low), torch.where(is_short, high, x)
        x = attached(x, z, lambda x, z: log_normal(z) - self.log_prob(x)[:, None])  # φ(z) / p(x)
        return x, log_normal(z).squeeze(1) - self.log_prob(x)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z = Φ⁻¹(F(x)) and log p(x) − log φ(z)."""
        self.check(x, "x")
        with torch.no_grad():
            left, right = self._log_tail(x, 1), self._log_tail(x, -1)
            z = torch.where(left < right, 1.0, -1.0) * log_ndtri(torch.minimum(left, right))
        z = attached(z, x, lambda z, x: self.log_prob(x)[:, None] - log_normal(z))
        return z, self.log_prob(x) - log_normal(z).squeeze(1)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) of the mixture, ``(N, 1)`` to nats ``(N,)``: what the flow must give."""
        standard = (x - self.means) / self.scales  # (N, K)
        return torch.logsumexp((self.weights / self.scales).log() + log_normal(standard), 1)

    def _log_tail(self, x: Tensor, side: Tensor | int) -> Tensor:
        """log F(x) where side is 1, log(1 − F(x)) where it is −1: ``(N, 1)``."""
        standard = side * (x - self.means) / self.scales  # (N, K)
        return torch.logsumexp(self.weights.log() + log_ndtr(standard), 1, keepdim=True)


def attached(y: Tensor, x: Tensor, log_slope: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The constant y as a function of x with dy/dx = exp(log_slope(y, x)), and its derivative."""
    step = x - x.detach()  # 0
    slope = log_slope(y, x).exp().detach()
    # s · step has the second derivative 2 s′, the half of the sum s′.
    return y + (slope + log_slope(y + slope * step, x).exp()) / 2 * step


def log_normal(z: Tensor) -> Tensor:
    """log φ(z) = −½ z² − ½ log 2π, of any shape."""
    return -0.5 * z.square() - 0.5 * math.log(2 * math.pi)


def log_ndtri(log_p: Tensor) -> Tensor:
    """The z ≤ 0 of log Φ(z) = log_p, for log_p ≤ log ½, of any shape.

    log Φ is concave and increasing, so Newton's method cannot overshoot from below the root. There
    lies −√(−2 log 2p), because Φ(z) ≤ ½ exp(−z²/2) for z ≤ 0.
    """
    z = -(-2 * (log_p + math.log(2))).clamp_min(0).sqrt()
    for _ in range(20):
        value = log_ndtr(z)
        z = torch.minimum(z + (log_p - value) * (value - log_normal(z)).exp(), torch.zeros_like(z))
    return z
