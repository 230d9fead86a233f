"""The Fréchet distance against closed forms, and its bias; manifolds counted by hand."""

from __future__ import annotations

import itertools
import warnings

import pytest
import scipy.linalg
import torch

from dgm_course.gan import (
    frechet_distance,
    gaussian_frechet_distance,
    precision_recall,
    quality,
)

F64 = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def covariance(d, seed, rank=None):
    root = normal(d, rank or d, seed=seed)
    return root @ root.T


ZERO = torch.zeros(6, dtype=F64)

# --- Fréchet distance ---------------------------------------------------------------------------


def test_diagonal_covariances_are_compared_deviation_by_deviation():
    mean, (a, b) = normal(6), normal(2, 6, seed=1).square()
    found = gaussian_frechet_distance(mean, a.diag(), -mean, b.diag())
    expected = 4 * mean.square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    assert found == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_full_covariances_equal_the_root_of_a_product(seed):
    """2 tr (C_x C_y)^½ by SciPy's Schur method, which works with complex numbers."""
    mean, a, b = normal(6, seed=seed), covariance(6, seed + 10), covariance(6, seed + 20)
    cross = scipy.linalg.sqrtm((a @ b).numpy()).real.trace()
    expected = mean.square().sum() + a.trace() + b.trace() - 2 * cross
    found = gaussian_frechet_distance(mean, a, ZERO, b)
    assert found == pytest.approx(expected.item(), rel=1e-10)
    assert gaussian_frechet_distance(ZERO, b, mean, a) == pytest.approx(found, rel=1e-12)


def test_commuting_covariances_are_turned_diagonal_ones():
    turn = torch.linalg.qr(normal(6, 6)).Q
    a, b = normal(2, 6, seed=1).square()
    found = gaussian_frechet_distance(ZERO, turn * a @ turn.T, ZERO, turn * b @ turn.T)
    assert found == pytest.approx((a.sqrt() - b.sqrt()).square().sum().item(), rel=1e-12)


def test_rank_one_covariances_have_a_closed_form():
    """‖a‖² + ‖b‖² − 2 |aᵀb|, of a aᵀ and b bᵀ: five of six eigenvalues are 0."""
    for seed in range(5):
        a, b = normal(2, 6, seed=seed)
        found = gaussian_frechet_distance(ZERO, a.outer(a), ZERO, b.outer(b))
        expected = a @ a + b @ b - 2 * (a @ b).abs()
        assert found == pytest.approx(expected.item(), abs=1e-12)


def test_a_rank_one_covariance_beside_a_full_one():
    """a aᵀ against C: ‖a‖² + tr C − 2 √(aᵀ C a)."""
    a, full = normal(6), covariance(6, 1)
    found = gaussian_frechet_distance(ZERO, a.outer(a), ZERO, full)
    assert found == pytest.approx((a @ a + full.trace() - 2 * (a @ full @ a).sqrt()).item(), 1e-12)


@pytest.mark.parametrize("rank", [1, 2, 5, 6])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_a_gaussian_is_at_no_distance_from_itself(rank, scale):
    cov = scale * covariance(6, 0, rank)
    assert 0 <= gaussian_frechet_distance(ZERO, cov, ZERO, cov) < 1e-12 * scale


def test_covariances_that_are_zero_leave_the_means():
    nothing = torch.zeros(6, 6)
    assert gaussian_frechet_distance(ZERO, nothing, ZERO + 2, nothing) == pytest.approx(24)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_samples_have_the_distance_of_their_moments(dtype):
    x, y = normal(50, 6).to(dtype), (normal(40, 6, seed=1) @ covariance(6, 2) + 1).to(dtype)
    moments = [m for z in (x.double(), y.double()) for m in (z.mean(0), z.T.cov())]
    expected = gaussian_frechet_distance(*moments)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(y, x) == pytest.approx(expected, rel=1e-10)


def test_a_moved_sample_is_at_the_move_squared_however_few_there_are():
    x = normal(4, 6)
    with pytest.warns(UserWarning, match="has 4 samples of 6 features"):
        assert frechet_distance(x, x + 2) == pytest.approx(24, rel=1e-12)


