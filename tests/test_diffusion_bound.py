"""The bound's terms against quadrature, torch's divergences, entropies, and exact densities."""

import math

import numpy as np
import pytest
import torch
from scipy.special import log_ndtr
from torch.distributions import Normal, kl_divergence

from dgm_course.diffusion import (
    Clamped,
    CosineSchedule,
    LinearSchedule,
    MixtureDenoiser,
    ScoreModel,
    gaussian_bound,
    level_log_prob,
    noise_weights,
    optimal_variances,
    posterior,
    q_sample,
    step,
    step_variances,
    time_grid,
    variational_bound,
)
from tests.diffusion import SCHEDULES, each_schedule


def line(lam, schedule=SCHEDULES["linear"]):
    return MixtureDenoiser(schedule, [1.0], [[0.0]], [[[lam]]])


def two(schedule=SCHEDULES["linear"]):
    return MixtureDenoiser(schedule, [0.3, 0.7], [[-1.0], [0.8]], [[[0.02]], [[0.1]]])


def entropy(lam):
    return 0.5 * math.log(2 * math.pi * math.e * lam)


def below_the_first(lam, n_steps, variances, schedule=SCHEDULES["linear"]):
    """Bound minus entropy in nats, the first step's variance the best in every column."""
    times = time_grid(n_steps)
    terms = gaussian_bound([lam], schedule, times, variances)
    best = gaussian_bound([lam], schedule, times, "optimal")
    return (terms.prior + terms.steps.sum(0) + best.reconstruction).item() - entropy(lam)


# --- Gaussian data ----------------------------------------------------------------------------


@each_schedule
@pytest.mark.parametrize("lam", [0.04, 1.0, 4.0])
@pytest.mark.parametrize("variances", ["posterior", "forward", "optimal"])
def test_the_terms_are_those_of_quadrature(schedule, lam, variances):
    """Gauss-Hermite over x₀ and x_t, and a grid over x_s, on which Bayes' rule makes q."""
    times = time_grid(4, 2)
    terms = gaussian_bound([lam], schedule, times, variances)
    nodes, weights = np.polynomial.hermite_e.hermegauss(6)  # exact up to degree 11
    nodes, weights = torch.tensor(nodes), torch.tensor(weights / weights.sum())
    x0, noise = (v[:, None] for v in torch.cartesian_prod(nodes, nodes).T)
    x0, weight = x0 * lam**0.5, torch.outer(weights, weights).flatten()
    x = torch.linspace(-14, 14, 4001, dtype=torch.float64)
    for i in range(1, 4):
        s, t = times[i], times[i + 1]
        a = schedule.alpha(t) / schedule.alpha(s)
        added = (schedule.sigma(t) ** 2 - (a * schedule.sigma(s)) ** 2).sqrt()
        x_t = schedule.alpha(t) * x0 + schedule.sigma(t) * noise
        guess = (
            schedule.alpha(t) * lam * x_t / (schedule.alpha(t) ** 2 * lam + schedule.sigma(t) ** 2)
        )
        kl = []
        v = _variances(lam, schedule, times, variances)[i]
        for given in (x0, guess):  # once for q, once for the mean of p
            mean = schedule.alpha(s) * given
            centre = posterior(given, x_t, s, t, schedule)
            grid = centre.mean + x * centre.variance.sqrt()[:, None]
            log_q = Normal(mean, schedule.sigma(s)).log_prob(grid)
            log_q = log_q + Normal(a * grid, added).log_prob(x_t)
            q = log_q.softmax(1)
            kl.append((q, grid, log_q))
        q, grid, log_q = kl[0]
        mean_p = (kl[1][0] * kl[1][1]).sum(1, keepdim=True)
        spacing = (grid[:, 1] - grid[:, 0])[:, None]
        log_q = log_q.log_softmax(1) - spacing.log()
        found = (q * (log_q - Normal(mean_p, v.sqrt()).log_prob(grid))).sum(1)
        assert (weight * found).sum().item() == pytest.approx(terms.steps[i - 1].item(), abs=1e-6)
    last = Normal(schedule.alpha(times[-1]) * x0, schedule.sigma(times[-1]))
    prior = kl_divergence(last, Normal(0.0, schedule.prior_scale))[:, 0]
    assert terms.prior.item() == pytest.approx((weight * prior).sum().item(), abs=1e-9)
    x_t = schedule.alpha(times[1]) * x0 + schedule.sigma(times[1]) * noise
    guess = schedule.alpha(times[1]) * lam * x_t
    guess = guess / (schedule.alpha(times[1]) ** 2 * lam + schedule.sigma(times[1]) ** 2)
    scale = _variances(lam, schedule, times, variances)[0].sqrt()
    cost = -(weight * Normal(guess, scale).log_prob(x0)[:, 0]).sum()
    assert terms.reconstruction.item() == pytest.approx(cost.item(), abs=1e-9)


