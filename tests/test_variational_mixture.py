import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from scipy.special import gammaln, multigammaln
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.mixture import BayesianGaussianMixture
from sklearn.utils.estimator_checks import check_estimator
from torch.distributions import Dirichlet, MultivariateNormal, Wishart

from dgm_course.mixtures import GaussianMixture, VariationalGaussianMixture


def blobs(seed=0, n=120, d=2, k=3):
    rng = np.random.default_rng(seed)
    return 4 * rng.normal(size=(k, d))[rng.integers(k, size=n)] + rng.normal(size=(n, d))


def some_prior(d):
    """A prior with nothing at its default, and nothing symmetric."""
    return {
        "weight_concentration_prior": 1.7,
        "mean_precision_prior": 0.6,
        "mean_prior": np.linspace(-0.5, 1, d),
        "degrees_of_freedom_prior": d + 1.5,
        "covariance_prior": np.eye(d) + 0.3,
    }


FLAT = {
    "delta": True,
    "weight_concentration_prior": 1,
    "mean_precision_prior": 0,
    "degrees_of_freedom_prior": 2,
    "covariance_prior": np.zeros((2, 2)),
}


def fit(x, k=3, *, n_iter=1, **options):
    options = {"means_init": x[:k], "tol": 0, "max_iter": n_iter} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return VariationalGaussianMixture(k, **options).fit(x)


def responsibilities(n, k=3, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(k), size=n)


# --- scikit-learn as the oracle -------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 4])
def test_equals_scikit_learn_step_by_step(d):
    x = blobs(d, d=d)
    k, prior = 4, some_prior(d)
    r = responsibilities(len(x), k)
    theirs = BayesianGaussianMixture(
        n_components=k,
        weight_concentration_prior_type="dirichlet_distribution",
        reg_covar=0,
        **prior,
    )
    theirs._check_parameters(x)
    theirs._initialize(x, r)
    ours = fit(x, k, n_iter=0, **prior).m_step(x, r)
    for _ in range(10):
        names = ("weight_concentration", "mean_precision", "means", "degrees_of_freedom")
        for name in (*names, "covariances", "precisions_cholesky"):
            a, b = getattr(ours, f"{name}_"), getattr(theirs, f"{name}_")
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8, err_msg=name)
        _, log_r = theirs._e_step(x)
        r = ours.e_step(x)
        np.testing.assert_allclose(r, np.exp(log_r), atol=1e-9)
        theirs._m_step(x, log_r)
        ours.m_step(x, r)


def test_its_bound_differs_from_scikit_learns_by_a_constant():
    x, k, prior = blobs(), 4, some_prior(2)
    theirs = BayesianGaussianMixture(
        n_components=k,
        weight_concentration_prior_type="dirichlet_distribution",
        reg_covar=0,
        **prior,
    )
    theirs._check_parameters(x)
    theirs._initialize(x, responsibilities(len(x), k))
    ours = fit(x, k, n_iter=0, **prior).m_step(x, responsibilities(len(x), k))
    gaps = []
    for _ in range(8):
        log_norm, log_r = theirs._e_step(x)
        theirs._m_step(x, log_r)
        r = ours.e_step(x)
        ours.m_step(x, r)
        gaps.append(ours.lower_bound(x, r) - theirs._compute_lower_bound(log_r, log_norm))
    assert np.ptp(gaps) < 1e-8
    assert abs(gaps[0]) > 1


def test_defaults_are_scikit_learns():
    x = blobs()
    theirs = BayesianGaussianMixture(
        n_components=3, weight_concentration_prior_type="dirichlet_distribution"
    )
    theirs._check_parameters(x)
    alpha, beta, mean, nu, scale = fit(x)._prior
    assert alpha == theirs.weight_concentration_prior_
    assert beta == theirs.mean_precision_prior_
    assert nu == theirs.degrees_of_freedom_prior_
    np.testing.assert_allclose(mean, theirs.mean_prior_)
    np.testing.assert_allclose(scale, theirs.covariance_prior_)


def test_is_a_scikit_learn_estimator():
    for model in (VariationalGaussianMixture(2, random_state=0),):
        results = check_estimator(model, on_skip=None, on_fail=None)
        failed = [r for r in results if r["status"] == "failed"]
        assert not failed, failed


# --- enumeration as the oracle: p(X) is a sum over all Kᴺ assignments ------------------------


