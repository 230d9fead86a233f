"""Wasserstein's distance against SciPy, every permutation, and its own dual."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from dgm_course.gan import (
    optimal_matching,
    transport_critic,
    transport_plan,
    wasserstein_distance,
)


def samples(n, m, dim=None, seed=0):
    torch.manual_seed(seed)
    shape = () if dim is None else (dim,)
    x = torch.randn(n, *shape, dtype=torch.float64)
    return x, 0.5 * torch.randn(m, *shape, dtype=torch.float64) + 1


# --- samples ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(2, 2), (50, 50), (1000, 1000), (2, 3), (50, 40), (37, 500)])
def test_on_the_line_it_is_scipys(n, m):
    x, y = samples(n, m)
    expected = stats.wasserstein_distance(x.numpy(), y.numpy())
    assert wasserstein_distance(x, y).item() == pytest.approx(expected, rel=1e-13)
    assert wasserstein_distance(y, x).item() == pytest.approx(expected)
    assert wasserstein_distance(x[:, None], y[:, None]).item() == pytest.approx(expected)


def test_ties_and_large_samples_of_other_sizes():
    """N · M is beyond 2³²: the ends of both quantile functions' steps must stay exact."""
    torch.manual_seed(0)
    x, y = torch.randint(5, (100_003,)).double(), torch.randint(2, 7, (70_001,)).double()
    expected = stats.wasserstein_distance(x.numpy(), y.numpy())
    assert wasserstein_distance(x, y).item() == pytest.approx(expected, rel=1e-12)


def test_repeated_samples_are_the_same_distribution():
    x, y = samples(6, 4)
    expected = wasserstein_distance(x.repeat_interleave(2), y.repeat_interleave(3))
    torch.testing.assert_close(wasserstein_distance(x, y), expected)
    assert wasserstein_distance(x, x.repeat(3)).item() == 0


@pytest.mark.parametrize("dim", [None, 1, 2, 5])
def test_the_matching_is_the_best_of_all_permutations(dim):
    x, y = samples(6, 6, dim)
    found = optimal_matching(x, y)
    flat = [sample.view(6, -1).numpy() for sample in (x, y)]
    length = np.linalg.norm(flat[0][:, None] - flat[1], axis=2)
    costs = {order: length[range(6), order].mean() for order in itertools.permutations(range(6))}
    assert found.distance.item() == pytest.approx(min(costs.values()), rel=1e-13)
    assert costs[tuple(found.order.tolist())] == pytest.approx(min(costs.values()), rel=1e-13)
    torch.testing.assert_close(wasserstein_distance(x, y), found.distance)


def test_far_from_the_origin_no_digit_is_lost():
    x, y = samples(60, 60, 2)
    near, far = optimal_matching(x, y), optimal_matching(x + 2.0**27, y + 2.0**27)
    assert torch.equal(near.order, far.order)
    assert far.distance.item() == pytest.approx(near.distance.item(), abs=1e-7)


@pytest.mark.parametrize(("sizes", "dim"), [((7, 7), None), ((7, 4), None), ((4, 4), 3)])
def test_it_has_gradients(sizes, dim):
    x, y = (sample.requires_grad_() for sample in samples(*sizes, dim))
    assert torch.autograd.gradcheck(wasserstein_distance, (x, y))


def test_a_shift_is_its_own_distance():
    x, _ = samples(40, 40, 3)
    shift = torch.tensor([3.0, 0.0, 4.0], dtype=torch.float64)
    found = optimal_matching(x, x + shift)
    assert found.distance.item() == pytest.approx(5.0)
    single = wasserstein_distance(x.float(), (x + shift).float())
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(5.0, rel=1e-6)


# --- weights on points --------------------------------------------------------------------------


def weighted_points(n, dim=1, seed=0):
    torch.manual_seed(seed)
    points = torch.randn(n, dim, dtype=torch.float64)
    p, q = torch.rand(2, n, dtype=torch.float64)
    return torch.cdist(points, points), p / p.sum(), q / q.sum(), points


@pytest.mark.parametrize("dim", [1, 2, 4])
@pytest.mark.parametrize("n", [2, 5, 20])
def test_kantorovich_and_rubinstein_agree(n, dim):
    distance, p, q, points = weighted_points(n, dim)
    primal, dual = transport_plan(distance, p, q), transport_critic(distance, p, q)
    assert primal.cost == pytest.approx(dual.value, abs=1e-6)
    torch.testing.assert_close(primal.plan.sum(1), p)
    torch.testing.assert_close(primal.plan.sum(0), q)
    assert primal.plan.min() > -1e-12
    assert primal.cost == pytest.approx((primal.plan * distance).sum().item())
    assert dual.value == pytest.approx(((p - q) * dual.f).sum().item())
    assert (dual.f[:, None] - dual.f - distance).max() < 1e-9
    if dim == 1:
        line = points.squeeze(1).numpy()
        expected = stats.wasserstein_distance(line, line, p.numpy(), q.numpy())
        assert primal.cost == pytest.approx(expected, abs=1e-9)


