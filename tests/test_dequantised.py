"""Dequantisation: the bound against sums and integrals, and units that cancel."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal
from torch.special import log_ndtr

from dgm_course.data import digits
from dgm_course.flows import (
    Affine,
    Chain,
    CouplingFlow,
    Dequantised,
    FlowModel,
    MixtureCdf,
    Permutation,
    image_orders,
)
from dgm_course.probability import likelihood_row
from dgm_course.training import fit, seed_everything
from tests.contracts import standard_normal, strong


def gaussian_pixel(mean, sd, levels=17, low=0.0, high=1.0):
    """One pixel whose y = n + u is N(mean, sd²), in whatever units the flow has."""
    layer, unit = Affine(1).double(), (high - low) / levels
    with torch.no_grad():
        layer.log_scale.fill_(math.log(sd * unit))
        layer.shift.fill_(low + mean * unit)
    return Dequantised(FlowModel(standard_normal(1), layer), levels, low=low, high=high)


def exact(mean, sd, n):
    """log of the mass of [n, n + 1) under N(mean, sd²), by the nearer tail."""
    a, b = (n.double() - mean) / sd, (n + 1 - mean) / sd
    far, near = (torch.where(a + b < 0, one, -other) for one, other in ((a, b), (b, a)))
    return log_ndtr(near) + torch.log(-torch.expm1(log_ndtr(far) - log_ndtr(near)))


def quadrature(mean, sd, n):
    """∫₀¹ log N(n + u; mean, sd²) du, what the bound is in expectation: a polynomial in u."""
    law = Normal(torch.tensor(mean).double(), torch.tensor(sd).double())
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(4))
    return (law.log_prob(n[:, None] + (nodes + 1) / 2) * weights / 2).sum(1)


@pytest.mark.parametrize(("mean", "sd"), [(8.3, 0.289), (5.0, 2.0), (7.5, 6.0)])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (0.0, 17.0)])
def test_the_bound_in_one_dimension_is_its_quadrature_and_below_the_mass(mean, sd, low, high):
    model = gaussian_pixel(mean, sd, low=low, high=high)
    n = torch.arange(4, 12)
    draws = model.log_prob_bound(n.repeat(20_000)[:, None]).reshape(-1, 8)
    error = draws.std(0) / len(draws) ** 0.5
    expected = quadrature(mean, sd, n)
    assert ((draws.mean(0) - expected).abs() < 4.5 * error).all()
    assert (expected <= exact(mean, sd, n)).all()


def test_the_gap_is_the_textbook_number_of_bits():
    """On the cell in the middle of N(½, σ²): .489 .129 .0155 .001 bits at σ = .2 .289 .5 1."""
    n = torch.tensor([0])
    for sd, expected in [(0.2, 0.489), (0.289, 0.129), (0.5, 0.0155), (1.0, 0.001)]:
        gap = (exact(0.5, sd, n) - quadrature(0.5, sd, n)) / math.log(2)
        assert gap.item() == pytest.approx(expected, abs=5e-4)
    prices = [-quadrature(0.5, sd, n).item() / math.log(2) for sd in (0.28, 12**-0.5, 0.3)]
    assert prices[1] == pytest.approx(0.2546, abs=1e-4)  # of a pixel that is constant, at best
    assert prices[1] == min(prices)


def test_more_draws_tighten_the_bound():
    model, n = gaussian_pixel(8.3, 0.289), torch.full((40_000, 1), 8)
    torch.manual_seed(0)
    means = [model.log_prob_bound(n, k).mean().item() for k in (1, 4, 16)]
    truth = exact(8.3, 0.289, torch.tensor([8])).item()
    assert means[0] < means[1] < means[2] < truth + 0.01
    assert truth - means[2] < (truth - means[0]) / 5


def test_units_leave_the_bits_as_they_are():
    flow = strong(CouplingFlow(4, 3, 8), scale=0.4)
    images = torch.randint(17, (6, 1, 2, 2))
    bits = []
    for low, high in [(0.0, 1.0), (-2.0, 3.0), (0.0, 17.0)]:
        units = Affine(4).double()
        with torch.no_grad():  # the flow itself sees y / 17, whatever the units outside
            units.log_scale.fill_(math.log(high - low))
            units.shift.fill_(low)
        model = Dequantised(
            FlowModel(standard_normal(4), Chain(flow, units)), 17, low=low, high=high
        )
        generator = torch.Generator().manual_seed(0)
        bits.append(model.bits_per_dim(images, generator=generator))
    torch.testing.assert_close(bits[1], bits[0])
    torch.testing.assert_close(bits[2], bits[0])


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_a_uniform_density_costs_log_levels_exactly(levels):
    """Without log₂ levels it would cost 0 bits, and RealNVP's 2.35 would read −1.74."""

    class Cube(torch.nn.Module):
        bijection = Permutation([0, 1, 2])

        def log_prob(self, x):
            return torch.zeros(len(x))

    model = Dequantised(Cube(), levels)
    images = torch.randint(levels, (5, 3))
    torch.testing.assert_close(model.bits_per_dim(images), torch.full((5,), math.log2(levels)))


