"""What a panel shows, as frames for a page where no kernel runs.

A recording drives a panel of `dgm_course.widgets` as a reader does, by its controls, and keeps the
picture of each state. A script of a few lines then swaps the frames under the same controls.
"""

from __future__ import annotations

import base64
import html
import io
import itertools
import re
from typing import Any, NamedTuple

from PIL import Image

MAX_FRAMES = 81  # of one panel: a full grid of two sliders at nine values each
MAX_VALUES = 41  # of one slider: more are not told apart by hand
MAX_STEPS = 2_000  # of a live run, before frames are chosen
COLOURS = 160  # of a frame: a seventh fewer bytes than 256, and no bands that the eye finds


class Control(NamedTuple):
    """A control: its name and kind, the texts of its values, and which of them it starts at.

    The kinds: a "slider", a "count" (of integers: it can be played), a "choice", a "tick".
    """

    name: str
    kind: str
    labels: list[str]
    start: int


class Frame(NamedTuple):
    """A picture as lossless WebP, and the sentence that says what it shows."""

    image: bytes
    alt: str


class Recording(NamedTuple):
    """Controls, and the frame of each recorded state: the controls' positions in order.

    A film (a live panel) has one control, its steps.
    """

    controls: list[Control]
    frames: dict[tuple[int, ...], Frame]
    is_film: bool
    size: tuple[int, int]


def record(panel: Any, most: int = MAX_FRAMES, *, until: int | None = None) -> Recording:
    """The frames of a panel of `explore` or `live`, about ``most`` of them.

    `explore`: the full grid of its controls' values, where that stays within the budget with at
    least nine values a slider; else each slider by itself, with the others where they start, for
    each combination of the other kinds of controls. `live`: the run to its end (or to step
    ``until``), in even steps, of which there are more than half of ``most``.

    Raises:
        ValueError: if the run of a live panel does not end within `MAX_STEPS`.
    """
    return _states(panel, most) if hasattr(panel, "controls") else _film(panel, most, until)


def _states(panel: Any, most: int) -> Recording:
    widgets = list(panel.controls.values())
    choices = [_choices(widget) for widget in widgets]
    sliders = [i for i, widget in enumerate(widgets) if hasattr(widget, "step")]
    combinations = 1
    for i in set(range(len(widgets))) - {*sliders}:
        combinations *= len(choices[i])
    room = max(most // combinations, 1)
    n = min(int(room ** (1 / len(sliders))), MAX_VALUES) if sliders else 0
    is_grid = not sliders or n >= 9 or all(len(choices[i]) <= n for i in sliders)
    if not is_grid:
        n = min(max(room // len(sliders), 3), MAX_VALUES)
    values = [_thin(c, w.value, n) if hasattr(w, "step") else c
              for c, w in zip(choices, widgets, strict=True)]  # fmt: skip
    start = tuple(v.index(w.value) for v, w in zip(values, widgets, strict=True))
    frames: dict[tuple[int, ...], Frame] = {}
    draw, last = panel.redraw, []
    panel.redraw = lambda *arguments: last.append(arguments)
    try:
        for state in itertools.product(*(range(len(v)) for v in values)):
            if not is_grid and sum(state[i] != start[i] for i in sliders) > 1:
                continue
            for i in range(len(widgets)):  # no observer fires where nothing changes
                widgets[i].value = values[i][state[i]]
            if last:  # one picture, however many controls have moved
                draw(*last.pop())
                last.clear()
            frames[state] = _frame(panel)
    finally:
        panel.redraw = draw
    for i, widget in enumerate(widgets):
        widget.value = values[i][start[i]]
    controls = [
        Control(name, _kind(widget), [_label(v, widget) for v in values[i]], start[i])
        for i, (name, widget) in enumerate(panel.controls.items())
    ]
    return Recording(controls, frames, False, _size(frames[start]))


def _film(panel: Any, most: int, until: int | None) -> Recording:
    pictures: dict[int, str] = {}
    every, n_steps, draw = 1, -1, panel.redraw
    last: tuple[Any, ...] = ()

    def keep() -> None:
        draw(*last)
        pictures[n_steps] = panel.picture.value

    def redraw_some(*arguments: Any) -> None:
        # A run's length is not known before its end: draw every step, then every second, and so on.
        nonlocal n_steps, last
        n_steps, last = n_steps + 1, arguments
        if n_steps % every == 0:
            keep()

    panel.redraw = redraw_some
    try:
        panel.reset.click()
        while not panel.step.disabled and n_steps != until:
            panel.step.click()
            if n_steps > MAX_STEPS:
                raise ValueError(f"a live run must end within {MAX_STEPS} steps to be a film")
            if len(pictures) >= most:
                every *= 2
                pictures = {i: pictures[i] for i in pictures if i % every == 0}
        keep()
    finally:
        panel.redraw = draw
    frames: dict[tuple[int, ...], Frame] = {
        (i,): _frame_of(picture) for i, picture in enumerate(pictures.values())
    }
    panel.reset.click()
    control = Control("step", "count", [str(step) for step in pictures], 0)
    return Recording([control], frames, True, _size(frames[0,]))


def _choices(widget: Any) -> list[Any]:
    if hasattr(widget, "options"):
        return list(widget.options)
    if isinstance(widget.value, bool):
        return [False, True]
    n_steps = int((widget.max - widget.min) / widget.step + 1e-9)
    values = [widget.min + i * widget.step for i in range(n_steps + 1)]
    if isinstance(widget.value, float):
        values = [round(value, 9) for value in values]
    nearest = min(range(len(values)), key=lambda i: abs(values[i] - widget.value))
    values[nearest] = widget.value  # exactly, without a rounding error
    return values


def _thin(values: list[Any], keep: Any, n: int) -> list[Any]:
    """About n of the values, evenly: both ends, and ``keep``."""
    if len(values) <= n:
        return values
    at = values.index(keep)
    below = round((n - 1) * at / (len(values) - 1))
    below = min(max(below, at > 0), n - 1 - (at < len(values) - 1))
    left = [values[round(i * at / below)] for i in range(below)]
    above = n - 1 - below
    right = [values[at + round(i * (len(values) - 1 - at) / above)] for i in range(1, above + 1)]
    return [*left, keep, *right]


def _kind(widget: Any) -> str:
    if hasattr(widget, "step"):
        return "count" if isinstance(widget.value, int) else "slider"
    return "choice" if hasattr(widget, "options") else "tick"


def _label(value: Any, widget: Any) -> str:
    is_float = hasattr(widget, "step") and isinstance(value, float)
    return f"{value:.2f}" if is_float else str(value)


def _frame(panel: Any) -> Frame:
    return _frame_of(panel.picture.value)


def _frame_of(picture: str) -> Frame:
    found = re.fullmatch(r'<img alt="(.*?)" src="data:image/png;base64,(.*?)".*', picture, re.S)
    if found is None:
        raise ValueError(f"a panel's picture must be an image with alt and src, got {picture[:80]}")
    shown = Image.open(io.BytesIO(base64.b64decode(found[2])))
    image = shown.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="webp", lossless=True, quality=60, method=3)
    return Frame(buffer.getvalue(), html.unescape(found[1]))


def _size(frame: Frame) -> tuple[int, int]:
    return Image.open(io.BytesIO(frame.image)).size
