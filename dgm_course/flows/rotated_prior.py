"""A map that turns a factorised prior into itself, and mixes all of its coordinates."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal
from torch.special import ndtr, ndtri

from dgm_course.checks import as_numbers, check_points, values_are_checked
from dgm_course.flows.bijection import Bijection, Chain, Inverse
from dgm_course.flows.elementwise import log_normal

TOLERANCE = 1e-6  # of AᵀA − I: what single precision leaves of an orthogonal matrix
NO_ENTRY = 1e-12  # below it an entry of A counts as 0


class NormalScores(Bijection):
    """u_i = Φ⁻¹(F_i(z_i)), F_i the CDF of z_i: of log|det| Σ_i log p(z_i) − log φ(u_i).

    It makes z ~ Π_i p(z_i) into u ~ N(0, I). Of a normal prior it is (z − mean) / std. Of another
    the CDF stands between, which in float64 is 1 from eight standard deviations on, and has lost
    half of the digits of 1 − F at six.

    Source: Locatello et al. 2019, proof of theorem 1, https://arxiv.org/abs/1811.12359: their g,
    then their h.

    Args:
        prior: D independent coordinates, ``Independent(p, 1)`` of event shape ``(D,)`` in float64,
            with ``cdf`` and ``icdf``.

    Shapes: ``forward`` and ``inverse`` map ``(N, D)`` in float64 to ``(N, D)``, nats ``(N,)``.

    Raises:
        ValueError: for another prior, also one in float32, or a bad batch: one in float32, or one
            with points where the CDF is 0 or 1, such as those outside the prior's support.

    Example:
        >>> unit = torch.distributions.Uniform(torch.zeros(2).double(), 1.0)
        >>> scores = NormalScores(Independent(unit, 1))
        >>> scores(torch.tensor([[0.5, 0.975]]).double())[0]
        tensor([[0.0000, 1.9600]], dtype=torch.float64)
    """

    def __init__(self, prior: Independent[Any]) -> None:
        super().__init__()
        if not isinstance(prior, Independent) or len(prior.event_shape) != 1 or prior.batch_shape:
            raise ValueError(
                "prior must be factorised, an Independent(p, 1) of batch shape () and event shape "
                f"(D,), got {prior if isinstance(prior, Distribution) else type(prior).__name__}"
            )
        self.prior, self.marginals = prior, prior.base_dist
        for name in self.marginals.arg_constraints:
            if (dtype := getattr(self.marginals, name).dtype) != torch.float64:
                raise ValueError(f"prior must be in torch.float64, got {name} in {dtype}")
        (self.dim,) = prior.event_shape
        middle = torch.full((self.dim,), 0.5, dtype=torch.float64)
        try:
            self.marginals.cdf(self.marginals.icdf(middle))
        except NotImplementedError as error:
            raise ValueError(f"prior must have cdf and icdf, got {prior}") from error

    def extra_repr(self) -> str:
        return f"{type(self.marginals).__name__}, dim={self.dim}"

    def check(self, points: Tensor, name: str) -> None:
        """Raise a ValueError unless ``points`` is a finite ``(N, D)`` in float64."""
        check_points(points, self.dim, torch.float64, name)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """u = Φ⁻¹(F(z)) and Σ log p(z_i) − log φ(u_i)."""
        self.check(z, "z")
        if isinstance(self.marginals, Normal):
            u = (z - self.marginals.loc) / self.marginals.scale
        else:
            u = ndtri(self._inside(self.marginals.cdf, z, "z"))
        return u, self._log_det(z, u)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z = F⁻¹(Φ(u)) and Σ log φ(u_i) − log p(z_i), u = x."""
        self.check(x, "x")
        if isinstance(self.marginals, Normal):
            z = self.marginals.loc + self.marginals.scale * x
        else:
            z = self.marginals.icdf(self._inside(ndtr, x, "x"))
        return z, -self._log_det(z, x)

    def _log_det(self, z: Tensor, u: Tensor) -> Tensor:
        return self.prior.log_prob(z) - log_normal(u).sum(1)

    def _inside(self, cdf: Callable[[Tensor], Tensor], points: Tensor, name: str) -> Tensor:
        """The CDF at the points, if it is neither 0 nor 1 at any of them."""
        try:
            p = cdf(points)
        except ValueError:  # outside the support, in torch's own words
            p = torch.full_like(points, math.nan)
        if values_are_checked() and not (inside := (p > 0) & (p < 1)).all():
            n_bad = int((~inside).any(1).sum())
            raise ValueError(
                f"{name} must lie where the CDF is above 0 and below 1 in float64, got "
                f"{n_bad} of {len(points)} points elsewhere, values from {points.min():.4g} to "
                f"{points.max():.4g}"
            )
        return p


