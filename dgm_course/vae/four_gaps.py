"""Why an ELBO is below the data's own log-density: the encoder, its q, the prior, the decoder."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from dgm_course.checks import check_count, check_floating, check_instance, check_number
from dgm_course.vae.gaps import split_gap
from dgm_course.vae.latent_variable_model import LatentVariableModel
from dgm_course.vae.objectives import log_prob_by_quadrature

REACH = 6.0  # of the grids, in standard deviations of the data and in units of the codes
FAR = 9.0  # where log p(x) of the data's farthest nodes has its codes, too
# Nodes an axis, by the number of latents: for log p(x), and for a prior that is looked for.
NODES, CODES = {1: 4001, 2: 601}, {1: 401, 2: 61}
LEAST_SHARE = 1e-9  # of the data's mass in a node that is kept
MOST_ROUNDS = 20_000


class FourGaps(NamedTuple):
    """E_π[log π(x) − ELBO(x)] = amortisation + approximation + prior + decoder, in nats ``()``."""

    amortisation: Tensor
    """E_π of what the best diagonal Gaussian for each x has more than the encoder's"""
    approximation: Tensor
    """E_π of what log p(x) has more than the best diagonal Gaussian"""
    prior: Tensor
    """what the best prior for this decoder wins back of KL(π ‖ p)"""
    decoder: Tensor
    """KL(π ‖ p) under that prior: what no prior and no posterior takes away"""

    @property
    def divergence(self) -> Tensor:
        """prior + decoder, KL(π ‖ p)."""
        return self.prior + self.decoder

    @property
    def total(self) -> Tensor:
        """E_π[log π(x) − ELBO(x)]."""
        return self.amortisation + self.approximation + self.divergence


@torch.no_grad()
def four_gaps(
    model: LatentVariableModel,
    data: Distribution,
    *,
    n_data: int = 81,
    n_codes: int | None = None,
    tolerance: float = 1e-3,
) -> FourGaps:
    """E_π[log π(x) − ELBO(x)] in four parts, on data of a known density π.

    E_π is a sum over a grid that reaches six standard deviations from the data's mean; log p(x) is
    by quadrature; the first two parts are those of `split_gap`, and the third is what `best_prior`
    finds on a grid over [−6, 6]ᴹ.

    Source: derived; the names of the first two are of Cremer, Li & Duvenaud 2018, section 3,
    https://arxiv.org/abs/1801.03558.

    Args:
        model: one with diagonal Gaussian posteriors of one or two latents.
        data: π, of one or two features, with a mean and a variance.
        n_data: nodes an axis for the data.
        n_codes: nodes an axis for the best prior's codes, 401 of one latent and 61 of two if none
            are given.
        tolerance: nats that the prior's part may be too small by, and the decoder's too large.

    Returns:
        Parts without gradients. The first and the third are at least 0, the others are so up to
        0.001 nats, the error of their sums.

    Raises:
        ValueError: for more than two features or latents, a model or data of other features,
            nodes too far apart for either, and what `split_gap` and `best_prior` refuse.

    Omits: priors of codes beyond the grid.

    Example:
        >>> from torch.distributions import Independent, Normal
        >>> from dgm_course.vae import ToyModel
        >>> data = Independent(Normal(torch.ones(1), torch.ones(1)), 1)
        >>> four_gaps(ToyModel("two modes"), data).divergence > 0.5
        tensor(True)
    """
    check_instance(model, LatentVariableModel, "model")
    x, share = _nodes(data, n_data)
    if data.event_shape != (model.x_dim,):
        raise ValueError(
            f"data must have event shape ({model.x_dim},), the model's, got "
            f"{tuple(data.event_shape)}"
        )
    weight = next(model.parameters())
    log_density, x = data.log_prob(x).double(), x.to(weight)
    log_p = log_prob_by_quadrature(model, x, NODES.get(model.z_dim, 5), FAR)  # refuses M > 2
    n_codes = CODES[model.z_dim] if n_codes is None else check_count(n_codes, "n_codes", 5)
    ticks = torch.linspace(-REACH, REACH, n_codes).to(weight)
    codes = torch.cartesian_prod(*[ticks] * model.z_dim).reshape(-1, model.z_dim)  # (C, M)
    log_likelihood = model.decode(codes[:, None]).log_prob(x).double()  # (C, G)
    start = model.prior.log_prob(codes).double().softmax(0)
    off = (share @ (log_mixture(log_likelihood, start) - log_p)).abs().item()
    if not off <= 1e-3:  # NaN, too
        raise ValueError(
            f"n_codes must be larger than {n_codes}: so many give E log p(x) off by {off:.2g} nats"
        )
    best = log_mixture(log_likelihood, best_prior(log_likelihood, share, start, tolerance))
    # E_π[p/π] ≤ 1 of a density p, by Jensen at least e^(−decoder): no p may fit the nodes alone.
    if not (mass := (share @ (best - log_density).exp()).item()) <= 1.001:
        raise ValueError(
            f"n_data must be larger than {n_data}: under the best prior the nodes' mass is {mass:g}"
        )
    gaps = split_gap(model, x, log_evidence=log_p)  # the longest part: after all that may refuse
    best_mean, own_mean = share @ best, share @ log_p.double()
    best_mean = torch.maximum(best_mean, own_mean)  # p(z) itself is one of the priors
    return FourGaps(
        share @ gaps.amortisation.double(),
        share @ gaps.approximation.double(),
        best_mean - own_mean,
        share @ log_density - best_mean,
    )