def log_evidence(x, k, alpha, beta, mean, nu, scale):
    """log p(X) of the conjugate mixture, by adding up every assignment of points to components."""
    n, d = x.shape
    terms = []
    cache = {}

    def log_marginal(members):  # of the points of one component
        if members not in cache:
            m = len(members)
            y = x[list(members)]
            b, v = beta + m, nu + m
            average = y.mean(0) if m else mean
            centred = y - average
            s = scale + centred.T @ centred
            s = s + beta * m / b * np.outer(average - mean, average - mean)
            cache[members] = (
                -0.5 * m * d * math.log(math.pi)
                + multigammaln(v / 2, d)
                - multigammaln(nu / 2, d)
                + nu / 2 * np.linalg.slogdet(scale)[1]
                - v / 2 * np.linalg.slogdet(s)[1]
                + d / 2 * math.log(beta / b)
            )
        return cache[members]

    for z in itertools.product(range(k), repeat=n):
        parts = [tuple(i for i in range(n) if z[i] == j) for j in range(k)]
        counts = np.array([len(part) for part in parts])
        log_p = gammaln(k * alpha) - gammaln(k * alpha + n)
        log_p += (gammaln(alpha + counts) - gammaln(alpha)).sum()
        terms.append(log_p + sum(log_marginal(part) for part in parts))
    return np.logaddexp.reduce(terms)


def enumerated(x, k, prior):
    names = ("weight_concentration", "mean_precision", "mean", "degrees_of_freedom", "covariance")
    return log_evidence(x, k, *(prior[f"{name}_prior"] for name in names))


@pytest.mark.parametrize(("d", "k", "n"), [(1, 2, 9), (2, 2, 8), (2, 3, 6)])
def test_the_bound_is_below_the_enumerated_evidence(d, k, n):
    x = blobs(3, n=n, d=d, k=2)
    prior = some_prior(d)
    log_p = enumerated(x, k, prior)
    mixture = fit(x, k, n_iter=200, **prior)
    total = mixture.half_step_bounds_ * n
    assert (total < log_p).all()
    assert total[-1, 1] > log_p - 6  # ln K! of it for the labels' other orders
    rng = np.random.default_rng(0)
    for _ in range(20):  # at any q(Z), optimal or not
        assert mixture.lower_bound(x, rng.dirichlet(np.ones(k), size=n)) < log_p


@pytest.mark.parametrize("d", [1, 3])
def test_with_one_component_the_bound_is_the_evidence(d):
    """Then q(θ) is the exact posterior: every term and every constant of the bound is right."""
    x, prior = blobs(4, n=15, d=d), some_prior(d)
    mixture = fit(x, 1, n_iter=2, **prior)
    log_p = enumerated(x, 1, prior)
    assert math.isclose(mixture.half_step_bounds_[-1, 1] * 15, log_p, abs_tol=1e-8)


# --- the bound ------------------------------------------------------------------------------


def test_terms_add_up_and_are_named():
    x = blobs()
    mixture = fit(x, n_iter=3)
    r = mixture.e_step(x)
    terms = mixture.bound_terms(x, r)
    assert list(terms) == [
        "E log p(X | Z, θ)",
        "E log p(Z | π)",
        "E log p(π)",
        "E log p(μ, Λ)",
        "H[q(Z)]",
        "H[q(π)]",
        "H[q(μ, Λ)]",
    ]
    assert math.isclose(sum(terms.values()), mixture.lower_bound(x, r), rel_tol=1e-12)


@pytest.mark.parametrize("d", [1, 2])
def test_terms_are_those_of_samples_from_q(d):
    """Each term by Monte Carlo from torch's Dirichlet, Wishart and Gaussian."""
    torch.manual_seed(0)
    x, prior, k, s = blobs(5, n=30, d=d), some_prior(d), 2, 20_000
    r = responsibilities(30, k)
    mixture = fit(x, k, **prior).m_step(x, r)
    terms = mixture.bound_terms(x, r)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of Wishart samples that it draws again
        draws = monte_carlo_terms(mixture, torch.tensor(x), torch.tensor(r), prior, s)
    for name, values in draws.items():
        error = values.std().item() / s**0.5
        assert abs(values.mean().item() - terms[name]) < 5 * error + 1e-9, name