def test_what_is_drawn_is_the_level_that_the_number_falls_into():
    torch.manual_seed(0)
    model = gaussian_pixel(3.0, 2.0, levels=6, low=-1.0, high=2.0)
    n = model.sample(40_000)
    assert n.shape == (40_000, 1)
    assert n.dtype == torch.int64
    law = Normal(3.0, 2.0)
    edges = torch.tensor([-math.inf, 1, 2, 3, 4, 5, math.inf])  # what lies outside goes to the ends
    shares = law.cdf(edges).diff()
    torch.testing.assert_close(n.flatten().bincount() / len(n), shares, atol=0.01, rtol=0)


def test_noise_stays_in_the_level_that_it_came_from():
    model = gaussian_pixel(3.0, 2.0, levels=6, low=-1.0, high=2.0)
    n = torch.arange(6).repeat(1000)[:, None]
    x = model.dequantise(n)
    assert x.dtype == torch.float64
    assert torch.equal(((x + 1) * 2).floor().long(), n)


def test_a_mixture_on_the_line_is_a_model_of_integers():
    """Its numbers are buffers in float64: the noise is of that type, too."""
    line = MixtureCdf([0.3, 0.7], [4.0, 9.0], [1.0, 2.0])
    model = Dequantised(FlowModel(standard_normal(1), line), 17, low=0, high=17)
    n = torch.arange(17)[:, None]
    assert model.dequantise(n).dtype == torch.float64
    torch.manual_seed(0)
    mass = model.log_prob_bound(n, 100).exp().sum().item()
    assert mass == pytest.approx(1, abs=0.01)


def test_images_and_vectors_of_pixels_are_the_same():
    flow = FlowModel(standard_normal(4), strong(CouplingFlow(4, 3, 8), scale=0.4))
    model, images = Dequantised(flow, 17), torch.randint(17, (6, 1, 2, 2))
    values = [
        model.log_prob_bound(x, 2, torch.Generator().manual_seed(0))
        for x in (images, images.flatten(1), images.to(torch.uint8))
    ]
    assert torch.equal(values[0], values[1])
    assert torch.equal(values[0], values[2])
    row = likelihood_row("flow", model.log_prob_bound, images, levels=17, kind="bound")
    assert row.n_dims == 4


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.full((2, 4), 17), "images must hold integers 0 to 16, got values from 17 to 17"),
        (torch.full((2, 4), -1), "got values from -1 to -1"),
        (torch.zeros(2, 4), "images must hold integers 0 to 16, got dtype torch.float32"),
        (torch.zeros(2, 5).long(), r"with 4 numbers each, got shape \(2, 5\)"),
        (torch.zeros(4).long(), r"with 4 numbers each, got shape \(4,\)"),
        (torch.zeros(2, 1, 3, 3).long(), r"with 4 numbers each, got shape \(2, 1, 3, 3\)"),
        (torch.zeros(0, 4).long(), r"got shape \(0, 4\)"),
    ],
)
def test_what_are_no_such_integers_is_refused(images, words):
    model = Dequantised(FlowModel(standard_normal(4, torch.float32), Affine(4)), 17)
    for method in (model.log_prob_bound, model.bits_per_dim, model.dequantise):
        with pytest.raises(ValueError, match=words):
            method(images)


def test_integers_without_dequantisation_are_refused():
    flow = FlowModel(standard_normal(4, torch.float32), Affine(4))
    with pytest.raises(ValueError, match="float32, got torch.int64"):
        flow.log_prob(torch.zeros(2, 4).long())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"levels": 1}, "levels must be an int of at least 2, got 1"),
        ({"levels": 17.0}, "levels must be an int of at least 2, got 17.0"),
        ({"low": 1.0}, "low must be below high, got 1.0 and 1.0"),
        ({"high": math.inf}, "high must be finite, got inf"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    flow = FlowModel(standard_normal(4, torch.float32), Affine(4))
    with pytest.raises(ValueError, match=words):
        Dequantised(flow, **{"levels": 17} | arguments)


def test_no_draws_are_refused():
    model = Dequantised(FlowModel(standard_normal(4, torch.float32), Affine(4)), 17)
    with pytest.raises(ValueError, match="n_samples must be an int of at least 1, got 0"):
        model.log_prob_bound(torch.zeros(2, 4).long(), 0)


@pytest.mark.slow
def test_a_dense_realnvp_learns_the_digits():
    """2.357 to 2.367 bits over ten seeds; the full Gaussian has 2.94."""
    seed_everything(0)
    images = digits("train").images
    flow = CouplingFlow(64, 8, 128, orders=image_orders(8, 8, 8), dropout=0.2)
    model = Dequantised(FlowModel(standard_normal(64, torch.float32), flow), 17, low=-1, high=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    fit(
        lambda step: -model.log_prob_bound(images[torch.randint(len(images), (128,))]),
        optimizer,
        800,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 800),
        max_grad_norm=50.0,
        progress=False,
    )
    model.eval()
    with torch.no_grad():
        assert model.bits_per_dim(digits("test").images).mean() <= 2.45
