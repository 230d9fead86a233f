"""Games of two numbers: each factor, invariant and eigenvalue is derived."""

import math

import pytest
import torch

from dgm_course.gan import (
    alternating,
    bilinear_game,
    dirac_gan,
    eigenvalues,
    extragradient,
    game_field,
    path,
    simultaneous,
)

ETAS = [0.01, 0.1, 0.3, 0.7, 1.0]
LOGISTIC = ("saturating", "non-saturating")


def points(n=20, scale=1.0):
    torch.manual_seed(0)
    return scale * torch.randn(n, 2, dtype=torch.float64)


# --- the bilinear game --------------------------------------------------------------------------


def test_the_field_of_the_bilinear_game_is_a_rotation():
    w = points()
    expected = torch.stack([-w[:, 1], w[:, 0]], 1)
    torch.testing.assert_close(bilinear_game()(w), expected)
    found = eigenvalues(bilinear_game(), (0.3, -2.0))
    assert sorted(found.imag.tolist()) == pytest.approx([-1, 1])
    assert found.real.abs().max() < 1e-15


@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize(
    ("step", "factor"),
    [
        (simultaneous, lambda eta: math.sqrt(1 + eta**2)),
        (extragradient, lambda eta: math.sqrt(1 - eta**2 + eta**4)),
    ],
)
def test_every_step_changes_the_distance_by_one_factor(step, factor, eta):
    way = path(step, bilinear_game(), points(), eta, 30)
    assert way.shape == (31, 20, 2)
    ratio = way[1:].norm(dim=2) / way[:-1].norm(dim=2)
    torch.testing.assert_close(ratio, torch.full_like(ratio, factor(eta)), atol=1e-13, rtol=0)


@pytest.mark.parametrize("eta", ETAS)
def test_alternating_steps_stay_on_their_ellipse(eta):
    x, y = path(alternating, bilinear_game(), points(), eta, 1000).unbind(2)
    energy = x**2 + y**2 - eta * x * y
    torch.testing.assert_close(energy, energy[:1].expand_as(energy), atol=1e-12, rtol=1e-12)


def test_alternating_steps_of_one_come_back_after_six():
    way = path(alternating, bilinear_game(), points(), 1.0, 6)
    torch.testing.assert_close(way[6], way[0])
    assert (way[1:6] - way[0]).norm(dim=2).min() > 0.01


# --- any game -----------------------------------------------------------------------------------


def test_each_player_follows_its_own_loss():
    w = points()
    x, y = w.unbind(1)
    field = game_field(lambda x, y: x**2 * y, lambda x, y: (x - 3 * y).exp())
    expected = torch.stack([-2 * x * y, 3 * (x - 3 * y).exp()], 1)
    torch.testing.assert_close(field(w), expected)
    with torch.no_grad():
        torch.testing.assert_close(field(w), expected)
    assert not field(w).requires_grad


def test_a_field_is_differentiable_where_its_points_are():
    field = game_field(lambda x, y: x**2 * y, lambda x, y: (x - 3 * y).exp())
    assert torch.autograd.gradcheck(field, points(3).requires_grad_())


def test_alternating_shows_y_the_new_x():
    field = game_field(lambda x, y: x * y**2, lambda x, y: -(x**3) * y)
    x, y = points(5).unbind(1)
    new_x = x - 0.2 * y**2
    expected = torch.stack([new_x, y + 0.2 * new_x**3], 1)
    torch.testing.assert_close(alternating(field, points(5), 0.2), expected)


def test_a_field_may_be_written_out():
    way = path(simultaneous, lambda w: -w, points(), 0.5, 3)
    torch.testing.assert_close(way[3], points() / 8)
    torch.testing.assert_close(eigenvalues(lambda w: -w, (1.0, 1.0)).real.tolist(), [-1.0, -1.0])


