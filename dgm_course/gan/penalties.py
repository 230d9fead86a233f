"""What holds a discriminator's slope: penalties on its gradient, per example."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dgm_course.checks import check_floating, check_number, values_are_checked
from dgm_course.gan.techniques import MinibatchDiscrimination


def gradient_penalty(
    critic: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    target: float = 1.0,
    one_sided: bool = False,
) -> Tensor:
    """(‖∇_x f(x_i)‖₂ − target)² of each example, the norm over all that x_i is made of.

    One-sided it is max(0, ‖∇f‖ − target)². With the target 0 it is ‖∇f(x_i)‖², which is called R1
    at data, R2 at samples; with 1, at random points between both, it is WGAN-GP's. Times a weight
    it is a term of the critic's loss, and has gradients by the critic's weights.

    Source: Gulrajani et al. 2017, equation 3, https://arxiv.org/abs/1704.00028; one-sided: Petzka,
    Fischer & Lukovnikov 2018, https://arxiv.org/abs/1709.08894; R1: Mescheder, Geiger & Nowozin
    2018, equation 9, https://arxiv.org/abs/1801.04406.

    Args:
        critic: ``(N, ...)`` to scores ``(N,)``, each of its own example alone.
        x: where the slope is measured; nothing reaches what x was made from.
        target: the slope that costs nothing, at least 0.
        one_sided: whether smaller slopes cost nothing, too.

    Shapes: ``(N, ...)`` to ``(N,)``, in the squared units of a slope.

    Raises:
        ValueError: for x that is empty or not finite, a negative target, or scores that are not
            ``(N,)``.

    Warns:
        UserWarning: for a critic whose batch normalisation is in training mode, or that looks at
            a whole batch on purpose: f(x_i) then moves with all x, and no slope is its own.

    Example:
        >>> image = torch.zeros(2, 1, 8, 8)
        >>> gradient_penalty(lambda x: x.sum((1, 2, 3)), image)  # a norm of √64: (8 − 1)²
        tensor([49., 49.])
    """
    check_floating(x, "x")
    check_number(target, "target", or_zero=True)
    if x.ndim < 2 or x.numel() == 0:
        raise ValueError(f"x must have shape (N, ...), not empty, got shape {tuple(x.shape)}")
    if values_are_checked() and not torch.isfinite(x).all():
        n_bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
        raise ValueError(f"x must be finite, got NaN or inf in {n_bad} of {len(x)} examples")
    if isinstance(critic, nn.Module) and any(map(_mixes, critic.modules())):
        warnings.warn(
            "the critic's score of an example depends on its batch, so that no gradient is an "
            "example's own; leave batch normalisation out, or call critic.eval()",
            stacklevel=2,
        )
    is_trained = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        scores = critic(x)
        if scores.shape != (len(x),):
            raise ValueError(f"critic must return shape ({len(x)},), got {tuple(scores.shape)}")
        (slope,) = torch.autograd.grad(scores.sum(), x, create_graph=is_trained)
    if target == 0:
        return slope.flatten(1).square().sum(1)
    excess = slope.flatten(1).norm(dim=1) - target
    return (excess.relu() if one_sided else excess).square()


def _mixes(layer: nn.Module) -> bool:
    normalises = isinstance(layer, _BatchNorm) and layer.training
    return normalises or isinstance(layer, MinibatchDiscrimination)
