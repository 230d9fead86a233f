import math

import pytest
import torch

from dgm_course import density_ratio, losses
from dgm_course.losses import brier_loss, generator_loss, hinge_loss, log_loss

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
    for name in ("log_loss", "brier_loss", "hinge_loss", "generator_loss"):
        assert getattr(density_ratio, name) is getattr(losses, name)
