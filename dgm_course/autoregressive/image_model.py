"""The contract of every autoregressive image model, and the checks that torch leaves out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dgm_course.autoregressive.sampling import Cache, sample_pixels
from dgm_course.checks import (
    check_count,
    check_finite,
    check_images,
    check_integers,
    check_number,
    check_shape,
    check_size,
)
from dgm_course.data.toy import Seed, as_generator


class ImageModel(nn.Module, ABC):
    """p(x) = Πᵢ p(xᵢ | x₍<ᵢ₎) over the pixels row by row, and the channels of a pixel in order.

    `forward` returns logits, and their softmax over the levels is p(xᵢ | x₍<ᵢ₎), whatever the
    model computes on the way. A model that makes probabilities, as a mixture of logistics does,
    returns their logs, which their own softmax leaves as they are. So every model of the family
    shares `log_prob`, `sample` and the tests. A subclass defines `logits_of`, and `cache` where it
    can do better than a full pass for each pixel.

    A model may be conditioned on a class, on a context, or on both: p(x | y, c) has the same
    factors, each given y and c in full. A context is a map: F features at every pixel, which need
    not be causal. A vector, a code of a whole image, becomes a map outside the model, by a linear
    layer from its M numbers to F · H · W.

    Args:
        n_levels: levels 0 … n_levels − 1 of a pixel.
        n_channels: channels C of an image.
        n_classes: number of classes that the model is conditioned on, or None.
        n_context: features F of the context that the model is conditioned on, or None.
    """

    def __init__(
        self,
        n_levels: int,
        n_channels: int = 1,
        n_classes: int | None = None,
        n_context: int | None = None,
    ) -> None:
        super().__init__()
        self.n_levels = check_count(n_levels, "n_levels", 2)
        self.n_channels = check_count(n_channels, "n_channels")
        self.n_classes = None if n_classes is None else check_count(n_classes, "n_classes")
        self.n_context = None if n_context is None else check_count(n_context, "n_context")

    @abstractmethod
    def logits_of(
        self, values: Tensor, labels: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """Logits from pixels as `values_of` scales them: differentiable, and unchecked."""

    def values_of(self, x: Tensor) -> Tensor:
        """Levels 0 … n_levels − 1 as numbers from −1 to 1, in the dtype of the weights."""
        return x.to(self.like.dtype) * (2 / (self.n_levels - 1)) - 1

    @property
    def like(self) -> Tensor:
        """A tensor of the weights' dtype and device."""
        return next(chain(self.parameters(), self.buffers()))

    def forward(
        self, x: Tensor, labels: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """The logits of every p(xᵢ | x₍<ᵢ₎) at once.

        Shapes: integers x ``(N, C, H, W)`` and, for a conditional model, labels ``(N,)`` and
        context ``(N, F, H, W)``, in the weights' dtype, to ``(N, n_levels, C, H, W)``.

        Raises:
            ValueError: for images that are not integers, not a batch, of other channels, empty or
                outside the levels; for labels that are missing, unwanted or outside the classes;
                for a context that is missing, unwanted, of another shape or dtype, or not finite.
        """
        check_images(x, self.n_levels, self.n_channels)
        self.check_labels(labels, len(x))
        self.check_context(context, len(x), (x.shape[2], x.shape[3]))
        return self.logits_of(self.values_of(x), labels, context)

    def log_prob(
        self, x: Tensor, labels: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """log p(x) = Σᵢ log p(xᵢ | x₍<ᵢ₎) in nats, ``(N,)``; arguments as for `forward`."""
        logits = self(x, labels, context)
        return -cross_entropy(logits, x.long(), reduction="none").sum((1, 2, 3))

    def cache(
        self,
        n: int,
        size: tuple[int, int],
        labels: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Cache:
        """What the logits of one pixel after the other are computed from, for n images."""
        return FullPass(self, n, size, labels, context)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        size: tuple[int, int],
        labels: Tensor | None = None,
        context: Tensor | None = None,
        given: Tensor | None = None,
        temperature: float = 1.0,
        generator: Seed | None = None,
    ) -> Tensor:
        """n images from Πᵢ p(xᵢ | x₍<ᵢ₎), one pixel after the other; or the rest of given ones.

        A given pixel is kept, whatever its probability, and later pixels see it; earlier ones do
        not, so with pixels given below the draw is not one from the conditional p(x | given).

        Args:
            n: number of images N.
            size: height and width (H, W).
            labels: their classes ``(N,)``, for a model with classes.
            context: their maps ``(N, F, H, W)``, for a model with a context.
            given: ``(N, C, H, W)``, integers: −1 marks a pixel to draw, all others are kept.
            temperature: logits are divided by it; below 1 favours likely levels.
            generator: a seed or a generator; None takes torch's own.

        Shapes: ``(N, C, H, W)``, int64.

        Raises:
            ValueError: for n or a size below 1, labels or a context as for `forward`, given of
                another shape, dtype or level, or a temperature that is not positive.
        """
        device = self.like.device
        n, size = check_count(n, "n"), check_size(size)
        shape = (n, self.n_channels, *size)
        check_number(temperature, "temperature")
        if generator is not None:
            generator = as_generator(generator)
        self.check_labels(labels, n)
        self.check_context(context, n, size)
        if given is None:
            given = torch.full(shape, -1, device=device)
        check_images(given, self.n_levels, self.n_channels, name="given", lowest=-1)
        check_shape(given, shape, "given")
        cache = self.cache(n, size, labels, context)
        return sample_pixels(cache, given.long().to(device), temperature, generator)

    def check_labels(self, labels: Tensor | None, n: int) -> None:
        """Raise a ValueError unless the labels are those that the model needs for n images."""
        if self.n_classes is None or labels is None:
            if labels is not None:
                raise ValueError("labels must be None: the model has no classes (n_classes=None)")
            if self.n_classes is not None:
                raise ValueError(f"labels must be given: the model has {self.n_classes} classes")
            return
        check_shape(labels, (n,), "labels")
        check_integers(labels, 0, self.n_classes - 1, "labels")

    def check_context(self, context: Tensor | None, n: int, size: tuple[int, int]) -> None:
        """Raise a ValueError unless the context is what the model needs for n images of a size."""
        if self.n_context is None or context is None:
            if context is not None:
                raise ValueError("context must be None: the model has none (n_context=None)")
            if self.n_context is not None:
                raise ValueError(
                    f"context must be given: the model has n_context = {self.n_context} features"
                )
            return
        check_shape(context, (n, self.n_context, *size), "context")
        if context.dtype != self.like.dtype:
            raise ValueError(
                f"context must have the dtype of the model's weights, {self.like.dtype}, got "
                f"{context.dtype}"
            )
        check_finite(context, "context", "maps", 3)


class FullPass:
    """No cache at all: the whole network on the whole image, for every pixel."""

    def __init__(
        self,
        model: ImageModel,
        n: int,
        size: tuple[int, int],
        labels: Tensor | None = None,
        context: Tensor | None = None,
    ) -> None:
        self.model, self.labels, self.context, self.row = model, labels, context, -1
        shape = (n, model.n_channels, *size)
        self.x = torch.zeros(shape, dtype=torch.long, device=model.like.device)

    def start_row(self) -> None:
        self.row += 1

    def logits(self, j: int, c: int) -> Tensor:
        values = self.model.values_of(self.x)
        logits = self.model.logits_of(values, self.labels, self.context)
        return logits[:, :, c, self.row, j]

    def put(self, j: int, c: int, levels: Tensor) -> None:
        self.x[:, c, self.row, j] = levels


def random_conditions(
    model: ImageModel, n: int, size: tuple[int, int], generator: torch.Generator
) -> tuple[Tensor | None, Tensor | None]:
    """Labels and a context for n images, normal numbers, each None where the model has none."""
    labels, context = None, None
    if model.n_classes is not None:
        labels = torch.randint(model.n_classes, (n,), generator=generator)
    if model.n_context is not None:
        shape = (n, model.n_context, *size)
        context = torch.randn(shape, generator=generator, dtype=model.like.dtype)
    return labels, context


def check_pixel(pixel: Any, size: tuple[int, int]) -> tuple[int, int]:
    """The pixel as two ints; a ValueError unless it is a row and a column of an image."""
    place = tuple(pixel) if isinstance(pixel, Iterable) else ()
    if len(place) != 2:
        raise ValueError(f"pixel must be a row and a column, (i, j), got {pixel!r}")
    i = check_count(place[0], "pixel's row", 0, size[0] - 1)
    return i, check_count(place[1], "pixel's column", 0, size[1] - 1)
