import io

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

from dgm_course import plots


@pytest.fixture
def ax():
    return plots.axes(plots.figure())[0]


DRAWINGS = {
    "density": lambda ax, n: plots.density(ax, np.arange(100) % 7 * n, 1.0),
    "heatmap": lambda ax, n: plots.heatmap(ax, [[0, n], [n, 1]], (-2, 2, -2, 2), limits=(-1, 1)),
    "images": lambda ax, n: plots.images(ax, np.full((3, 2, 2), abs(n)), n_columns=2),
    "bars": lambda ax, n: plots.bars(ax, [0, 1], [1, n], label="bars"),
    "points": lambda ax, n: plots.points(ax, np.full((5, 2), n)),
    "line": lambda ax, n: plots.line(ax, [0, 1], [0, n], label="line"),
    "curves": lambda ax, n: plots.curves(ax, np.linspace(-1, n, 24).reshape(3, 4, 2)),
    "lines": lambda ax, n: plots.lines(ax, [0, 1], {"a": [0, n], "b": n}, exact={"c": n / 2}),
    "marks": lambda ax, n: plots.marks(ax, {"here": (n, n), "there": (0, n)}),
    "error_bars": lambda ax, n: plots.error_bars(ax, [0, 1], [0, n], [0.1, 0.2], label="e"),
    "grouped_bars": lambda ax, n: plots.grouped_bars(
        ax, ["u", "v"], {"a": [1, n], "b": [n, 1]}, exact={"c": [n, n]}
    ),
    "stacked bars": lambda ax, n: plots.grouped_bars(
        ax, [0, 1], {"a": [1, abs(n)], "b": [1, 1]}, stacked=True
    ),
    "image_table": lambda ax, n: plots.image_table(
        ax, np.full((2, 3, 4, 4), abs(n)), rows="ab", columns="xyz"
    ),
    "landscape": lambda ax, n: plots.landscape(
        ax, np.arange(100) % 7, 2.0, samples=np.full((5, 2), n)
    ),
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


def test_density_drawn_again_has_the_new_values_and_shades(ax):
    plots.density(ax, np.ones(16), 2.0)
    plots.density(ax, np.arange(16.0), 2.0)
    (image,) = ax.images
    assert image.get_array().max() == 15
    assert image.get_clim() == (0, 15)


def test_density_drawn_again_has_the_new_extent(ax):
    plots.density(ax, np.ones(16), 2.0)
    assert list(ax.images[0].get_extent()) == [-2, 2, -2, 2]
    plots.density(ax, np.ones(16), 3.0)
    assert list(ax.images[0].get_extent()) == [-3, 3, -3, 3]


def test_points_and_curves_drawn_again_have_the_new_colour(ax):
    for color in (plots.BLUE, plots.ORANGE):
        plots.points(ax, np.zeros((2, 2)), color=color)
        plots.curves(ax, np.zeros((1, 2, 2)), color=color)
        points, curves = ax.collections
        assert tuple(points.get_facecolor()[0]) == to_rgba(color)
        assert tuple(curves.get_color()[0]) == to_rgba(color)


def test_a_line_widens_the_limits(ax):
    plots.line(ax, [0, 10], [0, 30], label="a")
    assert ax.get_xlim()[1] >= 10
    assert ax.get_ylim()[1] >= 30


def test_legend_is_made_once(ax):
    plots.line(ax, [0], [0], label="a")
    plots.legend(ax)
    first = ax.get_legend()
    plots.legend(ax)
    assert ax.get_legend() is first


def test_plane_has_equal_scales_and_names_its_letter(ax):
    plots.plane(ax, 2, letter="z")
    assert ax.get_xlim() == ax.get_ylim() == (-2, 2)
    assert ax.get_aspect() == 1
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("$z_1$", "$z_2$")


def test_the_layout_stays_put_after_the_first_picture(ax):
    plots.to_png(ax.figure)
    before = ax.get_position().bounds
    ax.set(title="three\nlines\nhigh", ylabel="y")
    plots.to_png(ax.figure)
    assert ax.get_position().bounds == before


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


def test_stamped_texts_look_as_matplotlib_sets_them(ax):
    plots.line(ax, [0, 1], [0, 1], label=r"$\alpha_0$ and words")
    plots.legend(ax)
    ax.set(title=r"$\log p(x)$, ü", xlabel="x", ylabel="upwards")
    ax.text(0.5, 0.5, "aslant", rotation=30, color="#0072B2", alpha=0.5)
    ax.text(0.95, 0.2, "cut off at the right", clip_on=True)
    for _ in range(2):  # set, then stamped
        stamped = Image.open(io.BytesIO(plots.to_png(ax.figure))).convert("RGB")
        canvas = FigureCanvasAgg(ax.figure)
        canvas.draw()
        expected = np.asarray(canvas.buffer_rgba())[..., :3]
        assert np.abs(np.asarray(stamped).astype(int) - expected).max() <= 16  # of 255
    ax.set_title("another")
    changed = Image.open(io.BytesIO(plots.to_png(ax.figure))).convert("RGB")
    assert np.abs(np.asarray(changed).astype(int) - np.asarray(stamped)).max() > 100


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


def test_show_publishes_a_small_file_of_the_size_and_many_colours(monkeypatch):
    published = {}
    monkeypatch.setattr(
        "IPython.display.display", lambda data, **options: published.update(options, data=data)
    )

    def draw(fig: Figure) -> str:
        plots.density(plots.axes(fig)[0], np.arange(100.0), 1.0)
        return "A ramp."

    plots.show(draw, size=(5, 3))
    picture = Image.open(io.BytesIO(published["data"]["image/png"]))
    assert picture.mode == "P"
    assert picture.size == (500, 300)
    assert published["metadata"]["image/png"]["width"] == 500
    assert len(picture.convert("RGB").getcolors(256)) > 50


def test_a_heatmaps_first_row_is_below(ax):
    plots.heatmap(ax, [[0, 1, 2], [3, 4, 5]], (0, 3, 10, 12), limits=(0, 5))
    assert ax.images[0].origin == "lower"
    assert ax.images[0].get_extent() == [0, 3, 10, 12]
    assert ax.images[0].get_clim() == (0, 5)


def test_images_stand_in_rows_a_pixel_apart(ax):
    pixels = np.arange(1, 4)[:, None, None] * np.ones((3, 2, 2))
    pixels[2, 0, 0] = np.nan
    plots.images(ax, pixels, n_columns=2, top=3)
    sheet = np.ma.filled(ax.images[0].get_array(), -1)
    expected = [[1, 1, 0, 2, 2], [1, 1, 0, 2, 2], [0] * 5, [-1, 3, 0, 0, 0], [3, 3, 0, 0, 0]]
    assert sheet.tolist() == expected
    assert ax.images[0].origin == "upper"
    assert ax.images[0].get_clim() == (0, 3)


def test_images_in_colour_stand_on_white(ax):
    pixels = np.zeros((2, 3, 2, 2, 3))
    pixels[1, 2] = (1, 0.5, 0)
    plots.image_table(ax, pixels, rows="ab", columns="xyz")
    sheet = ax.images[0].get_array()
    assert sheet.shape == (5, 8, 3)
    assert sheet[4, 7].tolist() == [1, 0.5, 0]
    assert not sheet[:2, :2].any()
    assert (sheet[2] == 1).all()
    assert (sheet[:, [2, 5]] == 1).all()
    assert ax.get_yticks().tolist() == [0.5, 3.5]


def test_bars_stack_and_move(ax):
    plots.bars(ax, [0, 1], [1, 2], label="a")
    plots.bars(ax, [0, 1], [3, 4], bottom=[1, 2], label="b", hatch="//")
    plots.bars(ax, [2, 3], [5, 6], bottom=1, label="b")
    a, b = ax.containers
    assert [bar.get_height() for bar in a] == [1, 2]
    assert [(bar.get_x() + bar.get_width() / 2, bar.get_y(), bar.get_height()) for bar in b] == [
        (2, 1, 5),
        (3, 1, 6),
    ]
    with pytest.raises(ValueError, match="shorter"):
        plots.bars(ax, [0], [1], label="a")


# --- charts ---------------------------------------------------------------------------------


def test_lines_differ_in_colour_and_style_and_what_is_exact_is_black_and_dashed(ax):
    plots.lines(ax, [0, 1], {"a": [0, 1], "b": [1, 2]}, exact={"c": 3.0}, xlabel="time")
    a, b, c = ax.lines
    assert a.get_color() != b.get_color()
    assert a.get_linestyle() != b.get_linestyle()
    assert (c.get_color(), c.get_linestyle()) == (plots.BLACK, "--")
    assert [list(v) for v in c.get_data()] == [[0, 1], [3, 3]]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b", "c"]
    assert ax.get_xlabel() == "time"


def test_a_line_may_bring_its_own_x_and_look(ax):
    look = {"a": {"color": plots.GREEN, "style": ""}}
    plots.lines(ax, [0, 1], {"a": ([5, 7, 9], [1, 2, 3])}, looks=look, legend_at=None)
    (a,) = ax.lines
    assert list(a.get_xdata()) == [5, 7, 9]
    assert (a.get_color(), a.get_linestyle()) == (plots.GREEN, "None")
    assert ax.get_legend() is None


def test_grouped_bars_stand_side_by_side_with_the_exact_value_over_their_middle(ax):
    plots.grouped_bars(ax, ["u", "v"], {"a": [1, 2], "b": [3, 4]}, exact={"c": [5, 6]})
    left, right = ax.containers
    for i, (a, b) in enumerate(zip(left, right, strict=True)):
        assert a.get_x() + a.get_width() == pytest.approx(b.get_x())
        assert ax.lines[0].get_xdata()[i] == pytest.approx(b.get_x())
    assert [t.get_text() for t in ax.get_xticklabels()] == ["u", "v"]
    assert left[0].get_hatch() != right[0].get_hatch()


def test_stacked_bars_stand_on_each_other(ax):
    plots.grouped_bars(ax, [0, 1], {"a": [1, 2], "b": [3, 4]}, stacked=True)
    assert [bar.get_y() for bar in ax.containers[1]] == [1, 2]


def test_error_bars_reach_two_standard_errors(ax):
    plots.error_bars(ax, [0, 1], [10, 20], [1, 2], label="e")
    (segments,) = ax.collections
    assert [s[:, 1].tolist() for s in segments.get_segments()] == [[8, 12], [16, 24]]


def test_an_image_table_names_the_middle_of_rows_and_columns(ax):
    plots.image_table(ax, np.zeros((6, 3, 4)), rows=["r", "s"], columns=["x", "y", "z"])
    assert list(ax.get_xticks()) == [1.5, 6.5, 11.5]
    assert list(ax.get_yticks()) == [1, 5]
    with pytest.raises(ValueError, match="n_columns"):
        plots.image_table(ax, np.zeros((6, 3, 4)))
