"""The penalty on a critic's slope, where that slope is known."""

import pytest
import torch
from torch import nn

from dgm_course.gan import MinibatchDiscrimination, gradient_penalty


def linear(w):
    return lambda x: (x * w).flatten(1).sum(1)


@pytest.mark.parametrize("shape", [(1,), (4,), (2, 3), (1, 8, 8), (3, 4, 4)])
def test_of_a_linear_critic_it_is_the_norm_of_all_weights(shape):
    """On images too: a norm over one axis of them would be another number."""
    torch.manual_seed(0)
    w = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    x = torch.randn(5, *shape, dtype=torch.float64)
    found = gradient_penalty(linear(w), x)
    expected = ((w.norm() - 1) ** 2).expand(5)
    torch.testing.assert_close(found, expected)
    # And so are its gradients by the weights.
    for one, other in zip(
        *(torch.autograd.grad(f.mean(), w) for f in (found, expected)), strict=True
    ):
        torch.testing.assert_close(one, other)


def quadratic():
    a = torch.tensor([[2.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    return lambda x: (x @ a * x).sum(1), a + a.T


def test_each_example_has_its_own_slope():
    torch.manual_seed(0)
    critic, a = quadratic()
    x = torch.randn(50, 2, dtype=torch.float64)
    norm = (x @ a).norm(dim=1)
    torch.testing.assert_close(gradient_penalty(critic, x), (norm - 1) ** 2)
    torch.testing.assert_close(gradient_penalty(critic, x, target=2.5), (norm - 2.5) ** 2)
    torch.testing.assert_close(gradient_penalty(critic, x, target=0), norm**2)
    one_sided = gradient_penalty(critic, x, one_sided=True)
    torch.testing.assert_close(one_sided, torch.where(norm > 1, (norm - 1) ** 2, 0))
    assert (one_sided == 0).sum() == (norm < 1).sum() == 3


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_a_flat_critic_has_finite_gradients(target):
    w = torch.zeros(3, requires_grad=True)
    penalty = gradient_penalty(linear(w), torch.randn(4, 3), target=target)
    assert penalty.tolist() == [target**2] * 4
    (slope,) = torch.autograd.grad(penalty.sum(), w)
    assert torch.isfinite(slope).all()


def test_x_is_left_as_it_was():
    w = torch.ones(3, requires_grad=True)
    source = torch.ones(3, requires_grad=True)
    x = source * 2 * torch.ones(4, 1)
    penalty = gradient_penalty(lambda x: (w * x).square().sum(1) / 2, x, target=0)
    penalty.sum().backward()
    assert source.grad is None
    assert x.requires_grad
    assert w.grad.tolist() == [64.0] * 3  # 4 examples, d (w² x)² / dw = 16 at x = 2


def test_it_is_measured_also_where_nothing_is_trained():
    w = torch.full((4,), 1.5, requires_grad=True)
    with torch.no_grad():
        penalty = gradient_penalty(linear(w), torch.zeros(2, 4))
    assert penalty.tolist() == [4.0, 4.0]  # (√(4 · 2.25) − 1)²
    assert not penalty.requires_grad


def test_a_critic_that_looks_at_the_batch_is_named():
    torch.manual_seed(0)
    head = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
    x = torch.randn(6, 3)
    normalised = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), head)
    sideways = nn.Sequential(MinibatchDiscrimination(3, 1), head)
    for critic in (normalised, sideways):
        with pytest.warns(UserWarning, match="score of an example depends on its batch"):
            gradient_penalty(critic, x)
    gradient_penalty(normalised.eval(), x)  # warnings are errors
    gradient_penalty(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), head), x)


X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"x": X[0]}, r"x must have shape \(N, ...\), not empty, got shape \(3,\)"),
        ({"x": X[:0]}, r"not empty, got shape \(0, 3\)"),
        ({"x": X / 0}, "x must be finite, got NaN or inf in 2 of 2 examples"),
        ({"x": X.long()}, "x must hold floating-point numbers, got torch.int64"),
        ({"target": -1.0}, "target must be at least 0 and finite, got -1.0"),
        ({"target": float("nan")}, "target must be at least 0 and finite, got nan"),
        ({"critic": lambda x: x}, r"critic must return shape \(2,\), got \(2, 3\)"),
        ({"critic": lambda x: x.sum(1, keepdim=True)}, r"shape \(2,\), got \(2, 1\)"),
        ({"critic": torch.sum}, r"shape \(2,\), got \(\)"),
    ],
)
def test_bad_penalties_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        gradient_penalty(**{"critic": linear(torch.ones(3)), "x": X} | arguments)