def monte_carlo_terms(mixture, x, r, prior, s):
    t = {
        name: torch.tensor(value)
        for name, value in vars(mixture).items()
        if name[-1] == "_" and isinstance(value, np.ndarray)
    }
    k = len(t["means_"])
    q_pi = Dirichlet(t["weight_concentration_"])
    nu = t["degrees_of_freedom_"]
    precision = torch.linalg.inv(t["covariances_"]) / nu[:, None, None]
    q_lambda = Wishart(nu, covariance_matrix=precision)
    pi, lam = q_pi.sample((s,)), q_lambda.sample((s,))  # (S, K), (S, K, D, D)
    q_mu = MultivariateNormal(
        t["means_"], precision_matrix=t["mean_precision_"][:, None, None] * lam
    )
    mu = q_mu.sample()  # (S, K, D)
    likelihood = MultivariateNormal(mu[:, None], precision_matrix=lam[:, None])
    p_pi = Dirichlet(torch.full((k,), prior["weight_concentration_prior"], dtype=torch.float64))
    p_lambda = Wishart(
        torch.tensor(prior["degrees_of_freedom_prior"]).double(),
        covariance_matrix=torch.linalg.inv(torch.tensor(prior["covariance_prior"])),
    )
    p_mu = MultivariateNormal(
        torch.tensor(prior["mean_prior"]), precision_matrix=prior["mean_precision_prior"] * lam
    )
    log_x = torch.cat([likelihood.log_prob(row) for row in x[:, None, None]], 1)  # (S, N, K)
    return {
        "E log p(X | Z, θ)": (r * log_x).sum((1, 2)),
        "E log p(Z | π)": (r * pi.log()[:, None]).sum((1, 2)),
        "E log p(π)": p_pi.log_prob(pi),
        "E log p(μ, Λ)": (p_mu.log_prob(mu) + p_lambda.log_prob(lam)).sum(1),
        "H[q(π)]": -q_pi.log_prob(pi),
        "H[q(μ, Λ)]": -(q_mu.log_prob(mu) + q_lambda.log_prob(lam)).sum(1),
    }


@pytest.mark.parametrize("delta", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_bound_never_falls_at_either_half_step(seed, delta):
    x = blobs(seed)
    bounds = fit(x, 5, n_iter=80, delta=delta).half_step_bounds_
    assert (np.diff(bounds.ravel()) >= -1e-11).all()
    assert bounds[-1, 1] > bounds[0, 0] + 0.01


@pytest.mark.parametrize("delta", [False, True])
def test_recorded_bounds_are_lower_bounds_at_their_half_steps(delta):
    x = blobs()
    whole, stepper = (fit(x, n_iter=n, delta=delta, **some_prior(2)) for n in (4, 0))
    for after_e, after_m in whole.half_step_bounds_ * len(x):
        r = stepper.e_step(x)
        assert math.isclose(stepper.lower_bound(x, r), after_e, rel_tol=1e-10)
        stepper.m_step(x, r)
        assert math.isclose(stepper.lower_bound(x, r), after_m, rel_tol=1e-10)


# --- the delta: EM and MAP-EM ---------------------------------------------------------------


def test_a_delta_under_a_flat_prior_is_em_step_by_step():
    """Flat as a density in (π, μ, Λ): α₀ = 1, β₀ = 0, ν₀ = D, W₀⁻¹ = 0."""
    x = blobs()
    r = responsibilities(len(x))
    em = (
        GaussianMixture(3, reg_covar=0, max_iter=0, means_init=x[:3], weights_init=[0.2, 0.3, 0.5])
        .fit(x)
        .m_step(x, r)
    )
    mean_field = fit(x, n_iter=0, **FLAT).m_step(x, r)
    for _ in range(25):
        for name in ("weights_", "means_", "covariances_", "precisions_cholesky_"):
            a, b = getattr(mean_field, name), getattr(em, name)
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11, err_msg=name)
        np.testing.assert_allclose(mean_field.score_samples(x), em.score_samples(x), atol=1e-9)
        r, same = mean_field.e_step(x), em.e_step(x)
        np.testing.assert_allclose(r, same, atol=1e-9)
        # The bound without H[q(θ)] is EM's, and touches log p(X, θ*); the density of the flat prior
        # is that of π, (K − 1)! on the simplex.
        bound = mean_field.lower_bound(x, r) - math.log(2)
        assert math.isclose(bound, em.lower_bound(x, same).sum(), abs_tol=1e-8)
        assert math.isclose(bound, em.score_samples(x).sum(), abs_tol=1e-8)
        mean_field.m_step(x, r)
        em.m_step(x, same)


