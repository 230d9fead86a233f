"""The two-dimensional data: energies and ln Z against closed forms, samplers against densities."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from dgm_course.data import (
    ENERGIES,
    checkerboard,
    correlated_gaussian,
    eight_gaussians,
    eight_gaussians_density,
    energy,
    gaussian_grid,
    gaussian_grid_density,
    log_normaliser,
    pinwheel,
    spirals,
    two_moons,
    two_moons_log_prob,
)
from dgm_course.data.toy import as_generator

# --- energies -------------------------------------------------------------------------------


def density(name: str, z1: np.ndarray, z2: np.ndarray, *, wall: bool) -> np.ndarray:
    """exp(−U), copied from table 1 of the paper as it stands there."""
    w1 = np.sin(2 * np.pi * z1 / 4)
    w2 = 3 * np.exp(-0.5 * ((z1 - 1) / 0.6) ** 2)
    w3 = 3 / (1 + np.exp(-(z1 - 1) / 0.3))

    def bump(d: np.ndarray, scale: float) -> np.ndarray:
        return np.exp(-0.5 * (d / scale) ** 2)

    if name == "U1":
        return bump(np.hypot(z1, z2) - 2, 0.4) * (bump(z1 - 2, 0.6) + bump(z1 + 2, 0.6))
    value = {
        "U2": bump(z2 - w1, 0.4),
        "U3": bump(z2 - w1, 0.35) + bump(z2 - w1 + w2, 0.35),
        "U4": bump(z2 - w1, 0.4) + bump(z2 - w1 + w3, 0.35),
    }[name]
    return value * np.exp(-10 * np.maximum(np.abs(z1) - 4, 0) ** 2) if wall else value


@pytest.mark.parametrize("wall", [True, False])
@pytest.mark.parametrize("name", ENERGIES)
def test_energy_equals_the_table(name: str, wall: bool) -> None:
    z = torch.cartesian_prod(*2 * [torch.linspace(-4.5, 4.5, 91, dtype=torch.float64)])
    expected = density(name, *z.T.numpy(), wall=wall)
    np.testing.assert_allclose(torch.exp(-energy(name, z, wall=wall)), expected, rtol=1e-12)
    # Single precision loses digits of an energy of some hundred nats.
    in_float32 = energy(name, z.float(), wall=wall)
    torch.testing.assert_close(
        in_float32.double(), energy(name, z, wall=wall), atol=1e-3, rtol=1e-5
    )


@pytest.mark.parametrize("name", ["U2", "U3", "U4"])
def test_the_wall_stands_beyond_four_only(name: str) -> None:
    z = torch.tensor([[-4.0, 0.5], [0.0, 1.0], [4.0, -1.0], [-4.5, 0.5], [5.0, 0.0]])
    height = energy(name, z) - energy(name, z, wall=False)
    torch.testing.assert_close(height, torch.tensor([0, 0, 0, 2.5, 10]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ENERGIES)
def test_energy_and_gradient_stay_finite_far_out(name: str, dtype: torch.dtype) -> None:
    far = [[100.0, 0.0], [0.0, 100.0], [-1e3, 1e3], [1e4, 1e4], [0.0, -1e4], [1e-3, 0.0]]
    z = torch.tensor(far, dtype=dtype, requires_grad=True)
    u = energy(name, z)
    u.sum().backward()
    assert z.grad is not None
    assert torch.isfinite(u).all()
    assert torch.isfinite(z.grad).all()
    assert (u[:5] > 1e3).all()


@pytest.mark.parametrize("name", ENERGIES)
def test_energy_takes_each_point_by_itself(name: str) -> None:
    z = torch.randn(7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one_by_one = torch.cat([energy(name, point[None]) for point in z])
    torch.testing.assert_close(energy(name, z), one_by_one)
    assert energy(name, z[:0]).shape == (0,)


@pytest.mark.parametrize("shape", [(2,), (3, 3), (3, 1), (2, 3, 2)])
def test_energy_rejects_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"z must have shape \(N, 2\) and a floating dtype, got"):
        energy("U1", torch.zeros(shape))


@pytest.mark.parametrize("function", [log_normaliser, lambda name: energy(name, torch.zeros(1, 2))])
def test_another_name_is_rejected(function: Callable[[str], object]) -> None:
    with pytest.raises(ValueError, match="name must be one of U1, U2, U3, U4, got 'U5'"):
        function("U5")


# --- ln Z -------------------------------------------------------------------------------------

# ∫ exp(−U) dz₂ over the line does not depend on z₁: it is the sum of the bumps' areas.
AREA = {
    "U2": 0.4 * math.sqrt(2 * math.pi),
    "U3": (0.35 + 0.35) * math.sqrt(2 * math.pi),
    "U4": (0.4 + 0.35) * math.sqrt(2 * math.pi),
}


def gauss_legendre(name: str, *, box: float, wall: bool) -> float:
    """ln Z on [−box, box]² by another rule: 80 panels of 6 nodes a side, edges on the wall's."""
    nodes, weights = np.polynomial.legendre.leggauss(6)
    edges = np.linspace(-box, box, 81)
    half = np.diff(edges)[:, None] / 2
    ticks = ((edges[:-1, None] + edges[1:, None]) / 2 + half * nodes).ravel()
    weight = (half * weights).ravel()
    z1, z2 = np.meshgrid(ticks, ticks, indexing="ij")
    return math.log(weight @ density(name, z1, z2, wall=wall) @ weight)


