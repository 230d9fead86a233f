"""What Row LSTM and Diagonal BiLSTM share: the cell, and the network and the cache around layers.

A layer's states are kept while an image is drawn. The state at a pixel is final once its input is,
so it is computed once, from the states that it follows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol, cast

from torch import Tensor, nn

from dgm_course.autoregressive.image_model import ImageModel
from dgm_course.autoregressive.masked import CachedConv, CachedHead, Head, MaskedConv2d
from dgm_course.autoregressive.sampling import Cache


class LSTMStep(NamedTuple):
    """One step of a recurrent cell: its gates, its content and its new states ``(..., F)``."""

    o: Tensor  # the output gate
    f: Tensor  # the forget gate
    i: Tensor  # the input gate
    g: Tensor  # the content, between −1 and 1
    c: Tensor  # the cell state
    h: Tensor  # the hidden state


def lstm_step(a: Tensor, c: Tensor) -> LSTMStep:
    """o, f, i = σ(a₁), σ(a₂), σ(a₃), g = tanh(a₄); c′ = f ⊙ c + i ⊙ g, h′ = o ⊙ tanh(c′).

    The content g may be negative, so a cell can also count down: under a σ like the gates', as some
    slides and some public code have it, c could only grow.

    Source: van den Oord et al. 2016a, equation 3, https://arxiv.org/abs/1601.06759.

    Args:
        a: what input and earlier hidden states add up to, the features of o, f, i and g in turn.
        c: the cell state before.

    Shapes: a ``(..., 4F)``, c ``(..., F)``.

    Example:
        >>> step = lstm_step(Tensor([9, 9, 9, -9]), Tensor([0.5]))
        >>> step.g.item() < -0.99, step.c.item() < -0.49  # all gates open, and it counts down
        (True, True)
    """
    gates, content = a.split([3 * c.shape[-1], c.shape[-1]], -1)
    o, f, i = gates.sigmoid().chunk(3, -1)
    g = content.tanh()
    c = f * c + i * g
    return LSTMStep(o, f, i, g, c, o * c.tanh())


class LayerCache(Protocol):
    """A recurrent layer, one pixel and one group of channels at a time; see `Cache`."""

    def start_row(self) -> None:
        """Go on to the next row, the first one at first."""

    def output(self, j: int, c: int, x: Tensor) -> Tensor:
        """Group c of the output at column j, ``(N, features)``, from group c of the input."""


class RecurrentLayer(nn.Module, ABC):
    """A map of 2F features to another of 2F, by states of F features that see nothing later."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """``(N, 2F, H, W)`` to ``(N, 2F, H, W)``."""

    @abstractmethod
    def cache(self, n: int, width: int) -> LayerCache:
        """The layer pixel by pixel, for n images of that width."""


class PixelRNN(ImageModel):
    """m₀ = A(x), mₗ = mₗ₋₁ + layerₗ(mₗ₋₁), logits = two 1×1 layers, each after a relu.

    A is a k×k convolution of that type. The maps m have 2F features, the states inside a layer F:
    a 1×1 convolution at its end widens them again, so that its input can be added.

    Source: van den Oord et al. 2016a, sections 3.3 and 3.4, https://arxiv.org/abs/1601.06759.

    Args:
        n_levels: levels 0 … n_levels − 1 of a pixel.
        n_channels: channels C of an image.
        n_features: features F of a state.
        kernel_size: k, odd.
        layers: the recurrent layers.
    """

    def __init__(
        self,
        n_levels: int,
        n_channels: int,
        n_features: int,
        kernel_size: int,
        layers: Sequence[RecurrentLayer],
    ) -> None:
        super().__init__(n_levels, n_channels)
        width = 2 * n_features
        self.first = MaskedConv2d(n_channels, width, kernel_size, "A", n_channels=n_channels)
        # A list of modules, typed by what is in it.
        self.layers = cast("Sequence[RecurrentLayer]", nn.ModuleList(layers))
        self.head = Head(width, n_levels, n_channels)

    def logits_of(
        self, values: Tensor, labels: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        m = self.first(values)  # (N, 2F, H, W)
        for layer in self.layers:
            m = m + layer(m)
        return self.head(m)  # (N, n_levels, C, H, W)

    def cache(
        self,
        n: int,
        size: tuple[int, int],
        labels: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Cache:
        return PixelRNNCache(self, n, size[1])


class PixelRNNCache:
    """`Cache` of a `PixelRNN`."""

    def __init__(self, model: PixelRNN, n: int, width: int) -> None:
        self.model = model
        self.first = CachedConv(model.first, n, width)
        self.layers = [layer.cache(n, width) for layer in model.layers]
        self.head = CachedHead(model.head, n, width)

    def start_row(self) -> None:
        for layer in self.layers:
            layer.start_row()
        self.first.start_row()
        self.head.start_row()

    def logits(self, j: int, c: int) -> Tensor:
        m = self.first.output(j, c)  # (N, features of group c)
        for layer in self.layers:
            m = m + layer.output(j, c, m)
        return self.head.logits(j, c, m)

    def put(self, j: int, c: int, levels: Tensor) -> None:
        self.first.put(j, c, self.model.values_of(levels)[:, None])
