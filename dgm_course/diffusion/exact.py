"""What needs no training: a mixture of Gaussians, noised, and all of a Gaussian's numbers."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.distributions import MixtureSameFamily

from dgm_course.checks import (
    as_numbers,
    check_count,
    check_finite,
    check_instance,
    check_integers,
    check_points,
    check_shape,
)
from dgm_course.data.toy import Seed, as_generator
from dgm_course.diffusion.bound import BoundTerms, Variances, gaussian_kl, step_variances
from dgm_course.diffusion.models import DiffusionModel, Prediction
from dgm_course.diffusion.schedules import Schedule, Time, check_chain, step, times_of

Sampler = Literal["ancestral", "ddim", "euler", "heun"]


class MixtureDenoiser(DiffusionModel):
    """p_t(x) = Σ π_k N(x | α μ_k, α² Σ_k + σ² I): noise keeps a mixture of Gaussians a mixture.

    With C_k = α² Σ_k + σ² I and the responsibilities r_k(x), everything is in closed form:

        ∇ log p_t(x) = −Σ r_k C_k⁻¹ (x − α μ_k),
        E[x₀ | x_t = x] = Σ r_k (μ_k + α Σ_k C_k⁻¹ (x − α μ_k)),

    which is the ideal network: a sampler that uses it has no error but its own.

    Args:
        schedule: of the noise.
        weights: π, ``(K,)``, as shares or as odds, positive.
        means: μ, ``(K, D)``.
        covariances: Σ, ``(K, D, D)``, positive definite. A fitted `GaussianMixture` of "full"
            covariances has these three as attributes.

    Shapes: x ``(N, D)`` to the same; its dtype may be any, and all is computed in float64.

    Raises:
        ValueError: for shapes that do not fit, weights or covariances that are not positive.

    Example:
        >>> from dgm_course.data import eight_gaussians_density
        >>> from dgm_course.diffusion import LinearSchedule
        >>> model = MixtureDenoiser.of(eight_gaussians_density(), LinearSchedule())
        >>> x0, _ = model.predict(torch.tensor([[1.0, 0.1]]), 0.05)
        >>> x0  # between the mode at (2, 0) and what x_t says
        tensor([[1.4394, 0.0587]])
    """

    def __init__(self, schedule: Schedule, weights: Any, means: Any, covariances: Any) -> None:
        check_instance(schedule, Schedule, "schedule")
        self.schedule = schedule
        weights, means, covariances = (
            as_numbers(value, name, torch.float64)
            for value, name in (
                (weights, "weights"),
                (means, "means"),
                (covariances, "covariances"),
            )
        )
        check_points(means, None, torch.float64, "means")
        k, d = means.shape
        check_shape(weights, (k,), "weights")
        check_shape(covariances, (k, d, d), "covariances")
        check_finite(covariances, "covariances", "matrices", 2)
        if not ((weights > 0) & weights.isfinite()).all():
            raise ValueError(f"weights must be positive and finite, got {weights.tolist()}")
        # In its own axes a component stays diagonal at every t.
        self._widths, self._axes = torch.linalg.eigh((covariances + covariances.mT) / 2)
        off = (covariances - covariances.mT).abs().max()
        if self._widths.min() <= 0 or off > 1e-6 * covariances.abs().max():
            raise ValueError(
                "covariances must be symmetric and positive definite, got a least eigenvalue of "
                f"{self._widths.min():g} and mirror images {off:g} apart"
            )
        self.weights, self.means, self.covariances = weights / weights.sum(), means, covariances

    @classmethod
    def of(cls, mixture: MixtureSameFamily, schedule: Schedule) -> MixtureDenoiser:
        """The one of a ``torch.distributions`` mixture of Gaussians, such as `data` has."""
        check_instance(mixture, MixtureSameFamily, "mixture")
        components = mixture.component_distribution
        covariances = getattr(components, "covariance_matrix", None)
        if covariances is None:
            covariances = torch.diag_embed(components.variance.double())
        return cls(schedule, mixture.mixture_distribution.probs, components.mean, covariances)

    def given(self, labels: Tensor) -> MixtureDenoiser | _Components:
        """The model of p(x | k), a component for each example, ``(N,)``: for `Guided`."""
        check_integers(labels, 0, len(self.weights) - 1, "labels")
        return _Components(self, labels)

    def log_prob(self, x: Tensor, t: Time = 0.0) -> Tensor:
        """log p_t(x) in nats: ``(N, D)`` to ``(N,)``."""
        return self._parts(x, t)[0].logsumexp(1).to(x)

    def score(self, x: Tensor, t: Time) -> Tensor:
        """∇ log p_t(x), also at t = 0, ``(N, D)``."""
        log_joint, white = self._parts(x, t)[:2]
        return -self._mean(log_joint.softmax(1), self._turned(white)).to(x)

    def variance(self, x: Tensor, t: Time) -> Tensor:
        """tr Cov(x₀ | x_t = x)/D, ``(N,)``: what no denoiser can know."""
        log_joint, white, c, alpha, sigma = self._parts(x, t)
        r = log_joint.softmax(1)
        means = self.means + self._turned(alpha * self._widths * white)  # (N, K, D)
        within = (self._widths * sigma.square() / c).sum(2)
        between = (means - self._mean(r, means)[:, None]).square().sum(2)
        return ((r * (within + between)).sum(1) / x.shape[1]).to(x)

    def sample(self, n: int, generator: Seed, t: float = 0.0) -> Tensor:
        """n exact draws from p_t, ``(n, D)``, float64."""
        generator, n = as_generator(generator), check_count(n, "n")
        which = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        z = torch.randn(n, self.means.shape[1], generator=generator, dtype=torch.float64)
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        scale = (alpha.square() * self._widths + sigma.square()).sqrt()[which]
        return alpha * self.means[which] + torch.einsum("nij,nj->ni", self._axes[which], scale * z)

    def _parts(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """log π_k N_k ``(N, K)``; along each Σ_k's axes C⁻¹(x − αμ) and C ``(N, K, D)``; α; σ."""
        check_points(x, self.means.shape[1], None, "x")
        t = times_of(x, t).double()
        alpha, sigma = (v[:, None, None] for v in (self.schedule.alpha(t), self.schedule.sigma(t)))
        c = alpha.square() * self._widths + sigma.square()
        apart = x.double()[:, None] - alpha * self.means
        y = torch.einsum("kij,nki->nkj", self._axes, apart)
        squared = (y.square() / c + c.log()).sum(2) + len(y[0, 0]) * math.log(2 * math.pi)
        return self.weights.log() - 0.5 * squared, y / c, c, alpha, sigma

    def _turned(self, y: Tensor) -> Tensor:
        """From each component's axes to the data's, ``(N, K, D)``."""
        return torch.einsum("kij,nkj->nki", self._axes, y)

    @staticmethod
    def _mean(r: Tensor, values: Tensor) -> Tensor:
        return torch.einsum("nk,nkd->nd", r, values)

    def _predict(self, x: Tensor, t: Tensor) -> Prediction:
        log_joint, white, _, alpha, sigma = self._parts(x, t)
        return self._prediction(x, log_joint.softmax(1), white, alpha, sigma)

    def _prediction(self, x: Tensor, r: Tensor, white: Tensor, alpha: Tensor, sigma: Tensor) -> Any:
        x0 = self._mean(r, self.means + self._turned(alpha * self._widths * white))
        noise = sigma[:, 0] * self._mean(r, self._turned(white))
        return Prediction(x0.to(x), noise.to(x))


