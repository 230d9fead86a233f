"""The GAN's objective as an estimate of a divergence."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from dgm_course.checks import check_floating
from dgm_course.probability import Estimate


def gan_value(logit_p: Tensor, logit_q: Tensor) -> Estimate:
    """V = E_p[log D] + E_q[log(1 − D)] with D = σ(logit): −ln 4 + 2 JSD(p ‖ q) at the optimal D.

    Any other discriminator gives less: V is a lower bound on −ln 4 + 2 JSD.

    Source: Goodfellow et al. 2014, equation 1 and theorem 1, https://arxiv.org/abs/1406.2661.

    Args:
        logit_p: log D/(1 − D) at samples of the data p, in nats.
        logit_q: the same at samples of the generator q.

    Shapes: ``(N,)`` and ``(M,)``, each at least two.

    Example:
        >>> import torch
        >>> undecided = torch.zeros(100)
        >>> round(gan_value(undecided, undecided).value, 3)  # −ln 4
        -1.386
    """
    check_floating(logit_p, "logit_p")
    check_floating(logit_q, "logit_q")
    of_p = Estimate.from_samples(logsigmoid(logit_p))
    of_q = Estimate.from_samples(logsigmoid(-logit_q))  # log(1 − D), without the cancellation
    error = (of_p.standard_error**2 + of_q.standard_error**2) ** 0.5
    return Estimate(of_p.value + of_q.value, error)
