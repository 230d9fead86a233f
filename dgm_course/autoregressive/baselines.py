"""What a negative log-likelihood must be compared with: uniform and independent pixels."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from dgm_course.autoregressive.image_model import ImageModel
from dgm_course.checks import check_count, check_images, check_number, check_size, check_tensor


class Uniform(ImageModel):
    """p(x) = levels^(−D): −log p(x) = D ln(levels) nats, log₂(levels) bits a dimension.

    Args:
        n_levels: levels of a pixel.
        n_channels: channels of an image.
    """

    logit: Tensor

    def __init__(self, n_levels: int, n_channels: int = 1) -> None:
        super().__init__(n_levels, n_channels)
        self.register_buffer("logit", torch.zeros(()))  # of every level at every pixel

    def logits_of(
        self, values: Tensor, labels: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        return self.logit.expand(values.shape[0], self.n_levels, *values.shape[1:])


class IndependentPixels(ImageModel):
    """p(x) = Πᵢ pᵢ(xᵢ), pᵢ(v) = (nᵢ(v) + s) / (N + s · levels) from the counts nᵢ of N images.

    With s = 0 the best model without any dependence on these images; s > 0, so that a level which
    a pixel never had is not impossible.

    Args:
        images: ``(N, C, H, W)``, integers.
        n_levels: levels of a pixel.
        smoothing: s > 0, counts that are added to each level.

    Raises:
        ValueError: for bad images, s ≤ 0, or later an image of another size.
    """

    log_p: Tensor

    def __init__(self, images: Tensor, n_levels: int, smoothing: float = 1.0) -> None:
        check_tensor(images, "images")
        super().__init__(n_levels, images.shape[1] if images.ndim == 4 else 1)
        check_images(images, n_levels, self.n_channels, name="images")
        check_number(smoothing, "smoothing")
        counts = one_hot(images.long(), n_levels).sum(0).movedim(-1, 0) + smoothing
        self.register_buffer("log_p", (counts / counts.sum(0)).log())  # (n_levels, C, H, W)

    def logits_of(
        self, values: Tensor, labels: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        if values.shape[1:] != self.log_p.shape[1:]:
            raise ValueError(
                f"x must have shape (N, {', '.join(map(str, self.log_p.shape[1:]))}), that of the "
                f"images, got shape {tuple(values.shape)}"
            )
        return self.log_p.expand(len(values), *self.log_p.shape)


def all_images(n_levels: int, n_channels: int, size: tuple[int, int]) -> Tensor:
    """Every image of that size, ``(levels^D, C, H, W)``: a model's probabilities must add to 1.

    Raises:
        ValueError: for more than a million of them.
    """
    check_count(n_levels, "n_levels", 2)
    height, width = check_size(size)
    n_dims = check_count(n_channels, "n_channels") * height * width
    if n_levels**n_dims > 1_000_000:
        raise ValueError(f"there are {n_levels}^{n_dims} such images; the limit is a million")
    pixels = list(itertools.product(range(n_levels), repeat=n_dims))
    return torch.tensor(pixels).view(-1, n_channels, *size)
