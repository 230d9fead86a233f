"""What every model with latents shares: a posterior, a prior, and the ELBO of the two."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Protocol, final

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, constraints, kl_divergence

from dgm_course.checks import check_count, check_tensor


class ElboTerms(NamedTuple):
    """The ELBO of each example, E_q log p(x|z) − KL(q(z|x) ‖ p(z)), as its two terms in nats."""

    reconstruction: Tensor  # (N,)
    kl: Tensor  # (N,)

    @property
    def elbo(self) -> Tensor:
        """reconstruction − kl, ``(N,)``: at most log p(x), in expectation over the codes drawn."""
        return self.reconstruction - self.kl

    @property
    def exact_kl(self) -> bool:
        """Whether the KL term is in closed form, and not an average over the codes drawn."""
        return True


class SampledElboTerms(ElboTerms):
    """The two terms, both averages over the same codes."""

    @property
    def exact_kl(self) -> bool:
        return False


def kl_per_dimension(q: Distribution) -> Tensor:
    """½ (μ² + σ² − 1 − ln σ²): KL(q(zⱼ|x) ‖ N(0, 1)) of each code and latent, in nats.

    Source: Kingma & Welling 2014, appendix B, https://arxiv.org/abs/1312.6114.

    Shapes: q of batch shape ``(N,)`` and event shape ``(M,)``, as ``encode`` returns it, to
    ``(N, M)``; its sum over M is KL(q(z|x) ‖ N(0, I)).
    """
    normal = getattr(q, "base_dist", None)
    if not isinstance(normal, Normal):
        raise ValueError(f"q must be an Independent(Normal, 1), got {q}")
    return 0.5 * (normal.loc.square() + normal.scale.square() - 1) - normal.scale.log()


# --- posteriors -------------------------------------------------------------------------------


class Posterior(Protocol):
    """q(z|x) for the N points of a batch: what every objective asks of it, and no inverse."""

    def rsample_and_log_prob(self, n_samples: int) -> tuple[Tensor, Tensor]:
        """S codes a point ``(S, N, M)``, with gradients, and log q(z|x) at them ``(S, N)``."""


@final
class ExplicitPosterior:
    """A posterior whose density is known at every z, not only where it was drawn.

    Args:
        q: a distribution with ``rsample``, of batch shape ``(N,)`` and event shape ``(M,)``.
    """

    def __init__(self, q: Distribution) -> None:
        self.q = q

    def rsample_and_log_prob(self, n_samples: int) -> tuple[Tensor, Tensor]:
        """S codes a point ``(S, N, M)``, with gradients, and log q(z|x) at them ``(S, N)``."""
        z = self.q.rsample((check_count(n_samples, "n_samples"),))
        return z, self.q.log_prob(z)


def draw_codes(posterior: Posterior, n_samples: int, z_dim: int) -> tuple[Tensor, Tensor]:
    """z ``(S, N, M)`` and log q(z|x) ``(S, N)``; a ValueError for any other shape."""
    z, log_q = posterior.rsample_and_log_prob(n_samples)
    if z.ndim != 3 or (len(z), z.shape[2]) != (n_samples, z_dim) or log_q.shape != z.shape[:2]:
        raise ValueError(
            f"posterior must draw codes ({n_samples}, N, {z_dim}), of the prior's dimension, with "
            f"log q(z|x) ({n_samples}, N), got {tuple(z.shape)} and {tuple(log_q.shape)}"
        )
    return z, log_q


# --- priors -----------------------------------------------------------------------------------


class Flow(Protocol):
    """A density that is a model of its own, such as `FlowModel`."""

    @property
    def base(self) -> Distribution:
        """The distribution that it transforms."""

    def log_prob(self, x: Tensor) -> Tensor:
        """``(N, M)`` to nats ``(N,)``."""

    def sample(self, n: int) -> Tensor:
        """n draws ``(n, M)``."""


@final
class StandardNormal(Independent):  # type: ignore[type-arg]
    """N(0, I) of M latents, of event shape ``(M,)``: the prior against which a KL is shortest.

    Args:
        zero: zeros ``(M,)`` in the dtype and on the device of the codes.
    """

    def __init__(self, zero: Tensor) -> None:
        super().__init__(Normal(zero, zero + 1), 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """−½ ‖z‖² − M/2 ln 2π in nats, ``(..., M)`` to ``(...)``, in few steps."""
        return -0.5 * (value.square().sum(-1) + self.event_shape[0] * math.log(2 * math.pi))


@final
class FlowPrior(Distribution):
    """A flow as a distribution over codes, of event shape ``(M,)``.

    Args:
        flow: its weights stay its own.

    Omits: ``rsample``.
    """

    arg_constraints: dict[str, Any] = {}
    support = constraints.real_vector

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        super().__init__(event_shape=flow.base.event_shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(z) in nats, ``(..., M)`` to ``(...,)``."""
        return self.flow.log_prob(value.reshape(-1, value.shape[-1])).reshape(value.shape[:-1])

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws ``(*sample_shape, M)`` without gradients."""
        shape = torch.Size(sample_shape)
        return self.flow.sample(shape.numel()).reshape(shape + self.event_shape)


def check_codes(z: Tensor, z_dim: int, dtype: torch.dtype) -> None:
    """Raise a ValueError unless z holds codes ``(..., N, M)`` of that dtype."""
    check_tensor(z, "z")
    if z.ndim < 2 or z.shape[-1] != z_dim or z.dtype != dtype:
        raise ValueError(
            f"z must have shape (..., N, {z_dim}) and dtype {dtype}, got shape {tuple(z.shape)} "
            f"and {z.dtype}"
        )


def check_prior(prior: Any, z_dim: int) -> None:
    """Raise a ValueError unless prior is a distribution, or a flow, over codes ``(M,)``."""
    density = prior if isinstance(prior, Distribution) else getattr(prior, "base", None)
    if not isinstance(density, Distribution):
        raise ValueError(
            "prior must be a Distribution or a flow (base, log_prob, sample), got "
            f"{type(prior).__name__}"
        )
    shapes = tuple(density.batch_shape), tuple(density.event_shape)
    if shapes != ((), (z_dim,)):
        raise ValueError(
            f"prior must have batch shape () and event shape ({z_dim},), that of a code, got "
            f"{shapes[0]} and {shapes[1]}"
        )


def as_distribution(prior: Distribution | Flow) -> Distribution:
    """The prior that a model was given, as a distribution over codes."""
    return prior if isinstance(prior, Distribution) else FlowPrior(prior)


def exact_kl(q: Distribution, prior: Distribution) -> Tensor | None:
    """KL(q(z|x) ‖ p(z)) ``(N,)`` in closed form, or None where torch.distributions has none."""
    if q.event_shape != prior.event_shape:  # of which one could be broadcast to the other
        raise ValueError(
            f"posterior must have event shape {tuple(prior.event_shape)}, that of the prior, got "
            f"{tuple(q.event_shape)}"
        )
    if isinstance(prior, StandardNormal) and isinstance(getattr(q, "base_dist", None), Normal):
        return kl_per_dimension(q).sum(1)
    try:
        return kl_divergence(q, prior)
    except NotImplementedError:
        return None


# --- the model --------------------------------------------------------------------------------


class LatentVariableModel(nn.Module, ABC):
    """p(x) = ∫ p(x|z) p(z) dz with a posterior q(z|x): a subclass says what the three are.

    ``encode`` and ``decode`` are all that a subclass with an explicit posterior and the prior
    N(0, I) needs. One whose posterior cannot be inverted overrides ``posterior``, for nothing here
    asks for log q(z|x) at codes that were not drawn; one with another prior overrides ``prior``.
    """

    x_dim: int  # D
    z_dim: int  # M

    @abstractmethod
    def encode(self, x: Tensor) -> Distribution:
        """A distribution over codes, of batch shape ``(N,)`` and event ``(M,)``: q(z|x) itself,
        or what a ``posterior`` of its own starts from. Data ``(N, D)``.
        """

    @abstractmethod
    def decode(self, z: Tensor) -> Distribution:
        """p(x|z), of event shape ``(D,)``: codes ``(..., M)`` to a distribution over data."""

    @abstractmethod
    def as_numbers(self, x: Tensor) -> Tensor:
        """The data ``(N, D)`` in the weights' dtype, or a ValueError if they are not data."""

    @abstractmethod
    def mean(self, z: Tensor) -> Tensor:
        """E[x|z]: codes ``(N, M)`` to data without the decoder's noise, ``(N, D)``."""

    def posterior(self, x: Tensor) -> Posterior:
        """q(z|x) of the data ``(N, D)``: what ``encode`` returns, to draw from."""
        return ExplicitPosterior(self.encode(x))

    @property
    def prior(self) -> Distribution:
        """p(z), of event shape ``(M,)``: N(0, I)."""
        return StandardNormal(next(self.parameters()).new_zeros(self.z_dim))

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z) in nats, a sum over features: ``(N, D)``, ``(..., N, M)`` to ``(..., N)``."""
        x = self.as_numbers(x)
        check_tensor(z, "z")
        if z.ndim < 2 or z.shape[-2] != len(x):
            raise ValueError(
                f"z must have shape (..., {len(x)}, {self.z_dim}), codes for each of the "
                f"{len(x)} points, got shape {tuple(z.shape)}"
            )
        return self.decode(z).log_prob(x)

    def elbo(self, x: Tensor, n_samples: int = 1) -> ElboTerms:
        """E_q log p(x|z), over S codes a point, and KL(q(z|x) ‖ p(z)), in closed form.

        Where torch.distributions has no closed form, the KL term is the mean of
        log q(z|x) − log p(z) over the same codes, and ``exact_kl`` of the answer is False.

        Source: Kingma & Welling 2014, equation 7, https://arxiv.org/abs/1312.6114.

        Args:
            x: data ``(N, D)``.
            n_samples: number S of codes that are drawn for each point, with gradients.

        Returns:
            Nats ``(N,)`` each, both sums over dimensions, never means: a mean would change the
            weight of one against the other.

        Raises:
            ValueError: for a posterior whose codes or densities are of another shape.
        """
        z, kl, is_exact = self.codes_and_kl(x, n_samples)
        terms = ElboTerms if is_exact else SampledElboTerms
        return terms(self.log_likelihood(x, z).mean(0), kl)

    def codes_and_kl(self, x: Tensor, n_samples: int = 1) -> tuple[Tensor, Tensor, bool]:
        """S codes a point ``(S, N, M)``, with gradients, the KL term ``(N,)`` of `elbo`, and
        whether it is in closed form: for objectives that read the codes, too.
        """
        n_samples = check_count(n_samples, "n_samples")
        posterior, prior = self.posterior(x), self.prior
        if not isinstance(posterior, ExplicitPosterior):
            z, log_q = draw_codes(posterior, n_samples, self.z_dim)
        else:
            z = posterior.q.rsample((n_samples,))  # (S, N, M)
            if (kl := exact_kl(posterior.q, prior)) is not None:
                return z, kl, True
            log_q = posterior.q.log_prob(z)
        return z, (log_q - prior.log_prob(z)).mean(0), False

    @torch.no_grad()
    def sample(self, n: int, noise: bool = True) -> Tensor:
        """n data points ``(n, D)`` from codes of the prior.

        Args:
            n: how many.
            noise: draw from p(x|z), which is what the model means by a sample; False returns
                E[x|z], which pictures often show in its place.
        """
        z = self.prior.sample((check_count(n, "n"),))
        return self.decode(z).sample() if noise else self.mean(z)
