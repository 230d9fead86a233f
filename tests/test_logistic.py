import math

import numpy as np
import pytest
import torch

from dgm_course.autoregressive import (
    LogisticMixture,
    discretised_logistics,
    discretised_logistics_log_prob,
)
from dgm_course.autoregressive.logistic import numbers_of_a_component

DOUBLE = torch.float64
LOG_SCALES = [-12.0, -7.0, -3.0, -1.0, 0.0, 3.0, 6.0]


def mixture(k, log_scale, n=4, seed=0):
    """Logits, means and log-scales ``(N, K)``; the means inside and outside the levels' range."""
    generator = torch.Generator().manual_seed(seed)
    logits, means = (torch.randn(n, k, generator=generator, dtype=DOUBLE) for _ in range(2))
    spread = torch.rand(n, k, generator=generator, dtype=DOUBLE) - 0.5
    return logits, means, log_scale + spread


@pytest.mark.parametrize("n_levels", [2, 4, 17, 256])
@pytest.mark.parametrize("log_scale", LOG_SCALES)
def test_all_levels_add_up_to_one(n_levels, log_scale):
    log_p = discretised_logistics(*mixture(5, log_scale), n_levels=n_levels)
    assert log_p.shape == (4, n_levels)
    assert torch.isfinite(log_p).all()
    assert (log_p.exp().sum(1) - 1).abs().max() < 1e-12


