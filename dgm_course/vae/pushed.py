"""A prior that is a flow is a posterior that is one: the same VAE, told in the flow's noise."""

from __future__ import annotations

from typing import Protocol, cast, final

from torch import Tensor
from torch.distributions import Distribution

from dgm_course.vae.latent_variable_model import FlowPrior, LatentVariableModel, Posterior


class Invertible(Protocol):
    """z = g(ε) and ε = f(z), each with its own log|det|, such as a `Bijection`."""

    def __call__(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """g: ε ``(N, M)`` to z ``(N, M)`` and log|det ∂g/∂ε| ``(N,)``."""

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """f: z ``(N, M)`` to ε ``(N, M)`` and log|det ∂f/∂z| ``(N,)``."""


@final
class PushedPosterior:
    """ε = f(z), z ~ q(z|x): log q(ε|x) = log q(z|x) − log|det ∂f/∂z|.

    Args:
        posterior: q(z|x).
        bijection: f is its inverse.
    """

    def __init__(self, posterior: Posterior, bijection: Invertible) -> None:
        self.posterior, self.bijection = posterior, bijection

    def rsample_and_log_prob(self, n_samples: int) -> tuple[Tensor, Tensor]:
        """S codes ε a point ``(S, N, M)``, with gradients, and log q(ε|x) at them ``(S, N)``."""
        z, log_q = self.posterior.rsample_and_log_prob(n_samples)
        noise, log_det = self.bijection.inverse(z.flatten(0, 1))
        return noise.view_as(z), log_q - log_det.view_as(log_q)


class PushedVAE(LatentVariableModel):
    """q(ε|x) = q(z|x) carried through f, p(x|ε) = p(x | z = g(ε)), and ε from the flow's base.

    Nothing but the name of the code has changed. With p(z) = p(f(z)) |det ∂f/∂z|, every weight is
    the same number: p(x|z) p(z) / q(z|x) = p(x|g(ε)) p(ε) / q(ε|x), for one and the same factor,
    |det ∂f/∂z|, stands above and below. So does the bound. If f is autoregressive, the prior is an
    autoregressive flow and this q an inverse autoregressive one: a posterior that is no Gaussian.

    Source: Chen et al. 2017 (VLAE), section 3.2, https://arxiv.org/abs/1611.02731.

    Args:
        vae: any model whose prior is a flow; its weights and the flow's are used.

    Shapes: as for the VAE.

    Raises:
        ValueError: for a VAE with another prior.

    Example:
        >>> import torch
        >>> from dgm_course.flows import AutoregressiveFlow, DiagonalGaussian, FlowModel
        >>> from dgm_course.vae import GaussianVAE
        >>> flow = FlowModel(DiagonalGaussian(2), AutoregressiveFlow(2, 1))
        >>> vae, x = GaussianVAE(4, 2, prior=flow), torch.zeros(1, 4)
        >>> bounds = [(torch.manual_seed(0), m.elbo(x).elbo)[1] for m in (vae, PushedVAE(vae))]
        >>> torch.allclose(*bounds)
        True
    """

    def __init__(self, vae: LatentVariableModel) -> None:
        super().__init__()
        prior = vae.prior if isinstance(vae, LatentVariableModel) else None
        if not isinstance(prior, FlowPrior) or not hasattr(prior.flow, "bijection"):
            kind = type(prior or vae).__name__
            raise ValueError(f"vae must have a flow as its prior (base, bijection), got {kind}")
        self.vae, self.x_dim, self.z_dim = vae, vae.x_dim, vae.z_dim

    @property
    def flow(self) -> FlowPrior:
        return cast(FlowPrior, self.vae.prior)

    @property
    def bijection(self) -> Invertible:
        """g, from noise ε to codes z."""
        return cast(Invertible, self.flow.flow.bijection)  # type: ignore[attr-defined]

    @property
    def prior(self) -> Distribution:
        """p(ε), the flow's base."""
        return self.flow.flow.base

    def posterior(self, x: Tensor) -> PushedPosterior:
        """q(ε|x) of the data ``(N, D)``, to draw from."""
        return PushedPosterior(self.vae.posterior(x), self.bijection)

    def encode(self, x: Tensor) -> Distribution:
        """The VAE's q(z|x), which f carries to the noise."""
        return self.vae.encode(x)

    def codes(self, noise: Tensor) -> Tensor:
        """z = g(ε), ``(..., M)``."""
        return self.bijection(noise.reshape(-1, self.z_dim))[0].view_as(noise)

    def decode(self, z: Tensor) -> Distribution:
        """p(x|ε), of noise in the place of a code."""
        return self.vae.decode(self.codes(z))

    def mean(self, z: Tensor) -> Tensor:
        """The VAE's E[x | g(ε)]."""
        return self.vae.mean(self.codes(z))

    def as_numbers(self, x: Tensor) -> Tensor:
        """The data ``(N, D)`` in the weights' dtype, or a ValueError if they are not data."""
        return self.vae.as_numbers(x)
