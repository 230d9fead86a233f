"""Samplers and the flow's likelihood against recursions, their orders, and exact densities."""

import math
from functools import partial

import pytest
import torch
from torch.distributions import Normal

from dgm_course.diffusion import (
    Clamped,
    DiffusionModel,
    ExplodingSchedule,
    Guided,
    LinearSchedule,
    MixtureDenoiser,
    Prediction,
    ScoreModel,
    ancestral,
    ddim,
    gaussian_variance,
    log_prob_ode,
    ode,
    step_variances,
    time_grid,
)
from dgm_course.diffusion.likelihood import _probed
from tests.diffusion import MEANS, SCHEDULES, WEIGHTS, each_schedule

LAM = torch.tensor([0.01, 0.25, 1.0, 4.0], dtype=torch.float64)


def mixture(schedule=SCHEDULES["linear"]):
    covariances = torch.tensor([[0.1, 0.05], [0.05, 0.2]], dtype=torch.float64)
    return MixtureDenoiser(schedule, WEIGHTS, MEANS, covariances.expand(3, 2, 2))


def diagonal(schedule):
    """N(0, λ) for the four λ, as four features."""
    return MixtureDenoiser(schedule, [1.0], [[0.0] * 4], torch.diag(LAM)[None])


def start(schedule):
    """The standard deviations at t = 1: a linear sampler carries them to those it ends with."""
    return (schedule.alpha(1.0) ** 2 * LAM + schedule.sigma(1.0) ** 2).sqrt()[None]


# --- the recursion on Gaussian data -----------------------------------------------------------


@each_schedule
@pytest.mark.parametrize("first", [0.0, 0.02])
@pytest.mark.parametrize("method", ["ddim", "euler", "heun"])
def test_the_recursion_is_what_the_sampler_does(schedule, first, method):
    model, times = diagonal(schedule), time_grid(9, 2, first)
    if method == "ddim":
        found = ddim(model, start(schedule), times)
    else:
        found = ode(model, start(schedule), times, method)
    expected = gaussian_variance(LAM, schedule, times, method)
    torch.testing.assert_close(found[0].square(), expected, rtol=1e-9, atol=1e-12)


@each_schedule
@pytest.mark.parametrize("first", [0.0, 0.02])
@pytest.mark.parametrize("variances", ["posterior", "forward"])
def test_the_recursion_of_chance_is_what_the_sampler_does(schedule, first, variances):
    """A step's factor from a run without noise; its noise from a start at 0."""
    model, times = diagonal(schedule), time_grid(5, 2, first)
    none, v = (
        torch.full((1,), 1e-300, dtype=torch.float64),
        step_variances(schedule, times, variances),
    )
    variance = start(schedule)[0] ** 2
    for i in (4, 3, 2, 1, 0):
        pair = times[i : i + 2]
        factor = ancestral(model, torch.ones(1, 4, dtype=torch.float64), pair, none, generator=0)[0]
        zeros = torch.zeros(20_000, 4, dtype=torch.float64)
        drawn = ancestral(model, zeros, pair, v[i : i + 1], generator=i)
        added = v[i] if pair[0] > 0 else 0 * v[i]
        torch.testing.assert_close(drawn.square().mean(0), added.expand(4), rtol=0.05, atol=0)
        variance = factor**2 * variance + added
    expected = gaussian_variance(LAM, schedule, times, "ancestral", variances)
    torch.testing.assert_close(variance, expected, rtol=1e-9, atol=1e-12)
    whole = ancestral(model, start(schedule), times, none.expand(5), generator=0)[0]
    alone = gaussian_variance(LAM, schedule, times, "ancestral", none.expand(5))
    torch.testing.assert_close(whole.square(), alone, rtol=1e-9, atol=1e-12)
    drawn = ancestral(model, model.sample(20_000, 0, 1.0), times, variances, generator=1)
    torch.testing.assert_close(drawn.square().mean(0), expected, rtol=0.06, atol=0)


def error(method, n_steps, schedule, variances="posterior", first=0.0):
    times = time_grid(n_steps, 2, first)
    found = gaussian_variance(LAM[[0, 1, 3]], schedule, times, method, variances).sqrt()
    alpha, sigma = schedule.alpha(times[0]), schedule.sigma(times[0])
    return (found - (alpha**2 * LAM[[0, 1, 3]] + sigma**2).sqrt()).abs()


