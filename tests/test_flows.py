import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal
from torch.nn.functional import softplus

from dgm_course.flows import (
    Affine,
    AutoregressiveFlow,
    Bijection,
    Chain,
    CouplingFlow,
    DiagonalGaussian,
    FlowModel,
    Inverse,
    LuFlow,
    Permutation,
    PlanarFlow,
    QrFlow,
    SylvesterFlow,
    forward_kl,
    reverse_kl,
)
from dgm_course.flows.planar import TanhRoot, solve_tanh_equation
from tests.contracts import (
    assert_density_stays,
    assert_integrates_to_one,
    assert_inverse_undoes_forward,
    assert_log_det_is_autograds,
    assert_state_is_whole,
    strong,
)

# name -> a constructor; those of two features have their density integrated, too.
BIJECTIONS = {
    "planar-1": lambda: PlanarFlow(2),
    "planar-7": lambda: PlanarFlow(2, 7),
    "planar-5d": lambda: PlanarFlow(5, 4),
    "sylvester-1": lambda: SylvesterFlow(2, 1),
    "sylvester-2": lambda: SylvesterFlow(2, 2, n_layers=5),
    "sylvester-5d": lambda: SylvesterFlow(5, 3, n_layers=4),
    "affine": lambda: Affine(2),
    "affine-1d": lambda: Affine(1),
    "coupling-1": lambda: CouplingFlow(2, 1, 8),
    "coupling-4": lambda: CouplingFlow(2, 4, 8),
    "coupling-3d": lambda: CouplingFlow(3, 3, 8),
    "coupling-5d-1": lambda: CouplingFlow(5, 3, 8, n_kept=1),
    "coupling-5d-4": lambda: CouplingFlow(5, 2, 8, n_kept=4),
    "coupling-orders": lambda: CouplingFlow(
        4, 3, 8, orders=[[3, 1, 0, 2], [0, 1, 2, 3], [1, 3, 2, 0]]
    ),
    "additive": lambda: CouplingFlow(2, 3, 8, law="additive"),
    "additive-5d": lambda: CouplingFlow(5, 3, 8, law="additive", n_kept=4),
    "nice": lambda: Chain(Affine(2), CouplingFlow(2, 3, 8, law="additive")),
    "lu": lambda: LuFlow(2),
    "lu-3": lambda: LuFlow(2, 3),
    "lu-1d": lambda: LuFlow(1),
    "lu-5d": lambda: LuFlow(5, 2),
    "lu-given": lambda: LuFlow(3, weight=torch.tensor([[0, -2, 0], [0, 0, 1], [-1.0, 0, 0]])),
    "qr": lambda: QrFlow(2),
    "qr-1d": lambda: QrFlow(1),
    "qr-odd": lambda: QrFlow(2, 1),
    "qr-5d": lambda: QrFlow(5, 3),
    "maf": lambda: AutoregressiveFlow(2, 3, 4),
    "maf-1d": lambda: AutoregressiveFlow(1, 2, 4),
    "maf-5d": lambda: AutoregressiveFlow(5, 2, 9),
    "maf-narrow": lambda: AutoregressiveFlow(5, 2, 2),
    "iaf": lambda: AutoregressiveFlow(2, 3, 4, "noise"),
    "iaf-1d": lambda: AutoregressiveFlow(1, 2, 4, "noise"),
    "iaf-5d": lambda: AutoregressiveFlow(5, 2, 9, "noise"),
    "permutation": lambda: Permutation([2, 0, 1]),
    "inverse": lambda: Inverse(CouplingFlow(3, 2, 8)),
    "chain": lambda: Chain(PlanarFlow(2, 2), Permutation([1, 0]), LuFlow(2), CouplingFlow(2, 2, 8)),
}
INVERTIBLE = tuple(name for name in BIJECTIONS if not name.startswith("sylvester"))
WITH_PATH = ("planar-1", "planar-7", "planar-5d") + tuple(
    name for name in BIJECTIONS if name.startswith(("coupling", "additive"))
)
PLANE = tuple(name for name in INVERTIBLE if BIJECTIONS[name]().dim == 2)
# The same weights' shapes with other buffers: what a state dict without them would leave.
UNLIKE = {
    "lu-given": lambda: LuFlow(3),
    "permutation": lambda: Permutation([0, 1, 2]),
    "coupling-orders": lambda: CouplingFlow(4, 3, 8, orders=[[0, 1, 2, 3]] * 3),
}
# Those that turn space inside out: their determinant is negative.
MIRRORS = ("qr-1d", "qr-odd", "qr-5d", "chain")
FAR = (*MIRRORS, "permutation", "lu-given")  # from the identity, as they are made


