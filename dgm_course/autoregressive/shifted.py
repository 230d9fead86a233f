"""Convolutions kept to the order of the pixels by shifts of the image, without a mask.

A feature at (i, j) of these networks knows pixels strictly before (i, j). The image is shifted
once, at the entrance, and from there on a kernel of two rows looks back: it ends at its own row,
"down", or at its own pixel, "right". Nothing of it is closed, so no weight is wasted on a mask.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, elu, pad

# What is laid round the input: columns left and right, rows above and below.
PADDING = {"down": (1, 1, 1, 0), "right": (1, 0, 1, 0), "point": (0, 0, 0, 0)}


class ShiftedConv2d(nn.Module):
    """y(i, j) = b + Σ W(a, c) x(s i + a, s j + c), over a ≤ 0: a convolution that looks back.

    "down": a kernel of 2 × 3, rows i − 1 and i, columns j − 1 to j + 1, for features that know the
    rows above theirs. "right": 2 × 2, rows i − 1 and i, columns j − 1 and j, for features that know
    every earlier pixel. "point": the pixel alone.

    Source: Salimans et al. 2017, section 2.3 and figure 2, https://arxiv.org/abs/1701.05517.

    Args:
        in_features: features of the input.
        out_features: features of the output.
        reach: "down", "right" or "point".
        stride: s; 2 halves the sides, which are even.

    Shapes: ``(N, in_features, H, W)`` to ``(N, out_features, H / s, W / s)``.
    """

    def __init__(self, in_features: int, out_features: int, reach: str, stride: int = 1) -> None:
        super().__init__()
        self.padding, self.stride = PADDING[reach], stride
        left, right, above, _ = self.padding
        kernel = (above + 1, left + right + 1)
        bound = (in_features * kernel[0] * kernel[1]) ** -0.5  # as nn.Conv2d draws them
        self.weight = nn.Parameter((2 * torch.rand(out_features, in_features, *kernel) - 1) * bound)
        self.bias = nn.Parameter((2 * torch.rand(out_features) - 1) * bound)

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(pad(x, self.padding), self.weight, self.bias, stride=self.stride)


class GatedResidual(nn.Module):
    """y = x + a σ(b), where (a, b) = conv(elu(conv(elu x) + P elu e)).

    e is what the layer is told besides its input, here or by a shortcut; P is 1×1.

    Source: Salimans et al. 2017, section 2, https://arxiv.org/abs/1701.05517.

    Args:
        n_features: features F of x and y.
        reach: of both convolutions, as in `ShiftedConv2d`.
        n_extra: features of e, or 0 for none.

    Shapes: x ``(N, F, H, W)`` and e ``(N, n_extra, H, W)`` to ``(N, F, H, W)``.

    Omits: the paper's elu of both signs, its dropout and its normalised weights.
    """

    def __init__(self, n_features: int, reach: str, n_extra: int = 0) -> None:
        super().__init__()
        self.first = ShiftedConv2d(n_features, n_features, reach)
        self.extra = nn.Conv2d(n_extra, n_features, 1, bias=False) if n_extra else None
        self.second = ShiftedConv2d(n_features, 2 * n_features, reach)

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        h = self.first(elu(x))
        if self.extra is not None and extra is not None:
            h = h + self.extra(elu(extra))
        a, b = self.second(elu(h)).chunk(2, 1)
        return x + a * torch.sigmoid(b)


class Entrance(nn.Module):
    """From the image to features that know pixels before their own only: the one shift.

    Seen are the two rows above, three pixels of each, and for "right" two columns to the left too.

    Shapes: ``(N, C, H, W)`` to ``(N, F, H, W)``.
    """

    def __init__(self, n_channels: int, n_features: int, reach: str) -> None:
        super().__init__()
        self.above = ShiftedConv2d(n_channels, n_features, "down")
        self.left = ShiftedConv2d(n_channels, n_features, "right") if reach == "right" else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.above(shift_down(x))
        return h if self.left is None else h + self.left(shift_right(x))


def shift_down(x: Tensor) -> Tensor:
    """x(i − 1, j): zeros come in above, the last row falls out."""
    return pad(x, (0, 0, 1, 0))[:, :, :-1]


def shift_right(x: Tensor) -> Tensor:
    """x(i, j − 1): zeros come in at the left, the last column falls out."""
    return pad(x, (1, 0, 0, 0))[:, :, :, :-1]


class CachedShift:
    """A `ShiftedConv2d` one pixel at a time, from the last rows of its input."""

    def __init__(self, conv: ShiftedConv2d, n: int, width: int) -> None:
        self.left, right, above, _ = conv.padding
        self.weight = conv.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (rows · columns · in, out)
        self.bias, self.columns = conv.bias, conv.weight.shape[3]
        n_in = conv.weight.shape[1]
        self.rows = conv.weight.new_zeros(n, above + 1, self.left + width + right, n_in)

    def start_row(self) -> None:
        self.rows = torch.cat([self.rows[:, 1:], torch.zeros_like(self.rows[:, :1])], 1)

    def put(self, j: int, values: Tensor) -> None:
        """The input ``(N, in)`` at column j of this row is now known."""
        self.rows[:, -1, self.left + j] = values

    def output(self, j: int) -> Tensor:
        """The output ``(N, out)`` at column j, once the input that it sees is there."""
        seen = self.rows[:, :, j : j + self.columns].flatten(1)
        return torch.addmm(self.bias, seen, self.weight)


class CachedEntrance:
    """An `Entrance` one pixel at a time; `put` says what a pixel of the image is."""

    def __init__(self, entrance: Entrance, n: int, width: int) -> None:
        assert entrance.left is not None
        self.above = CachedShift(entrance.above, n, width)
        self.left = CachedShift(entrance.left, n, width + 1)
        self.row = entrance.above.weight.new_zeros(n, width, entrance.above.weight.shape[1])

    def start_row(self) -> None:
        for conv in (self.above, self.left):
            conv.start_row()
        for j in range(self.row.shape[1]):  # shifted down: the row above is this row's input
            self.above.put(j, self.row[:, j])

    def put(self, j: int, values: Tensor) -> None:
        """The image ``(N, C)`` at column j of this row is now known."""
        self.row[:, j] = values
        self.left.put(j + 1, values)

    def output(self, j: int) -> Tensor:
        return self.above.output(j) + self.left.output(j)


class CachedResidual:
    """A `GatedResidual` one pixel at a time."""

    def __init__(self, layer: GatedResidual, n: int, width: int) -> None:
        self.first = CachedShift(layer.first, n, width)
        self.second = CachedShift(layer.second, n, width)
        self.extra = None if layer.extra is None else layer.extra.weight[:, :, 0, 0].T

    def start_row(self) -> None:
        self.first.start_row()
        self.second.start_row()

    def step(self, j: int, x: Tensor, extra: Tensor | None = None) -> Tensor:
        """y ``(N, F)`` at column j, from x and e at that column."""
        self.first.put(j, elu(x))
        h = self.first.output(j)
        if self.extra is not None and extra is not None:
            h = torch.addmm(h, elu(extra), self.extra)
        self.second.put(j, elu(h))
        a, b = self.second.output(j).chunk(2, 1)
        return x + a * torch.sigmoid(b)
