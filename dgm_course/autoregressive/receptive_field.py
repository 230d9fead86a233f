"""Which earlier pixels reach a pixel's logits: from the masks, by gradient, and in closed form."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from dgm_course.autoregressive.gated import GatedPixelCNN
from dgm_course.autoregressive.image_model import random_conditions
from dgm_course.autoregressive.pixelcnn import MaskedStack
from dgm_course.checks import check_count, check_instance, check_tensor
from dgm_course.data.toy import as_generator


def compose(masks: Sequence[Tensor]) -> Tensor:
    """The pixels that a stack of masked layers sees, first layer first: F₁ ∘ … ∘ F_L.

    A pixel is seen if some chain of open weights leads from it to the centre: the masks are added
    as sets (Minkowski), in booleans, so that nothing rounds and nothing cancels.

    Args:
        masks: one mask a layer, ``(k, k)`` or ``(1, k)``; what is not 0 is open.

    Shapes: bool ``(2R + 1, 2R + 1)``, the pixel itself in the middle, R the sum of half-widths.
    """
    for mask in masks:
        check_tensor(mask, "each of masks")
    radius = sum(mask.shape[1] // 2 for mask in masks)
    field = torch.zeros(2 * radius + 1, 2 * radius + 1, dtype=torch.bool)
    field[radius, radius] = True
    for mask in reversed(masks):
        field = _one_layer_back(field, mask)
    return field


def visible_pixels(model: MaskedStack | GatedPixelCNN) -> Tensor:
    """The pixels that reach a pixel's logits by some chain of open weights, from the masks alone.

    Of several channels, a pixel is seen if one of them is: the pixel itself then is, too.

    Args:
        model: a `PixelCNN`, a `WindowPixelCNN` or a `GatedPixelCNN`.

    Shapes: bool ``(2R + 1, 2R + 1)``, R the sum of the layers' half-widths, the pixel itself in the
    middle.
    """
    if isinstance(model, MaskedStack):
        return compose([_open(layer.mask) for layer in (model.first, *model.residual)])
    check_instance(model, GatedPixelCNN, "model")
    radius = sum(layer.vertical.mask.shape[3] // 2 for layer in model.layers)
    of_v = torch.zeros(2 * radius + 1, 2 * radius + 1, dtype=torch.bool)
    of_h = of_v.clone()
    of_h[radius, radius] = True
    for layer in reversed(model.layers):
        # Layer l's h needs the same layer's vertical convolution, at the same pixel.
        of_v = _one_layer_back(of_v | of_h, _open(layer.vertical.mask))
        of_h = _one_layer_back(of_h, _open(layer.horizontal.mask))
    return of_v | of_h


@torch.inference_mode(False)  # gradients, also under ``no_grad``
def visible_by_gradient(model: MaskedStack | GatedPixelCNN, *, seed: int = 0) -> Tensor:
    """The pixels in which one pixel's logits have a gradient that is not 0, as `visible_pixels`.

    From a copy in float64, over 8 random images; a pixel that only relus at rest lead to is missed.
    """
    radius = visible_pixels(model).shape[0] // 2
    generator = as_generator(seed)
    model, side = copy.deepcopy(model).double().cpu(), 2 * radius + 1
    shape = (8, model.n_channels, side, side)
    values = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    conditions = random_conditions(model, 8, (side, side), generator)
    logits = model.logits_of(values, *conditions)[..., radius, radius]  # (8, n_levels, C)
    weights = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((logits * weights).sum(), values)
    return gradient.ne(0).any(0).any(0)


def visible_by_formula(kernel_size: int, n_layers: int, *, gated: bool = False) -> Tensor:
    """In closed form, for one channel and L equal layers: as `visible_pixels`.

    The own row: r L pixels to the left. Row j above, 1 ≤ j ≤ r L: from −r L to r L with the two
    stacks, to r min(L, j) only with one, whose every step to the right of the own row's end must
    be bought with a step up.
    """
    check_count(n_layers, "n_layers")
    r = check_count(kernel_size, "kernel_size") // 2
    radius = r * n_layers
    up = torch.arange(radius, -radius - 1, -1)[:, None]  # j, rows above the pixel
    across = torch.arange(-radius, radius + 1)[None]
    right_end = torch.full_like(up, radius) if gated else r * up.clamp(max=n_layers)
    return ((up > 0) & (across <= right_end)) | ((up == 0) & (across < 0))


def blind_pixels(kernel_size: int, n_layers: int) -> int:
    """r L (L − 1) / 2: earlier pixels within r L that L plain k×k layers never see."""
    check_count(n_layers, "n_layers")
    return check_count(kernel_size, "kernel_size") // 2 * n_layers * (n_layers - 1) // 2


def count_blind(field: Tensor) -> int:
    """How many earlier pixels of the field's square are not seen: all rows above, own row left."""
    check_tensor(field, "field")
    if field.ndim != 2 or field.shape[0] != field.shape[1] or field.dtype != torch.bool:
        raise ValueError(
            f"field must be a square of bool, got shape {tuple(field.shape)} and {field.dtype}"
        )
    centre = field.shape[0] // 2
    earlier = torch.zeros_like(field)
    earlier[:centre] = True
    earlier[centre, :centre] = True
    return int((earlier & ~field).sum())


def _one_layer_back(field: Tensor, mask: Tensor) -> Tensor:
    """Every pixel of the field, moved by every open offset of the mask."""
    rows, columns = mask.shape
    new = torch.zeros_like(field)
    for a, b in mask.nonzero().tolist():
        # Nothing is rolled round an edge: the field was made wide enough for the whole stack.
        new |= field.roll((a - rows // 2, b - columns // 2), (0, 1))
    return new


def _open(mask: Tensor) -> Tensor:
    """The offsets at which some weight between some features is open, ``(rows, k)``."""
    return mask.ne(0).any(0).any(0).cpu()