@each_schedule
@pytest.mark.parametrize(
    ("method", "order"), [("ancestral", 1), ("ddim", 1), ("euler", 1), ("heun", 2)]
)
def test_samplers_converge_at_their_orders(schedule, method, order):
    errors = torch.stack([error(method, n, schedule, first=0.01) for n in (800, 1600, 3200)])
    slopes = (errors[:-1] / errors[1:]).log2()
    torch.testing.assert_close(slopes, torch.full_like(slopes, order), rtol=0, atol=0.06)


def test_heuns_order_survives_a_last_step_of_eulers():
    errors = torch.stack([error("heun", n, SCHEDULES["linear"]) for n in (400, 800, 1600)])
    slopes = (errors[:-1] / errors[1:]).log2()
    assert (slopes > 1.9).all()


def test_some_samplers_are_exact_on_the_prior():
    """λ = 1 with preserved variance: the flow stands still, and β is what a step should add."""
    times, one = time_grid(7, first=0.05), torch.ones(1, dtype=torch.float64)
    for method, variances in (
        ("euler", "posterior"),
        ("heun", "posterior"),
        ("ancestral", "forward"),
    ):
        found = gaussian_variance(one, LinearSchedule(), times, method, variances)
        torch.testing.assert_close(found, one, rtol=0, atol=1e-12)
    assert gaussian_variance(one, LinearSchedule(), times, "ancestral").item() < 0.99
    assert gaussian_variance(one, LinearSchedule(), times, "ddim").item() < 0.99


@each_schedule
def test_rk4_is_of_order_4(schedule):
    def missed(n):
        times = time_grid(n, 2, 0.02)
        exact = schedule.alpha(times[0]) ** 2 * LAM + schedule.sigma(times[0]) ** 2
        found = ode(diagonal(schedule), start(schedule), times, "rk4")[0]
        return (found - exact.sqrt()).abs()[[1, 3]]

    slopes = (missed(80) / missed(160)).log2()
    assert ((slopes > 3.7) & (slopes < 4.6)).all()


# --- the mixture ------------------------------------------------------------------------------


def test_in_the_median_orders_hold_on_the_mixture():
    """A few paths end in another mode, which rules the mean."""
    model = mixture()
    z = model.sample(200, 0, 1.0)
    exact = ode(model, z, time_grid(400, 2))
    for sampler, order in ((ddim, 1), (partial(ode, method="euler"), 1), (ode, 2)):
        one, two = (
            (sampler(model, z, time_grid(n, 2)) - exact).norm(dim=1).median() for n in (40, 80)
        )
        assert (one / two).log2().item() == pytest.approx(order, abs=0.25)


@each_schedule
@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "ode"])
def test_samplers_end_with_the_data(schedule, sampler):
    """Shares of the modes, and spread about them, of 3,000 draws from the exact start."""
    model, times = mixture(schedule), time_grid(80, 2)
    z = model.sample(3000, 1, 1.0)
    x = {
        "ancestral": lambda: ancestral(model, z, times, "forward", generator=2),
        "ddim": lambda: ddim(model, z, times),
        "ode": lambda: ode(model, z, times),
    }[sampler]()
    near = torch.cdist(x, MEANS).argmin(1)
    exact = torch.cdist(model.sample(200_000, 3), MEANS).argmin(1).bincount() / 200_000
    share = near.bincount(minlength=3) / 3000
    torch.testing.assert_close(share.float(), exact.float(), rtol=0, atol=0.035)
    expected = model.log_prob(model.sample(3000, 4))
    assert model.log_prob(x).mean().item() == pytest.approx(expected.mean().item(), abs=0.12)


