"""Figures: made without pyplot, drawn to PNG, and shown with the sentence that describes them."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

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
