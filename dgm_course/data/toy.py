"""Two-dimensional targets and data sets, drawn on the spot from a seed.

Two kinds: energies U(z) of an unnormalised density exp(−U), with their ln Z by quadrature, for
flows that are trained towards a density; and samplers, for flows that are trained on data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from dgm_course.checks import as_numbers, check_count, check_number, check_tensor

Seed = int | torch.Generator


def as_generator(seed: Seed) -> torch.Generator:
    """The generator itself, or a new one on the CPU from an integer seed."""
    if isinstance(seed, torch.Generator):
        return seed
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise ValueError(f"seed must be an int or a torch.Generator, got {type(seed).__name__}")
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed must fit 64 bits, got {seed}")
    return torch.Generator().manual_seed(int(seed))


# --- energies -------------------------------------------------------------------------------

ENERGIES = ("U1", "U2", "U3", "U4")


def energy(name: str, z: Tensor, *, wall: bool = True) -> Tensor:
    """U(z) of Rezende & Mohamed 2015, table 1, ``(N, 2)`` to nats ``(N,)``.

    exp(−U2), exp(−U3) and exp(−U4) run along z₁ for ever: they cannot be normalised on the plane.
    The wall adds 10 · relu(|z₁| − 4)² to them, which leaves |z₁| ≤ 4 as it is.

    Source: https://arxiv.org/abs/1505.05770.

    Args:
        name: "U1", "U2", "U3" or "U4".
        z: points ``(N, 2)``.
        wall: whether U2 to U4 get their wall; U1 needs none.
    """
    _check_energy(name)
    _check_plane(z, "z")
    z1, z2 = z.unbind(1)
    if name == "U1":
        # ln(e^a + e^b) stays finite far out, where both exponentials underflow.
        modes = torch.logaddexp(-0.5 * ((z1 - 2) / 0.6) ** 2, -0.5 * ((z1 + 2) / 0.6) ** 2)
        return 0.5 * ((z.norm(dim=1) - 2) / 0.4) ** 2 - modes
    w1 = torch.sin(2 * math.pi * z1 / 4)
    if name == "U2":
        value = 0.5 * ((z2 - w1) / 0.4) ** 2
    elif name == "U3":
        w2 = 3 * torch.exp(-0.5 * ((z1 - 1) / 0.6) ** 2)
        value = -torch.logaddexp(
            -0.5 * ((z2 - w1) / 0.35) ** 2, -0.5 * ((z2 - w1 + w2) / 0.35) ** 2
        )
    else:
        w3 = 3 * torch.sigmoid((z1 - 1) / 0.3)
        value = -torch.logaddexp(-0.5 * ((z2 - w1) / 0.4) ** 2, -0.5 * ((z2 - w1 + w3) / 0.35) ** 2)
    return value + 10 * torch.relu(z1.abs() - 4) ** 2 if wall else value


def log_normaliser(name: str, *, wall: bool = True, box: float | None = None) -> float:
    """ln Z = ln ∫ exp(−U(z)) dz in nats, by the midpoint rule on a fine grid (6 digits).

    Args:
        name: "U1", "U2", "U3" or "U4".
        wall: as for `energy`.
        box: integrate over [−box, box]² instead of the plane. Without the wall, U2 to U4 have no
            other integral: the value grows with the box.
    """
    _check_energy(name)
    if box is None:
        if not wall and name != "U1":
            raise ValueError(
                f"{name} without its wall has no integral over the plane: ln Z grows with the box; "
                "give box=4.0, or wall=True"
            )
        box = 8.0  # beyond |z| = 8 less than 1e-15 of the mass is left, with the wall
    check_number(box, "box")
    if box > 20:
        raise ValueError(f"box must be at most 20, got {box}")
    n = 1000
    step = 2 * box / n
    ticks = torch.linspace(-box + step / 2, box - step / 2, n, dtype=torch.float64)
    grid = torch.cartesian_prod(ticks, ticks)
    log_mass = torch.logsumexp(-energy(name, grid, wall=wall), dim=0)
    return log_mass.item() + 2 * math.log(step)


def _check_energy(name: str) -> None:
    if name not in ENERGIES:
        raise ValueError(f"name must be one of {', '.join(ENERGIES)}, got {name!r}")


# --- densities with samples -----------------------------------------------------------------


def correlated_gaussian(
    mean: tuple[float, float] = (2.0, 3.0),
    scales: tuple[float, float] = (3.0, 1.0),
    angle: float = 0.0,
) -> MultivariateNormal:
    """N(mean, R diag(scales²) Rᵀ), R the rotation by ``angle`` radians: the decks' toy.

    At angle 0 the axes are independent; at π/4 the correlation is 0.8.
    """
    for name, pair in (("mean", mean), ("scales", scales)):
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise ValueError(f"{name} must be two numbers, got {pair!r}")
        for number in pair:
            check_number(number, name, or_negative=name == "mean")
    check_number(angle, "angle", or_negative=True)
    c, s = math.cos(angle), math.sin(angle)
    root = torch.tensor([[c, -s], [s, c]], dtype=torch.float64) * torch.tensor(scales)
    return MultivariateNormal(torch.tensor(mean), (root @ root.T).float())


def eight_gaussians_density(radius: float = 2.0, scale: float = 0.2) -> MixtureSameFamily:
    """⅛ Σₖ N(radius · (cos kπ/4, sin kπ/4), scale² I), k = 0…7, as a distribution."""
    check_number(radius, "radius", or_negative=True)
    check_number(scale, "scale")
    angle = torch.arange(8) * math.pi / 4
    centres = radius * torch.stack([angle.cos(), angle.sin()], 1)
    return MixtureSameFamily(
        Categorical(torch.ones(8)), Independent(Normal(centres, scale * torch.ones(8, 2)), 1)
    )


def eight_gaussians(n: int, seed: Seed, *, radius: float = 2.0, scale: float = 0.2) -> Tensor:
    """n draws ``(n, 2)`` from `eight_gaussians_density` of the same arguments."""
    generator = as_generator(seed)
    check_number(radius, "radius", or_negative=True)
    check_number(scale, "scale", or_zero=True)
    angle = torch.randint(8, (check_count(n, "n"),), generator=generator) * math.pi / 4
    centre = radius * torch.stack([angle.cos(), angle.sin()], 1)
    return centre + scale * torch.randn(n, 2, generator=generator)


def gaussian_grid_density(
    side: int = 5,
    spacing: float = 1.0,
    scale: float = 0.05,
    weights: Sequence[float] | Tensor | None = None,
) -> MixtureSameFamily:
    """Σₖ πₖ N(μₖ, scale² I), the μₖ on a square of side × side points round 0, spacing apart.

    Args:
        side: modes a side, from the left to the right and in each column from below.
        spacing: between neighbours.
        scale: of each mode.
        weights: πₖ > 0, ``(side²,)``, as shares or as odds; None takes all alike.
    """
    centres, odds = _grid(side, spacing, weights)
    check_number(scale, "scale")
    return MixtureSameFamily(
        Categorical(odds), Independent(Normal(centres, torch.full_like(centres, scale)), 1)
    )


def gaussian_grid(
    n: int,
    seed: Seed,
    *,
    side: int = 5,
    spacing: float = 1.0,
    scale: float = 0.05,
    weights: Sequence[float] | Tensor | None = None,
) -> Tensor:
    """n draws ``(n, 2)`` from `gaussian_grid_density` of the same arguments."""
    generator = as_generator(seed)
    centres, odds = _grid(side, spacing, weights)
    check_number(scale, "scale", or_zero=True)
    n = check_count(n, "n")
    mode = torch.multinomial(odds, n, replacement=True, generator=generator)
    return centres[mode] + scale * torch.randn(n, 2, generator=generator)


def _grid(
    side: int, spacing: float, weights: Sequence[float] | Tensor | None
) -> tuple[Tensor, Tensor]:
    """The modes' centres ``(side², 2)`` and their odds ``(side²,)``."""
    side = check_count(side, "side", most=100)
    check_number(spacing, "spacing")
    ticks = spacing * (torch.arange(side) - (side - 1) / 2)
    odds = torch.ones(side**2) if weights is None else as_numbers(weights, "weights").float()
    if odds.shape != (side**2,) or not (torch.isfinite(odds) & (odds > 0)).all():
        raise ValueError(
            f"weights must be side² = {side**2} positive numbers, got {tuple(odds.shape)}, "
            f"{weights!r}"
        )
    return torch.cartesian_prod(ticks, ticks), odds


