"""Small images made by code from known factors, and the factors read back without a network."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from dgm_course.checks import (
    check_count,
    check_finite,
    check_floating,
    values_are_checked,
)
from dgm_course.data.toy import Seed, as_generator

SIDE = 16  # pixels
EDGE = 0.6  # pixels: the standard deviation of the blur
SHAPE_NAMES = ("bar", "tee", "corner")  # factor "shape" is a place in this tuple
# The largest shape touches no border, however it lies. A bar looks the same after half a turn: the
# angle spans a third of one. The hue spans red to blue, for magenta lies between blue and red.
FACTOR_RANGES = {
    "shape": (0.0, len(SHAPE_NAMES) - 1.0),
    "size": (3.0, 4.8),  # pixels: the side of a square of the same area
    "angle": (-math.pi / 3, math.pi / 3),  # radians, against the clock
    "x": (-2.0, 2.0),  # pixels from the frame's centre to the shape's, to the right
    "y": (-2.0, 2.0),  # the same, upwards
    "hue": (0.0, 2 / 3),  # turns of the colour circle: red at 0, green at 1/3, blue at 2/3
}
# The rectangles (left, right, below, above) that each shape is made of, in squares of one stroke's
# width: three in a row; a row of three on a stem of two; two rows of three that share a square.
STROKES = (
    ((-1.5, 1.5, -0.5, 0.5), (0.0, 0.0, 0.0, 0.0)),
    ((-1.5, 1.5, 0.1, 1.1), (-0.5, 0.5, -1.9, 0.1)),
    ((-1.1, 1.9, -1.1, -0.1), (-1.1, -0.1, -0.1, 1.9)),
)
N_SQUARES = (3, 5, 5)
RECTANGLES = torch.tensor(STROKES) / torch.tensor(N_SQUARES).sqrt()[:, None, None]  # of area 1


class Shapes(NamedTuple):
    """Images, the factors that made them, and the factors' names."""

    images: Tensor  # (N, C, 16, 16), float32 in [0, 1], C = 3 or 1
    factors: Tensor  # (N, K), float64, in the units of FACTOR_RANGES
    names: tuple[str, ...]  # K of them: FACTOR_RANGES' keys, without "hue" where C = 1


def shapes(n: int, seed: Seed, colour: bool = True) -> Shapes:
    """n images of a bar, a tee or a corner, whose factors are drawn independently and evenly.

    Args:
        n: number of images.
        seed: a seed or a generator.
        colour: three channels and a hue, or one channel; the other factors are the same draws.

    Shapes: images ``(n, 3 or 1, 16, 16)``, float32; factors ``(n, 6 or 5)``, float64.

    Raises:
        ValueError: for n below 1, or another kind of seed.

    Example:
        >>> images, factors, names = shapes(100, seed=0)
        >>> names
        ('shape', 'size', 'angle', 'x', 'y', 'hue')
        >>> images.shape
        torch.Size([100, 3, 16, 16])
    """
    n, generator = check_count(n, "n"), as_generator(seed)
    low, high = torch.tensor(list(FACTOR_RANGES.values()), dtype=torch.float64).T
    share = torch.rand(n, len(low), generator=generator, dtype=torch.float64)
    factors = torch.lerp(low, high, share)
    factors[:, 0] = (share[:, 0] * len(SHAPE_NAMES)).floor()
    return _made(factors if colour else factors[:, :-1])


