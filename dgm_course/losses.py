"""Losses of classifiers and of two players, per example: of logits, and of no model."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from dgm_course.checks import check_floating, check_same_shape, values_are_checked


def generator_loss(logit: Tensor, *, saturating: bool = False) -> Tensor:
    """−log D(x) per sample of the generator; with ``saturating``, log(1 − D(x)).

    Both fall as D rises. With s the logit, ∂/∂s log(1 − D) = −D and ∂/∂s (−log D) = −(1 − D): the
    first vanishes where the discriminator knows the sample for a fake.

    Source: Goodfellow et al. 2014, section 3, https://arxiv.org/abs/1406.2661.

    Shapes: logits ``(N,)`` to nats ``(N,)``.

    Example:
        >>> generator_loss(torch.tensor([0.0, -3.0]))
        tensor([0.6931, 3.0486])
    """
    check_floating(logit, "logit")
    return logsigmoid(-logit) if saturating else -logsigmoid(logit)


def log_loss(logit: Tensor, label: Tensor) -> Tensor:
    """−y log D − (1 − y) log(1 − D), D = σ(logit): proper, least on average at D = P(y = 1 | x).

    Source: Goodfellow et al. 2014, equation 1, https://arxiv.org/abs/1406.2661.

    Shapes: logits and labels 0 or 1, both ``(N,)``, to nats ``(N,)``.

    Raises:
        ValueError: unless both have the same shape, and labels lie in [0, 1].

    Example:
        >>> log_loss(torch.tensor([0.0, -3.0]), torch.tensor([1, 1]))
        tensor([0.6931, 3.0486])
    """
    _check(logit, label)
    return binary_cross_entropy_with_logits(logit, label.to(logit.dtype), reduction="none")


def brier_loss(logit: Tensor, label: Tensor) -> Tensor:
    """(y − D)², D = σ(logit): proper too, so that its minimiser is P(y = 1 | x) as well.

    Source: Brier 1950; Gneiting & Raftery 2007, https://doi.org/10.1198/016214506000001437.

    Shapes and errors: as `log_loss`, to values from 0 to 1.

    Example:
        >>> brier_loss(torch.tensor([0.0, -3.0]), torch.tensor([1, 1]))
        tensor([0.2500, 0.9074])
    """
    _check(logit, label)
    return (label.to(logit.dtype) - torch.sigmoid(logit)).square()


def hinge_loss(logit: Tensor, label: Tensor) -> Tensor:
    """max(0, 1 − (2y − 1) · logit): its minimiser is the sign of p − q, and not their ratio.

    Source: Lim & Ye 2017 (geometric GAN), https://arxiv.org/abs/1705.02894.

    Shapes and errors: as `log_loss`, to values from 0 on.

    Example:
        >>> hinge_loss(torch.tensor([0.0, -3.0]), torch.tensor([1, 1]))
        tensor([1., 4.])
    """
    _check(logit, label)
    return torch.relu(1 - (2 * label.to(logit.dtype) - 1) * logit)


def _check(logit: Tensor, label: Tensor) -> None:
    check_floating(logit, "logit")
    check_same_shape("logit", logit, "label", label)
    if values_are_checked() and not ((label >= 0) & (label <= 1)).all():
        low, high = label.aminmax()
        raise ValueError(f"label must lie in [0, 1], got values from {low:g} to {high:g}")
