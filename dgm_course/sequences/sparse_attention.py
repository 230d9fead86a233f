"""Attention to some of the earlier positions: who sees whom, in how many steps, at what cost."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from dgm_course.checks import check_count, check_floating, check_tensor

Pattern = Literal["strided", "fixed"]


def strided_masks(n: int, stride: int) -> Tensor:
    """Position i sees i − l < j ≤ i with one head, j = i, i − l, i − 2l, … with the other.

    If the sequence is an image in rows of l pixels, the first head looks along the row and the
    second up the column. Any j ≤ i is reached in two steps, i − j = a l + b with 0 ≤ b < l: one up
    the column and one along the row, in either order.

    Source: Child et al. 2019, section 4.3 and figure 3, https://arxiv.org/abs/1904.10509; there the
    first window holds l + 1 positions.

    Args:
        n: length of the sequence.
        stride: l, about √n.

    Shapes: bool ``(2, n, n)``, a head, a query i in the rows, a key j in the columns.

    Raises:
        ValueError: for n or stride below 1.

    Example:
        >>> strided_masks(6, 3).int()[:, 5].tolist()  # what the last position sees
        [[0, 0, 0, 1, 1, 1], [0, 0, 1, 0, 0, 1]]
    """
    i, j, stride = _positions(n, stride)
    back = i - j
    return torch.stack([(back >= 0) & (back < stride), (back >= 0) & (back % stride == 0)])


def fixed_masks(n: int, stride: int) -> Tensor:
    """Position i sees its own block of l up to itself, or the blocks before by their last position.

    The second head sees itself, too: in the first block there is nothing else to see. Any j ≤ i is
    reached in two steps only if the first is that within the block, for j must come to the end of
    its block before i can find it there: two layers of these heads apart need that order, and two
    layers that have both heads have it always.

    Source: Child et al. 2019, section 4.3 and figure 3, https://arxiv.org/abs/1904.10509.

    Args:
        n: length of the sequence.
        stride: l, the length of a block, about √n.

    Shapes: bool ``(2, n, n)``, as of `strided_masks`.

    Raises:
        ValueError: for n or stride below 1.

    Omits: more than one position at a block's end that sums it up (their c is 1).

    Example:
        >>> fixed_masks(6, 3).int()[:, 4].tolist()  # what the fifth position sees
        [[0, 0, 0, 1, 1, 0], [0, 0, 1, 0, 1, 0]]
    """
    i, j, stride = _positions(n, stride)
    ends = (j // stride < i // stride) & (j % stride == stride - 1)
    return torch.stack([(j <= i) & (i // stride == j // stride), ends | (i == j)])


def _positions(n: int, stride: int) -> tuple[Tensor, Tensor, int]:
    """Queries ``(n, 1)`` and keys ``(n,)``, and the stride as an int."""
    j = torch.arange(check_count(n, "n"))
    return j[:, None], j, check_count(stride, "stride")


def reach(*layers: Tensor, residual: bool = True) -> Tensor:
    """M_L … M_2 M_1 over Booleans: from which positions something can arrive at which.

    A sum of products is "or" of "and": j arrives at i if one layer after the other, the first one
    first, there is a position to step to. M_l is what any head of layer l sees, and position i
    itself too where there is a path past the attention (h + attention of h).

    Args:
        layers: the masks of each layer, the one next to the input first.
        residual: whether there is a path past each layer.

    Shapes: bool masks ``(n, n)``, or ``(heads, n, n)`` of several heads; to bool ``(n, n)``.

    Raises:
        ValueError: for no layers, or masks of other shapes or dtypes.

    Example:
        >>> block, ends = fixed_masks(4, 2)
        >>> reach(block, ends).int().tolist()
        [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
        >>> reach(ends, block).int().tolist()  # nothing of position 0 beyond its block
        [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1]]
    """
    if not layers:
        raise ValueError("layers must hold the masks of at least one layer, got none")
    for layer in layers:
        check_tensor(layer, "a layer's mask")
        if layer.dtype != torch.bool:
            raise ValueError(f"a layer's mask must hold bool, got {layer.dtype}")
        if layer.ndim not in (2, 3) or layer.shape[-2:] != 2 * layers[0].shape[-1:]:
            raise ValueError(
                "a layer's mask must have shape (n, n) or (heads, n, n), the same n in all layers, "
                f"got {tuple(layer.shape)} after {tuple(layers[0].shape)}"
            )
    oneself = torch.eye(layers[0].shape[-1], dtype=torch.bool, device=layers[0].device)
    arrives = oneself
    for layer in layers:
        step = layer.any(0) if layer.ndim == 3 else layer
        step = step | oneself if residual else step
        arrives = step.float() @ arrives.float() > 0
    return arrives


def score_entries(n: int, stride: int, pattern: Pattern = "strided") -> int:
    """How many pairs of positions both heads score: Σ of the two masks, without building them.

    With n = q l + r, the far head has l q (q + 1) / 2 + r (q + 1), in both patterns; the near one
    n l − l (l − 1) / 2 if strided, q l (l + 1) / 2 + r (r + 1) / 2 if fixed. At l = √n that is
    3/2 n^1.5 or n^1.5, to first order; dense causal attention has n (n + 1) / 2 a head.

    Args:
        n: length of the sequence.
        stride: l; one beyond n counts as n.
        pattern: "strided" or "fixed".

    Raises:
        ValueError: for n or stride below 1, or an unknown pattern.

    Example:
        >>> score_entries(4096, 64), score_entries(4096, 64, "fixed"), 4096 * 4097
        (393248, 266240, 16781312)
    """
    n = check_count(n, "n")
    stride = min(check_count(stride, "stride"), n)
    check_pattern(pattern)
    q, r = divmod(n, stride)
    far = stride * q * (q + 1) // 2 + r * (q + 1)
    if pattern == "strided":
        return n * stride - stride * (stride - 1) // 2 + far
    return (q * stride * (stride + 1) + r * (r + 1)) // 2 + far


def check_pattern(pattern: str) -> None:
    """Raise a ValueError unless there is such a pattern."""
    if pattern not in get_args(Pattern):
        raise ValueError(f"pattern must be one of {get_args(Pattern)}, got {pattern!r}")


def sparse_attention(
    q: Tensor, k: Tensor, v: Tensor, stride: int, pattern: Pattern = "strided"
) -> Tensor:
    """softmax(q kᵀ / √D) v, over the keys that a mask of the pattern leaves: O(n √n) at l = √n.

    The first half of the heads has the first mask, the second half the second. The sequence is cut
    into m = ⌈T / l⌉ blocks, and what a mask leaves is gathered: l × l scores a block, m × m a
    column, m for each query that looks at the blocks' ends. No T × T table is ever made. Fewer
    queries than keys are those of the last positions, as in sampling: each gathers its own keys.

    Args:
        q: queries of H heads, H even, at the last T of S positions.
        k: the keys of all positions.
        v: their values.
        stride: l; beyond S it counts as S.
        pattern: "strided" (see `strided_masks`) or "fixed" (see `fixed_masks`).

    Shapes: q ``(N, H, T, D)``, k and v ``(N, H, S, D)``, S ≥ T, to ``(N, H, T, D)``; neither need
    be a multiple of l.

    Raises:
        ValueError: for q, k and v of other shapes, an odd number of heads, a stride below 1 or an
            unknown pattern.

    Example:
        >>> q = k = torch.zeros(1, 2, 6, 1)  # equal scores, so that a query takes the mean of
        >>> v = torch.arange(6.0).expand(1, 2, 6).unsqueeze(-1)  # the positions that it sees
        >>> sparse_attention(q, k, v, 3)[0, ..., 0]
        tensor([[0.0000, 0.5000, 1.0000, 2.0000, 3.0000, 4.0000],
                [0.0000, 1.0000, 2.0000, 1.5000, 2.5000, 3.5000]])
    """
    _check_heads(q, k, v)
    stride = check_count(stride, "stride")
    check_pattern(pattern)
    n, heads, length, dim = q.shape
    if length < (n_read := k.shape[2]):
        steps = [(q[:, :, [t - n_read]], t) for t in range(n_read - length, n_read)]
        return torch.cat([_step(one, k, v, t, stride, pattern) for one, t in steps], 2)
    stride = min(stride, length)
    near, far = (_row, _column) if pattern == "strided" else (_block, _ends)
    halves = [
        # What fills the last block comes after every query, and no head looks ahead.
        attend(*(_in_blocks(x[:, part], stride) for x in (q, k, v)))
        for attend, part in ((near, slice(heads // 2)), (far, slice(heads // 2, heads)))
    ]
    y = torch.cat([half.reshape(n, heads // 2, -1, dim) for half in halves], 1)
    return y[:, :, :length]


def _check_heads(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raise a ValueError unless q, k and v are of an even number of heads and fit each other."""
    for name, x in {"q": q, "k": k, "v": v}.items():
        check_floating(x, name)
        if x.ndim != 4 or x.numel() == 0 or x.shape[1] % 2:
            expected = "(N, H, T, D), H even, not empty"
            raise ValueError(f"{name} must have shape {expected}, got {tuple(x.shape)}")
    n, heads, length, dim = q.shape
    if k.shape != v.shape or k.shape != (n, heads, max(length, k.shape[2]), dim):
        raise ValueError(
            f"k and v must have shape ({n}, {heads}, S, {dim}), S at least {length}, as q has, got "
            f"{tuple(k.shape)} and {tuple(v.shape)}"
        )


