import io
import random
import time
from contextlib import redirect_stderr

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Distribution

from dgm_course.training import fit, quick, seed_everything, training_steps


@pytest.fixture
def weight():
    return nn.Parameter(torch.tensor([3.0]))


def test_seed_everything():
    def draw():
        seed_everything(7)
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    assert draw() == draw()


def test_fit_minimises_the_mean(weight):
    data = torch.tensor([1.0, 2.0, 6.0])
    optimizer = torch.optim.SGD([weight], lr=0.1)
    history = fit(lambda step: (weight - data) ** 2, optimizer, 200, progress=False)
    assert weight.item() == pytest.approx(3.0, abs=1e-4)
    assert len(history.loss) == 200
    assert history.loss[0] == pytest.approx(14 / 3)
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

    # A live panel's run is suspended between steps: the switch must be back meanwhile.
    next(training_steps(lambda step: weight.sum(), optimizer, 3))
    assert Distribution._validate_args


def test_fit_refuses_no_steps(weight):
    with pytest.raises(ValueError, match="n_steps must be at least 1, got 0"):
        fit(lambda step: weight, torch.optim.SGD([weight], lr=0.1), 0)


@pytest.mark.parametrize(("value", "steps"), [("1", 2), ("", 40), ("0", 40)])
def test_quick_shrinks_the_run(monkeypatch, weight, value, steps):
    monkeypatch.setenv("DGM_COURSE_QUICK", value)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    history = fit(lambda step: weight.sum(), optimizer, 40, progress=False)
    assert len(history.loss) == steps
    assert quick() == (value == "1")


def test_the_terminal_bar_shows_the_loss_and_leaves_nothing(weight):
    optimizer = torch.optim.SGD([weight], lr=0.0)

    def slow_loss(step):
        time.sleep(0.2)  # the bar waits half a second before it shows itself
        return weight.sum()

    with redirect_stderr(io.StringIO()) as stream:
        fit(slow_loss, optimizer, 5)
    assert "loss 3.000" in stream.getvalue()
    assert not stream.getvalue().rsplit("\r", 2)[1].strip()