def all_shapes(sizes: Iterable[int] = (3, 4, 6, 6, 6)) -> Shapes:
    """Every combination of evenly spaced factors, both ends of each range included.

    Args:
        sizes: how many values of shape (at most 3), size, angle, x and y, and a sixth number, of
            hues, for images in colour. A single value is the middle of its range, or a bar.

    Shapes: Π sizes images, the last factor changing fastest.

    Raises:
        ValueError: for another number of sizes, one below 1, or more than three shapes.

    Example:
        >>> grid = all_shapes()
        >>> grid.images.shape
        torch.Size([2592, 1, 16, 16])
        >>> [len(values.unique()) for values in grid.factors.T]
        [3, 4, 6, 6, 6]
    """
    counts = tuple(sizes) if isinstance(sizes, Iterable) else ()
    if len(counts) not in (len(FACTOR_RANGES) - 1, len(FACTOR_RANGES)):
        raise ValueError(f"sizes must be 5 counts, or 6 with colour, got {sizes!r}")
    axes = []
    for (name, (low, high)), count in zip(FACTOR_RANGES.items(), counts, strict=False):
        most = len(SHAPE_NAMES) if name == "shape" else 1000
        count = check_count(count, f"sizes' count of {name}", most=most)
        if name == "shape":
            axes.append(torch.arange(count, dtype=torch.float64))
        elif count == 1:
            axes.append(torch.tensor([(low + high) / 2], dtype=torch.float64))
        else:
            axes.append(torch.linspace(low, high, count, dtype=torch.float64))
    return _made(torch.cartesian_prod(*axes))


def render(factors: Tensor) -> Tensor:
    """The images of given factors: 1_shape ∗ N(0, 0.6² I) at the pixels' centres, times a colour.

    A shape is the union of two rectangles, and of a rectangle with sides along (u, v) the blur is
    exact at any angle: [Φ((u − u₀)/σ) − Φ((u − u₁)/σ)] · [Φ((v − v₀)/σ) − Φ((v − v₁)/σ)].

    All shapes of one size have the same area, size², and their centroid at (x, y). The background
    is 0; the colour is fully saturated: its largest channel is 1, its smallest 0.

    Args:
        factors: shape, size, angle, x, y and, for three channels, hue, in the units and within
            the ranges of `FACTOR_RANGES`; the shape is a whole number, 0 bar, 1 tee, 2 corner.

    Shapes: ``(N, 6)`` to ``(N, 3, 16, 16)``, ``(N, 5)`` to ``(N, 1, 16, 16)``, float32.

    Raises:
        ValueError: for another number of factors, and for a factor that is not finite or outside
            its range, which is named.

    Example:
        >>> image = render(torch.tensor([[0, 3.0, 0, 0, 0]]))  # a bar of 9 pixels
        >>> round(image.sum().item(), 2)
        9.0
    """
    _check_factors(factors)
    shape = factors[:, 0].long()
    size, angle, x, y = factors[:, 1:5].float()[..., None].unbind(1)  # (N, 1) each
    ticks = torch.arange(SIDE, device=factors.device) - (SIDE - 1) / 2
    right, up = ticks.repeat(SIDE) - x, -ticks.repeat_interleave(SIDE) - y  # (N, 256)
    u = angle.cos() * right + angle.sin() * up
    v = angle.cos() * up - angle.sin() * right
    bounds = RECTANGLES.to(factors.device)[shape] * size[..., None]  # (N, 2, 4)
    left, end, below, above = bounds[..., None].unbind(2)  # (N, 2, 1) each
    phi = lambda t: torch.special.ndtr(t / EDGE)  # noqa: E731
    u, v = u[:, None], v[:, None]
    ink = ((phi(u - left) - phi(u - end)) * (phi(v - below) - phi(v - above))).sum(1)
    images = ink.clamp(0, 1).view(-1, 1, SIDE, SIDE)
    return (
        images * _rgb(factors[:, 5].float())[..., None, None] if factors.shape[1] == 6 else images
    )