def _step(q: Tensor, k: Tensor, v: Tensor, t: int, stride: int, pattern: Pattern) -> Tensor:
    """One query ``(N, H, 1, D)``, at position t, on its own rows of the keys and values."""
    start = t - t % stride  # of its block
    seen: list[slice | list[int]] = (
        [slice(max(0, t + 1 - stride), t + 1), slice(t % stride, t + 1, stride)]
        if pattern == "strided"
        else [slice(start, t + 1), [*range(stride - 1, start, stride), t]]
    )
    halves = zip(seen, *(x.split(q.shape[1] // 2, 1) for x in (q, k, v)), strict=True)
    return torch.cat(
        [scaled_dot_product_attention(q, k[:, :, at], v[:, :, at]) for at, q, k, v in halves], 1
    )


def _in_blocks(x: Tensor, stride: int) -> Tensor:
    """``(N, H, T, D)`` to ``(N H, m, l, D)``, the last block filled up with zeros."""
    return pad(x, (0, 0, 0, -x.shape[2] % stride)).unflatten(2, (-1, stride)).flatten(0, 1)


def _block(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One's own block, up to oneself; as the next three, ``(N H, m, l, D)`` to the same."""
    return scaled_dot_product_attention(q, k, v, is_causal=True)


def _column(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same place of the blocks before, and oneself."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


def _row(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The last l positions, which lie in one's own block and the one before."""
    first = _block(q[:, :1], k[:, :1], v[:, :1])  # which has none before
    if q.shape[1] == 1:  # not every kernel takes an empty batch
        return first
    k, v = (torch.cat([x[:, :-1], x[:, 1:]], 2) for x in (k, v))  # (N H, m - 1, 2 l, D)
    stride = q.shape[2]
    place = torch.arange(2 * stride, device=q.device)
    back = stride + place[:stride, None] - place
    later = scaled_dot_product_attention(q[:, 1:], k, v, (back >= 0) & (back < stride))
    return torch.cat([first, later], 1)


def _ends(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The ends of the blocks before, and oneself, whose score is one more column of the table."""
    m, stride = q.shape[1:3]
    q = q * q.shape[-1] ** -0.5
    end_k, end_v = k[:, :, -1], v[:, :, -1]  # (N H, m, D)
    scores = (q.flatten(1, 2) @ end_k.mT).unflatten(1, (m, stride))  # (N H, m, l, m)
    scores += q.new_full((m, m), -torch.inf).triu()[:, None]  # one's own block's, and later ones
    weights = torch.cat([scores, (q * k).sum(-1, keepdim=True)], -1).softmax(-1)
    of_ends, of_oneself = weights.split([m, 1], -1)
    return (of_ends.flatten(1, 2) @ end_v).unflatten(1, (m, stride)) + of_oneself * v
