"""What a VAE is trained by so that its latents come apart, on top of its ELBO's two terms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from dgm_course.checks import (
    check_count,
    check_floating,
    check_instance,
    check_number,
    check_points,
    check_same_shape,
    check_shape,
)
from dgm_course.data.toy import Seed, as_generator


class Terms(Protocol):
    """The two terms of an ELBO, per example in nats: what a model's ``elbo(x)`` returns."""

    @property
    def reconstruction(self) -> Tensor:
        """E_q log p(x|z), ``(N,)``."""

    @property
    def kl(self) -> Tensor:
        """KL(q(z|x) ‖ p(z)), ``(N,)``."""


class KLTerms(Protocol):
    """The KL term as a sum of three, per example in nats: what `vae.kl_terms` returns."""

    @property
    def mutual_information(self) -> Tensor:
        """log q(z|x) − log q(z), ``(N,)``."""

    @property
    def total_correlation(self) -> Tensor:
        """log q(z) − Σ_j log q(z_j), ``(N,)``."""

    @property
    def dimension_wise_kl(self) -> Tensor:
        """Σ_j log q(z_j) − log p(z_j), ``(N,)``."""


class Model(Protocol):
    """A latent-variable model, such as `GaussianVAE`."""

    def codes_and_kl(self, x: Tensor) -> tuple[Tensor, Tensor, bool]:
        """A code of each point ``(1, N, M)``, and KL(q(z|x) ‖ p(z)) ``(N,)``, exact or drawn."""

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z), ``(N, D)`` and ``(N, M)`` to nats ``(N,)``."""


# --- capacity ----------------------------------------------------------------------------------


def capacity_elbo(terms: Terms, gamma: float, capacity: float) -> Tensor:
    """mean(reconstruction) − γ |mean(KL) − C|: the code's rate is held at C nats.

    The difference is that of the batch's mean, so that examples share the capacity: one may use
    more than another. Below C the term pulls the rate up, as hard as it holds it down above; it
    says nothing of which latents are to have it.

    Source: Burgess et al. 2018, equation 8, https://arxiv.org/abs/1804.03599.

    Args:
        terms: of a batch, ``model.elbo(x)``.
        gamma: γ ≥ 0, how hard the rate is held.
        capacity: C ≥ 0 in nats, mostly from `annealed_capacity`.

    Shapes: returns ``()``, a number for the whole batch.

    Raises:
        ValueError: for γ or C below 0, or terms of different shapes.

    Example:
        >>> class Given(NamedTuple):
        ...     reconstruction: Tensor
        ...     kl: Tensor
        >>> terms = Given(torch.tensor([-20.0, -30.0]), torch.tensor([3.0, 7.0]))
        >>> capacity_elbo(terms, gamma=10, capacity=6)  # −25 − 10 |5 − 6|
        tensor(-35.)
    """
    check_number(gamma, "gamma", or_zero=True)
    check_number(capacity, "capacity", or_zero=True)
    _check_terms(terms)
    return terms.reconstruction.mean() - gamma * (terms.kl.mean() - capacity).abs()


def annealed_capacity(step: int, n_steps: int, most: float) -> float:
    """C rising in a straight line from 0 at step 0 to ``most`` nats at step n_steps and on.

    Source: Burgess et al. 2018, section 5, https://arxiv.org/abs/1804.03599.
    """
    step, n_steps = check_count(step, "step", 0), check_count(n_steps, "n_steps")
    check_number(most, "most", or_zero=True)
    return most * min(1.0, step / n_steps)


# --- total correlation by a discriminator ------------------------------------------------------


def factor_elbo(terms: Terms, log_ratio: Tensor, gamma: float) -> Tensor:
    """reconstruction − KL − γ log q(z)/Π_j q(z_j), per example in nats: the ELBO minus γ TC.

    To be maximised: a total correlation costs.

    Source: Kim & Mnih 2018, equation 2, https://arxiv.org/abs/1802.05983.

    Args:
        terms: ``model.elbo(x)`` ``(N,)``.
        log_ratio: a discriminator's log-odds of q(z) against the product of its marginals, at one
            code of each example, ``(N,)``; its mean over q(z) is the total correlation.
        gamma: γ ≥ 0.

    Raises:
        ValueError: for γ < 0, or three of different shapes.
    """
    check_number(gamma, "gamma", or_zero=True)
    _check_terms(terms)
    check_same_shape("reconstruction", terms.reconstruction, "log_ratio", log_ratio)
    return terms.reconstruction - terms.kl - gamma * log_ratio


def permute_dimensions(z: Tensor, generator: Seed | None = None) -> Tensor:
    """Draws of Π_j q(z_j) from draws of q(z): each column in an order of its own.

    One order for all columns would move whole rows, and leave the joint distribution as it is.

    Source: Kim & Mnih 2018, algorithm 1, https://arxiv.org/abs/1802.05983.

    Args:
        z: codes ``(N, M)``, N ≥ 2.
        generator: a seed or a generator; PyTorch's own if none is given.

    Shapes: ``(N, M)`` to ``(N, M)``, with gradients.
    """
    check_points(z, None, None, "z")
    if len(z) < 2:
        raise ValueError(f"z must hold two codes or more, of one there is one order, got {len(z)}")
    chance = None if generator is None else as_generator(generator)
    device = z.device if chance is None else chance.device
    order = torch.rand(z.shape[::-1], generator=chance, device=device).argsort(1)  # (M, N)
    return z.gather(0, order.T.to(z.device))


class FactorLosses(NamedTuple):
    """What FactorVAE's two players minimise, per example in nats. Neither reaches the other."""

    model: Tensor  # (N,), −`factor_elbo`
    discriminator: Tensor  # (N,), −log D(z) − log(1 − D(z̄))
    log_ratio: Tensor  # (N,), without gradients; its mean is the discriminator's word on the TC


