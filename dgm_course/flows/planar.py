"""Planar flows: each layer bends space along one direction, as one neuron sees it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from dgm_course.checks import check_count
from dgm_course.flows.bijection import (
    Bijection,
    check_transform,
    log_det_of_tanh_layer,
)


class PlanarFlow(Bijection):
    """x = g_L ∘ … ∘ g_1(z), each layer g(z) = z + û tanh(wᵀz + b), with log|det| = log|1 + h′ wᵀû|.

    A layer is invertible when wᵀû > −1. The free parameter u is moved along w until it is:
    û = u + (m(wᵀu) − wᵀu) w / ‖w‖², with m(a) = softplus(a) − 1, so that 1 + wᵀû = softplus(wᵀu).
    At w = 0 the layer is the shift z + u tanh(b), of log-det 0.

    Source: Rezende & Mohamed 2015, equations 10 to 12 and appendix A.1,
    https://arxiv.org/abs/1505.05770. The inverse is ours: a planar layer moves a point along û
    only, so that what is left is one monotone scalar equation (see `solve_tanh_equation`).

    Args:
        dim: number of features D.
        n_layers: number of layers L; their parameters are stacked in u, w ``(L, D)``, b ``(L,)``.

    Shapes: ``forward`` and ``inverse`` map ``(N, D)`` to ``(N, D)`` and log-det ``(N,)`` in nats.

    Raises:
        ValueError: for a batch of the wrong shape or dtype, an empty batch, NaN or inf.

    Omits: other non-linearities than tanh.
    """

    def __init__(self, dim: int, n_layers: int = 1) -> None:
        super().__init__()
        self.dim = dim = check_count(dim, "dim")
        n_layers = check_count(n_layers, "n_layers")
        self.w = nn.Parameter(torch.randn(n_layers, dim))
        # wᵀu = ln(e − 1) makes û = 0: every layer starts near the identity, whatever w is.
        identity = math.log(math.e - 1) * self.w.detach() / self.w.detach().square().sum(1, True)
        self.u = nn.Parameter(identity + 0.1 * torch.randn(n_layers, dim))
        self.b = nn.Parameter(0.1 * torch.randn(n_layers))

    @property
    def n_parameters(self) -> int:
        """L (2D + 1): how many numbers `transform` takes for each point."""
        return len(self.b) * (2 * self.dim + 1)

    def transform(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """g(z) and log|det| with other layers for each point, all of whose û are found at once.

        What a point brings is added to u, w and b: zeros give ``forward``.

        Source: Rezende & Mohamed 2015, section 4 (amortised), where all comes from the point.

        Args:
            z: S codes of each of N points, ``(S, N, D)``.
            parameters: of each layer D numbers for u, D for w, 1 for b: ``(N, n_parameters)``.

        Returns:
            x ``(S, N, D)`` and nats ``(S, N)``.

        Raises:
            ValueError: for shapes or a dtype that do not fit, NaN or inf.
        """
        check_transform(self, z, parameters, self.w.dtype)
        sizes = [self.dim, self.dim, 1]
        du, dw, db = parameters.unflatten(1, (len(self.b), -1)).split(sizes, 2)  # (N, L, ·)
        ws = self.w + dw
        u_hat, slope = invertible(self.u + du, ws)  # (N, L, D), (N, L)
        bs, hs = self.b + db[..., 0], []
        for u, w, b in zip(u_hat.unbind(1), ws.unbind(1), bs.unbind(1), strict=True):
            h = torch.tanh((w * z).sum(-1) + b)  # (S, N)
            z = torch.addcmul(z, u, h[..., None])  # (S, N, D)
            hs.append(h)
        return z, log_det_of_tanh_layer(torch.stack(hs), slope.T[:, None]).sum(0)

    def invertible_parameters(self) -> tuple[Tensor, Tensor]:
        """û ``(L, D)``, and 1 + wᵀû = softplus(wᵀu) ``(L,)``, never computed by subtraction."""
        return invertible(self.u, self.w)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x = g(z) and Σ log|1 + h′(wᵀz + b) wᵀû|, each term at its layer's input."""
        states, hs, slope = self._walk(z)
        return states[-1], log_det_of_tanh_layer(torch.stack(hs), slope[:, None]).sum(0)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z = f(x) and its log-det: the layers undone from the last to the first."""
        states, hs, slope = self._walk_back(x)
        return states[0], -log_det_of_tanh_layer(torch.stack(hs), slope[:, None]).sum(0)

    def path(self, z: Tensor) -> Tensor:
        """z and the points after each layer, z_0 = z to z_L = g(z): ``(L + 1, N, D)``."""
        return torch.stack(self._walk(z)[0])

    def inverse_path(self, x: Tensor) -> Tensor:
        """The same points found from their end, x = z_L back to z_0 = f(x), in `path`'s order."""
        return torch.stack(self._walk_back(x)[0])

    def _walk(self, z: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """The L + 1 points ``(N, D)`` of the path, the layers' h ``(N,)``, the slopes ``(L,)``."""
        self.check(z, "z")
        u_hat, slope = self.invertible_parameters()
        states, hs = [z], []
        for u, w, b in zip(u_hat, self.w, self.b, strict=True):
            h = torch.tanh(torch.addmv(b, states[-1], w))  # (N,)
            states.append(torch.addr(states[-1], h, u))  # (N, D): z + h ûᵀ
            hs.append(h)
        return states, hs, slope

    def _walk_back(self, x: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """What `_walk` returns, for the path that ends in x."""
        self.check(x, "x")
        u_hat, slope = self.invertible_parameters()
        states, hs = [x], []
        for i in reversed(range(len(slope))):
            # wᵀx = wᵀz + wᵀû tanh(wᵀz + b): one scalar equation for t = wᵀz + b.
            r = torch.addmv(self.b[i], states[-1], self.w[i])  # (N,)
            h = torch.tanh(TanhRoot.apply(r, slope[i]))
            states.append(torch.addr(states[-1], h, u_hat[i], alpha=-1))  # (N, D): x − h ûᵀ
            hs.append(h)
        return states[::-1], hs[::-1], slope


def invertible(u: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """û ``(..., D)`` of u and w, ``(..., D)`` each, and 1 + wᵀû = softplus(wᵀu), ``(...)``."""
    norm2 = w.square().sum(-1)  # ‖w‖²; not ‖w‖, or wᵀû would not be m(wᵀu)
    # Gradients divide by ‖w‖⁴: below this they overflow, and the layer counts as w = 0.
    zero = norm2 < torch.finfo(norm2.dtype).tiny ** 0.5
    wu = (w * u).sum(-1)
    slope = torch.where(zero, 1.0, softplus(wu).clamp_min(torch.finfo(wu.dtype).tiny))
    # m(a) − a = softplus(a) − 1 − a = softplus(−a) − 1, without cancellation for large a.
    shift = torch.where(zero, 0.0, (softplus(-wu) - 1) / norm2.masked_fill(zero, 1.0))
    return u + shift[..., None] * w, slope


def solve_tanh_equation(r: Tensor, slope: Tensor) -> Tensor:
    """The t that solves F(t) = t + (slope − 1) tanh(t) − r = 0, ``(N,)``, for slope > 0.

    F is odd but for r, and increasing. For r ≥ 0 it is concave when slope > 1 and convex when
    slope < 1, so Newton's method, started on the side of the root from which it cannot overshoot,
    runs into it: the starting point is the safeguard. That side is below for slope > 1 and above
    for slope < 1, and there both r / slope and r − (slope − 1) lie, since tanh t ≤ min(t, 1).

    Its steps are not to be differentiated: `TanhRoot` has the root's derivatives.
    """
    target, c = r.abs(), slope - 1
    bounds = target / slope, target - c
    t = torch.where(slope > 1, torch.maximum(*bounds), torch.minimum(*bounds))
    tolerance = 4 * torch.finfo(r.dtype).eps * (1 + target)
    for _ in range(100):
        h = torch.tanh(t)
        residual = t + c * h - target
        if (residual.abs() <= tolerance).all():
            break
        t = t - residual / _derivative(h, slope)
    t = torch.copysign(t, r)
    h = torch.tanh(t)
    return t - (t + c * h - r) / _derivative(h, slope)


class TanhRoot(torch.autograd.Function):
    """`solve_tanh_equation` with its derivatives, ∂t = (∂r − tanh(t) ∂slope) / F′(t).

    These derivatives are written in t itself, which has derivatives of its own: so the second ones
    are right, too, and all the others.
    """

    generate_vmap_rule = True  # for torch.func's Jacobians

    @staticmethod
    def forward(r: Tensor, slope: Tensor) -> Tensor:
        return solve_tanh_equation(r, slope)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output, inputs[1])
        ctx.save_for_forward(output, inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        t, slope = ctx.saved_tensors
        h = torch.tanh(t)
        of_r = gradient / _derivative(h, slope)
        return of_r, -(of_r * h).sum_to_size(slope.shape)

    @staticmethod
    def jvp(ctx: Any, of_r: Tensor, of_slope: Tensor) -> Tensor:
        t, slope = ctx.saved_tensors
        h = torch.tanh(t)
        return (of_r - h * of_slope) / _derivative(h, slope)


def _derivative(h: Tensor, slope: Tensor) -> Tensor:
    """F′(t) = 1 + (slope − 1) (1 − h²), h = tanh t, written as `log_det_of_tanh_layer` has it."""
    return h * h + (1 - h * h) * slope
