import math

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal
from torch.nn.functional import softplus

from dgm_course.flows import (
    DiagonalGaussian,
    FlowModel,
    PlanarFlow,
    SylvesterFlow,
    forward_kl,
    reverse_kl,
)
from dgm_course.flows.planar import solve_tanh_equation
from tests.contracts import (
    assert_integrates_to_one,
    assert_inverse_undoes_forward,
    assert_log_det_is_autograds,
)

# name -> a constructor with two features; models with `inverse` are named again below.
BIJECTIONS = {
    "planar-1": lambda: PlanarFlow(2),
    "planar-7": lambda: PlanarFlow(2, 7),
    "planar-5d": lambda: PlanarFlow(5, 4),
    "sylvester-1": lambda: SylvesterFlow(2, 1),
    "sylvester-2": lambda: SylvesterFlow(2, 2, n_layers=5),
    "sylvester-5d": lambda: SylvesterFlow(5, 3, n_layers=4),
}
INVERTIBLE = ("planar-1", "planar-7", "planar-5d")


@pytest.fixture(params=BIJECTIONS)
def bijection(request):
    return strong(BIJECTIONS[request.param]())


@pytest.fixture(params=INVERTIBLE)
def invertible(request):
    return strong(BIJECTIONS[request.param]())


def strong(module, seed=0, scale=1.5):
    """The module in float64 with weights far from the gentle initial ones."""
    torch.manual_seed(seed)
    module.double()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(scale * torch.randn_like(p))
    return module


def noise(dim, n=64):
    return 2 * torch.randn(n, dim, dtype=torch.float64)


# --- properties of every bijection ----------------------------------------------------------


def test_log_det_equals_autograd(bijection):
    assert_log_det_is_autograds(bijection, noise(bijection.dim))


def test_inverse_undoes_forward(invertible):
    assert_inverse_undoes_forward(invertible, noise(invertible.dim, 1000))


@pytest.mark.parametrize("seed", range(3))
def test_density_integrates_to_one(seed):
    flow = strong(PlanarFlow(2, 3), seed, scale=0.8)
    assert_integrates_to_one(FlowModel(DiagonalGaussian(2).double(), flow))


def test_density_at_a_point_is_the_density_that_came_with_the_sample(invertible):
    model = FlowModel(DiagonalGaussian(invertible.dim).double(), invertible)
    x, log_prob = model.rsample_and_log_prob(200)
    torch.testing.assert_close(model.log_prob(x), log_prob, atol=1e-8, rtol=0)


def test_path_runs_from_noise_to_data_and_back(invertible):
    z = noise(invertible.dim)
    path = invertible.path(z)
    assert path.shape == (len(invertible.b) + 1, *z.shape)
    torch.testing.assert_close(path[0], z, atol=0, rtol=0)
    torch.testing.assert_close(path[-1], invertible(z)[0], atol=0, rtol=0)
    torch.testing.assert_close(invertible.inverse_path(path[-1]), path, atol=1e-9, rtol=0)


def test_gradient_through_the_inverse(invertible):
    x = noise(invertible.dim, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: invertible.inverse(x), (x,))


def test_gradient_of_the_inverse_with_respect_to_the_weights():
    flow, x = strong(PlanarFlow(2, 3)), noise(2, 5)
    names = [n for n, _ in flow.named_parameters()]

    def inverse(*weights):
        return torch.func.functional_call(flow, dict(zip(names, weights, strict=True)), (x,))

    flow.forward = flow.inverse  # functional_call calls the module
    weights = tuple(p.detach().clone().requires_grad_() for p in flow.parameters())
    assert torch.autograd.gradcheck(inverse, weights)


@pytest.mark.parametrize("name", BIJECTIONS)
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
        (good.double(), "float32, got torch.float64"),
        (good.long(), "float32, got torch.int64"),
        (good.clone().index_fill_(0, torch.tensor([1]), math.nan), "in 1 of 3 points"),
        (good + math.inf, "in 3 of 3 points"),
    ]:
        with pytest.raises(ValueError, match=words):
            flow(bad)


def test_inverse_checks_its_input_too():
    with pytest.raises(ValueError, match="x must have shape"):
        PlanarFlow(2).inverse(torch.zeros(3, 4))


@pytest.mark.parametrize("args", [(0,), (2, 0), (-1, 3)])
def test_planar_refuses_sizes(args):
    with pytest.raises(ValueError, match="at least 1"):
        PlanarFlow(*args)


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


def test_sylvester_says_that_its_inverse_is_omitted():
    with pytest.raises(NotImplementedError, match="omits its inverse.*reverse_kl"):
        FlowModel(DiagonalGaussian(2), SylvesterFlow(2, 2)).log_prob(torch.zeros(1, 2))


@pytest.mark.parametrize("n_hidden", [0, 3])
def test_sylvester_refuses_more_neurons_than_features(n_hidden):
    with pytest.raises(ValueError, match=f"between 1 and dim = 2, got {n_hidden}"):
        SylvesterFlow(2, n_hidden)


def test_sylvester_refuses_no_layers():
    with pytest.raises(ValueError, match="n_layers must be at least 1, got 0"):
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


def test_base_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"event shape \(2,\), that of the bijection, got \(\)"):
        FlowModel(Normal(torch.zeros(2), torch.ones(2)), PlanarFlow(2))
    with pytest.raises(ValueError, match=r"got \(3,\)"):
        FlowModel(MultivariateNormal(torch.zeros(3), torch.eye(3)), PlanarFlow(2))
