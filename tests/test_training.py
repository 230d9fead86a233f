import io
import random
import sys
import time
from contextlib import redirect_stderr

import numpy as np
import pytest
import torch
import tqdm.auto
import tqdm.notebook
from ipywidgets import Widget
from torch import nn
from torch.distributions import Distribution

from dgm_course.training import History, fit, quick, seed_everything, training_steps


@pytest.fixture
def weight():
    return nn.Parameter(torch.tensor([3.0]))


def test_seed_everything():
    def draw():
        seed_everything(7)
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    assert draw() == draw()


def test_fit_minimises_the_mean():
    weight = nn.Parameter(torch.tensor([0.0]))
    data = torch.tensor([1.0, 2.0, 6.0])
    optimizer = torch.optim.SGD([weight], lr=0.1)
    history = fit(lambda step: (weight - data) ** 2, optimizer, 200, progress=False)
    assert weight.item() == pytest.approx(3.0, abs=1e-4)
    assert len(history.loss) == 200
    assert history.loss[0] == pytest.approx(41 / 3)
    assert history.loss[-1] == pytest.approx(14 / 3)
    assert not history.interrupted


def test_fit_passes_the_step_and_runs_the_schedule(weight):
    optimizer = torch.optim.SGD([weight], lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    seen = []

    def loss(step):
        seen.append(step)
        return weight.sum()

    fit(loss, optimizer, 3, scheduler=schedule, progress=False)
    assert seen == [0, 1, 2]
    assert weight.item() == pytest.approx(3 - 1 - 0.5 - 0.25)


def test_clipping(weight):
    optimizer = torch.optim.SGD([weight], lr=1.0)
    fit(lambda step: 1000 * weight, optimizer, 1, max_grad_norm=0.5, progress=False)
    assert weight.item() == pytest.approx(2.5, abs=1e-4)


def test_clipping_is_by_the_norm_over_all_parameters():
    first, second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [first]}, {"params": [second]}], lr=1.0)
    fit(lambda step: 300 * first + 400 * second, optimizer, 1, max_grad_norm=1.0, progress=False)
    assert first.item() == pytest.approx(-0.6, abs=1e-4)
    assert second.item() == pytest.approx(-0.8, abs=1e-4)


@pytest.mark.parametrize("norm", [0, -1])
def test_a_norm_to_clip_to_must_be_positive(weight, norm):
    optimizer = torch.optim.SGD([weight], lr=1.0)
    with pytest.raises(ValueError, match="max_grad_norm must be positive"):
        fit(lambda step: weight, optimizer, 1, max_grad_norm=norm, progress=False)


@pytest.mark.parametrize(
    ("slope", "loss"),
    [("inf", lambda weight: weight.sqrt()), ("nan", lambda weight: weight * weight.sqrt())],
)
def test_a_gradient_that_is_not_finite_never_reaches_the_weights(slope, loss):
    weight = nn.Parameter(torch.tensor([0.0]))  # where both losses are 0
    optimizer = torch.optim.SGD([weight], lr=0.1)
    with pytest.raises(FloatingPointError, match=f"gradient is {slope} at step 0"):
        fit(lambda step: loss(weight), optimizer, 5, progress=False)
    assert weight.item() == 0.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_never_reaches_the_weights(weight, bad):
    optimizer = torch.optim.SGD([weight], lr=0.1)

    def loss(step):
        return weight * (bad if step == 2 else 1.0)

    with pytest.raises(FloatingPointError, match=rf"{bad} at step 2 of 5.*learning rate"):
        fit(loss, optimizer, 5, progress=False)
    assert weight.item() == pytest.approx(3.0 - 2 * 0.1)


def test_an_interrupt_keeps_what_was_done(weight):
    optimizer = torch.optim.SGD([weight], lr=0.1)

    def loss(step):
        if step == 4:
            raise KeyboardInterrupt
        return weight.sum()

    history = fit(loss, optimizer, 10, progress=False)
    assert history.interrupted
    assert len(history.loss) == 4
    assert weight.item() == pytest.approx(3.0 - 4 * 0.1)


def test_value_checks_are_off_inside_the_loop_and_on_again_after_it(weight):
    optimizer = torch.optim.SGD([weight], lr=0.1)
    inside = []

    def loss(step):
        inside.append(Distribution._validate_args)
        if step == 1:
            raise RuntimeError
        return weight.sum()

    with pytest.raises(RuntimeError):
        fit(loss, optimizer, 3, progress=False)
    assert inside == [False, False]
    assert Distribution._validate_args


