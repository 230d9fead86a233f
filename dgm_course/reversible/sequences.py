"""Chains of reversible blocks: one keeps its output alone, one keeps everything."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dgm_course.checks import check_count, check_instance
from dgm_course.reversible.blocks import (
    ReversibleBlock,
    check_halves,
    halves,
    in_full,
    joined,
    shift,
)
from dgm_course.reversible.rebuilding import Rebuilding, steps


class BlockSequence(nn.Module, ABC):
    """y = b_L ∘ … ∘ b_1(x), and x from y: abstract. What is kept for backward is the subclass's."""

    def __init__(self, blocks: Iterable[ReversibleBlock]) -> None:
        super().__init__()
        found = [*blocks] if isinstance(blocks, Iterable) else []
        if not found:
            raise ValueError(f"blocks must be one ReversibleBlock or more, got {blocks!r}")
        for i, block in enumerate(found):
            check_instance(block, ReversibleBlock, f"blocks[{i}]")
        self.blocks = nn.ModuleList(found)

    def forward(self, x: Tensor) -> Tensor:
        """y, of x's shape."""
        check_halves(x, "x", self)
        return self._run(in_full(x))

    def inverse(self, y: Tensor) -> Tensor:
        """x, of y's shape, the last block undone first."""
        check_halves(y, "y", self)
        y1, y2 = halves(in_full(y))
        for block in reversed(self._reversible()):
            y1, y2 = block.uncouple(y1, y2)
        return joined(y1, y2)

    @abstractmethod
    def _run(self, x: Tensor) -> Tensor: ...

    def _reversible(self) -> list[ReversibleBlock]:
        return cast("list[ReversibleBlock]", [*self.blocks])


class ReversibleSequence(BlockSequence):
    """y = b_L ∘ … ∘ b_1(x), whose backward pass rebuilds every x_l = b_l⁻¹(x_{l+1}) from y.

    What autograd keeps is y, whatever L: the price is that each network runs twice. Gradients are
    as exact as the inverse: rounding grows going back, by the Lipschitz constants of the blocks.
    Dropout meets its own random numbers again, for which each f or g that draws keeps the state of
    the generator (5 kB on a CPU); batch norm's statistics move once; what ran under autocast runs
    under it again, with halves of at least float32.

    Source: Gomez, Ren, Urtasun & Grosse 2017, algorithm 1, https://arxiv.org/abs/1707.04585.

    Args:
        blocks: one or more, from the input to the output; two may share weights.

    Shapes: as `ReversibleBlock`.

    Raises:
        ValueError: for no blocks, or what `ReversibleBlock` refuses; for networks that change their
            own buffers as they run, as spectral normalisation does in training.
        RuntimeError: in the backward pass, for ``create_graph``, and for networks whose weights or
            mode were changed since the forward pass; of torch, for a second pass back without
            ``retain_graph``.

    Omits: random numbers that are not torch's own; tensors that need a gradient and that f or g
    takes from elsewhere than its parameters, which get none.

    Example:
        >>> from dgm_course.reversible import saved_bytes
        >>> sequence = ReversibleSequence(
        ...     ReversibleBlock(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(8)
        ... )
        >>> x = torch.zeros(3, 4)
        >>> saved_bytes(sequence, x), saved_bytes(ResidualSequence(sequence.blocks), x)
        (48, 408)
    """

    def _run(self, x: Tensor) -> Tensor:
        parameters = [p for p in self.parameters() if p.requires_grad]
        return cast(Tensor, Rebuilding.apply(self._reversible(), x, *parameters))


class ResidualSequence(BlockSequence):
    """y = b_L ∘ … ∘ b_1(x) by ordinary backpropagation: what each block reads is kept, L times.

    Of the same parameters as `ReversibleSequence`, also by their names in the state dict.

    Source: Chen, Xu, Zhang & Guestrin 2016, section 3, https://arxiv.org/abs/1604.06174
    (checkpoints; at every √L-th block √L of them and √L blocks in between).

    Args:
        blocks: one or more, from the input to the output.
        checkpoint_every: None keeps everything; k keeps the input of every k-th block, from which
            `torch.utils.checkpoint` runs these k again.

    Shapes, Raises: as `ReversibleBlock`.

    Example:
        >>> block = ReversibleBlock(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> ResidualSequence([block], checkpoint_every=1)(torch.zeros(3, 4)).shape
        torch.Size([3, 4])
    """

    def __init__(
        self, blocks: Iterable[ReversibleBlock], checkpoint_every: int | None = None
    ) -> None:
        super().__init__(blocks)
        if checkpoint_every is not None:
            checkpoint_every = check_count(checkpoint_every, "checkpoint_every")
        self.checkpoint_every = checkpoint_every

    def extra_repr(self) -> str:
        return f"checkpoint_every={self.checkpoint_every}"

    def _run(self, x: Tensor) -> Tensor:
        blocks, (x1, x2) = self._reversible(), halves(x)
        each = self.checkpoint_every or len(blocks)
        for i in range(0, len(blocks), each):
            run = segment(blocks[i : i + each])
            if self.checkpoint_every and torch.is_grad_enabled():
                x1, x2 = checkpoint(run, x1, x2, use_reentrant=False)
            else:
                x1, x2 = run(x1, x2)
        return joined(x1, x2)


def segment(
    blocks: Sequence[ReversibleBlock],
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Some blocks as one function, whose second run leaves batch norm's statistics alone."""
    again = False

    def run(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal again
        for name, network in steps(blocks):
            a, b = b, a + shift(network, b, name, again)
        again = True
        return a, b

    return run
