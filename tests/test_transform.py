"""Flows that take numbers of each point: S codes of N points, each bent by its point's layers."""

import math

import pytest
import torch

from dgm_course.flows import AutoregressiveFlow, PlanarFlow, SylvesterFlow
from tests.contracts import strong

FLOWS = {
    "planar": lambda: PlanarFlow(3, 4),
    "planar, one": lambda: PlanarFlow(3),
    "sylvester": lambda: SylvesterFlow(3, 2, n_layers=3),
    "sylvester, whole": lambda: SylvesterFlow(3, 3),
    "autoregressive": lambda: AutoregressiveFlow(3, 2, 8, "noise", n_context=5),
    "autoregressive, written": lambda: AutoregressiveFlow(3, 2, 8, "data", n_context=5),
    "autoregressive, shared": lambda: AutoregressiveFlow(3, 2, 8, "noise"),
}


@pytest.fixture(params=FLOWS)
def layer(request):
    return strong(FLOWS[request.param]())


def codes():
    return torch.randn(2, 5, 3, dtype=torch.float64)


def numbers(layer):
    return torch.randn(5, layer.n_parameters, dtype=torch.float64)


def test_log_det_is_autograds(layer):
    z, given = codes(), numbers(layer)
    x, log_det = layer.transform(z, given)
    assert x.shape == z.shape
    jacobian = torch.autograd.functional.jacobian(
        lambda z: layer.transform(z, given)[0].sum((0, 1)), z
    )  # (D, S, N, D): a code moves with itself only
    expected = torch.linalg.slogdet(jacobian.permute(1, 2, 0, 3)).logabsdet
    torch.testing.assert_close(log_det, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", [name for name in FLOWS if "autoregressive" not in name])
def test_numbers_of_zero_leave_the_layers_as_they_are(name):
    layer, z = strong(FLOWS[name]()), codes()
    x, log_det = layer.transform(z, torch.zeros_like(numbers(layer)))
    expected, expected_log_det = layer(z.flatten(0, 1))
    torch.testing.assert_close(x.flatten(0, 1), expected)
    torch.testing.assert_close(log_det.flatten(), expected_log_det)


def test_numbers_of_an_autoregressive_flow_are_its_context():
    layer = strong(FLOWS["autoregressive"]())
    z, given = codes(), numbers(layer)
    x, log_det = layer.transform(z, given)
    for s in range(2):
        expected, expected_log_det = layer(z[s], given)
        torch.testing.assert_close(x[s], expected)
        torch.testing.assert_close(log_det[s], expected_log_det)


def test_planar_numbers_are_u_w_and_b_of_one_layer_after_the_other():
    layer, one = strong(PlanarFlow(2, 2)), PlanarFlow(2, 2).double()
    numbers = torch.randn(1, 10, dtype=torch.float64)
    with torch.no_grad():
        for i, row in enumerate(numbers[0].split(5)):
            one.u[i] = layer.u[i] + row[:2]
            one.w[i] = layer.w[i] + row[2:4]
            one.b[i] = layer.b[i] + row[4]
    z = torch.randn(6, 1, 2, dtype=torch.float64)
    torch.testing.assert_close(layer.transform(z, numbers)[0][:, 0], one(z[:, 0])[0])


def test_sylvester_numbers_are_added_to_what_each_layer_is_made_of():
    layer, one = strong(SylvesterFlow(3, 2, 2)), SylvesterFlow(3, 2, 2).double()
    numbers = torch.randn(1, layer.n_parameters, dtype=torch.float64)
    with torch.no_grad():
        for i, row in enumerate(numbers[0].chunk(2)):
            parts = row.split([6, 4, 4, 2])
            for name, part in zip(("q", "r", "r_tilde", "b"), parts, strict=True):
                weight = getattr(layer, name)[i]
                getattr(one, name)[i] = weight + part.reshape(weight.shape)
    z = torch.randn(6, 1, 3, dtype=torch.float64)
    torch.testing.assert_close(layer.transform(z, numbers)[0][:, 0], one(z[:, 0])[0])


def test_a_points_numbers_bend_its_own_codes_only(layer):
    z, given = codes(), numbers(layer)
    other = given.clone()
    other[0] += 1
    (x, log_det), (y, other_log_det) = layer.transform(z, given), layer.transform(z, other)
    assert torch.equal(x[:, 1:], y[:, 1:])
    assert torch.equal(log_det[:, 1:], other_log_det[:, 1:])
    assert torch.equal(x[:, 0], y[:, 0]) == (layer.n_parameters == 0)


def test_a_flow_without_numbers_for_the_batch_is_refused(layer):
    z, good, p = codes(), numbers(layer), layer.n_parameters
    for wrong in (good[:1], good[:4], torch.zeros(5, p + 1, dtype=torch.float64), good[0]):
        with pytest.raises(ValueError, match=rf"parameters must have shape \(5, {p}\), a row for"):
            layer.transform(z, wrong)
    with pytest.raises(ValueError, match="parameters must be a torch.Tensor, got NoneType"):
        layer.transform(z, None)
    with pytest.raises(ValueError, match="parameters must have the weights' dtype"):
        layer.transform(z, good.float())
    for wrong in (z[0], z[..., :2], z[:0], z[:, :0]):
        with pytest.raises(ValueError, match=r"z must have shape \(S, N, 3\) with S, N >= 1"):
            layer.transform(wrong, good)
    with pytest.raises(ValueError, match="must be finite"):
        layer.transform(z * math.inf, good)
    if p:
        with pytest.raises(ValueError, match="must be finite"):
            layer.transform(z, good + math.nan)
