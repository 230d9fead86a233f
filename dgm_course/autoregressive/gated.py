"""Gated PixelCNN: a vertical and a horizontal stack, which together leave no pixel unseen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from dgm_course.autoregressive.image_model import ImageModel
from dgm_course.autoregressive.masked import (
    CachedConv,
    CachedHead,
    CachedRows,
    Head,
    MaskedConv2d,
    rows_of,
)
from dgm_course.autoregressive.pixelcnn import check_depth
from dgm_course.autoregressive.sampling import Cache


class GatedLayer(nn.Module):
    """v′ = gate(V v + s_v), h′ = h + W gate(H h + P V v + s_h), gate(a) = tanh(a₁) σ(a₂).

    V is the vertical k×k convolution, H the horizontal 1×k one, P and W are 1×1. s = U y + C c is
    what the layer is told: y is the class, one-hot, c the context and C a 1×1 convolution without
    a mask; each is left out where the model has none. The first layer sees the image, and has no h
    to add.

    Source: van den Oord et al. 2016b, equations 2 to 5 and figure 2,
    https://arxiv.org/abs/1606.05328.

    Args:
        n_in: features of the input; the image's channels in the first layer.
        n_features: features F of the output.
        kernel_size: k, odd.
        n_channels: the image's channels.
        n_classes: number of classes, or None.
        n_context: features of the context, or None.
        first: whether the input is the image.
    """

    def __init__(
        self,
        n_in: int,
        n_features: int,
        kernel_size: int,
        n_channels: int,
        n_classes: int | None,
        n_context: int | None,
        first: bool,
    ) -> None:
        super().__init__()
        mask_type, width, c = "A" if first else "B", 2 * n_features, n_channels
        self.vertical = MaskedConv2d(
            n_in, width, kernel_size, mask_type, n_channels=c, stack="vertical"
        )
        self.horizontal = MaskedConv2d(
            n_in, width, kernel_size, mask_type, n_channels=c, stack="horizontal", n_blocks=2
        )
        # No mask: what the vertical stack holds lies in the rows above, every channel of it.
        self.to_horizontal = nn.Conv2d(width, width, 1, bias=False)
        self.out = MaskedConv2d(n_features, n_features, 1, "B", n_channels=c)
        self.first = first
        self.classes = None
        if n_classes is not None:
            self.classes = nn.Embedding(n_classes, 2 * width)
            nn.init.normal_(self.classes.weight, std=0.1)
        self.of_context = None
        if n_context is not None:
            self.of_context = nn.Conv2d(n_context, 2 * width, 1, bias=False)

    def forward(
        self, v: Tensor, h: Tensor, labels: Tensor | None, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        s_v, s_h = self.told(labels, context)
        a = self.vertical(v)  # (N, 2F, H, W)
        new = self.out(gate(self.horizontal(h) + self.to_horizontal(a) + s_h))  # (N, F, H, W)
        return gate(a + s_v), new if self.first else h + new

    def told(self, labels: Tensor | None, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """s_v and s_h, each ``(N, 2F, H, W)``; a size of 1 stands for all of that axis."""
        s = self.vertical.bias.new_zeros(1, 2 * len(self.vertical.bias), 1, 1)
        if self.classes is not None and labels is not None:
            s = s + self.classes(labels.long())[:, :, None, None]
        if self.of_context is not None and context is not None:
            s = s + self.of_context(context)
        s_v, s_h = s.chunk(2, 1)
        return s_v, s_h


class GatedPixelCNN(ImageModel):
    """logits = two 1×1 layers on h_L, where (vₗ, hₗ) = layerₗ(vₗ₋₁, hₗ₋₁) and v₀ = h₀ = x.

    The vertical stack sees the rows above in full, the horizontal one the own row to the left:
    together every earlier pixel within r L, r = (k − 1) / 2.

    Source: van den Oord et al. 2016b, sections 2.1 to 2.3, https://arxiv.org/abs/1606.05328.

    Args:
        n_levels: levels 0 … n_levels − 1 of a pixel.
        n_channels: channels C of an image; each sees those before it at its own pixel.
        n_features: features F of every layer, at least C.
        n_layers: layers L, the first of type A.
        kernel_size: k, odd and at least 3.
        n_classes: number of classes, or None; with them, every call needs ``labels``.
        n_context: features of the context, or None; with them, every call needs ``context``.

    Shapes: see `ImageModel`: integers ``(N, C, H, W)`` to logits ``(N, n_levels, C, H, W)``.

    Raises:
        ValueError: for arguments outside these bounds, bad images, labels or context.

    Omits: skip connections from every layer to the output.
    """

    def __init__(
        self,
        n_levels: int,
        *,
        n_channels: int = 1,
        n_features: int = 64,
        n_layers: int = 6,
        kernel_size: int = 3,
        n_classes: int | None = None,
        n_context: int | None = None,
    ) -> None:
        super().__init__(n_levels, n_channels, n_classes, n_context)
        check_depth(n_features, n_layers, kernel_size)
        told = n_channels, n_classes, n_context
        layers = [
            GatedLayer(n_in, n_features, kernel_size, *told, first=number == 0)
            for number, n_in in enumerate([n_channels] + [n_features] * (n_layers - 1))
        ]
        # A list of modules, typed by what is in it.
        self.layers = cast("Sequence[GatedLayer]", nn.ModuleList(layers))
        self.head = Head(n_features, n_levels, n_channels)

    def logits_of(
        self, values: Tensor, labels: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        v = h = values  # (N, C, H, W)
        for layer in self.layers:
            v, h = layer(v, h, labels, context)  # (N, F, H, W) each
        return self.head(h)  # (N, n_levels, C, H, W)

    def cache(
        self,
        n: int,
        size: tuple[int, int],
        labels: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Cache:
        return GatedPixelCNNCache(self, n, size, labels, context)


class GatedPixelCNNCache:
    """`Cache` of a `GatedPixelCNN`: the vertical stack runs once a row."""

    def __init__(
        self,
        model: GatedPixelCNN,
        n: int,
        size: tuple[int, int],
        labels: Tensor | None,
        context: Tensor | None,
    ) -> None:
        self.model, (height, width) = model, size
        r = model.layers[0].vertical.mask.shape[2] // 2
        self.vertical = [
            CachedRows(layer.vertical, r + (number > 0), n, width)  # type A has no own row
            for number, layer in enumerate(model.layers)
        ]
        self.horizontal = [CachedConv(layer.horizontal, n, width) for layer in model.layers]
        self.out = [CachedConv(layer.out, n, width) for layer in model.layers]
        self.head = CachedHead(model.head, n, width)
        self.told = [
            zip(*(rows_of(s, height) for s in layer.told(labels, context)), strict=True)
            for layer in model.layers
        ]
        self.finished = model.layers[0].vertical.weight.new_zeros(n, model.n_channels, width)

    def start_row(self) -> None:
        v = self.finished  # the row above; zeros above the first
        for number, layer in enumerate(self.model.layers):
            s_v, s_h = next(self.told[number])  # (N, 2F, W) of this row
            a = self.vertical[number](v)  # (N, 2F, W)
            self.horizontal[number].start_row(layer.to_horizontal(a[:, :, None])[:, :, 0] + s_h)
            v = gate(a + s_v)
        for out in self.out:
            out.start_row()
        self.head.start_row()

    def logits(self, j: int, c: int) -> Tensor:
        h: Tensor | None = None
        for horizontal, out in zip(self.horizontal, self.out, strict=True):
            if h is not None:
                horizontal.put(j, c, h)
            out.put(j, c, gate(horizontal.output(j, c)))
            new = out.output(j, c)
            h = new if h is None else h + new
        assert h is not None
        return self.head.logits(j, c, h)

    def put(self, j: int, c: int, levels: Tensor) -> None:
        values = self.model.values_of(levels)
        self.horizontal[0].put(j, c, values[:, None])
        self.finished[:, c, j] = values


def gate(a: Tensor) -> Tensor:
    """tanh(a₁) σ(a₂), the two halves of a's features: ``(N, 2F, …)`` to ``(N, F, …)``."""
    value, opening = a.chunk(2, 1)
    return torch.tanh(value) * torch.sigmoid(opening)
