import math
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.mixture import GaussianMixture as Sklearn
from sklearn.utils.estimator_checks import check_estimator
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from dgm_course.mixtures import GaussianMixture, VariationalGaussianMixture, gaussians
from dgm_course.mixtures.gaussians import COVARIANCE_TYPES as TYPES
from dgm_course.mixtures.gaussians import Gaussians, expectation, weighted_moments

PARAMETERS = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")


def some_data(seed, n=None, d=None, k=None):
    """Data of a random mixture, and the number of its components."""
    rng = np.random.default_rng(seed)
    n, d, k = n or rng.integers(60, 400), d or rng.integers(1, 5), k or rng.integers(1, 5)
    z = rng.integers(k, size=n)
    roots = 0.5 * rng.normal(size=(k, d, d)) + np.eye(d)
    x = 3 * rng.normal(size=(k, d))[z] + np.einsum("nij,nj->ni", roots[z], rng.normal(size=(n, d)))
    return x * 10.0 ** rng.integers(-1, 2), k


def some_start(x, k, kind, seed=0):
    """weights_init, means_init and precisions_init of that covariance type."""
    rng = np.random.default_rng(seed)
    precision = np.linalg.inv(np.cov(x.T).reshape(x.shape[1], -1))
    precisions = {
        "full": np.stack([precision] * k),
        "tied": precision,
        "diag": np.stack([np.diag(precision)] * k),
        "spherical": np.full(k, np.diag(precision).mean()),
    }[kind]
    return {
        "weights_init": rng.dirichlet(np.full(k, 5.0)),
        "means_init": x[rng.choice(len(x), k, replace=False)],
        "precisions_init": precisions,
    }


def fit(x, k, kind="full", *, model=GaussianMixture, n_iter=1, reg_covar=0.0, **options):
    """Exactly n_iter iterations from `some_start`, without a word about convergence."""
    options = some_start(x, k, kind) | {"tol": 0, "max_iter": n_iter} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model(k, covariance_type=kind, reg_covar=reg_covar, **options).fit(x)


def as_distribution(mixture):
    """The same mixture in torch.distributions: an independent log-density."""
    k, d = mixture.means_.shape
    c = np.asarray(mixture.covariances_)
    covariances = {
        "full": lambda: c,
        "tied": lambda: np.stack([c] * k),
        "diag": lambda: np.stack([np.diag(row) for row in c]),
        "spherical": lambda: c[:, None, None] * np.eye(d),
    }[mixture.covariance_type]()
    components = MultivariateNormal(torch.tensor(mixture.means_), torch.tensor(covariances))
    return MixtureSameFamily(Categorical(torch.tensor(mixture.weights_)), components)


def assert_same(ours, theirs, tolerance=1e-6):
    for name in PARAMETERS:
        a, b = getattr(ours, name), getattr(theirs, name)
        assert a.shape == b.shape
        assert a.dtype == np.float64
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max(), err_msg=name)


# --- scikit-learn is the oracle -------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", TYPES)
def test_equals_scikit_learn_after_any_number_of_iterations(kind, seed):
    x, k = some_data(seed)
    for n_iter in (1, 2, 7, 40):
        options = {"n_iter": n_iter, "reg_covar": (0.0, 1e-6, 1e-2)[seed % 3]}
        ours = fit(x, k, kind, **options)
        theirs = fit(x, k, kind, model=Sklearn, **options)
        assert_same(ours, theirs)
        assert math.isclose(ours.lower_bound_, theirs.lower_bound_, abs_tol=1e-6)
        np.testing.assert_allclose(
            ours.half_step_bounds_[:, 0], theirs.lower_bounds_, rtol=0, atol=1e-6
        )
        np.testing.assert_allclose(
            ours.score_samples(x), theirs.score_samples(x), rtol=0, atol=1e-6
        )
        np.testing.assert_allclose(
            ours.predict_proba(x), theirs.predict_proba(x), rtol=0, atol=1e-6
        )
        assert ours.n_iter_ == theirs.n_iter_ == n_iter