@pytest.mark.parametrize("n_levels", [2, 4, 17, 256])
@pytest.mark.parametrize("log_scale", LOG_SCALES)
def test_the_observed_level_is_one_of_all(n_levels, log_scale):
    given = mixture(3, log_scale)
    every = discretised_logistics(*given, n_levels=n_levels)
    for level in {0, 1, n_levels // 2, n_levels - 1}:
        one = discretised_logistics_log_prob(torch.full((4,), level), *given, n_levels=n_levels)
        torch.testing.assert_close(one, every[:, level], atol=0, rtol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("n_levels", [2, 17, 256])
@pytest.mark.parametrize("log_scale", LOG_SCALES)
def test_gradients_are_finite_for_every_level(n_levels, log_scale, dtype):
    given = [v.to(dtype).requires_grad_() for v in mixture(5, log_scale)]
    discretised_logistics(*given, n_levels=n_levels).sum().backward()
    assert all(torch.isfinite(v.grad).all() for v in given)


def test_a_level_far_away_still_pulls_the_mean():
    """In the logistic's tail, at the slope 1 / scale: a log(0) would pull nothing."""
    mean, log_scale = torch.tensor([[-1.0]], requires_grad=True), torch.tensor([[-9.0]])
    arguments = torch.zeros(1, 1), mean, log_scale
    log_p = discretised_logistics_log_prob(torch.tensor([200]), *arguments, n_levels=256)
    log_p.backward()
    assert log_p.item() == pytest.approx(-399 / 255 * math.exp(9), rel=1e-5)
    assert mean.grad.item() == pytest.approx(math.exp(9), rel=1e-5)


@pytest.mark.parametrize("n_levels", [2, 4, 17])
@pytest.mark.parametrize("log_scale", [-3.0, -1.0, 0.0, 2.0])
def test_each_level_is_the_integral_of_the_density_over_its_bin(n_levels, log_scale):
    """By Gauss-Legendre, piece by piece; the outermost bins reach far beyond the last level."""
    logits, means, log_scales = mixture(3, log_scale)
    nodes, weights = (torch.tensor(v) for v in np.polynomial.legendre.leggauss(40))
    half = 1 / (n_levels - 1)
    far = 1 + 60 * math.exp(log_scale + 0.5) + means.abs().max().item()
    for level in range(n_levels):
        centre = 2 * level / (n_levels - 1) - 1
        low = -far if level == 0 else centre - half
        high = far if level == n_levels - 1 else centre + half
        n_pieces = max(8, int((high - low) / math.exp(log_scale)))
        edges = torch.linspace(low, high, n_pieces + 1, dtype=DOUBLE)
        middle, width = (edges[1:] + edges[:-1]) / 2, edges.diff() / 2
        v = middle[:, None] + width[:, None] * nodes  # (pieces, nodes)
        z = (v - means[..., None, None]) * (-log_scales[..., None, None]).exp()
        density = (-z - 2 * torch.nn.functional.softplus(-z) - log_scales[..., None, None]).exp()
        of_each = (density * weights * width[:, None]).sum((2, 3))  # (N, K)
        expected = (of_each * logits.softmax(1)).sum(1)
        found = discretised_logistics(logits, means, log_scales, n_levels=n_levels)[:, level].exp()
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_any_number_may_be_added_to_the_logits():
    logits, means, log_scales = mixture(4, -1.0)
    expected = discretised_logistics(logits, means, log_scales, n_levels=17)
    moved = discretised_logistics(logits + 300, means, log_scales, n_levels=17)
    torch.testing.assert_close(moved, expected, atol=1e-12, rtol=0)


def random_channels(n_channels, n_levels, k=3, seed=0):
    torch.manual_seed(seed)
    h = torch.randn(2, k * numbers_of_a_component(n_channels), 1, 2, dtype=DOUBLE)
    return LogisticMixture.from_features(
        h, n_levels=n_levels, n_channels=n_channels, n_components=k
    )


def all_pixels(n_levels, n_channels):
    """Every pixel's values from −1 to 1, ``(V^C, C)``."""
    levels = torch.cartesian_prod(*[torch.arange(n_levels)] * n_channels).view(-1, n_channels)
    return levels.to(DOUBLE) * (2 / (n_levels - 1)) - 1


@pytest.mark.parametrize(("n_channels", "n_levels"), [(1, 17), (2, 7), (3, 5)])
def test_the_channels_of_a_pixel_add_up_to_one(n_channels, n_levels):
    m = random_channels(n_channels, n_levels)
    total = torch.zeros(2, 1, 2, dtype=DOUBLE)
    for pixel in all_pixels(n_levels, n_channels):
        total += m.log_prob(pixel.view(1, -1, 1, 1).expand(2, -1, 1, 2)).exp()
    assert (total - 1).abs().max() < 1e-12


def test_a_component_moves_its_means_by_the_channels_before():
    """By hand, for one pixel of three channels: channel 1's slope, then the two of channel 2."""
    m, n_levels = random_channels(3, 5), 5
    pixel = torch.tensor([0.5, -1.0, 0.0], dtype=DOUBLE)
    levels = torch.tensor([3, 0, 2])
    logits, means, log_scales, slopes = (v[0, ..., 0, 0] for v in m[:4])  # (3), (3, 3), …
    r, g, _ = pixel
    moved = torch.stack(
        [
            means[:, 0],
            means[:, 1] + slopes[:, 0] * r,
            means[:, 2] + slopes[:, 1] * r + slopes[:, 2] * g,
        ],
        1,
    )
    p = torch.zeros((), dtype=DOUBLE)
    for k in range(3):
        mass = logits.softmax(0)[k]
        for c in range(3):
            lone = (torch.zeros(1, 1), moved[k, c].view(1, 1), log_scales[k, c].view(1, 1))
            mass = mass * discretised_logistics(*lone, n_levels=n_levels)[0, levels[c]].exp()
        p = p + mass
    found = m.log_prob(pixel.view(1, 3, 1, 1).expand(2, 3, 1, 2))[0, 0, 0]
    torch.testing.assert_close(found, p.log(), atol=1e-13, rtol=0)


@pytest.mark.parametrize("n_channels", [1, 2, 3])
def test_the_conditionals_multiply_to_the_pixel(n_channels):
    m = random_channels(n_channels, 5)
    for pixel in all_pixels(5, n_channels)[::3]:
        values = pixel.view(1, -1, 1, 1).expand(2, -1, 1, 2)
        levels = ((values + 1) * 2).long()
        log_p = m.log_probs(values)  # (2, 5, C, 1, 2)
        torch.testing.assert_close(log_p.exp().sum(1), torch.ones_like(log_p[:, 0]))
        product = log_p.gather(1, levels[:, None])[:, 0].sum(1)
        torch.testing.assert_close(product, m.log_prob(values), atol=1e-12, rtol=0)


@pytest.mark.parametrize("n_levels", [2, 3, 17, 256, 1000])
def test_values_become_their_own_levels_again(n_levels):
    """By V − 1, whatever V is: needles of e⁻¹² at the values find them in their levels."""
    values = torch.arange(n_levels, dtype=torch.float32) * (2 / (n_levels - 1)) - 1
    needles = values.view(1, 1, 1, 1, -1)  # (N, K, C, H, W)
    flat = torch.zeros_like(needles)
    m = LogisticMixture(flat[:, 0], needles, flat - 12, flat[:, :, :0], n_levels)
    assert m.log_prob(needles[:, 0]).exp().min() > 0.99


def test_bad_mixtures_are_refused():
    logits, means, log_scales = mixture(3, 0.0)
    levels = torch.zeros(4, dtype=torch.long)
    for bad, words in [
        ((logits[:, :0], means[:, :0], log_scales[:, :0]), r"K >= 1 components, .*\(4, 0\)"),
        ((logits, means[:, :2], log_scales), r"means must have .* \(4, 3\), got shape \(4, 2\)"),
        ((logits, means, log_scales[:2]), r"log_scales must have .* \(4, 3\), got shape \(2, 3\)"),
        ((logits[0], means[0], log_scales[0]), r"logits must have .* got shape \(3,\)"),
        ((logits, means, log_scales.long()), "log_scales must hold floating-point numbers"),
    ]:
        with pytest.raises(ValueError, match=words):
            discretised_logistics(*bad, n_levels=4)
        with pytest.raises(ValueError, match=words):
            discretised_logistics_log_prob(levels, *bad, n_levels=4)
    with pytest.raises(ValueError, match="levels must hold integers 0 to 3, got values from 4"):
        discretised_logistics_log_prob(levels + 4, logits, means, log_scales, n_levels=4)
    with pytest.raises(ValueError, match="n_levels must be an int of at least 2, got 1"):
        discretised_logistics(logits, means, log_scales, n_levels=1)
