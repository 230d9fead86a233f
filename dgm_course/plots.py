"""Drawing functions f(ax, arrays): each draws into the Axes that it is given.

Called again with the same Axes and label, they move what is there instead of adding to it: the
same function draws a static figure once and a slider's picture many times. No pyplot: a figure
belongs to the notebook cell or the widget that made it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike
from PIL import Image

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
DPI = 100


def figure(width: float = 6.4, height: float = 4.0) -> Figure:
    """An empty figure of that size in inches, with room made for its labels."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)  # inches; titles touch the edge else
    return Figure(figsize=(width, height), dpi=DPI, layout=layout)


def axes(fig: Figure, n_rows: int = 1, n_columns: int = 1, **options: Any) -> Sequence[Axes]:
    """The figure's Axes, row by row: made on the first call, the same ones afterwards."""
    if not fig.axes:
        for ax in fig.subplots(n_rows, n_columns, squeeze=False, **options).flat:
            ax.locator_params(nbins=5)  # few labels: most of the drawing time goes into text
    return fig.axes


class _Renderer(RendererAgg):
    """Sets a text once, and stamps its picture from then on: text is half the cost of a redraw."""

    def draw_text(
        self,
        gc: Any,
        x: float,
        y: float,
        s: str,
        prop: Any,
        angle: float,
        ismath: Any = False,
        mtext: Any = None,
    ) -> None:
        left, top = math.floor(x), math.floor(y)
        within = (round(x - left, 2), round(y - top, 2))  # texts stand between pixels, too
        image, right, down = _stamp(s, prop, angle, gc.get_rgb(), within, self.dpi, ismath)
        self.draw_image(gc, left + right, self.height - (top + down), image)


@lru_cache(maxsize=2000)
def _stamp(
    s: str, prop: Any, angle: float, colour: Any, within: Any, dpi: float, is_math: Any = False
) -> tuple[Any, int, int]:
    """A text as RGBA, bottom row first, and how far right and down of its anchor it begins."""
    paper = RendererAgg(1, 1, dpi)
    reach = math.ceil(math.hypot(*paper.get_text_width_height_descent(s, prop, is_math)[:2])) + 8
    paper = RendererAgg(2 * reach, 2 * reach, dpi)
    gc = paper.new_gc()
    gc.set_foreground(colour, isRGBA=True)
    paper.draw_text(gc, reach + within[0], reach + within[1], s, prop, angle, is_math)
    image = np.array(paper.buffer_rgba())
    rows, columns = (np.flatnonzero(image[..., 3].any(axis)) for axis in (1, 0))
    if not len(rows):
        return image[:1, :1], 0, 0
    image = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return image[::-1].copy(), int(columns[0]) - reach, int(rows[-1]) + 1 - reach


class _Canvas(FigureCanvasAgg):
    def get_renderer(self) -> RendererAgg:
        if not hasattr(self, "renderer"):  # the layout asks for it, too, while it draws
            self.renderer = _Renderer(*self.get_width_height(physical=True), self.figure.dpi)
        return self.renderer


def to_png(fig: Figure, *, small: bool = False) -> bytes:
    """The figure as PNG. After the first call the layout stays put, so that nothing jumps.

    Args:
        fig: the figure, at `DPI`.
        small: spend time on size, with 256 colours: a third of the bytes, for what is stored.
    """
    canvas = _Canvas(fig)
    canvas.draw()  # once; Figure.savefig draws twice
    fig.set_layout_engine("none")
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    if small:
        # MAXCOVERAGE keeps the colour of a thin line beside a large smooth area.
        picture = picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    picture.save(buffer, format="png", compress_level=9 if small else 1)
    return buffer.getvalue()


def show(
    draw: Callable[..., str | None], *, size: tuple[float, float] = (6.4, 4.0), **values: Any
) -> None:
    """Show the figure that ``draw(fig, **values)`` draws, with the sentence it returns as its text.

    The sentence is the picture's alternative text, stored where nbconvert looks for it; ``dgm run
    --in-place`` copies it to where MyST-NB does. It is also the output's plain text, which nbval
    compares.

    Raises:
        ValueError: if draw returns no sentence.
    """
    from IPython.display import display

    fig = figure(*size)
    alt = describe(draw, fig, values)
    data = {"image/png": to_png(fig, small=True), "text/plain": alt}
    display(data, metadata={"image/png": {"alt": alt, "width": int(size[0] * DPI)}}, raw=True)


def describe(draw: Callable[..., str | None], fig: Figure, values: dict[str, Any]) -> str:
    """Call ``draw(fig, **values)`` and return the sentence that it must return."""
    # A fixed height for titles: finding a free one costs a third of the drawing.
    with rc_context({"axes.titley": 1.0}):
        alt = draw(fig, **values)
    if not isinstance(alt, str) or not alt:
        raise ValueError(
            "draw must return one sentence that says what the picture shows, for those who cannot "
            f"see it; got {alt!r}"
        )
    return alt


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

    A NaN is drawn in blue: a pixel that is not known.
    """
    pixels = np.asarray(pixels, dtype=float)
    n, height, width = pixels.shape
    n_rows = -(-n // n_columns)
    sheet = np.zeros((n_rows * (height + 1) - 1, n_columns * (width + 1) - 1))
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
) -> None:
    """A curve y over x, both ``(P,)``; the label also names it in a legend."""
    found = _find(ax, label, Line2D)
    if found is None:
        (found,) = ax.plot([], [], label=label, color=color, ls=style, marker=marker, lw=width)
        found.set_gid(label)
    found.set_data(np.asarray(x), np.asarray(y))  # matplotlib walks a tensor element by element
    if ax.get_autoscalex_on() or ax.get_autoscaley_on():  # not where limits were set by hand
        ax.relim()
        ax.autoscale_view()


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
