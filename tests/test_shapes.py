"""Shapes against outlines blurred by brute force, and the factors that are read back from them."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
import torch
from matplotlib.path import Path

from dgm_course.data import (
    FACTOR_RANGES,
    SHAPE_NAMES,
    all_shapes,
    measured_factors,
    render,
    shapes,
)

# In squares of one stroke's width, their number beside them.
OUTLINES = {
    "bar": (3, [(0, 0), (3, 0), (3, 1), (0, 1)]),
    "tee": (5, [(1, 0), (2, 0), (2, 2), (3, 2), (3, 3), (0, 3), (0, 2), (1, 2)]),
    "corner": (5, [(0, 0), (3, 0), (3, 1), (1, 1), (1, 3), (0, 3)]),
}
NAMES = tuple(FACTOR_RANGES)
LOW, HIGH = (list(ends) for ends in zip(*FACTOR_RANGES.values(), strict=True))
MIDDLE = torch.tensor([[1.0, 4.0, 0.0, 0.0, 0.0, 0.3]], dtype=torch.float64)


def changed(name, value, factors=MIDDLE):
    factors = factors.clone()
    factors[:, NAMES.index(name)] = value
    return factors


@pytest.fixture(scope="module")
def many():
    return shapes(2000, 0)


@pytest.fixture(scope="module")
def grid():
    return all_shapes()


# --- images -------------------------------------------------------------------------------------


def outline(name):
    """The vertices of a shape of area 1 round its centroid, the mean of its squares' centres."""
    n, vertices = OUTLINES[name]
    centres = np.array([(i + 0.5, j + 0.5) for i in range(3) for j in range(3)])
    squares = centres[Path(vertices).contains_points(centres)]
    assert len(squares) == n
    return (np.array(vertices) - squares.mean(0)) / n**0.5


def by_brute_force(factors, fine=24, sd=0.6):
    """A polygon's inside, in steps of 1/24 of a pixel, blurred by a sum over all of its points."""
    shape, size, angle, x, y = factors[:5]
    inside = (np.arange(20 * fine) + 0.5) / fine - 10
    points = np.stack(np.meshgrid(inside, inside), -1).reshape(-1, 2)  # (x, y), pixels
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    hit = (
        Path(size * outline(SHAPE_NAMES[int(shape)]) @ turn + [x, y])
        .contains_points(points)
        .reshape(20 * fine, 20 * fine)
    )
    centres = np.arange(16) - 7.5
    blur = np.exp(-0.5 * ((centres[:, None] - inside) / sd) ** 2)
    blur /= fine * sd * math.sqrt(2 * math.pi)
    return (blur @ hit @ blur.T)[::-1]  # the upper row first


@pytest.mark.parametrize("shape", range(3), ids=SHAPE_NAMES)
@pytest.mark.parametrize("rest", [(4.0, 0.2, 0, 0), (3.0, 1.0, -2, 1.3), (4.8, -0.7, 1.9, -2)])
def test_an_image_is_the_blurred_outline(shape, rest):
    factors = (shape, *rest)
    image = render(torch.tensor([factors], dtype=torch.float64))[0, 0]
    np.testing.assert_allclose(image.numpy(), by_brute_force(factors), atol=2e-3)


def test_colours_are_those_of_the_standard_library(many):
    """A saturated colour of full value, times the ink of the same shape without colour."""
    ink = render(many.factors[:, :5])
    rgb = torch.tensor([colorsys.hsv_to_rgb(hue, 1, 1) for hue in many.factors[:, 5].tolist()])
    torch.testing.assert_close(many.images, ink * rgb[:, :, None, None])


@pytest.mark.parametrize(("colour", "channels"), [(True, 3), (False, 1)])
def test_images_and_factors_are_as_documented(colour, channels):
    made = shapes(500, 1, colour)
    assert made.images.shape == (500, channels, 16, 16)
    assert made.images.dtype == torch.float32
    assert made.images.aminmax().min >= 0
    assert made.images.aminmax().max <= 1
    assert made.names == NAMES[: made.factors.shape[1]]
    assert torch.equal(made.images, render(made.factors))
    for name, values, low, high in zip(made.names, made.factors.T, LOW, HIGH, strict=False):
        if name == "shape":
            assert values.unique().tolist() == [0, 1, 2]
        else:  # 500 even draws come this near to both ends
            assert low <= values.min() < low + 0.02 * (high - low)
            assert high - 0.02 * (high - low) < values.max() <= high


