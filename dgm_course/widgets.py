"""Sliders and play buttons around any drawing function, in JupyterLab, Notebook 7, Colab, Voilà.

Everything goes through ``observe``: setting a control's ``.value`` from Python redraws the picture
as a reader's hand does, and an exception in a drawing function reaches whoever set the value.
"""

from __future__ import annotations

import base64
import html
import inspect
import math
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ipywidgets as ipw

from dgm_course import plots

Draw = Callable[..., str]


class Panel(ipw.VBox):
    """Controls above one picture, and an error below it where a drawing function has raised one."""

    def __init__(self, controls: list[ipw.Widget], size: tuple[float, float], text: str) -> None:
        self.fig = plots.figure(*size)
        self.picture = ipw.HTML()
        self.error = ipw.HTML()
        self.text = text
        self.lock = threading.RLock()  # some front ends call back from more than one thread
        row = ipw.Layout(flex_flow="row wrap", align_items="center")
        super().__init__([ipw.HBox(controls, layout=row), self.picture, self.error])

    def redraw(self, draw: Draw, values: dict[str, Any]) -> None:
        """Show what ``draw(fig, **values)`` makes of the figure."""
        alt = html.escape(plots.describe(draw, self.fig, values), quote=True)
        png = base64.b64encode(plots.to_png(self.fig)).decode()
        width = int(self.fig.get_figwidth() * plots.DPI)
        self.error.value = ""
        self.picture.value = (
            f'<img alt="{alt}" src="data:image/png;base64,{png}" '
            f'style="width:{width}px; max-width:100%">'
        )

    @contextmanager
    def showing_errors(self) -> Iterator[None]:
        """Show an exception where the reader looks: a front end swallows what a callback raises."""
        try:
            yield
        except Exception:
            message = html.escape(traceback.format_exc(limit=-3))
            self.error.value = f'<pre role="alert" style="color:#a40000">{message}</pre>'
            raise

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        # What shows where no kernel runs, on GitHub for one, instead of VBox(children=(...)).
        bundle: dict[str, Any] = super()._repr_mimebundle_(**options)
        return bundle | {"text/plain": self.text}


def explore(draw: Draw, *, size: tuple[float, float] = (6.4, 4.0), **ranges: Any) -> Panel:
    """A control for each named argument of ``draw``, and the picture that it draws.

    Args:
        draw: ``draw(fig, **values)`` updates the artists of the figure that it is given and
            returns one sentence that says what the picture shows (its alternative text). The
            defaults of its arguments are where the controls start.
        size: width and height of the picture in inches, 100 pixels each.
        ranges: for each argument ``(low, high)`` or ``(low, high, step)``: a slider, for integers
            with a play button; a list: a button for each option; ``bool``: a checkbox.

    Returns:
        The panel; as a cell's last line it is shown. ``panel.controls[name].value = …`` moves it.

    Raises:
        ValueError: for a range that is none of these, or an argument that ``draw`` does not have.
    """
    parameters = inspect.signature(draw).parameters
    controls: dict[str, ipw.Widget] = {}
    row: list[ipw.Widget] = []
    for name, choice in ranges.items():
        if name not in parameters:
            raise ValueError(f"draw has no argument {name!r}; it has {', '.join(parameters)}")
        controls[name] = control = _control(name, choice, parameters[name].default)
        row.append(control)
        if isinstance(control, ipw.IntSlider):
            range_ = {trait: getattr(control, trait) for trait in ("min", "max", "step", "value")}
            play = ipw.Play(interval=200, **range_)
            ipw.link((play, "value"), (control, "value"))
            row[-1] = ipw.HBox([play, control])  # side by side on a narrow screen, too
    panel = Panel(row, size, f"Interactive panel ({', '.join(ranges)}): run the cell to use it.")
    panel.controls = controls

    def update(_: Any = None) -> None:
        with panel.lock, panel.showing_errors():
            panel.redraw(draw, {name: control.value for name, control in controls.items()})

    for control in controls.values():
        control.observe(update, names="value")
    update()
    return panel


