"""Coupling flows: what each layer reads and moves, and what the two laws can and cannot do."""

import math

import pytest
import torch
from torch.distributions import Normal

from dgm_course.data import two_moons, two_moons_log_prob
from dgm_course.flows import (
    Affine,
    Chain,
    CouplingFlow,
    FlowModel,
    forward_kl,
    image_orders,
)
from dgm_course.training import fit, seed_everything
from tests.contracts import assert_inverse_undoes_forward, standard_normal, strong


def jacobian_of(flow, z):
    return torch.autograd.functional.jacobian(lambda z: flow(z[None])[0][0], z)


# --- one layer, and who sees whom -----------------------------------------------------------


@pytest.mark.parametrize("law", ["affine", "additive"])
@pytest.mark.parametrize(("i", "kept"), [(0, [0, 1]), (1, [2, 3, 4])])
def test_a_layer_is_the_formula(law, i, kept):
    """Layer i by hand, from slices of the stacked weights."""
    flow = strong(CouplingFlow(5, 2, 4, law=law, limit=1.5, n_kept=2), scale=0.7)
    moved = [j for j in range(5) if j not in kept]
    z = torch.randn(7, 5, dtype=torch.float64)
    before, after = flow.path(z)[i : i + 2]
    read, written = slice(2 * i, 2 + 3 * i), slice(0, 3) if i == 0 else slice(3, 5)
    if law == "affine":
        written = slice(2 * written.start, 2 * written.stop)
    h = (before[:, kept] @ flow.w1[read] + flow.b1[i]).relu()
    h = (h @ flow.w2[i].T + flow.b2[i]).relu()
    out = h @ flow.w3[written].T + flow.b3[written]
    c = 1.5 * torch.tanh(out[:, : len(moved)] / 1.5) if law == "affine" else torch.zeros(1)
    expected = before.clone()
    expected[:, moved] = before[:, moved] * c.exp() + out[:, -len(moved) :]
    torch.testing.assert_close(after, expected)


@pytest.mark.parametrize(("n_layers", "n_seen"), [(1, 24), (2, 52), (3, 64), (4, 64)])
def test_three_layers_are_needed_for_every_output_to_see_every_input(n_layers, n_seen):
    flow = strong(CouplingFlow(8, n_layers, 32), scale=0.5)
    z = torch.randn(20, 8, dtype=torch.float64)
    seen = torch.stack([jacobian_of(flow, point) != 0 for point in z]).any(0)
    assert seen.sum() == n_seen


def test_orders_say_what_a_layer_leaves_alone():
    order = [3, 1, 0, 2]
    flow = strong(CouplingFlow(4, 1, 8, orders=[order]), scale=0.7)
    z = torch.randn(7, 4, dtype=torch.float64)
    unmoved = (flow(z)[0] == z).all(0)
    assert unmoved.tolist() == [False, True, False, True]


def test_every_weight_takes_part():
    """Rows of the stacks that no layer reads would be counted as parameters, and be none."""
    for n_layers in (1, 2, 3):
        flow = strong(CouplingFlow(5, n_layers, 6, n_kept=1), scale=0.7)
        x, log_det = flow(torch.randn(500, 5, dtype=torch.float64))
        (x.square().sum() + log_det.sum()).backward()
        for name in ("w1", "w3", "b3"):
            rows = getattr(flow, name).grad.reshape(len(getattr(flow, name)), -1)
            assert (rows != 0).any(1).all(), name
        n_read = sum(4 if i % 2 else 1 for i in range(n_layers))
        n_moved = sum(1 if i % 2 else 4 for i in range(n_layers))
        expected = 6 * n_read + n_layers * (6 + 36 + 6) + 2 * n_moved * 7
        assert sum(p.numel() for p in flow.parameters()) == expected


def test_dropout_acts_in_training_mode_alone():
    flow = strong(CouplingFlow(3, 3, 8, dropout=0.5), scale=0.7)
    z = torch.randn(9, 3, dtype=torch.float64)
    assert not torch.equal(flow(z)[0], flow(z)[0])
    flow.eval()
    assert torch.equal(flow(z)[0], flow(z)[0])
    assert_inverse_undoes_forward(flow, z)


def test_image_orders_divide_pixels_in_four_ways():
    orders = image_orders(4, 4, 10)
    assert orders.shape == (10, 16)
    first = [torch.zeros(16).index_fill(0, order[:8], 1).reshape(4, 4) for order in orders[::2]]
    checker, rows, columns, blocks, again = first
    ones = torch.ones(4)
    torch.testing.assert_close(rows, torch.outer(torch.tensor([1.0, 0, 1, 0]), ones))
    torch.testing.assert_close(columns, rows.T)
    torch.testing.assert_close(checker, (rows == columns).float())
    assert blocks.tolist() == [[1, 1, 0, 0]] * 2 + [[0, 0, 1, 1]] * 2
    torch.testing.assert_close(again, checker)
    torch.testing.assert_close(orders[::2], orders[1::2])  # two layers each: halves swap roles
    with pytest.raises(ValueError, match="must be even, got 4 and 3"):
        image_orders(4, 3, 1)