def test_factors_are_drawn_evenly_and_independently():
    """Each factor's thirds are as frequent, and no two factors are correlated: five errors."""
    factors = shapes(20_000, 2).factors
    scaled = (factors - torch.tensor(LOW)) / (torch.tensor(HIGH) - torch.tensor(LOW))
    counts = torch.stack([(column * 3).long().clamp_max(2).bincount() for column in scaled.T])
    assert (counts / 20_000 - 1 / 3).abs().max() < 5 * (2 / 9 / 20_000) ** 0.5
    assert torch.corrcoef(scaled.T).fill_diagonal_(0).abs().max() < 5 / 20_000**0.5


@pytest.mark.parametrize("colour", [True, False])
def test_a_seed_repeats_the_draw_and_a_generator_moves_on(colour):
    first = shapes(20, 3, colour)
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(shapes(20, generator, colour).images, first.images)
    assert not torch.equal(shapes(20, generator, colour).images, first.images)
    assert torch.equal(first.factors[:, :5], shapes(20, 3).factors[:, :5])


def test_a_shape_lies_inside_the_frame(grid):
    """The grid has both ends of every range: no border pixel has 4 % of ink, none is lost."""
    pixels = grid.images[:, 0]
    border = torch.cat([pixels[:, [0, -1]].flatten(1), pixels[:, :, [0, -1]].flatten(1)], 1)
    assert border.max() < 0.04
    torch.testing.assert_close(
        pixels.double().sum((1, 2)), grid.factors[:, 1] ** 2, rtol=1e-3, atol=0
    )


def test_an_outline_stays_inside_at_any_angle():
    for name in OUTLINES:
        radius = np.linalg.norm(outline(name), axis=1).max()
        assert radius * HIGH[1] + HIGH[3] < 7  # the frame ends at 8


# --- the grid -----------------------------------------------------------------------------------


def test_the_grid_has_every_combination_once(grid):
    assert grid.images.shape == (2592, 1, 16, 16)
    assert grid.names == NAMES[:5]
    assert len(grid.factors.unique(dim=0)) == 2592
    for values, low, high, count in zip(grid.factors.T, LOW, HIGH, (3, 4, 6, 6, 6), strict=False):
        torch.testing.assert_close(
            values.unique(), torch.linspace(low, high, count, dtype=torch.float64)
        )
    assert torch.equal(grid.factors[:6, :4], grid.factors[:1, :4].expand(6, 4))


def test_no_two_images_of_the_grid_are_alike(grid):
    """The nearest two are a tee at both ends of its angles: far more apart than rounding."""
    flat = grid.images.flatten(1)
    assert torch.cdist(flat, flat).fill_diagonal_(9).min() > 0.5


def test_every_factor_moves_the_picture(grid):
    """One step of the grid changes it by more than 0.5 in squares, on average, whichever."""
    steps = grid.images.view(3, 4, 6, 6, 6, 256)
    for axis in range(5):
        moved = steps.diff(dim=axis).square().sum(-1)
        assert moved.mean() > 0.5
        assert moved.min() > 0.05


def test_a_hue_moves_colours_and_nothing_else():
    red, blue = render(changed("hue", 0.0)), render(changed("hue", 2 / 3))
    torch.testing.assert_close(red[:, [2, 1, 0]], blue)
    assert red[:, 1:].max() < 1e-5


def test_six_sizes_are_a_grid_in_colour():
    grid = all_shapes((2, 1, 1, 2, 1, 3))
    assert grid.images.shape == (12, 3, 16, 16)
    assert grid.names == NAMES
    assert grid.factors[0].tolist() == pytest.approx([0, 3.9, 0, -2, 0, 0])
    assert grid.factors[-1].tolist() == pytest.approx([1, 3.9, 0, 2, 0, 2 / 3])


# --- factors read back --------------------------------------------------------------------------


@pytest.mark.parametrize("colour", [True, False])
def test_factors_are_read_back(colour):
    made = shapes(2000, 4, colour)
    found = measured_factors(made.images)
    assert list(found) == ["size", "x", "y", "hue"][: 4 if colour else 3]
    for name, values in found.items():
        true = made.factors[:, made.names.index(name)]
        assert (values - true).abs().max() < (1e-6 if name == "hue" else 1e-3)
        assert torch.corrcoef(torch.stack([values, true]))[0, 1] > 0.999999


@pytest.mark.parametrize("hue", [-0.15, 0.0, 0.1, 1 / 3, 0.49, 2 / 3, 0.82])
@pytest.mark.parametrize("pale", [0.0, 0.5])
def test_a_hue_is_read_all_round_the_circle_and_of_pale_colours(hue, pale):
    rgb = torch.tensor(colorsys.hsv_to_rgb(hue % 1, 1 - pale, 0.9))
    images = rgb[:, None, None].expand(1, 3, 16, 16)
    assert measured_factors(images)["hue"].item() == pytest.approx(hue, abs=1e-6)