def strong_flow(name, **how):
    """A flow of the table with strong weights: of stacked networks, those that rounding allows."""
    gentle = name not in ("planar-1", "planar-7", "planar-5d") and "sylvester" not in name
    return strong(BIJECTIONS[name](), **({"scale": 0.8} if gentle else {}) | how)


@pytest.fixture(params=BIJECTIONS)
def bijection(request):
    return strong_flow(request.param)


@pytest.fixture(params=INVERTIBLE)
def invertible(request):
    return strong_flow(request.param)


def noise(dim, n=64):
    return 2 * torch.randn(n, dim, dtype=torch.float64)


# --- properties of every bijection ----------------------------------------------------------


@pytest.mark.parametrize("name", BIJECTIONS)
def test_log_det_equals_autograd(name):
    flow = strong_flow(name)
    assert_log_det_is_autograds(flow, noise(flow.dim), sign=-1 if name in MIRRORS else 1)


def test_inverse_undoes_forward(invertible):
    assert_inverse_undoes_forward(invertible, noise(invertible.dim, 1000))


@pytest.mark.parametrize("seed", range(3))
def test_density_integrates_to_one(seed):
    flow = strong(PlanarFlow(2, 3), seed, scale=0.8)
    assert_integrates_to_one(FlowModel(DiagonalGaussian(2).double(), flow))


@pytest.mark.parametrize("name", PLANE)
def test_every_density_in_the_plane_integrates_to_one(name):
    model = FlowModel(DiagonalGaussian(2).double(), strong_flow(name, scale=0.4))
    assert_integrates_to_one(model, extent=1.5 * model.sample(10_000).abs().max().item())