def checkerboard(n: int, seed: Seed) -> Tensor:
    """n draws ``(n, 2)``, uniform on the dark squares of a 4 × 4 board on [−2, 2]².

    The density is 1/8 where ⌊x₁⌋ + ⌊x₂⌋ is even, else 0: log p(x) = −ln 8 on the dark squares.
    """
    generator = as_generator(seed)
    column = torch.randint(4, (check_count(n, "n"),), generator=generator)
    row = 2 * torch.randint(2, (n,), generator=generator) + column % 2
    corner = torch.stack([column, row], 1) - 2.0
    return corner + torch.rand(n, 2, generator=generator)


def two_moons(n: int, seed: Seed, *, scale: float = 0.1) -> Tensor:
    """n draws ``(n, 2)``: two interlocking half circles of radius 1, blurred by N(0, scale² I).

    The upper is centred at (−½, −¼), the lower at (½, ¼). Density: `two_moons_log_prob`.
    """
    generator = as_generator(seed)
    check_number(scale, "scale", or_zero=True)
    angle = math.pi * torch.rand(check_count(n, "n"), generator=generator)
    side = 1.0 - 2 * torch.randint(2, (n,), generator=generator)  # +1 the upper moon, −1 the lower
    return _moons(angle, side) + scale * torch.randn(n, 2, generator=generator)


