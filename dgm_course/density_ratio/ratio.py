"""log p(x)/q(x) and the divergences between p and q, from samples of both."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from dgm_course.checks import check_count, check_points
from dgm_course.data.toy import Seed, as_generator
from dgm_course.density_ratio.classifiers import (
    MLP,
    Classifier,
    Logistic,
    Standardise,
    check_classifier,
    fitted,
    newton,
)
from dgm_course.losses import log_loss
from dgm_course.probability import Estimate

RIDGE = 1e-2  # as in `Logistic`: keeps the recalibration finite where classes are separable


class DegenerateSupportWarning(UserWarning):
    """The samples are separable: JSD is near its bound ln 2, and KL is no measurement."""


class ContradictionWarning(UserWarning):
    """The scores order the samples too well for the divergence that they average to."""


class DensityRatio:
    """log p(x)/q(x) = logit P(y = 1 | x) − log n_p/n_q, where y = 1 marks the samples of p.

    A classifier that is trained by a proper scoring rule on n_p samples of p and n_q of q tends to
    P(y = 1 | x) = n_p p(x) / (n_p p(x) + n_q q(x)); its log-odds are the log-ratio, shifted by the
    counts' log-odds, which are taken off.

    The divergences are averages over held-out points. In each of ``n_folds`` parts the log-odds s
    come from a classifier that has not seen that part; a logistic regression of y on 1, s and s²
    over all of them then recalibrates s. It makes up for over-confidence, and it makes the errors
    honest: an average of r moves with the classifier to first order, so that an error which leaves
    the classifier out is too small. The error here is the sandwich (delta-method) error of the
    average and of those three weights together. Recalibration takes out the error of s's level,
    slope and curvature only. With s = r + ε f and an f of another shape, `kl` is off by a multiple
    of ε, up or down; `dual_kl` is off by a multiple of ε², and always down. Where p = q the
    estimates are not 0 but about 1/n_p + 1/n_q. No error tells of a classifier that is too weak to
    see the difference.

    Source: Sugiyama, Suzuki & Kanamori 2012, chapter 4,
    https://doi.org/10.1017/CBO9781139035613; recalibration: Platt 1999; the label's convention is
    that of Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661.

    Args:
        classifier: a `Logistic`, an `MLP`, or a scikit-learn classifier with ``predict_proba``. By
            default the simplest of ``Logistic(1)``, ``Logistic(2)`` and ``MLP()`` whose loss on a
            held-out third is within one standard error (of the difference) of the best; it is then
            refitted on all data. The quadratic takes part where it has ten examples a weight.
        n_folds: parts of the cross-fit.
        generator: a seed or a ``torch.Generator`` on the CPU, for folds and networks; by default
            one that is seeded by torch's global stream.

    Attributes, once fitted: ``classifier_``, fitted to all data; ``losses_``, the held-out loss of
    each candidate in nats, where there was a choice; ``held_out_p_`` and ``held_out_q_``, the
    recalibrated log-ratios of the samples, each by the classifiers that had not seen it.

    Omits: samples that depend on one another, whose errors differ from those given here; devices
    without float64, in which everything is computed.
    """

    def __init__(
        self, classifier: Any = None, *, n_folds: int = 5, generator: Seed | None = None
    ) -> None:
        n_folds = check_count(n_folds, "n_folds", 2)
        self.classifier = None if classifier is None else check_classifier(classifier)
        self.n_folds, self.generator = n_folds, generator

    @torch.inference_mode(False)  # networks are trained by gradients, also under ``no_grad``
    def fit(self, x_p: Tensor, x_q: Tensor) -> DensityRatio:
        """Learn the ratio from samples of p, label 1, and of q, label 0; returns self.

        Shapes: x_p ``(N, D)``, x_q ``(M, D)``; the counts may differ.

        Raises:
            ValueError: for samples that are not finite, differ in features, dtype or device, or
                number fewer than two a fold.

        Warns:
            DegenerateSupportWarning: if fewer than ten held-out points, and fewer than a tenth of
                the smaller sample, lie on the wrong side.
            ContradictionWarning: if a divergence is below what the area under the curve allows
                (`least_kl`), both by three standard errors.
        """
        self._check_samples(x_p, x_q)
        self._dim, self._dtype = x_p.shape[1], x_p.dtype
        x_p, x_q = (x.detach().to(torch.float64, copy=True) for x in (x_p, x_q))
        generator = new_generator(self.generator)
        chosen = self.classifier or self._choose(x_p, x_q, generator)

        fold_p, fold_q = (_folds(len(x), self.n_folds, generator).to(x.device) for x in (x_p, x_q))
        s_p, s_q = torch.empty_like(x_p[:, 0]), torch.empty_like(x_q[:, 0])
        for k in range(self.n_folds):
            trained = fitted(chosen, x_p[fold_p != k], x_q[fold_q != k], generator)
            s_p[fold_p == k] = trained.logit(x_p[fold_p == k])
            s_q[fold_q == k] = trained.logit(x_q[fold_q == k])
        self._scores = s_p, s_q
        self._by_fold = [(s_p[fold_p == k], s_q[fold_q == k]) for k in range(self.n_folds)]
        self._recalibrate(s_p, s_q)
        self.classifier_ = fitted(chosen, x_p, x_q, generator)
        self._warn_if_doubtful()
        return self

    def log_ratio(self, x: Tensor) -> Tensor:
        """log p(x)/q(x), ``(N, D)`` to nats ``(N,)``; differentiable in x but for scikit-learn's.

        The log-odds of ``classifier_``, which must be those at the samples' counts (scikit-learn's:
        no ``class_weight``). They are not recalibrated: `calibration_curve` shows how they are.
        """
        self._check_fitted()
        check_points(x, self._dim, self._dtype, "x")
        return (self.classifier_.logit(x.double()) - self._log_odds).to(x.dtype)

    def ratio(self, x: Tensor) -> Tensor:
        """p(x)/q(x), ``(N, D)`` to ``(N,)``: exp of `log_ratio`, which may overflow to inf."""
        return self.log_ratio(x).exp()

    def kl(self) -> Estimate:
        """KL(p ‖ q) = E_p[r], r = log p/q, in nats, from held-out points."""
        self._check_fitted()
        return self._average(
            self.held_out_p_, torch.ones_like, 0 * self.held_out_q_, torch.zeros_like
        )

    def dual_kl(self) -> Estimate:
        """E_p[s] + 1 − E_q[eˢ] ≤ KL(p ‖ q), in nats, for the held-out scores s ≈ log p/q.

        From log t ≤ t − 1 at t = eˢ q/p. The bound falls short by E_p[e^δ − 1 − δ], δ = s − r,
        about half the average of δ²: the classifier's error enters squared. The scores are not
        recalibrated, and the standard error is that of the two averages for the classifiers as
        they are. It is honest where p and q overlap well; further apart eˢ has a heavy tail under
        q, and a sample without a point of that tail gives a value that is too large and an error
        that is too small.

        Source: Nguyen, Wainwright & Jordan 2010, section II, https://arxiv.org/abs/0809.0853.
        """
        self._check_fitted()
        s_p, s_q = (s - self._log_odds for s in self._scores)
        of_p, of_q = Estimate.from_samples(s_p), Estimate.from_samples(s_q.exp())
        error = (of_p.standard_error**2 + of_q.standard_error**2) ** 0.5
        return Estimate(of_p.value + 1 - of_q.value, error)

    def reverse_kl(self) -> Estimate:
        """KL(q ‖ p) = −E_q[r], r = log p/q, in nats, from held-out points."""
        self._check_fitted()
        minus_one = lambda r: -torch.ones_like(r)  # noqa: E731
        return self._average(0 * self.held_out_p_, torch.zeros_like, -self.held_out_q_, minus_one)

    def jsd(self) -> Estimate:
        """JSD(p ‖ q) = ln 2 + ½ E_p[log σ(r)] + ½ E_q[log σ(−r)], in nats; at most ln 2."""
        self._check_fitted()
        of_p = math.log(2) + logsigmoid(self.held_out_p_) / 2
        of_q = logsigmoid(-self.held_out_q_) / 2
        slope_p = lambda r: torch.sigmoid(-r) / 2  # noqa: E731
        slope_q = lambda r: -torch.sigmoid(r) / 2  # noqa: E731
        return self._average(of_p, slope_p, of_q, slope_q)

    def auc(self) -> Estimate:
        """P(s(x_p) > s(x_q)) of the held-out log-odds s, ½ for a tie: ½ where p = q, at most 1.

        Points are compared within a fold, where one classifier scored them both. The error is that
        of DeLong et al. 1988, https://doi.org/10.2307/2531595.
        """
        self._check_fitted()
        parts = [area_under_curve(s_p, s_q) for s_p, s_q in self._by_fold]
        error = sum(part.standard_error**2 for part in parts) ** 0.5 / len(parts)
        return Estimate(sum(part.value for part in parts) / len(parts), error)

    def calibration_curve(self, n_bins: int = 10) -> tuple[Tensor, Tensor, Tensor]:
        """In bins of the classifier's D: the average D, the true share of p, the bin's weight.

        D = σ(log-odds − log n_p/n_q) of held-out points, before recalibration, as if there were as
        many samples of p as of q. A calibrated classifier has the share that it says.

        Returns:
            Three tensors of the bins that hold points, at most ``n_bins``; the weights add to 1.
        """
        self._check_fitted()
        check_count(n_bins, "n_bins")
        s_p, s_q = self._scores
        d = torch.sigmoid(torch.cat([s_p, s_q]) - self._log_odds)
        weight = torch.cat([torch.full_like(s, 0.5 / len(s)) for s in (s_p, s_q)])
        is_p = torch.arange(len(d)).to(d.device) < len(s_p)
        bins = (d * n_bins).long().clamp(max=n_bins - 1)
        total, of_p, of_d = (
            torch.zeros(n_bins).to(d).index_add(0, bins, values)
            for values in (weight, weight * is_p, weight * d)
        )
        full = total > 0
        return of_d[full] / total[full], of_p[full] / total[full], total[full]

    def _choose(self, x_p: Tensor, x_q: Tensor, generator: torch.Generator) -> Classifier:
        """The simplest classifier within one standard error of the best on a held-out third."""
        held_p, held_q = ((_folds(len(x), 3, generator) == 0).to(x.device) for x in (x_p, x_q))
        test = torch.cat([x_p[held_p], x_q[held_q]])
        y = torch.cat([torch.ones(int(held_p.sum())), torch.zeros(int(held_q.sum()))]).to(test)
        candidates: list[Any] = [Logistic(1), Logistic(2), MLP()]
        if 10 * Logistic(2).n_weights(self._dim) > len(x_p) + len(x_q):
            del candidates[1]
        losses = torch.stack(
            [
                log_loss(fitted(c, x_p[~held_p], x_q[~held_q], generator).logit(test), y)
                for c in candidates
            ]
        )  # (candidates, N)
        mean = losses.mean(1)
        self.losses_ = {describe(c): loss.item() for c, loss in zip(candidates, mean, strict=True)}
        excess = losses - losses[mean.argmin()]
        within = excess.mean(1) <= excess.std(1) / excess.shape[1] ** 0.5
        return candidates[int(within.long().argmax())]

    def _recalibrate(self, s_p: Tensor, s_q: Tensor) -> None:
        """Fit y to a + b s + c s², and keep how each example moves a, b and c."""
        s = torch.cat([s_p, s_q])
        y = (torch.arange(len(s)).to(s.device) < len(s_p)).to(s)
        scale = Standardise(s[:, None], y)
        t = scale(s[:, None])[:, 0]
        features = torch.stack([torch.ones_like(t), t, t * t], 1)  # (N + M, 3)
        # Towards s itself: t is s standardised, but for heavy tails.
        as_it_is = torch.cat([scale.mean, scale.std, torch.zeros_like(scale.std)])
        weights = newton(features, y, RIDGE, as_it_is)
        self._log_odds = math.log(len(s_p) / len(s_q))
        r = features @ weights - self._log_odds
        self.held_out_p_, self.held_out_q_ = r.split([len(s_p), len(s_q)])
        d = torch.sigmoid(features @ weights)
        hessian = (features.T * (d * (1 - d))) @ features
        hessian.diagonal().add_(RIDGE)
        moves = torch.linalg.solve(hessian, ((y - d)[:, None] * features).T).T  # (N + M, 3)
        # The counts n_p, n_q are fixed: what varies is the scores' spread within each class.
        self._moves = [part - part.mean(0) for part in moves.split([len(s_p), len(s_q)])]
        self._features = features.split([len(s_p), len(s_q)])

    def _average(self, of_p: Tensor, slope_p: Any, of_q: Tensor, slope_q: Any) -> Estimate:
        """mean f_p(r) over p plus mean f_q(r) over q, with the error of r's two parameters.

        Args:
            of_p: f_p(r) of p's held-out points, ``(N,)``; of_q: f_q(r) of q's, ``(M,)``.
            slope_p: the derivative of f_p, a function of r; slope_q: that of f_q.
        """
        gradient = slope_p(self.held_out_p_) @ self._features[0] / len(of_p)
        gradient += slope_q(self.held_out_q_) @ self._features[1] / len(of_q)  # (3,)
        variance = 0.0
        for values, moves in zip((of_p, of_q), self._moves, strict=True):
            influence = (values - values.mean()) / len(values) + moves @ gradient
            variance += influence.square().sum().item()
        return Estimate((of_p.mean() + of_q.mean()).item(), variance**0.5)

    def _warn_if_doubtful(self) -> None:
        wrong = int((self.held_out_p_ <= 0).sum() + (self.held_out_q_ >= 0).sum())
        if wrong < min(10, len(self.held_out_p_) / 10, len(self.held_out_q_) / 10):
            warnings.warn(
                f"the samples are separable: {wrong} of {len(self.held_out_p_)} + "
                f"{len(self.held_out_q_)} held-out points lie on the wrong side. JSD then tends to "
                "its largest value, ln 2 = 0.693, and KL is no measurement: it grows with the "
                "classifier's slope, and may be infinite",
                DegenerateSupportWarning,
                stacklevel=4,
            )
            return
        area = self.auc()
        least = least_kl(max(area.value, 1 - area.value) - 3 * area.standard_error)
        for name, kl in (("KL(p ‖ q)", self.kl()), ("KL(q ‖ p)", self.reverse_kl())):
            if kl.value + 3 * kl.standard_error < least:
                warnings.warn(
                    f"{name} = {kl} contradicts the area under the curve, {area}, which asks for "
                    f"{least_kl(area.value):.4f} nats or more: the log-ratios are no measurement. "
                    "Look for far outliers, and at calibration_curve()",
                    ContradictionWarning,
                    stacklevel=4,
                )

    def _check_samples(self, x_p: Tensor, x_q: Tensor) -> None:
        for name, x in (("x_p", x_p), ("x_q", x_q)):
            check_points(x, None, None, name)
            if len(x) < 2 * self.n_folds:
                raise ValueError(
                    f"{name} must hold at least two points a fold, {2 * self.n_folds} for "
                    f"n_folds = {self.n_folds}, got {len(x)}"
                )
        if x_p.shape[1] != x_q.shape[1]:
            raise ValueError(
                f"x_p and x_q must have as many features, got {x_p.shape[1]} and {x_q.shape[1]}"
            )
        if (x_p.dtype, x_p.device) != (x_q.dtype, x_q.device):
            raise ValueError(
                f"x_p and x_q must have one dtype and device, got {x_p.dtype} on {x_p.device} and "
                f"{x_q.dtype} on {x_q.device}"
            )

    def _check_fitted(self) -> None:
        if not hasattr(self, "classifier_"):
            raise ValueError("this DensityRatio is not fitted yet: call fit(x_p, x_q) first")


def describe(classifier: Any) -> str:
    """The name of a candidate in ``losses_``."""
    if isinstance(classifier, Logistic):
        return "linear" if classifier.degree == 1 else "quadratic"
    return type(classifier).__name__


def new_generator(seed: Seed | None) -> torch.Generator:
    """A generator on the CPU from a seed, or from torch's global stream."""
    return as_generator(int(torch.randint(2**31, ())) if seed is None else seed)