def test_density_at_a_point_is_the_density_that_came_with_the_sample(invertible):
    model = FlowModel(DiagonalGaussian(invertible.dim).double(), invertible)
    x, log_prob = model.rsample_and_log_prob(200)
    torch.testing.assert_close(model.log_prob(x), log_prob, atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", WITH_PATH)
def test_path_runs_from_noise_to_data_and_back(name):
    flow = strong_flow(name)
    z = noise(flow.dim)
    path = flow.path(z)
    n_layers = len(flow.b if isinstance(flow, PlanarFlow) else flow.b1)
    assert path.shape == (n_layers + 1, *z.shape)
    torch.testing.assert_close(path[0], z, atol=0, rtol=0)
    torch.testing.assert_close(path[-1], flow(z)[0], atol=0, rtol=0)
    torch.testing.assert_close(flow.inverse_path(path[-1]), path, atol=1e-9, rtol=0)


def test_gradient_through_the_inverse(invertible):
    x = noise(invertible.dim, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: invertible.inverse(x), (x,))


@pytest.mark.parametrize("name", ["planar-7", "coupling-1", "lu-3", "qr", "maf", "iaf"])
def test_gradient_of_the_inverse_with_respect_to_the_weights(name):
    flow, x = strong_flow(name), noise(2, 5)
    names = [n for n, _ in flow.named_parameters()]

    def inverse(*weights):
        return torch.func.functional_call(flow, dict(zip(names, weights, strict=True)), (x,))

    flow.forward = flow.inverse  # functional_call calls the module
    weights = tuple(p.detach().clone().requires_grad_() for p in flow.parameters())
    assert torch.autograd.gradcheck(inverse, weights)


@pytest.mark.parametrize("name", [n for n in BIJECTIONS if n not in FAR])
def test_starts_near_the_identity(name):
    torch.manual_seed(0)
    flow = BIJECTIONS[name]()
    z = torch.randn(1000, flow.dim)
    x, log_det = flow(z)
    assert (x - z).square().mean().sqrt() < 1.0
    assert log_det.abs().mean() < 1.0


@pytest.mark.parametrize("name", BIJECTIONS)
def test_bad_input_is_refused(name):
    flow = BIJECTIONS[name]()
    good = torch.zeros(3, flow.dim)
    for bad, words in [
        (torch.zeros(3, flow.dim + 1), rf"\(N, {flow.dim}\), got shape \(3, {flow.dim + 1}\)"),
        (torch.zeros(flow.dim), r"got shape"),
        (good[:0], "empty batch"),
        (good.clone().index_fill_(0, torch.tensor([1]), math.nan), "in 1 of 3 points"),
        (good + math.inf, "in 3 of 3 points"),
    ]:
        for direction in (flow, flow.inverse) if name in INVERTIBLE else (flow,):
            with pytest.raises(ValueError, match=words):
                direction(bad)
    if [*flow.parameters()]:  # a permutation moves numbers of any kind
        for bad in (good.double(), good.long()):
            with pytest.raises(ValueError, match=f"float32, got {bad.dtype}"):
                flow(bad)


def test_an_array_is_refused():
    with pytest.raises(ValueError, match="must be a torch.Tensor, got ndarray"):
        PlanarFlow(2)(np.zeros((3, 2), dtype=np.float32))


def test_a_bijection_without_weights_checks_its_input():
    class Swap(Bijection):
        dim = 2

        def forward(self, z):
            self.check(z, "z")
            return z.flip(1), torch.zeros(len(z))

        inverse = forward

    x, _ = Swap()(torch.tensor([[1.0, 2.0]]))
    torch.testing.assert_close(x, torch.tensor([[2.0, 1.0]]))
    with pytest.raises(ValueError, match="z must have shape"):
        Swap()(torch.zeros(1, 3))


def test_inverse_checks_its_input_too():
    with pytest.raises(ValueError, match="x must have shape"):
        PlanarFlow(2).inverse(torch.zeros(3, 4))


@pytest.mark.parametrize("args", [(0,), (2, 0), (-1, 3)])
def test_planar_refuses_sizes(args):
    with pytest.raises(ValueError, match="at least 1"):
        PlanarFlow(*args)


# --- what a state dict and a training mode must not change -------------------------------------


@pytest.mark.parametrize("name", INVERTIBLE)
def test_a_fresh_flow_with_the_state_dict_gives_the_same_to_the_bit(name):
    """With P, signs and orders that are no buffers, outputs differed by 1.85 (two repositories)."""
    flow = strong_flow(name)
    torch.manual_seed(5)  # what the fresh one draws is not what the first drew
    fresh = UNLIKE.get(name, BIJECTIONS[name])().double()
    assert_state_is_whole(flow, fresh, noise(flow.dim))


@pytest.mark.parametrize("name", INVERTIBLE)
def test_neither_eval_nor_sampling_nor_other_points_change_a_density(name):
    flow = strong_flow(name)
    assert_density_stays(flow, noise(flow.dim, 20))


# --- planar ---------------------------------------------------------------------------------


def test_planar_layer_is_the_formula():
    flow = strong(PlanarFlow(3))
    z = noise(3)
    u, w, b = flow.u[0], flow.w[0], flow.b[0]
    wu = w @ u
    u_hat = u + (softplus(wu) - 1 - wu) * w / (w @ w)
    expected = z + torch.tanh(z @ w + b)[:, None] * u_hat
    torch.testing.assert_close(flow(z)[0], expected)


@pytest.mark.parametrize("norm", [0.1, 0.5, 1.0, 3.0])
def test_u_hat_divides_by_the_squared_norm(norm):
    """Divided by ‖w‖, wᵀû equals softplus(wᵀu) − 1 at ‖w‖ = 1 only (four repositories' bug)."""
    flow = strong(PlanarFlow(2, 50))
    with torch.no_grad():
        flow.w.mul_(norm / flow.w.norm(dim=1, keepdim=True))
    u_hat, slope = flow.invertible_parameters()
    wu_hat = (flow.w * u_hat).sum(1)
    torch.testing.assert_close(wu_hat, softplus((flow.w * flow.u).sum(1)) - 1)
    torch.testing.assert_close(slope, 1 + wu_hat)
    assert (wu_hat > -1).all()


@pytest.mark.parametrize("wu", [-20.0, -200.0, 1e3])
def test_log_det_stays_finite_where_subtraction_would_not(wu):
    """In float32 softplus(−20) − 1 is −1: 1 + wᵀû by subtraction is 0, its log −∞."""
    flow = PlanarFlow(2)
    with torch.no_grad():
        flow.w.copy_(torch.tensor([[1.0, 0.0]]))
        flow.u.copy_(torch.tensor([[wu, 0.5]]))
        flow.b.zero_()
    z = torch.zeros(1, 2, requires_grad=True)
    _, log_det = flow(z)
    log_det.sum().backward()
    if wu == -20.0:
        assert log_det.item() == pytest.approx(-20.0, abs=1e-5)
    assert torch.isfinite(log_det).all()
    assert all(torch.isfinite(p.grad).all() for p in flow.parameters())


def set_planar(flow, w, u, b=0.0):
    with torch.no_grad():
        flow.w.copy_(torch.tensor([w]))
        flow.u.copy_(torch.tensor([u]))
        flow.b.fill_(b)
    return flow


@pytest.mark.parametrize("wu", [-200.0, -20.0, 0.0, 1e3, 1e5])
def test_u_hat_in_float32_is_that_in_float64(wu):
    weights = [1.5, 0.0], [wu / 1.5, 0.5]
    single, _ = set_planar(PlanarFlow(2), *weights).invertible_parameters()
    double, _ = set_planar(PlanarFlow(2).double(), *weights).invertible_parameters()
    torch.testing.assert_close(single.double(), double, rtol=1e-6, atol=1e-6 * max(1, abs(wu)))


@pytest.mark.parametrize("wu", [-200.0, -20.0, 0.0, 1e3, 1e5])
def test_image_and_gradients_stay_finite_for_extreme_weights(wu):
    flow = set_planar(PlanarFlow(2), [1.5, 0.0], [wu / 1.5, 0.5], 0.3)
    x, log_det = flow(torch.tensor([[0.2, 0.1]]))
    (x.sum() + log_det.sum()).backward()
    assert torch.isfinite(x).all()
    assert all(torch.isfinite(p.grad).all() for p in flow.parameters())


@pytest.mark.parametrize("norm", [1e-6, 1e-10, 1e-15, 1e-20, 0.0])
def test_gradients_stay_finite_for_a_short_w(norm):
    flow = set_planar(PlanarFlow(2), [norm, 0.0], [0.5, 0.5], 0.3)
    x, log_det = flow(torch.tensor([[0.2, 0.1], [-1.0, 2.0]]))
    (x.sum() + log_det.sum()).backward()
    assert torch.isfinite(x).all()
    assert all(torch.isfinite(p.grad).all() for p in flow.parameters())


@pytest.mark.parametrize("norm", [1e-3, 1e-2])
def test_a_short_w_is_not_yet_taken_for_zero(norm):
    flow = set_planar(PlanarFlow(2), [norm, 0.0], [0.5, 0.5])
    u_hat, slope = flow.invertible_parameters()
    torch.testing.assert_close((flow.w * u_hat).sum(1), slope - 1)


def test_every_planar_layer_starts_near_the_identity():
    torch.manual_seed(0)
    u_hat, slope = PlanarFlow(3, 500).invertible_parameters()
    assert (slope - 1).abs().mean() < 0.08
    assert u_hat.norm(dim=1).mean() < 0.25


def test_w_zero_is_a_shift():
    flow = PlanarFlow(2, 2).double()
    with torch.no_grad():
        flow.w[0].zero_()
    z = noise(2, 7)
    assert_log_det_is_autograds(flow, z)
    assert_inverse_undoes_forward(flow, z)
    flow(z)[1].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in flow.parameters())