def test_value_checks_are_on_while_a_run_is_suspended(weight):
    """A live panel holds its run between two steps, and other cells draw meanwhile."""
    optimizer = torch.optim.SGD([weight], lr=0.1)
    steps = training_steps(lambda step: weight.sum(), optimizer, 3)
    next(steps)
    assert Distribution._validate_args
    next(steps)
    assert Distribution._validate_args


def test_value_checks_that_were_off_stay_off(weight):
    optimizer = torch.optim.SGD([weight], lr=0.1)
    Distribution.set_default_validate_args(False)
    try:
        fit(lambda step: weight.sum(), optimizer, 1, progress=False)
        assert not Distribution._validate_args
    finally:
        Distribution.set_default_validate_args(True)


def test_a_history_is_short_to_print():
    assert len(repr(History([1.0] * 1000))) < 100


def test_fit_refuses_no_steps(weight):
    with pytest.raises(ValueError, match="n_steps must be an int of at least 1, got 0"):
        fit(lambda step: weight, torch.optim.SGD([weight], lr=0.1), 0)


@pytest.mark.parametrize(("value", "steps"), [("1", 2), ("", 40), ("0", 40)])
def test_quick_shrinks_the_run(monkeypatch, weight, value, steps):
    monkeypatch.setenv("DGM_COURSE_QUICK", value)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    history = fit(lambda step: weight.sum(), optimizer, 40, progress=False)
    assert len(history.loss) == steps
    assert quick() == (value == "1")


def test_quick_leaves_one_step_at_least(monkeypatch, weight):
    monkeypatch.setenv("DGM_COURSE_QUICK", "1")
    optimizer = torch.optim.SGD([weight], lr=0.1)
    assert len(fit(lambda step: weight.sum(), optimizer, 7, progress=False).loss) == 1


def test_a_run_without_progress_shows_no_bar(capsys, weight):
    def slow_loss(step):
        time.sleep(0.2)  # together longer than the bar would wait
        return weight.sum()

    fit(slow_loss, torch.optim.SGD([weight], lr=0.1), 4, progress=False)
    assert capsys.readouterr().err == ""


def test_a_short_run_shows_no_bar(capsys, weight):
    fit(lambda step: weight.sum(), torch.optim.SGD([weight], lr=0.1), 4)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_notebook_bar_leaves_nothing(monkeypatch, weight, interrupted):
    shown, closed = [], []

    class Handle:
        def update(self, data, **options):
            shown.append(data)

    def display(data, **options):
        shown.append(dict(data))
        return Handle()

    def loss(step):
        if interrupted and step == 2:
            raise KeyboardInterrupt
        return weight.sum()

    monkeypatch.setattr(tqdm.auto, "tqdm", tqdm.notebook.tqdm)
    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr(Widget, "close", lambda self: closed.append(self))
    fit(loss, torch.optim.SGD([weight], lr=0.1), 4)
    assert "text/plain" not in shown[0]
    assert shown[-1] == {}
    assert closed


def test_the_terminal_bar_shows_the_loss_and_leaves_nothing(weight):
    optimizer = torch.optim.SGD([weight], lr=0.0)

    def slow_loss(step):
        time.sleep(0.2)  # the bar waits half a second before it shows itself
        return weight.sum()

    with redirect_stderr(io.StringIO()) as stream:
        fit(slow_loss, optimizer, 5)
    assert "loss 3.000" in stream.getvalue()
    assert not stream.getvalue().rsplit("\r", 2)[1].strip()


@pytest.mark.parametrize(("value", "is_shown"), [("", True), ("1", False)])
def test_a_variable_takes_every_bar_away(monkeypatch, weight, value, is_shown):
    """As the site's recorder does, which shows a bar of its own. It is read by tqdm's import."""
    monkeypatch.setenv("TQDM_DISABLE", value)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tqdm"]:
        monkeypatch.delitem(sys.modules, name)
    with redirect_stderr(io.StringIO()) as stream:
        fit(lambda step: time.sleep(0.2) or weight.sum(), torch.optim.SGD([weight], lr=0.1), 5)
    assert ("loss" in stream.getvalue()) == is_shown
