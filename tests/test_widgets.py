import base64
import re
import threading
import time

import pytest

from dgm_course import plots
from dgm_course.widgets import explore, live


def draw(fig, slope=1.0, n=3, kind="solid", mirror=False):
    if slope == 13.0:
        raise RuntimeError("no slope of <13>")
    (ax,) = plots.axes(fig)
    plots.line(ax, range(n), [-slope if mirror else slope] * n, label="a", color=plots.BLUE)
    ax.set(ylim=(-20, 20), title=kind)
    return f'Slope {slope}, {n} points, "{kind}", {mirror}.'


@pytest.fixture
def panel():
    return explore(draw, slope=(-20.0, 20.0), n=(2, 9), kind=["solid", "dashed"], mirror=bool)


def alt(panel):
    return re.search(r'<img alt="([^"]*)"', panel.picture.value).group(1)


def test_controls_are_inferred_and_start_at_the_defaults(panel):
    kinds = {name: type(control).__name__ for name, control in panel.controls.items()}
    assert kinds == {
        "slope": "FloatSlider",
        "n": "IntSlider",
        "kind": "ToggleButtons",
        "mirror": "Checkbox",
    }
    assert [c.value for c in panel.controls.values()] == [1.0, 3, "solid", False]
    assert alt(panel) == "Slope 1.0, 3 points, &quot;solid&quot;, False."


def test_every_control_redraws(panel):
    for name, value in {"slope": 2.0, "n": 5, "kind": "dashed", "mirror": True}.items():
        before = panel.picture.value
        panel.controls[name].value = value
        assert panel.picture.value != before
    assert alt(panel) == "Slope 2.0, 5 points, &quot;dashed&quot;, True."
    png = base64.b64decode(re.search(r"base64,([^\"]+)", panel.picture.value).group(1))
    assert png.startswith(b"\x89PNG")


def test_integers_have_a_play_button(panel):
    (pair,) = (w.children for w in panel.children[0].children if hasattr(w, "children"))
    play, slider = pair  # side by side
    assert slider is panel.controls["n"]
    play.value = 7
    assert slider.value == 7
    assert "7 points" in alt(panel)


def test_an_error_is_shown_escaped_and_raised_and_then_forgotten(panel):
    good = panel.picture.value
    with pytest.raises(RuntimeError, match="no slope"):
        panel.controls["slope"].value = 13.0
    assert 'role="alert"' in panel.error.value
    assert "no slope of &lt;13&gt;" in panel.error.value
    assert panel.picture.value == good
    panel.controls["slope"].value = 2.0
    assert panel.error.value == ""


def test_a_step_may_be_given():
    panel = explore(draw, slope=(0.0, 2.0, 0.5), n=(2, 8, 2))
    assert panel.controls["slope"].step == 0.5
    assert panel.controls["n"].step == 2


def test_the_play_button_runs_over_the_sliders_range():
    panel = explore(draw, n=(1, 9, 2))
    play, _ = panel.children[0].children[0].children
    assert (play.min, play.max, play.step) == (1, 9, 2)
    assert play.value == panel.controls["n"].value == 3


def test_integers_with_a_default_between_them_are_a_float_slider():
    panel = explore(lambda fig, slope=0.5: draw(fig, slope), slope=(0, 1))
    assert type(panel.controls["slope"]).__name__ == "FloatSlider"
    assert panel.controls["slope"].value == 0.5


def test_the_picture_has_the_size_that_was_asked_for():
    panel = explore(draw, size=(5, 3), n=(2, 8))
    assert tuple(panel.fig.get_size_inches()) == (5, 3)
    assert "width:500px" in panel.picture.value


@pytest.mark.parametrize(
    "ranges", [{"slope": (2.0, 4.0)}, {"n": (5, 9)}, {"kind": ["dashed", "dotted"]}]
)
def test_a_default_outside_the_range_is_refused(ranges):
    with pytest.raises(ValueError, match=f"{next(iter(ranges))} .*outside"):
        explore(draw, **ranges)


@pytest.mark.parametrize("ranges", [{"slope": (0.0, 2.0, 0.0)}, {"n": (2, 8, -1)}])
def test_a_step_that_is_not_positive_is_refused(ranges):
    with pytest.raises(ValueError, match="step"):
        explore(draw, **ranges)


@pytest.mark.parametrize("bad", [(1,), (2.0, 1.0), [], "ab", (1, 2, 3, 4), 3, (False, True)])
def test_other_ranges_are_refused(bad):
    with pytest.raises(ValueError, match="slope must be"):
        explore(draw, slope=bad)


