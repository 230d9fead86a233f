"""Modes that are counted by hand and in theory, and the two ways between two points."""

import math

import pytest
import torch
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from dgm_course.data import (
    eight_gaussians,
    eight_gaussians_density,
    gaussian_grid,
    gaussian_grid_density,
)
from dgm_course.gan import interpolate, mode_report

GRID = gaussian_grid_density()

# --- modes --------------------------------------------------------------------------------------


def test_modes_by_hand():
    """Scales of 1/2 and 2 round (0, 0) and (10, 0): three at the first, one at the second."""
    scale = torch.tensor([[0.5, 0.5], [2.0, 2.0]])
    parts = Independent(Normal(torch.tensor([[0.0, 0.0], [10.0, 0.0]]), scale), 1)
    mixture = MixtureSameFamily(Categorical(torch.tensor([0.5, 0.5])), parts)
    x = torch.tensor([[0, 0], [1.4, 0], [0, -1.4], [1.6, 0], [10, 5.9], [10, 6.1], [-9, 9.0]])
    found = mode_report(x, mixture)
    assert found.counts.tolist() == [3, 1]
    assert found.share == pytest.approx(4 / 7)
    assert found.n_covered == 2
    assert found.weights.tolist() == [0.75, 0.25]
    assert mode_report(x, mixture, within=1.0).counts.tolist() == [1, 0]
    assert mode_report(x, mixture, least=0.5).n_covered == 1  # due: 1.75 points


@pytest.mark.parametrize("within", [1.0, 2.0, 3.0])
@pytest.mark.parametrize(
    ("x", "mixture"),
    [
        (gaussian_grid(20_000, 0), GRID),
        (eight_gaussians(20_000, 0, scale=0.1), eight_gaussians_density(scale=0.1)),
    ],
    ids=["grid", "eight"],
)
def test_the_mixtures_own_samples_have_the_share_of_theory(x, mixture, within):
    found, p = mode_report(x, mixture, within=within), 1 - math.exp(-(within**2) / 2)
    n, k = len(x), len(found.counts)
    assert abs(found.share - p) < 4 * (p * (1 - p) / n) ** 0.5
    assert found.n_covered == k
    assert ((found.weights - 1 / k).abs() < 4 * (1 / k / found.counts.sum()) ** 0.5).all()


def test_modes_of_small_weight_need_few_points():
    weights = torch.tensor([100.0, 1.0, 1.0, 1.0])
    mixture = gaussian_grid_density(2, weights=weights)
    x = gaussian_grid(5000, 0, side=2, weights=weights)
    found = mode_report(x, mixture)
    assert found.n_covered == 4
    assert found.weights[1:].max() < 0.02
    assert mode_report(x, gaussian_grid_density(2)).n_covered == 1


def test_a_sample_off_all_modes_has_none():
    found = mode_report(torch.full((9, 2), 0.5), GRID)
    assert (found.share, found.n_covered) == (0.0, 0)
    assert found.weights.tolist() == [0.0] * 25


X = torch.zeros(4, 2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mode_report(X[:, :1], GRID), r"x must have shape \(N, 2\), got shape \(4, 1\)"),
        (lambda: mode_report(X / 0, GRID), "x must be finite, got NaN or inf in 4 of 4"),
        (lambda: mode_report(X[:0], GRID), "x must hold at least one point"),
        (lambda: mode_report(X, GRID, within=0.0), "within must be positive and finite, got 0.0"),
        (lambda: mode_report(X, GRID, least=0.0), "least must be positive and finite, got 0.0"),
        (lambda: mode_report(X, GRID, least=1.5), "least must be at most 1, got 1.5"),
        (lambda: mode_report(X, MultivariateNormal(X[0], torch.eye(2))), "MultivariateNormal"),
        (lambda: interpolate(X, X[:, :1], 3), r"same shape, got \(4, 2\) and \(4, 1\)"),
        (lambda: interpolate(X, X, 1), "n must be an int of at least 2, got 1"),
        (lambda: interpolate(X, X, 3, way="arc"), r"way must be one of \('line', 'sphere'\)"),
        (lambda: interpolate(X, X + 1, 3), "must not be the origin"),
        (lambda: interpolate(X - 1, X + 2, 3), "must not be opposite"),
        (lambda: interpolate(X.long(), X.long() + 1, 3, way="line"), "a must hold floating-point"),
    ],
)
def test_bad_samples_and_ends_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# --- ways ---------------------------------------------------------------------------------------


def ends(dim=64, n=5):
    torch.manual_seed(0)
    return torch.randn(2, n, dim, dtype=torch.float64)


@pytest.mark.parametrize("way", ["line", "sphere"])
def test_both_ways_lead_from_a_to_b(way):
    a, b = ends()
    points = interpolate(a, b, 7, way=way)
    assert points.shape == (7, 5, 64)
    torch.testing.assert_close(points[0], a)
    torch.testing.assert_close(points[-1], b)
    assert interpolate(a[0], b[0], 3, way=way).shape == (3, 64)


def test_on_the_sphere_angle_and_length_change_evenly():
    a, b = ends()
    points = interpolate(a, b, 7)
    length = torch.lerp(a.norm(dim=1), b.norm(dim=1), torch.linspace(0, 1, 7)[:, None].double())
    torch.testing.assert_close(points.norm(dim=2), length)
    unit = points / length[..., None]
    steps = (unit[1:] * unit[:-1]).sum(2).acos()
    whole = (unit[0] * unit[-1]).sum(1).acos()
    torch.testing.assert_close(steps, (whole / 6).expand(6, 5))


def test_a_line_between_two_draws_passes_where_no_draw_lies():
    """Half way its length is √(M/2), and a draw of N(0, I) has √M, give or take 0.7."""
    a, b = ends(dim=512, n=400)
    middle = {way: interpolate(a, b, 3, way=way)[1].norm(dim=1) for way in ("line", "sphere")}
    assert middle["line"].mean().item() == pytest.approx(256**0.5, abs=0.3)
    assert middle["sphere"].mean().item() == pytest.approx(512**0.5, abs=0.3)
    assert middle["line"].max() < a.norm(dim=1).min()


@pytest.mark.parametrize("apart", [0.0, 1e-12, 1e-6, 1.0, math.pi - 1e-3])
def test_an_angle_of_any_size_keeps_its_digits(apart):
    a = torch.tensor([1.0, 0.0], dtype=torch.float64)
    b = torch.tensor([math.cos(apart), math.sin(apart)], dtype=torch.float64)
    half = interpolate(a, b, 3)[1]
    assert half.tolist() == pytest.approx([math.cos(apart / 2), math.sin(apart / 2)], abs=1e-12)
