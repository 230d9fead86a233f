"""Losses of classifiers and of two players, per example: of logits, and of no model."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from dgm_course.checks import (
    check_floating,
    check_number,
    check_same_shape,
    values_are_checked,
)


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


def discriminator_loss(
    real: Tensor, fake: Tensor, *, alpha: float = 0.0, beta: float = 0.0
) -> Tensor:
    """log_loss(real, 1 − α) + log_loss(fake, β) per pair; its mean is −V where α = β = 0.

    The labels' smoothing changes the best discriminator to ((1 − α) p + β q) / (p + q): see
    `optimal_discriminator`. One-sided, β = 0, it is (1 − α) times the old one.

    Source: Goodfellow et al. 2014, equation 1, https://arxiv.org/abs/1406.2661; smoothing: Salimans
    et al. 2016, section 3.4, https://arxiv.org/abs/1606.03498.

    Args:
        real: log D/(1 − D) of data, in nats.
        fake: the same of the generator's samples.
        alpha: what is taken off the label 1 of data, 0 ≤ α < 1.
        beta: what is added to the label 0 of samples, β ≥ 0; α + β < 1.

    Shapes: both ``(N,)``, to nats ``(N,)``.

    Raises:
        ValueError: for logits of different shapes, or such α and β that data have no larger label.

    Example:
        >>> discriminator_loss(torch.tensor([0.0, 3.0]), torch.tensor([0.0, -3.0]))
        tensor([1.3863, 0.0972])
    """
    _check_smoothing(alpha, beta)
    check_floating(real, "real")
    check_same_shape("real", real, "fake", fake)
    return log_loss(real, torch.full_like(real, 1 - alpha)) + log_loss(
        fake, torch.full_like(fake, beta)
    )


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """f(G(z)) − f(x) per pair, what Wasserstein's critic f minimises; the generator: −f(G(z)).

    Its mean is −(E f(x) − E f(G(z))), minus the estimate of W₁, where no slope of f exceeds 1.
    Scores are no logits: data should have the larger ones, and only differences count.

    Source: Arjovsky, Chintala & Bottou 2017, equation 2, https://arxiv.org/abs/1701.07875.

    Args:
        real: scores f of data.
        fake: scores of the generator's samples.

    Shapes: both ``(N,)``, to ``(N,)``, in the units of x.

    Raises:
        ValueError: for scores of different shapes, or not floating-point.

    Example:
        >>> critic_loss(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 5.0]))
        tensor([-2.,  2.])
    """
    check_floating(real, "real")
    check_floating(fake, "fake")
    check_same_shape("real", real, "fake", fake)
    return fake - real


def optimal_discriminator(
    log_p: Tensor, log_q: Tensor, *, alpha: float = 0.0, beta: float = 0.0
) -> Tensor:
    """D(x) = ((1 − α) p(x) + β q(x)) / (p(x) + q(x)) = β + (1 − α − β) σ(log p(x) − log q(x)).

    The best discriminator; of `log_loss`, p / (p + q), and of labels smoothed by α and β. It lies
    between β and 1 − α. Where β > 0 it is β, and not 0, at samples far from all data.

    Source: Goodfellow et al. 2014, proposition 1, https://arxiv.org/abs/1406.2661; smoothing:
    Salimans et al. 2016, section 3.4, https://arxiv.org/abs/1606.03498.

    Args:
        log_p: log-density of the data, in nats; −inf where there are none.
        log_q: log-density of the generator, in nats.
        alpha: as in `discriminator_loss`.
        beta: as in `discriminator_loss`.

    Shapes: both ``(N,)``, to probabilities ``(N,)``. Where neither has mass, σ is ½.

    Raises:
        ValueError: unless both have the same shape; for α and β as in `discriminator_loss`.

    Example:
        >>> log_p = torch.tensor([0.0, -torch.inf])
        >>> optimal_discriminator(log_p, log_q=torch.tensor([-1.0, -1.0]))
        tensor([0.7311, 0.0000])
    """
    _check_smoothing(alpha, beta)
    check_floating(log_p, "log_p")
    check_floating(log_q, "log_q")
    check_same_shape("log_p", log_p, "log_q", log_q)
    neither = torch.isneginf(log_p) & torch.isneginf(log_q)
    d = torch.sigmoid((log_p - log_q).masked_fill(neither, 0.0))
    return beta + (1 - alpha - beta) * d


def _check_smoothing(alpha: float, beta: float) -> None:
    check_number(alpha, "alpha", or_zero=True)
    check_number(beta, "beta", or_zero=True)
    if alpha + beta >= 1:
        raise ValueError(f"alpha + beta must be below 1, got {alpha} + {beta}")


def _check(logit: Tensor, label: Tensor) -> None:
    check_floating(logit, "logit")
    check_same_shape("logit", logit, "label", label)
    if values_are_checked() and not ((label >= 0) & (label <= 1)).all():
        low, high = label.aminmax()
        raise ValueError(f"label must lie in [0, 1], got values from {low:g} to {high:g}")
