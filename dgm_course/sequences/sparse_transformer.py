"""The Sparse Transformer: every token may look at about 2 √n of those before it."""

from __future__ import annotations

from functools import partial
from math import isqrt

import torch
from torch import Tensor, nn

from dgm_course.checks import check_count
from dgm_course.sequences.sparse_attention import Pattern, check_pattern, sparse_attention
from dgm_course.sequences.transformer import Transformer


class SparseTransformer(Transformer):
    """p(x) = Π p(x_t | x_<t), each factor read off tokens that are reached in L steps.

    As in a GPT, but half of the heads of each layer look at positions near by and half far off, as
    `strided_masks` or `fixed_masks` say. Two heads score about 3/2 n √n pairs, or n √n, where a
    GPT's score n². One layer sees some of the tokens before t, and two reach them all. Both kinds
    of heads stand in every layer: so the order of layers that `fixed_masks` asks for is there.

    Position t gets the sum of two learned vectors, of its row ⌊t / l⌋ and its column t mod l. Of an
    image read row by row these are the pixel's own, if l is its width.

    Source: Child et al. 2019, sections 4.3, 5.1 and 5.3, https://arxiv.org/abs/1904.10509.

    Args:
        n_tokens: size V of the vocabulary; 256 for bytes.
        context: the most tokens of a sequence.
        n_layers: layers L; one cannot see everything.
        n_heads: heads of a layer, even, a divisor of width.
        width: numbers per position.
        pattern: "strided", for what has rows, as images; "fixed", for what has none, as text.
        stride: l, at most the context; None takes ⌈√context⌉.

    Shapes: integers ``(N, T)``, T ≤ context, to logits ``(N, V, T)``; those at t are of x_t given
    the tokens before t.

    Raises:
        ValueError: for arguments outside these bounds; for tokens that are not ``(N, T)``, empty,
            longer than the context, not integers, or outside the vocabulary.

    Omits: dropout, activations computed again in the backward pass, half precision, and more than
    one position to sum up a block.

    Example:
        >>> model = SparseTransformer(n_tokens=5, context=16, n_layers=2, n_heads=2, width=8)
        >>> tokens = model.sample(3, 10, generator=0)
        >>> model(tokens).shape, model.stride
        (torch.Size([3, 5, 10]), 4)
    """

    def __init__(
        self,
        n_tokens: int,
        context: int,
        n_layers: int,
        n_heads: int,
        width: int,
        pattern: Pattern = "strided",
        stride: int | None = None,
    ) -> None:
        context, n_layers = check_count(context, "context"), check_count(n_layers, "n_layers")
        check_pattern(pattern)
        stride = isqrt(context - 1) + 1 if stride is None else check_count(stride, "stride")
        if stride > context:
            raise ValueError(f"stride must be at most the context, {context}, got {stride}")
        attention = partial(sparse_attention, stride=stride, pattern=pattern)
        super().__init__(n_tokens, context, n_heads, width, [attention] * n_layers)
        if self.n_heads % 2:
            raise ValueError(f"n_heads must be even, half of them for each mask, got {n_heads}")
        self.pattern, self.stride = pattern, stride
        n_rows = -(-context // stride)
        self.rows = nn.Parameter(torch.randn(n_rows, self.width) * 0.5**0.5)  # both: N(0, I)
        self.columns = nn.Parameter(torch.randn(stride, self.width) * 0.5**0.5)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, pattern={self.pattern!r}, stride={self.stride}"

    def placed(self, h: Tensor, start: int) -> Tensor:
        place = torch.arange(start, start + h.shape[1], device=h.device)
        return h + self.rows[place // self.stride] + self.columns[place % self.stride]