def test_mass_moves_only_where_the_critic_is_steepest():
    """Complementary slackness: P_ij > 0 asks for f_i − f_j = d_ij."""
    distance, p, q, _ = weighted_points(12, 2)
    plan, f = transport_plan(distance, p, q).plan, transport_critic(distance, p, q).f
    slack = distance - (f[:, None] - f)
    assert slack[plan > 1e-9].abs().max() < 1e-9
    assert slack[plan <= 1e-9].max() > 0.1


def test_between_samples_the_plan_is_the_matching():
    x, y = samples(8, 8, 2)
    even = torch.full((8,), 1 / 8, dtype=torch.float64)
    found = transport_plan(torch.cdist(x, y), even, even)
    matching = optimal_matching(x, y)
    assert found.cost == pytest.approx(matching.distance.item())
    torch.testing.assert_close(found.plan, torch.eye(8).double()[matching.order] / 8)


def test_a_plan_between_unlike_points():
    cost = torch.tensor([[0.0, 2.0, 5.0], [4.0, 1.0, 1.0]])
    found = transport_plan(cost, torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.5, 0.25]))
    torch.testing.assert_close(
        found.plan, torch.tensor([[0.25, 0.25, 0], [0, 0.25, 0.25]]).double()
    )
    assert found.cost == pytest.approx(1.0)


def test_squared_distances_have_no_critic():
    """From 0 to 2 by way of 1 costs 2, and at once 4."""
    line = torch.arange(3.0)
    with pytest.raises(ValueError, match="no shorter detour, got 4 from 0 to 2, and 2 by way of 1"):
        transport_critic((line[:, None] - line).square(), torch.ones(3) / 3, torch.ones(3) / 3)


# --- bad input ----------------------------------------------------------------------------------

X, EVEN, D = torch.randn(4, 2), torch.full((3,), 1 / 3), torch.ones(3, 3) - torch.eye(3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: wasserstein_distance(X, X[:3]), "same number of samples, got 4 and 3"),
        (lambda: optimal_matching(X[:, 0], X[:3, 0]), "same number of samples, got 4 and 3"),
        (lambda: wasserstein_distance(X[:, 0], X[:1, 0]), "y must hold at least 2 samples, got 1"),
        (lambda: optimal_matching(X[:1], X[:1]), "x must hold at least 2 samples, got 1"),
        (lambda: wasserstein_distance(X[:0], X), "x must hold at least one point, got an empty"),
        (lambda: wasserstein_distance(X[:, 0], X[:0, 0]), "y must hold at least one point"),
        (lambda: wasserstein_distance(X / 0, X), "x must be finite, got NaN or inf in 4 of 4"),
        (lambda: wasserstein_distance(X[:, 0], X[:, 0] * math.nan), "y must be finite"),
        (lambda: wasserstein_distance(X, X[:, :1]), r"y must have shape \(N, 2\), got .* \(4, 1\)"),
        (lambda: wasserstein_distance(X, X.double()), "x and y must have the same dtype"),
        (lambda: wasserstein_distance(X[None], X), r"x must have shape \(N, D\), got .* \(1, 4, 2"),
        (lambda: wasserstein_distance(X.long(), X), "x must hold floating-point numbers"),
        (lambda: transport_plan(D[0], EVEN, EVEN), r"cost must have shape \(N, D\), got"),
        (lambda: transport_plan(D / 0, EVEN, EVEN), "cost must be finite"),
        (lambda: transport_plan(D, EVEN[:2], EVEN), r"p must have shape \(3,\), got shape \(2,\)"),
        (lambda: transport_plan(D, EVEN, 2 * EVEN), "q must be at least 0 .* and the sum 2"),
        (lambda: transport_plan(D, EVEN - D[0], EVEN), "p must be at least 0 .* the least -0.66"),
        (lambda: transport_plan(D, EVEN * math.nan, EVEN), "p must be at least 0 .* the sum nan"),
        (lambda: transport_critic(D[:2], EVEN, EVEN), r"distance must have shape \(N, N\), got"),
        (lambda: transport_critic(D - 2, EVEN, EVEN), "distance must be symmetric, 0 on its"),
        (lambda: transport_critic(D.triu(), EVEN, EVEN), "distance must be symmetric"),
        (lambda: transport_critic(D * 0, EVEN, EVEN), "positive elsewhere, got values from 0 to 0"),
        (lambda: transport_critic(D, EVEN, EVEN[:2]), r"q must have shape \(3,\)"),
    ],
)
def test_bad_samples_and_weights_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