class Rotation(Bijection):
    """x = A z for an orthogonal A, fixed: of log|det| 0. It may mirror, too.

    Args:
        matrix: A ``(D, D)``, of AᵀA = I to within 10⁻⁶. The orthogonal matrix that is nearest to
            it is taken, in float64.

    Raises:
        ValueError: for a matrix of another shape, or not orthogonal (how far).
    """

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        a = as_numbers(matrix, "matrix", torch.float64)
        if a.ndim != 2 or a.shape[0] != a.shape[1] or not a.numel():
            raise ValueError(f"matrix must have shape (D, D), got {tuple(a.shape)}")
        away = (a.T @ a - torch.eye(len(a)).to(a)).abs().max().item()
        if not away <= TOLERANCE:  # NaN, too
            raise ValueError(
                f"matrix must be orthogonal, AᵀA = I to within {TOLERANCE:g}, got entries that are "
                f"off by up to {away:.3g}"
            )
        left, _, right = torch.linalg.svd(a)
        self.dim = len(a)
        self.register_buffer("matrix", left @ right)

    def extra_repr(self) -> str:
        return f"{self.dim}"

    def check(self, points: Tensor, name: str) -> None:
        """Raise a ValueError unless ``points`` is a finite ``(N, D)`` in the matrix's dtype."""
        check_points(points, self.dim, self.matrix.dtype, name)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x = A z and zeros."""
        self.check(z, "z")
        return z @ self.matrix.T, z.new_zeros(len(z))

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z = Aᵀ x and zeros."""
        self.check(x, "x")
        return x @ self.matrix, x.new_zeros(len(x))


def rotate_prior(prior: Independent[Any], matrix: Tensor) -> Bijection:
    """f = g⁻¹ ∘ h⁻¹ ∘ A ∘ h ∘ g: f(z) has the distribution of z, and each f_i moves with every z_j.

    g makes the factorised prior uniform, h makes it N(0, I), which A turns into itself, and the
    way back is the same. So p(z) = p(f(z)) |det ∂f/∂z| at every point, and a decoder d is as good
    as d ∘ f⁻¹ on codes f(z): every datum has the same likelihood under both, and no likelihood
    can tell which of the two codes is the right one. ∂f_i/∂z_j ≠ 0 wherever A_ij ≠ 0.

    Source: Locatello et al. 2019, theorem 1, https://arxiv.org/abs/1811.12359.

    Args:
        prior: as for `NormalScores`.
        matrix: A ``(D, D)``, as for `Rotation`.

    Shapes: a `Bijection` of ``(N, D)`` in float64.

    Raises:
        ValueError: for such a prior or matrix as these two refuse, or of unlike D.

    Warns:
        UserWarning: for a matrix with entries 0: the coordinates that they belong to are not mixed.

    Omits: priors whose coordinates are of different families.

    Example:
        >>> prior = Independent(Normal(torch.zeros(2).double(), 1.0), 1)
        >>> f = rotate_prior(prior, torch.tensor([[0.6, -0.8], [0.8, 0.6]]))
        >>> f(torch.tensor([[1.0, 0.0]], dtype=torch.float64))[0]
        tensor([[0.6000, 0.8000]], dtype=torch.float64)
    """
    scores, rotation = NormalScores(prior), Rotation(matrix)
    if scores.dim != rotation.dim:
        raise ValueError(
            f"matrix must have shape ({scores.dim}, {scores.dim}), as the prior has event shape "
            f"({scores.dim},), got {tuple(rotation.matrix.shape)}"
        )
    if n_zero := int((rotation.matrix.abs() < NO_ENTRY).sum()):
        warnings.warn(
            f"{n_zero} of {rotation.dim**2} entries of matrix are 0: f mixes no coordinates there, "
            "and the theorem asks for all of them",
            stacklevel=2,
        )
    return Chain(scores, rotation, Inverse(scores))
