"""Posteriors bent by flows: known where they were drawn, which is all that a bound asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, cast, final

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

from dgm_course.checks import check_count, check_instance
from dgm_course.vae.gaussian_vae import GaussianVAE
from dgm_course.vae.latent_variable_model import LatentVariableModel


class Layer(Protocol):
    """A bijection of codes that takes numbers of each point, such as `PlanarFlow`."""

    dim: int  # M

    @property
    def n_parameters(self) -> int:
        """P, how many numbers it takes for each point."""

    def transform(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Codes ``(S, N, M)`` and numbers ``(N, P)`` to codes ``(S, N, M)``, nats ``(S, N)``."""


@final
class BentPosterior:
    """z_K = g_K ∘ … ∘ g_1(μ + σ ε), ε ~ N(0, I): log q(z_K|x) is the noise's less all log-dets.

    Args:
        start: N(μ, diag σ²) of each of N points, as an encoder returns it.
        layers: g_1 to g_K; without any it is the Gaussian itself.
        parameters: the layers' numbers, one after the other, ``(N, ΣP)``.
    """

    def __init__(self, start: Distribution, layers: Sequence[Layer], parameters: Tensor) -> None:
        normal = getattr(start, "base_dist", None)
        if not isinstance(normal, Normal) or normal.loc.ndim != 2:
            raise ValueError(f"start must be a Gaussian for each point, (N, M), got {start}")
        self.mean, self.scale = normal.loc, normal.scale
        sizes = [layer.n_parameters for layer in layers]
        if parameters.shape != (len(self.mean), sum(sizes)):
            raise ValueError(
                f"parameters must have shape ({len(self.mean)}, {sum(sizes)}), those of all "
                f"layers for each point, got shape {tuple(parameters.shape)}"
            )
        self.layers, self.parameters = layers, parameters.split(sizes, 1)

    def rsample_and_log_prob(self, n_samples: int) -> tuple[Tensor, Tensor]:
        """S codes a point ``(S, N, M)``, with gradients, and log q(z|x) at them ``(S, N)``."""
        size = (check_count(n_samples, "n_samples"), *self.mean.shape)
        return self.carry(torch.randn(size, dtype=self.mean.dtype, device=self.mean.device))

    def carry(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """z_K ``(S, N, M)`` and log q(z_K|x) ``(S, N)`` of given ε ``(S, N, M)``."""
        z = torch.addcmul(self.mean, self.scale, noise)
        log_q = -0.5 * (noise.square() + math.log(2 * math.pi)).sum(-1) - self.scale.log().sum(-1)
        for layer, parameters in zip(self.layers, self.parameters, strict=True):
            z, log_det = layer.transform(z, parameters)
            log_q = log_q - log_det
        return z, log_q


class FlowPosterior(LatentVariableModel):
    """A VAE whose q(z|x) is its Gaussian, carried through layers of a flow; no inverse is called.

    With z_K the code that the Gaussian's z_0 becomes, the ELBO is
    E[log p(x, z_K) − log q₀(z_0|x) + Σ log|det ∂g_k|]. Amortised, the encoder gives each x its own
    layers: W h, h what the encoder's last layer reads, is added to the layers' own weights, which
    are so the bias of one more output of the encoder. W starts at 0. Else all x share the layers.

    Source: Rezende & Mohamed 2015, section 4 and algorithm 1, https://arxiv.org/abs/1505.05770.

    Args:
        vae: its encoder, decoder and prior are used; a `GaussianVAE` if amortised, else any model
            whose ``encode`` returns diagonal Gaussians.
        layers: one or more, from the Gaussian to the code.
        amortised: whether each x has layers of its own.

    Shapes: as for the VAE.

    Raises:
        ValueError: for no layers, layers of another dimension than that of the VAE's codes, or
            amortised ones that take no numbers.

    Example:
        >>> from dgm_course.flows import PlanarFlow
        >>> model = FlowPosterior(GaussianVAE(4, 2), PlanarFlow(2, 8))
        >>> z, log_q = model.posterior(torch.zeros(3, 4)).rsample_and_log_prob(5)
        >>> z.shape, log_q.shape
        (torch.Size([5, 3, 2]), torch.Size([5, 3]))
    """

    def __init__(self, vae: LatentVariableModel, *layers: Layer, amortised: bool = True) -> None:
        super().__init__()
        check_instance(vae, GaussianVAE if amortised else LatentVariableModel, "vae")
        for i, layer in enumerate(layers):
            if not isinstance(layer, nn.Module) or not hasattr(layer, "transform"):
                raise ValueError(
                    f"layers[{i}] must be a module with n_parameters and transform, such as "
                    f"PlanarFlow, got {type(layer).__name__}"
                )
        dims = [layer.dim for layer in layers]
        if not dims or {*dims} != {vae.z_dim}:
            raise ValueError(
                f"layers must be one or more of dim {vae.z_dim}, that of the VAE's codes and "
                f"prior, got dims {dims}"
            )
        self.vae, self.x_dim, self.z_dim = vae, vae.x_dim, vae.z_dim
        self.layers = nn.ModuleList(cast("tuple[nn.Module, ...]", layers))
        self.n_parameters = sum(layer.n_parameters for layer in layers)
        if amortised:
            if not self.n_parameters:
                raise ValueError(
                    "layers must take numbers of each x if amortised, got n_parameters = 0; an "
                    "AutoregressiveFlow takes its n_context"
                )
            last = cast(nn.Linear, cast(GaussianVAE, vae).encoder[-1])
            self.head = nn.Linear(last.in_features, self.n_parameters, bias=False)
            nn.init.zeros_(self.head.weight)
        self.amortised = amortised

    def extra_repr(self) -> str:
        return f"amortised={self.amortised}"

    def posterior(self, x: Tensor) -> BentPosterior:
        """q(z|x) of the data ``(N, D)``, to draw from."""
        if self.amortised:
            vae = cast(GaussianVAE, self.vae)
            features = vae.features(x)
            start: Distribution = vae.codes_given(features)
            parameters = self.head(features).to(features.dtype)
        else:
            start = self.vae.encode(x)
            weight = next(self.vae.parameters())
            parameters = weight.new_zeros(*start.batch_shape, self.n_parameters)
        return BentPosterior(start, cast("list[Layer]", [*self.layers]), parameters)

    @property
    def prior(self) -> Distribution:
        """The VAE's p(z)."""
        return self.vae.prior

    def encode(self, x: Tensor) -> Distribution:
        """q₀(z|x), the Gaussian that the flow starts from."""
        return self.vae.encode(x)

    def decode(self, z: Tensor) -> Distribution:
        """The VAE's p(x|z)."""
        return self.vae.decode(z)

    def mean(self, z: Tensor) -> Tensor:
        """The VAE's E[x|z]."""
        return self.vae.mean(z)

    def as_numbers(self, x: Tensor) -> Tensor:
        """The data ``(N, D)`` in the weights' dtype, or a ValueError if they are not data."""
        return self.vae.as_numbers(x)
