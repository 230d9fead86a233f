"""Masks that keep a convolution to the order of the pixels, and the layer that applies them.

When an image is drawn pixel by pixel, a feature at a pixel depends on earlier pixels only. It is
final as soon as those are drawn and need never be computed again. Of a masked kernel, the rows
above meet finished rows: they are convolved once a row, for all its pixels. What is left for a
pixel is the kernel's own row. `CachedRows` and `CachedConv` compute a layer in that way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from dgm_course.checks import check_count

STACKS = ("plain", "vertical", "horizontal")


def causal_mask(kernel_size: int, mask_type: str, stack: str = "plain") -> Tensor:
    """M[r+a, r+b] = 1 where the pixel at (a, b) from the centre may be seen, r = (k − 1) / 2.

    "plain": the rows above, and of the own row what lies to the left. "vertical": the rows above,
    in full. "horizontal": a single row, what lies to the left. Type B opens one thing more: the
    pixel itself, and for the vertical stack its whole row, for there a feature of row i has seen
    rows above i only.

    Source: van den Oord et al. 2016a, section 3.4, https://arxiv.org/abs/1601.06759; the stacks:
    van den Oord et al. 2016b, section 2.2, https://arxiv.org/abs/1606.05328.

    Args:
        kernel_size: k, odd.
        mask_type: "A" for the layer that sees the image, "B" for those after it.
        stack: "plain", "vertical" or "horizontal".

    Shapes: ``(k, k)``, horizontal ``(1, k)``; float32 of 0 and 1.

    Raises:
        ValueError: for an even kernel, another type or another stack.
    """
    if check_count(kernel_size, "kernel_size") % 2 == 0:
        raise ValueError(f"kernel_size must be odd, or there is no centre, got {kernel_size}")
    if mask_type not in ("A", "B"):
        raise ValueError(f"mask_type must be 'A' or 'B', got {mask_type!r}")
    if stack not in STACKS:
        raise ValueError(f"stack must be one of {', '.join(STACKS)}, got {stack!r}")
    r, own = kernel_size // 2, int(mask_type == "B")
    mask = torch.zeros(kernel_size, kernel_size)
    mask[:r] = 1  # the rows above
    if stack == "vertical":
        mask[: r + own] = 1
    else:
        mask[r, : r + own] = 1
    return mask[r : r + 1] if stack == "horizontal" else mask


def channel_groups(n_features: int, n_channels: int) -> Tensor:
    """The channel that each feature serves, ⌊f C / F⌋: F features in C neighbouring groups.

    A feature of group c at a pixel is on the way to the logits of channel c, so there it may see
    channels before c, and at earlier pixels all of them.

    Shapes: ``(F,)``, int64, rising from 0 to C − 1; sizes differ by one where C does not divide F.
    """
    check_count(n_features, "n_features")
    if check_count(n_channels, "n_channels") > n_features:
        raise ValueError(
            f"n_features must be at least n_channels, a feature for each channel, got {n_features} "
            f"features for {n_channels} channels"
        )
    return torch.arange(n_features) * n_channels // n_features


class MaskedConv2d(nn.Module):
    """y = (W ⊙ M) ∗ x + b: a convolution that sees nothing that comes later; the size stays.

    At the centre of the kernel, the pixel itself, the mask also tells channels apart, in the order
    R, G, B: group c of the output sees groups before c of the input (type A) or up to c (type B).
    The weights are masked where they are used, so that nothing an optimiser does can open them.

    Source: van den Oord et al. 2016a, section 3.4, https://arxiv.org/abs/1601.06759.

    Args:
        in_features: features of the input; the image's channels for type A.
        out_features: features of the output.
        kernel_size: k, odd.
        mask_type: "A" for the first layer, whose input is the image; "B" after it.
        n_channels: the image's channels C.
        stack: "plain", "vertical" or "horizontal", see `causal_mask`. In the vertical stack all
            channels of the rows above are open.
        n_blocks: the output is this many blocks, each with its own C groups (2 for a gate).

    Shapes: ``(N, in_features, H, W)`` to ``(N, out_features, H, W)``.

    Raises:
        ValueError: as `causal_mask` and `channel_groups`; for type A where the input is not the
            image; for blocks that do not divide the output.
    """

    mask: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        mask_type: str,
        *,
        n_channels: int = 1,
        stack: str = "plain",
        n_blocks: int = 1,
    ) -> None:
        super().__init__()
        spatial = causal_mask(kernel_size, mask_type, stack)  # (rows, k)
        check_count(in_features, "in_features")
        check_count(n_channels, "n_channels")
        if mask_type == "A" and in_features != n_channels:
            raise ValueError(
                "mask_type must be 'B' after the first layer: type A closes a pixel's own value, "
                f"which only the image holds; got 'A' with {in_features} input features for an "
                f"image of {n_channels} channels"
            )
        if check_count(out_features, "out_features") % check_count(n_blocks, "n_blocks"):
            raise ValueError(f"n_blocks must divide out_features = {out_features}, got {n_blocks}")
        self.stack, self.n_channels = stack, n_channels
        self.in_groups = channel_groups(in_features, n_channels)
        self.out_groups = channel_groups(out_features // n_blocks, n_channels).repeat(n_blocks)
        mask = spatial.repeat(out_features, in_features, 1, 1)
        if stack != "vertical":
            before = self.in_groups[None] < self.out_groups[:, None]  # (out, in)
            same = self.in_groups[None] == self.out_groups[:, None]
            mask[:, :, len(spatial) // 2, kernel_size // 2] = (
                before | same if mask_type == "B" else before
            ).float()
        self.register_buffer("mask", mask, persistent=False)  # not a weight: never in a file
        # As nn.Conv2d draws them, but by the weights that are open: half of them would halve h.
        bound = mask.sum((1, 2, 3)).clamp_min(1).rsqrt()  # (out,)
        self.weight = nn.Parameter((2 * torch.rand_like(mask) - 1) * bound[:, None, None, None])
        self.bias = nn.Parameter((2 * torch.rand(out_features) - 1) * bound)

    def masked_weight(self) -> Tensor:
        """W ⊙ M, ``(out_features, in_features, rows, k)``."""
        return self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.mask.shape[2:]
        return conv2d(x, self.masked_weight(), self.bias, padding=(rows // 2, columns // 2))


class Head(nn.Sequential):
    """logits = W₂ relu(W₁ relu h + b₁) + b₂: two 1×1 layers of type B, where a network ends.

    Args:
        n_features: features F of h.
        n_levels: levels of a pixel.
        n_channels: the image's channels C.

    Shapes: ``(N, F, H, W)`` to ``(N, n_levels, C, H, W)``.
    """

    def __init__(self, n_features: int, n_levels: int, n_channels: int) -> None:
        sizes = n_features, n_channels * n_levels  # the last layer's features: channel by channel
        layers = (MaskedConv2d(n_features, n, 1, "B", n_channels=n_channels) for n in sizes)
        super().__init__(*layers)
        self.n_levels = n_levels

    def forward(self, h: Tensor) -> Tensor:
        for layer in self:
            h = layer(h.relu())
        return h.unflatten(1, (-1, self.n_levels)).transpose(1, 2)


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


class CachedHead:
    """A `Head`, one pixel and one group of channels at a time."""

    def __init__(self, head: Head, n: int, width: int) -> None:
        layers = cast("Iterable[MaskedConv2d]", head)
        self.convs = [CachedConv(conv, n, width) for conv in layers]

    def start_row(self) -> None:
        for conv in self.convs:
            conv.start_row()

    def logits(self, j: int, c: int, h: Tensor) -> Tensor:
        """The logits of channel c at column j, ``(N, n_levels)``, from group c of the features."""
        for conv in self.convs:
            conv.put(j, c, h.relu())
            h = conv.output(j, c)
        return h


def rows_of(term: Tensor, height: int) -> Iterator[Tensor]:
    """The rows ``(N, F, W)`` of a map ``(N, F, H, W)``; a height of 1 stands for all rows."""
    return iter(term.expand(-1, -1, height, -1).unbind(2))
