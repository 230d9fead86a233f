"""Diagonal BiLSTM: recurrent states along the diagonals, from both upper corners."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from dgm_course.autoregressive.masked import CachedConv, MaskedConv2d
from dgm_course.autoregressive.pixel_rnn import (
    LayerCache,
    PixelRNN,
    RecurrentLayer,
    lstm_step,
)
from dgm_course.autoregressive.pixelcnn import check_depth
from dgm_course.checks import check_count, check_tensor


def skew(x: Tensor) -> Tensor:
    """y[i, i + j] = x[i, j], 0 elsewhere: row i moves i columns to the right.

    A diagonal of the image, i + j = t, becomes column t: what a pixel follows, the left neighbour
    and the one above, then stands in the column before. H zeros behind each row shift the next one
    by one more as soon as the rows are cut one column shorter.

    Source: van den Oord et al. 2016a, section 3.2 and figure 3, https://arxiv.org/abs/1601.06759.

    Shapes: ``(..., H, W)`` to ``(..., H, H + W − 1)``.

    Raises:
        ValueError: for a tensor without rows and columns.

    Example:
        >>> skew(torch.tensor([[1, 2], [3, 4], [5, 6]])).tolist()
        [[1, 2, 0, 0], [0, 3, 4, 0], [0, 0, 5, 6]]
    """
    height, width = _sides(x, "x")
    longer = pad(x, (0, height)).flatten(-2)  # (..., H · (W + H))
    return longer[..., : longer.shape[-1] - height].unflatten(-1, (height, height + width - 1))


def unskew(y: Tensor, width: int) -> Tensor:
    """x[i, j] = y[i, i + j]: undoes `skew`.

    Args:
        y: a skewed map.
        width: W, of the map before.

    Shapes: ``(..., H, H + W − 1)`` to ``(..., H, W)``.

    Raises:
        ValueError: for a tensor without rows and columns, or a width that does not fit.

    Example:
        >>> unskew(torch.tensor([[1, 2, 0, 0], [0, 3, 4, 0], [0, 0, 5, 6]]), 2).tolist()
        [[1, 2], [3, 4], [5, 6]]
    """
    height, columns = _sides(y, "y")
    if check_count(width, "width") != columns - height + 1:
        raise ValueError(
            f"width must be {columns - height + 1} for a skewed map of {height} rows and {columns} "
            f"columns, got {width}"
        )
    shorter = pad(y.flatten(-2), (0, height)).unflatten(-1, (height, columns + 1))
    return shorter[..., :width]


class DiagonalBiLSTMLayer(RecurrentLayer):
    """out = 1×1 of h₁ + h₂ moved down a row; each (o, f, i, g) from K m + S (above, beside).

    h₁ follows the state above and the one to the left; h₂ the one above and the one to the right.
    h₂ would see what comes later in its own row, so a pixel gets that of the row above. See
    `lstm_step`; c is handed on along the row. K is 1×1 of type B. The states outside the image are
    0: there is no bias in S, so where the skewed map of K m is 0, states of 0 stay 0.

    Source: van den Oord et al. 2016a, section 3.2, https://arxiv.org/abs/1601.06759.

    Args:
        n_features: features F of a state.
        n_channels: the image's channels.
    """

    def __init__(self, n_features: int, n_channels: int) -> None:
        super().__init__()
        width, c = 2 * n_features, n_channels
        # The four gates of the first direction, then those of the second.
        self.from_input = MaskedConv2d(width, 8 * n_features, 1, "B", n_channels=c, n_blocks=8)
        bound = width**-0.5
        # Direction; features of the state above, then of the one beside; gates.
        self.from_state = nn.Parameter(bound * (2 * torch.rand(2, width, 4 * n_features) - 1))
        self.out = MaskedConv2d(n_features, width, 1, "B", n_channels=c)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.from_input(x).chunk(2, 1)  # (N, 4F, H, W) each
        maps = skew(torch.stack([first, second.flip(3)]))  # (2, N, 4F, H, T), T = H + W − 1
        columns = maps.permute(4, 0, 1, 3, 2)  # (T, 2, N, H, 4F)
        h = c = columns.new_zeros(*columns.shape[1:4], columns.shape[4] // 4)
        states = []
        for column in columns:
            before = torch.cat([pad(h, (0, 0, 1, -1)), h], 3)  # (2, N, H, 2F): above, beside
            a = column + (before.flatten(1, 2) @ self.from_state).view_as(column)
            step = lstm_step(a, c)
            h, c = step.h, step.c
            states.append(h)
        skewed = torch.stack(states, 4).transpose(2, 3)  # (2, N, F, H, T)
        first, second = unskew(skewed, x.shape[3])  # (N, F, H, W) each
        return self.out(first + pad(second.flip(3), (0, 0, 1, -1)))

    def cache(self, n: int, width: int) -> LayerCache:
        return DiagonalBiLSTMLayerCache(self, n, width)


class DiagonalBiLSTMLayerCache:
    """`LayerCache` of a `DiagonalBiLSTMLayer`: the second direction runs once a row is finished."""

    def __init__(self, layer: DiagonalBiLSTMLayer, n: int, width: int) -> None:
        self.from_input = CachedConv(layer.from_input, n, width)
        self.out = CachedConv(layer.out, n, width)
        above, beside = layer.from_state.chunk(2, 1)  # (2, F, 4F) each
        n_features = above.shape[1]
        self.above, self.beside = above, beside[1]
        by_gate = beside[0].unflatten(1, (4, n_features))
        self.of_group = [by_gate[:, :, low:high].flatten(1) for low, high in self.out.inputs]
        # What the second direction sees of the input, (N, W, gate, F), and its states.
        self.later = above.new_zeros(n, width, 4, n_features)
        self.second = above.new_zeros(n, width, n_features)
        # Of the first direction a row's hidden states, zeros to its left, and one cell state.
        self.h = above.new_zeros(n, 1 + width, n_features)
        self.c = above.new_zeros(n, n_features)

    def start_row(self) -> None:
        a = self.later.flatten(2) + self.second @ self.above[1]  # (N, W, 4F), of the row above
        h = c = torch.zeros_like(self.c)
        for j in reversed(range(a.shape[1])):
            step = lstm_step(torch.addmm(a[:, j], h, self.beside), c)
            h, c = step.h, step.c
            self.second[:, j] = h
        first = (self.h[:, 1:] @ self.above[0]).transpose(1, 2)  # (N, 4F, W)
        self.from_input.start_row(torch.cat([first, torch.zeros_like(first)], 1))
        self.out.start_row()
        self.c.zero_()

    def output(self, j: int, c: int, x: Tensor) -> Tensor:
        self.from_input.put(j, c, x)
        first, second = self.from_input.output(j, c).chunk(2, 1)  # (N, 4 · features of group c)
        low, high = self.out.inputs[c]
        a = torch.addmm(first, self.h[:, j], self.of_group[c])
        step = lstm_step(a, self.c[:, low:high])
        self.h[:, j + 1, low:high], self.c[:, low:high] = step.h, step.c
        self.later[:, j, :, low:high] = second.unflatten(1, (4, high - low))
        self.out.put(j, c, step.h + self.second[:, j, low:high])
        return self.out.output(j, c)


class DiagonalBiLSTM(PixelRNN):
    """m₀ = A(x), mₗ = mₗ₋₁ + layerₗ(mₗ₋₁), logits = two 1×1 layers, each after a relu.

    A is a k×k convolution of type A, each layer a `DiagonalBiLSTMLayer`. The logits see every
    earlier pixel but one, at any depth: the last of the row above (of several channels, the last
    one there). It could come by the second direction of that row alone, whose states see what is
    to the left of them in it. Within (k − 1) / 2 of it the first layer sees it.

    Source: van den Oord, Kalchbrenner & Kavukcuoglu 2016a, sections 3.2 to 3.4,
    https://arxiv.org/abs/1601.06759.

    Args:
        n_levels: levels 0 … n_levels − 1 of a pixel.
        n_channels: channels C of an image; each sees those before it at its own pixel.
        n_features: features F of a state, at least C; the maps between layers have 2F.
        n_layers: recurrent layers L.
        kernel_size: k of the first layer, odd and at least 3.

    Shapes: see `ImageModel`: integers ``(N, C, H, W)`` to logits ``(N, n_levels, C, H, W)``.

    Raises:
        ValueError: for arguments outside these bounds, or bad images.

    Omits: the paper's multi-scale model.

    Example:
        >>> model = DiagonalBiLSTM(3, n_features=4, n_layers=2)
        >>> model.log_prob(model.sample(2, (5, 6))).shape
        torch.Size([2])
    """

    def __init__(
        self,
        n_levels: int,
        *,
        n_channels: int = 1,
        n_features: int = 32,
        n_layers: int = 3,
        kernel_size: int = 3,
    ) -> None:
        check_depth(n_features, n_layers, kernel_size)
        layers = [DiagonalBiLSTMLayer(n_features, n_channels) for _ in range(n_layers)]
        super().__init__(n_levels, n_channels, n_features, kernel_size, layers)


def _sides(x: Tensor, name: str) -> tuple[int, int]:
    """Rows and columns of a map; a ValueError where there are none."""
    check_tensor(x, name)
    if x.ndim < 2 or 0 in x.shape[-2:]:
        raise ValueError(
            f"{name} must have rows and columns, (..., H, W), got shape {tuple(x.shape)}"
        )
    return x.shape[-2], x.shape[-1]
