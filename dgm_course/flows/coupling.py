"""Coupling flows: each layer leaves some features alone and lets them move the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

from dgm_course.checks import check_count, check_number
from dgm_course.flows.bijection import Bijection, as_orders

Law = Literal["affine", "additive"]


class CouplingFlow(Bijection):
    """x = g_L ∘ … ∘ g_1(z), each layer x_A = z_A, x_B = z_B · exp(c(z_A)) + t(z_A), A, B swapped.

    The Jacobian is triangular with exp(c) on its diagonal, so that log|det| = Σ c over layers and
    the features of B. The law "affine" (RealNVP) bounds c = limit · tanh(s / limit), so that one
    layer stretches by at most exp(limit), and shrinks by as much; the law "additive" (NICE) has
    c = 0: its log|det| is 0, exactly. s and t are one network of two hidden ReLU layers, which is
    never inverted. The flow starts as the identity.

    Source: Dinh, Krueger & Bengio 2015, section 3, https://arxiv.org/abs/1410.8516 (additive);
    Dinh, Sohl-Dickstein & Bengio 2017, equations 4 to 8, https://arxiv.org/abs/1605.08803
    (affine). Theirs are written from data to noise, with exp(+s) there; here exp(+c) carries noise
    to data.

    Args:
        dim: number of features D, at least 2.
        n_layers: number of layers L. For every output to see every input it takes 3.
        n_hidden: units of each hidden layer.
        law: "affine" or "additive".
        limit: the bound on |c|.
        n_kept: how many features the first layer, the third, … leave alone; the others leave
            alone the rest. ⌊D / 2⌋ unless given.
        orders: a permutation of the features for each layer, ``(L, D)``: what "the first n_kept"
            means there. The features' own order unless given. A buffer.
        dropout: the share of hidden units that are dropped in training mode, where neither
            direction then undoes the other; ``eval`` turns it off.

    Shapes: ``forward`` and ``inverse`` map ``(N, D)`` to ``(N, D)`` and log-det ``(N,)`` in nats.

    Raises:
        ValueError: for arguments out of range, orders that are no permutations, or a bad batch,
            as for `PlanarFlow`.

    Example:
        >>> flow = CouplingFlow(2, n_layers=4)
        >>> x, log_det = flow(torch.randn(5, 2))
        >>> x.shape, log_det.shape
        (torch.Size([5, 2]), torch.Size([5]))
    """

    orders: Tensor | None

    def __init__(
        self,
        dim: int,
        n_layers: int = 8,
        n_hidden: int = 64,
        law: Law = "affine",
        limit: float = 2.0,
        n_kept: int | None = None,
        orders: Sequence[Sequence[int]] | Tensor | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        dim = check_count(dim, "dim", 2)  # a feature to keep and one to move
        n_layers, n_hidden = check_count(n_layers, "n_layers"), check_count(n_hidden, "n_hidden")
        if law not in get_args(Law):
            raise ValueError(f"law must be 'affine' or 'additive', got {law!r}")
        check_number(limit, "limit")
        n_kept = dim // 2 if n_kept is None else check_count(n_kept, "n_kept", most=dim - 1)
        check_number(dropout, "dropout", or_zero=True)
        if dropout >= 1:
            raise ValueError(f"dropout must be below 1, got {dropout}")
        rows = None if orders is None else as_orders(orders, "orders")
        if rows is not None and rows.shape != (n_layers, dim):
            raise ValueError(
                f"orders must have shape (n_layers, dim) = ({n_layers}, {dim}), got shape "
                f"{tuple(rows.shape)}"
            )
        self.register_buffer("orders", rows)
        self.dim, self.n_kept, self.law, self.limit, self.dropout = dim, n_kept, law, limit, dropout
        # How many features each layer reads, and how many numbers it writes.
        self._n_read = [dim - n_kept if i % 2 else n_kept for i in range(n_layers)]
        per_feature = 2 if law == "affine" else 1
        self._n_written = [per_feature * (dim - n) for n in self._n_read]
        # All layers' weights in six tensors, which the optimiser walks faster than 6 L: those of
        # unlike sizes one below the other, as many rows as there are features to read or to write.
        self.w1 = nn.Parameter(torch.empty(sum(self._n_read), n_hidden))
        self.b1 = nn.Parameter(torch.empty(n_layers, n_hidden))
        self.w2 = nn.Parameter(torch.empty(n_layers, n_hidden, n_hidden))
        self.b2 = nn.Parameter(torch.empty(n_layers, n_hidden))
        self.w3 = nn.Parameter(torch.zeros(sum(self._n_written), n_hidden))  # the identity
        self.b3 = nn.Parameter(torch.zeros(sum(self._n_written)))
        with torch.no_grad():  # as nn.Linear does: uniform within 1 / √(number of inputs)
            for w1, b1, n in zip(self.w1.split(self._n_read), self.b1, self._n_read, strict=True):
                w1.uniform_(-(n**-0.5), n**-0.5)
                b1.uniform_(-(n**-0.5), n**-0.5)
            for parameter in (self.w2, self.b2):
                parameter.uniform_(-(n_hidden**-0.5), n_hidden**-0.5)

    def extra_repr(self) -> str:
        return f"{self.dim}, n_layers={len(self.b1)}, law={self.law!r}, n_kept={self.n_kept}"

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x = g(z) and Σ c over the layers and the features that each of them moves."""
        self.check(z, "z")
        states, log_det = self._walk(z)
        return states[-1], log_det

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z = f(x) and −Σ c: as cheap as `forward`, for the networks are only evaluated."""
        self.check(x, "x")
        states, log_det = self._walk(x, undo=True)
        return states[-1], -log_det

    def path(self, z: Tensor) -> Tensor:
        """z and the points after each layer, z_0 = z to z_L = g(z): ``(L + 1, N, D)``."""
        self.check(z, "z")
        return torch.stack(self._walk(z)[0])

    def inverse_path(self, x: Tensor) -> Tensor:
        """The same points found from their end, x = z_L back to z_0 = f(x), in `path`'s order."""
        self.check(x, "x")
        return torch.stack(self._walk(x, undo=True)[0][::-1])

    def _walk(self, points: Tensor, undo: bool = False) -> tuple[list[Tensor], Tensor]:
        """The L + 1 points ``(N, D)`` from z to x, or back from x to z, and Σ c ``(N,)``."""
        layers = [*enumerate(self._weights())]
        states, log_scales = [points], []
        for i, weights in layers[::-1] if undo else layers:
            kept, moved = self._part(states[-1], i)
            c, t = self._network(kept, *weights)
            if undo:
                moved = moved - t
            if c is not None:
                moved = moved * (-c if undo else c).exp()
                log_scales.append(c)
            if not undo:
                moved = moved + t
            states.append(self._join(kept, moved, i))
        if not log_scales:
            return states, points.new_zeros(len(points))
        return states, torch.cat(log_scales, 1).sum(1)

    def _weights(self) -> Iterator[tuple[Tensor, ...]]:
        """Each layer's weights and biases; a stack is cut up by one operation, not L of them."""
        return zip(
            self.w1.split(self._n_read),
            *(self.b1, self.w2, self.b2),
            self.w3.split(self._n_written),
            self.b3.split(self._n_written),
            strict=True,
        )

    def _part(self, points: Tensor, i: int) -> tuple[Tensor, Tensor]:
        """The features that layer i leaves alone and those that it moves."""
        if self.orders is not None:
            points = points.index_select(1, self.orders[i])
        first, rest = points.split([self.n_kept, self.dim - self.n_kept], 1)
        return (rest, first) if i % 2 else (first, rest)

    def _join(self, kept: Tensor, moved: Tensor, i: int) -> Tensor:
        """`_part` undone."""
        points = torch.cat([moved, kept] if i % 2 else [kept, moved], 1)
        return points if self.orders is None else points.index_select(1, self.orders[i].argsort())

    def _network(
        self, kept: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, w3: Tensor, b3: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        """c, None where the law is additive, and t, each of as many columns as features move."""
        h = self._drop(torch.addmm(b1, kept, w1).relu())  # (N, n_hidden)
        h = self._drop(linear(h, w2, b2).relu())
        out = linear(h, w3, b3)
        if self.law == "additive":
            return None, out
        s, t = out.chunk(2, 1)
        return bounded(s, self.limit), t

    def _drop(self, h: Tensor) -> Tensor:
        return dropout(h, self.dropout, self.training) if self.dropout else h


def image_orders(height: int, width: int, n_layers: int) -> Tensor:
    """Orders of the H · W pixels for the layers of a `CouplingFlow` on images: ``(L, H · W)``.

    Two layers each, whose roles are swapped, divide the pixels into halves by a checkerboard, by
    rows, by columns and by blocks of 2 × 2, in turn: pixels that share a side are told apart by
    most of these.

    Example:
        >>> image_orders(2, 2, 1)
        tensor([[0, 3, 1, 2]])
    """
    for name, n in (("height", height), ("width", width), ("n_layers", n_layers)):
        check_count(n, name)
    if height % 2 or width % 2:
        raise ValueError(f"height and width must be even, got {height} and {width}")
    row, column = torch.arange(height)[:, None], torch.arange(width)
    sides = [row + column, row + 0 * column, 0 * row + column, row // 2 + column // 2]
    orders = [(side % 2).flatten().argsort(stable=True) for side in sides]
    return torch.stack([orders[i // 2 % 4] for i in range(n_layers)])


def bounded(s: Tensor, limit: float) -> Tensor:
    """limit · tanh(s / limit), between −limit and limit, of slope 1 at 0."""
    return limit * torch.tanh(s / limit)