def _variances(lam, schedule, times, variances):
    """The model's, by the formulas with β for every step."""
    alpha2, sigma2 = schedule.alpha(times) ** 2, schedule.sigma(times) ** 2
    forward = sigma2[1:] - alpha2[1:] / alpha2[:-1] * sigma2[:-1]
    q = forward * sigma2[:-1] / sigma2[1:]
    open_ = lam * sigma2[1:] / (alpha2[1:] * lam + sigma2[1:])
    found = {
        "posterior": q,
        "forward": forward,
        "optimal": q + alpha2[:-1] * (forward / sigma2[1:]) ** 2 * open_,
    }[variances]
    if variances == "posterior":
        found = torch.cat([forward[:1], found[1:]])
    if variances != "optimal":
        torch.testing.assert_close(step_variances(schedule, times, variances), found)
    return found


@each_schedule
@pytest.mark.parametrize("n_steps", [1, 2, 7, 300])
def test_the_best_variances_leave_the_entropy_and_the_priors_mismatch(schedule, n_steps):
    """The exact reverse steps of Gaussian data are Gaussian: nothing else can be lost."""
    lam = torch.tensor([0.01, 0.3, 1.0, 5.0], dtype=torch.float64)
    terms = gaussian_bound(lam, schedule, time_grid(n_steps), "optimal")
    last = (schedule.alpha(1.0) ** 2 * lam + schedule.sigma(1.0) ** 2).sqrt()
    zero = torch.zeros(4, dtype=torch.float64)
    mismatch = kl_divergence(Normal(zero, last), Normal(zero, zero + schedule.prior_scale))
    expected = 0.5 * (2 * math.pi * math.e * lam).log() + mismatch
    torch.testing.assert_close(terms.nats, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("lam", [0.01, 0.25, 1.0, 4.0])
def test_forward_variances_are_tighter_in_the_model(lam):
    loose = below_the_first(lam, 1000, "posterior")
    tight = below_the_first(lam, 1000, "forward")
    assert 0.37 < loose < 0.47
    assert 0 <= tight < 0.021
    assert 0.35 < below_the_first(lam, 1000, "posterior", CosineSchedule()) < 0.47


def test_few_steps_on_tight_data_turn_it_round():
    assert below_the_first(0.01, 10, "posterior") < 0.01
    assert below_the_first(0.01, 10, "forward") > 0.3
    assert below_the_first(0.01, 100, "posterior") > below_the_first(0.01, 100, "forward") + 0.1


@pytest.mark.parametrize("lam", [0.25, 1.0, 4.0])
def test_betas_in_q_would_fall_below_the_entropy(lam):
    """The mutant's number: what looks like a bound, and is none."""
    schedule, times = LinearSchedule(), time_grid(1000)
    of = step(schedule, times[:-1], times[1:])
    alpha2, sigma2 = schedule.alpha(times[1:]) ** 2, schedule.sigma(times[1:]) ** 2
    missed = of.from_x0**2 * lam * sigma2 / (alpha2 * lam + sigma2)
    wrong = (0.5 * missed / of.forward_variance)[1:].sum()
    best = gaussian_bound([lam], schedule, times, "optimal")
    assert (best.prior + wrong + best.reconstruction).item() < entropy(lam) - 0.3


def test_no_other_variances_are_better():
    times, schedule = time_grid(12), CosineSchedule()
    best = gaussian_bound([0.3], schedule, times, "optimal").nats
    x0 = line(0.3, schedule).sample(20_000, 0)
    found = optimal_variances(line(0.3, schedule), x0, times, generator=1)
    near = gaussian_bound([0.3], schedule, times, found).nats
    assert 0 <= (near - best).item() < 1e-3
    v = _variances(0.3, schedule, times, "optimal")
    torch.testing.assert_close(found, v, rtol=0.05, atol=0)
    for factor in (0.97, 1.03):
        for i in range(12):
            other = torch.where(torch.arange(12) == i, factor * v, v)
            assert (gaussian_bound([0.3], schedule, times, other).nats > best).all()


# --- the bound of a batch ---------------------------------------------------------------------


@each_schedule
@pytest.mark.parametrize("variances", ["posterior", "forward"])
def test_each_term_is_torchs_divergence(schedule, variances):
    model = MixtureDenoiser(
        schedule, [0.4, 0.6], [[1.0, 0], [-1, 0.5]], torch.eye(2).repeat(2, 1, 1)
    )
    x0, times = model.sample(6, 0), time_grid(4, 1.5)
    terms = variational_bound(model, x0, times, variances, generator=3)
    generator, v = torch.Generator().manual_seed(3), step_variances(schedule, times, variances)
    for i in range(4):
        noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
        x_t = q_sample(x0, times[i + 1], noise, schedule)
        guess = model.predict(x_t, times[i + 1]).x0
        q, p = (posterior(v0, x_t, times[i], times[i + 1], schedule) for v0 in (x0, guess))
        p = Normal(p.mean, v[i].sqrt())
        if i == 0:
            expected, found = -p.log_prob(x0).sum(1), terms.reconstruction
        else:
            expected = kl_divergence(Normal(q.mean, q.variance.sqrt()[:, None]), p).sum(1)
            found = terms.steps[i - 1]
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    last = Normal(schedule.alpha(1.0) * x0, schedule.sigma(1.0))
    scale = torch.tensor(schedule.prior_scale, dtype=torch.float64)
    expected = kl_divergence(last, Normal(0 * scale, scale)).sum(1)
    torch.testing.assert_close(terms.prior, expected, rtol=1e-9, atol=1e-12)
    total = terms.prior + terms.steps.sum(0) + terms.reconstruction
    torch.testing.assert_close(terms.nats, total)
    torch.testing.assert_close(terms.bits_per_dim(2), total / (2 * math.log(2)))


@pytest.mark.parametrize("variances", ["posterior", "forward"])
def test_in_mean_the_terms_are_the_closed_forms(variances):
    times, model = time_grid(6), line(0.5)
    terms = variational_bound(model, model.sample(40_000, 0), times, variances, generator=1)
    exact = gaussian_bound([0.5], model.schedule, times, variances)
    rows = zip(
        (*terms.steps, terms.reconstruction), (*exact.steps, exact.reconstruction), strict=True
    )
    for ours, theirs in rows:
        assert ours.mean().item() == pytest.approx(theirs.item(), abs=5 * ours.std().item() / 200)


@each_schedule
@pytest.mark.parametrize("variances", ["posterior", "forward", "optimal"])
@pytest.mark.parametrize("n_steps", [3, 60])
def test_the_bound_is_at_most_log_p(schedule, variances, n_steps):
    """The same data on both sides: what is left of noise is in their difference alone."""
    model, times = two(schedule), time_grid(n_steps)
    x0 = model.sample(4000, 0)
    if variances == "optimal":
        variances = optimal_variances(model, model.sample(4000, 5), times, generator=2)
    gap = variational_bound(model, x0, times, variances, generator=1).nats + model.log_prob(x0)
    assert gap.mean().item() > -4 * gap.std().item() / 4000**0.5
    assert gap.mean().item() > 0.01 or variances != "posterior"
    if n_steps == 60 and isinstance(variances, torch.Tensor):
        assert gap.mean().item() < 0.1


def test_weights_of_the_noise_are_the_bounds():
    schedule, times = LinearSchedule(), time_grid(7)
    snr = schedule.log_snr(times[1:]).exp()
    torch.testing.assert_close(noise_weights(schedule, times), 0.5 * (snr[:-1] / snr[1:] - 1))
    models, x0 = [two(), ScoreModel(lambda x, t: -x, schedule)], two().sample(9, 0)
    for variances in ("posterior", "forward"):
        one, other = (variational_bound(m, x0, times, variances, generator=4) for m in models)
        generator, w = torch.Generator().manual_seed(4), noise_weights(schedule, times, variances)
        for i in range(7):
            noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
            x_t = q_sample(x0, times[i + 1], noise, schedule)
            a, b = ((m.predict(x_t, times[i + 1]).noise - noise).square().sum(1) for m in models)
            if i:
                gap = one.steps[i - 1] - other.steps[i - 1]
                torch.testing.assert_close(gap, w[i - 1] * (a - b), rtol=1e-8, atol=1e-10)


# --- levels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_levels", [2, 17, 256])
@pytest.mark.parametrize("variance", [1e-8, 1e-4, 0.02, 1.0, 1e6])
def test_the_masses_of_all_levels_add_up_to_1(n_levels, variance):
    mean = torch.tensor([-3.0, -1.0, -0.3, 0.0, 0.77, 1.0, 2.0], dtype=torch.float64)[:, None]
    levels, v = torch.arange(n_levels), torch.tensor(variance, dtype=torch.float64)
    log_p = level_log_prob(levels, mean, v, n_levels=n_levels)
    assert not log_p.isnan().any()
    torch.testing.assert_close(
        log_p.exp().sum(1), torch.ones(7, dtype=torch.float64), rtol=1e-9, atol=0
    )


def test_far_tails_are_not_raised_to_a_floor():
    v = torch.tensor(1e-4, dtype=torch.float64)
    mean = torch.tensor([1.0, -0.9, 0.95], dtype=torch.float64)
    levels = torch.tensor([0, 16, 4])
    found = level_log_prob(levels, mean, v, n_levels=17)
    edges = (-1 + 1 / 16 - 1) / 0.01, -(1 - 1 / 16 + 0.9) / 0.01, (-0.5 + 1 / 16 - 0.95) / 0.01
    expected = [log_ndtr(edge) for edge in edges]  # of the last the lower edge is e^-9000 of it
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert found.max() < -9000


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: Clamped(m, 0.6)])
@pytest.mark.parametrize("variances", ["posterior", "forward"])
def test_the_bounds_of_all_levels_leave_no_mass_over(wrap, variances):
    """Σ exp(bound of level k) ≤ Σ p(k) = 1: also with means that are clamped."""
    model, times = wrap(two()), time_grid(30)
    x0 = torch.arange(17)[:, None].repeat(400, 1)
    terms = variational_bound(model, x0, times, variances, levels=17, generator=0)
    total = (-terms.nats.double().view(400, 17).mean(0)).exp().sum().item()
    assert 0.05 < total < 1


