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
    """From the image to features that know pixels strictly before their own: the one shift.

    v sees the two rows above, h these and two pixels to the left.

    Shapes: ``(N, C, H, W)`` to v and h, each ``(N, F, H, W)``.
    """

    def __init__(self, n_channels: int, n_features: int) -> None:
        super().__init__()
        self.v = ShiftedConv2d(n_channels, n_features, "down")
        self.above = ShiftedConv2d(n_channels, n_features, "down")
        self.left = ShiftedConv2d(n_channels, n_features, "right")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        down, right = shift_down(x), shift_right(x)
        return self.v(down), self.above(down) + self.left(right)


def shift_down(x: Tensor) -> Tensor:
    """x(i − 1, j): zeros come in above, the last row falls out."""
    return pad(x, (0, 0, 1, 0))[:, :, :-1]


def shift_right(x: Tensor) -> Tensor:
    """x(i, j − 1): zeros come in at the left, the last column falls out."""
    return pad(x, (1, 0, 0, 0))[:, :, :, :-1]
