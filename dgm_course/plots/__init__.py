"""Drawing functions f(ax, arrays): each draws into the Axes that it is given.

Called again with the same Axes and label, they move what is there instead of adding to it: the
same function draws a static figure once and a slider's picture many times. No pyplot: a figure
belongs to the notebook cell or the widget that made it.
"""

from dgm_course.plots.artists import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    OKABE_ITO,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    YELLOW,
    band,
    bars,
    curves,
    density,
    grid_lines,
    grid_points,
    heatmap,
    images,
    legend,
    line,
    plane,
    points,
)
from dgm_course.plots.charts import (
    error_bars,
    grouped_bars,
    image_table,
    landscape,
    lines,
    marks,
)
from dgm_course.plots.figures import DPI, axes, describe, figure, show, to_png

__all__ = [
    "BLACK",
    "BLUE",
    "DPI",
    "GREEN",
    "GREY",
    "OKABE_ITO",
    "ORANGE",
    "PURPLE",
    "SKY",
    "VERMILION",
    "YELLOW",
    "axes",
    "band",
    "bars",
    "curves",
    "density",
    "describe",
    "error_bars",
    "figure",
    "grid_lines",
    "grid_points",
    "grouped_bars",
    "heatmap",
    "image_table",
    "images",
    "landscape",
    "legend",
    "line",
    "lines",
    "marks",
    "plane",
    "points",
    "show",
    "to_png",
]