def area_under_curve(s_p: Tensor, s_q: Tensor) -> Estimate:
    """P(s_p > s_q) + ½ P(s_p = s_q) of scores ``(N,)`` and ``(M,)``, with DeLong's error."""

    def share_below(s: Tensor, others: Tensor) -> Tensor:
        others = others.sort().values
        left = torch.searchsorted(others, s, right=False)
        right = torch.searchsorted(others, s, right=True)
        return (left + right).double() / (2 * len(others))

    of_p, of_q = share_below(s_p, s_q), share_below(s_q, s_p)
    error = (of_p.var() / len(of_p) + of_q.var() / len(of_q)) ** 0.5
    return Estimate(of_p.mean().item(), error.item())


def least_kl(area: float) -> float:
    """The least KL(p ‖ q) that allows an area A under the curve: max_λ [λ A − log((e^λ − 1) / λ)].

    With F the distribution function of the scores under q, A = E_p[F(s)], and F(s) is uniform
    under q: this is Donsker & Varadhan's bound for the functions λ F. About 6 (A − ½)².
    """
    slope = torch.logspace(-3, 3, 601, dtype=torch.float64)
    bound = slope * (area - 1) - torch.log(-torch.expm1(-slope) / slope)
    return max(0.0, bound.max().item())


def _folds(n: int, n_folds: int, generator: torch.Generator) -> Tensor:
    """The fold 0 … n_folds − 1 of each of n examples, of equal sizes up to one, shuffled."""
    return torch.randperm(n, generator=generator) % n_folds
