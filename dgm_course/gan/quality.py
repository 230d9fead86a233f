"""How good samples are, by features of theirs: a Fréchet distance, precision and recall."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from dgm_course.checks import check_count, check_finite, check_floating, check_points, check_shape

DISTANCES_AT_ONCE = 2**21  # 16 MB


def gaussian_frechet_distance(
    mean_x: Tensor, cov_x: Tensor, mean_y: Tensor, cov_y: Tensor
) -> float:
    """d² = ‖m_x − m_y‖² + tr C_x + tr C_y − 2 tr (C_x^½ C_y C_x^½)^½ between two Gaussians.

    It is their squared Wasserstein distance W₂². With C = R Rᵀ, R = V √Λ of C's eigenvalues and
    eigenvectors, the last trace is the sum of R_xᵀ R_y's singular values: no root of a product
    that is not symmetric, no complex numbers, and singular covariances are a case like others.

    Source: Dowson & Landau 1982, equation 5, https://doi.org/10.1016/0047-259X(82)90077-X.

    Args:
        mean_x, mean_y: ``(D,)``.
        cov_x, cov_y: symmetric and positive semi-definite, ``(D, D)``; computed with in float64.

    Raises:
        ValueError: for other shapes, NaN, or a covariance that is not symmetric or has a negative
            eigenvalue, which is named.

    Example:
        >>> mean, eye = torch.zeros(2), torch.eye(2)
        >>> round(gaussian_frechet_distance(mean, eye, mean + 3, 4 * eye), 6)  # 2 · 3² + 2 (2 − 1)²
        20.0
    """
    check_floating(mean_x, "mean_x")
    if mean_x.ndim != 1 or len(mean_x) == 0:
        raise ValueError(f"mean_x must have shape (D,), got shape {tuple(mean_x.shape)}")
    d = len(mean_x)
    for name, value, shape in (
        ("mean_x", mean_x, (d,)),
        ("cov_x", cov_x, (d, d)),
        ("mean_y", mean_y, (d,)),
        ("cov_y", cov_y, (d, d)),
    ):
        check_shape(value, shape, name)
        check_finite(value, name, "rows")
    root_x, root_y = _root(cov_x, "cov_x"), _root(cov_y, "cov_y")
    return _distance(mean_x.double(), root_x, mean_y.double(), root_y)


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """`gaussian_frechet_distance` of two samples' means and covariances (over n − 1).

    The features are the caller's, and so is the distance's meaning: features of the Inception
    network make it what is known as FID, which these are not, and numbers on different features
    do not compare. It sees two moments: samples that share them are at distance 0.

    It is too large, by about (d + d (d + 1) / 4) (1/n_x + 1/n_y) for samples of one Gaussian with
    C = I in d dimensions: compare numbers of equal n only, beside real samples against real ones.

    Source: Heusel et al. 2017, equation 6, https://arxiv.org/abs/1706.08500.

    Args:
        x, y: features ``(N, D)`` and ``(M, D)``.

    Raises:
        ValueError: for other shapes, NaN, or fewer than two samples.

    Warns:
        UserWarning: with no more samples than features: the covariance is singular, and the bias
            large.

    Example:
        >>> x = torch.tensor([[0.0], [2.0]])
        >>> round(frechet_distance(x, 2 * x), 6)  # means 1 and 2, deviations √2 and √8
        3.0
    """
    _check_pair(x, y, 2)
    for name, features in (("x", x), ("y", y)):
        n, d = features.shape
        if n <= d:
            warnings.warn(
                f"{name} has {n} samples of {d} features: its covariance is singular and the "
                "distance far too large",
                stacklevel=2,
            )
    return _distance(*_moments(x), *_moments(y))


class PrecisionRecall(NamedTuple):
    """Two shares, each in [0, 1]."""

    precision: float  # of the generated samples, those that lie where real ones do
    recall: float  # of the real samples, those that lie where generated ones do


def precision_recall(real: Tensor, generated: Tensor, k: int = 3) -> PrecisionRecall:
    """Shares of one sample within the other's manifold, ∪ᵢ {a : ‖a − xᵢ‖ ≤ rₖ(xᵢ)}.

    rₖ(xᵢ) is the distance from xᵢ to its k-th nearest neighbour in its own sample, itself left
    out. Equal sets have 1 and 1; two samples of one distribution have less, the more so in many
    dimensions (2000 draws of N(0, I) each, k = 3: 0.98 in 2, 0.8 in 16): show real samples against
    real ones beside it. An outlier has a large ball, and a few of them cover what lies between.

    Source: Kynkäänniemi et al. 2019, equations 1 and 2, https://arxiv.org/abs/1904.06991.

    Args:
        real, generated: features ``(N, D)`` and ``(M, D)``; all N², M² and 2 N M distances are
            computed, a few rows at a time.
        k: of the neighbour that sets the radius; more than k samples are needed.

    Raises:
        ValueError: for other shapes, NaN, or no more than k samples.

    Example:
        >>> real = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> precision_recall(real, torch.tensor([[1.0], [1.1], [9.0], [9.1]]), k=1)
        PrecisionRecall(precision=0.5, recall=0.25)
    """
    k = check_count(k, "k")
    _check_pair(real, generated, k + 1, ("real", "generated"), f"k = {k} neighbours")
    generated = generated.to(real)
    return PrecisionRecall(_inside(generated, real, k), _inside(real, generated, k))


def _check_pair(
    x: Tensor, y: Tensor, least: int, names: tuple[str, str] = ("x", "y"), why: str = "a covariance"
) -> None:
    check_points(x, None, None, names[0])
    check_points(y, x.shape[1], None, names[1])
    for name, points in zip(names, (x, y), strict=True):
        if len(points) < least:
            raise ValueError(
                f"{name} must hold at least {least} samples for {why}, got {len(points)}"
            )


def _root(cov: Tensor, name: str) -> Tensor:
    """R with R Rᵀ = C, ``(D, D)``: eigenvalues that are 0 but for rounding count as 0."""
    cov = cov.double()
    scale = cov.abs().max().item()
    if (skew := (cov - cov.T).abs().max().item()) > 1e-6 * scale:
        raise ValueError(f"{name} must be symmetric, got entries that differ by {skew:.3g}")
    values, vectors = torch.linalg.eigh((cov + cov.T) / 2)
    if values[0] < -1e-6 * scale:
        raise ValueError(
            f"{name} must have no negative eigenvalue, got {values[0].item():.3g} beside "
            f"{values[-1].item():.3g}"
        )
    # A root would make 1e-8 of a rounding error of 1e-16.
    kept = values.where(values > len(cov) * torch.finfo(cov.dtype).eps * scale, 0)
    return vectors * kept.sqrt()


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean ``(D,)`` and R, R Rᵀ the covariance: a QR never squares what it then takes roots of.

    R is ``(D, min(N, D))``.
    """
    x = x.double()
    mean = x.mean(0)
    return mean, torch.linalg.qr((x - mean) / (len(x) - 1) ** 0.5, mode="r").R.T


def _distance(mean_x: Tensor, root_x: Tensor, mean_y: Tensor, root_y: Tensor) -> float:
    common = torch.linalg.svdvals(root_x.T @ root_y).sum()
    squares = (mean_x - mean_y).square().sum() + root_x.square().sum() + root_y.square().sum()
    return max((squares - 2 * common).item(), 0.0)  # below 0 by rounding only


def _distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """‖xᵢ − yⱼ‖, a few rows at a time, by differences: equal points are at distance 0 exactly."""
    rows = max(DISTANCES_AT_ONCE // len(y), 1)
    mode = "donot_use_mm_for_euclid_dist"
    return (torch.cdist(part, y, compute_mode=mode) for part in x.split(rows))


def _inside(x: Tensor, centres: Tensor, k: int) -> float:
    """The share of x within any centre's ball, as far as its k-th neighbour among the centres."""
    # A centre's own distance, 0, is the smallest of its row.
    near = [part.topk(k + 1, 1, largest=False).values for part in _distances(centres, centres)]
    radii = torch.cat(near).amax(1)
    hits = [(part <= radii).any(1) for part in _distances(x, centres)]
    return torch.cat(hits).double().mean().item()
