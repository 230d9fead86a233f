"""Seeding, and the one training loop of the course."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dgm_course.checks import check_count, check_number, check_tensor, unchecked_values

if TYPE_CHECKING:  # its first import takes a second, which whoever trains pays anyway
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002, the global stream is the one that other code draws from
    torch.manual_seed(seed)


def quick() -> bool:
    """Whether DGM_COURSE_QUICK asks for a twentieth of the training steps (slow laptops)."""
    return os.environ.get("DGM_COURSE_QUICK", "") not in ("", "0")


@dataclass
class History:
    """The loss of each step that was taken, and whether the reader stopped the run early."""

    loss: list[float] = field(default_factory=list, repr=False)
    interrupted: bool = False


def training_steps(
    loss: Callable[[int], Tensor],
    optimizer: Optimizer,
    n_steps: int,
    scheduler: LRScheduler | None = None,
    max_grad_norm: float | None = None,
) -> Iterator[float]:
    """The steps of `fit`, one for each loss that is asked for: a live panel takes a few a tick."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for step in range(n_steps):
        # The second, for gradients also under ``no_grad``.
        with unchecked_values(), torch.inference_mode(False):
            optimizer.zero_grad()
            check_tensor(losses := loss(step), "what loss returns")
            value = losses.mean()
            _check_finite(number := value.item(), "loss", step, n_steps)
            value.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm or math.inf).item()
            _check_finite(norm, "norm of the gradient", step, n_steps)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
        yield number


def fit(
    loss: Callable[[int], Tensor],
    optimizer: Optimizer,
    n_steps: int,
    *,
    scheduler: LRScheduler | None = None,
    max_grad_norm: float | None = None,
    progress: bool = True,
) -> History:
    """Minimise the mean of ``loss(step)`` by ``n_steps`` steps of the optimiser.

    Args:
        loss: maps the step's number, from 0, to losses per example ``(N,)`` in nats, or a scalar.
            It draws its own batch, on the device where the weights are.
        optimizer: any whose ``step`` needs no closure; its parameters are trained and clipped.
        n_steps: number of steps; a twentieth of it (at least 1) under DGM_COURSE_QUICK.
        scheduler: any whose ``step`` needs no metric; stepped after every step.
        max_grad_norm: the Euclidean norm to which the gradient is clipped.
        progress: whether to show a bar with the running loss.

    Returns:
        The history; after an interrupt (the stop button, Ctrl-C) what there is of it, marked.

    Raises:
        FloatingPointError: at the first loss or gradient that is not finite, before the weights.
    """
    n_steps = check_count(n_steps, "n_steps")
    if max_grad_norm is not None:
        check_number(max_grad_norm, "max_grad_norm")
    n_steps = max(1, n_steps // 20) if quick() else n_steps
    history = History()
    steps = training_steps(loss, optimizer, n_steps, scheduler, max_grad_norm)
    with _progress_bar(n_steps, shown=progress) as bar:
        try:
            for value in steps:
                history.loss.append(value)
                bar.update()
                bar.set_postfix_str(f"loss {value:.3f}", refresh=False)  # when it is next drawn
        except KeyboardInterrupt:
            history.interrupted = True
    return history


def _check_finite(number: float, what: str, step: int, n_steps: int) -> None:
    if not math.isfinite(number):
        raise FloatingPointError(
            f"the {what} is {number} at step {step} of {n_steps}, and the weights are as before it;"
            " try a smaller learning rate, max_grad_norm=1.0, float64, and look for NaN in the data"
        )


@contextmanager
def _progress_bar(total: int, *, shown: bool) -> Iterator[Any]:
    """A bar after half a second, which leaves nothing behind: a stored one reads "0 %" for ever."""
    from tqdm.auto import tqdm

    hidden = {} if shown else {"disable": True}  # shown unless TQDM_DISABLE is set
    bar, handle = tqdm(total=total, leave=False, delay=0.5, **hidden), None
    if hasattr(bar, "container"):  # the notebook's variant
        from IPython.display import display

        view = bar.container._repr_mimebundle_()
        del view["text/plain"]  # what the file would keep
        handle = display(view, raw=True, display_id=True)
        bar.displayed = True
    try:
        yield bar
    finally:
        bar.close()
        if handle is not None:
            bar.container.close()  # also after an interrupt, where tqdm leaves a red bar
            handle.update({}, raw=True)
