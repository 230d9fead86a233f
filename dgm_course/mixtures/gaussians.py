"""K Gaussians of one of four covariance types: their log-densities, and the moments of data.

A Gaussian's log-density is linear in the features [x xᵀ, x, 1], so that K of them at N points are
one matrix product, and so are the sums that an M-step needs. That loses digits where a component is
narrow beside the data's extent (`Gaussians.are_sharp`); there the differences x − μ_k are taken.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
SHARP = 1e8  # (extent / width)²: beyond it the expanded square loses more than half its digits


class Moments(NamedTuple):
    """Counts N_k ``(K,)``, means ``(K, D)`` and covariances about them, of weighted points.

    Covariances have the shape of their type: "full" ``(K, D, D)``, "tied" ``(D, D)``, averaged
    over the components, "diag" ``(K, D)``, "spherical" ``(K,)``.
    """

    counts: Tensor
    means: Tensor
    covariances: Tensor


class Expectation(NamedTuple):
    """What an E-step leaves for the M-step and the bound: sums over all N points.

    ``log_normaliser`` is Σₙ log Σₖ exp(ρₙₖ), ``entropy`` is −Σₙₖ rₙₖ log rₙₖ, both in nats.
    """

    log_normaliser: float
    entropy: float
    moments: Moments


class Gaussians:
    """N(x | μ_k, Λ_k⁻¹), k = 1 … K, with Λ_k = U_k U_kᵀ, U_k upper triangular.

    Args:
        means: ``(K, D)``.
        cholesky: U, of the shape of its covariance type; its square root for "diag", "spherical".
        covariance_type: "full", "tied", "diag" or "spherical".
    """

    def __init__(self, means: Tensor, cholesky: Tensor, covariance_type: str) -> None:
        self.means = means
        self.cholesky = cholesky
        self.covariance_type = covariance_type

    @property
    def per_component(self) -> Tensor:
        """U for each component: ``(K, D, D)``, or ``(K, D)`` where Λ is diagonal."""
        shape = self.means.shape
        if self.covariance_type in ("full", "tied"):
            return self.cholesky.expand(*shape, shape[1])
        return self.cholesky.reshape(len(self.cholesky), -1).expand(shape)

    def log_scale(self) -> Tensor:
        """½ log|Λ_k| − ½ D log 2π, the log-density at the mean, ``(K,)`` in nats."""
        u = self.per_component
        diagonal = u.diagonal(dim1=1, dim2=2) if u.ndim == 3 else u
        return diagonal.log().sum(1) - 0.5 * self.means.shape[1] * math.log(2 * math.pi)

    def precisions(self) -> Tensor:
        """Λ_k, ``(K, D, D)``, or its diagonal ``(K, D)``."""
        u = self.per_component
        return u @ u.mT if u.ndim == 3 else u.square()

    def are_sharp(self, extent: Tensor) -> bool:
        """Whether a standard deviation is below extent / √SHARP in some feature, ``(D,)``."""
        precisions = self.precisions()
        diagonal = precisions.diagonal(dim1=1, dim2=2) if precisions.ndim == 3 else precisions
        return bool((diagonal * extent.square() > SHARP).any())

    def coefficients(self) -> Tensor:
        """The ``(K, P)`` matrix C with log N(x | μ_k, Λ_k⁻¹) = C features(x)."""
        precisions = self.precisions()
        if precisions.ndim == 3:
            linear = (precisions @ self.means[:, :, None])[:, :, 0]
            rows, columns = torch.triu_indices(*precisions.shape[1:])
            # x_i x_j with i < j stands once among the features, twice in the square.
            second = precisions[:, rows, columns] * torch.where(rows == columns, 0.5, 1.0)
        else:
            linear = precisions * self.means
            second = 0.5 * precisions
            if self.covariance_type == "spherical":
                second = second[:, :1]
        constant = self.log_scale() - 0.5 * (linear * self.means).sum(1)
        return torch.cat([-second, linear, constant[:, None]], 1)

    def log_density(self, x: Tensor) -> Tensor:
        """log N(x | μ_k, Λ_k⁻¹) by differences, ``(D, N)`` to ``(K, N)`` in nats: never sharp."""
        u, scale = self.per_component, self.log_scale()
        out = x.new_empty(len(u), x.shape[1])
        for k, mean in enumerate(self.means):
            difference = x - mean[:, None]  # (D, N)
            white = u[k].T @ difference if u.ndim == 3 else u[k][:, None] * difference
            out[k] = scale[k] - 0.5 * white.square().sum(0)
        return out

    def expected_log_density(self, moments: Moments) -> Tensor:
        """The mean of log N(x | μ_k, Λ_k⁻¹) over points of these moments, ``(K,)`` in nats.

        For "tied" moments only the sum over components, weighted by the counts, is meant.
        """
        precisions, difference = self.precisions(), moments.means - self.means
        covariances = moments.covariances
        if precisions.ndim == 3:
            square = torch.einsum("kij,ki,kj->k", precisions, difference, difference)
            square = square + (precisions * covariances).sum((1, 2))
        else:
            spread = covariances.reshape(len(covariances), -1)  # (K, D), or (K, 1) if spherical
            square = (precisions * (spread + difference.square())).sum(1)
        return self.log_scale() - 0.5 * square


def features(x: Tensor, covariance_type: str, out: Tensor) -> Tensor:
    """The P features of each point into ``out``: second-order ones, x, 1; ``(D, N)`` to ``(P, N)``.

    Second-order: the D (D + 1) / 2 products for "full" and "tied", x² for "diag", ‖x‖² for
    "spherical".
    """
    d = len(x)
    if covariance_type == "diag":
        torch.mul(x, x, out=out[:d])
    elif covariance_type == "spherical":
        torch.sum(x * x, 0, out=out[0])
    else:
        row = 0
        for i in range(d):  # a row of the upper triangle at a time: the order of triu_indices
            torch.mul(x[i:], x[i], out=out[row : row + d - i])
            row += d - i
    out[-d - 1 : -1] = x
    out[-1] = 1
    return out


def n_features_of(n_dims: int, covariance_type: str) -> int:
    """P, the number of features of a point in D dimensions."""
    pairs = n_dims * (n_dims + 1) // 2
    second = {"full": pairs, "tied": pairs, "diag": n_dims, "spherical": 1}[covariance_type]
    return second + n_dims + 1


def expectation(x: Tensor, gaussians: Gaussians, log_weights: Tensor) -> Expectation:
    """E-step and the M-step's sums, ρₙₖ = log_weights_k + log N(xₙ | μ_k, Λ_k⁻¹), in chunks.

    Args:
        x: centred points, ``(D, N)``.
        gaussians: the components, of means in the same coordinates.
        log_weights: ``(K,)``.
    """
    least, most = x.aminmax(dim=1)
    extent = torch.maximum(most, -least)
    found = None if gaussians.are_sharp(extent) else _by_features(x, gaussians, log_weights)
    if found is None or _are_sharp(found[1], gaussians.covariance_type, extent):
        scores = gaussians.log_density(x) + log_weights[:, None]  # (K, N)
        log_normaliser = torch.logsumexp(scores, 0)
        total = log_normaliser.sum().item()
        weights = scores.sub_(log_normaliser).exp_()
        found = total, weighted_moments(x, weights, gaussians.covariance_type)
    total, moments = found
    # Σ r log r = Σ r ρ − Σ log-normaliser, and Σ r ρ needs the moments only.
    mean_scores = gaussians.expected_log_density(moments) + log_weights
    used = log_weights.isfinite()  # a component of weight 0 takes no part
    entropy = total - float((moments.counts[used] * mean_scores[used]).sum())
    return Expectation(total, entropy, moments)


def _by_features(x: Tensor, gaussians: Gaussians, log_weights: Tensor) -> tuple[float, Moments]:
    """Σ log-normalisers and the moments, by two matrix products a chunk."""
    (d, n), kind = x.shape, gaussians.covariance_type
    coefficients = gaussians.coefficients()  # (K, P)
    coefficients[:, -1] += log_weights
    k, p = coefficients.shape
    size = min(n, max(1024, min(8192, 2**18 // p)))  # a chunk stays in the cache
    phi, scores = x.new_empty(p, size), x.new_empty(k, size)
    sums, total = x.new_zeros(k, p), 0.0
    for chunk in x.split(size, 1):
        phi, scores = phi[:, : chunk.shape[1]], scores[:, : chunk.shape[1]]  # the last is shorter
        torch.mm(coefficients, features(chunk, kind, phi), out=scores)
        top = scores.amax(0)
        weights = scores.sub_(top).exp_()
        normaliser = weights.sum(0)
        total += (top + normaliser.log()).sum().item()
        sums.addmm_(weights.div_(normaliser), phi.T)
    return total, _moments_of_sums(sums, d, kind)


def _moments_of_sums(sums: Tensor, d: int, covariance_type: str) -> Moments:
    """Moments from the weighted sums of the features, ``(K, P)``."""
    counts = sums[:, -1] + 10 * torch.finfo(sums.dtype).eps  # as scikit-learn: none is 0
    means = sums[:, -d - 1 : -1] / counts[:, None]
    second = sums[:, : -d - 1]
    if covariance_type == "diag":
        return Moments(counts, means, second / counts[:, None] - means.square())
    if covariance_type == "spherical":
        return Moments(counts, means, (second[:, 0] / counts - means.square().sum(1)) / d)
    rows, columns = torch.triu_indices(d, d)
    square = sums.new_empty(len(sums), d, d)
    square[:, rows, columns] = second
    square[:, columns, rows] = second
    if covariance_type == "tied":
        within = square.sum(0) - (means.T * counts) @ means
        return Moments(counts, means, within / counts.sum())
    outer = means[:, :, None] * means[:, None, :]
    return Moments(counts, means, square / counts[:, None, None] - outer)


def weighted_moments(x: Tensor, weights: Tensor, covariance_type: str) -> Moments:
    """Moments of ``x`` ``(D, N)`` under weights ``(K, N)``, by differences from the means."""
    counts = weights.sum(1) + 10 * torch.finfo(x.dtype).eps
    means = weights @ x.T / counts[:, None]  # (K, D)
    full = covariance_type in ("full", "tied")
    covariances = []
    for weight, mean, count in zip(weights, means, counts, strict=True):
        difference = x - mean[:, None]
        weighted = weight * difference
        covariances.append(
            (weighted @ difference.T if full else (weighted * difference).sum(1)) / count
        )
    stack = torch.stack(covariances)
    if covariance_type == "tied":
        stack = torch.einsum("k,kij->ij", counts, stack) / counts.sum()
    elif covariance_type == "spherical":
        stack = stack.mean(1)
    return Moments(counts, means, stack)


def _are_sharp(moments: Moments, covariance_type: str, extent: Tensor) -> bool:
    """Whether the covariances are too small beside ``extent`` to come from sums of squares."""
    c = moments.covariances
    full = covariance_type in ("full", "tied")
    variances = c.diagonal(dim1=-2, dim2=-1) if full else c.reshape(len(c), -1)
    return bool((variances * SHARP < extent.square()).any())


def cholesky_of_precisions(precisions: Tensor, covariance_type: str) -> Tensor:
    """U with U Uᵀ = Λ from Λ: rows and columns reversed, Cholesky, and back."""
    if covariance_type in ("full", "tied"):
        return torch.linalg.cholesky(precisions.flip(-2, -1)).flip(-2, -1)
    return precisions.sqrt()


def cholesky_of_covariances(
    covariances: Tensor, covariance_type: str, floor: Tensor
) -> tuple[Tensor, Tensor]:
    """U with U Uᵀ = Σ⁻¹ from Σ, and which components have a Σ that is singular in float64.

    Args:
        covariances: of the shape of their type.
        covariance_type: "full", "tied", "diag" or "spherical".
        floor: a variance that rounding alone leaves, for each feature, ``(D,)``.

    Shapes: U as ``covariances``; singular ``(K,)``, or ``(1,)`` for "tied".
    """
    if covariance_type in ("full", "tied"):
        stack = covariances.reshape(-1, *covariances.shape[-2:])
        lower, info = torch.linalg.cholesky_ex(stack)
        variances = stack.diagonal(dim1=1, dim2=2)
        # l_ii² / Σ_ii is what is left of feature i's variance given the features before it.
        left = lower.diagonal(dim1=1, dim2=2).square()
        tiny = 100 * len(floor) * torch.finfo(stack.dtype).eps
        singular = (info > 0) | ((variances <= floor) | (left <= tiny * variances)).any(1)
        if singular.any():
            return torch.full_like(covariances, math.nan), singular
        eye = torch.eye(len(floor), dtype=stack.dtype)
        inverse = torch.linalg.solve_triangular(lower, eye.expand_as(lower), upper=False)
        return inverse.mT.reshape(covariances.shape), singular
    limit = floor if covariance_type == "diag" else floor.mean()
    singular = (covariances <= limit).reshape(len(covariances), -1).any(1)
    return covariances.clamp_min(torch.finfo(covariances.dtype).tiny).rsqrt(), singular
