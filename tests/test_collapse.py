import math

import pytest
import torch

from dgm_course.vae import GaussianVAE, active_units, activity
from tests.contracts import strong


def test_a_unit_is_active_when_its_mean_varies():
    torch.manual_seed(0)
    means = torch.randn(5000, 4) * torch.tensor([1.0, 0.2, 0.05, 0.0]) + 3
    assert active_units(means).tolist() == [True, True, False, False]
    assert active_units(means, 0.5).tolist() == [True, False, False, False]
    assert active_units(means, 0.0).tolist() == [True, True, True, False]


def test_the_threshold_is_of_the_variance():
    means = torch.tensor([[-0.11], [0.11]]).expand(2, 1).repeat(500, 1)
    assert active_units(means).all()  # 0.0121
    assert not active_units(0.8 * means).any()  # 0.0077, though its spread is 0.09


def test_activity_is_the_closed_form_of_a_linear_encoder():
    """Var(V x + c) = diag(V Σ Vᵀ); draws of z in the place of means would add σ²."""
    model = strong(GaussianVAE(3, 2, 0), scale=0.5)
    torch.manual_seed(1)
    x = torch.randn(200_000, 3, dtype=torch.float64) * torch.tensor([1.0, 2.0, 0.1])
    v = model.encoder[0].weight.detach()
    expected = (v**2) @ torch.tensor([1.0, 4.0, 0.01]).double()
    with torch.no_grad():
        q = model.encode(x)
    torch.testing.assert_close(activity(q.mean), expected, rtol=0.02, atol=0)
    assert (activity(q.sample()) > expected + 0.3).all()


@pytest.mark.parametrize("n_draws", [2, 5])
def test_activity_of_a_second_layer_is_the_closed_form_of_a_chain(n_draws):
    """q(z₁|x) = N(V x, s²), E[z₂|z₁] = U z₁: diag(U V Vᵀ Uᵀ), whatever s and however few draws.

    The third latent of z₂ follows a direction of z₁ that x says nothing of.
    """
    torch.manual_seed(2)
    v = torch.tensor([[1.0, 0.0], [0.5, -1.0], [0.0, 0.0]]).double()
    u = torch.tensor([[1.0, 0.3, 0.0], [0.2, 0.0, 0.4], [0.0, 0.0, 1.0]]).double()
    x = torch.randn(100_000, 2, dtype=torch.float64)
    noise = torch.tensor([0.5, 1.0, 1.0]) * torch.randn(n_draws, 100_000, 3, dtype=torch.float64)
    means = (x @ v.T + noise) @ u.T  # (S, N, 3)
    expected = ((u @ v) ** 2).sum(1)
    torch.testing.assert_close(activity(means), expected, rtol=0.02, atol=0.01)
    assert active_units(means, 0.06).tolist() == [True, False, False]
    # The variance of the averages alone is too large by Var(U noise) / S.
    rest = u**2 @ torch.tensor([0.25, 1.0, 1.0]).double() / n_draws
    torch.testing.assert_close(means.mean(0).var(0), expected + rest, rtol=0.02, atol=0.01)


@pytest.mark.parametrize(
    ("means", "threshold", "words"),
    [
        (torch.zeros(3), 0.01, "means must have shape"),
        (torch.zeros(0, 2), 0.01, "empty batch"),
        (torch.zeros(1, 2), 0.01, "at least two points, got 1"),
        (torch.tensor([[0.0], [math.nan]]), 0.01, "must be finite"),
        (torch.zeros(1, 3, 2), 0.01, "at least two draws a point .* got S = 1"),
        (torch.zeros(3, 1, 2), 0.01, "at least two points, got 1"),
        (torch.zeros(2, 2, 2, 2), 0.01, "means must have shape"),
        (torch.full((2, 3, 2), math.inf), 0.01, "must be finite"),
        (torch.zeros(3, 2), -0.01, "threshold must be at least 0"),
        (torch.zeros(3, 2), math.nan, "threshold must be at least 0"),
    ],
)
def test_refuses(means, threshold, words):
    with pytest.raises(ValueError, match=words):
        active_units(means, threshold)