@pytest.mark.parametrize("slope", [1e-12, 1e-6, 0.1, 1.0, 1.001, 3.0, 1e4])
def test_newton_residual(slope):
    r = torch.cat([torch.linspace(-20, 20, 2001), torch.tensor([0.0, 1e-12, -1e-6, 1e3])])
    r, slope = r.double(), torch.tensor(slope, dtype=torch.float64)
    t = solve_tanh_equation(r, slope)
    assert (t + (slope - 1) * torch.tanh(t) - r).abs().max() < 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_newton_at_the_smallest_slope(dtype):
    slope = torch.tensor(torch.finfo(dtype).tiny, dtype=dtype)
    r = torch.linspace(-3, 3, 101, dtype=dtype)
    t = solve_tanh_equation(r, slope)
    residual = t + (slope - 1) * torch.tanh(t) - r
    assert residual.abs().max() < 100 * torch.finfo(dtype).eps


def test_newton_stops_when_it_has_converged(monkeypatch):
    tanh, calls = torch.tanh, []
    monkeypatch.setattr(torch, "tanh", lambda t: calls.append(t) or tanh(t))
    r = torch.linspace(-5, 5, 101, dtype=torch.float64)
    solve_tanh_equation(r, torch.tensor(2.0, dtype=torch.float64))
    assert 0 < len(calls) <= 10


