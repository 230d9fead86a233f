"""Row LSTM: a recurrent state that goes down the image, a whole row at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from dgm_course.autoregressive.masked import CachedConv, MaskedConv2d
from dgm_course.autoregressive.pixel_rnn import (
    LayerCache,
    LSTMStep,
    PixelRNN,
    RecurrentLayer,
    lstm_step,
)
from dgm_course.autoregressive.pixelcnn import check_depth
from dgm_course.checks import check_count, check_images


class RowLSTMLayer(RecurrentLayer):
    """(o, f, i, g) from K ∗ mᵢ + S ∗ hᵢ₋₁ at each row i, and out = 1×1 of h; see `lstm_step`.

    K is a 1×k convolution of type B over the input's own row, computed for all rows at once. S
    takes the k nearest pixels of the row above without a mask, for all of that row comes before.

    Source: van den Oord et al. 2016a, section 3.1, https://arxiv.org/abs/1601.06759.

    Args:
        n_features: features F of a state.
        kernel_size: k, odd.
        n_channels: the image's channels.
    """

    def __init__(self, n_features: int, kernel_size: int, n_channels: int) -> None:
        super().__init__()
        self.from_input = MaskedConv2d(
            2 * n_features,
            4 * n_features,
            kernel_size,
            "B",
            n_channels=n_channels,
            stack="horizontal",
            n_blocks=4,
        )
        n_seen = kernel_size * n_features
        bound = n_seen**-0.5
        self.from_state = nn.Parameter(bound * (2 * torch.rand(n_seen, 4 * n_features) - 1))
        self.out = MaskedConv2d(n_features, 2 * n_features, 1, "B", n_channels=n_channels)

    def from_above(self, h: Tensor) -> Tensor:
        """S ∗ h of a row of states: ``(N, W, F)`` to ``(N, W, 4F)``."""
        n_features, r = h.shape[2], len(self.from_state) // h.shape[2] // 2
        near = pad(h, (0, 0, r, r)).unfold(1, 2 * r + 1, 1).transpose(2, 3)  # (N, W, k, F)
        return near.reshape(*h.shape[:2], (2 * r + 1) * n_features) @ self.from_state

    def steps(self, x: Tensor) -> Iterator[LSTMStep]:
        """The cell at one row after the other: ``(N, 2F, H, W)`` to H steps of ``(N, W, F)``."""
        rows = self.from_input(x).permute(2, 0, 3, 1)  # (H, N, W, 4F)
        h = c = rows.new_zeros(*rows.shape[1:3], rows.shape[3] // 4)
        for row in rows:
            step = lstm_step(row + self.from_above(h), c)
            h, c = step.h, step.c
            yield step

    def forward(self, x: Tensor) -> Tensor:
        h = torch.stack([step.h for step in self.steps(x)], 1)  # (N, H, W, F)
        return self.out(h.permute(0, 3, 1, 2))

    def cache(self, n: int, width: int) -> LayerCache:
        return RowLSTMLayerCache(self, n, width)


class RowLSTMLayerCache:
    """`LayerCache` of a `RowLSTMLayer`: it keeps one row of states."""

    def __init__(self, layer: RowLSTMLayer, n: int, width: int) -> None:
        self.layer = layer
        self.from_input = CachedConv(layer.from_input, n, width)
        self.out = CachedConv(layer.out, n, width)
        self.h = layer.from_state.new_zeros(n, width, layer.from_state.shape[1] // 4)
        self.c = self.h.clone()

    def start_row(self) -> None:
        self.from_input.start_row(self.layer.from_above(self.h).transpose(1, 2))
        self.out.start_row()

    def output(self, j: int, c: int, x: Tensor) -> Tensor:
        self.from_input.put(j, c, x)
        low, high = self.out.inputs[c]
        step = lstm_step(self.from_input.output(j, c), self.c[:, j, low:high])
        # They replace those of the row above, which nothing needs any more.
        self.h[:, j, low:high], self.c[:, j, low:high] = step.h, step.c
        self.out.put(j, c, step.h)
        return self.out.output(j, c)


class RowLSTM(PixelRNN):
    """m₀ = A(x), mₗ = mₗ₋₁ + layerₗ(mₗ₋₁), logits = two 1×1 layers, each after a relu.

    A is a k×k convolution of type A, each layer a `RowLSTMLayer`. With r = (k − 1) / 2, the logits
    see r (1 + L) pixels of their own row, and of row j above from r (j + 1 + L) to the left to r j
    to the right, as far up as the image goes: a triangle whose right edge does not move with
    depth. It does not help to add layers against what is missing there.

    Source: van den Oord, Kalchbrenner & Kavukcuoglu 2016a, sections 3.1, 3.3 and 3.4,
    https://arxiv.org/abs/1601.06759.

    Args:
        n_levels: levels 0 … n_levels − 1 of a pixel.
        n_channels: channels C of an image; each sees those before it at its own pixel.
        n_features: features F of a state, at least C; the maps between layers have 2F.
        n_layers: recurrent layers L.
        kernel_size: k, odd and at least 3.

    Shapes: see `ImageModel`: integers ``(N, C, H, W)`` to logits ``(N, n_levels, C, H, W)``.

    Raises:
        ValueError: for arguments outside these bounds, or bad images.

    Omits: the paper's 7×7 first layer beside 3×1 kernels (here one k), and its multi-scale model.

    Example:
        >>> model = RowLSTM(3, n_features=4, n_layers=2)
        >>> x = model.sample(2, (5, 6))
        >>> model.log_prob(x).shape, len(model.steps(x)), model.steps(x)[0].g.shape
        (torch.Size([2]), 5, torch.Size([2, 6, 4]))
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
        layers = [RowLSTMLayer(n_features, kernel_size, n_channels) for _ in range(n_layers)]
        super().__init__(n_levels, n_channels, n_features, kernel_size, layers)

    @torch.no_grad()
    def steps(self, x: Tensor, layer: int = 0) -> list[LSTMStep]:
        """Gates and states of a layer, row after row: what the lecture looks at.

        Args:
            x: images, as for `forward`.
            layer: which recurrent layer, 0 the first.

        Shapes: integers ``(N, C, H, W)`` to H steps, each of tensors ``(N, W, F)``.

        Raises:
            ValueError: for bad images, or a layer that the model does not have.
        """
        check_images(x, self.n_levels, self.n_channels)
        check_count(layer, "layer", 0, len(self.layers) - 1)
        m = self.first(self.values_of(x))
        for earlier in self.layers[:layer]:
            m = m + earlier(m)
        chosen = self.layers[layer]
        assert isinstance(chosen, RowLSTMLayer)
        return list(chosen.steps(m))
