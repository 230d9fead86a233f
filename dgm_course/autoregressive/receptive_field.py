"""Which earlier pixels reach a pixel's logits: from the masks, by gradient, and in closed form.

A stack of convolutions sees a square at most, around the pixel, the same one everywhere. What a
recurrent model sees ends at the image's edges only, so it is asked for in an image: `visible_in`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from dgm_course.autoregressive.diagonal_bilstm import DiagonalBiLSTMLayer
from dgm_course.autoregressive.gated import GatedPixelCNN
from dgm_course.autoregressive.image_model import (
    ImageModel,
    check_pixel,
    random_conditions,
)
from dgm_course.autoregressive.pixel_rnn import PixelRNN
from dgm_course.autoregressive.pixelcnn import MaskedStack
from dgm_course.autoregressive.pixelcnn_plus_plus import PixelCNNPlusPlus, Stream, check_even
from dgm_course.autoregressive.pixelsnail import PixelSNAIL
from dgm_course.autoregressive.row_lstm import RowLSTMLayer
from dgm_course.autoregressive.shifted import Entrance, ShiftedConv2d
from dgm_course.checks import check_count, check_instance, check_size, check_tensor
from dgm_course.data.toy import as_generator

Pixel = tuple[int, int]  # row and column, from 0


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


def visible_by_gradient(model: MaskedStack | GatedPixelCNN, *, seed: int = 0) -> Tensor:
    """The pixels in which one pixel's logits have a gradient that is not 0, as `visible_pixels`.

    From a copy in float64, over 8 random images; a pixel that only relus at rest lead to is missed.
    """
    side = visible_pixels(model).shape[0]
    return visible_in_by_gradient(model, (side, side), (side // 2, side // 2), seed=seed)


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


def visible_in(model: ImageModel, size: tuple[int, int], pixel: Pixel) -> Tensor:
    """The pixels of an image that reach a pixel's logits, by layers and masks: as `visible_pixels`.

    Backwards from the pixel: a layer's states are followed to the states that they come from, and
    those to the inputs that its masks open; a kernel to what it covers; attention to all that is
    earlier. Of several channels, as in `visible_pixels`: a `DiagonalBiLSTM` of an RGB image sees R
    and G of the pixel that it else misses.

    Args:
        model: a `RowLSTM`, `DiagonalBiLSTM`, `PixelCNNPlusPlus` or `PixelSNAIL`.
        size: height and width of the image.
        pixel: row and column, from 0.

    Shapes: bool ``(H, W)``.

    Raises:
        ValueError: for another model, a bad size, or a pixel outside the image.

    Example:
        >>> from dgm_course.autoregressive import DiagonalBiLSTM
        >>> model = DiagonalBiLSTM(2, n_features=4, n_layers=1)
        >>> visible_in(model, (3, 4), (1, 1)).int().tolist()  # all but the last of row 0
        [[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    """
    field = _one_pixel(size, pixel)
    if isinstance(model, PixelCNNPlusPlus):
        return _of_plus_plus(model, field) | field & (model.n_channels > 1)
    if isinstance(model, PixelSNAIL):
        return _of_snail(model, field) | field & (model.n_channels > 1)
    if not isinstance(model, PixelRNN):
        raise ValueError(
            "model must be a RowLSTM, DiagonalBiLSTM, PixelCNNPlusPlus or PixelSNAIL, got "
            f"{type(model).__name__}"
        )
    for layer in reversed(model.layers):
        assert isinstance(layer, RowLSTMLayer | DiagonalBiLSTMLayer)
        if isinstance(layer, RowLSTMLayer):
            states = _rows_above(field, layer.from_input.mask.shape[3] // 2)
        else:
            # Its first direction hands on to the right and down, its second to the left and down.
            second = pad(field, (0, 0, -1, 1))  # which a pixel gets from the row above
            states = _to_the_left(field) | _to_the_left(second.flip(1)).flip(1)
        field = field | _one_layer_back(states, _open(layer.from_input.mask))
    return _one_layer_back(field, _open(model.first.mask))


@torch.inference_mode(False)  # gradients, also under ``no_grad``
def visible_in_by_gradient(
    model: ImageModel, size: tuple[int, int], pixel: Pixel, *, seed: int = 0
) -> Tensor:
    """The pixels of an image in which a pixel's logits have a gradient that is not 0.

    From a copy in float64, over 8 random images; a pixel that only relus at rest lead to is missed.

    Args:
        model: any `ImageModel` of this package.
        size: height and width of the images.
        pixel: row and column, from 0.
        seed: of these images.

    Shapes: bool ``(H, W)``.

    Raises:
        ValueError: as `visible_in`.
    """
    check_instance(model, ImageModel, "model")
    _one_pixel(size, pixel)
    generator = as_generator(seed)
    model = copy.deepcopy(model).double().cpu()
    shape = (8, model.n_channels, *size)
    values = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    conditions = random_conditions(model, 8, size, generator)
    logits = model.logits_of(values, *conditions)[..., pixel[0], pixel[1]]  # (8, n_levels, C)
    weights = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((logits * weights).sum(), values)
    return gradient.ne(0).any(0).any(0)


def visible_by_row_lstm(
    size: tuple[int, int], pixel: Pixel, *, n_layers: int, kernel_size: int = 3
) -> Tensor:
    """In closed form, for one channel: what `visible_in` finds of a `RowLSTM`.

    With r = (k − 1) / 2: r (1 + L) pixels of the own row to the left, and of row j above from
    r (j + 1 + L) to the left to r j to the right. To the right every r are bought with a step up,
    whatever L is: the input's kernels look to the left only.
    """
    check_count(n_layers, "n_layers")
    r = check_count(kernel_size, "kernel_size") // 2
    up, across = _from(size, pixel)
    left_end, right_end = -r * (up + 1 + n_layers), torch.where(up == 0, -1, r * up)
    return (up >= 0) & (left_end <= across) & (across <= right_end)


def visible_by_diagonal_bilstm(
    size: tuple[int, int], pixel: Pixel, *, kernel_size: int = 3
) -> Tensor:
    """In closed form, for one channel: what `visible_in` finds of a `DiagonalBiLSTM` of any depth.

    Every earlier pixel but the last of the row above; that one, too, where it is at most
    (k − 1) / 2 columns away, for there the first layer sees it.
    """
    r = check_count(kernel_size, "kernel_size") // 2
    up, across = _from(size, pixel)
    is_blind = (up == 1) & (across == across.max()) & (across > r)
    return ((up > 0) & ~is_blind) | ((up == 0) & (across < 0))


def _one_pixel(size: tuple[int, int], pixel: Pixel) -> Tensor:
    """``(H, W)``, True at the pixel alone; a ValueError unless it lies within the image."""
    height, width = check_size(size)
    field = torch.zeros(height, width, dtype=torch.bool)
    field[check_pixel(pixel, (height, width))] = True
    return field


def _from(size: tuple[int, int], pixel: Pixel) -> tuple[Tensor, Tensor]:
    """How far up ``(H, 1)`` and to the right ``(1, W)`` of a pixel an image's rows, columns lie."""
    (height, width), ((i, j),) = check_size(size), _one_pixel(size, pixel).nonzero().tolist()
    return i - torch.arange(height)[:, None], torch.arange(width)[None] - j


def _rows_above(field: Tensor, radius: int) -> Tensor:
    """The field and all that is reached from it by steps up, each with up to radius sideways."""
    field, steps = field.clone(), torch.ones(1, 2 * radius + 1)
    for i in reversed(range(1, len(field))):
        field[i - 1] |= _one_layer_back(field[i : i + 1], steps)[0]
    return field


def _to_the_left(field: Tensor) -> Tensor:
    """The field and all that is reached from it by steps up and to the left."""
    return field.flip(0, 1).int().cummax(0).values.cummax(1).values.flip(0, 1).bool()


def _of_plus_plus(model: PixelCNNPlusPlus, field: Tensor) -> Tensor:
    """Back through the stream of pixels, then through that of rows with all that it was asked."""
    check_even((len(field), field.shape[1]))
    of_pixels, heard = _stream_back(model.pixels, {3 * len(model.pixels.up) - 1: field})
    return of_pixels | _stream_back(model.rows, heard)[0]


def _stream_back(stream: Stream, asked: dict[int, Tensor]) -> tuple[Tensor, dict[int, Tensor]]:
    """From fields of its layers' outputs, by number: of the image, and of what each layer hears."""
    layers = [*stream.down, *stream.middle, *stream.up]
    n, heard, asked = len(stream.down), {}, asked.copy()
    field = torch.zeros_like(asked[max(asked)])
    for number in reversed(range(3 * n)):
        field = field | asked.get(number, torch.tensor(False))
        heard[number] = _kernel_back(field, layers[number].second)
        if number >= 2 * n:
            shortcut = 3 * n - 1 - number
            asked[shortcut] = asked.get(shortcut, torch.tensor(False)) | heard[number]
        field = field | _kernel_back(heard[number], layers[number].first)
        if number == 2 * n:  # a block of four comes from one feature
            field = field.unflatten(0, (-1, 2)).unflatten(2, (-1, 2)).any(3).any(1)
        if number == n:
            wide = torch.zeros(2 * len(field), 2 * field.shape[1], dtype=torch.bool)
            wide[::2, ::2] = field
            field = _kernel_back(wide, stream.to_half)
    return _entrance_back(field, stream.entrance), heard


def _of_snail(model: PixelSNAIL, field: Tensor) -> Tensor:
    image = torch.zeros_like(field)
    for block in reversed(model.blocks):
        last = field.flatten().nonzero().max()
        earlier = (torch.arange(field.numel()) < last).view_as(field)
        field, image = field | earlier, image | earlier  # keys and values
        for layer in reversed(block.layers):
            field = field | _kernel_back(_kernel_back(field, layer.second), layer.first)
    return image | _entrance_back(field, model.entrance)


def _entrance_back(field: Tensor, entrance: Entrance) -> Tensor:
    above = pad(_kernel_back(field, entrance.above), (0, 0, -1, 1))  # the image was shifted down
    if entrance.left is None:
        return above
    return above | pad(_kernel_back(field, entrance.left), (-1, 1))


def _kernel_back(field: Tensor, conv: ShiftedConv2d) -> Tensor:
    left, right, above, _ = conv.padding
    mask = torch.zeros(3, 3)
    mask[1 - above : 2, 1 - left : 2 + right] = 1
    return _one_layer_back(field, mask)


def _one_layer_back(field: Tensor, mask: Tensor) -> Tensor:
    """Every pixel of the field, moved by every open offset of the mask; what leaves it is cut."""
    (rows, columns), (height, width) = mask.shape, field.shape
    wide = pad(field, (columns // 2, columns // 2, rows // 2, rows // 2))
    new = torch.zeros_like(field)
    for a, b in mask.nonzero().tolist():
        down, right = rows - 1 - a, columns - 1 - b
        new |= wide[down : down + height, right : right + width]
    return new


def _open(mask: Tensor) -> Tensor:
    """The offsets at which some weight between some features is open, ``(rows, k)``."""
    return mask.ne(0).any(0).any(0).cpu()