@pytest.mark.parametrize("kind", TYPES)
def test_stops_and_scores_as_scikit_learn(kind):
    x, k = some_data(3, k=3)
    options = {"tol": 1e-4, "max_iter": 500}
    ours, theirs = fit(x, k, kind, **options), fit(x, k, kind, model=Sklearn, **options)
    assert ours.converged_
    assert ours.n_iter_ == theirs.n_iter_ < 500
    for name in ("score", "aic", "bic"):
        assert math.isclose(getattr(ours, name)(x), getattr(theirs, name)(x), rel_tol=1e-9)
    assert (ours.predict(x) == theirs.predict(x)).all()


@pytest.mark.parametrize("kind", TYPES)
def test_far_off_data_loses_no_digits(kind):
    x, k = some_data(5, d=3, k=3)
    far = np.round(x, 6) + 1e4
    near = far - 1e4  # exact: the same points
    start = some_start(near, k, kind)
    moved = start | {"means_init": start["means_init"] + 1e4}
    ours = fit(far, k, kind, n_iter=20, **moved)
    theirs = fit(near, k, kind, model=Sklearn, n_iter=20, **start)
    theirs.means_ = theirs.means_ + 1e4
    assert_same(ours, theirs, 1e-9)
    assert math.isclose(ours.lower_bound_, theirs.lower_bound_, abs_tol=1e-9)
    np.testing.assert_allclose(ours.means_, theirs.means_, rtol=0, atol=1e-9)


def test_far_off_data_is_centred_so_that_the_fast_way_serves(monkeypatch):
    x, k = some_data(5, d=3, k=3)
    monkeypatch.setattr(Gaussians, "log_density", lambda *_: pytest.fail("took the slow way"))
    fit(x + 1e4, k, n_iter=3, means_init=x[:3] + 1e4)


