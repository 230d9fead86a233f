"""PixelCNN++: shifts in place of masks, one halving with shortcuts, a mixture of logistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import elu

from dgm_course.autoregressive.image_model import ImageModel, check_images
from dgm_course.autoregressive.logistic import LogisticMixture, numbers_of_a_component
from dgm_course.autoregressive.shifted import (
    Entrance,
    GatedResidual,
    ShiftedConv2d,
    shift_down,
)
from dgm_course.checks import check_count


class TwoStreams(nn.Module):
    """v′ = R↓(v, e_v), h′ = R→(h, [v′, e_h]): a gated residual layer of each stream.

    v knows the rows above, h every earlier pixel; h hears v, never the other way round. e is a
    shortcut's, on the way back.

    Source: Salimans et al. 2017, figure 2, https://arxiv.org/abs/1701.05517.
    """

    def __init__(self, n_features: int, shortcut: bool) -> None:
        super().__init__()
        n_short = n_features if shortcut else 0
        self.v = GatedResidual(n_features, "down", n_short)
        self.h = GatedResidual(n_features, "right", n_features + n_short)

    def forward(
        self, v: Tensor, h: Tensor, shortcut: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        if shortcut is None:
            v = self.v(v)
            return v, self.h(h, v)
        v = self.v(v, shortcut[0])
        return v, self.h(h, torch.cat([v, shortcut[1]], 1))


class PixelCNNPlusPlus(ImageModel):
    """p(xᵢ | x₍<ᵢ₎) = Σₖ πₖ [σ(bₖ) − σ(aₖ)], its numbers from two streams that halve once.

    L layers at the image's size, a halving, L layers, a doubling, L layers that each hear, by a
    shortcut, one of the first L. Stream v knows the rows above, h every earlier pixel; the image
    is shifted at the entrance and no kernel looks ahead. At half size, the feature of a block of
    2 × 2 pixels knows pixels before the block's first.

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

        def part(shortcut: bool) -> Sequence[TwoStreams]:
            layers = nn.ModuleList(TwoStreams(f, shortcut) for _ in range(n_layers))
            return cast("Sequence[TwoStreams]", layers)  # typed by what is in it

        self.entrance_v = ShiftedConv2d(n_channels, f, "down")
        self.entrance_h = Entrance(n_channels, f)
        self.down, self.middle, self.up = part(False), part(False), part(True)
        self.halve_v = ShiftedConv2d(f, f, "down", stride=2)
        self.halve_h = ShiftedConv2d(f, f, "right", stride=2)
        self.double_v = nn.ConvTranspose2d(f, f, 2, stride=2)
        self.double_h = nn.ConvTranspose2d(f, f, 2, stride=2)
        self.head = nn.Conv2d(f, n_components * numbers_of_a_component(n_channels), 1)
        with torch.no_grad():  # start with the components side by side: near uniform
            k, bias = torch.arange(n_components)[:, None], cast("Tensor", self.head.bias)
            bias = bias.view(n_components, -1)
            bias[:, 1 : 1 + n_channels] += (2 * k + 1) / n_components - 1
            bias[:, 1 + n_channels : 1 + 2 * n_channels] -= torch.tensor(n_components + 1.0).log()

    def features(self, values: Tensor) -> Tensor:
        """h of the last layer: ``(N, C, H, W)`` to ``(N, F, H, W)``, of strictly earlier pixels."""
        check_even((values.shape[2], values.shape[3]))
        v, h = self.entrance_v(shift_down(values)), self.entrance_h(values)
        shortcuts = []
        for layer in self.down:
            v, h = layer(v, h)
            shortcuts.append((v, h))
        v, h = self.halve_v(v), self.halve_h(h)  # (N, F, H / 2, W / 2)
        for layer in self.middle:
            v, h = layer(v, h)
        v, h = self.double_v(v), self.double_h(h)
        for layer in self.up:
            v, h = layer(v, h, shortcuts.pop())
        return h

    def mixture_of(self, values: Tensor) -> LogisticMixture:
        """The mixture of every pixel, from pixels as `values_of` scales them."""
        return LogisticMixture.from_features(
            self.head(elu(self.features(values))),
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


def check_even(size: tuple[int, int]) -> None:
    """Raise a ValueError unless both sides can be halved."""
    if size[0] % 2 or size[1] % 2:
        raise ValueError(
            f"images must have even sides, for the network halves both, got {size[0]} x {size[1]}"
        )
