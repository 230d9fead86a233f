"""Sampling pixel by pixel: the loop, and the activations that make a pixel cheap.

A feature at a pixel depends on earlier pixels only, so it is final as soon as those are drawn and
need never be computed again. Of a masked kernel, the rows above meet finished rows: they are
convolved once a row, for all its pixels. What is left for a pixel is the kernel's own row.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from dgm_course.autoregressive.masked import MaskedConv2d

if TYPE_CHECKING:
    from dgm_course.autoregressive.gated import GatedPixelCNN
    from dgm_course.autoregressive.image_model import ImageModel
    from dgm_course.autoregressive.pixelcnn import PixelCNN


class Cache(Protocol):
    """The logits of one pixel after the other, row by row, the channels of a pixel in order.

    For each row: `start_row`; then for each column j and channel c: `logits`, then `put`.
    """

    def start_row(self) -> None:
        """Go on to the next row, the first one at first."""

    def logits(self, j: int, c: int) -> Tensor:
        """The logits of channel c at column j of this row, ``(N, n_levels)``."""

    def put(self, j: int, c: int, levels: Tensor) -> None:
        """Say which levels ``(N,)`` channel c at column j has got."""


def sample_pixels(
    cache: Cache, given: Tensor, temperature: float, generator: torch.Generator | None
) -> Tensor:
    """``given`` ``(N, C, H, W)`` with each −1 replaced by a draw from its softmax."""
    x = given.clone()
    _, n_channels, height, width = x.shape
    unknown = (given < 0).any(0).tolist()  # (C, H, W)
    for i in range(height):
        cache.start_row()
        for j in range(width):
            for c in range(n_channels):
                logits = cache.logits(j, c)  # (N, n_levels)
                if unknown[c][i][j]:
                    p = torch.softmax(logits / temperature, 1)
                    drawn = torch.multinomial(p, 1, generator=generator).squeeze(1)  # (N,)
                    x[:, c, i, j] = torch.where(given[:, c, i, j] < 0, drawn, given[:, c, i, j])
                cache.put(j, c, x[:, c, i, j])
    return x


class FullPass:
    """No cache at all: the whole network on the whole image, for every pixel."""

    def __init__(
        self, model: ImageModel, n: int, size: tuple[int, int], labels: Tensor | None
    ) -> None:
        self.model, self.labels, self.row = model, labels, -1
        shape = (n, model.n_channels, *size)
        self.x = torch.zeros(shape, dtype=torch.long, device=model.like.device)

    def start_row(self) -> None:
        self.row += 1

    def logits(self, j: int, c: int) -> Tensor:
        values = self.model.values_of(self.x)
        return self.model.logits_of(values, self.labels)[:, :, c, self.row, j]

    def put(self, j: int, c: int, levels: Tensor) -> None:
        self.x[:, c, self.row, j] = levels


class CachedRows:
    """A convolution over the last rows of its input, given one row after the other.

    Its kernel is the ``n_rows`` top rows of a masked one; ``(N, in, W)`` to ``(N, out, W)``.
    """

    def __init__(self, conv: MaskedConv2d, n_rows: int, n: int, width: int) -> None:
        self.weight, self.bias = conv.masked_weight()[:, :, :n_rows], conv.bias
        self.padding = (0, self.weight.shape[3] // 2)
        self.rows = self.weight.new_zeros(n, self.weight.shape[1], n_rows, width)

    def __call__(self, row: Tensor) -> Tensor:
        if self.weight.shape[2] == 0:
            return self.bias[:, None].expand(len(row), -1, row.shape[2])
        self.rows = torch.cat([self.rows[:, :, 1:], row[:, :, None]], 2)
        return conv2d(self.rows, self.weight, self.bias, padding=self.padding).squeeze(2)


class CachedConv:
    """A masked convolution, one pixel and one group of channels at a time."""

    def __init__(self, conv: MaskedConv2d, n: int, width: int) -> None:
        n_rows, columns = conv.mask.shape[2:]
        self.n_in, self.left = conv.mask.shape[1], columns // 2
        self.above = CachedRows(conv, n_rows // 2, n, width)
        groups = range(conv.n_channels)
        self.outputs = [(conv.out_groups == c).nonzero()[:, 0] for c in groups]
        own = conv.masked_weight()[:, :, n_rows // 2, : self.left + 1]  # (out, in, left + 1)
        own = own.permute(2, 1, 0).flatten(0, 1)  # ((left + 1) · in, out)
        self.own = [own[:, chosen].contiguous() for chosen in self.outputs]
        # Column j of the input's row stands at (left + j) · in, group c of it between these:
        bounds = torch.searchsorted(conv.in_groups, torch.arange(conv.n_channels + 1)).tolist()
        self.inputs = list(pairwise(bounds))
        self.row = own.new_zeros(n, (self.left + width) * self.n_in)
        self.from_above: list[Tensor] = []

    def start_row(self, more: Tensor | None = None) -> None:
        """Convolve what lies above, for the whole row; ``more`` ``(N, out, W)`` is added to it."""
        row = self.row.view(len(self.row), -1, self.n_in)[:, self.left :].transpose(1, 2)
        above = self.above(row)  # (N, out, W)
        above = (above if more is None else above + more).permute(2, 0, 1)  # (W, N, out)
        self.from_above = [above[:, :, chosen] for chosen in self.outputs]
        self.row.zero_()

    def put(self, j: int, c: int, values: Tensor) -> None:
        """Group c of the input at column j is now known."""
        low, high = self.inputs[c]
        start = (self.left + j) * self.n_in
        self.row[:, start + low : start + high] = values

    def output(self, j: int, c: int) -> Tensor:
        """Group c of the output at column j, once groups up to c of the input are there."""
        seen = self.row[:, j * self.n_in : (j + self.left + 1) * self.n_in]
        return torch.addmm(self.from_above[c][j], seen, self.own[c])


class PixelCNNCache:
    """`Cache` of a `PixelCNN`."""

    def __init__(self, model: PixelCNN, n: int, width: int) -> None:
        self.model = model
        self.first = CachedConv(model.first, n, width)
        self.residual = [CachedConv(conv, n, width) for conv in model.residual]
        self.head = [CachedConv(conv, n, width) for conv in model.head]

    def start_row(self) -> None:
        for conv in [self.first, *self.residual, *self.head]:
            conv.start_row()

    def logits(self, j: int, c: int) -> Tensor:
        h = self.first.output(j, c)  # (N, features of group c)
        for conv in self.residual:
            conv.put(j, c, h.relu())
            h = h + conv.output(j, c)
        for conv in self.head:
            conv.put(j, c, h.relu())
            h = conv.output(j, c)
        return h

    def put(self, j: int, c: int, levels: Tensor) -> None:
        self.first.put(j, c, self.model.values_of(levels)[:, None])


class GatedPixelCNNCache:
    """`Cache` of a `GatedPixelCNN`: the vertical stack runs once a row."""

    def __init__(self, model: GatedPixelCNN, n: int, width: int, labels: Tensor | None) -> None:
        self.model = model
        r = model.layers[0].vertical.mask.shape[2] // 2
        self.vertical = [
            CachedRows(layer.vertical, r + (number > 0), n, width)  # type A has no own row
            for number, layer in enumerate(model.layers)
        ]
        self.horizontal = [CachedConv(layer.horizontal, n, width) for layer in model.layers]
        self.out = [CachedConv(layer.out, n, width) for layer in model.layers]
        self.head = [CachedConv(conv, n, width) for conv in model.head]
        self.classes = [layer.class_terms(labels) for layer in model.layers]
        self.finished = model.layers[0].vertical.weight.new_zeros(n, model.n_channels, width)

    def start_row(self) -> None:
        v = self.finished  # the row above; zeros above the first
        for number, layer in enumerate(self.model.layers):
            of_v, of_h = self.classes[number]  # (N, 2F, 1, 1), or 0
            a = self.vertical[number](v)[:, :, None]  # (N, 2F, 1, W)
            self.horizontal[number].start_row((layer.to_horizontal(a) + of_h).squeeze(2))
            v = gate(a + of_v).squeeze(2)
        for conv in [*self.out, *self.head]:
            conv.start_row()

    def logits(self, j: int, c: int) -> Tensor:
        h: Tensor | None = None
        for horizontal, out in zip(self.horizontal, self.out, strict=True):
            if h is not None:
                horizontal.put(j, c, h)
            out.put(j, c, gate(horizontal.output(j, c)))
            new = out.output(j, c)
            h = new if h is None else h + new
        assert h is not None
        for conv in self.head:
            conv.put(j, c, h.relu())
            h = conv.output(j, c)
        return h

    def put(self, j: int, c: int, levels: Tensor) -> None:
        values = self.model.values_of(levels)
        self.horizontal[0].put(j, c, values[:, None])
        self.finished[:, c, j] = values


def gate(a: Tensor) -> Tensor:
    """tanh(a₁) σ(a₂), the two halves of a's features: ``(N, 2F, …)`` to ``(N, F, …)``."""
    value, opening = a.chunk(2, 1)
    return torch.tanh(value) * torch.sigmoid(opening)
