"""PixelCNN++: shifts in place of masks, one halving with shortcuts, a mixture of logistics."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import elu

from dgm_course.autoregressive.image_model import ImageModel
from dgm_course.autoregressive.logistic import LogisticMixture, numbers_of_a_component
from dgm_course.autoregressive.sampling import Cache
from dgm_course.autoregressive.shifted import (
    CachedEntrance,
    CachedResidual,
    CachedShift,
    Entrance,
    GatedResidual,
    ShiftedConv2d,
)
from dgm_course.checks import check_count, check_images


class Stream(nn.Module):
    """L gated residual layers, a halving, L layers, a doubling, L layers with shortcuts.

    A layer hears more than its input: layer l of the last L the output of layer L + 1 − l of the
    first, its shortcut; and in the second stream, each the same layer of the first stream.

    Source: Salimans et al. 2017, sections 2.3 to 2.5, https://arxiv.org/abs/1701.05517.

    Args:
        n_channels: channels C of the image.
        n_features: features F of every layer.
        n_layers: layers L of each part.
        reach: of all kernels, "down" or "right", as in `ShiftedConv2d`.

    Shapes: the image's values ``(N, C, H, W)`` to the outputs of the 3 L layers, ``(N, F, H, W)``,
    those of the middle ``(N, F, H / 2, W / 2)``.
    """

    def __init__(self, n_channels: int, n_features: int, n_layers: int, reach: str) -> None:
        super().__init__()
        f, heard = n_features, n_features * (reach == "right")

        def part(n_extra: int) -> Sequence[GatedResidual]:
            layers = nn.ModuleList(GatedResidual(f, reach, n_extra) for _ in range(n_layers))
            return cast("Sequence[GatedResidual]", layers)  # typed by what is in it

        self.entrance = Entrance(n_channels, f, reach)
        self.down = part(heard)
        self.to_half = ShiftedConv2d(f, f, reach, stride=2)
        self.middle = part(heard)
        self.to_full = nn.ConvTranspose2d(f, f, 2, stride=2)
        self.up = part(heard + f)

    def forward(self, values: Tensor, heard: Sequence[Tensor] = ()) -> list[Tensor]:
        outputs: list[Tensor] = []
        hears = iter(heard)  # layer by layer; the first stream hears nothing
        x = self.entrance(values)
        for layer in self.down:
            outputs.append(x := layer(x, next(hears, None)))
        x = self.to_half(x)
        for layer in self.middle:
            outputs.append(x := layer(x, next(hears, None)))
        x = self.to_full(x)
        for layer, shortcut in zip(self.up, outputs[len(self.down) - 1 :: -1], strict=True):
            outputs.append(x := layer(x, torch.cat([*islice(hears, 1), shortcut], 1)))
        return outputs


class PixelCNNPlusPlus(ImageModel):
    """p(xᵢ | x₍<ᵢ₎) = Σₖ πₖ [σ(bₖ) − σ(aₖ)], its numbers from two streams that halve once.

    L layers at the image's size, a halving, L layers, a doubling, L layers that each hear, by a
    shortcut, one of the first L. One stream knows the rows above; the other, which hears it, every
    earlier pixel. The image is shifted at the entrance, and no kernel looks ahead. At half size,
    the feature of a block of 2 × 2 pixels knows pixels before the block's first.

    The channels of a pixel come under one component, whose means move linearly with the channels
    before (`LogisticMixture`). `log_prob` forms the observed level's probability alone; `forward`
    that of all levels.

    Source: Salimans, Karpathy, Chen & Kingma 2017, https://arxiv.org/abs/1701.05517.

    Args:
        n_levels: levels 0 … n_levels − 1 of a pixel.
        n_channels: channels C of an image.
        n_features: features F of each stream.
        n_layers: layers L of each of the three parts.
        n_components: logistics K of the mixture.

    Shapes: see `ImageModel`, H and W even: ``(N, C, H, W)`` to ``(N, n_levels, C, H, W)``.

    Raises:
        ValueError: for arguments below 1, bad images, or images with an odd side.

    Omits: the second halving, dropout, weights normalised and averaged over steps.

    Example:
        >>> model = PixelCNNPlusPlus(17, n_features=8, n_layers=1)
        >>> x = torch.randint(17, (4, 1, 8, 8))
        >>> model.log_prob(x).shape, model(x).shape
        (torch.Size([4]), torch.Size([4, 17, 1, 8, 8]))
    """

    def __init__(
        self,
        n_levels: int,
        *,
        n_channels: int = 1,
        n_features: int = 32,
        n_layers: int = 2,
        n_components: int = 5,
    ) -> None:
        super().__init__(n_levels, n_channels)
        f = check_count(n_features, "n_features")
        check_count(n_layers, "n_layers")
        self.n_components = check_count(n_components, "n_components")

        self.rows = Stream(n_channels, f, n_layers, "down")
        self.pixels = Stream(n_channels, f, n_layers, "right")
        self.head = nn.Conv2d(f, n_components * numbers_of_a_component(n_channels), 1)
        with torch.no_grad():  # start with the components side by side: near uniform
            k, bias = torch.arange(n_components)[:, None], cast("Tensor", self.head.bias)
            bias = bias.view(n_components, -1)
            bias[:, 1 : 1 + n_channels] += (2 * k + 1) / n_components - 1
            bias[:, 1 + n_channels : 1 + 2 * n_channels] -= torch.tensor(n_components + 1.0).log()

    def features(self, values: Tensor) -> Tensor:
        """What the head reads: ``(N, C, H, W)`` to ``(N, F, H, W)``, of strictly earlier pixels."""
        check_even((values.shape[2], values.shape[3]))
        return elu(self.pixels(values, self.rows(values))[-1])

    def mixture_of(self, values: Tensor) -> LogisticMixture:
        """The mixture of every pixel, from pixels as `values_of` scales them."""
        return self.mixture_from(self.features(values))

    def mixture_from(self, features: Tensor) -> LogisticMixture:
        return LogisticMixture.from_features(
            self.head(features),
            n_levels=self.n_levels,
            n_channels=self.n_channels,
            n_components=self.n_components,
        )

    def logits_of(
        self, values: Tensor, labels: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        return self.mixture_of(values).log_probs(values)

    def log_prob(
        self, x: Tensor, labels: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """log p(x) in nats, ``(N,)``, from the observed levels alone."""
        check_images(x, self.n_levels, self.n_channels)
        self.check_labels(labels, len(x))
        self.check_context(context, len(x), (x.shape[2], x.shape[3]))
        values = self.values_of(x)
        return self.mixture_of(values).log_prob(values).sum((1, 2))

    def cache(
        self,
        n: int,
        size: tuple[int, int],
        labels: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Cache:
        check_even(size)
        return PixelCNNPlusPlusCache(self, n, size)


class CachedStream:
    """A `Stream` of reach "right" one pixel at a time; the middle takes a step for every four."""

    def __init__(self, stream: Stream, n: int, width: int) -> None:
        self.i, self.to_full = -1, stream.to_full
        self.entrance = CachedEntrance(stream.entrance, n, width)
        self.down = [CachedResidual(layer, n, width) for layer in stream.down]
        self.to_half = CachedShift(stream.to_half, n, width)
        self.middle = [CachedResidual(layer, n, width // 2) for layer in stream.middle]
        self.up = [CachedResidual(layer, n, width) for layer in stream.up]
        self.doubled = stream.to_full.weight.new_zeros(n, stream.to_full.out_channels, 2, width)

    def start_row(self) -> None:
        self.i += 1
        self.entrance.start_row()
        self.to_half.start_row()
        for layer in (*self.down, *self.up, *(() if self.i % 2 else self.middle)):
            layer.start_row()

    def step(self, j: int, heard: Sequence[Tensor]) -> Tensor:
        """The last layer's output ``(N, F)`` at column j, from the row's ``(N, F, W)`` outputs."""
        at = iter(heard)
        x, shortcuts = self.entrance.output(j), []
        for layer in self.down:
            x = layer.step(j, x, next(at)[:, :, j])
            shortcuts.append(x)
        self.to_half.put(j, x)
        of_middle = [next(at) for _ in self.middle]
        if self.i % 2 == j % 2 == 0:  # the first pixel of a block of four
            x = self.to_half.output(j)
            for layer, more in zip(self.middle, of_middle, strict=True):
                x = layer.step(j // 2, x, more[:, :, j // 2])
            self.doubled[:, :, :, j : j + 2] = self.to_full(x[:, :, None, None])
        x = self.doubled[:, :, self.i % 2, j]
        for layer in self.up:
            x = layer.step(j, x, torch.cat([next(at)[:, :, j], shortcuts.pop()], 1))
        return x


class PixelCNNPlusPlusCache:
    """`Cache` of a `PixelCNNPlusPlus`: one stream runs once a row, the other once a pixel."""

    def __init__(self, model: PixelCNNPlusPlus, n: int, size: tuple[int, int]) -> None:
        self.model, self.row = model, -1
        self.values = model.like.new_zeros(n, model.n_channels, *size)
        self.pixels = CachedStream(model.pixels, n, size[1])
        self.heard: list[Tensor] = []
        self.mixture: LogisticMixture | None = None

    def start_row(self) -> None:
        self.row += 1
        self.pixels.start_row()
        of_rows = self.model.rows(self.values)  # those below know rows that are not drawn yet
        rows = (self.row * v.shape[2] // self.values.shape[2] for v in of_rows)
        self.heard = [v[:, :, row] for v, row in zip(of_rows, rows, strict=True)]

    def logits(self, j: int, c: int) -> Tensor:
        if c == 0:
            features = elu(self.pixels.step(j, self.heard))[:, :, None, None]
            self.mixture = self.model.mixture_from(features)
        assert self.mixture is not None
        here = self.values[:, :, self.row, j, None, None]  # (N, C, 1, 1)
        return self.mixture.log_probs(here)[:, :, c, 0, 0]

    def put(self, j: int, c: int, levels: Tensor) -> None:
        self.values[:, c, self.row, j] = self.model.values_of(levels)
        if c == self.model.n_channels - 1:
            self.pixels.entrance.put(j, self.values[:, :, self.row, j])


def check_even(size: tuple[int, int]) -> None:
    """Raise a ValueError unless both sides can be halved."""
    if size[0] % 2 or size[1] % 2:
        raise ValueError(
            f"images must have even sides, for the network halves both, got {size[0]} x {size[1]}"
        )
