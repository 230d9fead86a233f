"""A certificate that no logit sees what comes later: every pair of pixels, in two ways."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from dgm_course.autoregressive.image_model import ImageModel


class CausalityError(AssertionError):
    """A logit that sees its own value, or a later one."""


def check_causal(
    model: ImageModel, size: tuple[int, int], *, n_images: int = 3, seed: int = 0
) -> None:
    """∂ logits(xᵢ) / ∂xⱼ = 0, and logits(xᵢ) do not move with xⱼ, for every j ≥ i.

    The order is row by row, in a row from the left, at a pixel by channel. Both ways look at a
    copy in float64, at ``n_images`` random images and random labels: the gradient finds what acts
    smoothly however little, the perturbation also what rounds or looks values up.

    Args:
        model: any `ImageModel`, in any dtype; it is left as it is.
        size: height and width of the images; take at least the width of a layer's kernel.
        n_images: random images that are looked at.
        seed: of these images.

    Raises:
        CausalityError: with the first logit that leaks and the first value that it sees.
    """
    for sees, way in [(sees_by_gradient, "gradient"), (sees_by_perturbation, "perturbation")]:
        leaks = sees(model, size, n_images=n_images, seed=seed).triu()  # logit, value ≥ logit
        if leaks.any():
            logit, value = leaks.nonzero()[0].tolist()
            what = "its own value" if value == logit else f"that of {_place(model, size, value)}"
            raise CausalityError(
                f"the logits of {_place(model, size, logit)} see {what}, by {way}; "
                f"{int(leaks.sum())} pairs of {len(leaks) * (len(leaks) + 1) // 2} leak"
            )


def sees_by_gradient(
    model: ImageModel, size: tuple[int, int], *, n_images: int = 3, seed: int = 0
) -> Tensor:
    """Which logits (rows) have a gradient in which values (columns), in the order of the pixels.

    Shapes: bool ``(D, D)``, D = H · W · C.
    """
    model, x, labels = _random_input(model, size, n_images, seed)
    values = model.values_of(x).requires_grad_()
    logits = _in_order(model.logits_of(values, labels))  # (N, n_levels, D)
    if not logits.requires_grad:
        return torch.zeros(logits.shape[2], logits.shape[2], dtype=torch.bool)
    weights = torch.randn(logits.shape[:2], generator=_generator(seed), dtype=logits.dtype)
    rows = []
    for logit in (logits * weights[:, :, None]).sum((0, 1)):
        (gradient,) = torch.autograd.grad(logit, values, retain_graph=True)
        rows.append(_in_order(gradient[:, None]).abs().amax((0, 1)))
    size_of_gradient = torch.stack(rows)  # (D, D)
    return size_of_gradient > 1e-12 * size_of_gradient.max()


@torch.no_grad()
def sees_by_perturbation(
    model: ImageModel, size: tuple[int, int], *, n_images: int = 3, seed: int = 0
) -> Tensor:
    """Which logits (rows) move with which values (columns), as `sees_by_gradient`."""
    model, x, labels = _random_input(model, size, n_images, seed)
    before = _in_order(model(x, labels))  # (N, n_levels, D)
    columns = []
    for position in range(before.shape[2]):
        c, i, j = _indices(model, size, position)
        moved = x.clone()
        step = torch.randint(1, model.n_levels, (n_images,), generator=_generator(seed + position))
        moved[:, c, i, j] = (moved[:, c, i, j] + step) % model.n_levels  # another level, always
        columns.append((_in_order(model(moved, labels)) - before).abs().amax((0, 1)))
    move = torch.stack(columns, 1)  # (D, D)
    return move > 1e-12 * (1 + before.abs().max())


def _random_input(
    model: ImageModel, size: tuple[int, int], n_images: int, seed: int
) -> tuple[ImageModel, Tensor, Tensor | None]:
    """A float64 copy of the model, random images and, for a conditional model, random labels."""
    generator = _generator(seed)
    shape = (n_images, model.n_channels, *size)
    x = torch.randint(model.n_levels, shape, generator=generator)
    labels = None
    if model.n_classes is not None:
        labels = torch.randint(model.n_classes, (n_images,), generator=generator)
    return copy.deepcopy(model).double().cpu(), x, labels


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _in_order(x: Tensor) -> Tensor:
    """``(N, levels, C, H, W)`` to ``(N, levels, H · W · C)``: a pixel's channels side by side."""
    return x.movedim(2, -1).flatten(2)


def _indices(model: ImageModel, size: tuple[int, int], position: int) -> tuple[int, int, int]:
    """Channel, row and column of a value, from its place in the order."""
    pixel, c = divmod(position, model.n_channels)
    return c, *divmod(pixel, size[1])


def _place(model: ImageModel, size: tuple[int, int], position: int) -> str:
    c, i, j = _indices(model, size, position)
    return f"row {i}, column {j}" + (f", channel {c}" if model.n_channels > 1 else "")