# --- the Dirac-GAN ------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("target", [0.0, 1.0])
@pytest.mark.parametrize("loss", [*LOGISTIC, "wasserstein"])
def test_the_dirac_gans_field_by_hand(loss, target, gamma):
    w = points()
    theta, psi = w.unbind(1)
    of_theta = {
        "saturating": psi * torch.sigmoid(psi * theta),
        "non-saturating": psi * torch.sigmoid(-psi * theta),
        "wasserstein": psi,
    }[loss]
    of_psi = -theta if loss == "wasserstein" else -theta * torch.sigmoid(psi * theta)
    of_psi = of_psi - gamma * (psi.abs() - target) * psi.sign()
    found = dirac_gan(gamma, target=target, loss=loss)(w)
    torch.testing.assert_close(found, torch.stack([of_theta, of_psi], 1))


@pytest.mark.parametrize("loss", LOGISTIC)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_the_eigenvalues_at_the_equilibrium(gamma, loss):
    root = complex(gamma**2 / 4 - 1 / 4) ** 0.5
    expected = sorted([-gamma / 2 - root, -gamma / 2 + root], key=lambda m: (m.real, m.imag))
    found = eigenvalues(dirac_gan(gamma, loss=loss), (0.0, 0.0)).tolist()
    found.sort(key=lambda m: (m.real, m.imag))
    # A double root is known to the root of the digits only.
    assert found == pytest.approx(expected, abs=1e-7 if gamma == 1 else 1e-12)


def test_past_the_critical_penalty_more_of_it_is_slower():
    slowest = {
        gamma: (1 + 0.1 * eigenvalues(dirac_gan(gamma), (0.0, 0.0))).abs().max().item()
        for gamma in (0.0, 0.5, 1.0, 2.0, 3.0)
    }
    assert slowest[0.0] > 1
    expected = [
        math.hypot(0.975, 0.1 * 0.1875**0.5),
        0.95,
        0.9 + 0.1 * 0.75**0.5,
        0.85 + 0.1 * 2**0.5,
    ]
    assert [*slowest.values()][1:] == pytest.approx(expected, abs=1e-8)


def distance_after(field, step=simultaneous, n_steps=800, eta=0.1):
    start = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    return path(step, field, start, eta, n_steps)[-1].norm().item()


def test_only_the_penalty_at_zero_brings_the_dirac_gan_home():
    """WGAN-GP's has no equilibrium there: at ψ = 0 it pushes the slope away to 1."""
    assert distance_after(dirac_gan()) > 1.5
    assert distance_after(dirac_gan(1.0)) < 1e-9
    assert distance_after(dirac_gan(1.0, loss="non-saturating")) < 1e-9
    assert distance_after(dirac_gan(1.0, loss="wasserstein")) < 1e-9
    assert distance_after(dirac_gan(1.0, target=1.0, loss="wasserstein")) > 0.1


# --- bad input ------------------------------------------------------------------------------------

W = points(2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bilinear_game()(W[0]), r"w must have shape \(N, 2\), got shape \(2,\)"),
        (lambda: bilinear_game()(W[:, :1]), r"w must have shape \(N, 2\), got shape \(2, 1\)"),
        (lambda: bilinear_game()(W / 0), "w must be finite, got NaN or inf in 2 of 2"),
        (lambda: dirac_gan(-1.0), "gamma must be at least 0 and finite, got -1.0"),
        (lambda: dirac_gan(1.0, target=-1.0), "target must be at least 0 and finite, got -1.0"),
        (lambda: dirac_gan(loss="hinge"), r"loss must be one of \('saturating', .*, got 'hinge'"),
        (lambda: path(simultaneous, bilinear_game(), W, 0.0, 3), "eta must be positive"),
        (lambda: path(simultaneous, bilinear_game(), W, math.nan, 3), "eta must be positive"),
        (lambda: path(simultaneous, bilinear_game(), W, 0.1, 0), "n_steps must be an int"),
        (lambda: path(simultaneous, bilinear_game(), W[0], 0.1, 3), r"start must have shape"),
        (lambda: eigenvalues(bilinear_game(), (1.0, 2.0, 3.0)), r"w must have shape \(N, 2\)"),
        (lambda: eigenvalues(bilinear_game(), (math.nan, 2.0)), "w must be finite"),
    ],
)
def test_bad_games_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
