"""PixelCNN: masked convolutions, residual connections, a softmax over the levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from dgm_course.autoregressive.image_model import ImageModel
from dgm_course.autoregressive.masked import CachedConv, MaskedConv2d
from dgm_course.autoregressive.sampling import Cache


class PixelCNN(ImageModel):
    """h₁ = A(x), hₗ = hₗ₋₁ + Bₗ(relu hₗ₋₁), logits = two 1×1 layers, each after a relu.

    A and B are masked k×k convolutions of those types. The stack has a blind spot: with
    r = (k − 1) / 2 it misses r L (L − 1) / 2 pixels above and to the right (`blind_pixels`).

    Source: van den Oord, Kalchbrenner & Kavukcuoglu 2016a, sections 2 and 3.4,
    https://arxiv.org/abs/1601.06759.

    Args:
        n_levels: levels 0 … n_levels − 1 of a pixel.
        n_channels: channels C of an image; each sees those before it at its own pixel.
        n_features: features F of every layer, at least C.
        n_layers: masked k×k layers L, the first of type A.
        kernel_size: k, odd and at least 3.

    Shapes: see `ImageModel`: integers ``(N, C, H, W)`` to logits ``(N, n_levels, C, H, W)``.

    Raises:
        ValueError: for arguments outside these bounds, or bad images.

    Omits: the paper's bottleneck blocks (1×1, 3×3, 1×1) and its multi-scale model.
    """

    def __init__(
        self,
        n_levels: int,
        *,
        n_channels: int = 1,
        n_features: int = 64,
        n_layers: int = 6,
        kernel_size: int = 3,
    ) -> None:
        super().__init__(n_levels, n_channels)
        check_depth(n_layers, kernel_size)

        def conv(n_in: int, n_out: int, k: int, mask_type: str = "B") -> MaskedConv2d:
            return MaskedConv2d(n_in, n_out, k, mask_type, n_channels=n_channels)

        self.first = conv(n_channels, n_features, kernel_size, "A")
        residual = [conv(n_features, n_features, kernel_size) for _ in range(n_layers - 1)]
        head = [conv(n_features, n_features, 1), conv(n_features, n_channels * n_levels, 1)]
        # Lists of modules, typed by what is in them.
        self.residual = cast("Sequence[MaskedConv2d]", nn.ModuleList(residual))
        self.head = cast("Sequence[MaskedConv2d]", nn.ModuleList(head))

    def logits_of(self, values: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.first(values)  # (N, F, H, W)
        for layer in self.residual:
            h = h + layer(h.relu())
        for layer in self.head:
            h = layer(h.relu())  # last: (N, C · n_levels, H, W), channel by channel
        return h.unflatten(1, (self.n_channels, self.n_levels)).transpose(1, 2)

    def cache(self, n: int, size: tuple[int, int], labels: Tensor | None = None) -> Cache:
        return PixelCNNCache(self, n, size[1])


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


def check_depth(n_layers: int, kernel_size: int) -> None:
    """Raise a ValueError unless a stack of that depth and kernel can see a neighbour."""
    for name, value, least in [("n_layers", n_layers, 1), ("kernel_size", kernel_size, 3)]:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be an int of at least {least}, got {value!r}")
