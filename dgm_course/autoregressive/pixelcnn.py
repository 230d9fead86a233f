"""PixelCNN: masked convolutions, residual connections, a softmax over the levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from dgm_course.autoregressive.image_model import ImageModel
from dgm_course.autoregressive.masked import CachedConv, CachedHead, Head, MaskedConv2d, rows_of
from dgm_course.autoregressive.sampling import Cache
from dgm_course.checks import check_count


class MaskedStack(ImageModel):
    """h₁ = A(x), hₗ = hₗ₋₁ + Bₗ(relu hₗ₋₁), logits = two 1×1 layers: what `PixelCNN` is made of.

    A subclass is a choice of kernels.

    Args:
        n_levels, n_channels, n_context: as for `ImageModel`.
        n_features: features F of every layer, at least C.
        kernel_sizes: of A and of every B, odd.
    """

    def __init__(
        self,
        n_levels: int,
        n_channels: int,
        n_features: int,
        kernel_sizes: Sequence[int],
        n_context: int | None,
    ) -> None:
        super().__init__(n_levels, n_channels, n_context=n_context)

        def conv(n_in: int, n_out: int, k: int, mask_type: str = "B") -> MaskedConv2d:
            return MaskedConv2d(n_in, n_out, k, mask_type, n_channels=n_channels)

        self.first = conv(n_channels, n_features, kernel_sizes[0], "A")
        residual = [conv(n_features, n_features, k) for k in kernel_sizes[1:]]
        # A list of modules, typed by what is in it.
        self.residual = cast("Sequence[MaskedConv2d]", nn.ModuleList(residual))
        self.head = Head(n_features, n_levels, n_channels)
        of_context = [] if n_context is None else [n_context] * len(kernel_sizes)
        self.of_context = nn.ModuleList(nn.Conv2d(f, n_features, 1, bias=False) for f in of_context)

    def logits_of(
        self, values: Tensor, labels: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        of_c = self.context_terms(context)  # Vₗ c, (N, F, H, W) each
        h = self.first(values) + of_c[0]  # (N, F, H, W)
        for layer, term in zip(self.residual, of_c[1:], strict=True):
            h = h + layer(h.relu()) + term
        return self.head(h)  # (N, n_levels, C, H, W)

    def context_terms(self, context: Tensor | None) -> list[Tensor]:
        """Vₗ c ``(N, F, H, W)`` of each layer; zeros ``(1, 1, 1, 1)`` without a context."""
        if context is None:
            return [self.like.new_zeros(1, 1, 1, 1)] * (1 + len(self.residual))
        return [layer(context) for layer in self.of_context]

    def cache(
        self,
        n: int,
        size: tuple[int, int],
        labels: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Cache:
        return MaskedStackCache(self, n, size, context)


class PixelCNN(MaskedStack):
    """h₁ = A(x), hₗ = hₗ₋₁ + Bₗ(relu hₗ₋₁), logits = two 1×1 layers, each after a relu.

    A and B are masked k×k convolutions of those types. With a context c, Vₗ c is added to every
    hₗ, a 1×1 convolution without a mask: nothing of c is predicted, so all of it may be seen. The
    stack has a blind spot: with r = (k − 1) / 2 it misses r L (L − 1) / 2 pixels above and to the
    right (`blind_pixels`).

    Source: van den Oord, Kalchbrenner & Kavukcuoglu 2016a, sections 2 and 3.4,
    https://arxiv.org/abs/1601.06759; the context: van den Oord et al. 2016b, section 2.3,
    https://arxiv.org/abs/1606.05328.

    Args:
        n_levels: levels 0 … n_levels − 1 of a pixel.
        n_channels: channels C of an image; each sees those before it at its own pixel.
        n_features: features F of every layer, at least C.
        n_layers: masked k×k layers L, the first of type A.
        kernel_size: k, odd and at least 3.
        n_context: features of the context, or None; with them, every call needs ``context``.

    Shapes: see `ImageModel`: integers ``(N, C, H, W)`` to logits ``(N, n_levels, C, H, W)``.

    Raises:
        ValueError: for arguments outside these bounds, bad images or a bad context.

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
        n_context: int | None = None,
    ) -> None:
        check_depth(n_features, n_layers, kernel_size)
        kernel_sizes = [kernel_size] * n_layers
        super().__init__(n_levels, n_channels, n_features, kernel_sizes, n_context)


class MaskedStackCache:
    """`Cache` of a `MaskedStack`."""

    def __init__(
        self, model: MaskedStack, n: int, size: tuple[int, int], context: Tensor | None
    ) -> None:
        self.model = model
        self.convs = [CachedConv(conv, n, size[1]) for conv in (model.first, *model.residual)]
        self.head = CachedHead(model.head, n, size[1])
        # The context's terms row by row: each is added to what a row's convolution starts from.
        self.terms = [rows_of(term, size[0]) for term in model.context_terms(context)]

    def start_row(self) -> None:
        for conv, rows in zip(self.convs, self.terms, strict=True):
            conv.start_row(next(rows))
        self.head.start_row()

    def logits(self, j: int, c: int) -> Tensor:
        first, *residual = self.convs
        h = first.output(j, c)  # (N, features of group c)
        for conv in residual:
            conv.put(j, c, h.relu())
            h = h + conv.output(j, c)
        return self.head.logits(j, c, h)

    def put(self, j: int, c: int, levels: Tensor) -> None:
        self.convs[0].put(j, c, self.model.values_of(levels)[:, None])


def check_depth(n_features: int, n_layers: int, kernel_size: int) -> None:
    """Raise a ValueError unless a stack of that width, depth and kernel can see a neighbour."""
    check_count(n_features, "n_features")
    check_count(n_layers, "n_layers")
    check_count(kernel_size, "kernel_size", 3)
