"""ELBO surgery: what the average KL of a VAE is made of, and three readings of the ELBO."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from numpy.polynomial.hermite_e import hermegauss
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from dgm_course.checks import check_count, check_shape, check_tensor
from dgm_course.data.toy import Seed, as_generator
from dgm_course.vae.aggregated_posterior import AggregatedPosterior, gaussians, mean_and_scale

METHODS = ("quadrature", "monte_carlo", "minibatch", "weighted")
TAIL = 9.0  # standard deviations of the grid beyond the outermost means: the rest weighs 1e-18
STEPS_PER_SCALE = 4  # nodes of the grid in the smallest standard deviation: good to 1e-12 nats
MAX_NODES = 4_000_000
HERMITE_NODES = 64


class KLDecomposition(NamedTuple):
    """average KL = marginal KL + I[i, z]: three numbers in nats, each with its standard error.

    The three come from the same samples, so that they add up to the last digit; beside them, the
    average KL as torch.distributions has it in closed form.
    """

    average_kl: Tensor
    """1/n Σᵢ KL(q(z|xᵢ) ‖ p(z))"""
    marginal_kl: Tensor
    """KL(q(z) ‖ p(z))"""
    mutual_information: Tensor
    """I[i, z]"""
    standard_errors: Tensor
    """of these three, shape ``(3,)``; 0 for a quadrature, inf where one sample gives none"""
    analytic_average_kl: Tensor | None
    """the average KL in closed form; None for a prior that has none"""


@torch.no_grad()
def decompose_kl(
    q: Distribution,
    *,
    prior: Distribution | None = None,
    method: str = "monte_carlo",
    n_samples: int = 1,
    batch_size: int | None = None,
    generator: Seed | None = None,
) -> KLDecomposition:
    """1/n Σᵢ KL(q(z|xᵢ) ‖ p(z)) = KL(q(z) ‖ p(z)) + I[i, z], where q(z) = 1/n Σᵢ q(z|xᵢ).

    The index i is uniform on the n examples, z ~ q(z|xᵢ), and I is their mutual information,
    between 0 and ln n. Four ways to compute it:

    - "quadrature", for M ≤ 2: I = H[q(z)] − 1/n Σᵢ H[q(z|xᵢ)], the first entropy as a sum over a
      grid whose spacing follows the smallest scale.
    - "monte_carlo": draws from each of the n posteriors, and q(z) in full, n² pairs a draw. What
      I averages, log q(z|xᵢ) − log q(z), never exceeds ln n.
    - "minibatch": q(z) is replaced by the mean over the batch that z comes from, and I cannot
      exceed ln B.
    - "weighted": the batch weighed as in β-TCVAE, log q(z) ≈ log 1/(nB) Σ_b q(z|x_b). This is
      "minibatch" plus ln n, a constant that training does not feel. As an estimate of I it is
      ln n or more on average, up to ln(nB), and the marginal KL can come out negative.

    In the last three, I is averaged directly and the marginal KL is the difference over the same
    draws: the three terms add up to the last digit.

    Source: Hoffman & Johnson 2016,
    https://approximateinference.org/2016/accepted/HoffmanJohnson2016.pdf; "weighted": Chen et al.
    2018, https://arxiv.org/abs/1802.04942.

    Args:
        q: the n posteriors, ``Independent(Normal(mean, scale), 1)`` of shape ``(n, M)``.
        prior: p(z), of event shape ``(M,)``, in q's dtype; the standard normal if none is given.
        method: one of the four.
        n_samples: draws S from each posterior; a quadrature draws none.
        batch_size: B, for "minibatch" and "weighted": for each of the S draws the n examples are
            shuffled into ⌊n / B⌋ batches.
        generator: a seed or a generator; PyTorch's global one if none is given.

    Returns:
        Scalars in nats, float64. Standard errors come from the spread within each posterior when
        S > 1, of all draws when S = 1 (then too large), of batch means for the last two methods.
        Where posteriors hardly overlap they are too small: what I lacks of ln n is in rare draws.

    Raises:
        ValueError: for q of another kind or empty, means or scales that are not finite and
            positive, a prior of another width, another method, a quadrature with M > 2 or with
            scales too small for its grid, n_samples < 1, a batch_size that is missing, not asked
            for or outside 1 … n.

    Omits: gradients; priors that depend on x; a batch alone, without the data set it is from.
    """
    mean, scale = mean_and_scale(q)
    n_samples = check_count(n_samples, "n_samples")
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if method in ("minibatch", "weighted"):
        batch_size = check_count(batch_size, "batch_size", most=len(mean))
    elif batch_size is not None:
        raise ValueError(f"batch_size is for 'minibatch' and 'weighted', {method!r} takes none")
    p, log_prior = _prior(prior, q)
    try:
        analytic = kl_divergence(gaussians(mean, scale), p).double().mean()
    except NotImplementedError:  # a mixture or a flow as the prior
        analytic = None
    if method == "quadrature":
        return KLDecomposition(*_by_quadrature(mean, scale, log_prior), analytic)
    chance = None if generator is None else as_generator(generator)
    ratio, information = _draws(mean, scale, log_prior, n_samples, batch_size, chance)  # (S, n)
    if method == "weighted":
        information = information + math.log(len(mean))
    average, mutual = ratio.mean(), information.mean()
    errors = [_standard_error(v, batch_size) for v in (ratio, ratio - information, information)]
    return KLDecomposition(average, average - mutual, mutual, torch.stack(errors), analytic)


def _draws(
    mean: Tensor,
    scale: Tensor,
    log_prior: Callable[[Tensor], Tensor],
    n_samples: int,
    batch_size: int | None,
    chance: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """log q(z|xᵢ) − log p(z) and log q(z|xᵢ) − log q(z) at draws z ~ q(z|xᵢ), ``(S, n)`` each.

    With a batch size, q(z) is the mean over the batch of the draw, and n what whole batches hold.
    """
    n, size = len(mean), batch_size or len(mean)
    source = mean.device if chance is None else chance.device
    ratio, information = [], []
    for _ in range(n_samples):
        order = torch.arange(n)
        if batch_size is not None:
            order = torch.randperm(n, generator=chance, device=source)
        for i in order[: n // size * size].to(mean.device).split(size):
            posteriors = gaussians(mean[i], scale[i])
            noise = torch.randn(mean[i].shape, generator=chance, dtype=mean.dtype, device=source)
            z = mean[i] + scale[i] * noise.to(mean.device)  # (B, M)
            log_q = posteriors.log_prob(z)  # (B,)
            ratio.append(log_q - log_prior(z))
            information.append(log_q - AggregatedPosterior(posteriors).unchecked_log_prob(z))
    return torch.cat(ratio).reshape(n_samples, -1), torch.cat(information).reshape(n_samples, -1)


def _standard_error(values: Tensor, batch_size: int | None) -> Tensor:
    """Of the mean of values ``(S, n)``: n strata, or batches whose members share their error."""
    if batch_size is not None:
        values = values.reshape(1, -1, batch_size).mean(2)  # (1, batches)
    if len(values) > 1:
        return (values.var(0).mean() / values.numel()).sqrt()
    if values.numel() == 1:
        return torch.full_like(values[0, 0], math.inf)
    return values.std() / values.numel() ** 0.5


def _by_quadrature(
    mean: Tensor, scale: Tensor, log_prior: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The three terms and their errors, 0, from the trapezoid rule on one grid for all of q(z)."""
    dim = mean.shape[1]
    if dim > 2:
        raise ValueError(f"method 'quadrature' needs at most 2 dimensions, got {dim}")
    centre = mean.mean(0)  # from which the grid is counted: far-off codes keep their digits
    mean = mean - centre
    low, high = (mean - TAIL * scale).amin(0), (mean + TAIL * scale).amax(0)
    step = scale.amin(0) / STEPS_PER_SCALE
    counts = ((high - low) / step).ceil() + 1
    if counts.prod() > MAX_NODES:
        raise ValueError(
            f"scale must be large enough for a grid of {MAX_NODES} nodes, got a smallest scale of "
            f"{scale.amin():.3g}, which asks for {counts.prod():.3g}; use method 'monte_carlo'"
        )
    ticks = [low[d] + step[d] * torch.arange(int(counts[d])).to(mean) for d in range(dim)]
    nodes = torch.cartesian_prod(*ticks).reshape(-1, dim)  # (G, M)
    density = _mixture_on_a_grid(ticks, mean, scale).flatten()  # (G,)
    entropy = -torch.xlogy(density, density).sum() * step.prod()  # H[q(z)]
    cross_entropy = -(density * log_prior(nodes + centre)).sum() * step.prod()  # −E log p(z)
    mutual = entropy - gaussians(mean, scale).entropy().mean()
    marginal = cross_entropy - entropy
    return marginal + mutual, marginal, mutual, step.new_zeros(3)