@pytest.mark.parametrize("name", ["U2", "U3", "U4"])
def test_log_normaliser_of_a_walled_energy_is_its_closed_form(name: str) -> None:
    """8 between the walls, and ∫ exp(−10 t²) dt = √(π/10) / 2 behind each."""
    expected = math.log(AREA[name] * (8 + math.sqrt(math.pi / 10)))
    assert log_normaliser(name) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "value", "digits"),
    [("U1", 1.8775, 4), ("U2", 2.1498, 4), ("U3", 2.7094, 4), ("U4", 2.7784, 4)],
)
def test_log_normaliser_on_the_plane_is_the_reference_value(
    name: str, value: float, digits: int
) -> None:
    assert log_normaliser(name) == pytest.approx(value, abs=0.51 * 10**-digits)


@pytest.mark.parametrize(
    ("name", "value", "digits"),
    [("U1", 1.8775, 4), ("U2", 2.082, 3), ("U3", 2.642, 3), ("U4", 2.685, 3)],
)
def test_log_normaliser_on_a_box_is_the_reference_value(
    name: str, value: float, digits: int
) -> None:
    found = log_normaliser(name, wall=False, box=4.0)
    assert found == pytest.approx(value, abs=0.51 * 10**-digits)
    assert log_normaliser(name, box=4.0) == pytest.approx(found, abs=1e-12)  # the wall is outside


@pytest.mark.parametrize("box", [4.0, 8.0])
@pytest.mark.parametrize("wall", [True, False])
@pytest.mark.parametrize("name", ENERGIES)
def test_log_normaliser_equals_another_quadrature(name: str, wall: bool, box: float) -> None:
    """Within 1e-5: the midpoint rule's step is 0.016 on the larger box, and the box cuts bumps."""
    expected = gauss_legendre(name, box=box, wall=wall)
    assert log_normaliser(name, wall=wall, box=box) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["U2", "U3", "U4"])
def test_without_a_wall_log_normaliser_grows_with_the_box(name: str) -> None:
    """∫ = 2 · box · area, once the box is wide enough for z₂."""
    for box in (8.0, 12.0, 16.0):
        expected = math.log(2 * box * AREA[name])
        assert log_normaliser(name, wall=False, box=box) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match=f"{name} without its wall has no integral over the plane"):
        log_normaliser(name, wall=False)


def test_the_first_energy_needs_no_wall() -> None:
    assert log_normaliser("U1", wall=False) == log_normaliser("U1")


# --- densities with samples -------------------------------------------------------------------

N = 20_000


def test_the_decks_gaussian_has_correlation_0_8_at_45_degrees() -> None:
    toy = correlated_gaussian(angle=math.pi / 4)
    torch.testing.assert_close(toy.mean, torch.tensor([2.0, 3.0]))
    torch.testing.assert_close(toy.covariance_matrix, torch.tensor([[5.0, 4.0], [4.0, 5.0]]))
    straight = correlated_gaussian()
    torch.testing.assert_close(straight.covariance_matrix, torch.tensor([[9.0, 0.0], [0.0, 1.0]]))


