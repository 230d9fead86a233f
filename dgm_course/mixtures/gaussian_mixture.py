"""The Gaussian mixture by EM, with both half-steps and their bound open to view."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from dgm_course.checks import check_number
from dgm_course.mixtures.gaussians import (
    COVARIANCE_TYPES,
    Expectation,
    Gaussians,
    Moments,
    cholesky_of_precisions,
)
from dgm_course.mixtures.mixture import (
    Mixture,
    check_array,
    check_definite,
    rounding,
    warn_of_repeated_rows,
)


class GaussianMixture(Mixture):
    """p(x) = Σₖ πₖ N(x | μₖ, Σₖ), fitted by EM: coordinate ascent on the bound

        ℒ(q, θ) = Σₙₖ rₙₖ [log πₖ + log N(xₙ | μₖ, Σₖ) − log rₙₖ] ≤ log p(X | θ) .

    E-step: rₙₖ = p(zₙ = k | xₙ, θ), where the bound touches log p(X | θ). M-step, N_k = Σₙ rₙₖ:
    πₖ = N_k / N, μₖ = Σₙ rₙₖ xₙ / N_k, Σₖ = Σₙ rₙₖ (xₙ − μₖ)(xₙ − μₖ)ᵀ / N_k + reg_covar I. It is
    mean field with q(θ) = δ(θ − θ*), written without H[q(θ)] = −∞. With ``reg_covar`` = 0 no
    half-step lowers the bound; with more, an M-step may, by about that much.

    Source: Dempster, Laird & Rubin 1977, https://doi.org/10.1111/j.2517-6161.1977.tb01600.x;
    Bishop 2006, section 9.4. Arguments and attributes as in scikit-learn's GaussianMixture; from
    the same start it gives the same numbers.

    Args:
        n_components: K.
        covariance_type: "full", "tied" (one Σ for all), "diag" or "spherical".
        tol: stop when the bound moves by less, in nats per point; 0 runs every iteration.
        reg_covar: added to the diagonal of each covariance, in squared units of the data.
        max_iter: iterations, an E-step and an M-step each; 0 keeps the start.
        n_init: number of starts; the fit of the highest bound is kept.
        weights_init, means_init, precisions_init: where to start, ``(K,)``, ``(K, D)``, and
            inverse covariances of the shape of their type. What is not given comes from centres
            by k-means++ (equal weights; the covariance within the cells around the centres).
        random_state: for the starts; None, an int or a ``numpy.random.RandomState``.
        warm_start: whether a second ``fit`` goes on from the first.

    Shapes: ``fit`` takes ``(N, D)``, N ≥ 2. weights_ ``(K,)``, means_ ``(K, D)``; covariances_,
    precisions_ and precisions_cholesky_ ``(K, D, D)``, ``(D, D)``, ``(K, D)``, ``(K,)`` by type;
    half_step_bounds_ ``(n_iter_, 2)``, after each E-step and each M-step, and lower_bound_, after
    the last E-step, in nats per point.

    Raises:
        ValueError: for bad data or arguments; for a covariance that becomes singular.

    Warns:
        ConvergenceWarning: not converged, or a component as narrow as ``reg_covar``.
        UserWarning: equal rows with ``reg_covar`` = 0.

    Omits: scikit-learn's other starts and ``verbose``; weights for points; missing values.
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        weights_init: ArrayLike | None = None,
        means_init: ArrayLike | None = None,
        precisions_init: ArrayLike | None = None,
        random_state: Any = None,
        warm_start: bool = False,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start

    @property
    def precisions_(self) -> np.ndarray:
        """The inverse covariances, of the shape of their type."""
        u = self.precisions_cholesky_
        full = self.covariance_type in ("full", "tied")
        return u @ np.swapaxes(u, -1, -2) if full else u**2

    def lower_bound(self, X: ArrayLike, responsibilities: ArrayLike) -> np.ndarray:
        """Σₖ rₙₖ [log πₖ + log N(xₙ | μₖ, Σₖ) − log rₙₖ] in nats, ``(N,)``, at any r ``(N, K)``."""
        _, r = self._checked_with(X, responsibilities)
        terms = torch.xlogy(r, r)  # 0 at r = 0
        return (torch.where(r > 0, r * self._scores_of(X).T, 0.0) - terms).sum(1).numpy()

    def score_samples(self, X: ArrayLike) -> np.ndarray:
        """log p(x) = log Σₖ πₖ N(x | μₖ, Σₖ) in nats, ``(N,)``."""
        return torch.logsumexp(self._scores_of(X), 0).numpy()

    def bic(self, X: ArrayLike) -> float:
        """−2 log p(X) + P log N, P the number of free parameters: the lower the better."""
        log_p = self.score_samples(X)
        return float(-2 * log_p.sum() + self._n_parameters() * np.log(len(log_p)))

    def aic(self, X: ArrayLike) -> float:
        """−2 log p(X) + 2 P, P the number of free parameters: the lower the better."""
        return float(-2 * self.score_samples(X).sum() + 2 * self._n_parameters())

    def _n_parameters(self) -> int:
        k, d = self.means_.shape
        pairs = d * (d + 1) // 2
        covariances = {"full": k * pairs, "tied": pairs, "diag": k * d, "spherical": k}
        return covariances[self.covariance_type] + k * d + k - 1

    # --- the half-steps ---------------------------------------------------------------------

    def _check_parameters(self, x: np.ndarray) -> None:
        if self.covariance_type not in COVARIANCE_TYPES:
            raise ValueError(
                f"covariance_type must be one of {', '.join(COVARIANCE_TYPES)}, got "
                f"{self.covariance_type!r}"
            )
        self._check_common(x)
        check_number(self.reg_covar, "reg_covar", or_zero=True)
        if self.reg_covar == 0:
            warn_of_repeated_rows(x)
        k, d = self.n_components, x.shape[1]
        if self.weights_init is not None:
            weights = check_array(self.weights_init, "weights_init", (k,))
            off = abs(weights.sum() - 1)
            if (weights < 0).any() or off > rounding(self.weights_init):
                raise ValueError(
                    "weights_init must be non-negative and sum to 1, got a least weight of "
                    f"{weights.min():g} and the sum {weights.sum():g}"
                )
        if self.precisions_init is not None:
            shape = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}
            given = self.precisions_init, "precisions_init", shape[self.covariance_type]
            if self.covariance_type in ("full", "tied"):
                check_definite(*given)
            elif (least := check_array(*given).min()) <= 0:
                raise ValueError(f"precisions_init must be positive, got a least one of {least:g}")

    def _check_result(self) -> None:
        """Warn of components whose width is their regularisation and not their data's."""
        from sklearn.exceptions import ConvergenceWarning

        if self.reg_covar == 0:
            return  # there the M-step raises
        covariances = np.asarray(self.covariances_)
        if self.covariance_type in ("full", "tied"):
            narrowest = np.linalg.eigvalsh(covariances).min(-1)
        else:
            narrowest = covariances.reshape(len(covariances), -1).min(1)
        flat = np.flatnonzero(np.atleast_1d(narrowest) <= 2 * self.reg_covar)
        if len(flat):
            warnings.warn(
                f"{len(flat)} of the covariances (component {flat[0]} first) are as narrow as "
                f"reg_covar={self.reg_covar:g} makes them: the points coincide or lie in a flat "
                "set, and the likelihood grows without limit as reg_covar goes to 0. Take fewer "
                "components, another start, or other units",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _start(self, points: Tensor, centre: Tensor, random_state: Any) -> None:
        k = self.n_components
        given = [self.weights_init, self.means_init, self.precisions_init]
        weights, means, precisions = (None if a is None else np.array(a, float) for a in given)
        self.weights_ = np.full(k, 1 / k) if weights is None else weights / weights.sum()
        if means is not None and precisions is not None:
            self.means_ = means
        else:
            moments = self._assigned(points, centre, random_state)
            self.means_ = (moments.means + centre).numpy()
        if precisions is None:
            self._set_covariances(_pooled(moments, self.covariance_type), moments.counts)
            return
        full = self.covariance_type in ("full", "tied")
        if full:  # up to rounding they are symmetric, and from here on to the last digit
            precisions = (precisions + np.swapaxes(precisions, -1, -2)) / 2
        u = cholesky_of_precisions(torch.from_numpy(precisions), self.covariance_type)
        self.precisions_cholesky_ = u.numpy()
        self.covariances_ = np.linalg.inv(precisions) if full else 1 / precisions

    def _scores(self, centre: Tensor) -> tuple[Gaussians, Tensor]:
        means = torch.from_numpy(self.means_) - centre
        u = torch.from_numpy(self.precisions_cholesky_)
        return Gaussians(means, u, self.covariance_type), torch.from_numpy(self.weights_).log()

    def _maximise(self, moments: Moments, centre: Tensor) -> None:
        self.weights_ = (moments.counts / moments.counts.sum()).numpy()
        self.means_ = (moments.means + centre).numpy()
        self._set_covariances(moments.covariances.clone(), moments.counts)

    def _set_covariances(self, covariances: Tensor, counts: Tensor) -> None:
        full = self.covariance_type in ("full", "tied")
        (covariances.diagonal(dim1=-2, dim2=-1) if full else covariances).add_(self.reg_covar)
        remedy = f"a larger reg_covar than {self.reg_covar:g}"
        self.precisions_cholesky_ = self._cholesky(covariances, counts, remedy).numpy()
        self.covariances_ = covariances.numpy()

    def _bound(self, found: Expectation, centre: Tensor) -> float:
        gaussians, log_weights = self._scores(centre)
        moments = found.moments
        scores = log_weights + gaussians.expected_log_density(moments)  # (K,)
        used = log_weights.isfinite()
        energy = float((moments.counts[used] * scores[used]).sum())
        return (energy + found.entropy) / float(moments.counts.sum())


def _pooled(moments: Moments, covariance_type: str) -> Tensor:
    """The mean covariance within the cells for every component: K = N is not yet singular."""
    if covariance_type == "tied":
        return moments.covariances.clone()
    share = moments.counts / moments.counts.sum()
    pooled = torch.tensordot(share, moments.covariances, 1)
    return pooled.expand_as(moments.covariances).clone()
