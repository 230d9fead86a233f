import math

import pytest
import torch
from torch import nn

from dgm_course.causality import (
    CausalityError,
    check_causal,
    sees_by_gradient,
    sees_by_perturbation,
)


def real(n=4, length=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, length, generator=generator, dtype=torch.float64)


def strictly_lower(length=6):
    return torch.ones(length, length, dtype=torch.float64).tril(-1)


@pytest.mark.parametrize("seed", range(3))
def test_both_ways_find_the_open_weights_of_a_linear_map(seed):
    generator = torch.Generator().manual_seed(seed)
    is_open = torch.rand(6, 6, generator=generator) < 0.4  # output, value
    weights = is_open * (1 + torch.rand(6, 6, generator=generator, dtype=torch.float64))
    features = torch.tensor([1.0, -2.0], dtype=torch.float64)

    def outputs_of(x):
        return (x @ weights.T)[..., None] * features  # (N, T, 2)

    assert torch.equal(sees_by_gradient(outputs_of, real()), is_open)
    assert torch.equal(sees_by_perturbation(outputs_of, real(), real() + 1), is_open)


def test_every_single_leak_is_found():
    for i in range(6):
        for j in range(i, 6):
            weights = strictly_lower()
            weights[i, j] = 1e-6
            pair = f"of place {i} see {'its own value' if i == j else f'that of place {j}'}, by gr"
            with pytest.raises(CausalityError, match=f"{pair}adient; 1 pairs of 21 leak"):
                check_causal(lambda x, w=weights: x @ w.T, real(), real() + 1)
    check_causal(lambda x: x @ strictly_lower().T, real(), real() + 1)


def test_a_flow_may_see_its_own_value():
    def f(x):
        return x * (1 + x.cumsum(1) - x)

    check_causal(f, real(), real() + 1, own_value=True)
    with pytest.raises(CausalityError, match="own value, by gradient; 6 pairs of 21 leak"):
        check_causal(f, real(), real() + 1)
    with pytest.raises(CausalityError, match="place 0 see that of place 1, .*; 5 pairs of 15"):
        check_causal(lambda x: x + x.roll(-1, 1), real(), real() + 1, own_value=True)


class Recurrent(nn.Module):
    """Logits of the tokens before: the start token stands in the model."""

    def __init__(self, shift=1):
        super().__init__()
        self.embedding, self.net = nn.Embedding(5, 3), nn.GRU(3, 5, batch_first=True)
        self.shift = shift

    def forward(self, tokens):  # (N, T) to (N, T, V)
        steps = self.embedding(tokens)
        start = steps.new_zeros(len(tokens), self.shift, 3)
        return self.net(torch.cat([start, steps], 1)[:, : tokens.shape[1]])[0]


def test_tokens_are_moved_and_not_differentiated():
    torch.manual_seed(0)
    tokens = torch.randint(5, (3, 7))
    check_causal(Recurrent().double(), tokens, (tokens + 2) % 5)
    with pytest.raises(CausalityError, match="see its own value, by perturbation; 7 pairs of 28"):
        check_causal(Recurrent(shift=0).double(), tokens, (tokens + 2) % 5)
    assert torch.equal(
        sees_by_perturbation(Recurrent().double(), tokens, (tokens + 2) % 5),
        torch.ones(7, 7).tril(-1).bool(),
    )


def test_each_way_finds_what_the_other_misses():
    def waves(x):
        return torch.sin(2 * math.pi * x.roll(-1, 1))

    def steps(x):
        return x.round().roll(-1, 1)

    x = torch.zeros(2, 4, dtype=torch.float64)
    assert not sees_by_perturbation(waves, x, x + 1).any()  # a whole wave on
    with pytest.raises(CausalityError, match="by gradient"):
        check_causal(waves, x, x + 1)
    assert not sees_by_gradient(steps, x).any()
    with pytest.raises(CausalityError, match="by perturbation"):
        check_causal(steps, x, x + 1)


def test_places_and_outputs_have_names():
    with pytest.raises(CausalityError, match="the shifts of day 0 see that of day 1, by"):
        check_causal(
            lambda x: x.roll(-1, 1), real(), real() + 1, what="shifts", place=lambda t: f"day {t}"
        )


def test_values_are_left_alone():
    x = real()
    sees_by_gradient(lambda x: x.cumsum(1), x)
    assert not x.requires_grad


def test_bad_arguments_are_refused():
    x = real()
    for outputs_of, values, others, words in [
        (torch.sin, x, x[:, :5], r"shape \(N, T\), got shapes \(4, 6\) and \(4, 5\)"),
        (torch.sin, x[0], x[0] + 1, r"got shapes \(6,\) and \(6,\)"),
        (torch.sin, x, x, "others must differ from values everywhere, got 24 of 24 alike"),
        (lambda x: x.sum(1), x, x + 1, r"map \(4, 6\) to shape \(4, 6, ...\), got \(4,\)"),
        (lambda x: x[:, None], x, x + 1, r"got \(4, 1, 6\)"),
        (lambda x: x.log(), x, x + 1, "must return finite numbers, got NaN or inf"),
    ]:
        with pytest.raises(ValueError, match=words):
            check_causal(outputs_of, values, others)
