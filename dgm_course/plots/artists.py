"""One artist each: drawn once, and moved by every later call with the same Axes and label."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

# Okabe & Ito 2008: eight colours that people with any colour vision tell apart.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = OKABE_ITO = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
GREY = "#808080"


def plane(ax: Axes, extent: float, title: str = "", *, letter: str = "x") -> None:
    """Equal scales on [−extent, extent]², labelled x₁, x₂ (or another letter)."""
    ax.set(
        title=title,
        xlabel=f"${letter}_1$",
        ylabel=f"${letter}_2$",
        xlim=(-extent, extent),
        ylim=(-extent, extent),
        xticks=(-extent, 0, extent),
        yticks=(-extent, 0, extent),
        aspect="equal",
    )


def grid_points(extent: float, n: int = 100) -> np.ndarray:
    """The centres of n × n cells on [−extent, extent]², shape ``(n², 2)``, for `density`."""
    ticks = (np.arange(n) + 0.5) * (2 * extent / n) - extent
    x1, x2 = np.meshgrid(ticks, ticks)
    return np.stack([x1.ravel(), x2.ravel()], 1)


def grid_lines(extent: float, n: int = 21, n_points: int = 81) -> np.ndarray:
    """n vertical and n horizontal lines on [−extent, extent]², ``(2n, n_points, 2)``."""
    across, along = np.meshgrid(
        np.linspace(-extent, extent, n), np.linspace(-extent, extent, n_points), indexing="ij"
    )
    return np.concatenate([np.stack([across, along], 2), np.stack([along, across], 2)])


def density(
    ax: Axes,
    values: ArrayLike,
    extent: float,
    *,
    top: float | None = None,
    label: str = "density",
) -> None:
    """A density on [−extent, extent]² as shades, from its values at `grid_points`, ``(n²,)``.

    The brightest shade stands for ``top``, by default the largest value: give one to all pictures
    that are to be compared.
    """
    values = np.asarray(values)
    side = round(values.size**0.5)
    top = float(np.nanmax(values)) if top is None else float(top)
    box = (-extent, extent, -extent, extent)
    heatmap(ax, values.reshape(side, side), box, limits=(0, top), label=label)
    ax.set_aspect("equal")


def heatmap(
    ax: Axes,
    values: ArrayLike,
    box: tuple[float, float, float, float],
    *,
    limits: tuple[float, float],
    label: str = "heatmap",
    cmap: str = "viridis",
) -> None:
    """Values ``(rows, columns)`` as shades over ``box`` (left, right, bottom, top), row 0 below.

    ``limits`` are the values of the darkest and of the brightest shade: the same for all pictures
    that are to be compared.
    """
    found = _find(ax, label, AxesImage)
    if found is None:
        found = ax.imshow(
            np.asarray(values), extent=box, origin="lower", cmap=cmap, zorder=0, aspect="auto"
        )
        found.set_gid(label)
    found.set_data(np.asarray(values))
    found.set_extent(box)
    found.set_clim(*limits)


def images(
    ax: Axes,
    pixels: ArrayLike,
    *,
    n_columns: int,
    top: float = 1.0,
    label: str = "images",
    cmap: str = "gray_r",
) -> None:
    """Images ``(N, H, W)`` in rows of ``n_columns``, a pixel apart; ``top`` is the darkest level.

    A NaN is drawn in blue: a pixel that is not known. Images ``(N, H, W, 3)`` are in colour, red,
    green and blue in [0, 1], and none of this is asked of them.
    """
    pixels = np.asarray(pixels, dtype=float)
    n, height, width, *colour = pixels.shape
    n_rows = -(-n // n_columns)
    size = (n_rows * (height + 1) - 1, n_columns * (width + 1) - 1)
    sheet = np.full((*size, *colour), 1.0 if colour else 0.0)  # white between them
    for i, image in enumerate(pixels):
        row, column = i // n_columns * (height + 1), i % n_columns * (width + 1)
        sheet[row : row + height, column : column + width] = image
    found = _find(ax, label, AxesImage)
    if found is None:
        found = ax.imshow(sheet, cmap=colormaps[cmap].with_extremes(bad=SKY), vmin=0, vmax=top)
        found.set_gid(label)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    found.set_data(sheet)
    found.set_extent((-0.5, sheet.shape[1] - 0.5, sheet.shape[0] - 0.5, -0.5))


def bars(
    ax: Axes,
    at: ArrayLike,
    heights: ArrayLike,
    *,
    label: str,
    color: Any = BLUE,
    width: float = 0.8,
    bottom: ArrayLike = 0.0,
    hatch: str = "",
) -> None:
    """Upright bars of the given heights, centred at ``at``, both ``(B,)``.

    The first call fixes B. ``bottom`` stacks them on others; ``hatch`` tells them apart.
    """
    at, heights = np.asarray(at, dtype=float), np.asarray(heights, dtype=float)
    bottom = np.broadcast_to(np.asarray(bottom, dtype=float), at.shape)
    found = next((c for c in ax.containers if c.get_label() == label), None)
    if found is None:
        found = ax.bar(
            at, heights, width, bottom, label=label, color=color, hatch=hatch, edgecolor="white"
        )
    for bar, x, height, y in zip(found, at, heights, bottom, strict=True):
        bar.set(x=x - width / 2, height=height, y=y)


def points(
    ax: Axes,
    xy: ArrayLike,
    *,
    label: str = "points",
    color: Any = BLUE,
    size: float = 4.0,
    marker: str = "o",
) -> None:
    """Points ``(N, 2)``, in one colour or in N colours."""
    found = _find(ax, label, PathCollection)
    if found is None:
        found = ax.scatter([], [], s=size, marker=marker, linewidths=0)
        found.set_gid(label)
    found.set_offsets(np.asarray(xy))
    found.set_facecolor(color)


def line(
    ax: Axes,
    x: ArrayLike,
    y: ArrayLike,
    *,
    label: str,
    color: str = BLUE,
    style: str = "-",
    marker: str = "",
    width: float = 1.8,
) -> Line2D:
    """A curve y over x, both ``(P,)``; the label also names it in a legend."""
    found: Line2D | None = _find(ax, label, Line2D)
    if found is None:
        (found,) = ax.plot([], [], label=label, color=color, ls=style, marker=marker, lw=width)
        found.set_gid(label)
    found.set_data(np.asarray(x), np.asarray(y))  # matplotlib walks a tensor element by element
    if ax.get_autoscalex_on() or ax.get_autoscaley_on():  # not where limits were set by hand
        ax.relim()
        ax.autoscale_view()
    return found


def band(ax: Axes, low: float, high: float, *, label: str, color: str = GREY) -> None:
    """A horizontal band between two values of y, drawn once: a region that means something."""
    if _find(ax, label, Rectangle) is None:
        ax.axhspan(low, high, color=color, alpha=0.25, lw=0, label=label).set_gid(label)


def curves(
    ax: Axes, paths: ArrayLike, *, label: str = "curves", color: Any = SKY, width: float = 0.8
) -> None:
    """M curves of P points each, ``(M, P, 2)``: a bent grid, or the paths of particles."""
    found = _find(ax, label, LineCollection)
    if found is None:
        found = LineCollection([], linewidths=width)
        found.set_gid(label)
        ax.add_collection(found, autolim=False)
    found.set_segments(list(np.asarray(paths)))
    found.set_color(color)


def legend(ax: Axes, **options: Any) -> None:
    """A legend of what is drawn so far, made once."""
    if ax.get_legend() is None:
        ax.legend(**{"fontsize": "small", "edgecolor": "none", "framealpha": 0.85} | options)


def _find(ax: Axes, label: str, kind: type) -> Any:
    """The artist of that kind and label which an earlier call has drawn, or None."""
    return next(
        (a for a in ax.get_children() if isinstance(a, kind) and a.get_gid() == label), None
    )
