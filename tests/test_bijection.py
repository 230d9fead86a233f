"""What is built from other bijections, and the flows of one feature at a time."""

import math

import pytest
import torch
from scipy import stats
from torch.distributions import Independent, Normal

from dgm_course.flows import (
    Affine,
    Chain,
    CouplingFlow,
    FlowModel,
    Inverse,
    MixtureCdf,
    Permutation,
    PlanarFlow,
)
from dgm_course.flows.elementwise import log_ndtri
from tests.contracts import assert_inverse_undoes_forward, assert_log_det_is_autograds, strong


def affine(log_scale, shift):
    layer = Affine(1)
    with torch.no_grad():
        layer.log_scale.fill_(log_scale)
        layer.shift.fill_(shift)
    return layer


# --- chain, inverse, permutation ---------------------------------------------------------------


def test_the_first_layer_of_a_chain_is_next_to_the_noise():
    flow = Chain(affine(0.0, 1.0), affine(math.log(2), 0.0))  # add 1, then double
    x, log_det = flow(torch.tensor([[3.0]]))
    assert x.item() == pytest.approx(8.0)
    assert log_det.item() == pytest.approx(math.log(2))
    z, log_det = flow.inverse(torch.tensor([[8.0]]))
    assert z.item() == pytest.approx(3.0)
    assert log_det.item() == pytest.approx(-math.log(2))


def test_a_chain_of_chains_is_one_chain():
    a, b, c = (strong(CouplingFlow(3, 2, 4), seed, scale=0.5) for seed in range(3))
    z = torch.randn(9, 3, dtype=torch.float64)
    for one, other in zip(Chain(a, b, c)(z), Chain(a, Chain(b, c))(z), strict=True):
        torch.testing.assert_close(one, other)


def test_the_inverse_of_an_inverse_is_the_layer():
    flow = strong(PlanarFlow(2, 3))
    z = torch.randn(9, 2, dtype=torch.float64)
    for one, other in zip(Inverse(Inverse(flow))(z), flow(z), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(Inverse(flow)(z), flow.inverse(z), strict=True):
        assert torch.equal(one, other)


def test_a_permutation_says_where_each_feature_comes_from():
    x, log_det = Permutation([2, 0, 1])(torch.tensor([[10.0, 11.0, 12.0]]))
    assert x.tolist() == [[12.0, 10.0, 11.0]]
    assert log_det.tolist() == [0.0]


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ([0, 0], r"order must hold each of 0 to D - 1 once, got shape \(2,\) with values \[0, 0\]"),
        ([1, 2], "each of 0 to D - 1 once"),
        ([0.5, 1.0], "each of 0 to D - 1 once"),
        ([], "each of 0 to D - 1 once"),
        ([[0, 1]], r"once, got shape \(1, 2\)"),
    ],
)
def test_what_is_no_permutation_is_refused(order, words):
    with pytest.raises(ValueError, match=words):
        Permutation(order)


def test_a_chain_refuses_layers_that_do_not_fit():
    with pytest.raises(ValueError, match=r"same dim, got dims \[2, 3\]"):
        Chain(Affine(2), Affine(3))
    with pytest.raises(ValueError, match=r"one or more of the same dim, got dims \[\]"):
        Chain()


def test_a_container_names_its_own_argument():
    for flow in (Chain(Inverse(Affine(2)), Affine(2)), Inverse(Affine(2))):
        with pytest.raises(ValueError, match="z must have shape"):
            flow(torch.zeros(3, 4))
        with pytest.raises(ValueError, match="x must have shape"):
            flow.inverse(torch.zeros(3, 4))


# --- the flow on the line ----------------------------------------------------------------------

MIXTURES = {
    "three": ([0.2, 0.5, 0.3], [-3.0, 0.0, 4.0], [0.5, 1.0, 0.3]),
    "far": ([0.5, 0.5], [-8.0, 8.0], [0.5, 0.5]),
    "one": ([1.0], [2.0], [3.0]),
    "uneven": ([1e-4, 1 - 1e-4], [5.0, -1.0], [0.01, 2.0]),
}


def reference(name, x):
    """log F, log (1 − F) and log p by SciPy."""
    weights, means, scales = (torch.tensor(v, dtype=torch.float64) for v in MIXTURES[name])
    parts = stats.norm(means, scales)
    with torch.no_grad():
        x = x.numpy()
        return tuple(
            torch.logsumexp(weights.log() + torch.from_numpy(f(x)), 1)
            for f in (parts.logcdf, parts.logsf, parts.logpdf)
        )


