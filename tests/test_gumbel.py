"""Gumbel-softmax against the categorical, a sum over all words, and gradients by hand."""

import itertools
import math

import pytest
import torch
from torch.nn.functional import one_hot

from dgm_course.codes import GumbelSoftmax, expectation_by_enumeration, relaxed_gradients

LOGITS = torch.tensor([[0.3, -0.9, 0.6], [1.2, 0.1, -0.4]]).double()  # two words of three
WEIGHTS = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.8, -1.5]]).double()


def curved(y):
    """A quadratic of both words, ``(S, 2, 3)`` to ``(S,)``."""
    return ((y * WEIGHTS).sum((1, 2)) - 0.4).square()


# --- draws ------------------------------------------------------------------------------------


def test_near_0_a_draw_is_a_draw_from_the_categorical():
    """χ² of the 9 words of two places in 20,000 draws, at a level of 0.1 %."""
    q, n = GumbelSoftmax(LOGITS, 1e-3), 20_000
    y = q.rsample(n, 0)
    assert (y.amax(-1) > 0.99).double().mean() > 0.99
    z = y.argmax(-1)
    found = torch.bincount(3 * z[:, 0] + z[:, 1], minlength=9).double()
    p = LOGITS.softmax(1)
    expected = n * (p[0, :, None] * p[1]).flatten()
    assert ((found - expected).square() / expected).sum() < 26.1, "χ² of 8 degrees of freedom"
    assert torch.equal(z, q.sample(n, 0)), "the same noise, the same words"
    assert torch.equal(z, GumbelSoftmax(LOGITS, straight_through=True).rsample(n, 0).argmax(-1))


@pytest.mark.parametrize("temperature", [1e-320, 1e-30, 0.1, 1.0, 30.0])
def test_a_draw_is_the_softmax_of_perturbed_logits(temperature):
    y = GumbelSoftmax(LOGITS, temperature).rsample(1000, 3)
    assert y.shape == (1000, 2, 3)
    torch.testing.assert_close(y.sum(-1), torch.ones(1000, 2).double())
    drawn = torch.empty(1000, 2, 3).double()
    drawn.exponential_(generator=torch.Generator().manual_seed(3))
    perturbed = LOGITS - drawn.log()
    if temperature > 1e-300:
        torch.testing.assert_close(y, (perturbed / temperature).softmax(-1))
    hard = GumbelSoftmax(LOGITS, temperature, straight_through=True).rsample(1000, 3)
    torch.testing.assert_close(hard, one_hot(perturbed.argmax(-1), 3).double())


def test_straight_through_has_the_relaxed_gradient():
    grads = []
    for straight_through in (False, True):
        logits = LOGITS.clone().requires_grad_()
        y = GumbelSoftmax(logits, 0.7, straight_through=straight_through).rsample(50, 5)
        grads.append(torch.autograd.grad((y * WEIGHTS).sum(), logits)[0])
    torch.testing.assert_close(*grads)


def test_kl_and_log_prob_are_those_of_torch():
    q = GumbelSoftmax(LOGITS)
    peer = torch.distributions.Categorical(logits=LOGITS)
    torch.testing.assert_close(q.kl(), math.log(3) - peer.entropy())
    z = q.sample(40, 0)
    torch.testing.assert_close(q.log_prob(z), peer.log_prob(z))


# --- expectations and gradients ---------------------------------------------------------------