def test_integers_are_read_from_minus_one_to_one():
    model, times = line(0.3), time_grid(3)
    x0 = torch.tensor([[0], [16], [8], [3]])
    real = 2 * x0.float() / 16 - 1
    ours = variational_bound(model, x0, times, levels=17, generator=5)
    theirs = variational_bound(model, real, times, generator=5)
    torch.testing.assert_close(ours.steps, theirs.steps)
    torch.testing.assert_close(ours.prior, theirs.prior)
    noise = torch.randn(4, 1, generator=torch.Generator().manual_seed(5))
    x_t = q_sample(real, times[1], noise, model.schedule)
    mean, v = model.predict(x_t, times[1]).x0, step_variances(model.schedule, times)[0]
    expected = -level_log_prob(x0, mean, v, n_levels=17)[:, 0]
    torch.testing.assert_close(
        ours.reconstruction.double(), expected.double(), rtol=1e-5, atol=1e-5
    )


def test_the_bound_has_a_gradient():
    scale = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    model = ScoreModel(lambda x, t: -scale * x, LinearSchedule())
    x0 = line(1.0).sample(50, 0)
    variational_bound(model, x0, time_grid(5), generator=0).nats.mean().backward()
    assert scale.grad.abs() > 1e-3


# --- bad input --------------------------------------------------------------------------------