@pytest.mark.parametrize("name", MIXTURES)
def test_the_flow_on_the_line_has_the_density_of_the_mixture(name):
    flow = MixtureCdf(*MIXTURES[name])
    base = Independent(Normal(torch.zeros(1).double(), torch.ones(1).double()), 1)
    x = torch.linspace(-12, 12, 241, dtype=torch.float64)[:, None]
    log_p = reference(name, x)[2]
    torch.testing.assert_close(FlowModel(base, flow).log_prob(x), log_p, atol=1e-10, rtol=1e-12)
    torch.testing.assert_close(flow.log_prob(x), log_p, atol=1e-10, rtol=1e-12)


@pytest.mark.parametrize("name", MIXTURES)
def test_the_map_carries_tails_to_tails(name):
    """Φ(9) is 1 in float64, so that Φ⁻¹(Φ(9)) is infinite: tails are compared by logarithm."""
    flow = MixtureCdf(*MIXTURES[name])
    z = torch.linspace(-30, 30, 121, dtype=torch.float64)[:, None]
    x, log_det = flow(z)
    assert torch.isfinite(x).all()
    assert torch.isfinite(log_det).all()
    assert (x.diff(dim=0) > 0).all()
    log_f, log_s, _ = reference(name, x)
    left = torch.from_numpy(stats.norm.logcdf(z.squeeze(1)))
    right = torch.from_numpy(stats.norm.logsf(z.squeeze(1)))
    error = torch.where(z.squeeze(1) < 0, log_f - left, log_s - right)
    assert (error.abs() <= 1e-9 * (1 + left.abs() + right.abs())).all()


@pytest.mark.parametrize("name", ["three", "one", "uneven"])
def test_the_flow_on_the_line_is_a_bijection(name):
    flow = MixtureCdf(*MIXTURES[name])
    z = 1.5 * torch.randn(64, 1, dtype=torch.float64)
    assert_log_det_is_autograds(flow, z)
    assert_inverse_undoes_forward(flow, z)
    assert torch.autograd.gradcheck(flow, z[:5].requires_grad_())
    assert torch.autograd.gradcheck(flow.inverse, flow(z[:5])[0].detach().requires_grad_())


@pytest.mark.parametrize("log_p", [math.log(0.5), -0.7, -1.0, -10.0, -1e3, -1e6])
def test_the_normal_quantile_of_a_logarithm(log_p):
    z = log_ndtri(torch.tensor(log_p, dtype=torch.float64))
    assert stats.norm.logcdf(z.item()) == pytest.approx(log_p, rel=1e-12, abs=1e-12)


def test_a_reloaded_mixture_is_the_same_to_the_bit():
    flow, fresh = MixtureCdf(*MIXTURES["three"]), MixtureCdf([0.4, 0.3, 0.3], [0, 1, 2], [1, 1, 1])
    fresh.load_state_dict(flow.state_dict())
    x = torch.randn(20, 1, dtype=torch.float64)
    assert torch.equal(flow.inverse(x)[0], fresh.inverse(x)[0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([0.5, 0.6], [0, 1], [1, 1]), "weights must sum to 1, got a sum of 1.1"),
        (([0.5, 0.5], [0, 1], [1, 0]), r"scales must be positive and finite, got \[1.0, 0.0\]"),
        (([1.5, -0.5], [0, 1], [1, 1]), "weights must be positive and finite"),
        (([0.5, 0.5], [0, math.nan], [1, 1]), "means must be finite"),
        (([0.5, 0.5], [0], [1, 1]), r"one shape \(K,\), got \[\(2,\), \(1,\), \(2,\)\]"),
        (([], [], []), "one shape"),
    ],
)
def test_what_is_no_mixture_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        MixtureCdf(*arguments)


def test_weights_in_single_precision_sum_to_one():
    weights = torch.tensor([0.1, 0.2, 0.7])
    flow = MixtureCdf(weights, [0.0, 1.0, 2.0], [1.0, 1.0, 1.0])
    assert flow.weights.sum().item() == pytest.approx(1, abs=1e-15)


def test_single_precision_is_refused_for_its_tails():
    flow = MixtureCdf([1.0], [0.0], [1.0])
    for direction in (flow, flow.inverse):
        with pytest.raises(ValueError, match="float64, got torch.float32"):
            direction(torch.zeros(2, 1))


def test_affine_refuses_no_features():
    with pytest.raises(ValueError, match="dim must be an int of at least 1, got 0"):
        Affine(0)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("means", [[-2.0, 2.0], [0.0, 1.0], [-1.0, 3.0]])
def test_second_derivatives_of_the_mixture_map(means, direction):
    flow = MixtureCdf([0.4, 0.6], means, [1.0, 0.7])
    points = torch.linspace(-1.5, 2, 5, dtype=torch.float64)[:, None].requires_grad_()
    assert torch.autograd.gradgradcheck(getattr(flow, direction), points)
