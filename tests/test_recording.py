"""A recording shows what the panel shows."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from dgm_course import plots
from dgm_course.lectures.recording import MAX_FRAMES, _thin, record
from dgm_course.widgets import explore, live


def draw(fig, a=1.0, b=0.5, n=3, kind="x", mark=False):
    (ax,) = plots.axes(fig)
    plots.line(ax, [0, a], [0, b], label="a")
    return f'a = {a:.2f}, b = {b:.2f}, n = {n}, "{kind}", {mark}'


def frame(recording, **values):
    state = tuple(c.labels.index(values.pop(c.name)) for c in recording.controls)
    assert not values
    return recording.frames.get(state)


def test_one_slider_is_recorded_over_its_range():
    recording = record(explore(draw, n=(0, 9)))
    assert recording.controls[0].kind == "count"
    assert recording.controls[0].labels == [str(n) for n in range(10)]
    assert recording.controls[0].start == 3
    assert [f.alt for f in recording.frames.values()] == [
        f'a = 1.00, b = 0.50, n = {n}, "x", False' for n in range(10)
    ]
    assert recording.size == (640, 400)


def test_two_sliders_are_a_full_grid():
    recording = record(explore(draw, size=(2, 2), a=(0.0, 2.0), b=(0.0, 1.0)))
    a, b = recording.controls
    assert len(recording.frames) == len(a.labels) * len(b.labels) == 81
    assert (a.labels[0], a.labels[a.start], a.labels[-1]) == ("0.00", "1.00", "2.00")
    assert "a = 0.00, b = 1.00" in frame(recording, a="0.00", b="1.00").alt


def test_a_grid_has_nine_values_a_slider_or_is_none():
    recording = record(explore(draw, size=(2, 2), a=(0.0, 2.0), b=(0.0, 1.0), n=(0, 20)))
    assert [len(control.labels) for control in recording.controls] == [27, 27, 21]
    assert len(recording.frames) == 27 + 26 + 20


def test_three_sliders_are_recorded_one_at_a_time_for_each_choice():
    panel = explore(
        draw, size=(2, 2), a=(0.0, 2.0), b=(0.0, 1.0), n=(0, 20), kind=["x", "y"], mark=bool
    )
    recording = record(panel)
    assert len(recording.frames) <= MAX_FRAMES
    start = {"a": "1.00", "b": "0.50", "n": "3", "kind": "x", "mark": "False"}
    assert frame(recording, **start | {"a": "2.00", "kind": "y"}).alt.startswith("a = 2.00, b = 0")
    assert frame(recording, **start | {"a": "2.00", "b": "1.00"}) is None
    assert frame(recording, **start | {"mark": "True"}).alt.endswith("True")
    assert [control.value for control in panel.controls.values()] == [1.0, 0.5, 3, "x", False]


def test_a_frame_is_the_panels_picture():
    panel = explore(draw, a=(0.0, 2.0, 0.5), kind=["x", '"<'])
    kept = record(panel).frames[1, 1]
    panel.controls["a"].value, panel.controls["kind"].value = 0.5, '"<'
    png = re.search(r"base64,([^\"]*)", panel.picture.value)[1]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"), dtype=int)
    recorded = np.asarray(Image.open(io.BytesIO(kept.image)), dtype=int)
    assert np.abs(shown - recorded).max() <= 8  # it has fewer colours
    assert "&quot;&lt;" in panel.picture.value
    assert kept.alt == 'a = 0.50, b = 0.50, n = 3, ""<", False'


def test_a_state_is_drawn_once_however_many_controls_move():
    panel = explore(draw, size=(2, 2), a=(0.0, 2.0, 1.0), b=(0.0, 1.0, 0.5), n=(2, 4))
    drawn, redraw = [], panel.redraw

    def count(*arguments):
        drawn.append(arguments)
        redraw(*arguments)

    panel.redraw = count
    n_frames = len(record(panel).frames)
    assert n_frames == 27
    n_back = 3  # to where the controls stood
    assert n_frames - 1 <= len(drawn) <= n_frames + n_back


def test_a_live_panel_is_a_film_to_the_end_of_its_run():
    def draw_state(fig, state):
        (ax,) = plots.axes(fig)
        plots.line(ax, [0, 200], [0, state], label="a")
        ax.set(ylim=(0, 200))
        return f"after {state} steps"

    panel = live(lambda: iter(range(201)), draw_state, size=(2, 2))
    panel.step.click()
    recording = record(panel, 21)
    assert recording.is_film
    assert [f.alt for f in recording.frames.values()] == [
        f"after {n} steps" for n in [*range(0, 200, 16), 200]
    ]
    assert recording.controls[0].labels[-1] == "200"
    assert "after 0 steps" in panel.picture.value
    shorter = record(panel, 21, until=7).frames.values()
    assert [f.alt for f in shorter] == [f"after {n} steps" for n in range(8)]


def test_a_run_without_an_end_is_no_film(monkeypatch):
    def forever():
        n = 0
        while True:
            yield n
            n += 1

    monkeypatch.setattr("dgm_course.lectures.recording.MAX_STEPS", 5)
    panel = live(forever, lambda fig, state: draw(fig, a=state), size=(2, 2))
    with pytest.raises(ValueError, match="within 5 steps"):
        record(panel)


@pytest.mark.parametrize("n", [2, 3, 5, 9, 16, 40, 100, 101, 102])
@pytest.mark.parametrize("keep", [0, 1, 33, 99, 100])
def test_thinning_keeps_the_ends_and_the_start(n, keep):
    values = _thin(list(range(101)), keep, n)
    assert {keep} | ({0, 100} if n > 2 else set()) <= {*values}
    assert values == sorted({*values})
    assert len(values) <= max(n, 3)
