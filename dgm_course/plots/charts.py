"""Charts of several artists by their names: what the lectures draw again and again.

The first mapping holds what was computed or learned, in colours, styles and markers by its order;
``exact`` holds what it should have reached, in black. Further keywords are settings of the Axes
(``title=``, ``xlabel=``, ``xlim=`` …).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from dgm_course.plots.artists import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    bars,
    curves,
    density,
    images,
    legend,
    line,
    plane,
    points,
)

# Told apart by any eye, and without colour by the style, the hatch or the marker.
COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, GREY)
STYLES = ("-", "--", "-.", (0, (4, 1, 1, 1, 1, 1)), (0, (7, 2)), (0, (2, 1)), "-")
MARKERS = ("X", "D", "s", "^", "o", "v", "P")
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "--")


def lines(
    ax: Axes,
    x: ArrayLike,
    values: Mapping[str, Any],
    *,
    exact: Mapping[str, Any] | None = None,
    legend_at: str | None = "best",
    looks: Mapping[str, Mapping[str, Any]] | None = None,
    **settings: Any,
) -> None:
    """Curves over x by their names.

    Args:
        ax: where to draw.
        x: ``(P,)``.
        values: name to y ``(P,)``; a number is a horizontal line from the least to the largest x;
            a tuple ``(x, y)`` brings an x of its own.
        exact: the same for closed forms: black, the first one dashed.
        legend_at: the legend's place, as matplotlib names it; None for no legend. It names what is
            drawn so far: draw `marks` first.
        looks: name to keywords of `line`, for a curve that must look otherwise.
        **settings: of the Axes.
    """
    x, looks = np.asarray(x), looks or {}
    own = zip(values.items(), cycle(zip(COLORS, STYLES, strict=True)))
    oracles = zip((exact or {}).items(), cycle([(BLACK, "--"), (BLACK, ":"), (BLACK, "-.")]))
    for (name, y), (color, style) in (*own, *oracles):
        at, heights = y if isinstance(y, tuple) else (x, y)
        if np.ndim(heights) == 0:
            at, heights = [np.min(at), np.max(at)], [heights, heights]
        look = {"color": color, "style": style} | dict(looks.get(name, {}))
        line(ax, at, heights, label=name, **look)
    _finish(ax, legend_at, settings)


def marks(ax: Axes, places: Mapping[str, tuple[Any, Any]], **look: Any) -> None:
    """Single points ``(x, y)``, or a few ``(x (P,), y (P,))``, by their names: "here", "best".

    They are drawn above what else is there.
    """
    colors = cycle((VERMILION, ORANGE, GREEN, PURPLE, BLACK, SKY, BLUE))
    for (name, (x, y)), color, marker in zip(places.items(), colors, cycle(MARKERS)):
        shown = {"color": color, "marker": marker} | look
        found = line(ax, np.atleast_1d(x), np.atleast_1d(y), label=name, style="", **shown)
        found.set(zorder=3, markersize=8)  # seen among the points of a curve


def error_bars(
    ax: Axes,
    at: ArrayLike,
    values: ArrayLike,
    errors: ArrayLike,
    *,
    label: str,
    color: str = BLUE,
    marker: str = "o",
) -> None:
    """Values ± two standard errors, all ``(B,)``: an interval that should cover in 95 of 100."""
    at, values, errors = (np.asarray(v, dtype=float) for v in (at, values, errors))
    line(ax, at, values, label=label, color=color, style="", marker=marker)
    ends = np.stack([values - 2 * errors, values + 2 * errors], 1)  # (B, 2)
    curves(
        ax, np.stack([np.stack([at, at], 1), ends], 2), label=f"{label}, error", color=color,
        width=1.5,
    )  # fmt: skip


def grouped_bars(
    ax: Axes,
    at: Any,
    heights: Mapping[str, ArrayLike],
    *,
    exact: Mapping[str, ArrayLike] | None = None,
    legend_at: str | None = "best",
    stacked: bool = False,
    **settings: Any,
) -> None:
    """Bars side by side (or ``stacked``) at B places, beside what they should have reached.

    Args:
        ax: where to draw.
        at: ``(B,)`` places, or B names for the places 0 … B − 1.
        heights: name to ``(B,)``.
        exact: name to ``(B,)``, drawn as black marks over each group.
        legend_at: the legend's place; None for no legend.
        stacked: one on the other instead of side by side.
        **settings: of the Axes.
    """
    if len(at) and isinstance(at[0], str):
        settings = {"xticks": range(len(at)), "xticklabels": at} | settings
        at = np.arange(len(at))
    places = np.asarray(at, dtype=float)
    gap = float(np.diff(places).min()) if len(places) > 1 else 1.0
    width = 0.8 * gap / (1 if stacked else max(len(heights), 1))
    bottom = np.zeros(len(places))
    for i, (name, height) in enumerate(heights.items()):
        shift = 0.0 if stacked else (i - (len(heights) - 1) / 2) * width
        look = {"color": COLORS[i % len(COLORS)], "hatch": HATCHES[i % len(HATCHES)]}
        bars(ax, places + shift, height, label=name, width=width, bottom=bottom, **look)
        if stacked:
            bottom = bottom + np.asarray(height, dtype=float)
    for (name, height), marker in zip((exact or {}).items(), cycle("oDs")):
        line(ax, places, height, label=name, color=BLACK, style="", marker=marker)
    _finish(ax, legend_at, settings)


def image_table(
    ax: Axes,
    pixels: ArrayLike,
    *,
    rows: Sequence[Any] | None = None,
    columns: Sequence[Any] | None = None,
    n_columns: int | None = None,
    top: float = 1.0,
    **settings: Any,
) -> None:
    """Images ``(N, H, W)``, or ``(rows, columns, H, W)``, in a table with named rows and columns.

    ``top`` is the darkest level, a NaN a pixel that is not known. Without names of the columns
    give ``n_columns``. In colour they are ``(rows, columns, H, W, 3)``.
    """
    pixels = np.asarray(pixels, dtype=float)
    if pixels.ndim > 3:
        n_columns = pixels.shape[1]
        pixels = pixels.reshape(-1, *pixels.shape[2:])
    if n_columns is None:
        if columns is None:
            raise ValueError("image_table needs columns= or n_columns= for images (N, H, W)")
        n_columns = len(columns)
    height, width = pixels.shape[1:3]
    images(ax, pixels, n_columns=n_columns, top=top)
    if columns is not None:
        ax.set_xticks(np.arange(n_columns) * (width + 1) + (width - 1) / 2, columns)
    if rows is not None:
        ax.set_yticks(np.arange(len(rows)) * (height + 1) + (height - 1) / 2, rows)
    ax.tick_params(length=0)
    ax.set(**settings)


def landscape(
    ax: Axes,
    values: ArrayLike,
    extent: float,
    *,
    samples: ArrayLike | None = None,
    title: str = "",
    top: float | None = None,
    letter: str = "x",
    color: Any = ORANGE,
    size: float = 4.0,
) -> None:
    """A density on [−extent, extent]², ``(n²,)`` as `density` takes it, under its samples."""
    density(ax, values, extent, top=top)
    if samples is not None:
        points(ax, samples, label="samples", color=color, size=size)
    plane(ax, extent, title, letter=letter)


def _finish(ax: Axes, legend_at: str | None, settings: Mapping[str, Any]) -> None:
    ax.set(**settings)
    if legend_at is not None:
        legend(ax, loc=legend_at)