def measured_factors(images: Tensor) -> dict[str, Tensor]:
    """size = √ink, (x, y) = the ink's centroid, and the hue of the mean colour: no network.

    Ink is a pixel's largest channel. On images of `render` sizes and positions are right to 0.001
    pixels and hues to 1e-6 turns. A hue lies in [−1/6, 5/6).

    Args:
        images: ``(N, 3 or 1, 16, 16)`` in [0, 1]; of other makers too. A background of b adds
            256 b to the ink and draws the centroid to the frame's centre.

    Shapes: "size", "x", "y" and, of three channels, "hue", each ``(N,)``, float64.

    Raises:
        ValueError: for images of other shape or values, an image that is all background, or one
            in three channels that is grey.

    Omits: the shape and its angle.

    Example:
        >>> found = measured_factors(render(torch.tensor([[2, 3.5, 0.4, -1.0, 2.0, 0.5]])))
        >>> {name: round(value.item(), 2) for name, value in found.items()}
        {'size': 3.5, 'x': -1.0, 'y': 2.0, 'hue': 0.5}
    """
    _check_shape_images(images)
    ink = images.double().amax(1)  # (N, 16, 16)
    total = ink.sum((1, 2))
    _check_each(total > 0, "ink", "all background")
    ticks = torch.arange(SIDE, device=images.device) - (SIDE - 1) / 2
    found = {
        "size": total.sqrt(),
        "x": (ink.sum(1) * ticks).sum(1) / total,
        "y": -(ink.sum(2) * ticks).sum(1) / total,
    }
    if images.shape[1] == 3:
        found["hue"] = _hue(images.double().sum((2, 3)))
    return found


def _made(factors: Tensor) -> Shapes:
    return Shapes(render(factors), factors, tuple(FACTOR_RANGES)[: factors.shape[1]])


def _rgb(hue: Tensor) -> Tensor:
    """Saturated colours ``(N, 3)`` of hues in turns: each channel is a trapezium a third apart."""
    peak = torch.tensor([0, 1 / 3, 2 / 3]).to(hue)
    apart = (hue[:, None] - peak + 0.5) % 1 - 0.5
    return (2 - 6 * apart.abs()).clamp(0, 1)


def _hue(rgb: Tensor) -> Tensor:
    """The inverse of `_rgb` for colours ``(N, 3)`` of any saturation, in [−1/6, 5/6)."""
    chroma = rgb.amax(1) - rgb.amin(1)
    _check_each(chroma > 0, "colour", "grey")
    # The hue lies within 1/6 of the largest channel's peak, towards the higher of the other two.
    after, before = rgb.roll(-1, 1), rgb.roll(1, 1)
    hues = torch.arange(3).to(rgb) / 3 + (after - before) / (6 * chroma[:, None])
    return hues.gather(1, rgb.argmax(1, keepdim=True)).squeeze(1)


def _check_factors(factors: Tensor) -> None:
    check_floating(factors, "factors")
    if factors.ndim != 2 or factors.shape[1] not in (5, 6) or len(factors) == 0:
        raise ValueError(f"factors must have shape (N, 5) or (N, 6), got {tuple(factors.shape)}")
    check_finite(factors, "factors", "images")
    if not values_are_checked():
        return
    for values, (name, (low, high)) in zip(factors.T, FACTOR_RANGES.items(), strict=False):
        slack = 1e-6  # an end that was rounded to float32
        wrong = (values < low - slack) | (values > high + slack)
        if wrong.any():
            raise ValueError(
                f"factors must have {name} from {low:.4g} to {high:.4g}, got "
                f"{values[wrong][0].item():.4g} in {int(wrong.sum())} of {len(values)} images"
            )
    part = factors[:, 0].frac() != 0
    if part.any():
        raise ValueError(
            f"factors must have a whole number as shape, got {factors[part, 0][0].item():.4g}"
        )


def _check_shape_images(images: Tensor) -> None:
    check_floating(images, "images")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.shape[2:] != (SIDE, SIDE):
        raise ValueError(
            f"images must have shape (N, 3, 16, 16) or (N, 1, 16, 16), got {tuple(images.shape)}"
        )
    if len(images) == 0:
        raise ValueError("images must hold at least one image, got an empty batch")
    check_finite(images, "images", "images", 3)
    low, high = (value.item() for value in images.aminmax())
    if low < 0 or high > 1:
        raise ValueError(f"images must lie in [0, 1], got values from {low:.4g} to {high:.4g}")


def _check_each(present: Tensor, thing: str, otherwise: str) -> None:
    if not present.all():
        missing = (~present).nonzero().flatten()
        raise ValueError(
            f"images must each have {thing}, got {len(missing)} of {len(present)} that are "
            f"{otherwise}, the first at index {missing[0].item()}"
        )
