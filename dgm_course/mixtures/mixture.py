"""What the mixtures share: scikit-learn's manners, the start, and the loop over half-steps."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from dgm_course.checks import check_count, check_number
from dgm_course.mixtures.gaussians import (
    Expectation,
    Gaussians,
    Moments,
    cholesky_of_covariances,
    expectation,
    weighted_moments,
)


class Mixture(DensityMixin, BaseEstimator, ABC):
    """Coordinate ascent on a bound: q(Z) with θ held (E-step), then θ with q(Z) held (M-step).

    A subclass sets what ``fit`` learns as attributes with a trailing underscore, NumPy arrays in
    float64, and says what one half-step and the bound are.
    """

    n_components: int
    covariance_type: str
    tol: float
    max_iter: int
    n_init: int
    means_init: ArrayLike | None
    random_state: Any
    warm_start: bool

    @abstractmethod
    def _check_parameters(self, x: np.ndarray) -> None:
        """Raise a ValueError for constructor arguments that do not fit the data."""

    @abstractmethod
    def _start(self, points: Tensor, centre: Tensor, random_state: Any) -> None:
        """Set parameters to start from; ``points`` are centred, ``(D, N)``."""

    @abstractmethod
    def _scores(self, centre: Tensor) -> tuple[Gaussians, Tensor]:
        """The E-step's components, in centred coordinates, and its log-weights ``(K,)``."""

    @abstractmethod
    def _maximise(self, moments: Moments, centre: Tensor) -> None:
        """The M-step: set parameters from the moments, in centred coordinates."""

    def _check_result(self) -> None:
        """Warn of what the fitted parameters show to be wrong."""

    @abstractmethod
    def _bound(self, found: Expectation, centre: Tensor) -> float:
        """The bound at the q(Z) that left ``found`` and the present parameters."""

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Fit to ``X`` ``(N, D)``; ``y`` is ignored.

        Raises:
            ValueError: for bad data or arguments, for a ``warm_start`` from a fit of another size,
                and for a covariance that becomes singular.
        """
        x = self._checked(X, reset=True)
        self._check_parameters(x)
        points, centre = centred(x)
        # A variance that rounding leaves of equal values.
        self._floor = torch.from_numpy(
            (16 * np.finfo(float).eps * np.maximum(x.max(0), -x.min(0))) ** 2
        )
        go_on = self.warm_start and hasattr(self, "converged_")
        if go_on and self.means_.shape != (self.n_components, x.shape[1]):
            raise ValueError(
                "warm_start must go on from a fit of the same size: it had n_components = {}, "
                "n_features = {}, and now n_components = {}, n_features = {}".format(
                    *self.means_.shape, self.n_components, x.shape[1]
                )
            )
        if go_on:
            self._check_fitted()
        self._fitted_kind = self._kind()
        random_state = check_random_state(self.random_state)
        best: dict[str, Any] = {}
        for _ in range(1 if go_on else self.n_init):
            if not go_on:
                self._start(points, centre, random_state)
            self._ascend(points, centre)
            if not best or self.lower_bound_ > best["lower_bound_"]:
                best = dict(vars(self))
        self.__dict__.update(best)
        if self.max_iter == 0:
            return self  # the start, which nobody asked to be checked
        if not self.converged_:
            warnings.warn(
                f"not converged: after max_iter={self.max_iter} iterations the bound still moves "
                f"by tol={self.tol:g} or more an iteration; raise max_iter or tol",
                ConvergenceWarning,
                stacklevel=2,
            )
        self._check_result()
        return self

    def _ascend(self, points: Tensor, centre: Tensor) -> None:
        """Iterate from the present parameters until the bound moves by less than ``tol``."""
        bounds: list[tuple[float, float]] = []
        self.converged_ = False
        last = getattr(self, "lower_bound_", -math.inf) if self.warm_start else -math.inf
        self.lower_bound_ = last
        while len(bounds) < self.max_iter and not self.converged_:
            found = expectation(points, *self._scores(centre))
            after_e = self._bound(found, centre)
            self._maximise(found.moments, centre)
            bounds.append((after_e, self._bound(found, centre)))
            self.lower_bound_ = after_e
            self.converged_ = abs(after_e - last) < self.tol
            last = after_e
        self.n_iter_ = len(bounds)
        self.half_step_bounds_ = np.array(bounds).reshape(-1, 2)

    def _assigned(self, points: Tensor, centre: Tensor, random_state: Any) -> Moments:
        """Moments of the points given to the nearest of K centres, by default from k-means++."""
        from sklearn.cluster import kmeans_plusplus

        if self.means_init is not None:
            centres = torch.tensor(np.array(self.means_init, dtype=float)) - centre
        else:
            found, _ = kmeans_plusplus(
                points.T.numpy(), self.n_components, random_state=random_state
            )
            centres = torch.from_numpy(found)
        distance = torch.cdist(points.T, centres, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distance.argmin(1)
        weights = (nearest == torch.arange(self.n_components)[:, None]).double()  # (K, N)
        moments = weighted_moments(points, weights, self.covariance_type)
        return moments._replace(means=centres)

    # --- what a fitted mixture says of points -----------------------------------------------

    def e_step(self, X: ArrayLike) -> np.ndarray:
        """q(z = k | xₙ) at the present parameters, the responsibilities, ``(N, K)``."""
        scores = self._scores_of(X)
        return torch.softmax(scores, 0).T.contiguous().numpy()

    def m_step(self, X: ArrayLike, responsibilities: ArrayLike) -> Self:
        """Set the parameters to the optimum given ``responsibilities`` ``(N, K)``.

        Raises:
            ValueError: unless every row is a distribution over the K components.
        """
        x, r = self._checked_with(X, responsibilities)
        points, centre = centred(x)
        self._maximise(weighted_moments(points, r.T, self.covariance_type), centre)
        return self

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """The responsibilities, ``(N, K)``."""
        return self.e_step(X)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The component of the largest responsibility, ``(N,)``."""
        return self.e_step(X).argmax(1)

    @abstractmethod
    def score_samples(self, X: ArrayLike) -> np.ndarray:
        """log p(x) in nats, ``(N,)``."""

    def score(self, X: ArrayLike, y: object = None) -> float:
        """The mean of log p(x) over ``X``, in nats; ``y`` is ignored."""
        return float(self.score_samples(X).mean())

    def _scores_of(self, X: ArrayLike) -> Tensor:
        """log weight + log-density of each component at each point, ``(K, N)``, in nats."""
        self._check_fitted()
        x = torch.tensor(self._checked(X))
        gaussians, log_weights = self._scores(torch.zeros(x.shape[1]))
        return gaussians.log_density(x.T) + log_weights[:, None]

    def sample(self, n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Draws ``(n, D)`` and the components ``(n,)`` that they came from, by ``random_state``."""
        self._check_fitted()
        n_samples = check_count(n_samples, "n_samples")
        random = check_random_state(self.random_state)
        z = random.choice(self.n_components, n_samples, p=self.weights_)
        noise = random.standard_normal((n_samples, self.means_.shape[1]))
        noise *= self._stretch(z, random)[:, None]
        u = self._scores(torch.zeros(self.means_.shape[1]))[0].per_component
        x = self.means_[z]
        for k in range(self.n_components):
            # Λ = U Uᵀ, so that U⁻ᵀ noise has the covariance Λ⁻¹.
            e = torch.from_numpy(noise[z == k])
            x[z == k] += (torch.linalg.solve(u[k].T, e.T).T if u.ndim == 3 else e / u[k]).numpy()
        return x, z

    def _stretch(self, z: np.ndarray, random: Any) -> np.ndarray:
        """By how much each draw lies further out than a Gaussian's, ``(n,)``."""
        return np.ones(len(z))

    # --- checks -----------------------------------------------------------------------------

    def _kind(self) -> dict[str, Any]:
        """The arguments that say what the fitted attributes mean."""
        return {"n_components": self.n_components, "covariance_type": self.covariance_type}

    def _check_fitted(self) -> None:
        """Raise unless there was a fit, by an estimator of the same kind."""
        check_is_fitted(self)
        fitted = getattr(self, "_fitted_kind", self._kind())
        if fitted != self._kind():
            raise ValueError(
                f"the arguments must be those of the fit, {fitted}, got {self._kind()}; fit again"
            )

    def _checked(self, X: ArrayLike, *, reset: bool = False) -> np.ndarray:
        return validate_data(self, X, reset=reset, dtype=np.float64, ensure_min_samples=1 + reset)

    def _checked_with(self, X: ArrayLike, responsibilities: ArrayLike) -> tuple[np.ndarray, Tensor]:
        self._check_fitted()
        x = self._checked(X)
        shape = len(x), self.n_components  # a row for each point
        r = torch.from_numpy(check_array(responsibilities, "responsibilities", shape).copy())
        off = (r.sum(1) - 1).abs().max().item()
        if off > rounding(responsibilities) or (r < 0).any():
            raise ValueError(
                "each row of responsibilities must be a distribution over the components: "
                f"expected sums of 1 and nothing negative, got a row that is off by {off:.3g} "
                f"and a least value of {r.min().item():.3g}"
            )
        return x, r

    def _check_common(self, x: np.ndarray) -> None:
        for name, least in {"n_components": 1, "max_iter": 0, "n_init": 1}.items():
            check_count(getattr(self, name), name, least)
        check_number(self.tol, "tol", or_zero=True)
        if len(x) < self.n_components:
            raise ValueError(
                f"Expected n_samples >= n_components but got n_components = {self.n_components}, "
                f"n_samples = {len(x)}"
            )
        if self.means_init is not None:
            check_array(self.means_init, "means_init", (self.n_components, x.shape[1]))

    def _cholesky(self, covariances: Tensor, counts: Tensor, remedy: str) -> Tensor:
        """U of the covariances, or a ValueError that names a component whose one is singular."""
        u, singular = cholesky_of_covariances(covariances, self.covariance_type, self._floor)
        if singular.any():
            k = int(singular.nonzero()[0])
            who = f"component {k}, with {counts[k].item():.3g} of the points,"
            if self.covariance_type == "tied":
                who = "the shared covariance"
            raise ValueError(
                f"{who} has collapsed: its points coincide or lie in a flat set, its covariance is "
                "singular, and the likelihood has no maximum there. Take fewer components, another "
                f"start, or {remedy}"
            )
        return u


def centred(x: np.ndarray) -> tuple[Tensor, Tensor]:
    """The points less their mean, features in rows, ``(D, N)``, and the mean ``(D,)``.

    Far-off data would lose digits in the squares. One copy of the data, and no more.
    """
    centre = x.mean(0)
    points = np.subtract(x.T, centre[:, None], out=np.empty(x.shape[::-1]))
    return torch.from_numpy(points), torch.from_numpy(centre)


def check_array(values: ArrayLike, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """The values in float64; a ValueError unless they are finite numbers, of that shape if any."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor with a gradient, say
        raise ValueError(f"{name} must be an array of numbers: {error}") from error
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got NaN or inf")
    return array


def rounding(values: ArrayLike) -> float:
    """By how much an equality of such numbers may be off: 10⁻⁶, or half the digits of a dtype."""
    dtype = np.asarray(values).dtype
    eps = np.finfo(dtype).eps if np.issubdtype(dtype, np.floating) else 0.0
    return max(1e-6, float(eps) ** 0.5)


def check_definite(
    values: ArrayLike,
    name: str,
    shape: tuple[int, ...],
    *,
    or_singular: bool = False,
    advice: str = "",
) -> np.ndarray:
    """The matrices ``(..., D, D)``, symmetric to the last digit.

    A ValueError unless they were symmetric up to `rounding`, and positive definite.
    """
    array = check_array(values, name, shape)
    scale = np.sqrt(np.abs(np.diagonal(array, axis1=-2, axis2=-1)))
    off = np.abs(array - np.swapaxes(array, -1, -2))
    array = (array + np.swapaxes(array, -1, -2)) / 2
    least = np.linalg.eigvalsh(array).min()
    symmetric = (off <= rounding(values) * scale[..., :, None] * scale[..., None, :]).all()
    if not symmetric or not (least > 0 or (or_singular and least == 0)):
        raise ValueError(
            f"{name} must be symmetric and positive definite, got entries that differ from their "
            f"mirror images by up to {off.max():.3g} and a least eigenvalue of {least:.3g}{advice}"
        )
    return array


def warn_of_repeated_rows(x: np.ndarray) -> None:
    ordered = x[np.lexsort(x.T)]
    n_repeated = int((ordered[1:] == ordered[:-1]).all(1).sum())
    if n_repeated:
        warnings.warn(
            f"{n_repeated} of {len(x)} rows repeat another, and nothing keeps covariances from 0: "
            "a component that settles on equal rows has no largest likelihood; drop them, or "
            "regularise",
            UserWarning,
            stacklevel=4,
        )
