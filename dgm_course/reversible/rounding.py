"""How rounding grows on the way back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dgm_course.checks import check_count, check_instance, check_number
from dgm_course.data.toy import Seed, as_generator
from dgm_course.reversible.blocks import ReversibleBlock, check_halves, halves, in_full
from dgm_course.reversible.sequences import BlockSequence


def lipschitz_block(
    dim: int, constant: float, generator: Seed, *, n_hidden: int = 32
) -> ReversibleBlock:
    """A block of f(x) = W₂ tanh(W₁ x + b₁) + b₂ and a g alike, ‖W₂‖ ‖W₁‖ = constant each.

    ‖·‖ is the largest singular value, √constant of each matrix, so that neither f nor g stretches a
    difference by more than constant. Before they are scaled, entries are standard normal; biases
    are uniform within 1 / √(number of inputs). In float32; ``.double()`` keeps the same numbers.

    Args:
        dim: features D of a point, even; f and g are of D / 2.
        constant: the bound, positive.
        generator: a seed or a generator.
        n_hidden: hidden units.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> block = lipschitz_block(4, 2.0, generator=0)
        >>> round(torch.linalg.matrix_norm(block.f[0].weight, 2).item() ** 2, 4)
        2.0
    """
    dim, n_hidden = check_count(dim, "dim", 2), check_count(n_hidden, "n_hidden")
    if dim % 2:
        raise ValueError(f"dim must be even, {dim - 1} or {dim + 1} say, got {dim}")
    check_number(constant, "constant")
    generator = as_generator(generator)

    def linear(n_in: int, n_out: int) -> nn.Linear:
        layer = nn.Linear(n_in, n_out)
        with torch.no_grad():
            layer.weight.normal_(generator=generator)
            layer.weight *= constant**0.5 / torch.linalg.matrix_norm(layer.weight, 2)
            layer.bias.uniform_(-(n_in**-0.5), n_in**-0.5, generator=generator)
        return layer

    f, g = (
        nn.Sequential(linear(dim // 2, n_hidden), nn.Tanh(), linear(n_hidden, dim // 2))
        for _ in range(2)
    )
    return ReversibleBlock(f, g)


@torch.no_grad()
def drift(sequence: BlockSequence, x: Tensor) -> Tensor:
    """max |x̂_l − x_l| over the batch for l = 0 … L, ``(L + 1,)``.

    x_l is the point after l blocks, x̂_l the same found from x_L by undoing L − l of them.

    Args:
        sequence: L blocks, in a mode in which `inverse` undoes `forward`.
        x: its input.

    Raises:
        ValueError: for another model, or what the sequence refuses of x.

    Example:
        >>> from dgm_course.reversible import ResidualSequence
        >>> blocks = [lipschitz_block(4, 4.0, generator=i) for i in range(8)]
        >>> errors = drift(ResidualSequence(blocks), torch.ones(5, 4))
        >>> bool(errors[0] > errors[7] >= errors[8] == 0)
        True
    """
    check_instance(sequence, BlockSequence, "sequence")
    check_halves(x, "x", sequence)
    points, blocks = [halves(in_full(x))], [*sequence.blocks]
    for block in blocks:
        points.append(block.couple(*points[-1]))
    back, errors = points[-1], [x.new_zeros(())]
    for block, point in zip(reversed(blocks), reversed(points[:-1]), strict=True):
        back = block.uncouple(*back)
        errors.append(max((a - b).abs().max() for a, b in zip(back, point, strict=True)))
    return torch.stack(errors[::-1])
