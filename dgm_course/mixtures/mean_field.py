"""Mean field by coordinate ascent, where everything is known in closed form: a Gaussian target."""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from dgm_course.checks import check_count, check_number
from dgm_course.mixtures.mixture import check_array, check_definite


class MeanFieldGaussian:
    """q(t) = Πⱼ N(tⱼ | mⱼ, vⱼ) for the target p(t) = N(t | μ, Λ⁻¹), one factor at a time.

    log qⱼ = E_{i≠j} log p + const is quadratic in tⱼ, so that qⱼ is Gaussian, with

        vⱼ = 1 / Λⱼⱼ,    mⱼ = μⱼ − Σ_{i≠j} Λⱼᵢ (mᵢ − μᵢ) / Λⱼⱼ .

    The fixed point has the right means and variances 1 / Λⱼⱼ ≤ Σⱼⱼ: it is too compact. In two
    dimensions of correlation ρ, KL(q ‖ p) = −½ ln(1 − ρ²) there, and from the second sweep on the
    error of the means shrinks by ρ² a sweep.

    Source: Bishop 2006, *Pattern Recognition and Machine Learning*, section 10.1.2.

    Args:
        mean: μ ``(D,)``.
        precision: Λ ``(D, D)``, symmetric and positive definite.
        start: the means ``(D,)`` that q starts from, by default 0. Variances start at 1.

    Attributes:
        means, variances: of the factors, ``(D,)``, float64.
        history: ``(means, bound)`` at the start and after each update; the bound −KL(q ‖ p) in
            nats is the ELBO, for p is normalised.

    Raises:
        ValueError: for shapes that do not fit, or a precision that is not symmetric and positive
            definite.

    Omits: targets without closed-form expectations; factors of more than one coordinate.
    """

    def __init__(
        self, mean: ArrayLike, precision: ArrayLike, start: ArrayLike | None = None
    ) -> None:
        self.mean = _vector(mean, "mean")
        d = len(self.mean)
        self.precision = torch.from_numpy(check_definite(precision, "precision", (d, d)))
        self.means = (
            torch.zeros(d, dtype=torch.float64) if start is None else _vector(start, "start")
        )
        if self.means.shape != (d,):
            raise ValueError(f"start must have shape ({d},), got {tuple(self.means.shape)}")
        self.variances = torch.ones(d, dtype=torch.float64)
        self.history = [(self.means.clone(), -self.kl())]

    def update(self, j: int) -> None:
        """Give factor j the exact optimum, the others held; the bound cannot fall."""
        row = self.precision[check_count(j, "j", 0, most=len(self.mean) - 1)]
        error = self.means - self.mean
        others = row @ error - row[j] * error[j]  # Σ_{i≠j} Λⱼᵢ (mᵢ − μᵢ)
        self.means = self.means.clone()
        self.means[j] = self.mean[j] - others / row[j]
        self.variances = self.variances.clone()
        self.variances[j] = 1 / row[j]
        self.history.append((self.means.clone(), -self.kl()))

    def sweep(self) -> None:
        """One update of each factor, in order."""
        for j in range(len(self.mean)):
            self.update(j)

    def fit(self, tol: float = 1e-10, max_sweeps: int = 10_000) -> int:
        """Sweep until no mean moves by more than ``tol``; the number of sweeps that it took.

        Raises:
            RuntimeError: if ``max_sweeps`` were not enough.
        """
        check_number(tol, "tol", or_zero=True)
        for n_sweeps in range(1, check_count(max_sweeps, "max_sweeps") + 1):
            before = self.means
            self.sweep()
            moved = float((self.means - before).abs().max())
            if moved <= tol:
                return n_sweeps
        raise RuntimeError(f"after {max_sweeps} sweeps a mean still moved by {moved:g} > {tol:g}")

    def kl(self) -> float:
        """KL(q ‖ p) = ½ [Σⱼ Λⱼⱼ vⱼ + (m − μ)ᵀ Λ (m − μ) − D − log|Λ| − Σⱼ log vⱼ] in nats."""
        error = self.means - self.mean
        quadratic = self.precision.diagonal() @ self.variances + error @ self.precision @ error
        logs = torch.logdet(self.precision) + self.variances.log().sum()
        return float(quadratic - len(error) - logs) / 2


def _vector(values: ArrayLike, name: str) -> Tensor:
    vector = torch.from_numpy(check_array(values, name).copy())
    if vector.ndim != 1 or len(vector) == 0:
        raise ValueError(f"{name} must be a vector (D,), got shape {tuple(vector.shape)}")
    return vector