def test_an_argument_that_draw_lacks_is_refused():
    with pytest.raises(ValueError, match=r"no argument 'tilt'; it has fig, slope, n"):
        explore(draw, tilt=(0.0, 1.0))


def test_the_text_without_a_kernel_names_the_controls(panel):
    bundle = panel._repr_mimebundle_()
    assert bundle["text/plain"].startswith("Interactive panel (slope, n, kind, mirror)")
    assert "application/vnd.jupyter.widget-view+json" in bundle


# --- live -----------------------------------------------------------------------------------


def count_to_three():
    yield from (0, 1, 2, 3)


def draw_count(fig, state):
    (ax,) = plots.axes(fig)
    plots.line(ax, [0, 1], [0, state], label="a")
    return f"Frame {state}."


def test_play_ticks_advance_and_stop_at_the_end():
    panel = live(count_to_three, draw_count)
    assert alt(panel) == "Frame 0."
    panel.play.playing = True
    for tick, expected in [(1, 1), (2, 2), (3, 3), (4, 3)]:
        panel.play.value = tick
        assert alt(panel) == f"Frame {expected}."
    assert not panel.play.playing
    assert panel.step.disabled


def test_a_tick_that_skips_numbers_is_one_step():
    panel = live(count_to_three, draw_count)
    panel.play.playing = True
    panel.play.value = 3
    assert alt(panel) == "Frame 1."


def test_a_run_cannot_be_set_to_repeat():
    assert not live(count_to_three, draw_count).play.show_repeat


def test_a_run_may_be_a_list():
    panel = live(lambda: [0, 1], draw_count)
    panel.step.click()
    assert alt(panel) == "Frame 1."
    panel.step.click()
    assert panel.step.disabled


def test_reset_stops_the_play():
    panel = live(count_to_three, draw_count)
    panel.play.playing = True
    panel.reset.click()
    assert not panel.play.playing


def test_the_stop_button_is_no_tick():
    panel = live(count_to_three, draw_count)
    panel.play.playing = True
    panel.play.value = 1
    panel.play.value = 0
    assert alt(panel) == "Frame 1."


def test_step_and_reset():
    panel = live(count_to_three, draw_count)
    for _ in range(6):
        panel.step.click()
    assert alt(panel) == "Frame 3."
    panel.reset.click()
    assert alt(panel) == "Frame 0."
    assert not panel.step.disabled
    panel.step.click()
    assert alt(panel) == "Frame 1."


def test_an_error_in_a_run_is_raised_stops_the_play_and_stays_in_sight():
    def broken():
        yield 0
        raise FloatingPointError("the loss is nan")

    panel = live(broken, draw_count)
    panel.play.playing = True
    with pytest.raises(FloatingPointError):
        panel.play.value += 1
    assert not panel.play.playing
    assert "the loss is nan" in panel.error.value
    panel.play.value += 1
    panel.step.click()  # the run is over; its error is not
    assert "the loss is nan" in panel.error.value


def test_an_error_in_a_drawing_stops_the_play():
    def draw_but_one(fig, state):
        if state == 1:
            raise RuntimeError("no picture of 1")
        return draw_count(fig, state)

    panel = live(count_to_three, draw_but_one)
    panel.play.playing = True
    with pytest.raises(RuntimeError, match="no picture of 1"):
        panel.play.value += 1
    assert not panel.play.playing
    assert "no picture of 1" in panel.error.value


def test_a_tick_that_comes_after_a_reset_is_ignored():
    panel = live(count_to_three, draw_count)
    panel.play.playing = True
    panel.play.value = 1
    panel.reset.click()
    panel.play.value = 2
    assert alt(panel) == "Frame 0."


@pytest.mark.parametrize(
    ("low", "high", "step"), [(-4.0, 4.0, 0.1), (-0.3, 3.0, 0.05), (0.0, 1.0, 0.01)]
)
def test_steps_are_round_numbers(low, high, step):
    panel = explore(lambda fig, a=0.5: draw(fig, a), a=(low, high))
    assert panel.controls["a"].step == pytest.approx(step)


def test_two_threads_do_not_draw_one_figure_at_once():
    inside, most = 0, 0

    def slow(fig, a=0.0):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.02)
        inside -= 1
        return draw(fig, a)

    panel = explore(slow, a=(0.0, 9.0))
    values = [1.0, 2.0, 3.0, 4.0]
    threads = [
        threading.Thread(target=setattr, args=(panel.controls["a"], "value", v)) for v in values
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
