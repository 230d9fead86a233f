"""What a VAE can be trained by, besides its ELBO, and log p(x) to compare the bounds with."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, Independent
from torch.nn.functional import logsigmoid, one_hot

from dgm_course.checks import (
    check_count,
    check_instance,
    check_number,
    check_same_shape,
    values_are_checked,
)
from dgm_course.probability import log_mean_exp
from dgm_course.vae.latent_variable_model import (
    ElboTerms,
    ExplicitPosterior,
    LatentVariableModel,
    StandardNormal,
    draw_codes,
    kl_per_dimension,
)

Estimator = Literal["plain", "dreg", "stl"]


def beta_elbo(terms: ElboTerms, beta: float) -> Tensor:
    """reconstruction − β · KL, per example in nats ``(N,)``.

    At β = 1 it is the ELBO; above, a code costs more than it does in the bound; below, less, and
    the value bounds nothing. With a noise that is learned it then has no maximum.

    Source: Higgins et al. 2017, equation 4, https://openreview.net/forum?id=Sy2fzU9gl.

    Raises:
        ValueError: for β < 0, or terms of different shapes.
    """
    check_instance(terms, ElboTerms, "terms")
    check_number(beta, "beta", or_zero=True)
    check_same_shape("reconstruction", terms.reconstruction, "kl", terms.kl)
    return terms.reconstruction - beta * terms.kl


def annealed_beta(step: int, n_steps: int, start: float = 0.0) -> float:
    """β rising in a straight line from ``start`` at step 0 to exactly 1 at step n_steps and on.

    Source: Bowman et al. 2016, section 3.1, https://arxiv.org/abs/1511.06349 (their curve is a
    sigmoid).
    """
    step, n_steps = check_count(step, "step", 0), check_count(n_steps, "n_steps")
    check_number(start, "start", or_zero=True)
    if start > 1:
        raise ValueError(f"start must be at most 1, got {start}")
    return 1.0 if step >= n_steps else start + (1 - start) * step / n_steps


def free_bits(
    model: LatentVariableModel, x: Tensor, threshold: float, n_samples: int = 1
) -> Tensor:
    """mean(reconstruction) − Σ_j max(λ_fb, mean KL_j): codes are free up to λ_fb nats a latent.

    The maximum is taken for each latent on the mean over the batch, so that examples may share
    the allowance. Below the threshold a latent's KL has no gradient: nothing pulls it lower, and
    training fills it where the reconstruction gains by that. Nothing guarantees the threshold.
    (With the maximum outside the sum, max(λ, Σ_j KL_j), one busy latent uses up the allowance.)

    Source: Kingma et al. 2016, equation 15, https://arxiv.org/abs/1606.04934.

    Args:
        model: one with a Gaussian posterior and the prior N(0, I), under which each latent has a
            KL term of its own.
        x: data ``(N, D)``.
        threshold: λ_fb in nats for each latent, at least 0; 0 gives the ELBO's mean.
        n_samples: codes for each point.

    Shapes: returns ``()``, a number for the whole batch, for the maximum joins its examples.
    """
    check_instance(model, LatentVariableModel, "model")
    check_number(threshold, "threshold", or_zero=True)
    n_samples = check_count(n_samples, "n_samples")
    posterior = model.posterior(x)
    if not (isinstance(posterior, ExplicitPosterior) and isinstance(model.prior, StandardNormal)):
        raise ValueError(
            "model must have a Gaussian posterior and the prior N(0, I) for free bits, got "
            f"{type(posterior).__name__} and {type(model.prior).__name__}"
        )
    q = posterior.q
    reconstruction = model.log_likelihood(x, q.rsample((n_samples,))).mean()
    kl = kl_per_dimension(q).mean(0)  # (M,)
    return reconstruction - kl.clamp_min(threshold).sum()


def log_weights(
    model: LatentVariableModel, x: Tensor, n_samples: int, *, estimator: Estimator = "plain"
) -> Tensor:
    """log p(x, z_s) − log q(z_s|x) of S codes a point: ``(N, D)`` to nats ``(S, N)``.

    The estimator decides the gradients alone: "plain" ones are those of the formula; "stl" leaves
    out the score ∇_φ log q_φ(z|x) at a fixed z, whose mean is 0; "dreg" leaves it out and weighs
    what a code passes on to the encoder once more, by w_s / Σ w.

    Raises:
        ValueError: for a posterior without a density at a fixed z where the score is left out, or
            for weights that are NaN, or all zero for a point.
    """
    check_instance(model, LatentVariableModel, "model")
    n_samples = check_count(n_samples, "n_samples")
    posterior = model.posterior(x)
    z, log_q = draw_codes(posterior, n_samples, model.z_dim)
    if estimator != "plain":
        if not isinstance(posterior, ExplicitPosterior):
            raise ValueError(
                f"estimator {estimator!r} needs a posterior with a density at every z, an "
                f"ExplicitPosterior, got {type(posterior).__name__}"
            )
        score = posterior.q.log_prob(z.detach())
        log_q = log_q - (score - score.detach())  # the same number
    log_w = model.log_likelihood(x, z) + model.prior.log_prob(z) - log_q
    if values_are_checked():
        bad = ~log_w.detach().amax(0).isfinite()  # NaN, inf, or −inf for all codes
        if bad.any():
            raise ValueError(
                "log-weights must not be NaN or inf, nor −inf for all codes of a point, got such "
                f"for {int(bad.sum())} of {len(bad)} points"
            )
    if estimator == "dreg" and z.requires_grad:
        share = log_w.detach().softmax(0)[..., None]  # (S, N, 1)
        z.register_hook(lambda gradient: share * gradient)
    return log_w


def importance_weighted_bound(
    model: LatentVariableModel, x: Tensor, k: int, *, estimator: Estimator = "plain"
) -> Tensor:
    """L_k = log (1/k Σ_s w_s), w_s = p(x, z_s) / q(z_s|x), per example in nats ``(N,)``.

    The logarithm is taken of the average weight: an average of logarithms would be the ELBO with
    k samples. L_1 is the ELBO, L_k ≤ L_{k+1} in expectation, and L_k → log p(x).

    The estimator changes the encoder's gradient, and neither its mean nor the value L_k: plain,
    its signal falls below its noise as 1/√k; doubly reparameterised ("dreg"), it rises as √k.
    "stl", sticking the landing, is for k = 1, where it is the same as "dreg"; with k > 1 it would
    be biased. Both are 0 at the exact posterior.

    Source: Burda, Grosse & Salakhutdinov 2016, equation 8, https://arxiv.org/abs/1509.00519;
    "dreg": Tucker et al. 2019, equation 8, https://arxiv.org/abs/1810.04152; "stl": Roeder, Wu &
    Duvenaud 2017, https://arxiv.org/abs/1703.09194.

    Args:
        model: any latent-variable model of this package.
        x: data ``(N, D)``.
        k: codes for each point, at least 1.
        estimator: "plain", "dreg" or "stl"; the last two for an `ExplicitPosterior`.

    Raises:
        ValueError: for k < 1, "stl" with k > 1, another estimator, a posterior without a density
            at a fixed z where that is needed, or weights that are NaN, or all zero for a point.
    """
    k = check_count(k, "k")
    if estimator not in get_args(Estimator):
        raise ValueError(f"estimator must be 'plain', 'dreg' or 'stl', got {estimator!r}")
    if estimator == "stl" and k > 1:
        raise ValueError(f"estimator 'stl' is biased for k > 1, got k = {k}; use 'dreg'")
    return log_mean_exp(log_weights(model, x, k, estimator=estimator), 0)


class LogProbability(NamedTuple):
    """log p(x) of each example in nats, with its standard error."""

    value: Tensor  # (N,)
    standard_error: Tensor  # (N,)


@torch.no_grad()
def log_prob_by_importance(
    model: LatentVariableModel, x: Tensor, n_samples: int = 1000
) -> LogProbability:
    """log (1/S Σ w_s) with codes from the encoder, and std(w) / (mean(w) √S), ``(N,)`` each.

    The estimate is L_S: too low on average, by about half the squared standard error. The error
    is that of the weights that were seen: an encoder narrower than the posterior hides the large
    ones. Values above about 0.3 say that the estimate cannot be trusted.

    Source: Burda, Grosse & Salakhutdinov 2016, section 5, https://arxiv.org/abs/1509.00519.
    """
    n_samples = check_count(n_samples, "n_samples", 2)  # for a standard error
    log_w = log_weights(model, x, n_samples).double()  # (S, N)
    value = log_mean_exp(log_w, 0)
    error = (log_w - value).exp().std(0) / n_samples**0.5
    return LogProbability(value, error)


@torch.no_grad()
def log_prob_by_quadrature(
    model: LatentVariableModel, x: Tensor, n: int = 401, limit: float = 6.0
) -> Tensor:
    """log ∫ p(x|z) p(z) dz by the trapezoidal rule on [−limit, limit]ᴹ, M ≤ 2, nats ``(N,)``.

    Args:
        model: any latent-variable model of this package with one or two latents.
        x: data ``(N, D)``.
        n: nodes an axis, odd.
        limit: half the width of the box: for the prior N(0, I), in its standard deviations.

    Raises:
        ValueError: for M > 2, or where every second node gives another value by more than 0.001
            nats: the nodes are too far apart for p(x|z); or where p(x, z) at the box's edge says
            that more than 0.001 of it lies beyond.

    Omits: a part of p(x, z) that lies beyond the box and apart from what is in it.
    """
    check_quadrature(model, n, limit)
    data = model.as_numbers(x)
    weight = next(model.parameters())
    ticks = torch.linspace(-limit, limit, n, dtype=weight.dtype, device=weight.device)
    z = torch.cartesian_prod(*[ticks] * model.z_dim).reshape(-1, model.z_dim)  # (G, M)
    step, index = 2 * limit / (n - 1), torch.arange(n, device=weight.device)
    at = torch.cartesian_prod(*[index] * model.z_dim).reshape(-1, model.z_dim)
    every_second, edge = (at % 2 == 0).all(1), (at % (n - 1) == 0).any(1)
    # Of each node: its cell, that of a grid of every second node, and, at the box's edge, what is
    # beyond it if p(x, z) goes on for a unit of z.
    cells = torch.stack(
        [
            torch.full_like(z[:, 0], step**model.z_dim),
            (2 * step) ** model.z_dim * every_second,
            step ** (model.z_dim - 1) * edge,
        ]
    ).double()  # (3, G)
    peak = data.new_full((len(data),), torch.finfo(data.dtype).min)
    sums = data.new_zeros(3, len(data), dtype=torch.float64)
    counts = _counts(model.decode(z[:1, None]), data)
    size = max(1, 2_000_000 // data.numel())
    for codes, areas in zip(z.split(size), cells.split(size, 1), strict=True):
        log_joint = _all_pairs(model.decode(codes[:, None]), data, counts)  # (C, N)
        log_joint = log_joint + model.prior.log_prob(codes)[:, None]
        higher = torch.maximum(peak, log_joint.amax(0))
        terms = (log_joint - higher).exp().double()  # a float32 sum of so many loses five digits
        sums = sums * (peak - higher).double().exp() + areas @ terms
        peak = higher
    value, coarse, beyond = sums.log() + peak
    if (share := (beyond - value).max().exp().item()) > 1e-3:
        raise ValueError(
            f"limit must be larger than {limit:g}: beyond the box there may be {share:.2g} of p(x)"
        )
    if not (worst := (value - coarse).abs().max().item()) <= 1e-3:  # NaN, too
        raise ValueError(
            f"n must be larger than {n}: every second node gives log p(x) off by {worst:.2g} nats"
        )
    return value.to(data.dtype)


def _counts(p: Distribution, x: Tensor) -> Tensor | None:
    """How often x has each value at each feature, ``(N, D)`` to ``(N, D · V)``, where p is of
    binary features or of levels: log p(x) is then linear in it, one matrix product for all pairs.
    """
    base = p.base_dist if isinstance(p, Independent) else None
    if isinstance(base, Bernoulli):
        return torch.stack([1 - x, x], 2).flatten(1)
    if isinstance(base, Categorical):
        return one_hot(x.long(), base.logits.shape[-1]).to(x.dtype).flatten(1)
    return None


def _all_pairs(p: Distribution, x: Tensor, counts: Tensor | None) -> Tensor:
    """log p(x_n|z_c) of all pairs: batch shape ``(C, 1)`` and ``(N, D)`` to ``(C, N)``."""
    if counts is None:
        return p.log_prob(x)
    base = p.base_dist  # type: ignore[attr-defined]
    log_p = base.logits  # (C, 1, D), or normalised (C, 1, D, V)
    if isinstance(base, Bernoulli):
        log_p = torch.stack([logsigmoid(-log_p), logsigmoid(log_p)], -1)
    return log_p.flatten(1) @ counts.T


def check_quadrature(model: LatentVariableModel, n: int, limit: float) -> None:
    """Raise a ValueError unless n nodes an axis on [−limit, limit] will do for a model's codes."""
    check_instance(model, LatentVariableModel, "model")
    if model.z_dim > 2:
        raise ValueError(f"quadrature needs z_dim of at most 2, got {model.z_dim}")
    check_number(limit, "limit")
    if check_count(n, "n", 5) % 2 == 0:
        raise ValueError(f"n must be odd, got {n}")
