import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from dgm_course.mixtures import MeanFieldGaussian

MEAN = np.array([1.0, -2.0])


def correlated(rho, start=None, scales=(1.0, 1.0)):
    """Mean field on a two-dimensional Gaussian of correlation rho."""
    c = rho * scales[0] * scales[1]
    precision = np.linalg.inv([[scales[0] ** 2, c], [c, scales[1] ** 2]])
    return MeanFieldGaussian(MEAN, precision, start)


def random_target(d, seed):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(d, d))
    return rng.normal(size=d), root @ root.T + 0.1 * np.eye(d)


TARGETS = {
    "1d": lambda: MeanFieldGaussian([3.0], [[4.0]]),
    "2d": lambda: correlated(0.9, [4.0, 4.0]),
    "2d-scales": lambda: correlated(-0.7, [-5.0, 2.0], scales=(0.1, 30.0)),
    "6d": lambda: MeanFieldGaussian(*random_target(6, 0)),
}


@pytest.fixture(params=TARGETS)
def fresh(request):
    return TARGETS[request.param]()


# --- properties -----------------------------------------------------------------------------


def test_kl_is_torchs(fresh):
    for _ in range(3):
        q = Independent(Normal(fresh.means, fresh.variances.sqrt()), 1)
        q = MultivariateNormal(q.mean, torch.diag(q.variance))
        p = MultivariateNormal(fresh.mean, precision_matrix=fresh.precision)
        assert math.isclose(fresh.kl(), kl_divergence(q, p).item(), rel_tol=1e-9, abs_tol=1e-9)
        fresh.sweep()


def test_each_update_is_the_best_that_its_factor_can_do(fresh):
    for j in [*range(len(fresh.mean))] * 2:
        fresh.update(j)
        best = fresh.kl()
        for mean_step, log_step in [(1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3), (0.3, 0.3)]:
            means, variances = fresh.means.clone(), fresh.variances.clone()
            fresh.means[j] += mean_step
            fresh.variances[j] *= math.exp(log_step)
            assert fresh.kl() > best
            fresh.means, fresh.variances = means, variances


def test_the_bound_never_falls(fresh):
    for _ in range(5):
        fresh.sweep()
    bounds = [bound for _, bound in fresh.history]
    assert len(bounds) == 1 + 5 * len(fresh.mean)
    assert (np.diff(bounds) >= -1e-9).all()
    assert max(bounds) <= 1e-12


def test_the_fixed_point_has_the_right_means_and_too_small_variances(fresh):
    fresh.fit(tol=1e-12)
    torch.testing.assert_close(fresh.means, fresh.mean, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(fresh.variances, 1 / fresh.precision.diagonal())
    marginal = torch.linalg.inv(fresh.precision).diagonal()
    assert (fresh.variances <= marginal * (1 + 1e-12)).all()


@pytest.mark.parametrize("rho", [-0.9, -0.3, 0.0, 0.5, 0.99])
def test_in_the_plane_kl_is_minus_half_log_one_minus_rho_squared(rho):
    q = correlated(rho, [3.0, 3.0], scales=(2.0, 0.5))
    q.fit(tol=1e-13)
    assert math.isclose(q.kl(), -0.5 * math.log(1 - rho**2), abs_tol=1e-8)
    torch.testing.assert_close(q.variances, torch.tensor([4.0, 0.25]).double() * (1 - rho**2))


@pytest.mark.parametrize("rho", [-0.9, 0.5, 0.99])
def test_from_the_second_sweep_on_the_error_shrinks_by_rho_squared(rho):
    q = correlated(rho, [3.0, 3.0], scales=(2.0, 0.5))
    errors = []
    for _ in range(5):
        q.sweep()
        errors.append(q.means - q.mean)
    for before, after in pairwise(errors):
        torch.testing.assert_close(after, rho**2 * before, rtol=1e-9, atol=0)
    # The first coordinate's start is never used, so the first sweep shrinks nothing by rho².
    assert abs(errors[0][0] / (3.0 - MEAN[0])) != pytest.approx(rho**2, rel=1e-3)


def test_history_keeps_what_was():
    q = correlated(0.9, [3.0, 3.0])
    q.sweep()
    starts = [means.tolist() for means, _ in q.history]
    assert starts[0] == [3.0, 3.0]
    assert starts[1][1] == 3.0
    assert starts[2] == q.means.tolist()


def test_fit_says_how_many_sweeps_and_gives_up():
    assert correlated(0.0, [3.0, 3.0]).fit() == 2
    with pytest.raises(RuntimeError, match="after 3 sweeps a mean still moved by"):
        correlated(0.99, [3.0, 3.0]).fit(max_sweeps=3)


# --- bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([0.0, 0.0], np.eye(3)), r"precision must have shape \(2, 2\), got \(3, 3\)"),
        (([0.0, 0.0], [[1, 0.5], [0, 1]]), "symmetric"),
        (([0.0, 0.0], [[1, 2], [2, 1]]), "positive definite"),
        (([0.0, 0.0], np.eye(2), [1.0]), r"start must have shape \(2,\), got \(1,\)"),
        (([0.0, math.nan], np.eye(2)), "mean must be finite"),
        (([[0.0, 0.0]], np.eye(2)), r"mean must be a vector .*\(1, 2\)"),
        (([0.0, 0.0], np.eye(2), [0.0, math.inf]), "start must be finite"),
    ],
)
def test_bad_input_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        MeanFieldGaussian(*arguments)


def test_input_is_left_alone():
    start = np.array([3.0, 3.0])
    correlated(0.9, start).fit()
    assert start.tolist() == [3.0, 3.0]
