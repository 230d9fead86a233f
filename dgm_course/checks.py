"""What entry points ask of their arguments: a ValueError names it, what was expected, what came."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

MOST = 2**31 - 1  # no size of this course comes near it, and torch fails beyond it in many ways

# Our own switch: that of torch.distributions is turned off for good by one torch.compile(...).
_values_checked = ContextVar("values_checked", default=True)


def values_are_checked() -> bool:
    """Whether checks read tensors' values, for which a GPU must wait."""
    return _values_checked.get()


@contextmanager
def unchecked_values() -> Iterator[None]:
    """Checks that read values are off: ours in this thread, and those of torch.distributions.

    `training_steps` has it round each step.
    """
    token, torchs = _values_checked.set(False), Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(torchs)
        _values_checked.reset(token)


def check_count(value: Any, name: str, least: int = 1, most: int = MOST) -> int:
    """The int ``value``, Python's or NumPy's; a ValueError unless it lies from least to most."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be an int of at least {least}, got {value!r}")
    if value > most:
        raise ValueError(f"{name} must be at most {most}, got {value}")
    return int(value)


def check_number(
    value: Any, name: str, *, or_zero: bool = False, or_negative: bool = False
) -> None:
    """Raise a ValueError unless value is one finite number, positive or of another sign allowed."""
    number = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    if isinstance(number, Real) and not isinstance(number, bool) and math.isfinite(number):
        if or_negative or float(number) > 0 or (or_zero and number == 0):
            return
    kind = "" if or_negative else "at least 0 and " if or_zero else "positive and "
    raise ValueError(f"{name} must be {kind}finite, got {value!r}")


def check_instance(value: Any, kind: type, name: str) -> None:
    """Raise a ValueError unless value is an instance of a class."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be a {kind.__name__}, got {type(value).__name__}")


def check_tensor(x: Any, name: str) -> None:
    """Raise a ValueError unless x is a tensor."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} must be a torch.Tensor, got {type(x).__name__}")


def as_numbers(value: Any, name: str, dtype: torch.dtype | None = None) -> Tensor:
    """The tensor of a tensor, an array or a list; a ValueError unless it is made of numbers."""
    try:
        return torch.as_tensor(value, dtype=dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be a tensor or a list of numbers, got {value!r}") from error


def check_floating(x: Any, name: str) -> None:
    """Raise a ValueError unless x is a tensor of floating-point numbers."""
    check_tensor(x, name)
    if not x.is_floating_point():
        raise ValueError(f"{name} must hold floating-point numbers, got {x.dtype}")


def check_same_shape(name_a: str, a: Tensor, name_b: str, b: Tensor) -> None:
    """Raise a ValueError unless a and b are tensors of one shape."""
    check_tensor(a, name_a)
    check_tensor(b, name_b)
    if a.shape != b.shape:  # (N, 1) against (N,) would broadcast to (N, N)
        raise ValueError(
            f"{name_a} and {name_b} must have the same shape, got {tuple(a.shape)} and "
            f"{tuple(b.shape)}"
        )


def check_shape(x: Any, shape: tuple[int, ...], name: str) -> None:
    """Raise a ValueError unless x is a tensor of that shape."""
    check_tensor(x, name)
    if tuple(x.shape) != shape:  # (N, 1) in the place of (N,) would broadcast
        raise ValueError(f"{name} must have shape {shape}, got shape {tuple(x.shape)}")


def check_finite(x: Tensor, name: str, things: str, n_axes: int = 1) -> None:
    """Raise a ValueError unless x is finite, where `values_are_checked`.

    The last n_axes axes are one of the things that are counted.
    """
    if values_are_checked() and not torch.isfinite(x).all():
        bad = (~torch.isfinite(x)).flatten(-n_axes).any(-1)
        raise ValueError(
            f"{name} must be finite, got NaN or inf in {int(bad.sum())} of {bad.numel()} {things}"
        )


def check_points(x: Tensor, n_features: int | None, dtype: torch.dtype | None, name: str) -> None:
    """Raise a ValueError unless x is a non-empty batch ``(N, n_features)`` of finite numbers.

    Without n_features any number of them will do, and without a dtype any floating one.
    """
    check_tensor(x, name)
    if x.ndim != 2 or x.shape[1] != (n_features or x.shape[1]):
        expected = f"(N, {n_features or 'D'})"
        raise ValueError(f"{name} must have shape {expected}, got shape {tuple(x.shape)}")
    if x.numel() == 0:
        raise ValueError(f"{name} must hold at least one point, got an empty batch")
    if dtype is None:
        check_floating(x, name)
    elif x.dtype != dtype:
        raise ValueError(
            f"{name} must have the dtype of the model's weights, {dtype}, got {x.dtype}; "
            f"convert it with {name}.to({dtype})"
        )
    check_finite(x, name, "points")


def check_integers(x: Tensor, lowest: int, highest: int, name: str) -> None:
    """Raise a ValueError unless x holds integers lowest … highest; values as in `check_finite`."""
    check_tensor(x, name)
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise ValueError(f"{name} must hold integers {lowest} to {highest}, got dtype {x.dtype}")
    if values_are_checked() and x.numel():
        low, high = (int(bound) for bound in x.aminmax())
        if low < lowest or high > highest:
            raise ValueError(
                f"{name} must hold integers {lowest} to {highest}, got values from {low} to {high}"
            )


def check_sequences(x: Any, name: str) -> None:
    """Raise a ValueError unless x is a batch ``(N, T)``, not empty."""
    check_tensor(x, name)
    if x.ndim != 2 or x.numel() == 0:
        raise ValueError(f"{name} must have shape (N, T), not empty, got {tuple(x.shape)}")


def check_images(
    x: Tensor, n_levels: int, n_channels: int, *, name: str = "x", lowest: int = 0
) -> None:
    """Raise a ValueError unless x is a batch ``(N, C, H, W)`` of integer levels."""
    check_tensor(x, name)
    if x.ndim != 4 or x.shape[1] != n_channels:
        raise ValueError(
            f"{name} must have shape (N, {n_channels}, H, W), got shape {tuple(x.shape)}"
        )
    if x.numel() == 0:
        raise ValueError(f"{name} must hold pixels, got an empty batch of shape {tuple(x.shape)}")
    check_integers(x, lowest, n_levels - 1, name)


def check_size(size: Any) -> tuple[int, int]:
    """The size as two ints; a ValueError unless it is a height and a width of at least 1."""
    sides = tuple(size) if isinstance(size, Iterable) else ()
    if len(sides) != 2:
        raise ValueError(f"size must be a height and a width, (H, W), got {size!r}")
    return check_count(sides[0], "size's height"), check_count(sides[1], "size's width")