def best_prior(
    log_likelihood: Tensor, share: Tensor, start: Tensor | None = None, tolerance: float = 1e-3
) -> Tensor:
    """argmax_r Σ_i share_i log Σ_c r_c p(x_i|z_c), by EM: r_c ← r_c D_c, to ``(C,)``.

    D_c = Σ_i share_i p(x_i|z_c) / p(x_i) is what a code gains; no prior on these codes has more
    than log max_c D_c nats over the one that is returned, which is at most the tolerance. At the
    best one D_c = 1 where r_c > 0, and D_c ≤ 1 elsewhere.

    Source: Lindsay 1983, theorem 4.1, https://doi.org/10.1214/aos/1176346059 (the condition).

    Args:
        log_likelihood: log p(x_i|z_c), ``(C, N)``.
        share: of each point in the data, ``(N,)``, of sum 1: 1 / N each of N draws.
        start: positive shares ``(C,)`` to start from, and to improve on; all the same if none.
        tolerance: nats.

    Raises:
        ValueError: for shapes that do not fit, shares that are none, a point that no code can
            make, or where 20 000 rounds do not come within the tolerance.

    Example:
        >>> near = torch.tensor([[0.9, 0.1], [0.3, 0.3], [0.1, 0.9]]).log()  # of three codes
        >>> best_prior(near, torch.tensor([0.5, 0.5]), tolerance=1e-6).round(decimals=3)
        tensor([0.5000, 0.0000, 0.5000])
    """
    check_floating(log_likelihood, "log_likelihood")
    check_floating(share, "share")
    check_number(tolerance, "tolerance")
    if log_likelihood.ndim != 2 or share.shape != log_likelihood.shape[1:]:
        raise ValueError(
            "log_likelihood and share must have shapes (C, N) and (N,), got "
            f"{tuple(log_likelihood.shape)} and {tuple(share.shape)}"
        )
    n_codes = len(log_likelihood)
    r = share.new_full((n_codes,), 1 / n_codes) if start is None else start
    if r.shape != (n_codes,) or not (r >= 0).all() or not r.sum() > 0:
        raise ValueError(f"start must be shares ({n_codes},), got shape {tuple(r.shape)}: {r}")
    if not (share >= 0).all() or abs(share.sum().item() - 1) > 1e-4:
        raise ValueError(f"share must be at least 0 and of sum 1, got a sum {share.sum():g}")
    peak = log_likelihood.amax(0)
    if not peak.isfinite().all():
        raise ValueError("log_likelihood must have a finite largest value for each point")
    likelihood, r = (log_likelihood - peak).exp(), r / r.sum()
    for _ in range(MOST_ROUNDS):
        gain = likelihood @ (share / (r @ likelihood))  # D
        if gain.max().log() <= tolerance:
            return r
        r = r * gain
    raise ValueError(
        f"tolerance must be larger than {tolerance:g}: after {MOST_ROUNDS} rounds another prior "
        f"may still gain {gain.max().log().item():.2g} nats"
    )


def log_mixture(log_likelihood: Tensor, r: Tensor) -> Tensor:
    """log Σ_c r_c p(x_i|z_c) of log p(x_i|z_c), ``(C, N)`` and ``(C,)`` to nats ``(N,)``."""
    return torch.logsumexp(log_likelihood + r.log()[:, None], 0)


def _nodes(data: Distribution, n: int) -> tuple[Tensor, Tensor]:
    """Points ``(G, D)`` of a grid and π's share in each ``(G,)``, without those of next to none."""
    check_instance(data, Distribution, "data")
    n = check_count(n, "n_data", 5)
    if data.batch_shape or len(data.event_shape) != 1 or data.event_shape[0] > 2:
        raise ValueError(
            "data must be one distribution over 1 or 2 features, got batch shape "
            f"{tuple(data.batch_shape)} and event shape {tuple(data.event_shape)}"
        )
    scale = data.variance.sqrt()
    ticks = torch.linspace(-REACH, REACH, n).to(scale)
    x = torch.cartesian_prod(*[ticks] * len(scale)).reshape(-1, len(scale)) * scale + data.mean
    share = data.log_prob(x).double().exp() * (scale * 2 * REACH / (n - 1)).prod()
    if not abs(share.sum().item() - 1) <= 1e-4:  # NaN, too
        raise ValueError(
            f"n_data must be larger than {n}, or data of lighter tails: the grid's nodes sum to "
            f"{share.sum().item():.6g} of their mass"
        )
    kept = share > LEAST_SHARE
    return x[kept], share[kept] / share[kept].sum()
