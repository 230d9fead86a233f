"""Measures of draws against closed forms: Gaussians, a mode that is missing, de Moivre."""

import math

import pytest
import torch
from scipy.stats import binom
from torch.distributions import (
    Independent,
    MultivariateNormal,
    Normal,
    StudentT,
    Uniform,
    kl_divergence,
)

from dgm_course.density_ratio import (
    GridPosterior,
    entropy,
    gaussian_log_ratio,
    grid_posterior,
    total_variation,
)

BOX = ((-7.0, 7.0), (-6.0, 8.0))
SKEW = MultivariateNormal(
    torch.tensor([0.5, 1.0], dtype=torch.float64),
    torch.tensor([[1.0, 0.6], [0.6, 2.0]], dtype=torch.float64),
)


def draws(n, dim=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, generator=generator, dtype=torch.float64)


def line(log_density):
    return lambda z: log_density(z[:, 0])


# --- the grid -------------------------------------------------------------------------------


def test_the_evidence_of_a_conjugate_pair():
    """z ~ N(0, 1), x = z + N(0, s²) at 1.3: p(x) is N(0, 1 + s²), the posterior a Gaussian."""
    x, s = 1.3, 0.5
    joint = line(lambda z: Normal(z, s).log_prob(torch.tensor(x)) + Normal(0.0, 1.0).log_prob(z))
    found = grid_posterior(joint, (-5, 5))
    exact = Normal(torch.tensor(0.0).double(), math.sqrt(1 + s * s)).log_prob(torch.tensor(x))
    assert found.log_evidence == pytest.approx(exact.item(), abs=1e-6)
    middles = (torch.arange(360, dtype=torch.float64) + 0.5) / 36 - 5
    gain = 1 / (1 + s * s)
    assert (found.probability * middles).sum().item() == pytest.approx(gain * x, abs=1e-6)
    second = (found.probability * middles.square()).sum().item()
    assert second - (gain * x) ** 2 == pytest.approx(1 - gain, abs=1e-5)


def test_the_grid_of_a_plane_has_its_axes_in_order():
    found = grid_posterior(lambda z: SKEW.log_prob(z) + 0.7, BOX)
    assert found.log_evidence == pytest.approx(0.7, abs=1e-6)
    middles = (torch.arange(360, dtype=torch.float64) + 0.5) / 360 * 14
    for axis, (low, mean) in enumerate(((-7, 0.5), (-6, 1.0))):
        marginal = found.probability.sum(1 - axis)
        assert (marginal * (middles + low)).sum().item() == pytest.approx(mean, abs=1e-6)


def test_the_grid_refuses():
    normal = line(Normal(0.0, 1.0).log_prob)
    with pytest.raises(ValueError, match="box must hold the posterior, got 0.0039 of it"):
        grid_posterior(normal, (-1, 1))
    with pytest.raises(ValueError, match="box must hold the posterior"):  # above, in the plane
        grid_posterior(SKEW.log_prob, ((-7, 7), (-6, 2)))
    with pytest.raises(ValueError, match="n must be larger than 9: every third cell is off by"):
        grid_posterior(normal, (-8, 8), 9)
    for box in ((1, -1), (-math.inf, 1), ((0, 1),) * 3):
        with pytest.raises(ValueError, match=r"box must be \(low, high\)"):
            grid_posterior(normal, box)
    with pytest.raises(ValueError, match="n must be a multiple of 3, got 7"):
        grid_posterior(normal, (-8, 8), 7)
    with pytest.raises(ValueError, match="what log_joint returns must have shape"):
        grid_posterior(Normal(0.0, 1.0).log_prob, (-8, 8))
    with pytest.raises(ValueError, match="log_joint must have a finite integral"):
        grid_posterior(line(lambda z: z * math.nan), (-8, 8))


# --- total variation ------------------------------------------------------------------------


def test_exact_draws_lie_at_the_floor():
    torch.manual_seed(0)
    for found, exact in (
        (SKEW.sample((20_000,)), grid_posterior(SKEW.log_prob, BOX)),
        (draws(20_000), grid_posterior(line(Normal(0.0, 1.0).log_prob), (-6, 6))),
    ):
        value, floor = total_variation(found, exact)
        assert floor < 0.05
        assert value == pytest.approx(floor, rel=0.15)