def test_newton_agrees_with_bisection():
    r, slope = torch.linspace(-5, 5, 101, dtype=torch.float64), torch.tensor(0.02).double()
    low, high = r - 1, r + 1
    for _ in range(80):
        middle = (low + high) / 2
        above = middle + (slope - 1) * torch.tanh(middle) > r
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    torch.testing.assert_close(solve_tanh_equation(r, slope), low, atol=1e-9, rtol=0)


# --- Sylvester ------------------------------------------------------------------------------


def test_sylvester_with_one_neuron_is_planar():
    sylvester, planar = strong(SylvesterFlow(3, 1)), PlanarFlow(3).double()
    a, b, _ = sylvester.matrices()
    w, u_hat = b[0, 0], a[0, :, 0]
    # u with m(wᵀu) = wᵀû, along w, is what PlanarFlow turns back into û.
    wu = torch.log(torch.expm1(1 + w @ u_hat))
    with torch.no_grad():
        planar.w[0], planar.b[0] = w, sylvester.b[0, 0]
        planar.u[0] = u_hat + (wu - w @ u_hat) * w / (w @ w)
    z = noise(3)
    for ours, theirs in zip(sylvester(z), planar(z), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_sylvester_factors_are_upper_triangular():
    flow = strong(SylvesterFlow(4, 3))
    a, b, slope = flow.matrices()
    q, _ = torch.linalg.qr(flow.q)
    r, r_tilde = q.mT @ a, b @ q
    torch.testing.assert_close(r, r.triu())
    torch.testing.assert_close(r_tilde, r_tilde.triu())
    diagonal = r_tilde.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(diagonal, flow.r_tilde.diagonal(dim1=1, dim2=2).exp())
    torch.testing.assert_close(1 + r.diagonal(dim1=1, dim2=2) * diagonal, slope)


def test_sylvester_says_that_its_inverse_is_omitted():
    with pytest.raises(NotImplementedError, match="omits its inverse.*reverse_kl"):
        FlowModel(DiagonalGaussian(2), SylvesterFlow(2, 2)).log_prob(torch.zeros(1, 2))


@pytest.mark.parametrize("n_hidden", [0, 3])
def test_sylvester_refuses_more_neurons_than_features(n_hidden):
    with pytest.raises(
        ValueError, match=f"n_hidden must be (an int of at least 1|at most 2), got {n_hidden}"
    ):
        SylvesterFlow(2, n_hidden)


def test_sylvester_log_det_stays_finite_where_softplus_underflows():
    """At z = 0, b = 0 the log-det is log softplus(ρ): log 0 in float32 for ρ below −104."""
    flow = SylvesterFlow(2, 2)
    with torch.no_grad():
        flow.r.copy_(torch.diag(torch.tensor([-200.0, 1.0])))
        flow.r_tilde.zero_()
        flow.b.zero_()
    x, log_det = flow(torch.zeros(1, 2))
    log_det.sum().backward()
    assert torch.isfinite(x).all()
    assert torch.isfinite(log_det).all()
    assert all(torch.isfinite(p.grad).all() for p in flow.parameters())


def test_sylvester_refuses_no_layers():
    with pytest.raises(ValueError, match="n_layers must be an int of at least 1, got 0"):
        SylvesterFlow(2, 2, 0)


# --- the model and its divergences ----------------------------------------------------------


def shifted_gaussian(mean):
    return Independent(Normal(torch.tensor(mean).double(), torch.ones(2).double()), 1)


def identity_flow():
    """û = 0 exactly: the flow whose divergences have closed forms."""
    flow = PlanarFlow(2).double()
    with torch.no_grad():
        flow.w.copy_(torch.tensor([[1.0, 0.0]]))
        flow.u.copy_(torch.tensor([[math.log(math.e - 1), 0.0]]))
    return flow


def test_reverse_kl_is_the_closed_form_for_gaussians():
    torch.manual_seed(0)
    model = FlowModel(DiagonalGaussian(2).double(), identity_flow())
    target = shifted_gaussian([0.5, -1.0])
    values = reverse_kl(model, target.log_prob, 200_000).detach()
    error = values.std() / len(values) ** 0.5
    assert (values.mean() - 0.625).abs() < 4 * error  # ½‖μ‖²


def test_reverse_kl_is_the_difference_of_log_densities_at_the_same_samples():
    model = FlowModel(DiagonalGaussian(2).double(), strong(PlanarFlow(2, 3)))
    target = shifted_gaussian([0.5, -1.0])
    torch.manual_seed(0)
    values = reverse_kl(model, target.log_prob, 100, beta=0.7)
    torch.manual_seed(0)
    x, log_prob = model.rsample_and_log_prob(100)
    torch.testing.assert_close(values, log_prob - 0.7 * target.log_prob(x))


def test_gradient_of_reverse_kl_is_the_closed_form():
    torch.manual_seed(0)
    base = DiagonalGaussian(2).double()
    model = FlowModel(base, identity_flow())
    reverse_kl(model, shifted_gaussian([0.5, -1.0]).log_prob, 100_000).mean().backward()
    expected = torch.tensor([-0.5, 1.0], dtype=torch.float64)  # at mean 0: minus the target's
    torch.testing.assert_close(base.mean.grad, expected, atol=0.02, rtol=0)


def test_reverse_kl_refuses_a_target_that_would_broadcast():
    model = FlowModel(DiagonalGaussian(2), PlanarFlow(2))
    with pytest.raises(ValueError, match=r"log_target .*\(5,\).*\(5, 1\)"):
        reverse_kl(model, lambda x: x.sum(1, keepdim=True), 5)


def test_reverse_kl_weighs_the_target_by_beta():
    torch.manual_seed(0)
    model = FlowModel(DiagonalGaussian(2).double(), identity_flow())
    values = reverse_kl(model, lambda x: torch.full((len(x),), 2.0).double(), 50_000, beta=0.25)
    entropy = 1 + math.log(2 * math.pi)
    assert values.mean().item() == pytest.approx(-entropy - 0.5, abs=0.03)


def test_forward_kl_is_cross_entropy():
    torch.manual_seed(0)
    model = FlowModel(DiagonalGaussian(2).double(), identity_flow())
    x = shifted_gaussian([0.5, -1.0]).sample((200_000,))
    values = forward_kl(model, x).detach()
    entropy = 1 + math.log(2 * math.pi)
    error = values.std() / len(values) ** 0.5
    assert (values.mean() - entropy - 0.625).abs() < 4 * error


@pytest.mark.parametrize("loss", ["forward", "reverse"])
def test_per_example_and_differentiable(loss):
    model = FlowModel(DiagonalGaussian(2).double(), strong(PlanarFlow(2, 3)))
    values = (
        forward_kl(model, noise(2, 9))
        if loss == "forward"
        else reverse_kl(model, shifted_gaussian([0.0, 0.0]).log_prob, 9)
    )
    assert values.shape == (9,)
    values.mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_learned_base_is_a_parameter_and_a_fixed_one_is_not():
    learned = FlowModel(DiagonalGaussian(2), PlanarFlow(2))
    fixed = FlowModel(Independent(Normal(torch.zeros(2), torch.ones(2)), 1), PlanarFlow(2))
    assert len(list(learned.parameters())) == 5
    assert len(list(fixed.parameters())) == 3
    assert not fixed.sample(4).requires_grad
    assert fixed.sample(4).shape == (4, 2)


def test_sample_is_the_image_of_the_base():
    model = FlowModel(DiagonalGaussian(2).double(), strong(PlanarFlow(2, 3)))
    torch.manual_seed(1)
    x = model.sample(5)
    torch.manual_seed(1)
    torch.testing.assert_close(x, model.bijection(model.base.sample((5,)))[0])
    torch.manual_seed(1)
    torch.testing.assert_close(x, model.rsample_and_log_prob(5)[0])
    assert not x.requires_grad


def test_learned_base_has_its_mean_and_scale():
    base = DiagonalGaussian(2)
    with torch.no_grad():
        base.mean.fill_(3.0)
        base.log_scale.fill_(-math.log(2))
    torch.testing.assert_close(base().mean, torch.full((2,), 3.0))
    torch.testing.assert_close(base().stddev, torch.full((2,), 0.5))


def test_an_attribute_that_a_learned_base_lacks_is_not_taken_for_the_models():
    class Broken(nn.Module):
        def forward(self):
            return self.missing

    with pytest.raises(RuntimeError, match="Broken.*missing"):
        FlowModel(Broken(), PlanarFlow(2))


def test_base_with_a_batch_shape_is_refused():
    base = Independent(Normal(torch.zeros(4, 2), torch.ones(4, 2)), 1)
    with pytest.raises(ValueError, match=r"batch shape .*\(4,\)"):
        FlowModel(base, PlanarFlow(2))


def test_base_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"event shape \(2,\), .* got \(2,\) and \(\)"):
        FlowModel(Normal(torch.zeros(2), torch.ones(2)), PlanarFlow(2))
    with pytest.raises(ValueError, match=r"got \(\) and \(3,\)"):
        FlowModel(MultivariateNormal(torch.zeros(3), torch.eye(3)), PlanarFlow(2))