def two_moons_log_prob(x: Tensor, *, scale: float = 0.1) -> Tensor:
    """log p(x) of `two_moons`, ``(N, 2)`` to nats ``(N,)``: ½ Σ over moons of ∫ N(x; arc) dt / π.

    The integral is a Gauss–Legendre sum over 200 angles: exact to the digits of float64 where
    scale ≥ 0.05.
    """
    _check_plane(x, "x")
    check_number(scale, "scale")
    if scale < 0.05:
        raise ValueError(
            f"scale must be at least 0.05, got {scale}: narrower arcs need more angles"
        )
    nodes, weights = (torch.from_numpy(a).to(x) for a in np.polynomial.legendre.leggauss(200))
    angle = math.pi / 2 * (nodes + 1)
    side = torch.tensor([1.0, -1.0]).to(x).repeat_interleave(200)
    centres = _moons(angle.repeat(2), side)
    log_weights = (weights.repeat(2) / 4).log() - math.log(2 * math.pi * scale**2)

    def log_prob(part: Tensor) -> Tensor:
        squared = torch.cdist(part, centres, compute_mode="donot_use_mm_for_euclid_dist").square()
        return torch.logsumexp(log_weights - squared / (2 * scale**2), 1)

    return torch.cat([log_prob(part) for part in x.split(10_000)])  # 30 MB at a time


def _moons(angle: Tensor, side: Tensor) -> Tensor:
    arc = side[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    return arc - torch.stack([0.5 * side, 0.25 * side], 1)


def pinwheel(n: int, seed: Seed, *, arms: int = 5, twist: float = 0.25) -> Tensor:
    """n draws ``(n, 2)``: arms N((1, 0), diag(0.3², 0.05²)), turned by twist · eˣ, doubled in size.

    No closed-form density.
    """
    generator = as_generator(seed)
    check_count(arms, "arms")
    check_number(twist, "twist", or_negative=True)
    arm = torch.randint(arms, (check_count(n, "n"),), generator=generator)
    radial, lateral = torch.randn(2, n, generator=generator)
    point = torch.stack([1 + 0.3 * radial, 0.05 * lateral], 1)
    angle = 2 * math.pi * arm / arms + twist * point[:, 0].exp()
    c, s = angle.cos(), angle.sin()
    x, y = point.unbind(1)
    return 2 * torch.stack([c * x - s * y, s * x + c * y], 1)


def spirals(n: int, seed: Seed, *, turns: float = 1.5, scale: float = 0.08) -> Tensor:
    """n draws ``(n, 2)``: two spirals of radius up to 2.5, blurred by N(0, scale² I).

    No closed-form density.
    """
    generator = as_generator(seed)
    check_number(turns, "turns", or_negative=True)
    check_number(scale, "scale", or_zero=True)
    # Even along the arm, not along the angle.
    u = torch.rand(check_count(n, "n"), generator=generator).sqrt()
    side = 1.0 - 2 * torch.randint(2, (n,), generator=generator)
    angle = 2 * math.pi * turns * u
    arm = 2.5 * (side * u)[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    return arm + scale * torch.randn(n, 2, generator=generator)


def _check_plane(points: Tensor, name: str) -> None:
    check_tensor(points, name)
    if points.ndim != 2 or points.shape[1] != 2 or not points.is_floating_point():
        raise ValueError(
            f"{name} must have shape (N, 2) and a floating dtype, got shape "
            f"{tuple(points.shape)} and {points.dtype}"
        )
