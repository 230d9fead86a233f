"""Layers of codes, each the prior of the one below."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple, cast, final, get_args

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, constraints, kl_divergence

from dgm_course.checks import check_count, check_tensor
from dgm_course.vae.gaussian_vae import GaussianVAE, Likelihood, one_hidden_layer, scale_of
from dgm_course.vae.latent_variable_model import (
    LatentVariableModel,
    SampledElboTerms,
    StandardNormal,
)

PosteriorKind = Literal["chain", "independent"]


class HierarchicalTerms(NamedTuple):
    """The ELBO of each example: reconstruction minus one KL term for each layer of codes, nats."""

    reconstruction: Tensor  # (N,)
    kl: dict[str, Tensor]  # of "z1", "z2", …, (N,) each


class ConditionalGaussian(nn.Module):
    """N(μ(c), diag σ²(c)) over codes, by one hidden layer of ReLUs; linear, of one σ, without.

    Args:
        n_given: numbers of c.
        dim: numbers of a code.
        hidden: units of the hidden layer, or 0.
    """

    def __init__(self, n_given: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.network = one_hidden_layer(n_given, hidden, dim if hidden == 0 else 2 * dim)
        self.log_variance = nn.Parameter(torch.zeros(dim)) if hidden == 0 else None

    def forward(self, given: Tensor) -> Independent[Normal]:
        """``(..., n_given)`` to batch shape ``(...)`` and event shape ``(dim,)``."""
        out = self.network(given).to(given.dtype)
        if self.log_variance is None:
            mean, log_variance = out.chunk(2, -1)
        else:
            mean, log_variance = out, self.log_variance.expand_as(out)
        return Independent(Normal(mean, scale_of(log_variance, "code")), 1)


@final
class CodeChain(Distribution):
    """A product over layers z_1, …, z_L, each layer given the one that was drawn before it.

    Args:
        first: the distribution of the layer that is drawn first.
        steps: what makes of codes ``(..., M)`` the distribution of the layer drawn next.
        sizes: the layers' dimensions M_1, …, M_L, in which order a code holds them.
        downwards: whether z_L is drawn first, and not z_1.
    """

    arg_constraints: dict[str, Any] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        first: Distribution,
        steps: Sequence[nn.Module],
        sizes: Sequence[int],
        *,
        downwards: bool,
    ) -> None:
        self.first, self.steps, self.sizes = first, steps, list(sizes)
        self.order = -1 if downwards else 1
        super().__init__(first.batch_shape, torch.Size([sum(sizes)]), validate_args=False)

    def layers(self, value: Tensor) -> list[Distribution]:
        """The distribution of each of z_1, …, z_L, given the layer of ``value`` that it reads."""
        codes = value.split(self.sizes, -1)[:: self.order]
        drawn = [self.first, *(step(z) for step, z in zip(self.steps, codes[:-1], strict=True))]
        return drawn[:: self.order]

    def log_prob(self, value: Tensor) -> Tensor:
        """Nats, a sum over layers: ``(..., M_1 + … + M_L)`` to ``(...)``."""
        codes = value.split(self.sizes, -1)
        return sum(
            (p.log_prob(z) for p, z in zip(self.layers(value), codes, strict=True)),
            start=value.new_zeros(()),
        )

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Codes ``(*sample_shape, *batch_shape, M_1 + … + M_L)``, layer after layer."""
        codes = [self.first.rsample(torch.Size(sample_shape))]
        for step in self.steps:
            codes.append(step(codes[-1]).rsample())
        return torch.cat(codes[:: self.order], -1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """The same without gradients."""
        with torch.no_grad():
            return self.rsample(sample_shape)


class HierarchicalVAE(LatentVariableModel):
    """p(x|z_1) p(z_1|z_2) … p(z_(L−1)|z_L) p(z_L): a code (z_1, …, z_L) of L Gaussian layers.

    The posterior is a "chain", q(z_1|x) q(z_2|z_1) …, in which z_2 follows the z_1 that was drawn;
    or "independent", Π q(z_l|x), in which nothing does. Of a linear model the best chain is the
    exact posterior, where its layers' covariances are diagonal; the best independent one misses
    by `mean_field_gap`.

    Source: "chain": Burda, Grosse & Salakhutdinov 2016, equations 1 and 2,
    https://arxiv.org/abs/1509.00519; "independent" is the usual mean-field form.

    Args:
        x_dim: number of features D.
        z_dims: dimensions M_1, …, M_L of the layers, from the data upwards.
        hidden: units of the one hidden layer (ReLU) of each conditional; 0 makes means linear and
            the layers' variances single learned numbers.
        posterior: "chain" or "independent".
        likelihood: "gaussian" or "bernoulli", as for `GaussianVAE`.
        noise_scale: σ of a Gaussian decoder, fixed.

    Shapes: x ``(N, D)``; z ``(..., M)``, M = M_1 + … + M_L, of which the decoder reads z_1 alone.

    Raises:
        ValueError: for arguments out of range, or bad data, as for `GaussianVAE`.

    Omits: a decoder or prior that reads several layers; ladders, which share the two directions.

    Example:
        >>> model = HierarchicalVAE(64, (8, 4), likelihood="bernoulli")
        >>> reconstruction, kl = model.terms(torch.zeros(3, 64))
        >>> {name: nats.shape for name, nats in kl.items()}
        {'z1': torch.Size([3]), 'z2': torch.Size([3])}
    """

    def __init__(
        self,
        x_dim: int,
        z_dims: Sequence[int],
        hidden: int = 64,
        *,
        posterior: PosteriorKind = "chain",
        likelihood: Likelihood = "gaussian",
        noise_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if not isinstance(z_dims, Sequence) or not z_dims:
            raise ValueError(f"z_dims must be one dimension or more, got {z_dims!r}")
        self.z_dims = tuple(check_count(m, f"z_dims[{i}]") for i, m in enumerate(z_dims))
        if posterior not in get_args(PosteriorKind):
            raise ValueError(f"posterior must be 'chain' or 'independent', got {posterior!r}")
        if likelihood == "categorical":
            raise ValueError("likelihood must be 'gaussian' or 'bernoulli', got 'categorical'")
        # The lowest layer, q(z_1|x) and p(x|z_1).
        self.vae = GaussianVAE(
            x_dim, self.z_dims[0], hidden, likelihood=likelihood, noise_scale=noise_scale
        )
        self.x_dim, self.z_dim = self.vae.x_dim, sum(self.z_dims)
        self.posterior_kind = posterior
        self.up, self.down = nn.ModuleList(), nn.ModuleList()
        for below, above in pairwise(self.z_dims):
            read = below if posterior == "chain" else self.x_dim
            self.up.append(ConditionalGaussian(read, above, hidden))  # q(z_(l+1)|·)
            self.down.append(ConditionalGaussian(above, below, hidden))  # p(z_l|z_(l+1))

    @property
    def prior(self) -> CodeChain:
        """p(z_L) Π p(z_l|z_(l+1)), p(z_L) = N(0, I)."""
        top = StandardNormal(next(self.parameters()).new_zeros(self.z_dims[-1]))
        return CodeChain(top, [*self.down][::-1], self.z_dims, downwards=True)

    def encode(self, x: Tensor) -> Distribution:
        """q(z|x), with a density at every z: data ``(N, D)`` to ``(N,)`` and event ``(M,)``."""
        if self.posterior_kind == "chain":
            return CodeChain(self.vae.encode(x), [*self.up], self.z_dims, downwards=False)
        layers = [q.base_dist for q in self._independent(x)]
        mean, scale = (
            torch.cat([getattr(q, name) for q in layers], 1) for name in ("loc", "scale")
        )
        return Independent(Normal(mean, scale), 1)

    def _independent(self, x: Tensor) -> list[Independent[Normal]]:
        """The layers' q(z_l|x)."""
        lowest = self.vae.encode(x)
        x = self.as_numbers(x)
        return [lowest, *(up(x) for up in self.up)]

    def code_means(self, x: Tensor, n_samples: int = 100) -> Tensor:
        """E[z_l|·] of each layer, given S draws of the layer below it: ``(S, N, M)``, as `activity`
        takes them. Only above z_1 of a chain do they differ from draw to draw.
        """
        q = self.encode(x)
        z = q.rsample((check_count(n_samples, "n_samples"),))
        if not isinstance(q, CodeChain):
            return q.mean.expand_as(z)
        return torch.cat([layer.mean.expand(len(z), -1, -1) for layer in q.layers(z)], -1)

    def terms(self, x: Tensor, n_samples: int = 1) -> HierarchicalTerms:
        """E log p(x|z_1), and of each layer E[log q(z_l|·) − log p(z_l|z_(l+1))], over S codes.

        Layers that are independent have their KL in closed form, given the layer above. In a
        chain z_l is drawn before the z_(l+1) that its prior reads: the term is then an average
        over the codes drawn, and below the top it may be negative. All add up to log w, so that at
        the exact posterior their sum with the reconstruction is log p(x), whatever is drawn.
        """
        n_samples = check_count(n_samples, "n_samples")
        kl: list[Tensor]
        if self.posterior_kind == "chain":
            q = cast(CodeChain, self.encode(x))
            z = q.rsample((n_samples,))  # (S, N, M)
            layers = zip(q.layers(z), self.prior.layers(z), z.split(self.z_dims, -1), strict=True)
            kl = [q_l.log_prob(z_l) - p_l.log_prob(z_l) for q_l, p_l, z_l in layers]  # (S, N)
        else:
            qs = self._independent(x)
            z = torch.cat([q_l.rsample((n_samples,)) for q_l in qs], -1)
            pairs = zip(qs, self.prior.layers(z), strict=True)
            kl = [kl_divergence(q_l, p_l).expand(n_samples, -1) for q_l, p_l in pairs]
        names = (f"z{i}" for i in range(1, len(kl) + 1))
        means = (nats.mean(0) for nats in kl)
        return HierarchicalTerms(
            self.log_likelihood(x, z).mean(0), dict(zip(names, means, strict=True))
        )

    def elbo(self, x: Tensor, n_samples: int = 1) -> SampledElboTerms:
        """The terms of the ELBO, ``(N,)`` each, with the KL of all layers in one sum."""
        reconstruction, kl = self.terms(x, n_samples)
        return SampledElboTerms(reconstruction, torch.stack([*kl.values()]).sum(0))

    def decode(self, z: Tensor) -> Distribution:
        """p(x|z_1): codes ``(..., M)`` of all layers to a distribution over data."""
        return self.vae.decode(self._lowest(z))

    def mean(self, z: Tensor) -> Tensor:
        """E[x|z_1]: codes ``(N, M)`` to data without the decoder's noise, ``(N, D)``."""
        return self.vae.mean(self._lowest(z))

    def as_numbers(self, x: Tensor) -> Tensor:
        """The data ``(N, D)`` in the weights' dtype, or a ValueError if they are not data."""
        return self.vae.as_numbers(x)

    def _lowest(self, z: Tensor) -> Tensor:
        check_tensor(z, "z")
        if z.shape[-1:] != (self.z_dim,):
            raise ValueError(
                f"z must have shape (..., {self.z_dim}), the codes of all layers, got shape "
                f"{tuple(z.shape)}"
            )
        return z[..., : self.z_dims[0]]