def test_a_single_pixel_is_measured_by_hand():
    images = torch.zeros(2, 3, 16, 16)
    images[0, 1, 0, 15] = 0.25  # the upper right corner, green
    images[1, :, 15, 3] = torch.tensor([1.0, 0.5, 0.0])
    found = measured_factors(images)
    assert found["size"].tolist() == [0.5, 1.0]
    assert found["x"].tolist() == [7.5, -4.5]
    assert found["y"].tolist() == [7.5, -7.5]
    assert found["hue"].tolist() == pytest.approx([1 / 3, 1 / 12])


# --- bad input ----------------------------------------------------------------------------------

IMAGES = render(MIDDLE.repeat(3, 1))
BLANK = IMAGES * torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1, 1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: shapes(0, 0), "n must be an int of at least 1, got 0"),
        (lambda: shapes(3, 0.5), "seed must be an int or a torch.Generator, got float"),
        (lambda: all_shapes((3, 4)), r"sizes must be 5 counts, or 6 .*, got \(3, 4\)"),
        (lambda: all_shapes(5), "sizes must be 5 counts, or 6 with colour, got 5"),
        (lambda: all_shapes((4, 1, 1, 1, 1)), "sizes' count of shape must be at most 3, got 4"),
        (lambda: all_shapes((3, 0, 1, 1, 1)), "count of size must be an int of at least 1, got 0"),
        (lambda: render(MIDDLE[0]), r"factors must have shape \(N, 5\) or \(N, 6\), got \(6,\)"),
        (lambda: render(MIDDLE[:, :4]), r"factors must have shape .*, got \(1, 4\)"),
        (lambda: render(MIDDLE[:0]), r"factors must have shape .*, got \(0, 6\)"),
        (lambda: render(MIDDLE.long()), "factors must hold floating-point numbers"),
        (lambda: render(MIDDLE / 0), "factors must be finite, got NaN or inf in 1 of 1 images"),
        (lambda: render(changed("shape", 0.5)), "a whole number as shape, got 0.5"),
        (lambda: render(changed("shape", 3)), "shape from 0 to 2, got 3 in 1 of 1 images"),
        (lambda: render(changed("size", 2.9)), "size from 3 to 4.8, got 2.9 in 1 of 1"),
        (lambda: render(changed("angle", 1.1)), "angle from -1.047 to 1.047, got 1.1 in"),
        (lambda: render(changed("x", -2.1)), "x from -2 to 2, got -2.1 in"),
        (lambda: render(changed("y", 2.1)), "y from -2 to 2, got 2.1 in"),
        (lambda: render(changed("hue", 0.7)), "hue from 0 to 0.6667, got 0.7 in"),
        (
            lambda: render(torch.cat([MIDDLE, changed("size", 5), changed("size", 6)])),
            "size from 3 to 4.8, got 5 in 2 of 3 images",
        ),
        (
            lambda: measured_factors(BLANK),
            "images must each have ink, got 2 of 3 that are all background, the first at index 1",
        ),
        (
            lambda: measured_factors(BLANK.mean(1, keepdim=True).expand(3, 3, 16, 16)[:1]),
            "images must each have colour, got 1 of 1 that are grey, the first at index 0",
        ),
        (lambda: measured_factors(IMAGES[:, :2]), r"\(N, 1, 16, 16\), got \(3, 2, 16, 16\)"),
        (lambda: measured_factors(IMAGES[..., :8]), r"images must .*, got \(3, 3, 16, 8\)"),
        (lambda: measured_factors(IMAGES[:0]), "at least one image, got an empty batch"),
        (lambda: measured_factors(IMAGES * 2 - 1), r"lie in \[0, 1\], got values from -1 to"),
        (lambda: measured_factors(IMAGES * 255), r"lie in \[0, 1\], got values from 0 to"),
        (lambda: measured_factors(IMAGES.long()), "images must hold floating-point numbers"),
        (lambda: measured_factors(IMAGES / 0), "images must be finite, got NaN or inf in 3 of 3"),
    ],
)
def test_bad_factors_and_images_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_ends_of_ranges_may_be_rounded_to_single_precision():
    ends = torch.tensor([LOW, HIGH], dtype=torch.float32)
    assert torch.equal(render(ends), render(ends.double()))  # 2/3 is rounded up
