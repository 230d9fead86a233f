"""A decoder that also looks at the features before: powerful enough to do without the latent."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal, constraints

from dgm_course.checks import check_count, check_instance
from dgm_course.vae.gaussian_vae import GaussianVAE
from dgm_course.vae.latent_variable_model import LatentVariableModel


class AutoregressiveVAE(LatentVariableModel):
    """p(x|z) = ∏_d p(x_d | x_<d, z), where A x is added to what the VAE's decoder says of x_d.

    A is strictly lower triangular, and zero beyond ``window`` features back: a Gaussian's mean
    becomes μ_d(z) + Σ_j A_dj x_j, a pixel's logit likewise. With two Gaussian features and
    window = 1 this is p(x₁|z) p(x₂|x₁, z), and any Gaussian is one such p(x) without z. With
    window = 0 it is the VAE itself. A starts at 0.

    Source: the argument of Gulrajani et al. 2017 (PixelVAE), https://arxiv.org/abs/1611.05013,
    and of Chen et al. 2017 (VLAE), equation 7, https://arxiv.org/abs/1611.02731.

    Args:
        vae: a `GaussianVAE` with a Gaussian or Bernoulli decoder: its encoder and decoder are used.
        window: how many features back the decoder sees, 0 ≤ window < D.

    Shapes: as for `GaussianVAE`.

    Omits: categorical levels; weights of A that depend on z; two-dimensional windows.
    """

    mask: Tensor

    def __init__(self, vae: GaussianVAE, window: int) -> None:
        super().__init__()
        check_instance(vae, GaussianVAE, "vae")
        if vae.likelihood == "categorical":
            raise ValueError("vae must have a Gaussian or Bernoulli decoder, got 'categorical'")
        window = check_count(window, "window", 0, most=vae.x_dim - 1)
        self.vae, self.window = vae, window
        self.x_dim, self.z_dim = vae.x_dim, vae.z_dim
        back = torch.arange(vae.x_dim)[:, None] - torch.arange(vae.x_dim)  # d − j
        self.register_buffer("mask", (back >= 1) & (back <= window))
        self.context = nn.Parameter(torch.zeros(vae.x_dim, vae.x_dim))

    @property
    def prior(self) -> Distribution:
        """The VAE's p(z)."""
        return self.vae.prior

    def encode(self, x: Tensor) -> Independent[Normal]:
        """The VAE's q(z|x)."""
        return self.vae.encode(x)

    def decode(self, z: Tensor) -> Distribution:
        """p(x|z): codes ``(..., M)`` to batch shape ``(...)`` and event shape ``(D,)``."""
        weights = self.context * self.mask  # (D, D)
        return LinearAutoregression(self.vae.decode(z), weights)

    def mean(self, z: Tensor) -> Tensor:
        """E[x|z] of a Gaussian decoder, ``(N, M)`` to ``(N, D)``; a Bernoulli's has no formula."""
        return self.decode(z).mean

    def as_numbers(self, x: Tensor) -> Tensor:
        """The data ``(N, D)`` in the weights' dtype, or a ValueError if they are not data."""
        return self.vae.as_numbers(x)


class LinearAutoregression(Distribution):
    """∏_d p(x_d | x_<d), each the base's with A x added to its mean, or to its logit.

    Args:
        base: ``Independent(Normal, 1)`` or ``Independent(Bernoulli, 1)`` of event shape ``(D,)``.
        weights: A ``(D, D)``, strictly lower triangular.
    """

    arg_constraints: dict[str, Any] = {}
    support = constraints.independent(constraints.real, 1)

    def __init__(self, base: Distribution, weights: Tensor) -> None:
        self.base, self.weights = base, weights
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Σ_d log p(x_d | x_<d) in nats, all at once, for x is known: ``(..., D)`` to ``(...)``."""
        return self._given(value @ self.weights.T).log_prob(value)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Feature by feature: D passes."""
        x = torch.zeros(self._extended_shape(torch.Size(sample_shape)), dtype=self.weights.dtype)
        for d in range(self.event_shape[0]):
            shift = torch.zeros_like(x)
            shift[..., d] = x @ self.weights[d]
            x[..., d] = self._given(shift).sample()[..., d]
        return x

    @property
    def mean(self) -> Tensor:
        """(I − A)⁻¹ μ of a Gaussian."""
        if isinstance(self._normal_or_bernoulli, Bernoulli):
            raise NotImplementedError("the mean of autoregressive binary features has no formula")
        identity = torch.eye(len(self.weights), dtype=self.weights.dtype)
        return torch.linalg.solve_triangular(
            identity - self.weights, self.base.mean[..., None], upper=False
        )[..., 0]

    @property
    def _normal_or_bernoulli(self) -> Normal | Bernoulli:
        return self.base.base_dist  # type: ignore[attr-defined]

    def _given(self, shift: Tensor) -> Distribution:
        p = self._normal_or_bernoulli
        if isinstance(p, Normal):
            return Independent(Normal(p.loc + shift, p.scale.expand_as(p.loc + shift)), 1)
        return Independent(Bernoulli(logits=p.logits + shift, validate_args=False), 1)
