import math

import pytest
import torch

from dgm_course import density_ratio, losses
from dgm_course.losses import (
    brier_loss,
    discriminator_loss,
    generator_loss,
    hinge_loss,
    log_loss,
    optimal_discriminator,
)

PER_LABEL = {"log": log_loss, "Brier": brier_loss, "hinge": hinge_loss}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("log", [math.log1p(math.exp(-2)), math.log1p(math.exp(2)), math.log(2)]),
        ("Brier", [1 / (1 + math.exp(2)) ** 2, 1 / (1 + math.exp(-2)) ** 2, 0.25]),
        ("hinge", [0.0, 3.0, 1.0]),
    ],
)
def test_values_by_hand(name, expected):
    logit, label = torch.tensor([2.0, 2.0, 0.0]), torch.tensor([1, 0, 1])
    loss = PER_LABEL[name](logit, label)
    assert loss.shape == (3,)
    assert loss.tolist() == pytest.approx(expected, rel=1e-5)


def test_the_generators_losses_by_hand():
    logit = torch.tensor([0.0, 3.0])
    d = torch.sigmoid(logit)
    torch.testing.assert_close(generator_loss(logit), -d.log())
    torch.testing.assert_close(generator_loss(logit, saturating=True), (1 - d).log())


def test_generator_gradients():
    s = torch.linspace(-8, 8, 33, dtype=torch.float64).requires_grad_()
    d = torch.sigmoid(s)
    for saturating, expected in ((True, -d), (False, -(1 - d))):
        (slope,) = torch.autograd.grad(generator_loss(s, saturating=saturating).sum(), s)
        torch.testing.assert_close(slope, expected.detach())


@pytest.mark.parametrize(
    ("loss", "proper"), [(log_loss, True), (brier_loss, True), (hinge_loss, False)]
)
def test_proper_losses_are_least_at_the_true_log_odds(loss, proper):
    s = torch.linspace(-4, 4, 8001, dtype=torch.float64)
    for eta in (0.2, 0.4, 0.7, 0.9):  # P(y = 1)
        one, zero = torch.ones_like(s), torch.zeros_like(s)
        risk = eta * loss(s, one) + (1 - eta) * loss(s, zero)
        best = s[risk.argmin()].item()
        if proper:
            assert best == pytest.approx(math.log(eta / (1 - eta)), abs=2e-3)
        else:
            assert best == pytest.approx(math.copysign(1, eta - 0.5), abs=2e-3)


@pytest.mark.parametrize("name", PER_LABEL)
def test_another_shape_is_refused(name):
    with pytest.raises(ValueError, match=r"the same shape, got \(5, 1\) and \(5,\)"):
        PER_LABEL[name](torch.zeros(5, 1), torch.zeros(5))


def test_lecture_6_finds_them_beside_the_ratio():
    for name in (
        *("log_loss", "brier_loss", "hinge_loss"),
        "generator_loss",
        "optimal_discriminator",
    ):
        assert getattr(density_ratio, name) is getattr(losses, name)


# --- the discriminator's loss and its smoothed labels -------------------------------------------

SMOOTHING = [(0.0, 0.0), (0.1, 0.0), (0.1, 0.1), (0.0, 0.3), (0.5, 0.2)]


@pytest.mark.parametrize(("alpha", "beta"), SMOOTHING)
def test_the_discriminators_loss_is_the_formula(alpha, beta):
    real, fake = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([-3.0, 0.0, 1.0])
    d, d_fake = real.sigmoid(), fake.sigmoid()
    expected = -(1 - alpha) * d.log() - alpha * (1 - d).log()
    expected -= beta * d_fake.log() + (1 - beta) * (1 - d_fake).log()
    found = discriminator_loss(real, fake, alpha=alpha, beta=beta)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("alpha", "beta"), SMOOTHING)
def test_the_best_discriminator_has_the_least_loss(alpha, beta):
    """On a grid of 40 points with any p and q, the loss's minimum has D* at every point."""
    log_p, log_q = torch.randn(2, 40, generator=torch.Generator().manual_seed(0)).double()
    logit = torch.zeros(40, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logit], max_iter=200, tolerance_grad=1e-12, tolerance_change=0)

    def closure():
        optimizer.zero_grad()
        zero = torch.zeros_like(logit)
        of_real = discriminator_loss(logit, zero, alpha=alpha, beta=beta)
        of_fake = discriminator_loss(zero, logit, alpha=alpha, beta=beta)
        loss = (log_p.exp() * of_real + log_q.exp() * of_fake).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    p, q = log_p.exp(), log_q.exp()
    expected = ((1 - alpha) * p + beta * q) / (p + q)
    found = optimal_discriminator(log_p, log_q, alpha=alpha, beta=beta)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(logit.detach().sigmoid(), expected, atol=1e-6, rtol=0)


def test_far_from_the_data_only_one_side_of_the_smoothing_is_felt():
    nowhere, here = torch.tensor([-torch.inf]), torch.tensor([-1.0])
    assert optimal_discriminator(nowhere, here, alpha=0.1).tolist() == [0.0]
    assert optimal_discriminator(nowhere, here, beta=0.1).item() == pytest.approx(0.1)
    assert optimal_discriminator(here, nowhere, alpha=0.1, beta=0.1).item() == pytest.approx(0.9)


@pytest.mark.parametrize("call", [discriminator_loss, optimal_discriminator])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"alpha": 1.0}, r"alpha \+ beta must be below 1, got 1.0 \+ 0.0"),
        ({"alpha": 0.6, "beta": 0.4}, r"alpha \+ beta must be below 1, got 0.6 \+ 0.4"),
        ({"alpha": -0.1}, "alpha must be at least 0 and finite, got -0.1"),
        ({"beta": -0.1}, "beta must be at least 0 and finite, got -0.1"),
        ({"alpha": math.nan}, "alpha must be at least 0 and finite, got nan"),
        ({"alpha": "much"}, "alpha must be at least 0 and finite, got 'much'"),
    ],
)
def test_smoothing_outside_its_bounds_is_refused(call, arguments, words):
    with pytest.raises(ValueError, match=words):
        call(torch.zeros(3), torch.zeros(3), **arguments)


def test_pairs_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"real and fake must have the same shape, got \(3, 1\)"):
        discriminator_loss(torch.zeros(3, 1), torch.zeros(3))
