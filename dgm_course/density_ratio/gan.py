"""The GAN's objective as an estimate of a divergence, and losses that recover the ratio or not."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from dgm_course.probability import Estimate


def optimal_discriminator(log_p: Tensor, log_q: Tensor) -> Tensor:
    """D(x) = p(x) / (p(x) + q(x)) = σ(log p(x) − log q(x)), the best discriminator.

    Source: Goodfellow et al. 2014, proposition 1, https://arxiv.org/abs/1406.2661.

    Args:
        log_p: log-density of the data, in nats; −inf where there are none.
        log_q: log-density of the generator, in nats.

    Shapes: both ``(N,)``, to probabilities ``(N,)``. Where neither has mass D is ½.
    """
    _check_same_shape("log_p", log_p, "log_q", log_q)
    neither = torch.isneginf(log_p) & torch.isneginf(log_q)
    return torch.sigmoid((log_p - log_q).masked_fill(neither, 0.0))


def gan_value(logit_p: Tensor, logit_q: Tensor) -> Estimate:
    """V = E_p[log D] + E_q[log(1 − D)] with D = σ(logit): −ln 4 + 2 JSD(p ‖ q) at the optimal D.

    Any other discriminator gives less: V is a lower bound on −ln 4 + 2 JSD.

    Source: Goodfellow et al. 2014, equation 1 and theorem 1, https://arxiv.org/abs/1406.2661.

    Args:
        logit_p: log D/(1 − D) at samples of the data p, in nats.
        logit_q: the same at samples of the generator q.

    Shapes: ``(N,)`` and ``(M,)``, each at least two.
    """
    of_p = Estimate.from_samples(logsigmoid(logit_p))
    of_q = Estimate.from_samples(logsigmoid(-logit_q))  # log(1 − D), without the cancellation
    error = (of_p.standard_error**2 + of_q.standard_error**2) ** 0.5
    return Estimate(of_p.value + of_q.value, error)


def generator_loss(logit: Tensor, *, saturating: bool = False) -> Tensor:
    """−log D(x) per sample of the generator; with ``saturating``, log(1 − D(x)).

    Both fall as D rises. With s the logit, ∂/∂s log(1 − D) = −D and ∂/∂s (−log D) = −(1 − D): the
    first vanishes where the discriminator knows the sample for a fake.

    Source: Goodfellow et al. 2014, section 3, https://arxiv.org/abs/1406.2661.

    Shapes: logits ``(N,)`` to nats ``(N,)``.
    """
    return logsigmoid(-logit) if saturating else -logsigmoid(logit)


def log_loss(logit: Tensor, label: Tensor) -> Tensor:
    """−y log D − (1 − y) log(1 − D), D = σ(logit): proper, least on average at D = P(y = 1 | x).

    Shapes: logits and labels 0 or 1, both ``(N,)``, to nats ``(N,)``.
    """
    _check_same_shape("logit", logit, "label", label)
    return binary_cross_entropy_with_logits(logit, label.to(logit.dtype), reduction="none")


def brier_loss(logit: Tensor, label: Tensor) -> Tensor:
    """(y − D)², D = σ(logit): proper too, so that its minimiser is P(y = 1 | x) as well.

    Source: Brier 1950; Gneiting & Raftery 2007, https://doi.org/10.1198/016214506000001437.

    Shapes: as `log_loss`.
    """
    _check_same_shape("logit", logit, "label", label)
    return (label - torch.sigmoid(logit)).square()


def hinge_loss(logit: Tensor, label: Tensor) -> Tensor:
    """max(0, 1 − (2y − 1) · logit): its minimiser is the sign of p − q, and not their ratio.

    Shapes: as `log_loss`.
    """
    _check_same_shape("logit", logit, "label", label)
    return torch.relu(1 - (2 * label - 1) * logit)


def _check_same_shape(name_a: str, a: Tensor, name_b: str, b: Tensor) -> None:
    if a.shape != b.shape:  # (N, 1) against (N,) would broadcast to (N, N)
        raise ValueError(
            f"{name_a} and {name_b} must have the same shape, got {tuple(a.shape)} and "
            f"{tuple(b.shape)}"
        )
