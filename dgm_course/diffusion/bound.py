"""The variational bound of a chain, term by term: a hierarchical VAE whose encoder is fixed."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.special import log_ndtr

from dgm_course import probability
from dgm_course.checks import (
    check_count,
    check_finite,
    check_floating,
    check_instance,
    check_integers,
    check_shape,
    check_tensor,
)
from dgm_course.data.toy import Seed, as_generator
from dgm_course.diffusion.models import DiffusionModel
from dgm_course.diffusion.schedules import Schedule, check_chain, q_sample, step

Kind = Literal["posterior", "forward"]
Variances = str | Tensor  # a Kind, or a variance for each of T steps, (T,)


class BoundTerms(NamedTuple):
    """−log p(x₀) ≤ prior + Σ steps + reconstruction, of each example, in nats."""

    prior: Tensor  # (N,): KL(q(x_1 | x₀) ‖ N(0, prior_scale² I))
    steps: (
        Tensor  # (T − 1, N): KL(q(x_s | x_t, x₀) ‖ p(x_s | x_t)), the step nearest the data first
    )
    reconstruction: Tensor  # (N,): −log p(x₀ | x_{t₁})

    @property
    def nats(self) -> Tensor:
        """Their sum ``(N,)``: at least −log p(x₀), in expectation over the noise drawn."""
        return self.prior + self.steps.sum(0) + self.reconstruction

    def bits_per_dim(self, n_dims: int) -> Tensor:
        """nats / (D ln 2), ``(N,)``."""
        return probability.bits_per_dim(self.nats, n_dims)


def gaussian_kl(q_variance: Tensor, p_variance: Tensor, squared: Tensor) -> Tensor:
    """½ ((q + d²)/p − 1 + ln p/q): KL(N(a, q) ‖ N(b, p)) of a dimension, d² = (a − b)², in nats."""
    ratio = q_variance / p_variance
    return 0.5 * (ratio - 1 - ratio.log() + squared / p_variance)


def step_variances(schedule: Schedule, times: Tensor, variances: Variances = "posterior") -> Tensor:
    """The variance of the model's p(x_s | x_t) for each step of a chain, ``(T,)``, float64.

    "posterior": β̃, that of q(x_s | x_t, x₀), right if x₀ were known. "forward": that of
    q(x_t | x_s), β where variance is preserved, right if the data were N(0, I). What is best is
    `optimal_variances`. In the first step β̃ = 0, and both are the forward one, σ²(t₁).

    Source: Ho, Jain & Abbeel 2020, section 3.2, https://arxiv.org/abs/2006.11239.

    Raises:
        ValueError: for another name; for a tensor that is not ``(T,)``, positive and finite.
    """
    times = check_chain(schedule, times)
    if isinstance(variances, Tensor):
        check_shape(variances, (len(times) - 1,), "variances")
        if not ((variances > 0) & variances.isfinite()).all():
            raise ValueError(
                "variances must be positive and finite, got " + str(variances.tolist())
            )
        return variances.double()
    if variances not in get_args(Kind):
        raise ValueError(f"variances must be one of {get_args(Kind)} or (T,), got {variances!r}")
    of = step(schedule, times[:-1], times[1:])
    found = of.variance if variances == "posterior" else of.forward_variance
    return torch.cat([of.forward_variance[:1], found[1:]]) if times[0] == 0 else found


@torch.no_grad()
def optimal_variances(
    model: DiffusionModel, x0: Tensor, times: Tensor, generator: Seed | None = None
) -> Tensor:
    """v = β̃ + c² E‖x₀ − x̂₀‖²/D, the best one variance of each step, estimated on data ``(T,)``.

    What the step's mean misses, c (x₀ − x̂₀), is spread that the model has to own. Take training
    data: the bound on test data is then a bound.

    Source: Bao and others 2022, theorem 1, https://arxiv.org/abs/2201.06503.

    Args:
        model: whose errors are measured.
        x0: data ``(N, ...)``; one draw of noise for each and each step.
        times: a chain ``(T + 1,)``.
        generator: a seed or a generator; None takes torch's own.
    """
    check_instance(model, DiffusionModel, "model")
    times = check_chain(model.schedule, times)
    check_floating(x0, "x0")
    generator = None if generator is None else as_generator(generator)
    found = []
    for s, t in pairwise(times):
        of = step(model.schedule, s, t)
        x_t = q_sample(x0, t, _noise(x0, generator), model.schedule)
        missed = (x0 - model.predict(x_t, t).x0).double().square().mean().cpu()
        found.append(of.variance + of.from_x0.square() * missed)
    return torch.stack(found)


def noise_weights(schedule: Schedule, times: Tensor, variances: Variances = "posterior") -> Tensor:
    """w with E KL = w E‖ε − ε̂‖² + const for each step but the first, ``(T − 1,)``, in nats.

    w = c² σ_t²/(2 v α_t²), with `step`'s c = from_x0; for β̃ as v it is ½ (SNR_s/SNR_t − 1). The
    simple loss has w = 1 for all: it pays less heed to little noise than the bound does.

    Source: Ho, Jain & Abbeel 2020, equation 12, https://arxiv.org/abs/2006.11239.
    """
    times = check_chain(schedule, times)
    of = step(schedule, times[:-1], times[1:])
    v = step_variances(schedule, times, variances)
    w = 0.5 * of.from_x0.square() * (-schedule.log_snr(times[1:])).exp() / v
    return w[1:]


def level_log_prob(levels: Tensor, mean: Tensor, variance: Tensor, *, n_levels: int) -> Tensor:
    """log [Φ(b) − Φ(a)]: the mass that N(mean, variance) has between a level's edges, in nats.

    Level k stands for 2k/(n_levels − 1) − 1, from −1 to 1; its edges lie half a step away, and the
    outermost levels have all that is beyond, so that the masses add up to 1. No mass is raised to a
    floor, which would break that: a far tail is as small as it is.

    Source: Ho, Jain & Abbeel 2020, equation 13, https://arxiv.org/abs/2006.11239.

    Args:
        levels: integers 0 … n_levels − 1.
        mean: in the units of −1 to 1; levels, mean and variance broadcast.
        variance: positive.
        n_levels: number of levels, at least 2.
    """
    n_levels = check_count(n_levels, "n_levels", 2)
    check_integers(levels, 0, n_levels - 1, "levels")
    check_floating(mean, "mean")
    check_floating(variance, "variance")
    mean, scale = mean.double(), variance.double().sqrt()
    half, centre = 1 / (n_levels - 1), 2 * levels.double() / (n_levels - 1) - 1
    lower = torch.where(levels == 0, -math.inf, (centre - half - mean) / scale)
    upper = torch.where(levels == n_levels - 1, math.inf, (centre + half - mean) / scale)
    flip = lower + upper > 0  # in the right half both are near 1: take the mirror image
    a, b = torch.where(flip, -upper, lower), torch.where(flip, -lower, upper)
    log_b = log_ndtr(b)
    return log_b + (-torch.expm1(log_ndtr(a) - log_b)).log()


def variational_bound(
    model: DiffusionModel,
    x0: Tensor,
    times: Tensor,
    variances: Variances = "posterior",
    *,
    levels: int | None = None,
    generator: Seed | None = None,
) -> BoundTerms:
    """Every term of −log p(x₀) ≤ L_prior + Σ L_step + L_reconstruction, one draw of noise each.

    The chain is a hierarchical VAE with a fixed encoder: q(x_{t₁}, …, x_1 | x₀) noises, and the
    decoder p(x_s | x_t) = N(q's mean with x̂₀ in the place of x₀, v I) learns to go back. A step's
    term is KL(q(x_s | x_t, x₀) ‖ p(x_s | x_t)), in closed form at the x_t drawn. The first step, to
    x₀ itself, is the reconstruction: a density of real data, the mass of a level of integers.

    Source: Ho, Jain & Abbeel 2020, equations 5, 8 and 13, https://arxiv.org/abs/2006.11239.

    Args:
        model: whose x̂₀ is asked at T times.
        x0: data ``(N, ...)``: real; or integers with ``levels``, which are read as −1 … 1.
        times: a chain ``(T + 1,)`` from 0.
        variances: v, "posterior", "forward", or ``(T,)``, as from `optimal_variances`. That of q
            is always β̃: another one there makes numbers that are no bound.
        levels: of a pixel, for integers; None for real data.
        generator: a seed or a generator; None takes torch's own.

    Returns:
        The terms in nats, ``(N,)`` and ``(T − 1, N)``; with gradients, if the model has them.

    Raises:
        ValueError: for a chain that does not start at 0, odd variances, integers without
            ``levels``, or data that are not finite.

    Example:
        >>> from dgm_course.diffusion import LinearSchedule, MixtureDenoiser, time_grid
        >>> model = MixtureDenoiser(LinearSchedule(), [1.0], torch.zeros(1, 2), torch.eye(2)[None])
        >>> terms = variational_bound(model, torch.zeros(3, 2), time_grid(50), "forward")
        >>> terms.prior.shape, terms.steps.shape, terms.nats.shape
        (torch.Size([3]), torch.Size([49, 3]), torch.Size([3]))
    """
    check_instance(model, DiffusionModel, "model")
    schedule = model.schedule
    times = check_chain(schedule, times)
    if times[0] != 0:
        raise ValueError(f"times must start at 0, where the data are, got {times[0]:g}")
    v = step_variances(schedule, times, variances)
    check_tensor(x0, "x0")
    x, n_dims = as_data(x0, levels), x0[:1].numel()
    check_finite(x, "x0", "numbers", 0)
    generator = None if generator is None else as_generator(generator)
    alpha, sigma = schedule.alpha(times[-1]), schedule.sigma(times[-1])
    p = torch.tensor(schedule.prior_scale, dtype=torch.float64)
    squared = alpha.square() * x.square().flatten(1).sum(1)
    prior = n_dims * gaussian_kl(sigma.square(), p.square(), squared / n_dims)
    steps = []
    for i in range(len(times) - 1):
        of = step(schedule, times[i], times[i + 1])
        x_t = q_sample(x, times[i + 1], _noise(x, generator), schedule)
        found = model.predict(x_t, times[i + 1]).x0
        squared = of.from_x0.square() * (x - found).square().flatten(1).sum(1)
        if i > 0:
            steps.append(n_dims * gaussian_kl(of.variance, v[i], squared / n_dims))
        elif levels is None:
            constant = n_dims * (2 * math.pi * v[0]).log()
            reconstruction = 0.5 * (squared / v[0] + constant)
        else:
            mass = level_log_prob(x0, found, v[0], n_levels=levels)
            reconstruction = -mass.flatten(1).sum(1)
    rows = torch.stack(steps) if steps else prior.new_zeros(0, len(x))
    return BoundTerms(prior, rows, reconstruction)


def as_data(x0: Tensor, levels: int | None) -> Tensor:
    """Integers 0 … levels − 1 as 2k/(levels − 1) − 1, from −1 to 1; real data as they are."""
    if levels is None:
        check_floating(x0, "x0")
        return x0
    check_integers(x0, 0, check_count(levels, "levels", 2) - 1, "x0")
    return 2 * x0.to(torch.get_default_dtype()) / (levels - 1) - 1


def _noise(x: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
