"""Estimators of the gradient of an expectation, draw by draw, so that their variances show."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from dgm_course.checks import (
    check_count,
    check_floating,
    check_instance,
    check_number,
    check_tensor,
)
from dgm_course.vae.latent_variable_model import LatentVariableModel
from dgm_course.vae.objectives import Estimator, importance_weighted_bound

Family = Callable[[Tensor], Distribution]  # parameters (..., P) to batch shape (...)
Baseline = float | Tensor | Literal["leave_one_out"] | None
MOST_LATENTS = 8  # 256 codes
GROUPS = 100  # of repeats: the spread of their means gives the noise


@torch.enable_grad()
def reparameterised(
    f: Callable[[Tensor], Tensor], family: Family, parameters: Tensor, n_samples: int
) -> Tensor:
    """∇_φ f(g_φ(ε_s)), z_s = g_φ(ε_s) ~ q_φ: S unbiased estimates of ∇_φ E_q f(z), ``(S, P)``.

    Source: Kingma & Welling 2014, section 2.4, https://arxiv.org/abs/1312.6114.

    Args:
        f: maps draws ``(S, M)`` to numbers ``(S,)``, with a gradient, and knows nothing of φ.
        family: maps φ ``(S, P)``, a row for each draw, to the distribution q_φ(z) of batch shape
            ``(S,)``; its draws are functions of φ (``rsample``).
        parameters: φ ``(P,)``, or ``(..., P)`` for several q at once, with ``...`` after S in
            every other shape, too.
        n_samples: number S of draws.

    Raises:
        ValueError: for a family of another batch shape or without ``rsample``, S < 1, or an f that
            returns another shape.

    Example:
        >>> normal = lambda phi: torch.distributions.Normal(phi[..., 0], phi[..., 1])
        >>> phi = torch.tensor([1.0, 0.1])
        >>> each = reparameterised(lambda z: z**2, normal, phi, 10_000)  # E z² = μ² + σ²
        >>> [round(mean, 1) for mean in each.mean(0).tolist()]
        [2.0, 0.2]
    """
    q, phi = _one_a_draw(family, parameters, n_samples)
    if not q.has_rsample:
        raise ValueError(f"family must have rsample to reparameterise it, got {q}")
    return torch.autograd.grad(_values(f, q.rsample(), q.batch_shape).sum(), phi)[0]


@torch.enable_grad()
def score_function(
    f: Callable[[Tensor], Tensor],
    family: Family,
    parameters: Tensor,
    n_samples: int,
    *,
    baseline: Baseline = None,
) -> Tensor:
    """(f(z_s) − b) ∇_φ log q_φ(z_s): S unbiased estimates of ∇_φ E_q f(z), ``(S, P)``.

    By the log-derivative ∇q = q ∇log q: no gradient of f is needed, and q may be discrete. As
    E ∇log q = 0, any b that does not depend on z_s changes the variance alone.

    Source: Williams 1992, https://doi.org/10.1007/BF00992696; leave-one-out: Kool, van Hoof &
    Welling 2019, https://openreview.net/forum?id=r1lgTGL5DE.

    Args:
        f, family, parameters, n_samples: as for `reparameterised`, without ``rsample`` and without
            a gradient of f.
        baseline: b, a number or a tensor of one for each parameter ``(P,)``; "leave_one_out", the
            mean of f over the other S − 1 draws. (The mean of all S would depend on z_s: it
            shrinks the gradient by exactly 1 − 1/S.)

    Raises:
        ValueError: as for `reparameterised`; for "leave_one_out" with S < 2; for a baseline that
            is not a number, of another shape, or not finite.
    """
    q, phi = _one_a_draw(family, parameters, n_samples)
    with torch.no_grad():
        z = q.sample()
        values = _values(f, z, q.batch_shape)  # (S,)
    (score,) = torch.autograd.grad(q.log_prob(z).sum(), phi)  # (S, P)
    return (values[..., None] - _baseline(baseline, values, phi.shape[-1])) * score


def binary_codes(n_latents: int) -> Tensor:
    """All 2ᴹ codes of M binary latents, ``(2ᴹ, M)``, M ≤ 8."""
    n_latents = check_count(n_latents, "n_latents", most=MOST_LATENTS)
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * n_latents).reshape(-1, n_latents)


@torch.enable_grad()
def gradient_by_enumeration(
    f: Callable[[Tensor], Tensor], family: Family, parameters: Tensor
) -> Tensor:
    """∇_φ Σ_z q_φ(z) f(z) over all codes of M ≤ 8 binary latents: the exact gradient, ``(P,)``.

    Args:
        f: maps codes ``(2ᴹ, M)`` to numbers ``(2ᴹ,)``.
        family: maps φ ``(1, P)`` to a distribution over codes ``(M,)``, such as
            ``Independent(Bernoulli(logits=φ), 1)``.
        parameters: φ ``(P,)``.

    Raises:
        ValueError: for M > 8, a family over other codes, or an f that returns another shape.
    """
    q, phi = _one_a_draw(family, parameters, 1)
    if len(q.event_shape) != 1:
        raise ValueError(f"family must have event shape (M,), got {tuple(q.event_shape)}")
    codes = binary_codes(q.event_shape[0]).to(phi)
    probabilities = q.log_prob(codes).exp()  # (2ᴹ,)
    if not abs(total := probabilities.sum().item() - 1) < 1e-4:
        raise ValueError(
            f"family must be over binary codes: the probabilities of all {len(codes)} must add up "
            f"to 1, got {total + 1:.4g}"
        )
    values = _values(f, codes, codes.shape[:1]).detach()
    return torch.autograd.grad((probabilities * values).sum(), phi)[0][0]


@torch.enable_grad()
def signal_to_noise(
    model: LatentVariableModel,
    parameters: Iterable[Tensor],
    x: Tensor,
    k: int,
    *,
    n_repeats: int = 2000,
    estimator: Estimator = "plain",
) -> float:
    """‖E g‖ / √(E ‖g − E g‖²) of the gradient g of L_k, a mean over x, by some of the parameters.

    The noise is the estimator's own; the signal, whose expectation both share, is taken from doubly
    reparameterised gradients: a mean of R plain ones is itself no nearer to 0 than its noise / √R,
    and an encoder's signal sinks below that. A ratio does not see a bias.

    Source: Rainforth et al. 2018, section 3, https://arxiv.org/abs/1802.04537.

    Args:
        model: with an `ExplicitPosterior`.
        parameters: of the model, ``model.encoder.parameters()`` say.
        x: data ``(N, D)``.
        k: codes for each point.
        n_repeats: number R of gradients, at least 200, in groups of R // 100: x is repeated, and
            the spread of the groups' means, times the group's size, is the variance of one.
        estimator: whose noise: "plain" or "dreg".

    Raises:
        ValueError: for what `importance_weighted_bound` refuses, no parameters, or R < 200.
    """
    check_instance(model, LatentVariableModel, "model")
    chosen = [*parameters]
    if not chosen:
        raise ValueError("parameters must be at least one of the model's, got none")
    check_tensor(x, "x")
    size = check_count(n_repeats, "n_repeats", 2 * GROUPS) // GROUPS
    many = x.repeat(size, *[1] * (x.ndim - 1))

    def gradients(estimator: Estimator) -> Tensor:  # (GROUPS, P)
        found = []
        for _ in range(GROUPS):
            bound = importance_weighted_bound(model, many, k, estimator=estimator).mean()
            found.append(torch.cat([g.flatten() for g in torch.autograd.grad(bound, chosen)]))
        return torch.stack(found)

    clean = gradients("dreg")
    noisy = clean if estimator == "dreg" else gradients(estimator)
    return (clean.mean(0).norm() / (size * noisy.var(0).sum()).sqrt()).item()


def _one_a_draw(family: Family, parameters: Tensor, n_samples: int) -> tuple[Distribution, Tensor]:
    """q of batch shape ``(S, ...)`` from a φ for each draw ``(S, ..., P)``, a leaf of the graph:
    one backward pass of a sum then gives each draw's own gradient.
    """
    check_floating(parameters, "parameters")
    if parameters.ndim == 0:
        raise ValueError(f"parameters must have shape (..., P), got {parameters!r}")
    n_samples = check_count(n_samples, "n_samples")
    phi = parameters.detach().repeat(n_samples, *[1] * parameters.ndim).requires_grad_()
    q = family(phi)
    check_instance(q, Distribution, "what family returns")
    if q.batch_shape != phi.shape[:-1]:
        raise ValueError(
            f"family must map {tuple(phi.shape)} to batch shape {tuple(phi.shape[:-1])}, got "
            f"{tuple(q.batch_shape)}"
        )
    return q, phi


def _values(f: Callable[[Tensor], Tensor], z: Tensor, shape: torch.Size) -> Tensor:
    """f(z), once its shape is the draws'."""
    check_tensor(values := f(z), "what f returns")
    if values.shape != shape:  # (S, 1) times (S,) would be (S, S)
        raise ValueError(
            f"f must map {tuple(z.shape)} to {tuple(shape)}, got {tuple(values.shape)}"
        )
    return values


def _baseline(baseline: Baseline, values: Tensor, n_parameters: int) -> Tensor | float:
    """b, for ``(S, 1)`` values and ``(S, P)`` scores."""
    if baseline is None:
        return 0.0
    if isinstance(baseline, str):
        if baseline != "leave_one_out":
            raise ValueError(f"baseline must be a number or 'leave_one_out', got {baseline!r}")
        others = check_count(len(values), "n_samples", 2) - 1
        return ((values.sum(0) - values) / others)[..., None]
    if isinstance(baseline, Tensor) and baseline.ndim > 0:
        if baseline.shape != (n_parameters,) or not baseline.isfinite().all():
            raise ValueError(
                f"baseline must be finite, of shape ({n_parameters},), one for each parameter, "
                f"got {baseline.dtype} of shape {tuple(baseline.shape)}"
            )
        return baseline.detach()
    check_number(baseline, "baseline", or_negative=True)
    return float(baseline)