class _Components(DiffusionModel):
    """One component of a mixture for each example."""

    def __init__(self, mixture: MixtureDenoiser, labels: Tensor) -> None:
        self.mixture, self.schedule, self.labels = mixture, mixture.schedule, labels

    def _predict(self, x: Tensor, t: Tensor) -> Prediction:
        check_shape(self.labels, (len(x),), "labels")
        log_joint, white, _, alpha, sigma = self.mixture._parts(x, t)
        r = torch.nn.functional.one_hot(self.labels, log_joint.shape[1]).double()
        return self.mixture._prediction(x, r, white, alpha, sigma)


# --- one Gaussian: every number in closed form -------------------------------------------------


def gaussian_bound(
    eigenvalues: Any, schedule: Schedule, times: Tensor, variances: Variances = "posterior"
) -> BoundTerms:
    """E over x₀ ~ N(0, λ) of every term of `variational_bound`, with the best denoiser, exactly.

    With V_t = λσ²/(α²λ + σ²), what x_t leaves open of x₀, and `step`'s c = from_x0: a step's term
    is ½ ((β̃ + c² V_t)/v − 1 + ln v/β̃); the prior's, ½ ((α₁²λ + σ₁²)/p² − 1 − ln σ₁²/p²); and the
    reconstruction's, ½ (V_{t₁}/v₁ + ln 2πv₁). Their sum is at least the entropy ½ ln 2πeλ, and is
    that entropy, but for the prior's mismatch, with variances "optimal".

    Args:
        eigenvalues: λ > 0, ``(D,)``: each is a dimension of its own, as an example of a batch is.
        schedule: of the noise.
        times: a chain ``(T + 1,)`` from 0.
        variances: the model's, as in `variational_bound`, or "optimal": β̃ + c² V_t.

    Returns:
        The terms, ``(D,)`` in the place of ``(N,)``, in nats, float64.

    Example:
        >>> from dgm_course.diffusion import LinearSchedule, time_grid
        >>> terms = gaussian_bound([1.0], LinearSchedule(), time_grid(100), "optimal")
        >>> print(f"{terms.nats.item():.5f}, entropy {0.5 * math.log(2 * math.pi * math.e):.5f}")
        1.41894, entropy 1.41894
    """
    lam, times = _eigenvalues(eigenvalues), check_chain(schedule, times)
    of = step(schedule, times[:-1], times[1:])
    alpha, sigma = schedule.alpha(times[1:, None]), schedule.sigma(times[1:, None])  # (T, 1)
    left = lam * sigma.square() / (alpha.square() * lam + sigma.square())  # (T, D)
    missed = of.from_x0[:, None].square() * left
    q = of.variance[:, None]
    if isinstance(variances, str) and variances == "optimal":
        v = q + missed
    else:
        v = step_variances(schedule, times, variances)[:, None].expand_as(left)
    prior = torch.tensor(schedule.prior_scale**2, dtype=torch.float64)
    terms = gaussian_kl(q[1:], v[1:], missed[1:])
    return BoundTerms(
        gaussian_kl(sigma[-1].square(), prior, alpha[-1].square() * lam),
        terms,
        0.5 * (left[0] / v[0] + (2 * math.pi * v[0]).log()),
    )