TURNED = torch.tensor([0.0, 0.5, 0.3])
LINE, POINTS, GRID = line(1.0), torch.zeros(3, 1), time_grid(4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: variational_bound(3, POINTS, GRID), "model must be a DiffusionModel, got int"),
        (lambda: variational_bound(LINE, POINTS, TURNED), "times must rise"),
        (lambda: variational_bound(LINE, POINTS, GRID[:1]), r"T >= 1 steps, got shape \(1,\)"),
        (lambda: variational_bound(LINE, POINTS, 1.5 * GRID), r"times must lie in \[0, 1\], got"),
        (lambda: variational_bound(LINE, POINTS, GRID[1:]), "times must start at 0, .* got 0.25"),
        (lambda: variational_bound(LINE, POINTS, GRID, "β"), "variances must be one of .* got 'β'"),
        (lambda: variational_bound(LINE, POINTS, GRID, GRID), r"variances must have shape \(4,\)"),
        (lambda: variational_bound(LINE, POINTS, GRID, GRID[:4]), "variances must be positive"),
        (lambda: variational_bound(LINE, POINTS * math.nan, GRID), "x0 must be finite"),
        (lambda: variational_bound(LINE, POINTS.long(), GRID), "x0 must hold floating-point"),
        (lambda: variational_bound(LINE, POINTS, GRID, levels=17), "x0 must hold integers 0 to 16"),
        (
            lambda: variational_bound(LINE, POINTS.long() + 17, GRID, levels=17),
            "x0 must hold integers 0 to 16, got values from 17 to 17",
        ),
        (lambda: gaussian_bound([0.0], LinearSchedule(), GRID), "eigenvalues must be positive"),
        (lambda: gaussian_bound(1.0, LinearSchedule(), GRID), "eigenvalues must be positive"),
        (lambda: gaussian_bound([1.0], None, GRID), "schedule must be a Schedule, got NoneType"),
        (lambda: optimal_variances(LINE, POINTS[:, 0], GRID), "x must have shape"),
        (lambda: level_log_prob(POINTS, POINTS, POINTS + 1, n_levels=4), "levels must hold integ"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
