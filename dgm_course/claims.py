"""What a notebook's sentences and exercises rest on: `claim` checks ours, `check` the reader's."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from dgm_course.training import quick


class ClaimError(AssertionError):
    """A sentence of the text that the numbers do not bear out."""


def claim(
    sentence: str,
    value: Any,
    *,
    below: float | None = None,
    above: float | None = None,
    equals: float | None = None,
    within: float = 0.0,
    trained: bool = False,
) -> None:
    """Print ``sentence`` with its band, or raise with the band and the measurement.

    What is printed holds on every machine: the band, never the measurement.

    Args:
        sentence: a sentence of the text, without its full stop.
        value: the measurement: a number, or an array of which every element must lie in the band.
        below: value < below.
        above: value > above.
        equals: |value − equals| ≤ within.
        within: the tolerance of ``equals``.
        trained: whether the value comes from training; under DGM_COURSE_QUICK the claim then says
            that it was not checked.

    Raises:
        ClaimError: if an element lies outside the band or is NaN.
        ValueError: if no band is given, or the array is empty.
    """
    numbers = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value, dtype=float)
    if below is None and above is None and equals is None:
        raise ValueError("claim needs a band: below=, above= or equals=")
    if numbers.size == 0:
        raise ValueError(f"the value of the claim {sentence!r} is an empty array")
    parts, ok = [], np.ones(numbers.shape, dtype=bool)
    if above is not None:
        parts.append(f"above {above:g}")
        ok &= numbers > above
    if below is not None:
        parts.append(f"below {below:g}")
        ok &= numbers < below
    if equals is not None:
        parts.append(f"equals {equals:g} within {within:g}" if within else f"exactly {equals:g}")
        ok &= np.abs(numbers - equals) <= within
    band = " and ".join(parts)
    if trained and quick():
        print(f"– {sentence} [{band}; not checked: DGM_COURSE_QUICK is set]")
    elif ok.all():
        print(f"✓ {sentence} [{band}]")
    else:
        bad = numbers[~ok].ravel()
        what = f"{bad[0]:.10g}" if numbers.size == 1 else _worst(bad, numbers.size)
        raise ClaimError(f"{sentence}: expected {band}, measured {what}")


def _worst(bad: np.ndarray, n: int) -> str:
    return f"{bad.size} of {n} values outside, between {bad.min():.6g} and {bad.max():.6g}"


def check(
    answer: Any,
    test: Callable[[Any], bool | str],
    *,
    expected: str,
    why: str,
    hint: str,
    name: str = "answer",
) -> None:
    """Tell the reader whether an exercise's ``answer`` holds, without giving the answer away.

    Right mathematics is not refused for its type: before ``test`` sees the answer, arrays and
    lists of numbers become tensors, and a function is given copies of its arguments (so that one
    that works in place changes nothing) and gives back its floating numbers in the dtype of the
    first floating tensor that it was given.

    Args:
        answer: what the reader wrote; ``...`` means not answered yet.
        test: a property of a right answer, recomputed here. It returns True or False, or a
            sentence that says what came instead; the best names a typical mistake.
        expected: what kind of thing a right answer is.
        why: the reason, shown with a right answer.
        hint: where to look, shown with a wrong answer. There is a second try, so it must not
            say what the answer is.
        name: what the reader was asked to fill in.
    """
    if answer is ...:
        print(f"{name}: not answered yet")
        return
    try:
        # What the check draws must not move the notebook's stream: what follows was calibrated.
        with torch.random.fork_rng(devices=[]):
            verdict = test(_of_our_types(answer))
    except Exception as error:
        verdict = f"the check met {type(error).__name__}: {error}"
    if isinstance(verdict, torch.Tensor):
        verdict = verdict.item()
    if not isinstance(verdict, bool | np.bool_ | str) or verdict == "":
        raise TypeError(f"test must return True, False or a sentence, got {verdict!r}")
    if isinstance(verdict, bool | np.bool_) and verdict:
        print(f"✓ {name}: right. {why}")
        return
    came = verdict if isinstance(verdict, str) else _came(answer)
    print(f"✗ {name}: not yet. Expected {expected}; {came}. Hint: {hint}")


def _of_our_types(answer: Any) -> Any:
    """Tensors for arrays and lists of numbers; a function that takes and gives ours."""
    is_function = callable(answer) and not isinstance(answer, type | torch.nn.Module)
    return _taking_clones(answer) if is_function else _as_tensor(answer, None)


def _taking_clones(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        tensors = [x for x in (*given, *named.values()) if isinstance(x, torch.Tensor)]
        dtype = next((x.dtype for x in tensors if x.is_floating_point()), None)
        result = function(*map(_clone, given), **{key: _clone(x) for key, x in named.items()})
        return _as_tensor(result, dtype)

    return call


def _clone(x: Any) -> Any:
    if isinstance(x, torch.Tensor):
        return x.clone()
    return x.copy() if isinstance(x, np.ndarray) else x


def _as_tensor(x: Any, dtype: torch.dtype | None) -> Any:
    if isinstance(x, np.generic):
        return x.item()
    if isinstance(x, np.ndarray) and x.dtype.kind in "biuf":
        x = torch.from_numpy(np.ascontiguousarray(x))
    if isinstance(x, list) and any(isinstance(i, torch.Tensor) and i.numel() != 1 for i in x):
        x = tuple(x)  # several results, in brackets
    if isinstance(x, list) and x and all(isinstance(i, int | float | torch.Tensor) for i in x):
        x = torch.tensor([i.item() if isinstance(i, torch.Tensor) else i for i in x], dtype=dtype)
    if isinstance(x, torch.Tensor):
        return x.to(dtype) if dtype is not None and x.is_floating_point() else x
    return tuple(_as_tensor(part, dtype) for part in x) if type(x) is tuple else x


def _came(answer: Any) -> str:
    if callable(answer):  # a function's text is its address, which tells nobody anything
        return "its values are others"
    text = f"{answer:g}" if isinstance(answer, float) and math.isfinite(answer) else repr(answer)
    return f"got {text}" if len(text) <= 60 else f"got {text[:57]}..."