def test_paths_generators_and_starts():
    model, times = mixture(), time_grid(6)
    z = model.start(5, 2, 0)
    before = z.clone()
    assert z.dtype == torch.float32
    for run in (
        lambda **how: ancestral(model, z, times, generator=7, **how),
        lambda **how: ddim(model, z, times, **how),
        lambda **how: ode(model, z, times, **how),
    ):
        path = run(path=True)
        assert path.shape == (7, 5, 2)
        assert path.dtype == torch.float32
        assert torch.equal(path[-1], z)
        assert torch.equal(path[0], run())
    assert torch.equal(z, before)
    one, other = (ancestral(model, z, times, generator=g) for g in (1, 2))
    assert not torch.equal(one, other)
    x = ancestral(model, z, times[:2], generator=1)
    assert torch.equal(x, ancestral(model, z, times[:2], generator=2)), "the last step has no noise"
    scale = ExplodingSchedule(0.1, 7).prior_scale
    wide = mixture(ExplodingSchedule(0.1, 7)).start(4000, (1, 2, 1), 0)
    assert wide.shape == (4000, 1, 2, 1)
    assert wide.std().item() == pytest.approx(scale, rel=0.05)
    assert model.start(3, 2, 5).equal(model.start(3, (2,), 5))


def test_clamping_at_one_spoils_data_that_reach_further():
    model, times = mixture(), time_grid(50, 2)
    x = ddim(Clamped(model, 1.0), model.sample(500, 0, 1.0), times)
    assert x.abs().max() <= 1
    assert model.sample(500, 0).abs().max() > 2
    free = ddim(Clamped(model, 9.0), model.sample(500, 0, 1.0), times)
    torch.testing.assert_close(free, ddim(model, model.sample(500, 0, 1.0), times))


def test_guidance_narrows_and_moves_away():
    """Of two overlapping Gaussians a condition of weight 3 ends beyond its mean, more narrowly."""
    model = MixtureDenoiser(LinearSchedule(), [1, 1], [[-0.7], [0.7]], [[[0.25]], [[0.25]]])
    labels, z, times = (
        torch.ones(4000, dtype=torch.long),
        model.sample(4000, 0, 1.0),
        time_grid(60, 2),
    )
    told = ode(model.given(labels), z, times)
    assert told.mean().item() == pytest.approx(0.7, abs=0.04)
    assert told.std().item() == pytest.approx(0.5, abs=0.02)
    guided = ode(Guided(model.given(labels), model, 3.0), z, times)
    assert guided.mean() > told.mean() + 0.15
    assert guided.std() < 0.9 * told.std()


# --- the likelihood ---------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [SCHEDULES["linear"], SCHEDULES["exploding"]], ids=str)
def test_the_flows_density_is_the_mixtures(schedule):
    """From the exact p_1, to 1e-4; what the prior costs is a number of its own."""
    model = mixture(schedule)
    x, times = model.sample(30, 0), time_grid(100, 2 if schedule.prior_scale == 1 else 1)
    terminal = lambda z: model.log_prob(z, 1.0)  # noqa: E731
    found = log_prob_ode(model, x, times, terminal=terminal)
    torch.testing.assert_close(found.log_prob, model.log_prob(x), rtol=0, atol=1e-4)
    assert (found.standard_error == 0).all()
    scale = torch.tensor(schedule.prior_scale, dtype=torch.float64)
    mismatch = Normal(0 * scale, scale).log_prob(found.z).sum(1) - terminal(found.z)
    plain = log_prob_ode(model, x, times)
    torch.testing.assert_close(plain.log_prob - found.log_prob, mismatch, rtol=0, atol=1e-12)
    assert 1e-3 < mismatch.abs().mean() < (0.01 if schedule.prior_scale == 1 else 0.05)
    back = ode(model, found.z, times)
    torch.testing.assert_close(back, x, rtol=0, atol=0.02)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_the_likelihood_has_its_methods_order(method, order):
    model, x = diagonal(LinearSchedule()), torch.full((1, 4), 0.3, dtype=torch.float64) * LAM.sqrt()
    how = {"method": method, "terminal": lambda z: model.log_prob(z, 1.0)}
    exact = model.log_prob(x, 0.02)
    missed = [
        (log_prob_ode(model, x, time_grid(n, 2, 0.02), **how).log_prob - exact).abs().item()
        for n in (30, 60)
    ]
    assert math.log2(missed[0] / missed[1]) == pytest.approx(order, abs=0.35)


def test_the_mean_of_all_probes_is_the_trace():
    matrix = torch.tensor([[0.3, 2.0], [-1.0, 0.4]], dtype=torch.float64)
    x = torch.tensor([[1.0, 2], [0, 1], [2, 2], [3, 1]], dtype=torch.float64).requires_grad_()
    signs = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    probes = signs[:, None].expand(4, 4, 2)
    found = _probed(x @ matrix.T + x.prod(1, keepdim=True), x, probes)
    expected = 0.7 + x.sum(1)
    torch.testing.assert_close(found.mean(1), expected)
    assert found.std(1).min() > 0.5