@pytest.mark.parametrize("angle", [0.3, -1.0, math.pi / 2])
def test_the_gaussian_turns_anticlockwise(angle: float) -> None:
    """The direction (cos, sin) of the angle is an axis, with the first scale."""
    covariance = correlated_gaussian(scales=(2.0, 0.5), angle=angle).covariance_matrix
    axis = torch.tensor([math.cos(angle), math.sin(angle)])
    torch.testing.assert_close(covariance @ axis, 4 * axis)
    torch.testing.assert_close(covariance.det(), torch.tensor(1.0))


@pytest.mark.parametrize("scales", [(0.0, 1.0), (1.0, -1.0)])
def test_the_gaussian_rejects_scales(scales: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="scales must be positive and finite, got"):
        correlated_gaussian(scales=scales)


def board(width: float, n: int) -> tuple[Tensor, float]:
    """Midpoints of n² cells of [−width, width]² and the area of a cell."""
    step = 2 * width / n
    ticks = torch.linspace(-width + step / 2, width - step / 2, n)
    return torch.cartesian_prod(ticks, ticks), step**2


@pytest.mark.parametrize(("radius", "scale"), [(2.0, 0.2), (1.0, 0.5)])
def test_eight_gaussians_draws_from_its_density(radius: float, scale: float) -> None:
    """Averages over the draws equal integrals against the density, within 4 standard errors."""
    p = eight_gaussians_density(radius, scale)
    grid, cell = board(radius + 6 * scale, 600)
    log_p = p.log_prob(grid).double()
    mass = log_p.exp() * cell
    assert mass.sum().item() == pytest.approx(1, abs=1e-5)
    x = eight_gaussians(N, 0, radius=radius, scale=scale)
    assert x.shape == (N, 2)
    for f in (
        lambda x: p.log_prob(x),  # its mean is minus the entropy
        lambda x: x[:, 0],
        lambda x: x[:, 0] * x[:, 1],
        lambda x: x[:, 0] ** 2,
        lambda x: (x[:, 1] > 0.5 * radius).float(),
        lambda x: torch.sin(8 * torch.atan2(x[:, 1], x[:, 0])),  # where on the circle
    ):
        expected = (mass * f(grid).double()).sum()
        values = f(x).double()
        assert abs(values.mean() - expected) < 4 * values.std() / N**0.5 + 1e-5


def test_checkerboard_is_uniform_on_its_dark_squares() -> None:
    x = checkerboard(N, 0)
    assert x.shape == (N, 2)
    assert x.abs().max() <= 2
    square = x.floor().long()
    assert (square.sum(1) % 2 == 0).all()
    counts = torch.bincount(4 * (square[:, 0] + 2) + square[:, 1] + 2, minlength=16).double()
    dark = counts[counts > 0]
    assert len(dark) == 8
    # χ² with 7 degrees of freedom stays below 24.3 with probability 0.999.
    assert ((dark - N / 8) ** 2 / (N / 8)).sum() < 24.3
    within = (x - square).double()  # uniform on the unit square: mean 1/2, variance 1/12
    assert ((within.mean(0) - 1 / 2).abs() < 4 / (12 * N) ** 0.5).all()
    assert ((within.var(0) - 1 / 12).abs() < 4 / (180 * N) ** 0.5).all()


def test_two_moons_without_blur_are_two_half_circles() -> None:
    x = two_moons(N, 0, scale=0.0).double()
    upper, lower = x - torch.tensor([-0.5, -0.25]), x - torch.tensor([0.5, 0.25])
    on_upper = ((upper.norm(dim=1) - 1).abs() < 1e-5) & (upper[:, 1] > -1e-5)
    on_lower = ((lower.norm(dim=1) - 1).abs() < 1e-5) & (lower[:, 1] < 1e-5)
    assert (on_upper ^ on_lower).all()
    assert abs(on_upper.double().mean() - 0.5) < 4 * 0.5 / N**0.5
    # The blur alone: the variances add.
    blurred = two_moons(N, 1, scale=0.3).double()
    assert ((blurred.var(0) - x.var(0) - 0.09).abs() < 0.05).all()