# --- what the laws can do -------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 5])
def test_additive_layers_keep_every_volume(dim):
    flow = strong(CouplingFlow(dim, 4, 8, law="additive"), scale=0.7)
    z = torch.randn(50, dim, dtype=torch.float64)
    x, log_det = flow(z)
    assert torch.equal(log_det, torch.zeros(50, dtype=torch.float64))
    determinants = torch.stack([torch.linalg.det(jacobian_of(flow, point)) for point in z])
    torch.testing.assert_close(determinants, torch.ones_like(determinants), atol=1e-12, rtol=0)
    density = FlowModel(standard_normal(dim), flow).log_prob(x)
    assert density.max() <= -dim / 2 * math.log(2 * math.pi)


def test_without_a_diagonal_layer_nice_stays_a_known_distance_from_two_moons():
    """KL ≥ ln 2π − entropy, because the density cannot pass (2π)^(−D/2): 0.83 nats."""
    x = two_moons(50_000, 0).double()
    entropy = -two_moons_log_prob(x).mean().item()
    assert entropy == pytest.approx(1.0103, abs=0.01)
    nice = strong(CouplingFlow(2, 4, 8, law="additive"), scale=0.3)
    loss = forward_kl(FlowModel(standard_normal(2), nice), x)
    assert loss.min() >= math.log(2 * math.pi)
    assert math.log(2 * math.pi) - 1.0103 == pytest.approx(0.8276, abs=1e-4)


@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_affine_layers_expand_and_contract(scale):
    """A scale of at most 1 (nflows' default: a sigmoid) leaves 3.6 nats at 0.1; the entropy's 0."""
    seed_everything(0)
    model = FlowModel(standard_normal(2, torch.float32), CouplingFlow(2, 4, 8))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    fit(
        lambda step: forward_kl(model, scale * torch.randn(128, 2)),
        optimizer,
        150,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 150),
        max_grad_norm=10.0,
        progress=False,
    )
    x = scale * torch.randn(5000, 2)
    truth = -Normal(0.0, scale).log_prob(x).sum(1)
    assert (forward_kl(model, x) - truth).mean() < 0.05


@pytest.mark.slow
def test_sixteen_layers_learn_two_moons():
    seed_everything(0)
    model = FlowModel(standard_normal(2, torch.float32), CouplingFlow(2, 16))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    fit(
        lambda step: forward_kl(model, two_moons(256, generator)),
        optimizer,
        1000,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000),
        max_grad_norm=10.0,
        progress=False,
    )
    x = two_moons(20_000, 999)
    with torch.no_grad():
        kl = (two_moons_log_prob(x) - model.log_prob(x)).mean()
    assert 0 < kl <= 0.1  # ten seeds


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"dim": 1}, "dim must be an int of at least 2, got 1"),
        ({"n_layers": 0}, "n_layers must be an int of at least 1, got 0"),
        ({"n_hidden": 0}, "n_hidden must be an int of at least 1, got 0"),
        ({"law": "planar"}, "'affine' or 'additive', got 'planar'"),
        ({"limit": 0.0}, "limit must be positive and finite, got 0.0"),
        ({"limit": -1.0}, "limit must be positive"),
        ({"limit": math.nan}, "limit must be positive and finite, got nan"),
        ({"limit": math.inf}, "limit must be positive and finite, got inf"),
        ({"n_kept": 0}, "n_kept must be an int of at least 1, got 0"),
        ({"n_kept": 4}, "n_kept must be at most 3, got 4"),
        ({"dropout": 1.0}, "dropout must be below 1, got 1.0"),
        ({"dropout": -0.1}, "dropout must be at least 0 and finite, got -0.1"),
        ({"orders": [[0, 1, 2, 3]]}, r"= \(8, 4\), got shape \(1, 4\)"),
        ({"orders": [[0, 1, 2]] * 8}, r"= \(8, 4\), got shape \(8, 3\)"),
        ({"orders": [[0, 1, 2, 2]] * 8}, r"each of 0 to D - 1 once, got .*\[0, 1, 2, 2\]"),
        ({"orders": [[0, 1, 2, 3], [0, 1]] * 4}, "of one length, got"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        CouplingFlow(**{"dim": 4} | arguments)


def test_nice_is_a_chain_with_a_diagonal_layer():
    nice = Chain(Affine(2), CouplingFlow(2, law="additive"))
    with torch.no_grad():
        nice.layers[0].log_scale.copy_(torch.tensor([0.5, -2.0]))
    torch.testing.assert_close(nice(torch.randn(4, 2))[1], torch.full((4,), -1.5))
