"""Schedules, the noising process and exact denoisers against autograd, quadrature, closed forms."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal

from dgm_course import data
from dgm_course.diffusion import (
    Clamped,
    CosineSchedule,
    ExplodingSchedule,
    Guided,
    LinearSchedule,
    MixtureDenoiser,
    Prediction,
    Schedule,
    ScoreModel,
    ancestral,
    ddim,
    gaussian_variance,
    log_prob_ode,
    ode,
    posterior,
    q_sample,
    step,
    time_grid,
    variational_bound,
)
from dgm_course.mixtures import GaussianMixture
from tests.diffusion import MEANS, WEIGHTS

SCHEDULES = {
    "linear": LinearSchedule(),
    "cosine": CosineSchedule(),
    "exploding": ExplodingSchedule(),
}
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
f64 = partial(torch.tensor, dtype=torch.float64)
COVARIANCES = f64([[[0.2, 0.1], [0.1, 0.3]], [[0.05, 0.0], [0.0, 0.5]], [[0.3, -0.2], [-0.2, 0.3]]])


def mixture(schedule=SCHEDULES["linear"]):
    return MixtureDenoiser(schedule, WEIGHTS, MEANS, COVARIANCES)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


# --- schedules --------------------------------------------------------------------------------


@each_schedule
def test_a_schedule_starts_at_the_data_and_its_rates_are_its_derivatives(schedule):
    assert schedule.alpha(0.0) == 1
    assert schedule.sigma(0.0) == 0
    t = torch.linspace(0.001, 1, 500, dtype=torch.float64).requires_grad_()
    log_alpha, variance = schedule.alpha(t).log(), schedule.sigma(t).square()
    (f,) = torch.autograd.grad(log_alpha.sum() + 0 * t.sum(), t, retain_graph=True)
    (slope,) = torch.autograd.grad(variance.sum(), t)
    found_f, found_g2 = schedule.rates(t)
    torch.testing.assert_close(found_f, f, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found_g2, slope - 2 * f * variance, rtol=1e-8, atol=1e-10)
    assert (schedule.log_snr(t).diff() < 0).all()
    assert (found_g2 > 0).all()


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_variance_is_preserved(name):
    t = torch.linspace(0, 1, 300, dtype=torch.float64)
    kept = SCHEDULES[name].alpha(t).square() + SCHEDULES[name].sigma(t).square()
    torch.testing.assert_close(kept, torch.ones(300).double(), rtol=0, atol=1e-14)
    assert SCHEDULES[name].alpha(1.0) < 0.01, "of the data next to nothing is left"
    assert SCHEDULES[name].prior_scale == 1


def test_schedules_are_what_their_sources_print():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    alpha_bar = LinearSchedule(0.1, 20).alpha(t).square()
    torch.testing.assert_close(alpha_bar, torch.exp(-0.1 * t - 19.9 * t**2 / 2))
    angle = (t / (1 + 1e-9) + 0.008) / 1.008  # of Nichol and Dhariwal, with its end almost kept
    cosine = CosineSchedule(0.008 / 1.008, 1e-9).alpha(t).square()
    expected = (angle * math.pi / 2).cos().square() / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    torch.testing.assert_close(cosine[:-1], expected[:-1], rtol=1e-6, atol=0)
    exploding = ExplodingSchedule(0.1, 10)
    torch.testing.assert_close(exploding.sigma(t).square() + 0.01, (0.1 * 100**t).square())
    assert exploding.prior_scale == pytest.approx(math.sqrt(100 - 0.01))


@each_schedule
def test_little_noise_keeps_its_digits_in_float32(schedule):
    t = torch.logspace(-6, -1, 30)
    ours, exact = schedule.sigma(t), schedule.sigma(t.double())
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=0)


def test_time_grids():
    torch.testing.assert_close(time_grid(5, 2, 0.1)[2], f64(0.1 + 0.9 * 0.16))
    assert time_grid(1).tolist() == [0, 1]


# --- noising ----------------------------------------------------------------------------------


@each_schedule
def test_noising_step_by_step_is_noising_at_once(schedule):
    """The moments of a chain of forward steps x_t = a x_s + √b z are α and σ² on any grid."""
    times = time_grid(37, 1.7)
    of = step(schedule, times[:-1], times[1:])
    mean, variance = torch.ones(()).double(), torch.zeros(()).double()
    for i in range(37):
        a = schedule.alpha(times[i + 1]) / schedule.alpha(times[i])
        mean, variance = a * mean, a**2 * variance + of.forward_variance[i]
        torch.testing.assert_close(mean, schedule.alpha(times[i + 1]), rtol=1e-12, atol=0)
        expected = schedule.sigma(times[i + 1]).square()
        torch.testing.assert_close(variance, expected, rtol=1e-11, atol=0)


def test_a_draw_has_the_moments_of_its_schedule():
    x0, t = torch.full((40_000, 1), 2.0).double(), f64([0.1, 0.6]).repeat(20_000)
    x = q_sample(x0, t, normal(40_000, 1), SCHEDULES["linear"])
    for now in (0.1, 0.6):
        alpha, sigma = (getattr(SCHEDULES["linear"], k)(now).item() for k in ("alpha", "sigma"))
        assert x[t == now].mean().item() == pytest.approx(2 * alpha, abs=5 * sigma / 141)
        assert x[t == now].std().item() == pytest.approx(sigma, rel=5 / 200)
    assert torch.equal(q_sample(x0, 0.0, normal(40_000, 1), SCHEDULES["linear"]), x0)


@each_schedule
@pytest.mark.parametrize(("s", "t"), [(0.0, 0.2), (0.1, 0.2), (0.3, 0.9), (0.97, 1.0)])
def test_the_posterior_is_bayes_rule_by_quadrature(schedule, s, t):
    x0 = f64([[0.7]])
    x_t = schedule.alpha(t) * x0 - 0.8 * schedule.sigma(t)
    found = posterior(x0, x_t, s, t, schedule)
    a, b = (schedule.alpha(v) for v in (s, t))
    sigma_s, sigma_t = schedule.sigma(s), schedule.sigma(t)
    if s == 0:
        assert (found.mean.item(), found.variance.item()) == (pytest.approx(0.7, abs=1e-15), 0.0)
        return
    grid = torch.linspace(-9, 9, 40_001, dtype=torch.float64) * sigma_s + a * 0.7
    added = sigma_t**2 - (b / a * sigma_s) ** 2
    log_w = -((grid - a * 0.7) ** 2) / (2 * sigma_s**2) - (x_t - b / a * grid) ** 2 / (2 * added)
    w = log_w.softmax(1)[0]
    mean = (w * grid).sum()
    torch.testing.assert_close(found.mean[0, 0], mean, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(found.variance[0], (w * (grid - mean) ** 2).sum(), rtol=1e-8, atol=0)


@each_schedule
def test_a_posterior_through_a_posterior_is_the_marginal(schedule):
    """Draws from q(x_t | x₀), then q(x_s | x_t, x₀), have the mean and variance of q(x_s | x₀)."""
    s, t = f64(0.25), f64(0.4)
    of = step(schedule, s, t)
    mean = of.from_x * schedule.alpha(t) + of.from_x0
    variance = of.from_x.square() * schedule.sigma(t).square() + of.variance
    torch.testing.assert_close(mean, schedule.alpha(s), rtol=1e-12, atol=0)
    torch.testing.assert_close(variance, schedule.sigma(s).square(), rtol=1e-11, atol=0)


# --- the mixture ------------------------------------------------------------------------------


@each_schedule
def test_the_density_is_torchs_and_the_score_is_its_gradient(schedule):
    model = mixture(schedule)
    x, t = (3 * normal(50, 2)).requires_grad_(), torch.linspace(0, 1, 50, dtype=torch.float64)
    for now in (0.0, 0.03, 0.4, 1.0):
        alpha, sigma = schedule.alpha(now), schedule.sigma(now)
        covariances = alpha**2 * COVARIANCES + sigma**2 * torch.eye(2).double()
        exact = MixtureSameFamily(
            Categorical(WEIGHTS), MultivariateNormal(alpha * MEANS, covariances)
        )
        torch.testing.assert_close(
            model.log_prob(x, now), exact.log_prob(x), rtol=1e-11, atol=1e-11
        )
        (expected,) = torch.autograd.grad(exact.log_prob(x).sum(), x)
        torch.testing.assert_close(model.score(x, now), expected, rtol=1e-10, atol=1e-10)
    (expected,) = torch.autograd.grad(model.log_prob(x, t).sum(), x)
    torch.testing.assert_close(model.score(x, t), expected, rtol=1e-10, atol=1e-10)


@each_schedule
@pytest.mark.parametrize("t", [0.2, 0.6])
def test_the_denoiser_is_the_posterior_mean_by_quadrature(schedule, t):
    model, x = mixture(schedule), f64([[0.4, -0.6], [1.2, 1.0]])
    axis = torch.linspace(-6, 6, 401, dtype=torch.float64)
    x0 = torch.cartesian_prod(axis, axis)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    found = model.predict(x, t)
    for i in range(2):
        away = ((x[i] - alpha * x0) / sigma).square().sum(1)
        w = (model.log_prob(x0) - 0.5 * away).softmax(0)[:, None]
        mean = (w * x0).sum(0)
        torch.testing.assert_close(found.x0[i], mean, rtol=1e-9, atol=1e-9)
        spread = (w * (x0 - mean).square()).sum() / 2
        torch.testing.assert_close(model.variance(x, t)[i], spread, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(alpha * found.x0 + sigma * found.noise, x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.score(x, t), -found.noise / sigma, rtol=1e-9, atol=1e-12)


def test_draws_have_the_mixtures_moments_at_every_time():
    model = mixture()
    x = model.sample(60_000, 0)
    mean = WEIGHTS @ MEANS
    second = torch.einsum("k,kij->ij", WEIGHTS, COVARIANCES + MEANS[:, :, None] * MEANS[:, None])
    torch.testing.assert_close(x.mean(0), mean, rtol=0, atol=0.03)
    torch.testing.assert_close(x.T @ x / len(x), second, rtol=0, atol=0.05)
    noisy = model.sample(60_000, 1, 0.3)
    alpha, sigma = (getattr(model.schedule, k)(0.3) for k in ("alpha", "sigma"))
    expected = alpha**2 * second + sigma**2 * torch.eye(2).double()
    torch.testing.assert_close(noisy.T @ noisy / len(x), expected, rtol=0, atol=0.05)
    assert torch.equal(model.sample(9, 3), model.sample(9, 3))


def test_mixtures_of_the_course_and_of_torch_are_taken():
    density = data.eight_gaussians_density()
    x = data.eight_gaussians(40, 0)
    model = MixtureDenoiser.of(density, LinearSchedule())
    torch.testing.assert_close(model.log_prob(x), density.log_prob(x), rtol=1e-5, atol=1e-5)
    assert model.score(x, 0.5).dtype == torch.float32
    full = MixtureSameFamily(Categorical(WEIGHTS), MultivariateNormal(MEANS, COVARIANCES))
    x = normal(40, 2)
    of = MixtureDenoiser.of(full, LinearSchedule())
    torch.testing.assert_close(of.log_prob(x), full.log_prob(x))
    fitted = GaussianMixture(2, random_state=0).fit(x)
    ours = MixtureDenoiser(LinearSchedule(), fitted.weights_, fitted.means_, fitted.covariances_)
    np.testing.assert_allclose(ours.log_prob(x), fitted.score_samples(x), rtol=1e-9)


# --- wrappers ---------------------------------------------------------------------------------


def test_a_score_makes_a_denoiser():
    exact = mixture()
    model = ScoreModel(lambda x, t: exact.score(x, t), exact.schedule)
    x, t = normal(30, 2), torch.linspace(0.01, 1, 30, dtype=torch.float64)
    for ours, theirs in zip(model.predict(x, t), exact.predict(x, t), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)
    assert torch.equal(model.score(x, t), exact.score(x, t))
    torch.testing.assert_close(model.drift(x, t), exact.drift(x, t))


def test_clamping_keeps_what_x_is_made_of():
    exact, x = mixture(), 2 * normal(30, 2)
    model = Clamped(exact, 1.0)
    alpha, sigma = (getattr(exact.schedule, k)(0.1) for k in ("alpha", "sigma"))
    found = model.predict(x, 0.1)
    assert found.x0.abs().max() == 1
    torch.testing.assert_close(alpha * found.x0 + sigma * found.noise, x)
    for ours, theirs in zip(Clamped(exact, 99).predict(x, 0.1), exact.predict(x, 0.1), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_guidance_goes_from_one_model_through_the_other():
    exact, x, t = mixture(), normal(30, 2), torch.linspace(0.02, 1, 30, dtype=torch.float64)
    labels = torch.arange(30) % 3
    told = exact.given(labels)
    for weight, expected in ((0.0, exact), (1.0, told)):
        for ours, theirs in zip(
            Guided(told, exact, weight).predict(x, t), expected.predict(x, t), strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)
    # The score of p_t(x) (p_t(x | y)/p_t(x))^w, by autograd.
    x.requires_grad_()
    alone = [MixtureDenoiser(exact.schedule, [1.0], MEANS[[k]], COVARIANCES[[k]]) for k in range(3)]
    of_label = torch.stack([model.log_prob(x, t) for model in alone], 1)[torch.arange(30), labels]
    log_p = exact.log_prob(x, t)
    (expected,) = torch.autograd.grad((log_p + 2.5 * (of_label - log_p)).sum(), x)
    found = Guided(told, exact, 2.5).score(x.detach(), t)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


# --- bad input --------------------------------------------------------------------------------


class Turning(Schedule):
    """Noise that grows, and from ½ on falls again."""

    def log_alpha(self, t):
        return torch.zeros_like(t)

    def _sigma(self, t):
        return t * (1 - t)

    def _rates(self, t):
        return torch.zeros_like(t), 2 * t * (1 - t) * (1 - 2 * t)


X = torch.zeros(5, 2)
MODEL = MixtureDenoiser(LinearSchedule(), [1.0], [[0.0, 0.0]], torch.eye(2)[None])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: LinearSchedule(-0.1), "beta_min must be positive and finite, got -0.1"),
        (lambda: LinearSchedule(0.1, math.nan), "beta_max must be positive and finite"),
        (lambda: CosineSchedule(0.5, 0.5), r"offset \+ end must be below 1, got 0.5 \+ 0.5"),
        (lambda: ExplodingSchedule(2, 1), "sigma_max must be above sigma_min, .* got 1 and 2"),
        (lambda: LinearSchedule().alpha(1.5), r"t must lie in \[0, 1\], got values from 1.5"),
        (lambda: LinearSchedule().sigma(-1e-3), r"t must lie in \[0, 1\], got values from -0.001"),
        (lambda: LinearSchedule().rates(math.nan), r"t must lie in \[0, 1\], got .* nan"),
        (lambda: LinearSchedule().alpha(torch.tensor(1)), "t must hold floating-point numbers"),
        (lambda: time_grid(0), "n_steps must be an int of at least 1, got 0"),
        (lambda: time_grid(3, 0.0), "power must be positive"),
        (lambda: time_grid(3, first=1.0), "first must be below 1, got 1"),
        (lambda: step(LinearSchedule(), 0.5, 0.5), "s must be below t, got 0.5 and 0.5"),
        (lambda: step(3, 0.1, 0.5), "schedule must be a Schedule, got int"),
        (lambda: q_sample(X, 2.0, X, LinearSchedule()), r"t must lie in \[0, 1\]"),
        (lambda: q_sample(X, 0.5, X[:, :1], LinearSchedule()), r"x0 and noise .* \(5, 1\)"),
        (lambda: q_sample(X, X[:3, 0], X, LinearSchedule()), r"t .* \(\) or \(5,\), got .*\(3,\)"),
        (lambda: q_sample(X * math.nan, 0.5, X, LinearSchedule()), "x0 must be finite"),
        (lambda: q_sample(X, 0.5, X * math.nan, LinearSchedule()), "noise must be finite"),
        (lambda: q_sample(X[0], 0.5, X[0], LinearSchedule()), r"x must have shape \(N, ...\), no"),
        (lambda: posterior(X, X[:2], 0.1, 0.5, LinearSchedule()), "x0 and x_t must have the same"),
        (lambda: posterior(X, X, 0.6, 0.5, LinearSchedule()), "s must be below t"),
        (lambda: MODEL.predict(X, 1.01), r"t must lie in \[0, 1\], got values from 1.01"),
        (lambda: MODEL.predict(X[:, :1], 0.5), r"x must have shape \(N, 2\), got shape \(5, 1\)"),
        (lambda: MODEL.predict(X + math.inf, 0.5), "x must be finite"),
        (lambda: MODEL.log_prob(X + math.nan), "x must be finite"),
        (lambda: MODEL.given(torch.tensor([0, 1])), "labels must hold integers 0 to 0"),
        (lambda: MODEL.given(torch.tensor([0])).predict(X, 0.5), r"labels must have shape \(5,\)"),
        (lambda: MixtureDenoiser.of(3, LinearSchedule()), "mixture must be a MixtureSameFamily"),
        (
            lambda: MixtureDenoiser(LinearSchedule(), [1.0, 1.0], [[0.0]], [[[1.0]]]),
            r"weights must have shape \(1,\), got shape \(2,\)",
        ),
        (
            lambda: MixtureDenoiser(LinearSchedule(), [0.0], [[0.0]], [[[1.0]]]),
            "weights must be positive",
        ),
        (
            lambda: MixtureDenoiser(LinearSchedule(), [1.0], [[0.0]], [[[0.0]]]),
            "covariances must be symmetric and positive definite, got a least eigenvalue of 0",
        ),
        (
            lambda: MixtureDenoiser(LinearSchedule(), [1], [[0.0, 0]], [[[1.0, 0.5], [0, 1.0]]]),
            "mirror images 0.5 apart",
        ),
        (
            lambda: ScoreModel(lambda x, t: x[:, :1], LinearSchedule()).predict(X, 0.5),
            r"the score must have shape \(5, 2\), got shape \(5, 1\)",
        ),
        (
            lambda: ScoreModel(lambda x, t: x * math.nan, LinearSchedule()).drift(X, 0.5),
            "the score must be finite, got NaN or inf",
        ),
        (
            lambda: ScoreModel(lambda x, t: x.tolist(), LinearSchedule()).score(X, 0.5),
            "the score must be a torch.Tensor, got list",
        ),
        (lambda: Clamped(MODEL, 0.0), "limit must be positive"),
        (lambda: Guided(MODEL, 3, 1.0), "unconditional must be a DiffusionModel, got int"),
        (lambda: Guided(MODEL, MODEL, math.nan), "weight must be finite"),
        (
            lambda: Guided(MODEL, mixture(CosineSchedule()), 1.0),
            r"of one schedule, got LinearSchedule\(.*\) and CosineSchedule\(",
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("entry", ["bound", "ancestral", "ddim", "ode", "likelihood", "variance"])
def test_a_schedule_that_is_not_monotone_is_refused(entry):
    """Wherever a chain enters; between ⅖ and 1 the signal comes back."""
    model, times = mixture(Turning()), f64([0.0, 0.2, 0.4, 0.9])
    calls = {
        "bound": lambda: variational_bound(model, X, times),
        "ancestral": lambda: ancestral(model, X, times),
        "ddim": lambda: ddim(model, X, times),
        "ode": lambda: ode(model, X, times),
        "likelihood": lambda: log_prob_ode(model, X, times),
        "variance": lambda: gaussian_variance([1.0], Turning(), times, "ddim"),
    }
    with pytest.raises(ValueError, match="schedule must be monotone, .* at t = 0.4 and .* at 0.9"):
        calls[entry]()


def test_a_model_that_returns_another_shape_is_named():
    class Odd(ScoreModel):
        def _predict(self, x, t):
            return Prediction(x, x[:, :1])

    with pytest.raises(ValueError, match=r"the model's noise must have shape \(5, 2\), got .*5, 1"):
        Odd(lambda x, t: x, LinearSchedule()).predict(X, 0.5)


def test_independent_components_have_diagonal_covariances():
    means, scales = normal(3, 2), normal(3, 2, seed=1).abs() + 0.1
    normals = torch.distributions.Normal(means, scales)
    density = MixtureSameFamily(Categorical(WEIGHTS), Independent(normals, 1))
    model, x = MixtureDenoiser.of(density, CosineSchedule()), normal(20, 2)
    torch.testing.assert_close(model.log_prob(x), density.log_prob(x))
