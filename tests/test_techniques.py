"""Feature matching, remembered weights, the reference batch and the look sideways, by hand."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import batch_norm

from dgm_course.gan import (
    HistoricalAverage,
    MinibatchDiscrimination,
    ReferenceBatch,
    VirtualBatchNorm,
    feature_matching_loss,
)
from tests.contracts import strong

# --- feature matching -------------------------------------------------------------------------


def test_feature_matching_is_the_distance_of_the_means():
    torch.manual_seed(0)
    real, fake = torch.randn(5, 3, 2), torch.randn(7, 3, 2)
    expected = sum(
        (real[:, i, j].sum() / 5 - fake[:, i, j].sum() / 7) ** 2
        for i in range(3) for j in range(2)
    )  # fmt: skip
    torch.testing.assert_close(feature_matching_loss(real, fake), expected)


def test_feature_matching_of_batches_has_the_variances_in_it():
    """E = ‖μ − ν‖² + tr Σ / N + tr T / M: a generator of one point pays least."""
    torch.manual_seed(0)
    n, m, runs = 4, 8, 20_000
    real = torch.randn(runs, n, 2).double() * torch.tensor([1.0, 2.0]) + 1
    fake = torch.randn(runs, m, 2).double() * 3
    losses = torch.func.vmap(feature_matching_loss)(real, fake)
    expected = 2 + 5 / n + 18 / m
    assert abs(losses.mean() - expected) < 4 * losses.std() / runs**0.5


def test_two_generators_with_the_same_means_are_equally_good():
    spread = torch.tensor([[-1.0, 2.0], [1.0, -2.0]])
    assert feature_matching_loss(spread, torch.zeros(5, 2)) == 0


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 1)),
        (torch.zeros(3), torch.zeros(3)),
        (torch.zeros(0, 2), torch.zeros(3, 2)),
        (torch.zeros(3, 2), torch.zeros(0, 2)),
        (torch.zeros(3, 2), torch.zeros(3, 2, 1)),
    ],
)
def test_other_features_are_refused(real, fake):
    with pytest.raises(ValueError, match="real and fake must be features"):
        feature_matching_loss(real, fake)


# --- historical averaging ---------------------------------------------------------------------


def test_the_average_is_of_the_weights_before():
    w, v = (nn.Parameter(torch.zeros(n, dtype=torch.float64)) for n in (2, 3))
    pull, seen = HistoricalAverage([w, v]), []
    torch.manual_seed(0)
    for _ in range(6):
        with torch.no_grad():
            w.normal_(), v.normal_()
        here = torch.cat([w, v]).detach().clone()
        penalty = pull()
        away = here - torch.stack(seen).mean(0) if seen else 0 * here
        torch.testing.assert_close(penalty, away.square().sum())
        gradients = torch.autograd.grad(penalty, [w, v])
        torch.testing.assert_close(torch.cat(gradients), 2 * away)
        seen.append(here)


def test_no_weights_are_refused():
    with pytest.raises(ValueError, match="weights must hold at least one parameter, got none"):
        HistoricalAverage([])


# --- virtual batch normalisation ----------------------------------------------------------------

R = 5
SHAPES = [(3,), (3, 4), (3, 4, 2)]


@pytest.mark.parametrize("shape", SHAPES)
def test_each_example_is_normalised_as_the_last_of_the_reference_and_itself(shape):
    norm = strong(VirtualBatchNorm(3, R))
    x = 2 * torch.randn(R + 4, *shape, dtype=torch.float64) + 1
    found = norm(x)

    def by_torch(batch):
        return batch_norm(batch, None, None, norm.weight, norm.bias, training=True)

    torch.testing.assert_close(found[:R], by_torch(x[:R]))
    for i in range(R, R + 4):
        expected = by_torch(torch.cat([x[:R], x[i : i + 1]]))[-1]
        torch.testing.assert_close(found[i], expected)


def test_it_keeps_its_digits_far_from_the_origin():
    norm, x = VirtualBatchNorm(3, R), torch.randn(R + 4, 3)
    torch.testing.assert_close(norm(x + 1000), norm(x), atol=2e-3, rtol=0)


def leaks(network, x):
    """|∂ Σ network(x)_0 / ∂x_j| of the other examples j."""
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(network(x)[0].square().sum(), x)
    assert slope[0].abs().max() > 1e-3
    return slope[1:].abs().max().item()


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_no_example_sees_another_in_either_mode(mode):
    """Through two layers. Batch normalisation at the same places does, in training."""
    torch.manual_seed(0)

    def network(norm):
        layers = nn.Linear(2, 6), norm(), nn.Tanh(), nn.Linear(6, 6), norm(), nn.Tanh()
        return nn.Sequential(*layers, nn.Linear(6, 1)).double()

    x = torch.randn(4, 2, dtype=torch.float64)
    virtual = ReferenceBatch(network(lambda: VirtualBatchNorm(6, R)), torch.randn(R, 2).double())
    getattr(virtual, mode)()
    assert virtual(x).shape == (4, 1)
    assert leaks(virtual, x) == 0
    torch.testing.assert_close(virtual(x)[2:3], virtual(x[2:3]))
    plain = getattr(network(lambda: nn.BatchNorm1d(6)), mode)()
    assert (leaks(plain, x) > 1e-3) == (mode == "train")


def test_the_reference_is_a_state_of_its_own():
    reference = torch.randn(R, 2)
    network = ReferenceBatch(nn.Sequential(nn.Linear(2, 3), VirtualBatchNorm(3, R)), reference)
    x = torch.randn(2, 2)
    before = network(x)
    reference.zero_()
    assert torch.equal(network(x), before)
    assert "reference" in network.state_dict()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: VirtualBatchNorm(3, 1), "n_reference must be an int of at least 2, got 1"),
        (lambda: VirtualBatchNorm(3, 5, eps=0), "eps must be positive and finite, got 0"),
        (lambda: VirtualBatchNorm(3, R)(torch.zeros(4, 3)), r"R = 5 .* got shape \(4, 3\)"),
        (lambda: VirtualBatchNorm(3, R)(torch.zeros(9, 2)), r"R \+ N, 3, .* got shape \(9, 2\)"),
        (lambda: VirtualBatchNorm(3, R)(torch.zeros(9)), r"got shape \(9,\)"),
        (
            lambda: ReferenceBatch(nn.Sequential(VirtualBatchNorm(3, R)), torch.zeros(4, 3)),
            "n_reference = 5 examples, as layer 0 of the network has it, got 4",
        ),
        (
            lambda: ReferenceBatch(nn.Identity(), torch.zeros(4, 3))(torch.zeros(2, 4)),
            r"x must be like the reference, \(4, 3\) .* got shape \(2, 4\)",
        ),
    ],
)
def test_a_reference_that_does_not_fit_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# --- minibatch discrimination -----------------------------------------------------------------


def test_closeness_is_the_sum_over_the_others():
    layer = strong(MinibatchDiscrimination(3, 4, 2), scale=0.5)
    h = torch.randn(6, 3, dtype=torch.float64)
    found = layer(h)
    assert torch.equal(found[:, :3], h)
    for i in range(6):
        for b in range(4):
            rows = (h @ layer.kernels[:, b]).detach()  # (6, 2)
            terms = [math.exp(-(rows[i] - rows[j]).abs().sum()) for j in range(6) if j != i]
            assert found[i, 3 + b].item() == pytest.approx(sum(terms))


def test_equal_examples_are_as_close_as_can_be_and_far_ones_not_at_all():
    layer = MinibatchDiscrimination(3, 4, 2)
    assert layer(torch.ones(6, 3))[:, 3:].tolist() == [[5.0] * 4] * 6
    assert layer(torch.tensor([[0.0, 0.0, 0.0], [1e4, 1e4, 1e4]]))[:, 3:].max() < 1e-3
    assert layer(torch.ones(1, 3))[:, 3:].tolist() == [[0.0] * 4]


def test_a_gradient_penalty_can_pass_through_it():
    layer = strong(MinibatchDiscrimination(3, 4, 2), scale=0.5)
    h = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda h: layer(h).tanh(), h)


@pytest.mark.parametrize("shape", [(5, 4), (5,), (5, 3, 1)])
def test_other_features_have_no_neighbours(shape):
    with pytest.raises(ValueError, match=r"h must have shape \(N, 3\), got shape"):
        MinibatchDiscrimination(3)(torch.zeros(shape))
