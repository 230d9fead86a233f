"""PixelSNAIL: convolutions for what is near, attention over all earlier pixels for what is not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import elu, pad, scaled_dot_product_attention

from dgm_course.autoregressive.image_model import ImageModel, check_pixel
from dgm_course.autoregressive.masked import CachedConv, MaskedConv2d
from dgm_course.autoregressive.sampling import Cache
from dgm_course.autoregressive.shifted import (
    CachedEntrance,
    CachedResidual,
    Entrance,
    GatedResidual,
)
from dgm_course.checks import check_count, check_images


class CausalAttention(nn.Module):
    """aᵢ = Σ_{j<i} wᵢⱼ vⱼ, wᵢ = softmax over j < i of qᵢ · kⱼ / √d; the first pixel's a is 0.

    qᵢ comes from the feature at i and from where i lies; kⱼ and vⱼ from the same at j, and from
    the pixel j itself: j = i would be the pixel that is to be predicted.

    Source: Chen et al. 2018, section 2, https://arxiv.org/abs/1712.09763.

    Args:
        n_features: features F of the input and of a.
        n_channels: channels C of the image.
        n_heads: how many times, each with F / n_heads features.

    Shapes: h ``(N, F, H, W)`` and the image's values ``(N, C, H, W)`` to ``(N, F, H, W)``.
    """

    def __init__(self, n_features: int, n_channels: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(n_features + 2, n_features)
        self.key = nn.Linear(n_features + n_channels + 2, n_features)
        self.value = nn.Linear(n_features + n_channels + 2, n_features)

    def forward(self, h: Tensor, values: Tensor) -> Tensor:
        q, k, v = self.in_order(h, values)  # (N, heads, D, d) each
        # The query of pixel i + 1 stands at i: "up to its own place" is strictly before the pixel.
        a = scaled_dot_product_attention(q[:, :, 1:], k[:, :, :-1], v[:, :, :-1], is_causal=True)
        a = pad(a, (0, 0, 1, 0))  # the first pixel has no key
        return a.transpose(2, 3).flatten(1, 2).unflatten(2, h.shape[2:])

    def in_order(self, h: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of all pixels, ``(N, heads, H · W, F / heads)`` each."""
        place = places(h)
        asking = torch.cat([h, place], 1).flatten(2).mT  # (N, D, F + 2)
        asked = torch.cat([h, values, place], 1).flatten(2).mT  # (N, D, F + C + 2)
        return (
            self.split(self.query(asking)),
            self.split(self.key(asked)),
            self.split(self.value(asked)),
        )

    def split(self, x: Tensor) -> Tensor:
        """``(N, D, F)`` to ``(N, heads, D, F / heads)``."""
        return x.unflatten(2, (self.n_heads, -1)).transpose(1, 2)

    def weights(self, h: Tensor, values: Tensor, place: int) -> Tensor:
        """wᵢ of the pixel at that place in the order, ``(N, heads, H, W)``: 0 from i onwards."""
        q, k, _ = self.in_order(h, values)
        w = look(q[:, :, place], k[:, :, :place])
        return pad(w, (0, k.shape[2] - place)).unflatten(2, h.shape[2:])


class Block(nn.Module):
    """Two gated residual layers, then attention, then a third layer that hears what it found."""

    def __init__(self, n_features: int, n_channels: int, n_heads: int) -> None:
        super().__init__()
        layers = nn.ModuleList(GatedResidual(n_features, "right") for _ in range(2))
        self.layers = cast("Sequence[GatedResidual]", layers)  # typed by what is in it
        self.attention = CausalAttention(n_features, n_channels, n_heads)
        self.join = GatedResidual(n_features, "point", n_features)

    def near(self, h: Tensor) -> Tensor:
        """What the attention starts from: ``(N, F, H, W)`` to ``(N, F, H, W)``."""
        for layer in self.layers:
            h = layer(h)
        return h

    def forward(self, h: Tensor, values: Tensor) -> Tensor:
        h = self.near(h)
        return self.join(h, self.attention(h, values))


