"""What a ratio of densities is good for: total correlation, implicit posteriors, a test."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from dgm_course.checks import check_count, check_points
from dgm_course.data.toy import Seed
from dgm_course.density_ratio.classifiers import MLP, check_classifier, fitted
from dgm_course.density_ratio.ratio import (
    DensityRatio,
    _folds,
    area_under_curve,
    new_generator,
)
from dgm_course.probability import Estimate


def total_correlation(
    z: Tensor, classifier: Any = None, *, generator: Seed | None = None
) -> Estimate:
    """TC = KL(q(z) ‖ Π_d q(z_d)) in nats: samples of q(z) against the same, permuted by dimension.

    A shuffle of each dimension among the N examples makes a sample of the product of marginals.

    TC is never negative; an estimate can be. Without recalibration, as in FactorVAE's training, it
    is the plain average of a classifier's logit, which an imperfect classifier puts on either side
    of 0. With it, values below 0 are rare and within the error. A classifier scored on examples
    that it has not seen estimates the TC of the density that they come from; the exact TC of their
    mixture of posteriors is larger, for it counts every narrow component.

    Source: Kim & Mnih 2018, section 3 and algorithm 1, https://arxiv.org/abs/1802.05983.

    Args:
        z: samples of q(z), ``(N, D)``, D ≥ 2.
        classifier: as in `DensityRatio`.
        generator: a seed or a generator, for the permutation and the fit.
    """
    check_points(z, None, None, "z")
    if z.shape[1] < 2:
        raise ValueError(f"z must have shape (N, D) with D >= 2, got {tuple(z.shape)}")
    source = new_generator(generator)
    order = torch.stack([torch.randperm(len(z), generator=source) for _ in range(z.shape[1])], 1)
    shuffled = z.gather(0, order.to(z.device))
    return DensityRatio(classifier, generator=source).fit(z, shuffled).kl()


def kl_to_prior(
    x: Tensor,
    z_q: Tensor,
    z_prior: Tensor,
    classifier: Any = None,
    *,
    generator: Seed | None = None,
) -> DensityRatio:
    """r(x, z) = log q(z|x) − log p(z), from pairs (x, z ~ q(z|x)) against pairs (x, z ~ p(z)).

    Its average over q(z|x) is the KL term of the ELBO, where q can be sampled and not evaluated.

    Source: Mescheder, Nowozin & Geiger 2017, equation 3.3, https://arxiv.org/abs/1701.04722.

    Args:
        x: data, ``(N, D)``; z_q: one draw of q(z|x) each, ``(N, L)``; z_prior: draws of p(z),
            ``(N, L)``.
        classifier: as in `DensityRatio`.
        generator: a seed or a generator.

    Returns:
        The fitted ratio: ``log_ratio(torch.cat([x, z], 1))`` is r, ``kl()`` its average over q.
    """
    check_points(x, None, None, "x")
    for name, z in (("z_q", z_q), ("z_prior", z_prior)):
        check_points(z, None, x.dtype, name)
        if len(z) != len(x) or z.shape[1] != z_q.shape[1]:
            raise ValueError(
                f"x, z_q and z_prior must be (N, D), (N, L) and (N, L), got {name} of shape "
                f"{tuple(z.shape)} beside x of {tuple(x.shape)} and z_q of {tuple(z_q.shape)}"
            )
    pairs_q, pairs_prior = torch.cat([x, z_q], 1), torch.cat([x, z_prior], 1)
    return DensityRatio(classifier, generator=generator).fit(pairs_q, pairs_prior)


class TwoSampleTest(NamedTuple):
    """The held-out area under the curve, and P(an area as large | p = q)."""

    auc: float
    p_value: float


@torch.inference_mode(False)  # as `DensityRatio.fit`
def two_sample_test(
    x: Tensor,
    y: Tensor,
    classifier: Any = None,
    *,
    n_permutations: int = 999,
    generator: Seed | None = None,
) -> TwoSampleTest:
    """Are x and y samples of one distribution? One classifier on half of them, tested on the rest.

    If they are, the labels of the held-out half mean nothing to its scores: the p-value is the
    share of label permutations, the observed one among them, whose area under the curve is as
    large. Nothing is fitted again. It is valid for any classifier, at any sample size.

    Source: Lopez-Paz & Oquab 2017, section 3 (with accuracy for the area),
    https://arxiv.org/abs/1610.06545.

    Args:
        x: samples ``(N, D)``; y: samples ``(M, D)``.
        classifier: as in `DensityRatio`; by default an `MLP`.
        n_permutations: the p-value is a multiple of 1 / (n_permutations + 1).
        generator: a seed or a generator.
    """
    check_points(x, None, None, "x")
    for name, points in (("x", x), ("y", y)):
        check_points(points, x.shape[1], x.dtype, name)
        if len(points) < 4:
            raise ValueError(f"{name} must hold at least 4 points, got {len(points)}")
    check_count(n_permutations, "n_permutations")
    source = new_generator(generator)
    x, y = (points.detach().to(torch.float64, copy=True) for points in (x, y))
    held_x, held_y = ((_folds(len(v), 2, source) == 0).to(v.device) for v in (x, y))
    chosen = MLP() if classifier is None else check_classifier(classifier)
    trained = fitted(chosen, x[~held_x], y[~held_y], source)
    s_x, s_y = trained.logit(x[held_x]), trained.logit(y[held_y])
    ranks = _ranks(torch.cat([s_x, s_y]).cpu())
    observed = ranks[: len(s_x)].sum()
    shuffles = torch.rand(n_permutations, len(ranks), generator=source).argsort(1)
    permuted = ranks[shuffles[:, : len(s_x)]].sum(1)
    as_large = int((permuted >= observed - 1e-6).sum())
    return TwoSampleTest(area_under_curve(s_x, s_y).value, (1 + as_large) / (1 + n_permutations))


def _ranks(scores: Tensor) -> Tensor:
    """Ranks 1 … N of scores ``(N,)``, the average rank for ties."""
    ordered = scores.sort().values
    left = torch.searchsorted(ordered, scores, right=False)
    right = torch.searchsorted(ordered, scores, right=True)
    return (left + right + 1).double() / 2
