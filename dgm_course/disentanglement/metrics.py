"""How well a code names the factors behind data: three metrics, each with its error.

Each sees something else. Two factors turned into each other by 30° leave the first two at 1 and
take the gap to the share of the factors that are left; so does, to 0, a code that has each latent
twice.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from dgm_course.checks import check_count, check_points, values_are_checked
from dgm_course.data.toy import Seed, as_generator
from dgm_course.disentanglement.factors import Factors
from dgm_course.probability import Estimate

TAIL = 9.0  # standard deviations of the grid beyond the outermost means: the rest weighs 1e-18
STEPS_PER_SCALE = 3  # nodes of the grid in the smallest standard deviation: good to 1e-9 nats
MAX_NODES = 200_000
CELLS = 2**19  # of the grid times the rows, at a time: 4 MB


class ConstantLatentWarning(UserWarning):
    """Latents that are the same for all data: they name no factor."""


def pair_metric(
    codes: Tensor,
    factors: Tensor,
    *,
    n_points: int = 1500,
    n_pairs: int = 64,
    generator: Seed | None = None,
) -> Estimate:
    """P(ŷ = y): a linear classifier's share of right answers on z̄ = 1/L Σ_l |z_l − z′_l|.

    The L pairs of a point share the value of one factor y, another value for each pair, and the
    rest of them is as it comes. Where a latent follows y alone, its difference is 0. Each factor is
    y equally often. The classifier, multinomial logistic regression, sees two thirds of the
    points, and is tested on the others. A guess is right with 1/K.

    Source: Higgins et al. 2017, section 3, https://openreview.net/forum?id=Sy2fzU9gl.

    Args:
        codes: what the encoder says of each row, its posterior means, ``(N, M)``.
        factors: the factors of each row, ``(N, K)``: see `Factors`.
        n_points: points z̄, those of the test included.
        n_pairs: L, of each point.
        generator: a seed or a generator, on the CPU; torch's own if none is given.

    Returns:
        The share on the test points, with its standard error, in which one answer more of either
        kind is counted, so that it is never 0.

    Raises:
        ValueError: for factors that do not vary (which), codes of other rows than theirs, codes
            that are all constant, or fewer points than three for each factor.

    Warns:
        ConstantLatentWarning: for latents that are constant (which); they are left out.

    Example:
        >>> from dgm_course.disentanglement import pair_metric
        >>> v = torch.cartesian_prod(torch.arange(5), torch.arange(5))
        >>> pair_metric(v.double(), v, generator=0).value
        1.0
    """
    from sklearn.linear_model import LogisticRegression

    table, z, chance = _checked(codes, factors, generator)
    n_pairs = check_count(n_pairs, "n_pairs")
    y = _questions(n_points, "n_points", table)
    points = z.new_empty(len(y), z.shape[1])
    for k in range(table.n_factors):
        rows = torch.randint(table.n_rows, (int((y == k).sum()), n_pairs), generator=chance)
        points[y == k] = (z[rows] - z[table.sharing(k, rows, chance)]).abs().mean(1)
    n_train = 2 * len(y) // 3
    scale = points[:n_train].std(0)
    points = (points - points[:n_train].mean(0)) / torch.where(scale > 0, scale, 1.0)
    train, test = points.numpy()[:n_train], points.numpy()[n_train:]
    classifier = LogisticRegression(max_iter=1000).fit(train, y.numpy()[:n_train])
    return _share_right(torch.from_numpy(classifier.predict(test)) == y[n_train:])


def majority_vote(
    codes: Tensor,
    factors: Tensor,
    *,
    n_votes: int = 1500,
    n_rows: int = 64,
    generator: Seed | None = None,
) -> Estimate:
    """P(ŷ = y), ŷ the factor for which argmin_j Var(z_j) / Var_data(z_j) was j most often.

    A vote draws n_rows that all have one value of one factor y, and names the latent that varies
    least over them, in units of its variance over all rows. Two thirds of the votes say which
    factor a latent stands for; the others test it. A guess is right with 1/K.

    Source: Kim & Mnih 2018, section 4, https://arxiv.org/abs/1802.05983.

    Args:
        codes: as for `pair_metric`.
        factors: as for `pair_metric`.
        n_votes: votes, those of the test included.
        n_rows: rows of a vote, at least 2.
        generator: as for `pair_metric`.

    Returns: as `pair_metric`.

    Raises:
        ValueError: as `pair_metric`.

    Warns:
        ConstantLatentWarning: as `pair_metric`; a constant latent would win every vote.
    """
    table, z, chance = _checked(codes, factors, generator)
    n_rows = check_count(n_rows, "n_rows", 2)
    y = _questions(n_votes, "n_votes", table)
    least = torch.empty_like(y)
    for k in range(table.n_factors):
        row = torch.randint(table.n_rows, (int((y == k).sum()), 1), generator=chance)
        rows = table.sharing(k, row.expand(-1, n_rows), chance)
        least[y == k] = (z[rows].var(1) / z.var(0)).argmin(1)
    n_train = 2 * len(y) // 3
    votes = torch.zeros(z.shape[1], table.n_factors)
    votes.index_put_((least[:n_train], y[:n_train]), torch.ones(n_train), accumulate=True)
    return _share_right(votes.argmax(1)[least[n_train:]] == y[n_train:])


@torch.no_grad()
def mutual_information(q: Distribution, factors: Tensor) -> Tensor:
    """I(z_j; v_k) = Σ_v p(v) KL(q(z_j|v_k = v) ‖ q(z_j)) in nats, of each latent and factor.

    The rows are all data there are: q(z_j) is the mixture of all N posteriors, q(z_j|v_k = v) of
    those with that value, and p(v) is its share of the rows. On a line both are summed over a grid
    whose spacing follows the smallest scale: nothing is drawn, and nothing is put into bins.

    Source: Chen et al. 2018, section 4.1, https://arxiv.org/abs/1802.04942 (there by draws).

    Args:
        q: the posteriors of the N rows, ``Independent(Normal(mean, scale), 1)`` of shape
            ``(N, M)``. Codes without noise have an infinite I: give them a small scale.
        factors: as for `pair_metric`; the full factorial set, for v_k to be independent.

    Shapes: returns ``(M, K)``, float64.

    Raises:
        ValueError: for factors that do not vary (which), another q, or scales that are too small
            for the grid.

    Warns:
        ConstantLatentWarning: for latents whose posterior is the same for all rows: I is 0.
    """
    mean, scale, table = _posteriors(q, factors)
    shares = [count.double() / table.n_rows for count in table.counts]
    averages = table.averages()
    information = mean.new_empty(mean.shape[1], table.n_factors)
    for j, (m, s) in enumerate(zip(mean.T, scale.T, strict=True)):
        ticks, step = _grid(m, s)
        densities = _by_value(ticks, m, s, averages)
        for k, (conditional, p) in enumerate(zip(densities, shares, strict=True)):
            whole = (conditional @ p)[:, None]
            terms = torch.xlogy(conditional, conditional) - torch.xlogy(conditional, whole)
            information[j, k] = (terms.sum(0) @ p) * step
    return information


@torch.no_grad()
def mutual_information_gap(
    q: Distribution,
    factors: Tensor,
    *,
    n_samples: int | None = None,
    generator: Seed | None = None,
) -> Estimate:
    """MIG = 1/K Σ_k (I(z_j₁; v_k) − I(z_j₂; v_k)) / H(v_k), j₁ and j₂ the two that say most of v_k.

    Exact by `mutual_information`, or from draws z ~ q(z) as the average of
    log q(z_j|v_k) − log q(z_j), both mixtures in full. A code with a second latent for the same
    factor has a gap of 0; one with a single latent has its I for the gap.

    Source: Chen et al. 2018, equation 6, https://arxiv.org/abs/1802.04942.

    Args:
        q: as for `mutual_information`.
        factors: as for `mutual_information`.
        n_samples: draws, at least 2; None for the exact value.
        generator: as for `pair_metric`; an exact value draws nothing.

    Returns:
        The gap with its standard error, 0 for the exact one. Of draws it is that of the two
        latents that were found: where several are equally good, their choice adds to the gap.

    Raises:
        ValueError: as `mutual_information`.

    Warns:
        ConstantLatentWarning: as `mutual_information`.

    Example:
        >>> from torch.distributions import Independent, Normal
        >>> v = torch.cartesian_prod(torch.arange(5), torch.arange(5)).double()
        >>> twice = Independent(Normal(torch.cat([v, v], 1), 0.1), 1)
        >>> [round(mutual_information_gap(Independent(Normal(z, 0.1), 1), v).value, 4)
        ...  for z in (v, torch.cat([v, v], 1))]
        [1.0, 0.0]
    """
    if n_samples is None:
        information = mutual_information(q, factors)
        gaps = _gaps(information, information) / Factors(factors).entropies()
        return Estimate(gaps.mean().item(), 0.0)
    n_samples = check_count(n_samples, "n_samples", 2)
    mean, scale, table = _posteriors(q, factors)
    chance = _source(generator)
    rows = torch.randint(table.n_rows, (n_samples,), generator=chance)
    noise = torch.randn(n_samples, mean.shape[1], generator=chance, dtype=torch.float64)
    z = mean[rows] + scale[rows] * noise
    averages = table.averages()
    ratios = z.new_empty(n_samples, mean.shape[1], table.n_factors)
    for j, (m, s) in enumerate(zip(mean.T, scale.T, strict=True)):
        densities = _by_value(z[:, j], m, s, averages)
        for k, conditional in enumerate(densities):
            whole = conditional @ (table.counts[k].double() / table.n_rows)
            own = conditional.gather(1, table.labels[k][rows][:, None]).squeeze(1)
            ratios[:, j, k] = own.log() - whole.log()
    gaps = _gaps(ratios, ratios.mean(0)) / table.entropies()  # (S, K)
    return Estimate.from_samples(gaps.mean(1))


# --- what they share ---------------------------------------------------------------------------


def _gaps(values: Tensor, information: Tensor) -> Tensor:
    """Of each factor, the value of the latent that says most of it, less that of the second.

    Shapes: values ``(..., M, K)`` and information ``(M, K)`` to ``(..., K)``.
    """
    best = information.topk(min(2, len(information)), 0).indices  # (2, K), of one latent (1, K)
    chosen = values.gather(-2, best.expand(*values.shape[:-2], -1, -1))
    return chosen[..., 0, :] - chosen[..., 1:, :].sum(-2)


def _by_value(z: Tensor, mean: Tensor, scale: Tensor, averages: list[Tensor]) -> list[Tensor]:
    """q(z_j|v_k = v) at points ``(G,)`` of one latent's axis: ``(G, V)`` for each factor."""
    weights = torch.cat(averages, 1)  # (N, ΣV)
    rows = max(1, CELLS // len(mean))
    density = [
        Normal(mean, scale).log_prob(part[:, None]).exp() @ weights for part in z.split(rows)
    ]
    return [*torch.cat(density).split([a.shape[1] for a in averages], 1)]


def _grid(mean: Tensor, scale: Tensor) -> tuple[Tensor, float]:
    """The nodes of a trapezoid rule for all of q(z_j), and their distance."""
    low, high = (mean - TAIL * scale).min().item(), (mean + TAIL * scale).max().item()
    step = scale.min().item() / STEPS_PER_SCALE
    n_nodes = int((high - low) / step) + 2
    if n_nodes > MAX_NODES:
        raise ValueError(
            f"q must have scales large enough for a grid of {MAX_NODES} nodes, got a smallest of "
            f"{scale.min():.3g}, which asks for {n_nodes}"
        )
    return low + step * torch.arange(n_nodes).to(mean), step


def _posteriors(q: Any, factors: Tensor) -> tuple[Tensor, Tensor, Factors]:
    """μ and σ ``(N, M)`` in float64 on the CPU, and the factors of the same rows."""
    if not (isinstance(q, Independent) and isinstance(q.base_dist, Normal)) or q.mean.ndim != 2:
        raise ValueError(
            "q must be a batch of N diagonal Gaussians, Independent(Normal(mean, scale), 1) of "
            f"shape (N, M), got {q if isinstance(q, Distribution) else type(q).__name__}"
        )
    mean, scale = (v.detach().double().cpu() for v in (q.base_dist.loc, q.base_dist.scale))
    if values_are_checked() and not (mean.isfinite() & scale.isfinite() & (scale > 0)).all():
        raise ValueError("q must have finite means and finite positive scales, got others")
    table = _table(factors, len(mean), "q")
    _warn_of((mean == mean[0]).all(0) & (scale == scale[0]).all(0))
    return mean, scale, table


def _checked(
    codes: Tensor, factors: Tensor, generator: Seed | None
) -> tuple[Factors, Tensor, torch.Generator]:
    """The table, the codes that vary ``(N, M)``, both on the CPU, and a generator."""
    check_points(codes, None, None, "codes")
    z = codes.detach().double().cpu()
    table = _table(factors, len(z), "codes")
    still = (z == z[0]).all(0)
    if still.all():
        raise ValueError(f"codes must vary, got {len(still)} latents that are all constant")
    _warn_of(still)
    return table, z[:, ~still], _source(generator)


def _table(factors: Tensor, n_rows: int, name: str) -> Factors:
    table = Factors(factors)
    if table.n_rows != n_rows:
        raise ValueError(
            f"factors must have a row for each of the {n_rows} of {name}, got {table.n_rows}"
        )
    return table


def _warn_of(still: Tensor) -> None:
    if still.any():
        warnings.warn(
            f"latents {still.nonzero().flatten().tolist()} of {len(still)} are constant over the "
            "data: they name no factor",
            ConstantLatentWarning,
            stacklevel=4,
        )


def _source(generator: Seed | None) -> torch.Generator:
    return as_generator(int(torch.randint(2**31, ())) if generator is None else generator)


def _questions(n: int, name: str, table: Factors) -> Tensor:
    """The factor y of each of n points, ``(n,)``: in turn, so that none is missing anywhere."""
    if check_count(n, name) < 3 * table.n_factors:
        raise ValueError(
            f"{name} must be at least three for each of the {table.n_factors} factors, got {n}"
        )
    return torch.arange(n) % table.n_factors


def _share_right(right: Tensor) -> Estimate:
    """k / n, and √(p (1 − p) / n) at p = (k + 1) / (n + 2)."""
    k, n = int(right.sum()), len(right)
    p = (k + 1) / (n + 2)
    return Estimate(k / n, (p * (1 - p) / n) ** 0.5)