def test_hutchinsons_estimate_is_within_its_error():
    model, x = mixture(), mixture().sample(20, 0)
    times = time_grid(10, 2)
    exact = log_prob_ode(model, x, times, "heun")
    few, many = (log_prob_ode(model, x, times, "heun", n_probes=s, generator=0) for s in (8, 72))
    torch.testing.assert_close(many.z, exact.z)
    off = (many.log_prob - exact.log_prob) / many.standard_error
    assert off.abs().max() < 4.5
    assert off.square().mean() < 2.5
    ratio = (few.standard_error.mean() / many.standard_error.mean()).item()
    assert ratio == pytest.approx(3, rel=0.25), "the error falls with the root of the probes"
    again = log_prob_ode(model, x, times, "heun", n_probes=8, generator=0)
    assert torch.equal(again.log_prob, few.log_prob)


def test_images_and_any_score_have_a_likelihood():
    model = ScoreModel(lambda x, t: -x, LinearSchedule())
    x = torch.randn(3, 1, 2, 2)
    expected = Normal(0.0, 1.0).log_prob(x).flatten(1).sum(1)
    with torch.inference_mode():
        found = log_prob_ode(model, x, time_grid(3))
    torch.testing.assert_close(found.log_prob, expected, rtol=1e-5, atol=1e-5)
    assert found.z.shape == x.shape


# --- bad input --------------------------------------------------------------------------------


class Odd(DiffusionModel):
    """Predictions of another shape, or NaN."""

    def __init__(self, function):
        self.schedule, self.function = LinearSchedule(), function

    def _predict(self, x, t):
        return Prediction(*self.function(x))


X, GRID, MODEL = torch.zeros(3, 2), time_grid(4), mixture()
NARROW = Odd(lambda x: (x[:, :1], x))
LOST = Odd(lambda x: (x, x / 0))


@pytest.mark.parametrize("run", [ancestral, ddim, ode, log_prob_ode])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((3, X, GRID), "model must be a DiffusionModel, got int"),
        ((MODEL, X[:0], GRID), r"x must have shape \(N, .*got shape \(0, 2\)"),
        ((MODEL, X[:, :1], GRID), r"x must have shape \(N, 2\), got shape \(3, 1\)"),
        ((MODEL, X * math.nan, GRID), "x must be finite"),
        ((MODEL, X.long(), GRID), "x must hold floating-point numbers, got torch.int64"),
        ((MODEL, X, GRID[:1]), r"times must have shape \(T \+ 1,\) with T >= 1 steps"),
        ((MODEL, X, GRID.flip(0)), "times must rise"),
        ((MODEL, X, GRID - 0.1), r"times must lie in \[0, 1\], got values from -0.1 to 0.9"),
        ((MODEL, X, torch.tensor([0, math.nan])), r"times must lie in \[0, 1\]"),
        ((NARROW, X, GRID), r"the model's x0 must have shape \(3, 2\), got shape \(3, 1\)"),
        ((LOST, X, GRID), "the model's noise must be finite, got NaN or inf"),
    ],
)
def test_bad_input_is_named(run, arguments, words):
    with pytest.raises(ValueError, match=words):
        run(*arguments)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ancestral(MODEL, X, GRID, "beta"), "variances must be one of .*, got 'beta'"),
        (lambda: ode(MODEL, X, GRID, "rk5"), r"method must be one of \('euler', .*, got 'rk5'"),
        (lambda: log_prob_ode(MODEL, X, GRID, "x"), "method must be one of .*, got 'x'"),
        (lambda: log_prob_ode(MODEL, X, GRID, n_probes=1), "n_probes must be .* least 2, got 1"),
        (
            lambda: log_prob_ode(MODEL, X, GRID, terminal=lambda z: z),
            r"what terminal returns must have shape \(3,\), got shape \(3, 2\)",
        ),
        (
            lambda: gaussian_variance([1.0], LinearSchedule(), GRID, "rk4"),
            "method must be one of .*, got 'rk4'",
        ),
        (lambda: gaussian_variance([-1.0], LinearSchedule(), GRID, "ddim"), "eigenvalues must be"),
    ],
)
def test_bad_settings_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
