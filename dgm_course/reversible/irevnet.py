"""i-RevNet: a classifier that has discarded nothing until its last layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn.functional import pad, pixel_shuffle, pixel_unshuffle

from dgm_course.checks import check_count, check_finite, check_tensor
from dgm_course.reversible.blocks import ReversibleBlock
from dgm_course.reversible.sequences import ReversibleSequence


class IRevNet(nn.Module):
    """logits = W · mean over pixels of ReLU(BN(h)) + b, h = s_S ∘ … ∘ s_1(pad(x)), s_i bijective.

    The padding puts channels of zeros before those of x, which is injective. Each stage but the
    first starts with a squeeze, 2 × 2 pixels to four channels, where a ResNet has a stride, and
    goes on with reversible blocks: so x is a function of h. A `ReversibleBlock` is two of the
    paper's blocks (x₁, x₂) → (x₂, x₁ + n(x₂)), first with n = f, then with n = g. f and g are two
    3 × 3 convolutions, between them batch norm and ReLU: none of it meets a constant, by whose
    variance of 0 batch norm would enlarge the rounding of `inverse` hundreds of times.

    Source: Jacobsen, Smeulders & Oyallon 2018, section 3, https://arxiv.org/abs/1802.07088.

    Args:
        size: C, H, W of an image.
        n_classes: number of classes K, at least 2.
        n_blocks: reversible blocks of each of S stages. H and W must be divisible by 2^(S − 1).
        n_channels: channels after the padding, even and at least C; 4^i as many in stage i.
        n_hidden: channels between the two convolutions of stages 1 … S.

    Shapes: ``forward`` maps images ``(N, C, H, W)`` to logits ``(N, K)``; ``features`` to
    ``(N, *feature_size)``, of 4^(S − 1) channels as many; ``inverse`` takes these back.

    Raises:
        ValueError: for arguments outside these bounds; for images or features of another shape or
            dtype than the model's, none, or not finite.

    Omits: the paper's bottlenecks of three convolutions, and a squeeze before the first block.

    Example:
        >>> import torch
        >>> model = IRevNet((1, 8, 8), n_classes=10).eval()
        >>> features = model.features(x := torch.rand(5, 1, 8, 8))
        >>> features.shape, model.logits(features).shape
        (torch.Size([5, 64, 2, 2]), torch.Size([5, 10]))
        >>> bool((model.inverse(features) - x).abs().max() < 1e-4)
        True
    """

    def __init__(
        self,
        size: tuple[int, int, int],
        n_classes: int,
        n_blocks: Sequence[int] = (2, 2, 2),
        n_channels: int = 4,
        n_hidden: Sequence[int] = (8, 16, 32),
    ) -> None:
        super().__init__()
        if not isinstance(size, tuple | list) or len(size) != 3:
            raise ValueError(f"size must be (C, H, W), got {size!r}")
        channels, height, width = (check_count(n, "each number of size") for n in size)
        n_classes = check_count(n_classes, "n_classes", 2)
        counts, hidden = _counts(n_blocks, "n_blocks"), _counts(n_hidden, "n_hidden")
        if len(hidden) != len(counts):
            raise ValueError(
                f"n_hidden must be as many as n_blocks, {len(counts)}, got {len(hidden)}"
            )
        side = 2 ** (len(counts) - 1)
        if height % side or width % side:
            raise ValueError(
                f"size must have H and W divisible by 2^(S - 1) = {side}, got {height} and {width}"
            )
        c = check_count(n_channels, "n_channels", channels)
        if c % 2:
            raise ValueError(f"n_channels must be even, {c - 1} or {c + 1} say, got {c}")
        self.size, self.n_padded = (channels, height, width), c - channels
        self.feature_size = (c * side**2, height // side, width // side)
        self.stages = nn.ModuleList(
            ReversibleSequence(
                ReversibleBlock(*(network(c * 4**i // 2, hidden[i]) for _ in range(2)))
                for _ in range(n)
            )
            for i, n in enumerate(counts)
        )
        self.norm = nn.BatchNorm2d(self.feature_size[0])
        self.projection = nn.Linear(self.feature_size[0], n_classes)

    def extra_repr(self) -> str:
        return f"{self.size}, feature_size={self.feature_size}"

    def forward(self, x: Tensor) -> Tensor:
        """The logits ``(N, K)`` of images."""
        return self.logits(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """h ``(N, *feature_size)``, of which x is a function."""
        self._check(x, self.size, "x")
        h = pad(x, (0, 0, 0, 0, self.n_padded, 0))
        for i, stage in enumerate(self.stages):
            h = stage(pixel_unshuffle(h, 2) if i else h)
        return h

    def logits(self, features: Tensor) -> Tensor:
        """The projection onto classes, ``(N, K)``: the one step that cannot be undone."""
        self._check(features, self.feature_size, "features")
        return self.projection(self.norm(features).relu().mean((2, 3)))

    def inverse(self, features: Tensor) -> Tensor:
        """The images ``(N, C, H, W)`` that have these features.

        Features between those of two images may be no image's: theirs is what is left when
        `padding` is dropped, which is 0 for an image's features alone.
        """
        return self.padded(features)[:, self.n_padded :]

    def padding(self, features: Tensor) -> Tensor:
        """What the features say of the added channels, ``(N, n_channels − C, H, W)``."""
        return self.padded(features)[:, : self.n_padded]

    def padded(self, features: Tensor) -> Tensor:
        """`features` undone up to the padding, ``(N, n_channels, H, W)``: a bijection."""
        self._check(features, self.feature_size, "features")
        h = features
        for i, stage in reversed([*enumerate(self.stages)]):
            h = cast(ReversibleSequence, stage).inverse(h)
            h = pixel_shuffle(h, 2) if i else h
        return h

    def _check(self, x: Tensor, size: tuple[int, int, int], name: str) -> None:
        check_tensor(x, name)
        if x.ndim != 4 or tuple(x.shape[1:]) != size or not len(x):
            raise ValueError(
                f"{name} must have shape (N, {', '.join(map(str, size))}), N >= 1, got shape "
                f"{tuple(x.shape)}"
            )
        dtype = self.projection.weight.dtype
        if x.dtype != dtype:
            raise ValueError(f"{name} must have the dtype of the weights, {dtype}, got {x.dtype}")
        check_finite(x, name, "images", 3)


def network(n_channels: int, n_hidden: int) -> nn.Sequential:
    """From a half to a shift of the other half."""
    return nn.Sequential(
        *(nn.Conv2d(n_channels, n_hidden, 3, padding=1), nn.BatchNorm2d(n_hidden), nn.ReLU()),
        nn.Conv2d(n_hidden, n_channels, 3, padding=1),
    )


def _counts(values: Sequence[int], name: str) -> list[int]:
    """A ValueError unless they are one positive int or more."""
    if not isinstance(values, tuple | list) or not values:
        raise ValueError(f"{name} must be one int or more, got {values!r}")
    return [check_count(n, f"each number of {name}") for n in values]
