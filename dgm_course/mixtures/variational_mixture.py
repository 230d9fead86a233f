"""The Gaussian mixture by mean field: q(Z) q(θ) with conjugate factors, or with a Dirac delta."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from dgm_course.checks import check_number
from dgm_course.mixtures.gaussians import Expectation, Gaussians, Moments
from dgm_course.mixtures.mixture import (
    Mixture,
    centred,
    check_array,
    check_definite,
    warn_of_repeated_rows,
)


class VariationalGaussianMixture(Mixture):
    """q(Z) Dir(π | α) Πₖ N(μₖ | mₖ, (βₖ Λₖ)⁻¹) W(Λₖ | Wₖ, νₖ), by coordinate ascent on the ELBO.

    With the prior of the same form, and N_k, x̄ₖ, Sₖ the moments under rₙₖ = q(zₙ = k),

        αₖ = α₀ + N_k,  βₖ = β₀ + N_k,  νₖ = ν₀ + N_k,  mₖ = (β₀ m₀ + N_k x̄ₖ) / βₖ,
        Wₖ⁻¹ = W₀⁻¹ + N_k Sₖ + β₀ N_k / βₖ (x̄ₖ − m₀)(x̄ₖ − m₀)ᵀ,
        log rₙₖ = E log πₖ + ½ E log|Λₖ| − ½ E (xₙ − μₖ)ᵀ Λₖ (xₙ − μₖ) + const .

    With ``delta`` the factor q(θ) is δ(θ − θ*) instead, θ = (π, μ, Λ), and θ* the point where
    that factor's optimum is densest: π*ₖ ∝ αₖ − 1, μ*ₖ = mₖ, Λ*ₖ⁻¹ = Wₖ⁻¹ / (νₖ − D). This is EM
    for the maximum of p(θ | X) as a density in the precisions Λ; as a density in Σ = Λ⁻¹ the same
    prior has its maximum elsewhere. The prior is flat in (π, μ, Λ) for α₀ = 1, β₀ = 0, ν₀ = D,
    W₀⁻¹ = 0; then the updates are those of `GaussianMixture` with ``reg_covar`` = 0. The bound is
    written without H[q(θ)], which is −∞ for a delta.

    Source: Attias 1999, https://proceedings.neurips.cc/paper/1999/hash/74563ba21a90da13dacf2a73e3ddefa7-Abstract.html;
    Bishop 2006, section 10.2. As scikit-learn's BayesianGaussianMixture with
    ``weight_concentration_prior_type="dirichlet_distribution"`` and ``reg_covar`` = 0.

    Args:
        n_components: K, more than are needed: a small α₀ lets the others go.
        weight_concentration_prior: α₀, by default 1 / K, or 1 with a delta.
        mean_precision_prior: β₀, by default 1.
        mean_prior: m₀ ``(D,)``, by default the mean of the data.
        degrees_of_freedom_prior: ν₀ > D − 1, by default D.
        covariance_prior: W₀⁻¹ ``(D, D)``, by default the covariance of the data.
        delta: whether q(θ) is a delta; it needs α₀ ≥ 1 and allows the improper flat prior.
        tol: stop when the bound moves by less, in nats per point; 0 runs every iteration.
        max_iter: iterations of two half-steps.
        n_init: number of starts; the fit of the highest bound is kept.
        means_init: centres ``(K, D)`` to start from, by default from k-means++.
        random_state: for the starts; None, an int or a ``numpy.random.RandomState``.
        warm_start: whether a second ``fit`` goes on from the first.

    Shapes: weight_concentration_, mean_precision_, degrees_of_freedom_ ``(K,)``: α, β, ν;
    means_ ``(K, D)``; covariances_ ``(K, D, D)``: Wₖ⁻¹ / νₖ, or Λ*ₖ⁻¹; weights_ ``(K,)``: E π, or
    π*; half_step_bounds_ ``(n_iter_, 2)`` and lower_bound_ as `GaussianMixture`'s.

    Raises:
        ValueError: for bad data or arguments; with a delta, for a covariance that turns singular.

    Omits: other covariance types; the Dirichlet process; weights for points.
    """

    covariance_type = "full"

    def __init__(
        self,
        n_components: int = 1,
        *,
        weight_concentration_prior: float | None = None,
        mean_precision_prior: float | None = None,
        mean_prior: ArrayLike | None = None,
        degrees_of_freedom_prior: float | None = None,
        covariance_prior: ArrayLike | None = None,
        delta: bool = False,
        tol: float = 1e-3,
        max_iter: int = 100,
        n_init: int = 1,
        means_init: ArrayLike | None = None,
        random_state: Any = None,
        warm_start: bool = False,
    ) -> None:
        self.n_components = n_components
        self.weight_concentration_prior = weight_concentration_prior
        self.mean_precision_prior = mean_precision_prior
        self.mean_prior = mean_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.delta = delta
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.means_init = means_init
        self.random_state = random_state
        self.warm_start = warm_start

    def bound_terms(self, X: ArrayLike, responsibilities: ArrayLike) -> dict[str, float]:
        """The ELBO's terms by name, in nats for all of ``X``, at any r ``(N, K)``.

        Four expectations under q(Z) q(θ) and the entropies of its factors: of q(Z), and, unless
        q(θ) is a delta, of q(π) and q(μ, Λ). An improper prior counts without its constant.
        """
        from dgm_course.mixtures.gaussians import weighted_moments

        x, r = self._checked_with(X, responsibilities)
        points, centre = centred(x)
        entropy = -float(torch.xlogy(r, r).sum())
        return self._terms(weighted_moments(points, r.T, "full"), entropy, centre)

    def lower_bound(self, X: ArrayLike, responsibilities: ArrayLike) -> float:
        """The ELBO, the sum of `bound_terms`, in nats for all of ``X``: at most log p(X)."""
        return sum(self.bound_terms(X, responsibilities).values())

    def score_samples(self, X: ArrayLike) -> np.ndarray:
        """log ∫ p(x | θ) q(θ) dθ in nats, ``(N,)``: a mixture of Student's t, or of Gaussians.

        Component k has νₖ + 1 − D degrees of freedom (Bishop 2006, equations 10.81 and 10.82).
        """
        scores = self._scores_of(X)  # (K, N)
        if self.delta:
            return torch.logsumexp(scores, 0).numpy()
        _, log_weights = self._scores(torch.zeros(self.n_features_in_))
        dof, narrower = (torch.from_numpy(a)[:, None] for a in self._student())
        u = torch.from_numpy(self.precisions_cholesky_)
        log_det = u.diagonal(dim1=1, dim2=2).log().sum(1)[:, None]
        d = self.n_features_in_
        constant = log_det + log_weights[:, None] - 0.5 * d * math.log(2 * math.pi)
        square = 2 * narrower * (constant - scores)  # in units of the t's own width
        half = 0.5 * (dof + d)
        log_t = torch.lgamma(half) - torch.lgamma(0.5 * dof) - half * torch.log1p(square / dof)
        log_t = log_t + log_det + 0.5 * d * torch.log(narrower / (math.pi * dof))
        return torch.logsumexp(torch.from_numpy(self.weights_).log()[:, None] + log_t, 0).numpy()

    def _student(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the predictive t: degrees of freedom, and its precision in units of E Λ; ``(K,)``."""
        dof = self.degrees_of_freedom_ + 1 - self.n_features_in_
        beta, nu = self.mean_precision_, self.degrees_of_freedom_
        return dof, dof * beta / ((1 + beta) * nu)

    def _stretch(self, z: np.ndarray, random: Any) -> np.ndarray:
        if self.delta:
            return super()._stretch(z, random)
        dof, narrower = self._student()
        return np.sqrt(dof[z] / (narrower[z] * random.chisquare(dof[z])))

    # --- the half-steps ---------------------------------------------------------------------

    def _check_parameters(self, x: np.ndarray) -> None:
        self._check_common(x)
        d = x.shape[1]
        alpha = 1.0 if self.delta else 1 / self.n_components
        alpha = self._given("weight_concentration_prior", alpha)
        beta = self._given("mean_precision_prior", 1.0)
        nu = self._given("degrees_of_freedom_prior", float(d))
        if self.delta and not 1 <= alpha < math.inf:
            raise ValueError(
                "weight_concentration_prior must be at least 1 with a delta, or the density of π "
                f"has no maximum, got {alpha:g}"
            )
        if not self.delta and not 0 < alpha < math.inf:
            raise ValueError(f"weight_concentration_prior must be positive, got {alpha:g}")
        if not (0 <= beta if self.delta else 0 < beta) or beta == math.inf:
            raise ValueError(f"mean_precision_prior must be positive, got {beta:g}")
        if not d - 1 < nu < math.inf:
            raise ValueError(f"degrees_of_freedom_prior must be above {d - 1}, got {nu:g}")
        mean = x.mean(0) if self.mean_prior is None else self.mean_prior
        scale = (
            np.cov(x.T).reshape(d, d) if self.covariance_prior is None else self.covariance_prior
        )
        mean = check_array(mean, "mean_prior", (d,))
        advice = "; a feature that does not vary needs a covariance_prior of its own"
        scale = check_definite(
            scale, "covariance_prior", (d, d), or_singular=self.delta, advice=advice
        )
        if self.delta and np.linalg.eigvalsh(scale).min() == 0:
            warn_of_repeated_rows(x)
        self._prior = alpha, beta, torch.tensor(mean), nu, torch.tensor(scale)

    def _given(self, name: str, default: float) -> float:
        """The argument of that name as a number, or the default where it is None."""
        value = getattr(self, name)
        if value is not None:
            check_number(value, name, or_negative=True)
        return default if value is None else float(value)

    def _kind(self) -> dict[str, Any]:
        return super()._kind() | {"delta": self.delta}

    def _start(self, points: Tensor, centre: Tensor, random_state: Any) -> None:
        moments = self._assigned(points, centre, random_state)
        # The cells' common covariance, for a cell may hold one point only.
        share = moments.counts / moments.counts.sum()
        pooled = torch.tensordot(share, moments.covariances, 1).expand_as(moments.covariances)
        self._maximise(moments._replace(covariances=pooled), centre)

    def _scores(self, centre: Tensor) -> tuple[Gaussians, Tensor]:
        means = torch.from_numpy(self.means_) - centre
        gaussians = Gaussians(means, torch.from_numpy(self.precisions_cholesky_), "full")
        log_pi, excess, spread = self._expectations()
        return gaussians, log_pi + 0.5 * (excess - spread)

    def _expectations(self) -> tuple[Tensor, Tensor, Tensor]:
        """E log πₖ, E log|Λₖ| − log|E Λₖ|, E (μₖ − mₖ)ᵀ Λₖ (μₖ − mₖ) = D / βₖ, each ``(K,)``."""
        if self.delta:
            log_pi = torch.from_numpy(self.weights_).log()
            return log_pi, torch.zeros_like(log_pi), torch.zeros_like(log_pi)
        alpha = torch.from_numpy(self.weight_concentration_)
        nu = torch.from_numpy(self.degrees_of_freedom_)
        d = self.means_.shape[1]
        log_pi = torch.digamma(alpha) - torch.digamma(alpha.sum())
        halves = 0.5 * (nu[:, None] - torch.arange(d))  # (K, D)
        excess = torch.digamma(halves).sum(1) - d * torch.log(0.5 * nu)
        return log_pi, excess, d / torch.from_numpy(self.mean_precision_)

    def _maximise(self, moments: Moments, centre: Tensor) -> None:
        counts, (alpha_0, beta_0, mean_0, nu_0, scale_0) = moments.counts, self._prior
        d = moments.means.shape[1]
        alpha, beta, nu = alpha_0 + counts, beta_0 + counts, nu_0 + counts
        difference = moments.means + centre - mean_0
        pull = (beta_0 * counts / beta)[:, None, None]
        outer = difference[:, :, None] * difference[:, None, :]
        scale = scale_0 + counts[:, None, None] * moments.covariances + pull * outer
        if self.delta:
            weights = alpha - 1
            covariances = scale / (nu - d)[:, None, None]
        else:
            weights = alpha
            covariances = scale / nu[:, None, None]
        u = self._cholesky(covariances, counts, "a prior that is not flat")
        self.weight_concentration_, self.mean_precision_ = alpha.numpy(), beta.numpy()
        self.degrees_of_freedom_ = nu.numpy()
        self.weights_ = (weights / weights.sum()).numpy()
        # As m₀ plus a part of the way to x̄: far-off data keeps its digits.
        self.means_ = (mean_0 + (counts / beta)[:, None] * difference).numpy()
        self.covariances_, self.precisions_cholesky_ = covariances.numpy(), u.numpy()

    def _bound(self, found: Expectation, centre: Tensor) -> float:
        terms = self._terms(found.moments, found.entropy, centre)
        return sum(terms.values()) / float(found.moments.counts.sum())

    def _terms(self, moments: Moments, entropy: float, centre: Tensor) -> dict[str, float]:
        gaussians, _ = self._scores(centre)
        log_pi, excess, spread = self._expectations()
        log_density = gaussians.expected_log_density(moments) + 0.5 * (excess - spread)
        terms = {
            "E log p(X | Z, θ)": float(moments.counts @ log_density),
            "E log p(Z | π)": float(moments.counts @ log_pi),
            **self._prior_terms(gaussians.precisions(), log_pi, excess, spread),
            "H[q(Z)]": entropy,
        }
        if not self.delta:
            terms |= self._entropies(log_pi, excess)
        return terms

    def _prior_terms(
        self, precisions: Tensor, log_pi: Tensor, excess: Tensor, spread: Tensor
    ) -> dict[str, float]:
        alpha, beta, mean, nu, scale = self._prior
        k, d, _ = precisions.shape
        log_det = torch.logdet(precisions) + excess
        difference = torch.from_numpy(self.means_) - mean
        square = torch.einsum("kij,ki,kj->k", precisions, difference, difference) + spread
        wishart = 0.5 * ((nu - d) * log_det - (precisions * scale).sum((1, 2)))
        log_p = float((wishart - 0.5 * beta * square).sum())
        if beta > 0 and torch.linalg.cholesky_ex(scale).info == 0:
            nus, log_dets = torch.tensor([nu], dtype=torch.float64), -torch.logdet(scale)[None]
            log_b = float(_log_wishart_constant(nus, log_dets, d))
            log_p += k * (log_b + 0.5 * d * math.log(beta / (2 * math.pi)))
        alphas = torch.full((k,), alpha, dtype=torch.float64)
        log_p_pi = _log_dirichlet_constant(alphas) + (alpha - 1) * float(log_pi.sum())
        return {"E log p(π)": log_p_pi, "E log p(μ, Λ)": log_p}

    def _entropies(self, log_pi: Tensor, excess: Tensor) -> dict[str, float]:
        alpha, beta = (
            torch.from_numpy(a) for a in (self.weight_concentration_, self.mean_precision_)
        )
        nu = torch.from_numpy(self.degrees_of_freedom_)
        d = self.means_.shape[1]
        u = torch.from_numpy(self.precisions_cholesky_)
        log_det_mean = 2 * u.diagonal(dim1=1, dim2=2).log().sum(1)  # log|ν W|
        log_det = log_det_mean + excess
        wishart = -_log_wishart_constant(nu, log_det_mean - d * nu.log(), d)
        wishart = wishart - 0.5 * (nu - d - 1) * log_det + 0.5 * nu * d
        normal = 0.5 * (d + d * torch.log(2 * math.pi / beta) - log_det)
        dirichlet = -_log_dirichlet_constant(alpha) - float(((alpha - 1) * log_pi).sum())
        return {"H[q(π)]": dirichlet, "H[q(μ, Λ)]": float((normal + wishart).sum())}


def _log_dirichlet_constant(alpha: Tensor) -> float:
    """log of Dir(π | α)'s constant, log Γ(Σ α) − Σ log Γ(α)."""
    return float(torch.lgamma(alpha.sum()) - torch.lgamma(alpha).sum())


def _log_wishart_constant(nu: Tensor, log_det: Tensor, d: int) -> Tensor:
    """log B(W, ν) of W(Λ | W, ν) = B |Λ|^((ν − D − 1) / 2) exp(−½ tr W⁻¹Λ), log_det = log|W|."""
    return -0.5 * nu * (log_det + d * math.log(2)) - torch.special.multigammaln(0.5 * nu, d)