@pytest.mark.parametrize("n_iter", [1, 3])
@pytest.mark.parametrize("kind", TYPES)
def test_narrow_components_lose_no_digits(kind, n_iter):
    """Widths of 1e-6 at distances of 1: squares of the coordinates would lose 12 digits.

    From a start of width 0.1, so that the first step meets narrow data with wide components.
    """
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    z = rng.integers(3, size=300)
    x = centres[z] + 1e-6 * rng.normal(size=(300, 2))
    eye = np.eye(2)
    wide = {"full": [eye] * 3, "tied": eye, "diag": np.ones((3, 2)), "spherical": np.ones(3)}
    start = {"precisions_init": 100 * np.array(wide[kind]), "means_init": centres}
    mixture = fit(x, 3, kind, n_iter=n_iter, **start)
    expected = np.stack([np.cov(x[z == k].T, bias=True) for k in range(3)])
    if kind == "tied":
        expected = np.tensordot(np.bincount(z) / 300, expected, 1)
    elif kind == "diag":
        expected = expected.diagonal(axis1=1, axis2=2)
    elif kind == "spherical":
        expected = expected.diagonal(axis1=1, axis2=2).mean(1)
    np.testing.assert_allclose(mixture.covariances_, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", TYPES)
def test_chunks_do_not_show(kind):
    x, k = some_data(7, n=20_001, d=2, k=3)  # more than two chunks, the last a short one
    assert_same(fit(x, k, kind, n_iter=3), fit(x, k, kind, model=Sklearn, n_iter=3), 1e-9)


@pytest.mark.parametrize("kind", TYPES)
def test_both_ways_to_an_expectation_agree(kind, monkeypatch):
    x, k = some_data(11, d=3, k=3)
    points = torch.tensor(x - x.mean(0)).T.contiguous()
    mixture = fit(x, k, kind)
    components, log_weights = mixture._scores(torch.tensor(x.mean(0)))
    by_features = expectation(points, components, log_weights)
    monkeypatch.setattr(gaussians, "SHARP", 0.0)
    by_differences = expectation(points, components, log_weights)
    assert math.isclose(by_features.log_normaliser, by_differences.log_normaliser, rel_tol=1e-12)
    assert math.isclose(by_features.entropy, by_differences.entropy, rel_tol=1e-9)
    for a, b in zip(by_features.moments, by_differences.moments, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_is_a_scikit_learn_estimator():
    for model in (GaussianMixture(), GaussianMixture(2, covariance_type="diag", random_state=0)):
        results = check_estimator(model, on_skip=None)
        assert {result["status"] for result in results} <= {"passed", "skipped"}
        assert sum(result["status"] == "passed" for result in results) > 30


# --- the bound ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", TYPES)
def test_the_bound_never_falls_at_either_half_step(kind, seed):
    x, k = some_data(seed)
    bounds = fit(x, k, kind, n_iter=60).half_step_bounds_
    assert bounds.shape == (60, 2)
    assert (np.diff(bounds.ravel()) >= -1e-11).all()
    assert bounds[-1, 1] > bounds[0, 0] + 0.01


def test_with_regularisation_it_may_fall_by_about_as_much():
    """From the likelihood's maximum an M-step that is not the bound's can only go down."""
    x, k = some_data(2, d=2, k=3)
    top = fit(x, k, n_iter=2000)
    names = ("weights", "means", "precisions")
    start = {f"{name}_init": getattr(top, f"{name}_") for name in names}
    ours = fit(x, k, n_iter=5, reg_covar=1e-2, **start)
    theirs = fit(x, k, model=Sklearn, n_iter=5, reg_covar=1e-2, **start)
    (after_e, after_m), (next_e, _) = ours.half_step_bounds_[:2]
    assert after_m < after_e - 0.1
    assert next_e < after_e - 0.1
    assert math.isclose(next_e, theirs.lower_bounds_[1], abs_tol=1e-9)


@pytest.mark.parametrize("kind", TYPES)
def test_recorded_bounds_are_lower_bounds_at_their_half_steps(kind):
    """Step by step, the bound from its definition: stale responsibilities would be found out."""
    x, k = some_data(8, k=3)
    whole = fit(x, k, kind, n_iter=4)
    stepper = fit(x, k, kind, n_iter=0)
    for after_e, after_m in whole.half_step_bounds_:
        r = stepper.e_step(x)
        assert math.isclose(stepper.lower_bound(x, r).mean(), after_e, abs_tol=1e-10)
        assert math.isclose(stepper.score(x), after_e, abs_tol=1e-10)  # it touches log p(X)
        stepper.m_step(x, r)
        assert math.isclose(stepper.lower_bound(x, r).mean(), after_m, abs_tol=1e-10)
        assert stepper.score(x) > after_m
    assert_same(stepper, whole, 1e-9)


@pytest.mark.parametrize("kind", TYPES)
def test_lower_bound_is_log_p_minus_kl_point_by_point(kind):
    x, k = some_data(9, k=3)
    mixture = fit(x, k, kind, n_iter=3)
    rng = np.random.default_rng(0)
    r = rng.dirichlet(np.ones(k), size=len(x))
    r[:5] = np.eye(k)[0]  # log 0 must count as 0
    p = mixture.predict_proba(x)
    kl = np.where(r > 0, r * (np.log(np.maximum(r, 1e-300)) - np.log(p)), 0).sum(1)
    bound = mixture.lower_bound(x, r)
    assert bound.shape == (len(x),)
    np.testing.assert_allclose(bound, mixture.score_samples(x) - kl, atol=1e-9)


@pytest.mark.parametrize("kind", TYPES)
def test_the_m_step_is_the_bounds_maximum(kind):
    """Autograd on the bound: no gradient is left in weights, means and covariances."""
    x, k = some_data(10, d=2, k=3)
    r = np.random.default_rng(0).dirichlet(np.ones(k), size=len(x))
    mixture = fit(x, k, kind).m_step(x, r)
    names = ("weights_", "means_", "covariances_")
    values = [torch.tensor(getattr(mixture, name), requires_grad=True) for name in names]
    weights, means, c = values
    eye = torch.eye(2, dtype=torch.float64)
    covariances = {
        "full": lambda: (c + c.mT) / 2,
        "tied": lambda: ((c + c.T) / 2).expand(k, 2, 2),
        "diag": lambda: c.diag_embed(),
        "spherical": lambda: c[:, None, None] * eye,
    }[kind]()
    log_density = MultivariateNormal(means, covariances).log_prob(torch.tensor(x)[:, None])
    bound = (torch.tensor(r) * ((weights / weights.sum()).log() + log_density)).sum() / len(x)
    for value, gradient in zip(values, torch.autograd.grad(bound, values), strict=True):
        assert (gradient * value.abs().max()).abs().max() < 1e-9


# --- densities, samples, criteria -----------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
def test_log_density_is_torchs(kind):
    x, k = some_data(12, d=3, k=3)
    mixture = fit(x, k, kind, n_iter=5)
    expected = as_distribution(mixture).log_prob(torch.tensor(x))
    np.testing.assert_allclose(mixture.score_samples(x), expected, atol=1e-9)
    assert math.isclose(mixture.score(x), expected.mean().item(), abs_tol=1e-9)


@pytest.mark.parametrize("kind", TYPES)
def test_samples_have_the_mixtures_moments(kind):
    x, k = some_data(13, d=2, k=3)
    mixture = fit(x, k, kind, n_iter=5, random_state=0)
    n = 40_000
    drawn, z = mixture.sample(n)
    assert drawn.shape == (n, 2)
    p = as_distribution(mixture)
    scale = np.sqrt(p.variance.numpy())
    assert (np.abs(drawn.mean(0) - p.mean.numpy()) < 5 * scale / n**0.5).all()
    np.testing.assert_allclose(np.bincount(z) / n, mixture.weights_, atol=0.02)
    for j in range(k):
        expected = p.component_distribution.covariance_matrix[j].numpy()
        np.testing.assert_allclose(np.cov(drawn[z == j].T), expected, atol=0.05 * expected.max())
    again, _ = mixture.sample(n)
    assert (again == drawn).all()


def test_responsibilities_sum_to_one_over_the_components():
    x, k = some_data(14, k=4)
    r = fit(x, k).e_step(x)
    assert r.shape == (len(x), 4)
    np.testing.assert_allclose(r.sum(1), 1, atol=1e-12)
    assert not np.allclose(r.sum(0), 1)


# --- starts ---------------------------------------------------------------------------------


def test_of_several_starts_the_best_is_kept():
    angles = 2 * np.pi * np.arange(6) / 6
    ring = 3 * np.stack([np.cos(angles), np.sin(angles)], 1)
    x = np.repeat(ring, 40, 0) + 0.6 * np.random.default_rng(0).normal(size=(240, 2))
    options = {"covariance_type": "spherical", "tol": 1e-4, "max_iter": 500}
    stream = np.random.RandomState(0)
    alone = [GaussianMixture(6, random_state=stream, **options).fit(x) for _ in range(12)]
    bounds = [mixture.lower_bound_ for mixture in alone]
    best = alone[int(np.argmax(bounds))]
    assert max(bounds) - min(bounds) > 0.05
    together = GaussianMixture(6, n_init=12, random_state=0, **options).fit(x)
    assert together.lower_bound_ == best.lower_bound_ == together.half_step_bounds_[-1, 0]
    assert together.n_iter_ == best.n_iter_ == len(together.half_step_bounds_)
    assert_same(together, best, 0)


def test_same_seed_same_fit():
    x, _ = some_data(16, k=3)
    a, b = (GaussianMixture(3, random_state=1, max_iter=300).fit(x) for _ in range(2))
    assert_same(a, b, 0)


def test_goes_on_where_it_stopped():
    x, k = some_data(17, k=3)
    whole = fit(x, k, n_iter=12)
    parts = fit(x, k, n_iter=5, warm_start=True)
    parts.set_params(max_iter=7)
    with pytest.warns(ConvergenceWarning):
        parts.fit(x)
    assert_same(parts, whole, 1e-12)
    np.testing.assert_allclose(parts.half_step_bounds_, whole.half_step_bounds_[5:], atol=1e-12)


@pytest.mark.parametrize(("k", "d"), [(2, 2), (4, 2), (3, 1)])
@pytest.mark.parametrize("family", [GaussianMixture, VariationalGaussianMixture])
def test_does_not_go_on_from_a_fit_of_another_size(family, k, d):
    x, _ = some_data(17, k=3)
    x = x[:, :2]
    mixture = family(3, warm_start=True, max_iter=200, tol=1e-2).fit(x)
    kept = mixture.means_.copy()
    expected = f"n_components = 3, n_features = 2, and now n_components = {k}, n_features = {d}"
    with pytest.raises(ValueError, match=expected):
        mixture.set_params(n_components=k).fit(x[:, :d])
    np.testing.assert_array_equal(mixture.means_, kept)
    assert mixture.set_params(warm_start=False).fit(x[:, :d]).means_.shape == (k, d)


def test_continues_from_the_attributes_of_another():
    x, k = some_data(17, k=3)
    first = fit(x, k, n_iter=5)
    names = ("weights", "means", "precisions")
    start = {f"{name}_init": getattr(first, f"{name}_") for name in names}
    assert_same(fit(x, k, n_iter=7, **start), fit(x, k, n_iter=12), 1e-9)


@pytest.mark.parametrize("kind", TYPES)
def test_no_iteration_keeps_the_start(kind):
    x, k = some_data(18, k=2)
    start = some_start(x, k, kind)
    mixture = fit(x, k, kind, n_iter=0)
    for name in ("weights", "means", "precisions"):
        np.testing.assert_allclose(getattr(mixture, f"{name}_"), start[f"{name}_init"], rtol=1e-9)
    assert mixture.half_step_bounds_.shape == (0, 2)
    if kind in ("full", "tied"):
        u = mixture.precisions_cholesky_
        assert (u == np.triu(u)).all()  # upper triangular, as scikit-learn's
    assert mixture.score(x) == pytest.approx(
        as_distribution(mixture).log_prob(torch.tensor(x)).mean().item()
    )


def test_the_start_finds_separated_clusters():
    rng = np.random.default_rng(0)
    centres = 20.0 * np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    x = np.repeat(centres, 50, 0) + rng.normal(size=(200, 2))
    for seed in range(10):
        mixture = GaussianMixture(4, random_state=seed, reg_covar=0).fit(x)
        distances = np.linalg.norm(mixture.means_[:, None] - centres, axis=2)
        assert distances.min(0).max() < 1


# --- hard data ------------------------------------------------------------------------------


def test_equal_rows_without_regularisation_are_not_silent():
    x, _ = some_data(19, n=60, d=2, k=2)
    x = np.concatenate([x, x[:5]])
    with pytest.warns(UserWarning, match="5 of 65 rows repeat another"):
        GaussianMixture(1, reg_covar=0).fit(x)
    x = np.concatenate([x, np.tile(x[:1], (20, 1))])
    with (
        pytest.warns(UserWarning, match="25 of 85 rows repeat another"),
        pytest.raises(ValueError, match=r"component 0, with 2\d\.?\d* of the points, has"),
    ):
        fit(x, 2, n_iter=200, means_init=x[[0, 30]], precisions_init=[np.eye(2) * 1e4, np.eye(2)])


@pytest.mark.parametrize("kind", TYPES)
def test_constant_data(kind):
    x = np.full((20, 2), 1e4 / 3)
    with (
        pytest.warns(UserWarning, match="19 of 20 rows repeat another"),
        pytest.raises(ValueError, match="has collapsed"),
    ):
        GaussianMixture(covariance_type=kind, reg_covar=0).fit(x)
    with pytest.warns(ConvergenceWarning, match="as narrow as reg_covar=1e-06"):
        GaussianMixture(covariance_type=kind).fit(x)


@pytest.mark.parametrize("kind", TYPES)
def test_values_that_differ_by_rounding_only_are_constant(kind):
    x = 1e4 / 3 + 1e-12 * np.random.default_rng(0).normal(size=(50, 2))
    assert len(np.unique(x, axis=0)) > 20
    with (
        pytest.warns(UserWarning, match="rows repeat another"),
        pytest.raises(ValueError, match="has collapsed"),
    ):
        GaussianMixture(covariance_type=kind, reg_covar=0).fit(x)


def test_a_component_that_collapses_on_one_point():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 2))
    start = {
        "weights_init": [0.5, 0.5],
        "means_init": [x[0], x.mean(0)],
        "precisions_init": [np.eye(2) * 1e4, np.eye(2)],
    }
    with pytest.raises(ValueError, match=r"component 0, with 1 of the points, has collapsed"):
        GaussianMixture(2, reg_covar=0, max_iter=500, **start).fit(x)
    with pytest.warns(ConvergenceWarning, match=r"1 of the covariances \(component 0 first\)"):
        GaussianMixture(2, reg_covar=1e-6, max_iter=500, **start).fit(x)