def moons_by_gauss_legendre(x: Tensor, scale: float) -> Tensor:
    """ln ∫ N(x; arc(t), scale² I) dt / π over both moons, by 2000 nodes on each."""
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(2000))
    arc = torch.polar(torch.ones_like(nodes), math.pi * (nodes + 1) / 2)
    arcs = torch.stack([arc - (0.5 + 0.25j), -arc + (0.5 + 0.25j)])  # (2, nodes)
    squared = (torch.view_as_complex(x)[:, None, None] - arcs).abs() ** 2
    log_normal = -squared / (2 * scale**2) - math.log(2 * math.pi * scale**2)
    return torch.logsumexp((weights / 4).log() + log_normal, (1, 2))


@pytest.mark.parametrize("scale", [0.05, 0.1, 0.3])
def test_two_moons_log_prob_equals_another_quadrature(scale: float) -> None:
    x = two_moons(500, 2, scale=scale).double()
    error = (two_moons_log_prob(x, scale=scale) - moons_by_gauss_legendre(x, scale)).abs()
    assert error.max() < 1e-9
    in_float32 = two_moons_log_prob(x.float(), scale=scale)
    assert in_float32.dtype == torch.float32
    assert (in_float32 - two_moons_log_prob(x, scale=scale)).abs().max() < 1e-3


def test_narrower_moons_are_refused() -> None:
    with pytest.raises(ValueError, match="scale must be at least 0.05, got 0.02"):
        two_moons_log_prob(torch.zeros(1, 2), scale=0.02)


def test_two_moons_draws_from_its_density() -> None:
    """The density has mass 1, and averages over the draws are within 4 standard errors."""
    grid, cell = board(3.0, 150)
    mass = two_moons_log_prob(grid).double().exp() * cell
    assert mass.sum().item() == pytest.approx(1, abs=1e-4)
    x = two_moons(N, 3)
    for f in (
        lambda x: two_moons_log_prob(x),
        lambda x: x[:, 0],
        lambda x: x[:, 1],
        lambda x: x[:, 0] * x[:, 1],
        lambda x: x[:, 0] ** 2,
        lambda x: x[:, 0] ** 2 * x[:, 1],
    ):
        expected = (mass * f(grid).double()).sum()
        values = f(x).double()
        assert abs(values.mean() - expected) < 4 * values.std() / N**0.5 + 1e-4


def test_pinwheel_untwisted_has_straight_arms() -> None:
    """Turned back by 2π / 5 as often as it takes, every arm lies along the first axis."""
    x = pinwheel(N, 0, arms=5, twist=0.0).double() / 2
    arm = (torch.atan2(x[:, 1], x[:, 0]) / (2 * math.pi / 5)).round()
    # Draws near the centre can be nearer to another arm: look at the others.
    far = x.norm(dim=1) > 0.5
    back = -arm * 2 * math.pi / 5
    along = x[:, 0] * back.cos() - x[:, 1] * back.sin()
    across = x[:, 0] * back.sin() + x[:, 1] * back.cos()
    n = int(far.sum())
    assert n > 0.9 * N
    assert abs(across[far].std() - 0.05) < 4 * 0.05 / (2 * n) ** 0.5
    # N(1, 0.3²) cut at 0.5: mean 1 + 0.3 φ(5/3) / Φ(5/3).
    expected = 1 + 0.3 * 0.0994771 / 0.9522096
    assert abs(along[far].mean() - expected) < 4 * 0.3 / n**0.5 + 1e-3
    counts = torch.bincount((arm[far] % 5).long()).double()
    assert ((counts - n / 5) ** 2 / (n / 5)).sum() < 18.5  # χ² with 4 degrees, 0.999


def test_pinwheel_twists_by_the_exponential_of_the_radius() -> None:
    """The same seed, twisted and not: each point has turned by twist · eʳ, r along its arm."""
    straight = pinwheel(1000, 0, arms=1, twist=0.0).double()
    twisted = pinwheel(1000, 0, arms=1, twist=0.25).double()
    torch.testing.assert_close(straight.norm(dim=1), twisted.norm(dim=1), atol=1e-5, rtol=0)
    angle = 0.25 * (straight[:, 0] / 2).exp()
    c, s = angle.cos(), angle.sin()
    turned = torch.stack(
        [c * straight[:, 0] - s * straight[:, 1], s * straight[:, 0] + c * straight[:, 1]], 1
    )
    torch.testing.assert_close(turned, twisted, atol=1e-5, rtol=0)