def test_few_samples_far_from_the_origin_keep_their_digits():
    """Five points of eight features: both covariances are singular, in different directions."""
    x, y = normal(5, 8), normal(5, 8, seed=1)
    with pytest.warns(UserWarning, match="its covariance is singular"):
        near, far = [frechet_distance(x + shift, y + shift) for shift in (0.0, 1e4)]
    moments = [m for z in (x, y) for m in (z.mean(0), z.T.cov())]
    assert near == pytest.approx(gaussian_frechet_distance(*moments), rel=1e-10)
    assert far == pytest.approx(near, rel=1e-8)


def test_more_samples_than_features_do_not_warn_and_as_many_do():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_distance(normal(7, 6), normal(7, 6, seed=1))
    with pytest.warns(UserWarning, match="y has 6 samples of 6 features") as caught:
        frechet_distance(normal(7, 6), normal(6, 6, seed=1))
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize(("d", "n"), [(2, 200), (8, 200), (8, 1000), (16, 500)])
def test_the_bias_is_that_of_theory(d, n):
    """n draws of N(0, I) against N(0, I): (d + d (d + 1) / 4) / n, to first order in 1/n."""
    eye, zero = torch.eye(d), torch.zeros(d)
    draws = normal(300, n, d, seed=d)
    found = torch.tensor(
        [gaussian_frechet_distance(x.mean(0), x.T.cov(), zero.double(), eye) for x in draws]
    )
    theory = (d + d * (d + 1) / 4) / n
    error = found.std().item() / 300**0.5
    assert abs(found.mean().item() - theory) < 4 * error + theory * d / n  # the second order


def test_two_samples_have_twice_the_bias():
    d, n = 8, 500
    x, y = normal(2, 150, n, d)
    found = torch.tensor([frechet_distance(*pair) for pair in zip(x, y, strict=True)])
    theory = 2 * (d + d * (d + 1) / 4) / n
    assert found.mean().item() == pytest.approx(theory, rel=0.05)


# --- precision and recall -----------------------------------------------------------------------


def points(*values):
    return torch.tensor(values, dtype=F64).view(len(values), -1)


def test_shares_by_hand():
    """Real 0, 1, 3 with radii 1, 1, 2: [−1, 1], [0, 2] and [1, 5]. Generated 2, 4, 4.5, 9."""
    real, generated = points(0, 1, 3), points(2, 4, 4.5, 9)
    found = precision_recall(real, generated, k=1)
    assert found.precision == 3 / 4
    # Radii 2, 0.5, 0.5, 4.5: [0, 4], [3.5, 4.5], [4, 5] and [4.5, 13.5].
    assert found.recall == 1.0
    # With k = 2: [−3, 3], [−1, 3], [0, 6]; 2.5, 2, 2.5, 5: [−0.5, 4.5], [2, 6], [2, 7], [4, 14].
    assert precision_recall(real, generated, k=2) == (3 / 4, 1.0)
    assert precision_recall(real, points(8, 8.5, 9), k=1) == (0.0, 0.0)
    assert precision_recall(real, points(1, 1.25, 9, 9.5), k=1) == (0.5, 1 / 3)


def test_a_point_on_a_spheres_border_is_inside():
    assert precision_recall(points(0, 1), points(2, 12), k=1).precision == 0.5
    assert precision_recall(points(0, 1), points(2.000001, 12), k=1).precision == 0.0


@pytest.mark.parametrize("k", [1, 3, 9])
def test_equal_sets_have_both(k):
    x = normal(10, 5)
    assert precision_recall(x, x, k) == (1.0, 1.0)
    assert precision_recall(x + 1e6, x.flip(0) + 1e6, k) == (1.0, 1.0)


def test_points_that_repeat_have_balls_of_radius_0():
    """Three copies are each other's neighbours: only what equals them lies within."""
    real = points(1, 1, 1, -3)
    assert precision_recall(real, points(1, 1.001, 3, 9), k=2) == (0.25, 0.75)
    assert precision_recall(points(1, 1, 1), points(1, 1, 1.001), k=2) == (2 / 3, 1.0)


def test_distances_far_from_the_origin_are_those_of_differences():
    """By ‖x‖² + ‖y‖² − 2 xᵀy, 1000 away in single precision, a radius of 0 would be near 1."""
    x = normal(10, 5).float() + 1000
    copies = x.repeat(4, 1)
    assert precision_recall(copies, copies.roll(1, 0)) == (1.0, 1.0)
    assert precision_recall(copies, copies + 0.01) == (0.0, 0.0)


