"""The certificate of `dgm_course.causality` for image models: their order of pixels, channels."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dgm_course import causality
from dgm_course.autoregressive.image_model import ImageModel, random_conditions
from dgm_course.checks import check_count, check_instance, check_size
from dgm_course.data.toy import as_generator


def check_causal(
    model: ImageModel, size: tuple[int, int], *, n_images: int = 3, seed: int = 0
) -> None:
    """∂ logits(xᵢ) / ∂xⱼ = 0, and logits(xᵢ) do not move with xⱼ, for every j ≥ i.

    The order is row by row, in a row from the left, at a pixel by channel. Both ways look at a
    copy in float64, at ``n_images`` random images, labels and contexts.

    Args:
        model: any `ImageModel`, in any dtype; it is left as it is.
        size: height and width of the images; take at least the width of a layer's kernel.
        n_images: random images that are looked at.
        seed: of these images.

    Raises:
        CausalityError: with the first logit that leaks and the first value that it sees.
    """

    def place(position: int) -> str:
        pixel, c = divmod(position, model.n_channels)
        i, j = divmod(pixel, size[1])
        return f"row {i}, column {j}" + (f", channel {c}" if model.n_channels > 1 else "")

    logits_of, values, others = _in_order(model, size, n_images, seed)
    causality.check_causal(logits_of, values, others, what="logits", place=place)


def sees_by_gradient(
    model: ImageModel, size: tuple[int, int], *, n_images: int = 3, seed: int = 0
) -> Tensor:
    """Which logits (rows) have a gradient in which values (columns), in the order of the pixels.

    Shapes: bool ``(D, D)``, D = H · W · C.
    """
    logits_of, values, _ = _in_order(model, size, n_images, seed)
    return causality.sees_by_gradient(logits_of, values, seed=seed)


def sees_by_perturbation(
    model: ImageModel, size: tuple[int, int], *, n_images: int = 3, seed: int = 0
) -> Tensor:
    """Which logits (rows) move with which values (columns), as `sees_by_gradient`."""
    return causality.sees_by_perturbation(*_in_order(model, size, n_images, seed))


class InOrder(NamedTuple):
    """An image model as a sequence: logits ``(N, D, n_levels)`` of values ``(N, D)``."""

    logits_of: Callable[[Tensor], Tensor]
    values: Tensor
    others: Tensor  # of another level, each


def _in_order(model: ImageModel, size: tuple[int, int], n_images: int, seed: int) -> InOrder:
    """A float64 copy of the model at random images, a pixel's channels side by side."""
    check_instance(model, ImageModel, "model")
    generator, size = as_generator(seed), check_size(size)
    check_count(n_images, "n_images")
    model = copy.deepcopy(model).double().cpu()
    shape = (n_images, *size, model.n_channels)
    x = torch.randint(model.n_levels, shape, generator=generator)
    labels, context = random_conditions(model, n_images, size, generator)
    step = torch.randint(1, model.n_levels, shape, generator=generator)

    def logits_of(values: Tensor) -> Tensor:
        images = values.view(shape).movedim(-1, 1)  # (N, C, H, W)
        return model.logits_of(images, labels, context).movedim(2, -1).flatten(2).mT

    values, others = (model.values_of(v).flatten(1) for v in (x, (x + step) % model.n_levels))
    return InOrder(logits_of, values, others)
