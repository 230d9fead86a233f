"""The properties that every model of a family must have, each against an independent oracle.

A family's test module holds a table ``name -> constructor`` and runs every property over it.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from dgm_course.flows import Bijection, FlowModel, Inverse, SylvesterFlow
from dgm_course.plots import grid_points

Module = TypeVar("Module", bound=nn.Module)


def strong(module: Module, seed: int = 0, scale: float = 1.5) -> Module:
    """The module in float64 with weights far from the gentle initial ones."""
    torch.manual_seed(seed)
    module.double()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(scale * torch.randn_like(p))
    return module


def standard_normal(dim: int, dtype: torch.dtype = torch.float64) -> Independent:
    """N(0, I) in D dimensions."""
    return Independent(Normal(torch.zeros(dim, dtype=dtype), torch.ones(dim, dtype=dtype)), 1)


def assert_log_det_is_autograds(
    bijection: Bijection, z: Tensor, atol: float = 1e-10, sign: int = 1
) -> None:
    """Both log|det| equal slogdet of the Jacobian that autograd builds, point by point.

    The determinant's sign is 1 unless the layer is known to mirror space.
    """
    directions = [bijection]
    if not isinstance(bijection, SylvesterFlow):  # which omits its inverse
        directions.append(Inverse(bijection))
    for g in directions:
        image, log_det = g(z)
        # Each point moves its own image only: the batch's sum has every point's Jacobian in it.
        jacobian = torch.autograd.functional.jacobian(lambda z, g=g: g(z)[0].sum(0), z)  # (D, N, D)
        signs, expected = torch.linalg.slogdet(jacobian.transpose(0, 1))
        assert (signs == sign).all(), f"the Jacobian's determinant must have the sign {sign}"
        assert log_det.shape == (len(z),)
        torch.testing.assert_close(log_det, expected, atol=atol, rtol=0)
        z = image.detach()


def assert_inverse_undoes_forward(bijection: Bijection, z: Tensor, atol: float = 1e-9) -> None:
    """f(g(z)) = z, and the two log-dets add up to 0."""
    x, log_det = bijection(z)
    back, inverse_log_det = bijection.inverse(x)
    torch.testing.assert_close(back, z, atol=atol, rtol=0)
    torch.testing.assert_close(inverse_log_det, -log_det, atol=atol, rtol=0)


def assert_state_is_whole(flow: Bijection, fresh: Bijection, x: Tensor) -> None:
    """Another flow that loads the state dict gives the same to the bit, in both directions."""
    fresh.load_state_dict(flow.state_dict())
    for direction in ("inverse", "forward"):
        ours, theirs = getattr(flow, direction)(x), getattr(fresh, direction)(x)
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one, other)


def assert_density_stays(flow: Bijection, x: Tensor, atol: float = 1e-11) -> None:
    """Neither sampling, nor ``eval``, nor the other points of a batch change a density."""
    model = FlowModel(standard_normal(flow.dim), flow)
    before = model.log_prob(x)
    model.sample(3)
    assert torch.equal(model.log_prob(x), before)
    model.eval()
    assert torch.equal(model.log_prob(x), before)
    one_by_one = torch.cat([model.log_prob(point) for point in x.split(1)])
    torch.testing.assert_close(one_by_one, before, atol=atol, rtol=1e-12)


def assert_integrates_to_one(
    model: FlowModel, extent: float = 12.0, atol: float = 1e-3, n: int = 400
) -> None:
    """A two-dimensional density's sum over a grid of n² points is 1."""
    x = torch.from_numpy(grid_points(extent, n)).to(next(model.parameters()).dtype)
    mass = model.log_prob(x).exp().sum().item() * (2 * extent / n) ** 2
    assert abs(mass - 1) < atol, f"the density integrates to {mass:.4f}"