def _mixture_on_a_grid(ticks: list[Tensor], mean: Tensor, scale: Tensor) -> Tensor:
    """q(z) where z₁ is in ticks[0] and z₂ in ticks[1]: posteriors factorise, so a matrix product.

    On a line the second factor is 1. Shapes: ``(G₁,)`` and ``(G₂,)`` to ``(G₁, G₂)``.
    """
    at_once = max(1, 2**21 // max(map(len, ticks)))  # posteriors: 16 MB
    density = mean.new_zeros(())
    for part in zip(mean.split(at_once), scale.split(at_once), strict=True):
        normals = [Normal(m, s) for m, s in zip(*(v.unbind(1) for v in part), strict=True)]
        factors = [n.log_prob(t[:, None]).exp() for n, t in zip(normals, ticks, strict=True)]
        other = factors[1] if len(factors) == 2 else torch.ones_like(factors[0][:1])  # (G₂, n)
        density = density + factors[0] @ other.T
    return density / len(mean)


class KLTerms(NamedTuple):
    """log q(z|x)/p(z) at one code of each example, as a sum of three, in nats ``(N,)``."""

    mutual_information: Tensor
    """log q(z|x) − log q(z): its mean is I[x, z]"""
    total_correlation: Tensor
    """log q(z) − Σ_j log q(z_j): its mean is the total correlation of q(z)"""
    dimension_wise_kl: Tensor
    """Σ_j log q(z_j) − log p(z_j): its mean is Σ_j KL(q(z_j) ‖ p(z_j))"""


def kl_terms(q: Distribution, z: Tensor, *, prior: Distribution | None = None) -> KLTerms:
    """log q(z|x)/p(z) = log q(z|x)/q(z) + log q(z)/Π_j q(z_j) + Σ_j log q(z_j)/p(z_j), q(z) the
    mean over the batch.

    Where the batch is all data, q(z) is exact, and the means of the three are estimates from one
    code a point. Of a smaller batch q(z) is coarse: the first is too small, for it cannot exceed
    ln N, and the second too large. The weighted form of β-TCVAE, 1/(nN) Σ_b q(z|x_b) of n data,
    differs by the constants ln n, (M − 1) ln n and −M ln n, of which no gradient knows.

    Source: Chen et al. 2018, equations 2 and 5, https://arxiv.org/abs/1802.04942.

    Args:
        q: the posteriors of the batch, as for `decompose_kl`.
        z: one code of each, ``(N, M)``, with gradients if it was drawn with them.
        prior: p(z), an ``Independent(p, 1)``; the standard normal if none is given.

    Raises:
        ValueError: for a bad q, z of another shape, or a prior that does not factorise.
    """
    mean, scale = mean_and_scale(q)
    check_shape(z, tuple(mean.shape), "z")
    p, _ = _prior(prior, q)
    if not isinstance(p, Independent):
        raise ValueError(f"prior must be factorised, an Independent(p, 1), got {p}")
    codes = z.double()
    columns = [v.unbind(1) for v in (mean, scale, codes)]
    log_marginals = sum(
        AggregatedPosterior(gaussians(m[:, None], s[:, None])).unchecked_log_prob(c[:, None])
        for m, s, c in zip(*columns, strict=True)
    )
    log_q = gaussians(mean, scale).log_prob(codes)
    log_mixture = AggregatedPosterior(gaussians(mean, scale)).unchecked_log_prob(codes)
    terms = log_q - log_mixture, log_mixture - log_marginals, log_marginals - p.log_prob(codes)
    return KLTerms(*(term.to(z.dtype) for term in terms))


# --- three readings of the ELBO ---------------------------------------------------------------


def evidence_minus_posterior_kl(
    q: Distribution,
    log_likelihood: Callable[[Tensor], Tensor],
    log_evidence: Tensor,
    prior: Distribution | None = None,
) -> tuple[Tensor, Tensor]:
    """log p(x) and −KL(q(z|x) ‖ p(z|x)), whose sum is the ELBO.

    Source: Hoffman & Johnson 2016, section 1,
    https://approximateinference.org/2016/accepted/HoffmanJohnson2016.pdf.

    Args:
        q: the posteriors of N examples, ``Independent(Normal(mean, scale), 1)``, M ≤ 2.
        log_likelihood: maps z ``(S, N, M)`` to log p(xᵢ|z) in nats, ``(S, N)``; expectations are
            Gauss–Hermite sums over its values.
        log_evidence: log p(x) ``(N,)`` in nats, from a closed form or a quadrature.
        prior: p(z); the standard normal if none is given.

    Shapes: both results ``(N,)``, nats, float64.

    Raises:
        ValueError: for a bad q or prior, M > 2, or values of another shape.
    """
    mean, scale = mean_and_scale(q)
    check_shape(log_evidence, (len(mean),), "log_evidence")
    _, log_prior = _prior(prior, q)
    log_q = gaussians(mean, scale).log_prob
    joint = _expectation(q, lambda z: _checked(log_likelihood, z, q) + log_prior(z))
    log_evidence = log_evidence.double()
    return log_evidence, joint - _expectation(q, log_q) - log_evidence


def energy_plus_entropy(
    q: Distribution,
    log_likelihood: Callable[[Tensor], Tensor],
    prior: Distribution | None = None,
) -> tuple[Tensor, Tensor]:
    """E_q log p(x, z), the average negative energy, and H[q(z|x)], whose sum is the ELBO.

    Source, Args, Shapes and Raises as for `evidence_minus_posterior_kl`.
    """
    mean, scale = mean_and_scale(q)
    _, log_prior = _prior(prior, q)
    joint = _expectation(q, lambda z: _checked(log_likelihood, z, q) + log_prior(z))
    return joint, gaussians(mean, scale).entropy()


def reconstruction_minus_kl(
    q: Distribution,
    log_likelihood: Callable[[Tensor], Tensor],
    prior: Distribution | None = None,
) -> tuple[Tensor, Tensor]:
    """E_q log p(x|z), the reconstruction, and −KL(q(z|x) ‖ p(z)), whose sum is the ELBO.

    Source, Args, Shapes and Raises as for `evidence_minus_posterior_kl`; the prior must have a
    KL divergence from a Gaussian in closed form.
    """
    mean, scale = mean_and_scale(q)
    p, _ = _prior(prior, q)
    kl = kl_divergence(gaussians(mean, scale), p).double()
    return _expectation(q, lambda z: _checked(log_likelihood, z, q)), -kl


def _expectation(q: Distribution, f: Callable[[Tensor], Tensor]) -> Tensor:
    """E f(z) over each posterior by Gauss–Hermite sums, f from ``(S, N, M)`` to ``(S, N)``."""
    mean, scale = mean_and_scale(q)
    nodes, weights = hermite_nodes(HERMITE_NODES, mean.shape[1], mean)
    return weights @ f(mean + scale * nodes[:, None])  # (N,)


_rule = cache(hermegauss)  # an eigenvalue problem, and a search asks for the same one at each step


def hermite_nodes(n_nodes: int, dim: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """ε ``(G, M)`` and their weights ``(G,)``: a sum over them is E f(ε) for ε ~ N(0, I), M ≤ 2."""
    if dim > 2:
        raise ValueError(f"Gauss–Hermite sums need at most 2 latent dimensions, got {dim}")
    ticks, weights = (torch.tensor(v).to(like) for v in _rule(n_nodes))
    nodes = torch.cartesian_prod(*[ticks] * dim).reshape(-1, dim)
    return nodes, torch.cartesian_prod(*[weights / weights.sum()] * dim).reshape(-1, dim).prod(1)


def _checked(log_likelihood: Callable[[Tensor], Tensor], z: Tensor, q: Any) -> Tensor:
    """log p(xᵢ|z) at z in the dtype of q, once its shape is ``(S, N)``."""
    values = log_likelihood(z.to(q.base_dist.loc.dtype))
    check_tensor(values, "what log_likelihood returns")
    if values.shape != z.shape[:2]:
        raise ValueError(
            f"log_likelihood must map {tuple(z.shape)} to {tuple(z.shape[:2])}, got "
            f"{tuple(values.shape)}"
        )
    return values.double()


# --- checks -----------------------------------------------------------------------------------


def _prior(prior: Distribution | None, q: Any) -> tuple[Distribution, Callable[[Tensor], Tensor]]:
    """p(z), and its log-density as a map of float64 points to float64 nats."""
    mean = q.base_dist.loc
    if prior is None:
        standard = Normal(torch.zeros(mean.shape[1], device=mean.device).double(), 1.0)
        p: Distribution = Independent(standard, 1)
        return p, p.log_prob
    if (tuple(prior.batch_shape), tuple(prior.event_shape)) != ((), (mean.shape[1],)):
        raise ValueError(
            f"prior must have batch shape () and event shape ({mean.shape[1]},), that of q, got "
            f"{tuple(prior.batch_shape)} and {tuple(prior.event_shape)}"
        )
    return prior, lambda z: prior.log_prob(z.to(mean.dtype)).double()
