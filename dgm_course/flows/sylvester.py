"""Sylvester flows: planar flows with more than one neuron a layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from dgm_course.checks import check_count
from dgm_course.flows.bijection import (
    Bijection,
    check_transform,
    log_det_of_tanh_layer,
)


class SylvesterFlow(Bijection):
    """x = g_L ∘ … ∘ g_1(z), each layer g(z) = z + A tanh(B z + b), A ``(D, M)``, B ``(M, D)``.

    With A = Q R and B = R̃ Qᵀ, the M columns of Q orthonormal and R, R̃ upper triangular,
    Sylvester's identity det(I_D + A diag(h′) B) = det(I_M + diag(h′) B A) leaves a triangular
    matrix: log|det| = Σᵢ log(1 + h′ᵢ rᵢᵢ r̃ᵢᵢ), in O(M). The layer is invertible when
    rᵢᵢ r̃ᵢᵢ > −1, which holds by construction: 1 + rᵢᵢ r̃ᵢᵢ = softplus(ρᵢ), r̃ᵢᵢ = exp(δᵢ).

    Source: van den Berg et al. 2018, equations 8 to 13 and theorem 2,
    https://arxiv.org/abs/1803.05649; softplus for their tanh on the diagonals is ours.

    Args:
        dim: number of features D.
        n_hidden: number of neurons a layer, 1 ≤ M ≤ D.
        n_layers: number of layers L.

    Shapes: ``forward`` maps ``(N, D)`` to ``(N, D)`` and log-det ``(N,)`` in nats.

    Raises:
        ValueError: for n_hidden outside 1…D, or a bad batch, as for `PlanarFlow`.
        NotImplementedError: from ``inverse``.

    Omits: the inverse (M nested scalar equations a layer), so ``FlowModel.log_prob``; samples
    with their log-density are there. Householder and permutation variants of Q.
    """

    def __init__(self, dim: int, n_hidden: int, n_layers: int = 1) -> None:
        super().__init__()
        self.dim = dim = check_count(dim, "dim")
        n_hidden = check_count(n_hidden, "n_hidden", most=dim)
        n_layers = check_count(n_layers, "n_layers")
        self.q = nn.Parameter(torch.randn(n_layers, dim, n_hidden))
        self.r = nn.Parameter(0.1 * torch.randn(n_layers, n_hidden, n_hidden))
        self.r_tilde = nn.Parameter(0.1 * torch.randn(n_layers, n_hidden, n_hidden))
        self.b = nn.Parameter(0.1 * torch.randn(n_layers, n_hidden))

    @property
    def n_parameters(self) -> int:
        """L M (D + 2M + 1): how many numbers `transform` takes for each point."""
        return self.q.numel() + 2 * self.r.numel() + self.b.numel()

    def transform(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """g(z) and log|det| with other layers for each point.

        What a point brings is added to the weights: zeros give ``forward``.

        Args:
            z: S codes of each of N points, ``(S, N, D)``.
            parameters: of each layer what is added to q, r, r̃ and b: ``(N, n_parameters)``.

        Returns:
            x ``(S, N, D)`` and nats ``(S, N)``.

        Raises:
            ValueError: for shapes or a dtype that do not fit, NaN or inf.
        """
        check_transform(self, z, parameters, self.q.dtype)
        n_layers, dim, m = self.q.shape
        parts = parameters.unflatten(1, (n_layers, -1)).split([dim * m, m * m, m * m, m], 2)
        dq, dr, dr_tilde = (part.unflatten(2, (-1, m)) for part in parts[:3])  # (N, L, ·, M)
        *maps, slopes = _matrices(self.q + dq, self.r + dr, self.r_tilde + dr_tilde)
        biases = (self.b + parts[3])[..., None]  # (N, L, M, 1)
        x, hs = z.permute(1, 2, 0), []  # (N, D, S)
        for a, b, bias in zip(*(stack.unbind(1) for stack in (*maps, biases)), strict=True):
            h = torch.tanh(torch.baddbmm(bias, b, x))  # (N, M, S)
            x = torch.baddbmm(x, a, h)
            hs.append(h)
        log_det = log_det_of_tanh_layer(torch.stack(hs, 1), slopes[..., None])  # (N, L, M, S)
        return x.permute(2, 0, 1), log_det.sum((1, 2)).T

    def matrices(self) -> tuple[Tensor, Tensor, Tensor]:
        """A ``(L, D, M)``, B ``(L, M, D)`` and the slopes 1 + rᵢᵢ r̃ᵢᵢ ``(L, M)``."""
        return _matrices(self.q, self.r, self.r_tilde)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x = g(z) and Σ log(1 + h′ᵢ rᵢᵢ r̃ᵢᵢ) over neurons and layers."""
        self.check(z, "z")
        a, b, slope = self.matrices()
        hs = []
        for i in range(len(a)):
            h = torch.tanh(z @ b[i].T + self.b[i])  # (N, M)
            z = z + h @ a[i].T  # (N, D)
            hs.append(h)
        log_det = log_det_of_tanh_layer(torch.stack(hs), slope[:, None])  # (L, N, M)
        return z, log_det.sum((0, 2))

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Omitted: always raises NotImplementedError."""
        raise NotImplementedError(
            "SylvesterFlow omits its inverse, and with it log_prob at a given x: train it by "
            "reverse_kl, which needs samples only, or take PlanarFlow, whose inverse is exact"
        )


def _matrices(q: Tensor, r: Tensor, r_tilde: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A ``(..., D, M)``, B ``(..., M, D)`` and the slopes ``(..., M)`` of the free parameters."""
    q, _ = torch.linalg.qr(q)  # (..., D, M), orthonormal columns
    slope = softplus(r.diagonal(dim1=-2, dim2=-1) + math.log(math.e - 1))  # 1 at r = 0
    slope = slope.clamp_min(torch.finfo(slope.dtype).tiny)
    scale = r_tilde.diagonal(dim1=-2, dim2=-1).exp()
    upper = r.triu(1) + torch.diag_embed((slope - 1) / scale)
    upper_tilde = r_tilde.triu(1) + torch.diag_embed(scale)
    return q @ upper, upper_tilde @ q.mT, slope
