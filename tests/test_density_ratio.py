"""The ratio of two densities against closed forms: Gaussians, disjoint supports, enumeration."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from torch.distributions import Normal, kl_divergence

from dgm_course.density_ratio import (
    MLP,
    ContradictionWarning,
    DegenerateSupportWarning,
    DensityRatio,
    Logistic,
    gan_value,
    kl_to_prior,
    optimal_discriminator,
    total_correlation,
    two_sample_test,
)
from dgm_course.density_ratio.classifiers import Standardise
from dgm_course.density_ratio.ratio import least_kl

# name -> a constructor of a classifier; "default" chooses.
CLASSIFIERS = {
    "linear": lambda: Logistic(1),
    "quadratic": lambda: Logistic(2),
    "mlp": lambda: MLP(n_steps=150),
    "default": lambda: None,
    "scikit-learn": lambda: LogisticRegression(C=1e4),
}
TORCH = ("linear", "quadratic", "mlp", "default")
SIZES = {"balanced": (5000, 5000), "ten to one": (50_000, 5000)}


def normal(n, mean=0.0, std=1.0, seed=0, dim=1):
    """n draws of N(mean, std²) in each of dim dimensions."""
    generator = torch.Generator().manual_seed(seed)
    return mean + std * torch.randn(n, dim, generator=generator, dtype=torch.float64)


def shifted(mu, sizes=(5000, 5000), seed=0, classifier=None):
    """The ratio of N(mu, 1) to N(0, 1), fitted."""
    n, m = sizes
    x_p, x_q = normal(n, mu, seed=2 * seed), normal(m, seed=2 * seed + 1)
    return DensityRatio(classifier, generator=seed).fit(x_p, x_q)


@cache
def ratio_of(name, mu, sizes=(5000, 5000), seed=0):
    """The same of a named classifier, for all tests that only ask it."""
    return shifted(mu, sizes, seed, CLASSIFIERS[name]())


def log_ratio_error(ratio, mu, seed=10_000):
    """Root mean squared error of the log-ratio on fresh points, half of p and half of q."""
    x = torch.cat([normal(2000, mu, seed=seed), normal(2000, seed=seed + 1)])
    exact = mu * x[:, 0] - mu**2 / 2
    return (ratio.log_ratio(x) - exact).square().mean().sqrt().item()


def misses(estimate, exact):
    """By how many standard errors the estimate misses the exact value."""
    return abs(estimate.value - exact) / estimate.standard_error


# --- the ratio ------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_recovers_the_log_ratio_of_two_gaussians(name, sizes):
    ratio = ratio_of(name, 1.0, SIZES[sizes], seed=3)
    assert log_ratio_error(ratio, 1.0) < 0.15


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_label_one_is_p(name):
    ratio = ratio_of(name, 1.0, (500, 500))
    where_p_is, where_q_is = ratio.log_ratio(torch.tensor([[2.0], [-1.0]], dtype=torch.float64))
    assert where_p_is > 0.5 > -0.5 > where_q_is
    assert ratio.kl().value > 0.2
    assert ratio.reverse_kl().value > 0.2
    assert ratio.auc().value > 0.7


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_counts_do_not_shift_the_ratio(name):
    x = normal(1000, seed=7)
    ratio = DensityRatio(CLASSIFIERS[name](), generator=0).fit(normal(10_000, seed=5), x)
    assert ratio.log_ratio(x).mean().abs() < 0.1  # uncorrected: ln 10 = 2.3
    assert abs(ratio.kl().value) < 0.02
    assert ratio.jsd().value < 0.02


def test_exchanging_the_samples_turns_the_log_ratio_round():
    x_p, x_q = normal(2000, 1.0, 1.5), normal(3000, seed=1)
    there, back = (DensityRatio(Logistic(2)).fit(*pair) for pair in ((x_p, x_q), (x_q, x_p)))
    torch.testing.assert_close(there.log_ratio(x_q), -back.log_ratio(x_q), atol=1e-6, rtol=0)


def test_quadratic_log_ratio_of_gaussians_of_other_widths():
    p, q = Normal(0.5, 1.5), Normal(0.0, 1.0)
    x_p, x_q = normal(20_000, 0.5, 1.5), normal(20_000, seed=1)
    ratio = DensityRatio(generator=0).fit(x_p, x_q)
    assert ratio.losses_["quadratic"] < ratio.losses_["linear"]
    x = torch.linspace(-2, 2, 50, dtype=torch.float64)
    exact = p.log_prob(x) - q.log_prob(x)
    assert (ratio.log_ratio(x[:, None]) - exact).abs().max() < 0.15
    assert misses(ratio.kl(), kl_divergence(p, q).item()) < 3
    assert misses(ratio.reverse_kl(), kl_divergence(q, p).item()) < 3


def test_ratio_is_the_exponential():
    ratio = shifted(1.0, (500, 500), classifier=Logistic())
    x = normal(10)
    torch.testing.assert_close(ratio.ratio(x), ratio.log_ratio(x).exp())


@pytest.mark.parametrize("name", TORCH)
def test_differentiable_in_x(name):
    ratio = ratio_of(name, 1.0, (500, 500))
    x = normal(5).requires_grad_()
    assert torch.autograd.gradcheck(ratio.log_ratio, (x,))
    (slope,) = torch.autograd.grad(ratio.log_ratio(x).sum(), x)
    assert slope.mean().item() == pytest.approx(1, abs=0.4)


def test_keeps_the_dtype():
    x_p, x_q = normal(200, 1.0).float(), normal(200, seed=1).float()
    assert DensityRatio(Logistic()).fit(x_p, x_q).log_ratio(x_q).dtype == torch.float32


def test_the_default_is_the_simplest_that_will_do():
    chosen = [ratio_of("default", 1.0, (500, 500), seed).classifier_ for seed in range(5)]
    assert sum(isinstance(c, Logistic) and c.degree == 1 for c in chosen) >= 3
    x_p, x_q = normal(2000, std=2.0), normal(2000, seed=1)
    assert DensityRatio(generator=0).fit(x_p, x_q).classifier_.degree == 2
    two = torch.cat([normal(1000, -3.0, 0.5), normal(1000, 3.0, 0.5, seed=2)])
    middle = torch.cat([x_q[:500], two[::4] * 2])  # on both sides of each mode
    assert isinstance(DensityRatio(generator=0).fit(two, middle).classifier_, MLP)


@pytest.mark.parametrize("name", ["default", "mlp"])
def test_one_seed_one_result(name):
    first = ratio_of(name, 1.0, (500, 500))
    torch.rand(1)  # what others draw must not matter
    again = shifted(1.0, (500, 500), classifier=CLASSIFIERS[name]())
    assert first is not again
    assert first.kl() == again.kl()


# --- divergences ----------------------------------------------------------------------------


def exact_jsd(mu):
    x = torch.linspace(-12, 12 + mu, 20_001, dtype=torch.float64)
    log_p, log_q = Normal(mu, 1.0).log_prob(x), Normal(0.0, 1.0).log_prob(x)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    integrand = log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)
    return torch.trapezoid(integrand, x).item() / 2


@pytest.mark.parametrize("mu", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_divergences_lie_within_their_errors(name, mu):
    ratio = ratio_of(name, mu, seed=3)
    assert misses(ratio.kl(), mu**2 / 2) < 3
    assert misses(ratio.reverse_kl(), mu**2 / 2) < 3
    assert misses(ratio.jsd(), exact_jsd(mu)) < 3
    assert misses(ratio.auc(), Normal(0, 1).cdf(torch.tensor(mu / 2**0.5)).item()) < 3


class Fixed:
    """A classifier that says ``score(x)`` whatever it is given to learn from."""

    def __init__(self, score):
        self.score = score

    def fit(self, x, y, generator):
        return self

    def logit(self, x):
        return self.score(x[:, 0])


DISTORTIONS = {
    "slope": lambda x: x - 1,
    "wave": lambda x: torch.sin(2 * x),
    "level": torch.ones_like,
}


def quantiles(n, mean=0.0):
    """n points of equal probability of N(mean, 1): an average over them is a quadrature."""
    levels = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return mean + Normal(0.0, 1.0).icdf(levels)[:, None]


def distorted(shape, epsilon, mu):
    """N(mu, 1) against N(0, 1), by a score that is off by ε f(x)."""
    score = Fixed(lambda x: mu * x - mu**2 / 2 + epsilon * DISTORTIONS[shape](x))
    return DensityRatio(score, n_folds=2).fit(quantiles(100_000, mu), quantiles(100_000))


@pytest.mark.parametrize("shape", DISTORTIONS)
def test_the_dual_bound_errs_to_second_order_and_down(shape):
    exact = distorted(shape, 0.0, mu=1.0).dual_kl().value
    assert exact == pytest.approx(0.5, abs=2e-3)
    sizes = (0.2, 0.1, 0.05, -0.05, -0.2)
    missing = [exact - distorted(shape, e, mu=1.0).dual_kl().value for e in sizes]
    assert min(missing) > 0
    assert missing[0] / missing[1] == pytest.approx(4, abs=0.5)
    assert missing[1] / missing[2] == pytest.approx(4, abs=0.25)


def test_recalibration_takes_out_a_slope_and_leaves_a_wave_to_first_order():
    assert distorted("slope", 0.2, mu=2.0).kl().value == pytest.approx(2, abs=1e-3)
    off = [distorted("wave", e, mu=2.0).kl().value - 2 for e in (0.2, 0.1)]
    assert off[1] > 0.03
    assert off[0] / off[1] == pytest.approx(2, abs=0.2)


def test_the_dual_bound_stays_below_kl_in_expectation():
    """However far off the score is, for the averages are of points that it has not seen."""
    for score in (lambda x: 1.5 * x - 0.5, lambda x: torch.tanh(x), lambda x: 0 * x):
        ratios = [shifted(1.0, (200, 200), seed, Fixed(score)) for seed in range(50)]
        values = np.array([ratio.dual_kl().value for ratio in ratios])
        assert values.mean() - 2 * values.std() / 50**0.5 < 0.5
    assert values.tolist() == [0.0] * 50  # the score 0 says that nothing differs, without an error


def test_the_dual_bound_corrects_for_the_counts():
    assert misses(shifted(1.0, (20_000, 2000), seed=2, classifier=Logistic()).dual_kl(), 0.5) < 3


def test_identical_distributions():
    ratios = [shifted(0.0, (1000, 1000), seed=s, classifier=Logistic()) for s in range(20)]
    assert max(misses(r.auc(), 0.5) for r in ratios) < 3
    # Two recalibrated parameters, at n = m = 1000: about 1/n + 1/m, and not 0.
    assert 0 <= np.mean([r.kl().value for r in ratios]) < 4e-3
    assert max(misses(r.kl(), 0) for r in ratios) < 3


def test_disjoint_supports_warn_and_say_what_is_left():
    x_p = torch.rand(2000, 1, generator=torch.Generator().manual_seed(0))
    x_q = 2 + torch.rand(2000, 1, generator=torch.Generator().manual_seed(1))
    with pytest.warns(DegenerateSupportWarning, match=r"0 of 2000 \+ 2000 .* ln 2 .* slope"):
        ratio = DensityRatio(generator=0).fit(x_p, x_q)
    assert 0.95 * math.log(2) <= ratio.jsd().value <= math.log(2)
    assert ratio.kl().value > 3
    assert ratio.auc().value == 1


def test_overlapping_supports_do_not_warn():
    shifted(5.0, (2000, 2000), classifier=Logistic())  # warnings are errors; some 25 are wrong


def test_calibration_curve():
    ratio = shifted(1.0, (20_000, 4000), classifier=Logistic())
    predicted, share, weight = ratio.calibration_curve()
    assert weight.sum().item() == pytest.approx(1)
    assert (predicted - share)[weight > 0.02].abs().max() < 0.04

    class TooSure(Logistic):
        def logit(self, x):
            return 3 * super().logit(x)

    predicted, share, _ = shifted(1.0, classifier=TooSure()).calibration_curve()
    assert (predicted - share)[0] < -0.05 < 0.05 < (predicted - share)[-1]
    # Recalibration makes up for it.
    assert misses(shifted(1.0, classifier=TooSure()).kl(), 0.5) < 3


# --- bad input ------------------------------------------------------------------------------

GOOD = normal(50)


@pytest.mark.parametrize(
    ("x_p", "x_q", "message"),
    [
        (GOOD, normal(50, dim=2), "as many features, got 1 and 2"),
        (GOOD[:0], GOOD, "x_p must hold at least one point, got an empty batch"),
        (GOOD, GOOD[:0], "x_q must hold at least one point, got an empty batch"),
        (GOOD, GOOD[:9], "x_q must hold at least two points a fold, 10 for n_folds = 5, got 9"),
        (GOOD, GOOD.log(), "x_q must be finite, got NaN or inf in"),
        (GOOD[:, 0], GOOD, r"x_p must have shape .*got shape \(50,\)"),
        (GOOD.numpy(), GOOD, "x_p must be a torch.Tensor, got ndarray"),
        (GOOD.long(), GOOD, "x_p must hold floating-point numbers, got torch.int64"),
        (GOOD.float(), GOOD, "one dtype and device, got torch.float32 on cpu and torch.float64"),
    ],
)
def test_bad_samples(x_p, x_q, message):
    with pytest.raises(ValueError, match=message):
        DensityRatio().fit(x_p, x_q)


@pytest.mark.parametrize(
    "method", ["kl", "dual_kl", "reverse_kl", "jsd", "auc", "calibration_curve"]
)
def test_unfitted(method):
    with pytest.raises(ValueError, match="not fitted yet"):
        getattr(DensityRatio(), method)()
    with pytest.raises(ValueError, match="not fitted yet"):
        DensityRatio().log_ratio(GOOD)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DensityRatio(RidgeClassifier()), "must give probabilities.* got RidgeClassifier"),
        (lambda: DensityRatio(n_folds=1), "n_folds must be an int of at least 2, got 1"),
        (lambda: Logistic(3), "degree must be 1 or 2, got 3"),
        (lambda: Logistic(ridge=0), "ridge must be positive and finite, got 0"),
        (lambda: MLP(hidden=0), "at least 1, got 0"),
        (lambda: total_correlation(GOOD), r"\(N, D\) with D >= 2, got \(50, 1\)"),
        (lambda: kl_to_prior(GOOD, GOOD[:9], GOOD), r"got z_q of shape \(9, 1\)"),
        (lambda: two_sample_test(GOOD, GOOD[:3]), "y must hold at least 4 points, got 3"),
        (lambda: two_sample_test(GOOD, GOOD, n_permutations=0), "n_permutations .* got 0"),
        (lambda: two_sample_test(GOOD, normal(50, dim=2)), r"y must have shape \(N, 1\)"),
        (
            lambda: optimal_discriminator(GOOD, GOOD[:, 0]),
            r"the same shape, got \(50, 1\) and \(50,\)",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_query():
    ratio = shifted(1.0, (100, 100), classifier=Logistic())
    with pytest.raises(ValueError, match=r"x must have shape \(N, 1\), got shape \(50, 2\)"):
        ratio.log_ratio(normal(50, dim=2))


# --- the GAN's objective --------------------------------------------------------------------


def test_optimal_discriminator():
    log_p, log_q = torch.tensor([0.0, -math.inf, 2.0]), torch.tensor([0.0, 1.0, -math.inf])
    assert optimal_discriminator(log_p, log_q).tolist() == [0.5, 0.0, 1.0]
    assert optimal_discriminator(log_p[1:2], log_q[2:]).tolist() == [0.5]


@pytest.mark.parametrize("mu", [0.0, 1.0, 2.0])
def test_gan_value_at_the_optimum_is_two_jsd_minus_log_four(mu):
    logits = [mu * x[:, 0] - mu**2 / 2 for x in (normal(100_000, mu), normal(100_000, seed=1))]
    value = gan_value(*logits)
    assert abs(value.value - (2 * exact_jsd(mu) - math.log(4))) <= 3 * value.standard_error + 1e-12
    assert mu == 0 or gan_value(*(2 * s for s in logits)).value < value.value


def test_gan_value_by_enumeration():
    logit = torch.tensor([0.0, 1.0])
    d = torch.sigmoid(logit)
    expected = (d.log().mean() + (1 - d).log().mean()).item()
    assert gan_value(logit, logit).value == pytest.approx(expected, abs=1e-6)


# --- uses -----------------------------------------------------------------------------------


def correlated(rho, n, seed=0):
    z = normal(n, dim=2, seed=seed)
    return torch.stack([z[:, 0], rho * z[:, 0] + (1 - rho**2) ** 0.5 * z[:, 1]], 1)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8, 0.9])
def test_total_correlation_of_a_gaussian(rho):
    exact = -math.log(1 - rho**2) / 2
    estimate = total_correlation(correlated(rho, 10_000), generator=0)
    assert misses(estimate, exact) < 2


@pytest.mark.slow
@pytest.mark.parametrize("rho", [0.5, 0.8, 0.9])
def test_total_correlation_of_many_samples(rho):
    exact = -math.log(1 - rho**2) / 2
    estimate = total_correlation(correlated(rho, 100_000), generator=0)
    assert misses(estimate, exact) < 2
    assert abs(estimate.value / exact - 1) < 0.1


def test_kl_to_prior_of_a_gaussian_posterior():
    x, noise, prior = normal(10_000), normal(10_000, seed=1), normal(10_000, seed=2)
    # q(z|x) = N(x/2, ½), p(z) = N(0, 1); KL = ½ (x²/4 + ½ − 1 + ln 2), of which E x² = 1
    z = x / 2 + 0.5**0.5 * noise
    r = kl_to_prior(x, z, prior, generator=0)
    exact = Normal(x / 2, 0.5**0.5).log_prob(z) - Normal(0.0, 1.0).log_prob(z)
    error = r.log_ratio(torch.cat([x, z], 1)) - exact[:, 0]
    assert error.square().mean().sqrt() < 0.1
    assert misses(r.kl(), (math.log(2) - 0.25) / 2) < 2


@pytest.mark.parametrize("name", TORCH[:3])
def test_two_sample_test_finds_a_difference(name):
    test = two_sample_test(normal(500), normal(500, 1.0, seed=1), CLASSIFIERS[name](), generator=0)
    assert test.auc > 0.65
    assert test.p_value == 0.001


def test_two_sample_p_value_by_enumeration():
    """Scores that sort the held-out points perfectly: 1 in C(4, 2) labellings is as good."""
    x, y = torch.arange(10.0, 14.0)[:, None], torch.arange(4.0)[:, None]
    test = two_sample_test(x, y, Logistic(), n_permutations=9999, generator=0)
    assert test.auc == 1
    assert test.p_value == pytest.approx(1 / 6, abs=0.02)


# --- statistics over many runs --------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("mu", [1.0, 2.0])
def test_error_of_the_log_ratio_over_twenty_seeds(mu, sizes):
    errors = [log_ratio_error(shifted(mu, SIZES[sizes], seed), mu) for seed in range(20)]
    assert np.sum(np.array(errors) < 0.15) >= 17
    assert max(errors) < 0.25


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mu", "sizes"),
    [
        ("linear", 1.0, "balanced"),
        ("linear", 2.0, "balanced"),
        ("linear", 1.0, "ten to one"),
        ("linear", 2.0, "ten to one"),
        ("quadratic", 2.0, "balanced"),  # more weights than the recalibration has
    ],
)
def test_intervals_of_two_standard_errors_cover(name, mu, sizes):
    covered = []
    for seed in range(200):
        ratio = shifted(mu, SIZES[sizes], seed, CLASSIFIERS[name]())
        exact = (mu**2 / 2, mu**2 / 2, exact_jsd(mu))
        found = (ratio.kl(), ratio.reverse_kl(), ratio.jsd())
        covered.append([misses(f, e) < 2 for f, e in zip(found, exact, strict=True)])
    assert (np.mean(covered, 0) >= 0.9).all()


@pytest.mark.slow
def test_two_sample_p_values_are_uniform_when_nothing_differs():
    from scipy.stats import kstest

    p_values = [
        two_sample_test(
            normal(100, seed=2 * s), normal(100, seed=2 * s + 1), Logistic(2), generator=s
        ).p_value
        for s in range(200)
    ]
    assert kstest(p_values, "uniform").pvalue > 0.01


# --- heavy tails, and claims that contradict one another ------------------------------------

CAUCHY = torch.distributions.Cauchy(0.0, 1.0)


def with_one_far_point(x, column=0):
    return x.index_put((torch.tensor(0), torch.tensor(column)), torch.tensor(1e6))


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (lambda n: (CAUCHY.sample((n, 1)) + 1, CAUCHY.sample((n, 1))), math.log(1.25)),
        pytest.param(lambda n: (2 * CAUCHY.sample((n, 1)), CAUCHY.sample((n, 1))), math.log(9 / 8),
                     marks=pytest.mark.slow),
        (lambda n: (CAUCHY.sample((n, 1)), CAUCHY.sample((n, 1))), 0.0),
        pytest.param(lambda n: ((2 * torch.randn(n, 1) + 1).exp(), (2 * torch.randn(n, 1)).exp()),
                     1 / 8, marks=pytest.mark.slow),
        (lambda n: (with_one_far_point(torch.randn(n, 1) + 1), torch.randn(n, 1)), 0.5),
        (lambda n: (with_one_far_point(torch.randn(n, 1)), torch.randn(n, 1)), 0.0),
        (lambda n: (torch.randn(n, 5) + torch.eye(5)[1], with_one_far_point(torch.randn(n, 5), 4)),
         0.5),
        (lambda n: (1e8 + 16 * torch.randn(n, 1), 1e8 + 16 * torch.randn(n, 1) + 16), 0.5),
        (lambda n: (torch.poisson(torch.full((n, 1), 4.0)), torch.poisson(torch.full((n, 1), 3.0))),
         4 * math.log(4 / 3) - 1),
    ],
    ids="cauchy cauchy-scale cauchy-same lognormal outlier outlier-same 5d offset integers".split(),
)  # fmt: skip
def test_tails_and_outliers_leave_the_divergence_within_its_error(draw, expected):
    torch.manual_seed(0)
    found = DensityRatio(generator=0).fit(*draw(1000)).kl()
    assert abs(found.value - expected) < 3 * found.standard_error
    assert found.standard_error < 0.1


@pytest.mark.parametrize("side", ["x", "y"])
def test_a_heavy_tail_is_bent_and_nothing_else(side):
    torch.manual_seed(0)
    x = torch.cat([torch.randn(2000, 2), 1 + 3 * torch.randn(2000, 2)]).double()
    y = torch.arange(4000) < 2000
    far = with_one_far_point(x.float()).double() if side == "x" else -with_one_far_point(x.float())
    bent = Standardise(far.double(), y)
    plain = Standardise(x, y)
    torch.testing.assert_close(plain(x), (x - x.mean(0)) / x.std(0))
    assert bent(far.double())[:, 0].abs().max() < 30
    assert bent(far.double())[1:, 0].std() == pytest.approx(1, abs=0.2)
    at = torch.linspace(-100, 100, 999, dtype=torch.float64)[:, None].expand(-1, 2)
    assert (bent(at).diff(dim=0) > 0).all(), "it keeps the order"


@pytest.mark.parametrize("n", [4, 10, 30])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_equal_constants_are_not_called_separable(n, value):
    x = torch.full((n, 2), value)
    ratio = DensityRatio(Logistic(1), n_folds=2, generator=0).fit(x, x)  # warnings are errors
    assert ratio.kl().value == pytest.approx(0, abs=1e-9)


def test_tiny_samples_of_one_density_are_not_called_separable():
    torch.manual_seed(0)
    DensityRatio(Logistic(1), generator=0).fit(torch.randn(10, 1), torch.randn(10, 1))


class Flattened:
    """A classifier that orders the points as a good one does, and says next to nothing."""

    def fit(self, x, y, generator):
        return self

    def logit(self, x):
        return torch.where(x[:, 0].abs() > 4, 1e3 * x[:, 0], 1e-6 * x[:, 0])


@pytest.mark.parametrize("shift", [1.0, 1.5, -1.0])
def test_a_divergence_that_the_order_of_the_scores_contradicts_is_named(shift):
    torch.manual_seed(0)
    x_p, x_q = torch.randn(2000, 1) + shift, torch.randn(2000, 1)
    x_q[:300], x_p[:300] = 1e3 * torch.randn(300, 1), 1e3 * torch.randn(300, 1)
    with pytest.warns(
        ContradictionWarning, match=r"KL.* = -?0\.0.* the curve, 0\.[367].* 0\.[24].* nats"
    ):
        DensityRatio(Flattened(), generator=0).fit(x_p, x_q)


@pytest.mark.parametrize("shift", [0.3, 1.0, 2.0])
def test_the_least_divergence_of_an_area_is_below_the_true_one(shift):
    """And for a tilted uniform density, p ∝ e^(λu) on [0, 1] against q uniform, it is reached."""
    normal = torch.distributions.Normal(0.0, 1.0)
    area = normal.cdf(torch.tensor(shift / 2**0.5)).item()
    assert 0.5 * shift**2 / 2 < least_kl(area) < shift**2 / 2
    slope, u = 3 * shift, (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    log_p = slope * u - torch.logsumexp(slope * u, 0) + math.log(20_000)
    area = (log_p.exp() * u).mean().item()
    assert least_kl(area) == pytest.approx((log_p.exp() * log_p).mean().item(), abs=1e-3)
    assert least_kl(0.5) == 0