def gaussian_variance(
    eigenvalues: Any,
    schedule: Schedule,
    times: Tensor,
    method: Sampler,
    variances: Variances = "posterior",
) -> Tensor:
    """The variance that a sampler ends with, of data N(0, λ) and the best denoiser, ``(D,)``.

    Each step multiplies x by a number and may add noise, so that the variance follows by recursion,
    and no sample is drawn: what is left of λ − variance is the sampler's own error. The start is
    exact, of variance α²λ + σ² at the last time.

    Args:
        eigenvalues: λ > 0, ``(D,)``.
        schedule: of the noise.
        times: a chain ``(T + 1,)``; at its first time the exact variance is α²λ + σ², and λ at 0.
        method: "ancestral", "ddim", or of the probability flow "euler" or "heun".
        variances: of "ancestral".

    Example:
        >>> from dgm_course.diffusion import LinearSchedule, time_grid
        >>> for method in ("ddim", "euler", "heun"):
        ...     print(method, gaussian_variance([4.0], LinearSchedule(), time_grid(40), method))
        ddim tensor([3.7099], dtype=torch.float64)
        euler tensor([3.9112], dtype=torch.float64)
        heun tensor([4.0142], dtype=torch.float64)
    """
    if method not in get_args(Sampler):
        raise ValueError(f"method must be one of {get_args(Sampler)}, got {method!r}")
    lam, times = _eigenvalues(eigenvalues), check_chain(schedule, times)
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    f, g2 = schedule.rates(times)
    exact = alpha.square()[:, None] * lam + sigma.square()[:, None]  # (T + 1, D)
    slope = f[:, None] + 0.5 * g2[:, None] / exact  # of the flow, dx/dt = slope · x
    of = step(schedule, times[:-1], times[1:])
    v = step_variances(schedule, times, variances)
    variance = exact[-1]
    for i in range(len(times) - 2, -1, -1):
        h = times[i] - times[i + 1]
        from_x0, from_noise = alpha[i + 1] * lam / exact[i + 1], sigma[i + 1] / exact[i + 1]
        added = torch.zeros(())
        if method == "ddim":
            factor = alpha[i] * from_x0 + sigma[i] * from_noise
        elif method == "ancestral":
            factor = of.from_x[i] + of.from_x0[i] * from_x0
            added = v[i] if sigma[i] > 0 else added
        elif method == "euler" or sigma[i] == 0:
            factor = 1 + h * slope[i + 1]
        else:
            factor = 1 + 0.5 * h * (slope[i + 1] + slope[i] * (1 + h * slope[i + 1]))
        variance = factor.square() * variance + added
    return variance


def _eigenvalues(eigenvalues: Any) -> Tensor:
    lam = as_numbers(eigenvalues, "eigenvalues", torch.float64)
    if lam.ndim != 1 or not len(lam) or not ((lam > 0) & lam.isfinite()).all():
        raise ValueError(f"eigenvalues must be positive and finite, (D,), got {lam.tolist()}")
    return lam
