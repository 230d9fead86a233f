"""The reversible block: two halves that shift one another in turn."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase

from dgm_course.checks import check_finite, check_floating, check_instance, check_shape


class ReversibleBlock(nn.Module):
    """y₁ = x₁ + f(x₂), y₂ = x₂ + g(y₁), undone by x₂ = y₂ − g(y₁), x₁ = y₁ − f(x₂).

    x₁, x₂ are the halves of the channels of images, of the last axis of anything else. f and g are
    never inverted, so that they may be any networks. The block is two additive couplings of NICE,
    of log|det| 0. Batch norm's statistics move in `forward` alone.

    Source: Gomez, Ren, Urtasun & Grosse 2017, equations 6 to 8, https://arxiv.org/abs/1707.04585;
    Dinh, Krueger & Bengio 2015, section 3.2, https://arxiv.org/abs/1410.8516.

    Args:
        f: a module from a half to a shift of the other one, of the same shape.
        g: likewise.

    Shapes: ``forward`` and ``inverse`` map ``(N, C, H, W)``, C even, or ``(N, …, D)``, D even, to
    the same shape.

    Raises:
        ValueError: for an f or g that is no module, works in place, or changes a half's shape or
            dtype; for x that has fewer than two axes, is empty, of an odd number of channels or
            features, of another dtype than the weights' or not finite.

    Omits: dropout in ``inverse``, which draws other units than ``forward`` did; ``eval`` turns it
    off.

    Example:
        >>> block = ReversibleBlock(nn.Linear(2, 2), nn.Linear(2, 2)).double()
        >>> x = torch.randn(3, 4, dtype=torch.float64)
        >>> torch.allclose(block.inverse(block(x)), x)
        True
    """

    def __init__(self, f: nn.Module, g: nn.Module) -> None:
        super().__init__()
        for name, network in (("f", f), ("g", g)):
            check_instance(network, nn.Module, name)
            for module in network.modules():
                if getattr(module, "inplace", False):
                    raise ValueError(
                        f"{name} must not work in place, or the half it reads is lost: got {module}"
                    )
        self.f, self.g = f, g

    def forward(self, x: Tensor) -> Tensor:
        """y."""
        check_halves(x, "x", self)
        return joined(*self.couple(*halves(in_full(x))))

    def inverse(self, y: Tensor) -> Tensor:
        """x."""
        check_halves(y, "y", self)
        return joined(*self.uncouple(*halves(in_full(y))))

    def couple(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """The halves y₁, y₂ of x₁, x₂, unchecked."""
        y1 = x1 + shift(self.f, x2, "f")
        y2 = x2 + shift(self.g, y1, "g")
        return y1, y2

    def uncouple(self, y1: Tensor, y2: Tensor) -> tuple[Tensor, Tensor]:
        """The halves x₁, x₂ of y₁, y₂, unchecked."""
        x2 = y2 - shift(self.g, y1, "g", again=True)
        x1 = y1 - shift(self.f, x2, "f", again=True)
        return x1, x2


def shift(network: nn.Module, half: Tensor, name: str, again: bool = False) -> Tensor:
    """network(half), which can be added to the other half.

    With again, batch norm counts this half as one that it has seen: its statistics stay.

    Raises:
        ValueError: for another shape or dtype than the half's, or a half that was changed in place.
    """
    version = None if half.is_inference() else half._version
    # Not by copying them back: what another graph has saved must not look changed.
    kept = statistics(network) if again else {}
    found = functional_call(network, kept, (half,)) if kept else network(half)
    check_shape(found, tuple(half.shape), f"what {name} returns")
    if torch.promote_types(found.dtype, half.dtype) != half.dtype:
        raise ValueError(f"{name} must return the half's dtype, {half.dtype}, got {found.dtype}")
    if version is not None and half._version != version:
        raise ValueError(f"{name} must not work in place, and it has changed the half that it read")
    return found


def statistics(network: nn.Module) -> dict[str, Tensor]:
    """Copies of the buffers by name that layers of batch norm, or its like, move as they run."""
    return {
        f"{name}.{buffer}".lstrip("."): value.clone()
        for name, module in network.named_modules()
        if isinstance(module, _NormBase) and module.training
        for buffer, value in module.named_buffers()
    }


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """The two halves of the channels of images, of the last axis of anything else."""
    x1, x2 = x.chunk(2, split_axis(x))
    return x1, x2


def joined(x1: Tensor, x2: Tensor) -> Tensor:
    """`halves` undone."""
    return torch.cat([x1, x2], split_axis(x1))


def split_axis(x: Tensor) -> int:
    return 1 if x.ndim == 4 else -1


def in_full(x: Tensor) -> Tensor:
    """x, but in float32 where autocast runs: halves that are rounded to 8 bits cannot be undone."""
    is_half = x.dtype in (torch.bfloat16, torch.float16)
    return x.float() if is_half and torch.is_autocast_enabled(x.device.type) else x


def check_halves(x: Tensor, name: str, model: nn.Module) -> None:
    """Raise a ValueError unless x is a finite batch of two halves, in the dtype of the weights."""
    check_floating(x, name)
    if x.ndim < 2 or not x.numel():
        raise ValueError(
            f"{name} must have shape (N, C, H, W) or (N, ..., D), not empty, got {tuple(x.shape)}"
        )
    what, n = "channels" if x.ndim == 4 else "features", x.shape[split_axis(x)]
    if n % 2:
        raise ValueError(
            f"{name} must have an even number of {what} to be split into halves, {n - 1 or 2} or "
            f"{n + 1} say, got {n}"
        )
    dtype = next((p.dtype for p in model.parameters()), x.dtype)
    if x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(f"{name} must have the dtype of the weights, {dtype}, got {x.dtype}")
    check_finite(x, name, "examples", x.ndim - 1)