def penalised(x, r, prior, weights, means, precisions):
    """E_q(Z) log p(X, Z | θ) + log p(θ), the prior's density taken in (π, μ, Λ)."""
    likelihood = MultivariateNormal(means, precision_matrix=precisions)
    k = len(weights)
    p_pi = Dirichlet(torch.full((k,), prior["weight_concentration_prior"], dtype=torch.float64))
    p_lambda = Wishart(
        torch.tensor(prior["degrees_of_freedom_prior"]).double(),
        covariance_matrix=torch.linalg.inv(torch.tensor(prior["covariance_prior"])),
    )
    p_mu = MultivariateNormal(
        torch.tensor(prior["mean_prior"]),
        precision_matrix=prior["mean_precision_prior"] * precisions,
    )
    expected = (r * (weights.log() + likelihood.log_prob(x[:, None]))).sum()
    return (
        expected
        + p_pi.log_prob(weights)
        + (p_mu.log_prob(means)).sum()
        + (p_lambda.log_prob(precisions)).sum()
    )


def test_a_delta_under_a_prior_is_map_em_step_by_step():
    """The M-step leaves no gradient of E log p(X, Z | θ) + log p(θ) in (π, μ, Λ), by autograd."""
    x, prior = blobs(), some_prior(2)
    points = torch.tensor(x)
    mixture = fit(x, n_iter=0, delta=True, **prior)
    joint = []
    for _ in range(5):
        r = mixture.e_step(x)
        # The E-step is the exact posterior of Z at θ*.
        em = GaussianMixture(
            3,
            max_iter=0,
            weights_init=mixture.weights_,
            means_init=mixture.means_,
            precisions_init=np.linalg.inv(mixture.covariances_),
        ).fit(x)
        np.testing.assert_allclose(r, em.e_step(x), atol=1e-9)
        mixture.m_step(x, r)
        weights = torch.tensor(mixture.weights_, requires_grad=True)
        means = torch.tensor(mixture.means_, requires_grad=True)
        precisions = torch.linalg.inv(torch.tensor(mixture.covariances_)).requires_grad_()
        value = penalised(
            points, torch.tensor(r), prior, weights, means, (precisions + precisions.mT) / 2
        )
        d_weights, d_means, d_precisions = torch.autograd.grad(value, (weights, means, precisions))
        assert np.ptp((d_weights).numpy()) < 1e-8 * d_weights.abs().max()  # on the simplex
        assert d_means.abs().max() < 1e-8
        assert d_precisions.abs().max() < 1e-7
        # The bound is this value and the entropy of q(Z), without that of the delta.
        entropy = -np.where(r > 0, r * np.log(np.maximum(r, 1e-300)), 0).sum()
        bound = mixture.lower_bound(x, r)
        assert math.isclose(bound, value.item() + entropy, rel_tol=1e-9)
        joint.append(bound)
    assert (np.diff(joint) > 0).all()


def test_the_parametrisation_matters():
    """As a density in Σ the same prior has another maximum: ν − D becomes ν + D + 2."""
    x, prior = blobs(), some_prior(2)
    r = responsibilities(len(x))
    mixture = fit(x, n_iter=0, delta=True, **prior).m_step(x, r)
    weights, means = torch.tensor(mixture.weights_), torch.tensor(mixture.means_)

    def slope(covariances, power):
        covariances = torch.tensor(covariances, requires_grad=True)
        symmetric = (covariances + covariances.mT) / 2
        value = penalised(
            torch.tensor(x), torch.tensor(r), prior, weights, means, torch.linalg.inv(symmetric)
        )
        # |dΛ / dΣ| = |Σ|^−(D + 1)
        value = value - power * torch.logdet(symmetric).sum()
        return torch.autograd.grad(value, covariances)[0].abs().max().item()

    nu = mixture.degrees_of_freedom_[:, None, None]
    in_sigma = mixture.covariances_ * (nu - 2) / (nu + 4)
    assert slope(mixture.covariances_, 0) < 1e-7
    assert slope(in_sigma, 3) < 1e-7
    assert slope(mixture.covariances_, 3) > 0.1


# --- automatic relevance, predictions, samples ----------------------------------------------


def test_superfluous_components_lose_their_weight():
    x = blobs(1, n=400, k=3)
    mixture = fit(x, 8, n_iter=200, weight_concentration_prior=1e-3)
    assert (mixture.weights_ > 0.01).sum() == 3
    em = GaussianMixture(8, means_init=x[:8], max_iter=500).fit(x)
    assert (em.weights_ > 0.01).sum() > 3


