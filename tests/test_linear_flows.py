"""Linear flows: what LU and QR reach, and that training finds the best of it."""

import math

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal

from dgm_course.flows import FlowModel, LuFlow, QrFlow, forward_kl
from dgm_course.training import fit
from tests.contracts import strong


def rotation(degrees):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)


def rotating(degrees):
    """The LuFlow without row exchanges whose W is a rotation: pivot cos θ, L₂₁ = tan θ."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    flow = LuFlow(2).double()
    with torch.no_grad():
        packed = [[[math.log(c), -s / c], [s / c, -math.log(c)]]]
        flow.plu.packed.copy_(torch.tensor(packed, dtype=torch.float64))
    return flow


@pytest.mark.parametrize("flow", [LuFlow(4, 3), QrFlow(4, 3)], ids=["lu", "qr"])
def test_data_to_noise_multiplies_by_the_weight(flow):
    flow = strong(flow, scale=0.7)
    x = torch.randn(6, 4, dtype=torch.float64)
    expected = x
    for weight, shift in zip(flow.weight().flip(0), flow.shift.flip(0), strict=True):
        expected = (expected - shift) @ weight.T
    z, log_det = flow.inverse(x)
    torch.testing.assert_close(z, expected)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(flow.weight())[1].sum().expand(6))


def test_the_weight_is_p_l_u():
    """A sub-diagonal that is left open (triu(−1), one repository) makes the log-det wrong."""
    flow = strong(LuFlow(4, 2), scale=0.7)
    lower, upper = flow.plu.factors()
    torch.testing.assert_close(lower, lower.tril())
    torch.testing.assert_close(upper, upper.triu())
    assert (lower.diagonal(dim1=1, dim2=2) == 1).all()
    assert (upper.diagonal(dim1=1, dim2=2) > 0).all()
    torch.testing.assert_close(flow.weight(), lower @ upper)  # P = I as it is made


@pytest.mark.parametrize("n_layers", [1, 3])
def test_a_given_weight_is_taken_with_its_rows_and_signs(n_layers):
    torch.manual_seed(0)
    weight = torch.randn(n_layers, 5, 5, dtype=torch.float64)
    flow = LuFlow(5, n_layers, weight)
    torch.testing.assert_close(flow.weight(), weight)
    sign = flow.plu.sign.prod() * torch.linalg.det(torch.eye(5)[flow.plu.order]).prod()
    torch.testing.assert_close(sign, torch.linalg.slogdet(weight)[0].prod().to(sign))
    minus = LuFlow(2, weight=-torch.eye(2))  # signs are buffers, so −I can be given, not learned
    torch.testing.assert_close(minus.weight()[0], -torch.eye(2))


@pytest.mark.parametrize("dim", [2, 3, 4])
def test_positive_diagonals_leave_most_matrices_out_of_reach(dim):
    """With P = I a share of 2^−D has positive pivots; −I has none for any P."""
    torch.manual_seed(0)
    matrices = torch.randn(20_000, dim, dim, dtype=torch.float64)
    minors = torch.stack([torch.linalg.det(matrices[:, :k, :k]) for k in range(1, dim + 1)])
    share = (minors > 0).all(0).double().mean().item()
    assert share == pytest.approx(2**-dim, abs=4 * (2**-dim / 20_000) ** 0.5)
    for order in (torch.arange(dim), torch.arange(dim).flip(0)):
        first_pivot = -torch.eye(dim)[order][0, 0]
        assert first_pivot <= 0


@pytest.mark.parametrize("degrees", [30.0, 89.9])
def test_a_rotation_near_a_right_angle_has_finite_gradients(degrees):
    flow = rotating(degrees)
    torch.testing.assert_close(flow.weight()[0], rotation(degrees))
    lower, upper = flow.plu.factors()
    assert lower[0, 1, 0].item() == pytest.approx(math.tan(math.radians(degrees)))
    assert upper[0, 0, 0].item() == pytest.approx(math.cos(math.radians(degrees)))
    if degrees == 89.9:
        assert lower[0, 1, 0].item() == pytest.approx(573, abs=0.1)
    z = torch.randn(8, 2, dtype=torch.float64, requires_grad=True)
    for direction in (flow, flow.inverse):
        image, log_det = direction(z)
        (image.square().sum() + log_det.sum()).backward()
        torch.testing.assert_close(log_det, torch.zeros_like(log_det), atol=1e-12, rtol=0)
        assert torch.isfinite(z.grad).all()
        assert all(torch.isfinite(p.grad).all() for p in flow.parameters())


# --- QR ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_reflections", [1, 2, 3, 4, 5, None])
def test_the_sign_of_qr_is_that_of_its_number_of_reflections(n_reflections):
    flow = strong(QrFlow(5, n_reflections))
    q, r = flow.factors()
    torch.testing.assert_close(q.T @ q, torch.eye(5, dtype=torch.float64))
    torch.testing.assert_close(r, r.triu())
    assert (r.diagonal() > 0).all()
    sign = torch.linalg.slogdet(flow.weight()[0])[0]
    assert sign == (-1) ** (5 if n_reflections is None else n_reflections)


def test_one_feature_is_enough():
    for flow in (LuFlow(1), LuFlow(1, 2), QrFlow(1)):
        z = torch.randn(4, 1)
        torch.testing.assert_close(flow.inverse(flow(z)[0])[0], z)
    assert QrFlow(1).weight().item() == -1


# --- the best Gaussian -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [LuFlow, QrFlow])
def test_maximum_likelihood_reaches_the_full_gaussian(kind):
    """A linear map of N(0, I) is any Gaussian: the best has the data's own mean and covariance."""
    torch.manual_seed(0)
    root = torch.tensor([[1.0, 0, 0], [0.8, 0.6, 0], [-0.5, 0.5, 0.5]], dtype=torch.float64)
    x = torch.randn(400, 3, dtype=torch.float64) @ root.T + torch.tensor([1.0, -2.0, 0.5])
    centred = x - x.mean(0)
    best = MultivariateNormal(x.mean(0), centred.T @ centred / len(x)).log_prob(x).mean()
    closed_form = -1.5 * (1 + math.log(2 * math.pi)) - 0.5 * torch.logdet(centred.T @ centred / 400)
    torch.testing.assert_close(best, closed_form)
    base = Independent(Normal(torch.zeros(3).double(), torch.ones(3).double()), 1)
    model = FlowModel(base, kind(3).double())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    fit(
        lambda step: forward_kl(model, x),
        optimizer,
        300,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300),
        progress=False,
    )
    gap = (best - model.log_prob(x).mean()).item()
    assert -1e-9 < gap < 1e-3


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LuFlow(0), "dim must be an int of at least 1, got 0"),
        (lambda: LuFlow(2, 0), "n_layers must be an int of at least 1, got 0"),
        (lambda: LuFlow(2, weight=torch.eye(3)), r"weight must have shape \(1, 2, 2\), got"),
        (lambda: LuFlow(2, 2, torch.eye(2)), r"\(2, 2, 2\), got \(1, 2, 2\)"),
        (lambda: LuFlow(2, weight=torch.ones(2, 2)), "weight must hold invertible matrices"),
        (lambda: QrFlow(0), "dim must be an int of at least 1, got 0"),
        (lambda: QrFlow(3, 0), "n_reflections must be an int of at least 1, got 0"),
        (lambda: QrFlow(3, 4), "n_reflections must be at most 3, got 4"),
    ],
)
def test_bad_arguments_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