def test_points_in_a_line_are_flat():
    t = np.random.default_rng(0).normal(size=(50, 1))
    with pytest.raises(ValueError, match="component 0, with 50 of the points, has collapsed"):
        GaussianMixture(reg_covar=0).fit(np.concatenate([t, 3 * t], 1))


def test_strong_correlation_is_not_flat():
    rng = np.random.default_rng(0)
    t, e = rng.normal(size=(2, 500, 1))
    x = np.concatenate([t, t + 1e-5 * e], 1)
    mixture = GaussianMixture(reg_covar=0).fit(x)
    np.testing.assert_allclose(mixture.covariances_[0], np.cov(x.T, bias=True), rtol=1e-9)


def test_says_when_it_did_not_converge():
    x, k = some_data(20, k=3)
    with pytest.warns(ConvergenceWarning, match="not converged: after max_iter=1 iterations"):
        mixture = GaussianMixture(k, max_iter=1, random_state=0).fit(x)
    assert not mixture.converged_


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_components": 11}, "got n_components = 11, n_samples = 10"),
        ({"n_components": 0}, "n_components must be an int of at least 1, got 0"),
        ({"n_components": 2.0}, "n_components must be an int of at least 1, got 2.0"),
        ({"max_iter": -1}, "max_iter must be an int of at least 0, got -1"),
        ({"n_init": 0}, "n_init must be an int of at least 1, got 0"),
        ({"tol": -0.1}, "tol must be at least 0 and finite, got -0.1"),
        ({"reg_covar": -1.0}, "reg_covar must be at least 0 and finite, got -1.0"),
        ({"reg_covar": math.nan}, "reg_covar must be at least 0 and finite, got nan"),
        ({"covariance_type": "ful"}, "one of full, tied, diag, spherical, got 'ful'"),
        ({"weights_init": [0.4, 0.4]}, "sum to 1, got a least weight of 0.4 and the sum 0.8"),
        ({"weights_init": [1.5, -0.5]}, "non-negative and sum to 1, got a least weight of -0.5"),
        ({"weights_init": [1.0]}, r"weights_init must have shape \(2,\), got \(1,\)"),
        ({"means_init": np.zeros((2, 3))}, r"means_init must have shape \(2, 2\), got \(2, 3\)"),
        ({"means_init": [[0, 0], [0, math.nan]]}, "means_init must be finite"),
        ({"precisions_init": np.eye(2)}, r"precisions_init must have shape \(2, 2, 2\)"),
        ({"precisions_init": [np.eye(2), -np.eye(2)]}, "definite, .* eigenvalue of -1"),
        ({"precisions_init": [np.eye(2), [[1, 0.5], [0, 1]]]}, "symmetric .* mirror .* 0.5"),
        ({"covariance_type": "diag", "precisions_init": [[1, 1], [1, 0]]}, "must be positive"),
    ],
)
def test_bad_arguments_are_refused(options, words):
    x = np.random.default_rng(0).normal(size=(10, 2))
    with pytest.raises(ValueError, match=words):
        GaussianMixture(**({"n_components": 2} | options)).fit(x)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros(5), "Expected 2D array, got 1D array"),
        (np.zeros((0, 2)), "Found array with 0 sample"),
        (np.zeros((1, 2)), "minimum of 2 is required"),
        (np.array([[1.0, 2.0], [math.nan, 1.0]]), "contains NaN"),
        (np.array([[1.0, 2.0], [math.inf, 1.0]]), "contains infinity"),
        (np.array([["a", "b"], ["c", "d"]]), "could not convert|convert"),
    ],
)
def test_bad_data_are_refused(x, words):
    with pytest.raises(ValueError, match=words):
        GaussianMixture().fit(x)