class PixelSNAIL(ImageModel):
    """logits = head(h_L, channels before), hₗ = blockₗ(hₗ₋₁): convolutions and attention in turn.

    A block has two gated residual layers of 2 × 2 kernels, attention over every strictly earlier
    pixel, and a 1×1 layer that joins them. The features of a pixel know earlier pixels alone, all
    channels of them; what the pixel's own earlier channels say enters in the head, by masks.

    Source: Chen, Mishra, Rohaninejad & Abbeel 2018, https://arxiv.org/abs/1712.09763.

    Args:
        n_levels: levels 0 … n_levels − 1 of a pixel.
        n_channels: channels C of an image; each sees those before it at its own pixel.
        n_features: features F of every layer, at least C.
        n_layers: blocks L.
        n_heads: heads of each attention; divides F.

    Shapes: see `ImageModel`: integers ``(N, C, H, W)`` to logits ``(N, n_levels, C, H, W)``.

    Raises:
        ValueError: for arguments outside these bounds, or bad images.

    Omits: the paper's mixture of logistics, dropout, and residual layers inside the attention.

    Example:
        >>> model = PixelSNAIL(17, n_features=8, n_layers=1)
        >>> x = torch.randint(17, (4, 1, 8, 8))
        >>> model(x).shape, model.attention(x, (6, 4)).shape
        (torch.Size([4, 17, 1, 8, 8]), torch.Size([4, 1, 1, 8, 8]))
    """

    def __init__(
        self,
        n_levels: int,
        *,
        n_channels: int = 1,
        n_features: int = 32,
        n_layers: int = 2,
        n_heads: int = 1,
    ) -> None:
        super().__init__(n_levels, n_channels)
        f = check_count(n_features, "n_features")
        check_count(n_layers, "n_layers")
        if f % check_count(n_heads, "n_heads"):
            raise ValueError(f"n_heads must divide n_features = {f}, got {n_heads}")
        self.entrance = Entrance(n_channels, f, "right")
        blocks = nn.ModuleList(Block(f, n_channels, n_heads) for _ in range(n_layers))
        self.blocks = cast("Sequence[Block]", blocks)  # typed by what is in it
        self.from_before = nn.Conv2d(f, f, 1)
        self.from_here = None  # a single channel has none before it
        if n_channels > 1:
            self.from_here = MaskedConv2d(n_channels, f, 1, "A", n_channels=n_channels)
        self.head = MaskedConv2d(f, n_channels * n_levels, 1, "B", n_channels=n_channels)

    def logits_of(
        self, values: Tensor, labels: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        h = self.entrance(values)  # (N, F, H, W)
        for block in self.blocks:
            h = block(h, values)
        h = self.from_before(elu(h))
        if self.from_here is not None:
            h = h + self.from_here(values)
        h = self.head(elu(h))  # (N, C · n_levels, H, W), channel by channel
        return h.unflatten(1, (self.n_channels, self.n_levels)).transpose(1, 2)

    @torch.no_grad()
    def attention(self, x: Tensor, pixel: tuple[int, int]) -> Tensor:
        """How much one pixel looks at each earlier one, in every block and head.

        Args:
            x: integers ``(N, C, H, W)``.
            pixel: its row and column.

        Shapes: ``(N, L, heads, H, W)``; the weights add up to 1 over the image, and are 0 from the
        pixel itself onwards. For the first pixel, which has none to look at, all are 0.

        Raises:
            ValueError: for bad images, or a pixel outside them.
        """
        check_images(x, self.n_levels, self.n_channels)
        (i, j), width = check_pixel(pixel, (x.shape[2], x.shape[3])), x.shape[3]
        values = self.values_of(x)
        h, found = self.entrance(values), []
        for block in self.blocks:
            found.append(block.attention.weights(block.near(h), values, i * width + j))
            h = block(h, values)
        return torch.stack(found, 1)

    def cache(
        self,
        n: int,
        size: tuple[int, int],
        labels: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Cache:
        return PixelSNAILCache(self, n, size)


class CachedAttention:
    """A `CausalAttention` one pixel at a time: keys and values of earlier pixels are kept."""

    def __init__(self, attention: CausalAttention, n: int, n_pixels: int) -> None:
        self.attention, self.n_known = attention, 0
        n_features = attention.query.out_features
        shape = (n, attention.n_heads, n_pixels, n_features // attention.n_heads)
        self.keys = attention.query.weight.new_zeros(shape)
        self.values = torch.zeros_like(self.keys)

    def output(self, h: Tensor, place: Tensor) -> Tensor:
        """a ``(N, F)`` of the next pixel, from its h ``(N, F)`` and place ``(N, 2)``."""
        q = self.attention.query(torch.cat([h, place], 1)).unflatten(1, (len(self.keys[0]), -1))
        w = look(q, self.keys[:, :, : self.n_known])  # (N, heads, pixels so far)
        return (w[:, :, None] @ self.values[:, :, : self.n_known]).flatten(1)

    def put(self, h: Tensor, values: Tensor, place: Tensor) -> None:
        """The pixel is now known: keep its key and its value."""
        asked = torch.cat([h, values, place], 1)[:, None]  # (N, 1, F + C + 2)
        for kept, layer in ((self.keys, self.attention.key), (self.values, self.attention.value)):
            kept[:, :, self.n_known] = self.attention.split(layer(asked))[:, :, 0]
        self.n_known += 1


class PixelSNAILCache:
    """`Cache` of a `PixelSNAIL`: the blocks run once a pixel, the head once a channel."""

    def __init__(self, model: PixelSNAIL, n: int, size: tuple[int, int]) -> None:
        self.model, self.row = model, -1
        self.places = places(model.like.new_zeros(n, 1, *size))  # (N, 2, H, W)
        self.entrance = CachedEntrance(model.entrance, n, size[1])
        self.near = [[CachedResidual(r, n, size[1]) for r in b.layers] for b in model.blocks]
        self.attention = [CachedAttention(b.attention, n, size[0] * size[1]) for b in model.blocks]
        self.join = [CachedResidual(b.join, n, size[1]) for b in model.blocks]
        self.head, self.from_here = CachedConv(model.head, n, size[1]), None
        if model.from_here is not None:
            self.from_here = CachedConv(model.from_here, n, size[1])
        self.of_blocks: list[Tensor] = []  # what each attention started from, at this pixel
        self.before = self.values = model.like.new_zeros(n, model.n_channels)

    def start_row(self) -> None:
        self.row += 1
        for part in (self.entrance, *chain(*self.near), *self.join, self.head, self.from_here):
            if part is not None:
                part.start_row()

    def logits(self, j: int, c: int) -> Tensor:
        if c == 0:
            self.before = self.from_earlier_pixels(j)
        h = self.before
        if self.from_here is not None:
            h = h[:, self.from_here.outputs[c]] + self.from_here.output(j, c)
        self.head.put(j, c, elu(h))
        return self.head.output(j, c)

    def from_earlier_pixels(self, j: int) -> Tensor:
        h, place, self.of_blocks = self.entrance.output(j), self.places[:, :, self.row, j], []
        for near, attention, join in zip(self.near, self.attention, self.join, strict=True):
            for layer in near:
                h = layer.step(j, h)
            self.of_blocks.append(h)
            h = join.step(j, h, attention.output(h, place))
        return self.model.from_before(elu(h)[:, :, None, None])[:, :, 0, 0]  # (N, F)

    def put(self, j: int, c: int, levels: Tensor) -> None:
        if c == 0:
            self.values = torch.zeros_like(self.values)
        self.values[:, c] = self.model.values_of(levels)
        if self.from_here is not None:
            self.from_here.put(j, c, self.values[:, c : c + 1])
        if c == self.model.n_channels - 1:
            self.entrance.put(j, self.values)
            for attention, h in zip(self.attention, self.of_blocks, strict=True):
                attention.put(h, self.values, self.places[:, :, self.row, j])


def places(h: Tensor) -> Tensor:
    """Row and column of every pixel, each from −1 to 1: ``(N, 2, H, W)``."""
    rows, columns = (
        torch.linspace(-1, 1, side, dtype=h.dtype, device=h.device) for side in h.shape[2:]
    )
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(h), -1, -1, -1)


def look(query: Tensor, keys: Tensor) -> Tensor:
    """softmax(q · kⱼ / √d) over the keys: ``(N, heads, d)``, ``(N, heads, J, d)`` to ``(…, J)``."""
    scores = (keys @ query[..., None]).squeeze(3) / query.shape[2] ** 0.5
    return scores.softmax(2)
