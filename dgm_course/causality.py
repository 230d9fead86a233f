"""A certificate that no output sees what comes later in a sequence: every pair, in two ways.

A model is here a callable from values ``(N, T)``, in the order in which it factorises, to outputs
``(N, T, ...)``. Of a sequence model the values are tokens or real numbers ``(N, T)``; output t, its
logits or the parameters of its density, is that of value t given the values before t, for the start
token is inside the model. Of an image model the caller puts the pixels in order. Of an
autoregressive flow the outputs are shift and scale, or z = f(x), which may see its own value.

Give the model in float64 and in evaluation mode: what moves by 10⁻¹² of the largest output counts
as seen.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dgm_course.checks import check_floating, check_tensor
from dgm_course.data.toy import as_generator

Outputs = Callable[[Tensor], Tensor]
SEEN = 1e-12  # what float64 rounds is smaller, and what acts is larger


class CausalityError(AssertionError):
    """An output that sees its own value, or a later one."""


def check_causal(
    outputs_of: Outputs,
    values: Tensor,
    others: Tensor,
    *,
    own_value: bool = False,
    what: str = "outputs",
    place: Callable[[int], str] = "place {}".format,
) -> None:
    """∂ outputᵢ / ∂ valueⱼ = 0, and output i does not move with value j, for every j ≥ i.

    The gradient finds what acts smoothly however little; the perturbation finds what rounds or
    looks values up, too. Tokens have no gradient: of them the perturbation is the certificate.

    Args:
        outputs_of: values to outputs; a row of a batch must not depend on the other rows.
        values: where it is looked at, tokens or real numbers.
        others: another value for each of them.
        own_value: output i may depend on value i, as z = f(x) of an autoregressive flow does; then
            j > i.
        what: what the outputs are, for the message.
        place: what place i is called, for the message.

    Shapes: values and others ``(N, T)`` to outputs ``(N, T, ...)``.

    Raises:
        CausalityError: with the first output that leaks and the first value that it sees.
        ValueError: for arguments of other shapes.

    Example:
        >>> x = torch.randn(4, 3, dtype=torch.float64)
        >>> check_causal(lambda x: x.cumsum(1) - x, x, x + 1)  # sums of the values before
        >>> sees_by_gradient(lambda x: x.cumsum(1), x).int().tolist()  # and these leak
        [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    check_tensor(values, "values")
    ways = {"perturbation": sees_by_perturbation(outputs_of, values, others)}
    if values.is_floating_point():
        ways = {"gradient": sees_by_gradient(outputs_of, values)} | ways
    for way, sees in ways.items():
        leaks = sees.triu(int(own_value))  # output, a value that it must not see
        if leaks.any():
            i, j = leaks.nonzero()[0].tolist()
            seen = "its own value" if i == j else f"that of {place(j)}"
            n_pairs = len(leaks) * (len(leaks) + 1 - 2 * own_value) // 2
            raise CausalityError(
                f"the {what} of {place(i)} see {seen}, by {way}; "
                f"{int(leaks.sum())} pairs of {n_pairs} leak"
            )


@torch.inference_mode(False)  # gradients, also under ``no_grad``
def sees_by_gradient(outputs_of: Outputs, values: Tensor, *, seed: int = 0) -> Tensor:
    """Which outputs (rows) have a gradient in which values (columns), at some row of the batch.

    Args:
        outputs_of: as in `check_causal`.
        values: real numbers ``(N, T)``.
        seed: of the random weights by which the features of an output are added up.

    Shapes: bool ``(T, T)``.
    """
    check_floating(values, "values")
    if values.ndim != 2 or len(values) == 0:
        raise ValueError(f"values must have shape (N, T), got shape {tuple(values.shape)}")
    values = values.detach().clone().requires_grad_()
    outputs = _checked(outputs_of(values), values)  # (N, T, K)
    if not outputs.requires_grad:
        return torch.zeros(values.shape[1], values.shape[1], dtype=torch.bool)
    generator = as_generator(seed)
    weights = torch.randn(outputs[:, 0].shape, generator=generator).to(outputs)  # (N, K)
    rows = []
    for output in (outputs * weights[:, None]).sum((0, 2)):
        (gradient,) = torch.autograd.grad(output, values, retain_graph=True)
        rows.append(gradient.abs().amax(0))
    sizes = torch.stack(rows)  # (T, T)
    return sizes > SEEN * sizes.max()


@torch.no_grad()
def sees_by_perturbation(outputs_of: Outputs, values: Tensor, others: Tensor) -> Tensor:
    """Which outputs (rows) move with which values (columns), as `sees_by_gradient`.

    Args:
        outputs_of: as in `check_causal`.
        values: tokens or real numbers ``(N, T)``.
        others: what each of them is changed to, one place at a time, ``(N, T)``.
    """
    check_tensor(values, "values")
    check_tensor(others, "others")
    if values.ndim != 2 or values.shape != others.shape:
        raise ValueError(
            "values and others must both have shape (N, T), got shapes "
            f"{tuple(values.shape)} and {tuple(others.shape)}"
        )
    if (values == others).any():
        n_equal = int((values == others).sum())
        raise ValueError(
            f"others must differ from values everywhere, got {n_equal} of {values.numel()} alike"
        )
    before = _checked(outputs_of(values), values)  # (N, T, K)
    columns = []
    for place in range(values.shape[1]):
        moved = values.clone()
        moved[:, place] = others[:, place]
        columns.append((_checked(outputs_of(moved), values) - before).abs().amax((0, 2)))
    return torch.stack(columns, 1) > SEEN * (1 + before.abs().max())


def _checked(outputs: Tensor, values: Tensor) -> Tensor:
    """The outputs as ``(N, T, K)``; a ValueError unless each value has its own, and finite."""
    check_tensor(outputs, "what outputs_of returns")
    if outputs.shape[:2] != values.shape:
        raise ValueError(
            f"outputs_of must map {tuple(values.shape)} to shape ({len(values)}, "
            f"{values.shape[1]}, ...), got {tuple(outputs.shape)}"
        )
    if not torch.isfinite(outputs).all():  # a NaN moves by nothing that can be compared
        raise ValueError("outputs_of must return finite numbers, got NaN or inf")
    return outputs.flatten(2) if outputs.ndim > 2 else outputs[..., None]
