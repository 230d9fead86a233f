"""The contract of every flow layer: g carries noise to data, f carries data back to noise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from dgm_course.checks import (
    as_numbers,
    check_instance,
    check_points,
    check_tensor,
    values_are_checked,
)


class Bijection(nn.Module, ABC):
    """An invertible map x = g(z) of ℝᴰ with inverse z = f(x), each with its own log|det|.

    A subclass defines both directions and calls `check` in each. It chooses which of the two has a
    formula; the other may need a search, or D steps.

    Points are vectors ``(N, D)`` outside for images, too, with D = C · H · W: a layer that works
    on an image takes its size when it is made, and unfolds the vector inside. So every flow goes
    into `FlowModel`, and every property test runs over it.

    What is built from other bijections is one, too: `Chain` and `Inverse`.
    """

    dim: int  # D, the number of features

    @abstractmethod
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x = g(z) and log|det ∂g/∂z|: noise ``(N, D)`` to data ``(N, D)`` and nats ``(N,)``."""

    @abstractmethod
    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z = f(x) and log|det ∂f/∂x|: data ``(N, D)`` to noise ``(N, D)`` and nats ``(N,)``."""

    def check(self, points: Tensor, name: str) -> None:
        """Raise a ValueError unless ``points`` is a finite ``(N, D)`` in the weights' dtype."""
        check_tensor(points, name)
        weight = next(self.parameters(), points)  # a permutation has no weights: any dtype will do
        check_points(points, self.dim, weight.dtype, name)


class Chain(Bijection):
    """x = g_L ∘ … ∘ g_1(z), of log|det| Σ log|det ∂g_l|: the first layer is next to the noise.

    Args:
        layers: bijections of one D, from the noise to the data.

    Raises:
        ValueError: for no layers, layers of unlike D, or a bad batch, as for `PlanarFlow`.

    Example:
        >>> flow = Chain(Permutation([1, 0]), Inverse(Permutation([1, 0])))
        >>> flow(torch.tensor([[1.0, 2.0]]))
        (tensor([[1., 2.]]), tensor([0.]))
    """

    def __init__(self, *layers: Bijection) -> None:
        super().__init__()
        for i, layer in enumerate(layers):
            check_instance(layer, Bijection, f"layers[{i}]")
        dims = [layer.dim for layer in layers]
        if not dims or len({*dims}) > 1:
            raise ValueError(f"layers must be one or more of the same dim, got dims {dims}")
        self.dim = dims[0]
        self.layers = nn.ModuleList(layers)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x = g_L ∘ … ∘ g_1(z) and the sum of the layers' log-dets."""
        self.check(z, "z")
        log_dets = []
        for layer in self.layers:
            z, log_det = layer(z)
            log_dets.append(log_det)
        return z, torch.stack(log_dets).sum(0)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z = f_1 ∘ … ∘ f_L(x) and the sum of the layers' log-dets, the last layer undone first."""
        self.check(x, "x")
        log_dets = []
        for layer in cast("list[Bijection]", [*reversed(self.layers)]):
            x, log_det = layer.inverse(x)
            log_dets.append(log_det)
        return x, torch.stack(log_dets).sum(0)


class Inverse(Bijection):
    """x = f(z) for the g of another bijection: its two directions and log-dets exchanged.

    Args:
        bijection: the layer to turn round; its weights are shared, not copied.
    """

    def __init__(self, bijection: Bijection) -> None:
        super().__init__()
        check_instance(bijection, Bijection, "bijection")
        self.dim = bijection.dim
        self.bijection = bijection

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The inner bijection's ``inverse``."""
        self.check(z, "z")
        return self.bijection.inverse(z)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The inner bijection's ``forward``."""
        self.check(x, "x")
        return self.bijection(x)


class Permutation(Bijection):
    """x_i = z_order[i], of log|det| 0.

    Args:
        order: the numbers 0 … D − 1, each once; a buffer, so that the state dict has it.
    """

    order: Tensor

    def __init__(self, order: Sequence[int] | Tensor) -> None:
        super().__init__()
        (row,) = as_orders([order], "order")
        self.register_buffer("order", row)
        self.dim = len(row)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x_i = z_order[i] and zeros."""
        self.check(z, "z")
        return z[:, self.order], z.new_zeros(len(z))

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z_order[i] = x_i and zeros."""
        self.check(x, "x")
        return x[:, self.order.argsort()], x.new_zeros(len(x))


def as_orders(orders: Sequence[Sequence[int] | Tensor] | Tensor, name: str) -> Tensor:
    """Permutations as one int64 tensor ``(L, D)``.

    Raises:
        ValueError: for a row that is not the numbers 0 … D − 1, each once, or rows of unlike D.
    """
    if not isinstance(orders, Sequence | Tensor | np.ndarray) or not len(orders):
        raise ValueError(f"{name} must be one permutation or more, got {orders!r}")
    rows = [as_numbers(order, name) for order in orders]
    for row in rows:
        if row.ndim != 1 or not len(row) or row.sort().values.tolist() != [*range(len(row))]:
            raise ValueError(
                f"{name} must hold each of 0 to D - 1 once, got shape {tuple(row.shape)} with "
                f"values {row.tolist()}"
            )
    if len({len(row) for row in rows}) > 1:
        raise ValueError(f"{name} must be of one length, got {[len(row) for row in rows]}")
    return torch.stack(rows).long()


def log_det_of_tanh_layer(h: Tensor, slope: Tensor) -> Tensor:
    """log(1 + h′ · (slope − 1)) for h = tanh(a), h′ = 1 − h², where slope > 0.

    Written as log(h² + (1 − h²) · slope), a sum of two terms that are not negative: nothing is
    subtracted, so the result stays finite where slope − 1 rounds to −1.
    """
    h2 = h * h
    return torch.log(h2 + (1 - h2) * slope)


# --- a map for each point ---------------------------------------------------------------------


class Transform(Protocol):
    """A bijection that bends S codes of each of N points as that point's own numbers say."""

    dim: int  # D

    @property
    def n_parameters(self) -> int:
        """P, how many numbers a point brings."""


def check_transform(layer: Transform, z: Tensor, parameters: Tensor, dtype: torch.dtype) -> None:
    """Raise a ValueError unless z is ``(S, N, D)`` and parameters a finite ``(N, P)``."""
    for name, tensor in (("z", z), ("parameters", parameters)):
        check_tensor(tensor, name)
        if tensor.dtype != dtype:
            raise ValueError(f"{name} must have the weights' dtype, {dtype}, got {tensor.dtype}")
    if z.ndim != 3 or z.shape[2] != layer.dim or not z.numel():
        raise ValueError(
            f"z must have shape (S, N, {layer.dim}) with S, N >= 1, got shape {tuple(z.shape)}"
        )
    if parameters.shape != (z.shape[1], layer.n_parameters):
        raise ValueError(
            f"parameters must have shape ({z.shape[1]}, {layer.n_parameters}), a row for each "
            f"point of z, got shape {tuple(parameters.shape)}"
        )
    if values_are_checked() and not (z.isfinite().all() and parameters.isfinite().all()):
        raise ValueError("z and parameters must be finite, got NaN or inf")