def test_spirals_without_blur_are_two_arms_of_archimedes() -> None:
    """At radius 2.5 u the angle is 2π · turns · u, or half a turn on."""
    x = spirals(N, 0, turns=1.5, scale=0.0).double()
    radius = x.norm(dim=1)
    assert 2.45 < radius.max() <= 2.5 + 1e-5
    angle = 2 * math.pi * 1.5 * radius / 2.5
    unit = torch.stack([angle.cos(), angle.sin()], 1)
    side = (x * unit).sum(1) / radius
    torch.testing.assert_close(side.abs(), torch.ones(N, dtype=torch.float64), atol=1e-4, rtol=0)
    assert abs(side.mean()) < 4 / N**0.5


# --- seeds ------------------------------------------------------------------------------------

SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "eight_gaussians": eight_gaussians,
    "gaussian_grid": gaussian_grid,
    "checkerboard": checkerboard,
    "two_moons": two_moons,
    "pinwheel": pinwheel,
    "spirals": spirals,
}
samplers = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)


@samplers
def test_the_same_seed_gives_the_same_data(sampler: Callable[..., Tensor]) -> None:
    x = sampler(100, 5)
    assert x.shape == (100, 2)
    assert x.dtype == torch.float32
    assert torch.isfinite(x).all()
    torch.manual_seed(1)
    assert torch.equal(x, sampler(100, 5))
    assert not torch.equal(x, sampler(100, 6))


@samplers
def test_a_generator_moves_on(sampler: Callable[..., Tensor]) -> None:
    generator = torch.Generator().manual_seed(5)
    first, second = sampler(100, generator), sampler(100, generator)
    assert torch.equal(first, sampler(100, 5))
    assert not torch.equal(first, second)


@samplers
def test_the_global_generator_is_left_alone(sampler: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    sampler(10, 5)
    assert torch.equal(torch.rand(3), expected)


@samplers
@pytest.mark.parametrize("seed", [True, 1.0, None, "1"])
def test_a_seed_is_an_integer_or_a_generator(sampler: Callable[..., Tensor], seed: object) -> None:
    message = f"seed must be an int or a torch.Generator, got {type(seed).__name__}"
    with pytest.raises(ValueError, match=message):
        sampler(10, seed)


@samplers
@pytest.mark.parametrize("n", [0, -1])
def test_no_points_are_rejected(sampler: Callable[..., Tensor], n: int) -> None:
    with pytest.raises(ValueError, match=f"n must be an int of at least 1, got {n}"):
        sampler(n, 0)


def test_as_generator_passes_a_generator_through() -> None:
    generator = torch.Generator()
    assert as_generator(generator) is generator
    assert as_generator(3).initial_seed() == 3


# --- the grid of Gaussians ----------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 3.0, 4.0]])
def test_the_grid_draws_from_its_density(weights: list[float] | None) -> None:
    p = gaussian_grid_density(2, 1.5, 0.3, weights)
    grid, cell = board(3.0, 400)
    mass = p.log_prob(grid).double().exp() * cell
    assert mass.sum().item() == pytest.approx(1, abs=1e-5)
    x = gaussian_grid(N, 0, side=2, spacing=1.5, scale=0.3, weights=weights)
    for f in (
        lambda x: p.log_prob(x),
        lambda x: x[:, 0],
        lambda x: x[:, 1],
        lambda x: x[:, 0] * x[:, 1],
        lambda x: x[:, 0] ** 2,
    ):
        expected = (mass * f(grid).double()).sum()
        values = f(x).double()
        assert abs(values.mean() - expected) < 4 * values.std() / N**0.5 + 1e-5


def test_the_grids_modes_stand_round_the_origin() -> None:
    centres = gaussian_grid_density().component_distribution.mean
    assert centres.shape == (25, 2)
    assert centres[[0, 1, 5, 24]].tolist() == [[-2, -2], [-2, -1], [-1, -2], [2, 2]]
    assert gaussian_grid_density(2, 3.0).component_distribution.mean.abs().unique() == 1.5


@pytest.mark.parametrize("weights", [[1.0], [1.0, 1.0, 1.0, 0.0], [1.0, math.nan, 1.0, 1.0], "ab"])
def test_the_grid_rejects_weights(weights: object) -> None:
    for call in (
        lambda: gaussian_grid_density(2, weights=weights),
        lambda: gaussian_grid(3, 0, side=2, weights=weights),
    ):
        with pytest.raises(ValueError, match="weights must be"):
            call()
