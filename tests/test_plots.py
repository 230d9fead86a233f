import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from dgm_course import plots


@pytest.fixture
def ax():
    return plots.axes(plots.figure())[0]


DRAWINGS = {
    "density": lambda ax, n: plots.density(ax, np.arange(100) % 7 * n, 1.0),
    "points": lambda ax, n: plots.points(ax, np.full((5, 2), n)),
    "line": lambda ax, n: plots.line(ax, [0, 1], [0, n], label="line"),
    "curves": lambda ax, n: plots.curves(ax, np.linspace(-1, n, 24).reshape(3, 4, 2)),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_drawing_again_moves_what_is_there(ax, name):
    ax.set(xlim=(-2, 2), ylim=(-2, 2))
    DRAWINGS[name](ax, 1.0)
    children = len(ax.get_children())
    first = plots.to_png(ax.figure)
    DRAWINGS[name](ax, -0.5)
    assert len(ax.get_children()) == children
    assert plots.to_png(ax.figure) != first


def test_two_labels_are_two_artists(ax):
    plots.line(ax, [0, 1], [0, 1], label="a")
    plots.line(ax, [0, 1], [1, 0], label="b")
    plots.legend(ax)
    plots.legend(ax)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b"]
    assert len(ax.lines) == 2


def test_axes_are_made_once():
    fig = plots.figure()
    assert plots.axes(fig, 2, 2) == plots.axes(fig, 2, 2)
    assert len(fig.axes) == 4


def test_density_is_the_right_way_up(ax):
    """A bump at (+, +) is drawn right and up: row 0 of the image is the bottom."""
    xy = plots.grid_points(1.0, 10)
    plots.density(ax, (xy > 0).all(1).astype(float), 1.0)
    picture = np.asarray(ax.images[0].get_array())
    assert picture[-1, -1] == 1
    assert picture[0, -1] == picture[-1, 0] == 0
    assert ax.images[0].origin == "lower"


def test_grid_points_are_cell_centres():
    xy = plots.grid_points(2.0, 4)
    assert xy.shape == (16, 2)
    np.testing.assert_allclose(xy[:4, 0], [-1.5, -0.5, 0.5, 1.5])
    np.testing.assert_allclose(xy[:4, 1], -1.5)


def test_grid_lines_run_both_ways():
    lines = plots.grid_lines(1.0, 3, 5)
    assert lines.shape == (6, 5, 2)
    assert (np.ptp(lines[:3], axis=1)[:, 0] == 0).all()
    assert (np.ptp(lines[3:], axis=1)[:, 1] == 0).all()


def test_band_is_drawn_once(ax):
    plots.band(ax, -1, 0, label="low")
    plots.band(ax, -1, 0, label="low")
    assert len(ax.patches) == 1


def test_png_has_the_size_that_was_asked_for():
    fig = plots.figure(5, 3)
    plots.axes(fig)
    assert Image.open(io.BytesIO(plots.to_png(fig))).size == (500, 300)


@pytest.mark.parametrize("said", [None, ""])
def test_a_picture_without_words_is_refused(said):
    with pytest.raises(ValueError, match="must return one sentence"):
        plots.show(lambda fig: said)


def test_show_publishes_picture_and_words(monkeypatch):
    published = {}
    monkeypatch.setattr(
        "IPython.display.display", lambda data, **options: published.update(options, data=data)
    )

    def draw(fig: Figure, slope: float = 1.0) -> str:
        plots.line(plots.axes(fig)[0], [0, 1], [0, slope], label="a")
        return f"A line of slope {slope}."

    plots.show(draw, slope=2.0)
    assert published["data"]["text/plain"] == "A line of slope 2.0."
    assert published["data"]["image/png"].startswith(b"\x89PNG")
    assert published["metadata"]["image/png"]["alt"] == "A line of slope 2.0."