def test_unfitted_and_mismatched():
    x, k = some_data(21, d=2, k=2)
    for call in (lambda m: m.predict(x), lambda m: m.sample(), lambda m: m.e_step(x)):
        with pytest.raises(NotFittedError):
            call(GaussianMixture(2))
    mixture = fit(x, k)
    with pytest.raises(ValueError, match="X has 3 features, but GaussianMixture is expecting 2"):
        mixture.score_samples(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="n_samples must be an int of at least 1, got 0"):
        mixture.sample(0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r[:-1], r"must have shape \(\d+, 3\), got"),
        (lambda r: r / r.sum(0), "each row of responsibilities must be a distribution"),
        (lambda r: np.concatenate([r[:, :2] + 1, r[:, 2:] - 2], 1), "must be a distribution"),
        (lambda r: r * math.nan, "responsibilities must be finite"),
    ],
)
def test_responsibilities_of_the_wrong_axis_are_refused(change, words):
    x, k = some_data(22, k=3)
    mixture = fit(x, k)
    for method in (mixture.m_step, mixture.lower_bound):
        with pytest.raises(ValueError, match=words):
            method(x, change(mixture.e_step(x)))


def test_input_is_left_alone_and_may_be_read_only():
    x, k = some_data(23, k=2)
    start = some_start(x, k, "full")
    arrays = [x, *start.values()]
    copies = [array.copy() for array in arrays]
    for array in arrays:
        array.setflags(write=False)
    mixture = fit(x, k, n_iter=3, **start)
    r = mixture.e_step(x)
    r.setflags(write=False)
    mixture.m_step(x, r).lower_bound(x, r)
    fit(np.asfortranarray(x), k, n_iter=3, **start)
    for array, copy in zip(arrays, copies, strict=True):
        assert (array == copy).all()