def by_brute_force(real, generated, k):
    def distance(a, b):
        return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))

    def inside(x, centres):
        radii = [
            sorted(distance(c, o) for j, o in enumerate(centres) if j != i)[k - 1]
            for i, c in enumerate(centres)
        ]
        hits = [any(distance(a, c) <= r for c, r in zip(centres, radii, strict=True)) for a in x]
        return sum(hits) / len(hits)

    return inside(generated, real), inside(real, generated)


@pytest.mark.parametrize("at_once", [1, 50, 2**21])
@pytest.mark.parametrize("k", [1, 3])
def test_shares_equal_plain_loops_over_integers_with_many_ties(at_once, k, monkeypatch):
    """Coordinates are integers 0 to 5, whose squared distances are exact; rows at a time differ."""
    monkeypatch.setattr(quality, "DISTANCES_AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(k)
    for n, m, d in itertools.product([9, 20], [9, 30], [2, 3]):
        real = torch.randint(6, (n, d), generator=generator)
        generated = torch.randint(6, (m, d), generator=generator) + 2
        found = precision_recall(real.double(), generated.double(), k)
        assert found == by_brute_force(real.tolist(), generated.tolist(), k)


def test_a_lost_mode_costs_recall_and_a_wrong_one_precision():
    """Real samples at −10 and 10: a generator that finds one recalls half, and all is precise."""
    x = normal(1000, 2)
    x[::2] += 10
    x[1::2] -= 10
    lost = precision_recall(x, normal(1000, 2, seed=1) + 10)
    assert lost.precision > 0.95
    assert 0.45 < lost.recall <= 0.5
    wrong = precision_recall(x[::2], x)
    assert wrong.precision == 0.5
    assert wrong.recall == 1.0


# --- bad input ----------------------------------------------------------------------------------

X = normal(6, 2)
EYE = torch.eye(2)
MEAN = torch.zeros(2)
NAN = X.clone().index_fill_(0, torch.tensor([1]), torch.nan)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: frechet_distance(X, X[:1]), "y must hold at least 2 samples .*, got 1"),
        (lambda: frechet_distance(X[:1], X), "x must hold at least 2 samples .*, got 1"),
        (lambda: frechet_distance(X, X[:, :1]), r"y must have shape \(N, 2\), got shape \(6, 1\)"),
        (lambda: frechet_distance(X[0], X), r"x must have shape \(N, D\), got shape \(2,\)"),
        (lambda: frechet_distance(X, NAN), "y must be finite, got NaN or inf in 1 of 6 points"),
        (lambda: frechet_distance(X[:0], X), "x must hold at least one point"),
        (lambda: frechet_distance(X.long(), X), "x must hold floating-point numbers"),
        (
            lambda: gaussian_frechet_distance(EYE, EYE, MEAN, EYE),
            r"mean_x must have shape \(D,\), got shape \(2, 2\)",
        ),
        (
            lambda: gaussian_frechet_distance(MEAN, EYE, MEAN[:1], EYE),
            r"mean_y must have shape \(2,\), got shape \(1,\)",
        ),
        (
            lambda: gaussian_frechet_distance(MEAN, MEAN, MEAN, EYE),
            r"cov_x must have shape \(2, 2\), got shape \(2,\)",
        ),
        (
            lambda: gaussian_frechet_distance(MEAN, EYE, MEAN, EYE / 0),
            "cov_y must be finite, got NaN or inf in 2 of 2 rows",
        ),
        (
            lambda: gaussian_frechet_distance(MEAN, EYE, MEAN, EYE - 1.5),
            "cov_y must have no negative eigenvalue, got -2 beside 1",
        ),
        (
            lambda: gaussian_frechet_distance(MEAN, EYE.cumsum(0), MEAN, EYE),
            "cov_x must be symmetric, got entries that differ by 1",
        ),
        (lambda: precision_recall(X, X[:3]), "generated must hold at least 4 .* k = 3 .*, got 3"),
        (lambda: precision_recall(X[:1], X, 1), "real must hold at least 2 .* k = 1 .*, got 1"),
        (lambda: precision_recall(X, X, 0), "k must be an int of at least 1, got 0"),
        (lambda: precision_recall(X, X[:, :1]), r"generated must have shape \(N, 2\), got"),
        (lambda: precision_recall(X, NAN), "generated must be finite, got NaN or inf in 1 of 6"),
    ],
)
def test_bad_features_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
