"""Autoregressive flows: what each feature sees, and one map that is read in two directions."""

import math
from itertools import permutations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dgm_course.checks import unchecked_values
from dgm_course.flows import AutoregressiveFlow, Bijection, FlowModel, Inverse, Made
from tests.contracts import (
    assert_density_stays,
    assert_inverse_undoes_forward,
    assert_log_det_is_autograds,
    standard_normal,
    strong,
)


def normal(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def seen(function, x):
    """Where an output ``(N, …, D)`` of any of the points depends on an input ``(N, D)``: D × D."""
    jacobian = torch.autograd.functional.jacobian(lambda x: function(x).sum(0), x)  # (…, D, N, D)
    return (jacobian != 0).any(-2).reshape(-1, *jacobian.shape[-3::2]).any(0)


def full_passes(flow, points, context=None):
    """The slow direction as others have it: D full passes of each layer, the last one first."""
    log_det = 0
    for i in reversed(range(len(flow.networks.orders))):
        made, carried = layer(flow, i), torch.zeros_like(points)
        for _ in range(flow.dim):
            shift, s = made(carried, context).unbind(1)
            a = flow.limit * torch.tanh(s / flow.limit)
            carried = points * a.exp() + shift
        points, log_det = carried, log_det + a.sum(1)
    return points, log_det


def layer(flow, i):
    """Layer i's network as a `Made` of its own, whose weights keep their way to the flow's."""
    stack = flow.networks
    made = Made(flow.dim, len(stack.hidden), n_context=stack.n_context).double()

    def outputs(*inputs):
        state = {
            f"networks.{name}": value[i : i + 1]
            for name, value in stack.state_dict(keep_vars=True).items()
        }
        return torch.func.functional_call(made, state, inputs)

    return outputs


def slow(flow):
    return flow if flow.conditioned_on == "data" else flow.inverse


def fast(flow):
    return flow.inverse if flow.conditioned_on == "data" else flow


# --- what each output sees ------------------------------------------------------------------------


@pytest.mark.parametrize("order", [*permutations(range(4))])
def test_outputs_see_what_comes_before_them_in_any_order_and_all_of_it(order):
    made = strong(Made(4, 16, 3, order))
    jacobian = torch.autograd.functional.jacobian(lambda x: made(x).sum(0), normal(50, 4))
    depends = (jacobian != 0).any(2)[..., order][:, order]  # (n_outputs, D, D), as they come
    assert torch.equal(depends, torch.ones(4, 4).tril(-1).bool().expand(3, 4, 4))


@pytest.mark.parametrize(
    ("dim", "n_outputs", "n_context"), [(1, 2, 0), (2, 1, 0), (7, 2, 0), (5, 2, 3)]
)
def test_no_output_sees_its_own_feature_or_a_later_one(dim, n_outputs, n_context):
    made = strong(Made(dim, 24, n_outputs, n_context=n_context))
    context = normal(50, n_context, seed=1) if n_context else None
    depends = seen(lambda x: made(x, context), normal(50, dim))
    assert torch.equal(depends, torch.ones(dim, dim).tril(-1).bool())


@pytest.mark.parametrize("n_context", [0, 2])
@pytest.mark.parametrize("n_hidden", range(1, 11))
def test_every_pair_is_connected_from_a_unit_a_degree_on(n_hidden, n_context):
    """Paths in M₃ M₂ M₁, and autograd says the same: below D − 1 units some pairs are lost."""
    made = strong(Made(8, n_hidden, n_context=n_context), scale=0.7)
    first, second, last = made.masks()
    paths = (last @ second @ first)[:, n_context:]
    assert torch.equal(paths, paths.tril(-1))
    n_needed = 8 if n_context else 7
    lost = 28 - int((paths > 0).sum())
    assert (lost == 0) == (n_hidden >= n_needed)
    if n_hidden == 4 and not n_context:
        assert lost == 3
    with torch.no_grad():  # every unit is on, so that a path is a derivative
        for parameter in made.parameters():
            parameter.abs_()
    context = normal(1, n_context).abs() if n_context else None
    depends = seen(lambda x: made(x, context), normal(1, 8).abs())
    assert torch.equal(depends, paths > 0)


@pytest.mark.parametrize("n_context", [0, 1])
@pytest.mark.parametrize(
    ("dim", "n_hidden"), [(1, 3), (2, 5), (5, 4), (5, 64), (8, 5), (9, 64), (64, 5), (64, 64)]
)
def test_degrees_are_sorted_and_spread_evenly(dim, n_hidden, n_context):
    made = Made(dim, n_hidden, order=torch.arange(dim).flip(0), n_context=n_context)
    features, first, second = made.degrees
    assert features.tolist() == [*range(dim, 0, -1)]
    assert torch.equal(first, second)
    assert first.tolist() == sorted(first.tolist())
    lowest = 0 if n_context else 1
    assert first[0] == lowest
    assert first[-1] <= max(dim - 1, lowest)
    counts = first.bincount(minlength=max(dim, lowest + 1))[lowest:]
    assert counts.max() - counts.min() <= 1
    gaps = first.diff()
    assert n_hidden == 1 or gaps.max() - gaps.min() <= 1


def test_the_order_goes_with_the_state_dict():
    made = strong(Made(4, 9, order=[2, 0, 3, 1]))
    fresh = Made(4, 9).double()
    fresh.load_state_dict(made.state_dict())
    assert torch.equal(fresh(normal(6, 4)), made(normal(6, 4)))


def test_made_is_the_formula():
    made = strong(Made(3, 5, order=[1, 2, 0]))
    w1, b1, w2, b2, w3, b3 = (p[0] for p in made.parameters())
    first, second, last = made.masks()
    x = normal(7, 3)
    h = (x @ (w1 * first).T + b1).relu()
    h = (h @ (w2 * second).T + b2).relu()
    for k in range(2):
        torch.testing.assert_close(made(x)[:, k], h @ (w3[k] * last).T + b3[k])


# --- one map, two directions ----------------------------------------------------------------------


@pytest.mark.parametrize("conditioned_on", ["data", "noise"])
def test_a_layer_is_the_formula_in_what_it_is_conditioned_on(conditioned_on):
    flow = strong(AutoregressiveFlow(5, 1, 8, conditioned_on, limit=1.5), scale=0.7)
    made = Made(5, 8).double()
    made.networks.load_state_dict(flow.networks.state_dict())
    y = normal(7, 5)
    shift, s = made(y).unbind(1)
    a = 1.5 * torch.tanh(s / 1.5)
    carried, log_det = fast(flow)(y)
    torch.testing.assert_close(carried, (y - shift) * (-a).exp())
    torch.testing.assert_close(log_det, -a.sum(1))


@pytest.mark.parametrize(("dim", "n_hidden"), [(1, 4), (2, 8), (5, 3), (6, 16)])
def test_iaf_is_the_inverse_of_maf_with_the_same_state_dict(dim, n_hidden):
    maf = strong(AutoregressiveFlow(dim, 3, n_hidden), scale=0.5)
    iaf = AutoregressiveFlow(dim, 3, n_hidden, "noise").double()
    iaf.load_state_dict(maf.state_dict())
    for flow, other in ((iaf, Inverse(maf)), (Inverse(iaf), maf)):
        for direction in ("forward", "inverse"):
            ours = getattr(flow, direction)(normal(9, dim))
            theirs = getattr(other, direction)(normal(9, dim))
            torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("dim", "n_layers", "n_hidden", "n_context"),
    [
        (1, 2, 4, 0),
        (2, 3, 8, 0),
        (5, 2, 16, 0),
        (6, 2, 3, 0),
        (9, 1, 1, 0),
        (1, 2, 4, 3),
        (5, 2, 16, 2),
        (7, 2, 3, 1),
    ],
)
@pytest.mark.parametrize("conditioned_on", ["data", "noise"])
def test_feature_by_feature_equals_full_passes(dim, n_layers, n_hidden, n_context, conditioned_on):
    """Points and log-dets to 1e-12, and the gradients of points, context and weights."""
    flow = AutoregressiveFlow(dim, n_layers, n_hidden, conditioned_on, n_context=n_context)
    strong(flow, scale=0.5)
    for order in flow.networks.orders:  # any will do, also those that do not undo themselves
        order.copy_(torch.randperm(dim))
    points = normal(6, dim).requires_grad_()
    context = normal(6, n_context, seed=1).requires_grad_() if n_context else None
    given = () if context is None else (context,)
    wanted = [points, *given, *flow.parameters()]
    answers = []
    for carried, log_det in (slow(flow)(points, *given), full_passes(flow, points, *given)):
        loss = (carried * normal(6, dim, seed=2)).sum() + (log_det * normal(6, seed=3)).sum()
        gradients = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
        answers.append((carried, log_det, *gradients))
    for ours, theirs in zip(*answers, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(slow(flow)(points, *given), answers[0][:2], atol=0, rtol=0)


@pytest.mark.parametrize(("dim", "n_hidden"), [(8, 32), (32, 64), (16, 8)])
def test_feature_by_feature_costs_no_more_arithmetic_than_one_pass(dim, n_hidden):
    flow = AutoregressiveFlow(dim, 2, n_hidden)
    counts = []
    for direction in (flow, flow.inverse):
        with FlopCounterMode(display=False) as counter:
            direction(torch.randn(10, dim))
        counts.append(counter.get_total_flops())
    assert 0 < counts[0] <= counts[1]


@pytest.mark.parametrize(("n_layers", "n_seen"), [(1, 15), (2, 25)])
def test_reversed_orders_let_two_layers_see_everything(n_layers, n_seen):
    flow = strong(AutoregressiveFlow(5, n_layers, 32), scale=0.4)
    assert seen(lambda x: flow.inverse(x)[0], normal(30, 5)).sum() == n_seen
    if n_layers == 1:
        assert torch.equal(
            seen(lambda x: flow.inverse(x)[0], normal(30, 5)), torch.ones(5, 5).tril().bool()
        )


@pytest.mark.parametrize("conditioned_on", ["data", "noise"])
@pytest.mark.parametrize("n_context", [0, 2])
def test_a_fresh_flow_is_the_identity(conditioned_on, n_context):
    flow = AutoregressiveFlow(5, 4, 8, conditioned_on, n_context=n_context)
    given = (torch.randn(7, n_context),) if n_context else ()
    z = torch.randn(7, 5)
    for direction in (flow, flow.inverse):
        carried, log_det = direction(z, *given)
        assert torch.equal(carried, z)
        assert torch.equal(log_det, torch.zeros(7))


def test_one_feature_is_stretched_and_shifted():
    flow = strong(AutoregressiveFlow(1, 1, 4), scale=0.7)
    shift, s = flow.networks.b3.flatten().tolist()
    a = 3 * math.tanh(s / 3)
    z = normal(9, 1)
    x, log_det = flow(z)
    torch.testing.assert_close(x, z * math.exp(a) + shift)
    torch.testing.assert_close(log_det, torch.full((9,), a, dtype=torch.float64))


# --- context --------------------------------------------------------------------------------------


class Given(Bijection):
    """A flow with one context for all points: the properties of every bijection hold of it."""

    def __init__(self, flow, context):
        super().__init__()
        self.dim, self.flow, self.context = flow.dim, flow, context

    def forward(self, z):
        return self.flow(z, self.context.expand(len(z), -1))

    def inverse(self, x):
        return self.flow.inverse(x, self.context.expand(len(x), -1))


@pytest.mark.parametrize("conditioned_on", ["data", "noise"])
@pytest.mark.parametrize(("dim", "n_hidden"), [(1, 4), (2, 8), (5, 3)])
def test_with_a_context_it_is_a_bijection(dim, n_hidden, conditioned_on):
    flow = AutoregressiveFlow(dim, 2, n_hidden, conditioned_on, n_context=3)
    flow = Given(strong(flow, scale=0.7), normal(3))
    assert_log_det_is_autograds(flow, normal(20, dim, seed=4))
    assert_inverse_undoes_forward(flow, normal(20, dim, seed=4))
    assert_density_stays(flow, normal(20, dim, seed=4))


@pytest.mark.parametrize("n_hidden", [1, 3, 16])
def test_every_output_sees_the_whole_context(n_hidden):
    """nflows' first feature does not: no hidden unit may lead to it, the context's neither."""
    made = strong(Made(5, n_hidden, order=[3, 1, 0, 4, 2], n_context=2))
    with torch.no_grad():  # every unit is on
        for parameter in made.parameters():
            parameter.abs_()
    x = normal(4, 5).abs()
    jacobian = torch.autograd.functional.jacobian(lambda c: made(x, c), normal(4, 2).abs())
    depends = jacobian != 0  # (N, n_outputs, D, N, n_context)
    own = torch.eye(4).bool()[:, None, None, :, None]
    assert torch.equal(depends, own.expand_as(depends)), "a point sees its own context, no other"


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("conditioned_on", ["data", "noise"])
def test_an_overflow_is_refused_and_not_returned(conditioned_on):
    """limit bounds a; μ grows from feature to feature, here past the largest float32."""
    flow = strong(AutoregressiveFlow(256, 1, 256, conditioned_on), scale=2.0).float()
    y = torch.randn(6, 256)
    with pytest.raises(ValueError, match="[zx] or weights must be smaller: 6 of 6 overflow"):
        slow(flow)(y)
    with pytest.raises(ValueError, match="[zx] or weights must be smaller: 1 of 6 overflow"):
        fast(flow)(y.index_fill(0, torch.tensor([2]), 3e38))
    assert fast(flow)(y)[0].isfinite().all()
    with unchecked_values():  # in training the loss tells
        assert not slow(flow)(y)[0].isfinite().all()


@pytest.mark.parametrize("conditioned_on", ["data", "noise"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("n_context", [0, 2])
def test_models_work_in_the_dtype_and_on_the_device_of_their_weights(
    conditioned_on, dtype, n_context
):
    flow = AutoregressiveFlow(3, 2, 8, conditioned_on, n_context=n_context)
    flow.to("meta", dtype)  # where a tensor made on the CPU would raise
    points = torch.empty(4, 3, dtype=dtype, device="meta")
    given = (torch.empty(4, n_context, dtype=dtype, device="meta"),) if n_context else ()
    with unchecked_values():
        for direction in (flow, flow.inverse):
            carried, log_det = direction(points, *given)
            assert (carried.shape, log_det.shape) == ((4, 3), (4,))
            assert {carried.dtype, log_det.dtype} == {dtype}
            assert carried.device.type == log_det.device.type == "meta"


@pytest.mark.parametrize("conditioned_on", ["data", "noise"])
def test_maximum_likelihood_finds_a_correlated_gaussian(conditioned_on):
    """Its entropy is the closed form; one affine layer has it in the family."""
    torch.manual_seed(0)
    factor = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [-0.5, 0.5, 0.3]])
    flow = AutoregressiveFlow(3, 1, 16, conditioned_on)
    model = FlowModel(standard_normal(3, torch.float32), flow)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        (-model.log_prob(torch.randn(256, 3) @ factor.T)).mean().backward()
        optimizer.step()
    x = torch.randn(20_000, 3) @ factor.T
    truth = torch.distributions.MultivariateNormal(torch.zeros(3), scale_tril=factor).log_prob(x)
    assert (truth - model.log_prob(x)).mean() < 0.03


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Made(0, 4), "dim must be an int of at least 1, got 0"),
        (lambda: Made(3, 0), "n_hidden must be an int of at least 1, got 0"),
        (lambda: Made(3, 4, 0), "n_outputs must be an int of at least 1, got 0"),
        (lambda: Made(3, 4, n_context=-1), "n_context must be an int of at least 0, got -1"),
        (lambda: Made(3, 4, order=[0, 1, 1]), r"each of 0 to D - 1 once, got .*\[0, 1, 1\]"),
        (lambda: Made(3, 4, order=[1, 2, 3]), r"each of 0 to D - 1 once, got .*\[1, 2, 3\]"),
        (lambda: Made(3, 4, order=[0, -1, 1]), "each of 0 to D - 1 once"),
        (lambda: Made(3, 4, order=[1, 0]), "order must hold dim = 3 features, got 2"),
        (lambda: Made(3, 4, order=[[0, 1, 2]]), r"order must hold .* got shape \(1, 3\)"),
        (lambda: Made(3, 4, order=[]), "order must hold"),
        (lambda: Made(3, 4)(torch.zeros(2, 4)), r"x must have shape \(N, 3\), got shape \(2, 4\)"),
        (lambda: Made(3, 4)(torch.zeros(2, 3).double()), "float32, got torch.float64"),
        (lambda: Made(3, 4)(torch.zeros(2, 3).long()), "float32, got torch.int64"),
        (lambda: Made(3, 4)(torch.full((2, 3), math.nan)), "x must be finite"),
        (lambda: Made(3, 4)(torch.zeros(0, 3)), "x must hold at least one point"),
        (lambda: AutoregressiveFlow(0), "dim must be an int of at least 1, got 0"),
        (lambda: AutoregressiveFlow(2, 0), "n_layers must be an int of at least 1, got 0"),
        (lambda: AutoregressiveFlow(2, 1, 0), "n_hidden must be an int of at least 1, got 0"),
        (lambda: AutoregressiveFlow(2, 1, 4, "both"), "'data' or 'noise', got 'both'"),
        (lambda: AutoregressiveFlow(2, 1, 4, ["data"]), r"'data' or 'noise', got \['data'\]"),
        (lambda: AutoregressiveFlow(2, limit=0.0), "limit must be positive and finite, got 0.0"),
        (lambda: AutoregressiveFlow(2, limit=math.inf), "limit must be positive and finite"),
        (lambda: AutoregressiveFlow(2, n_context=-1), "n_context must be an int of at least 0"),
        (lambda: AutoregressiveFlow(2, n_context=1.5), "n_context must be an int of at least 0"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("conditioned_on", ["data", "noise"])
@pytest.mark.parametrize(
    ("n_context", "context", "words"),
    [
        (0, torch.zeros(3, 2), "context must be None if n_context = 0, .*, got Tensor"),
        (2, None, "context must be None if n_context = 0, and only then, got NoneType"),
        (2, torch.zeros(3, 1), r"context must have shape \(N, 2\), got shape \(3, 1\)"),
        (2, torch.zeros(2), r"context must have shape \(N, 2\), got shape \(2,\)"),
        (2, torch.zeros(1, 2), "context must have 3 rows, got 1"),
        (2, torch.zeros(3, 2).double(), "context must have the dtype .* got torch.float64"),
        (2, torch.full((3, 2), math.inf), "context must be finite, got NaN or inf in 3 of 3"),
        (2, [[0.0, 0.0]] * 3, "context must be a torch.Tensor, got list"),
    ],
)
def test_a_bad_context_is_refused(conditioned_on, n_context, context, words):
    flow = AutoregressiveFlow(2, 2, 4, conditioned_on, n_context=n_context)
    for call in (flow, flow.inverse, Made(2, 4, n_context=n_context)):
        with pytest.raises(ValueError, match=words):
            call(torch.zeros(3, 2), context)