# --- derivatives of the inverse -------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("slope", [0.05, 0.9, 4.0])
def test_the_root_has_derivatives_of_every_order(slope):
    r = torch.linspace(-2, 2, 5, dtype=torch.float64, requires_grad=True)
    slope = torch.tensor(slope, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(TanhRoot.apply, (r, slope), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(TanhRoot.apply, (r, slope))

    def second(r):
        (first,) = torch.autograd.grad(TanhRoot.apply(r, slope).sum(), r, create_graph=True)
        return torch.autograd.grad(first.sum(), r, create_graph=True)[0]

    assert torch.autograd.gradcheck(second, r)  # the third


@pytest.mark.parametrize("name", INVERTIBLE)
def test_second_derivatives_through_a_flow_and_its_inverse(name):
    flow = strong(BIJECTIONS[name](), scale=0.7)
    x = torch.randn(2, flow.dim, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(flow, x)
    assert torch.autograd.gradgradcheck(flow.inverse, x)


def test_the_inverse_bends_as_the_map_says():
    """f(g(z)) = z, differentiated twice: f″ = −g″ / g′³."""
    flow, z = strong(PlanarFlow(1, 3)), torch.tensor([[0.4]], dtype=torch.float64)

    def derivatives(map_, at):
        first = lambda t: torch.func.grad(lambda t: map_(t[None, None])[0].sum())(t)  # noqa: E731
        return first(at), torch.func.grad(first)(at)

    g1, g2 = derivatives(flow, z[0, 0])
    f1, f2 = derivatives(flow.inverse, flow(z)[0][0, 0])
    torch.testing.assert_close(f1, 1 / g1)
    torch.testing.assert_close(f2, -g2 / g1**3)
