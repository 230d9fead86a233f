"""What a sample says of the code that it was made with: InfoGAN's bound, and a table's exact I."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, Normal, Uniform

from dgm_course.checks import check_floating, check_shape, values_are_checked

CODES = (Categorical, Uniform, Normal)


def code_entropy(prior: Distribution | Sequence[Distribution]) -> Tensor:
    """H(c) = Σ_j H(c_j) of independent codes in nats, of shape ().

    A categorical code of K equally likely values has ln K; a continuous one has a differential
    entropy, which is below 0 where the code is narrower than 1.

    Args:
        prior: p(c), or one for each code c_j: `Categorical`, `Uniform` or `Normal`, of one code
            or, by `Independent`, of several.

    Raises:
        ValueError: for codes of another kind, or of a batch of priors.

    Example:
        >>> code_entropy([Categorical(torch.ones(10)), Uniform(-1.0, 1.0)])  # ln 10 + ln 2
        tensor(2.9957)
    """
    priors = [prior] if isinstance(prior, Distribution) else [*prior]
    for i, p in enumerate(priors):
        kind = p.base_dist if isinstance(p, Independent) else p
        if not isinstance(kind, CODES):
            raise ValueError(
                "prior must be of codes that are Categorical, Uniform or Normal, got "
                f"{type(kind).__name__} for code {i}"
            )
        if p.batch_shape:
            raise ValueError(
                f"prior must be one distribution for code {i}, got a batch {tuple(p.batch_shape)}"
            )
    if not priors:
        raise ValueError("prior must be of one code or more, got none")
    return torch.stack([p.entropy() for p in priors]).sum()


def information_bound(log_q: Tensor, prior: Distribution | Sequence[Distribution]) -> Tensor:
    """H(c) + log q(c|x) per example in nats: its mean over c ~ p(c), x ~ G(z, c) is ≤ I(c; x).

    The gap is E KL(p(c|x) ‖ q(c|x)): the mean is I itself where q is the posterior. c is the code
    that x was made with, so that nothing is drawn from the posterior, which nobody knows.

    Source: Chen et al. 2016, equations 4 and 5, https://arxiv.org/abs/1606.03657.

    Args:
        log_q: log q(c|x) at the code of each example, ``(N,)``: of several codes the sum.
        prior: p(c), as for `code_entropy`.

    Shapes: ``(N,)`` to ``(N,)``, with gradients.

    Raises:
        ValueError: for codes of another kind, a categorical log q above 0, or another shape.

    Example:
        >>> c, logits = torch.tensor([0, 1, 2]), 3 * torch.eye(3)
        >>> information_bound(Categorical(logits=logits).log_prob(c), Categorical(torch.ones(3)))
        tensor([1.0037, 1.0037, 1.0037])
    """
    check_floating(log_q, "log_q")
    check_shape(log_q, (log_q.numel(),), "log_q")
    entropy = code_entropy(prior)
    priors = [prior] if isinstance(prior, Distribution) else prior
    if values_are_checked() and all(isinstance(p, Categorical) for p in priors):
        if len(log_q) and (most := log_q.max().item()) > 1e-6:
            raise ValueError(f"log_q of categorical codes must be at most 0, got up to {most:.4g}")
    return entropy.to(log_q) + log_q


def table_information(joint: Tensor) -> Tensor:
    """I(c; x) = Σ p(c, x) log p(c, x) / (p(c) p(x)) in nats, of shape (), by enumeration.

    Args:
        joint: p(c, x) ``(C, X)``, which sums to 1; what else makes x is summed out before.

    Raises:
        ValueError: for another shape, entries below 0, or another sum.

    Example:
        >>> table_information(torch.eye(2) / 2)  # x says which of two: ln 2
        tensor(0.6931)
    """
    check_floating(joint, "joint")
    if joint.ndim != 2 or not joint.numel():
        raise ValueError(f"joint must have shape (C, X), got {tuple(joint.shape)}")
    if not (joint >= 0).all() or not abs(joint.sum().item() - 1) < 1e-5:
        raise ValueError(
            f"joint must hold probabilities that sum to 1, got a least of {joint.min():.4g} and a "
            f"sum of {joint.sum():.6g}"
        )
    of_c, of_x = joint.sum(1), joint.sum(0)
    entropies = [-torch.xlogy(p, p).sum() for p in (of_c, of_x, joint)]
    return entropies[0] + entropies[1] - entropies[2]