def test_the_floor_is_the_mean_of_a_binomials_distance():
    p = torch.tensor([0.5, 0.3, 0.17, 0.03, 0.0, 0.0], dtype=torch.float64)
    exact = GridPosterior(p, 0.0, torch.tensor([[0.0, 6.0]], dtype=torch.float64))
    for n in (1, 7, 40):
        expected = sum(
            binom.pmf(k, n, q) * abs(k / n - q) / 2 for q in p.tolist() for k in range(n + 1)
        )
        found = total_variation(torch.full((n, 1), 0.5), exact, 6)
        assert found.floor == pytest.approx(expected, abs=1e-12)
        assert found.value == pytest.approx(0.5, abs=1e-12)


def test_a_lost_mode_is_half_of_the_mass():
    both = line(
        lambda z: torch.logaddexp(*(Normal(m, 0.3).log_prob(z) for m in (-1.5, 1.5))) - math.log(2)
    )
    exact = grid_posterior(both, (-4, 4))
    one = 1.5 + 0.3 * draws(20_000)
    assert total_variation(one, exact).value == pytest.approx(0.5, abs=0.02)
    assert total_variation(one + 100, exact).value == pytest.approx(1, abs=1e-6)


def test_the_plane_is_binned_by_its_axes():
    """Draws with exchanged coordinates are far away, from a law that is not symmetric."""
    exact = grid_posterior(SKEW.log_prob, BOX)
    torch.manual_seed(0)
    assert total_variation(SKEW.sample((20_000,)).flip(1), exact).value > 0.2


# --- entropy --------------------------------------------------------------------------------

GAUSS = 0.5 * math.log(2 * math.pi * math.e)
LAWS = {
    "normal": (Normal(0.0, 1.0), GAUSS, 0.01),
    "narrow": (Normal(5.0, 0.01), GAUSS + math.log(0.01), 0.01),
    "uniform": (Uniform(0.0, 3.0), math.log(3.0), 0.01),
    "plane": (SKEW, 2 * GAUSS + 0.5 * math.log(2 - 0.36), 0.01),
    "heavy tails": (StudentT(3.0), StudentT(3.0).entropy().item(), 0.02),
    "five dimensions": (Independent(Normal(torch.zeros(5), 1.0), 1), 5 * GAUSS, 0.06),
}


@pytest.mark.parametrize("name", LAWS)
def test_entropy_of_draws(name):
    law, exact, bias = LAWS[name]
    torch.manual_seed(0)
    found = entropy(law.sample((8000,)).reshape(8000, -1))
    assert abs(found.value - exact) < bias + 3 * found.standard_error


@pytest.mark.parametrize("k", [1, 3, 10])
def test_entropy_at_other_neighbours(k):
    """Without ψ(k) it would be off by ψ(10) − ψ(1) = 2.8."""
    values = [entropy(draws(4000, 2, seed), k).value for seed in range(5)]
    assert sum(values) / 5 == pytest.approx(2 * GAUSS, abs=0.03)


def test_the_entropys_error_is_its_spread():
    found = [entropy(draws(1000, 2, seed)) for seed in range(40)]
    spread = torch.tensor([e.value for e in found]).std().item()
    assert 0.7 < found[0].standard_error / spread < 1.4


def test_entropy_refuses():
    with pytest.raises(ValueError, match="z must hold more than k = 3 draws, got 3"):
        entropy(draws(3))
    with pytest.raises(ValueError, match="z must not repeat itself, got 4 draws with k = 3"):
        entropy(torch.cat([draws(20), torch.zeros(4, 1).double()]))


# --- Gaussians ------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 10, 100])
def test_the_ratio_of_gaussians_is_torchs(dim):
    generator = torch.Generator().manual_seed(dim)
    mean, noise = torch.randn(2, dim, generator=generator, dtype=torch.float64)
    scale = (noise / 3).exp()
    q = Independent(Normal(mean, scale), 1)
    p = Independent(Normal(torch.zeros_like(mean), 1.0), 1)
    z = mean + scale * draws(50, dim)
    expected = q.log_prob(z) - p.log_prob(z)
    torch.testing.assert_close(gaussian_log_ratio(z, mean, scale), expected, atol=1e-10, rtol=0)
    # By two points an axis its average over q is exact, for it is quadratic.
    nodes = mean + torch.tensor([1.0, -1.0]).double()[:, None] * scale
    average = gaussian_log_ratio(nodes, mean, scale).mean()
    torch.testing.assert_close(average, kl_divergence(q, p), atol=1e-10, rtol=0)


def test_the_ratio_of_gaussians_refuses():
    with pytest.raises(ValueError, match="scale must be positive, got 0"):
        gaussian_log_ratio(torch.zeros(2, 2), 0.0, 0.0)