def test_the_expectation_is_the_sum_over_words_with_its_gradient():
    logits = LOGITS.clone().requires_grad_()
    found = expectation_by_enumeration(curved, logits)
    p, expected = logits.softmax(1), 0.0
    for i, j in itertools.product(range(3), repeat=2):
        value = (WEIGHTS[0, i] + WEIGHTS[1, j] - 0.4) ** 2
        expected = expected + p[0, i] * p[1, j] * value
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(found, logits), torch.autograd.grad(expected, logits), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_the_gradient_of_a_draw_is_autograds():
    found = relaxed_gradients(curved, LOGITS, 0.5, 6, generator=2)
    assert found.shape == (6, 2, 3)
    y = GumbelSoftmax(LOGITS.expand(6, 2, 3), 0.5).rsample(1, 2)[0]
    for s in range(6):
        # dy/dℓ of a softmax: (diag y − y yᵀ) / τ, and df/dy of the square.
        slope = 2 * ((y[s] * WEIGHTS).sum() - 0.4) * WEIGHTS
        for g in range(2):
            jacobian = (torch.diag(y[s, g]) - torch.outer(y[s, g], y[s, g])) / 0.5
            torch.testing.assert_close(found[s, g], jacobian @ slope[g])


@pytest.mark.parametrize("straight_through", [False, True])
def test_bias_falls_and_variance_rises_as_the_draws_harden(straight_through):
    """At 20,000 draws: far beyond five standard errors both ways; never unbiased at τ = 1."""
    logits = LOGITS.clone().requires_grad_()
    (exact,) = torch.autograd.grad(expectation_by_enumeration(curved, logits), logits)
    bias, variance, error = {}, {}, {}
    for temperature in (0.1, 1.0):
        each = relaxed_gradients(
            curved, LOGITS, temperature, 20_000, straight_through=straight_through, generator=0
        )
        bias[temperature] = (each.mean(0) - exact).norm().item()
        variance[temperature] = each.var(0).sum().item()
        error[temperature] = (variance[temperature] / 20_000) ** 0.5
    assert bias[1.0] > 5 * error[1.0]
    assert bias[0.1] < bias[1.0] / 2
    assert variance[0.1] > 4 * variance[1.0]


def test_of_a_linear_function_straight_through_is_as_the_relaxed():
    linear = lambda y: (y * WEIGHTS).sum((1, 2))  # noqa: E731
    relaxed, straight = (
        relaxed_gradients(linear, LOGITS, 1.0, 100, straight_through=hard, generator=1)
        for hard in (False, True)
    )
    torch.testing.assert_close(relaxed, straight)


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("logits", "words"),
    [
        ([[0.0, 1.0]], "logits must be a torch.Tensor, got list"),
        (torch.zeros(2, 3).long(), "logits must hold floating-point numbers, got torch.int64"),
        (torch.zeros(2, 0), r"logits must have shape \(.*, K\), got shape \(2, 0\)"),
        (
            torch.tensor([[0.0, math.nan], [0, 0]]),
            "logits must be finite, got NaN or inf in",
        ),
    ],
)
def test_bad_logits_are_named(logits, words):
    calls = (
        GumbelSoftmax,
        lambda v: expectation_by_enumeration(curved, v),
        lambda v: relaxed_gradients(curved, v, 1.0, 3),
    )
    for call in calls:
        with pytest.raises(ValueError, match=words):
            call(logits)


def test_other_bad_input_is_named():
    with pytest.raises(ValueError, match="temperature must be positive and finite, got 0"):
        GumbelSoftmax(LOGITS, 0)
    with pytest.raises(ValueError, match="n_samples must be an int of at least 1"):
        GumbelSoftmax(LOGITS).rsample(0)
    with pytest.raises(ValueError, match="logits must have shape"):
        GumbelSoftmax(torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"logits must have shape \(G, K\), got shape \(3,\)"):
        expectation_by_enumeration(curved, LOGITS[0])
    with pytest.raises(ValueError, match=r"f must map \(9, 2, 3\) to \(9,\), got \(9, 2\)"):
        expectation_by_enumeration(lambda y: y.sum(2), LOGITS)
    with pytest.raises(ValueError, match=r"f must map \(4, 2, 3\) to \(4,\), got float"):
        relaxed_gradients(lambda y: 1.0, LOGITS, 1.0, 4)
    with pytest.raises(ValueError, match=r"100,000 grids of codes, got 3\^11 = 177,147"):
        expectation_by_enumeration(curved, torch.zeros(11, 3))