@pytest.mark.parametrize("delta", [False, True])
def test_predictive_density_is_the_mean_over_q(delta):
    torch.manual_seed(0)
    x = blobs(2, n=30)
    mixture = fit(x, n_iter=5, delta=delta, **some_prior(2))
    new = torch.tensor(x[:6] + 1)
    if delta:
        samples = MultivariateNormal(
            torch.tensor(mixture.means_), torch.tensor(mixture.covariances_)
        ).log_prob(new[:, None]).exp() @ torch.tensor(mixture.weights_)
        np.testing.assert_allclose(mixture.score_samples(new), samples.log(), atol=1e-10)
        return
    s = 40_000
    nu = torch.tensor(mixture.degrees_of_freedom_)
    precision = torch.linalg.inv(torch.tensor(mixture.covariances_)) / nu[:, None, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lam = Wishart(nu, covariance_matrix=precision).sample((s,))
    beta = torch.tensor(mixture.mean_precision_)[:, None, None]
    mu = MultivariateNormal(torch.tensor(mixture.means_), precision_matrix=beta * lam).sample()
    pi = Dirichlet(torch.tensor(mixture.weight_concentration_)).sample((s,))
    density = MultivariateNormal(mu[:, None], precision_matrix=lam[:, None]).log_prob(new[:, None])
    values = (density.exp() * pi[:, None]).sum(2)  # (S, 6)
    error = values.std(0) / s**0.5
    assert (
        (values.mean(0) - torch.tensor(mixture.score_samples(new)).exp()).abs() < 5 * error
    ).all()


def test_predictive_density_integrates_to_one():
    x = blobs(2, n=40, d=1)
    mixture = fit(x, n_iter=5)
    grid = np.linspace(-400, 400, 400_001)
    mass = np.trapezoid(np.exp(mixture.score_samples(grid[:, None])), grid)
    assert math.isclose(mass, 1, abs_tol=1e-4)


@pytest.mark.parametrize("delta", [False, True])
def test_samples_follow_the_predictive_density(delta):
    x = blobs(2, n=8, d=1, k=2)  # few points: the tails of a t with few degrees of freedom
    mixture = fit(x, 2, n_iter=5, delta=delta, random_state=0)
    drawn, z = mixture.sample(40_000)
    np.testing.assert_allclose(np.bincount(z) / 40_000, mixture.weights_, atol=0.02)
    grid = np.linspace(-60, 60, 60_001)
    density = np.exp(mixture.score_samples(grid[:, None]))
    distribution = np.cumsum(density) * (grid[1] - grid[0])
    for level in (-8.0, -4.0, -2.0, 0.0, 2.0, 4.0, 8.0):
        assert abs((drawn < level).mean() - np.interp(level, grid, distribution)) < 0.012


# --- bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_components": 200}, "got n_components = 200, n_samples = 120"),
        ({"weight_concentration_prior": 0}, "weight_concentration_prior must be positive, got 0"),
        ({"delta": True, "weight_concentration_prior": 0.5}, "at least 1 with a delta.*got 0.5"),
        ({"mean_precision_prior": 0}, "mean_precision_prior must be positive, got 0"),
        ({"degrees_of_freedom_prior": 1}, "degrees_of_freedom_prior must be above 1, got 1"),
        ({"mean_prior": [0]}, r"mean_prior must have shape \(2,\), got \(1,\)"),
        ({"covariance_prior": np.zeros((2, 2))}, "covariance_prior must be symmetric and positive"),
        ({"covariance_prior": [[1, 0.5], [0, 1]]}, "covariance_prior must be symmetric"),
        ({"covariance_prior": np.eye(3)}, r"covariance_prior must have shape \(2, 2\)"),
        ({"tol": math.nan}, "tol must be at least 0 and finite"),
    ],
)
def test_bad_arguments_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        VariationalGaussianMixture(**({"n_components": 2} | options)).fit(blobs())


def test_hard_data():
    with pytest.raises(NotFittedError):
        VariationalGaussianMixture().score_samples(blobs())
    with pytest.raises(ValueError, match="a feature that does not vary needs a covariance_prior"):
        VariationalGaussianMixture().fit(np.ones((10, 2)))
    x = np.concatenate([blobs(), np.tile(blobs()[:1], (30, 1))])
    fit(x, n_iter=50)  # the prior keeps the widths up, without a word
    with (
        pytest.warns(UserWarning, match="30 of 150 rows repeat another"),
        pytest.raises(ValueError, match="has collapsed: .* a prior that is not flat"),
    ):
        fit(x, 2, n_iter=100, **FLAT | {"means_init": [x[0], x[0] + 50]})


def test_far_off_data_loses_no_digits():
    far = np.round(blobs(), 6) + 1e4
    near = far - 1e4
    a, b = fit(far, n_iter=20), fit(near, n_iter=20)
    np.testing.assert_allclose(a.covariances_, b.covariances_, rtol=1e-9)
    np.testing.assert_allclose(a.means_ - 1e4, b.means_, atol=1e-9)
    assert math.isclose(a.lower_bound_, b.lower_bound_, abs_tol=1e-9)