def test_survives_pickling():
    x, k = some_data(24, k=2)
    mixture = fit(x, k)
    assert_same(pickle.loads(pickle.dumps(mixture)), mixture, 0)


def test_moments_are_numpys():
    x, _ = some_data(25, d=3)
    w = np.random.default_rng(0).uniform(size=(2, len(x)))
    moments = weighted_moments(torch.tensor(x).T, torch.tensor(w), "full")
    for k in range(2):
        expected = np.cov(x.T, aweights=w[k], bias=True)
        np.testing.assert_allclose(moments.covariances[k], expected, rtol=1e-10)
        np.testing.assert_allclose(moments.means[k], np.average(x, 0, w[k]), rtol=1e-10)


def test_expected_log_density_is_the_mean_over_points():
    x, _ = some_data(26, d=2)
    points = torch.tensor(x).T
    moments = weighted_moments(points, torch.ones(1, len(x), dtype=torch.float64), "full")
    u = torch.tensor([[[0.7, 0.3], [0.0, 1.1]]], dtype=torch.float64)
    component = Gaussians(torch.tensor([[0.3, -0.2]], dtype=torch.float64), u, "full")
    mean = component.log_density(points).mean()
    assert math.isclose(component.expected_log_density(moments).item(), mean.item(), rel_tol=1e-9)


def test_the_package_alone_does_not_import_scikit_learn():
    code = "import sys, dgm_course; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