def factor_losses(model: Model, discriminator: nn.Module, x: Tensor, gamma: float) -> FactorLosses:
    """Both losses of a step: −(ELBO − γ d(z)) of the first half, and d's on z and permuted z′.

    d(z) = log D/(1 − D) is a discriminator of codes z of the first half of the batch, label 1,
    against codes z′ of the second half with their dimensions permuted, label 0. The encoder runs
    once, over both halves. In the model's loss d is a constant function; in d's own loss the codes
    are constants. So the gradient of the sum of both is, for each player, that of its own loss,
    and one optimiser with a group of weights for each trains them along.

    d lags behind the codes that it is shown: the mean of ``log_ratio`` is then below the total
    correlation that there is, the more so the larger γ. `total_correlation_loss` trains it alone,
    for more steps.

    Source: Kim & Mnih 2018, algorithm 2, https://arxiv.org/abs/1802.05983.

    Args:
        model: any latent-variable model of this course.
        discriminator: codes ``(N, M)`` to log-odds in nats ``(N,)``.
        x: data ``(2N, D)``, N ≥ 2; of an odd batch the last is left out.
        gamma: γ ≥ 0.

    Shapes: three of ``(N,)``.

    Raises:
        ValueError: for γ < 0, fewer than four points, or log-odds of another shape.
    """
    check_number(gamma, "gamma", or_zero=True)
    n = _half(x)
    z, kl, _ = model.codes_and_kl(x[: 2 * n])
    first, second = z[0].split(n)
    with _constant(discriminator):
        log_ratio = _log_odds(discriminator, first)
    reconstruction = model.log_likelihood(x[:n], first)
    loss = gamma * log_ratio + kl[:n] - reconstruction
    of_d = _log_loss(discriminator, first.detach(), second.detach())
    return FactorLosses(loss, of_d, log_ratio.detach())


def total_correlation_loss(model: Model, discriminator: nn.Module, x: Tensor) -> Tensor:
    """The discriminator's loss of `factor_losses` alone, ``(2N, D)`` to nats ``(N,)``.

    Nothing is decoded, and no gradient is kept for the encoder.
    """
    n = _half(x)
    with torch.no_grad():
        z, _, _ = model.codes_and_kl(x[: 2 * n])
    return _log_loss(discriminator, *z[0].split(n))


def _half(x: Tensor) -> int:
    check_points(x, None, None, "x")
    if len(x) < 4:
        raise ValueError(f"x must hold four points or more, two for each half, got {len(x)}")
    return len(x) // 2


def _log_loss(discriminator: nn.Module, first: Tensor, second: Tensor) -> Tensor:
    """−log D(z) − log(1 − D(z̄)), z of the first half and z̄ the second with permuted dimensions."""
    codes = torch.cat([first, permute_dimensions(second)])
    real, fake = _log_odds(discriminator, codes).split(len(first))
    return -logsigmoid(real) - logsigmoid(-fake)


def _log_odds(discriminator: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    logit = discriminator(z)
    check_shape(logit, (len(z),), "what discriminator returns")  # (N, 1) would broadcast
    return logit


@contextmanager
def _constant(network: nn.Module) -> Iterator[None]:
    """No graph is built towards its weights; afterwards each is as it was."""
    check_instance(network, nn.Module, "discriminator")
    needed = [weight for weight in network.parameters() if weight.requires_grad]
    for weight in needed:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in needed:
            weight.requires_grad_(True)


# --- total correlation by a sum over the batch -------------------------------------------------


def tcvae_elbo(reconstruction: Tensor, terms: KLTerms, beta: float) -> Tensor:
    """reconstruction − I[x, z] − β TC − Σ_j KL_j, per example in nats: at β = 1 the ELBO.

    Source: Chen et al. 2018, equation 4 with α = γ = 1, https://arxiv.org/abs/1802.04942.

    Args:
        reconstruction: ``(N,)``, of the codes that the terms are of.
        terms: the KL term's three parts, such as `vae.kl_terms` returns.
        beta: β ≥ 0, the weight of the total correlation alone.

    Raises:
        ValueError: for β < 0, or terms of different shapes.
    """
    check_number(beta, "beta", or_zero=True)
    check_floating(reconstruction, "reconstruction")
    named = {
        "mutual_information": terms.mutual_information,
        "total_correlation": terms.total_correlation,
        "dimension_wise_kl": terms.dimension_wise_kl,
    }
    for name, term in named.items():
        check_same_shape("reconstruction", reconstruction, name, term)
    rest = terms.mutual_information + terms.dimension_wise_kl
    return reconstruction - rest - beta * terms.total_correlation


def _check_terms(terms: Terms) -> None:
    for name in ("reconstruction", "kl"):
        check_floating(getattr(terms, name, None), f"terms' {name}")
    check_same_shape("reconstruction", terms.reconstruction, "kl", terms.kl)