def live(
    steps: Callable[[], Iterator[Any]], draw: Draw, *, size: tuple[float, float] = (6.4, 4.0)
) -> Panel:
    """Play, pause, step and reset around a training run, and the picture of where it stands.

    Args:
        steps: a function without arguments that starts a run anew and returns its iterator (a
            generator function: it seeds, builds the model, and yields after every few steps).
        draw: ``draw(fig, state)`` draws what the iterator yielded last, and returns a sentence.
        size: width and height of the picture in inches, 100 pixels each.

    Returns:
        The panel, with ``play``, ``step`` and ``reset``; it stops by itself when the run ends.
    """
    play = ipw.Play(min=0, max=100_000, interval=200, show_repeat=False)
    step = ipw.Button(description="Step", tooltip="One step further")
    reset = ipw.Button(description="Reset", tooltip="Start the run anew")
    panel = Panel(
        [play, step, reset], size, "Live panel (play, step, reset): run the cell to use it."
    )
    panel.play, panel.step, panel.reset = play, step, reset
    run = iter(steps())

    def advance(_: Any = None) -> None:
        try:
            with panel.lock, panel.showing_errors():
                for state in run:
                    panel.redraw(draw, {"state": state})
                    return
        except Exception:
            play.playing = False  # or the next tick would wipe the error away
            raise
        play.playing = False
        step.disabled = True

    def restart(_: Any = None) -> None:
        nonlocal run
        with panel.lock:
            play.playing = False
            step.disabled = False
            run = iter(steps())
            advance()

    def tick(change: dict[str, Any]) -> None:
        # The stop button sets the value back to 0, and a tick may come late, after a reset.
        if play.playing and change["new"] > change["old"]:
            advance()

    play.observe(tick, names="value")
    step.on_click(advance)
    reset.on_click(restart)
    advance()
    return panel


def _control(name: str, choice: Any, default: Any) -> ipw.Widget:
    """The control that a range asks for, at the default where there is one."""
    start = {} if default is inspect.Parameter.empty else {"value": default}
    style, layout = {"description_width": f"{max(4.5, 0.6 * len(name)):.1f}em"}, {"width": "270px"}
    common: dict[str, Any] = {"description": name, "style": style, "layout": layout, **start}
    if choice is bool:
        return ipw.Checkbox(indent=False, **common)
    if isinstance(choice, list) and choice:
        if start and default not in choice:
            raise ValueError(f"{name} starts at {default!r}, outside {choice}")
        # No dropdown: JupyterLab takes its arrow keys for itself, and moves to another cell.
        style |= {"description_width": "initial", "button_width": "auto"}
        layout |= {"width": "auto", "margin": "2px 2em 2px 2px", "display": "flex"}
        layout |= {"align_items": "baseline", "grid_gap": "0.6em"}
        return ipw.ToggleButtons(options=choice, **common)
    numbers = isinstance(choice, tuple) and all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in choice
    )
    if numbers and len(choice) in (2, 3) and choice[0] < choice[1]:
        low, high, step = (*choice, None)[:3]
        if start and not low <= default <= high:
            raise ValueError(f"{name} starts at {default}, outside its range {low} to {high}")
        if step is not None and step <= 0:
            raise ValueError(f"{name} must have a positive step, got {step}")
        if all(isinstance(v, int) for v in (*choice, default if start else low)):
            return ipw.IntSlider(min=low, max=high, step=step or 1, **common)
        step = step or _round_step(high - low)
        return ipw.FloatSlider(min=low, max=high, step=step, **common)
    raise ValueError(
        f"{name} must be (low, high), (low, high, step), a non-empty list or bool, got {choice!r}"
    )


def _round_step(width: float) -> float:
    """1, 2 or 5 times a power of ten near a hundredth of the range: round values can be reached."""
    power = 10.0 ** math.floor(math.log10(width / 100))
    return power * min((1, 2, 5, 10), key=lambda m: abs(math.log(width / 100 / power / m)))
