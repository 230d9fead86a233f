"""Why an ELBO is below log p(x): what the encoder loses, and what its family of posteriors."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dgm_course.checks import (
    check_count,
    check_instance,
    check_shape,
    check_tensor,
    unchecked_values,
)
from dgm_course.vae.aggregated_posterior import mean_and_scale
from dgm_course.vae.latent_variable_model import ExplicitPosterior, LatentVariableModel
from dgm_course.vae.objectives import log_prob_by_quadrature
from dgm_course.vae.surgery import hermite_nodes

SEARCH_NODES, NODES = 12, 24  # an axis: while q is looked for, and for the values that are returned
POINTS_AT_ONCE = 32
LEARNING_RATE = 0.1  # of offsets and log-scales, in units of the q that a round starts from
TOLERANCE = 1e-4  # nats: a round that gains less for every point is the last
MOST_ROUNDS = 20

Gaussian = tuple[Tensor, Tensor]  # m (N, M) and L (N, M, M)


class Gaps(NamedTuple):
    """log p(x) − ELBO = amortisation + diagonal + gaussian, of each example in nats ``(N,)``."""

    amortisation: Tensor
    """what the best diagonal Gaussian for this x has more than the encoder's"""
    diagonal: Tensor
    """what the best Gaussian has more than the best diagonal one"""
    gaussian: Tensor
    """what log p(x) has more than the best Gaussian"""

    @property
    def approximation(self) -> Tensor:
        """diagonal + gaussian: log p(x) less the best q of the encoder's family."""
        return self.diagonal + self.gaussian

    @property
    def total(self) -> Tensor:
        """log p(x) − ELBO, KL(q(z|x) ‖ p(z|x))."""
        return self.amortisation + self.approximation


def gaussian_elbo(
    model: LatentVariableModel, x: Tensor, mean: Tensor, scale_tril: Tensor, n_nodes: int = NODES
) -> Tensor:
    """E_q log p(x, z) + H[q] for a Gaussian q of each example's own, ``(N,)``, with gradients.

    The expectation is a Gauss–Hermite sum: exact for a linear Gaussian model, with no noise of
    draws elsewhere. What is learned may be each example's mean and scale, without an encoder.

    Args:
        model: any latent-variable model of this package with one or two latents.
        x: data ``(N, D)``.
        mean: m ``(N, M)``.
        scale_tril: L ``(N, M, M)``, lower triangular with a positive diagonal: q = N(m, L Lᵀ).
        n_nodes: nodes an axis.

    Raises:
        ValueError: for M > 2, or a mean or scale of another shape.
    """
    check_instance(model, LatentVariableModel, "model")
    check_tensor(mean, "mean")
    check_tensor(scale_tril, "scale_tril")
    shape = len(model.as_numbers(x)), model.z_dim
    if mean.shape != shape or scale_tril.shape != (*shape, model.z_dim):
        raise ValueError(
            f"mean and scale_tril must have shapes {shape} and {(*shape, model.z_dim)}, got "
            f"{tuple(mean.shape)} and {tuple(scale_tril.shape)}"
        )
    nodes, weights = hermite_nodes(n_nodes, model.z_dim, mean)
    z = mean + torch.einsum("nij,gj->gni", scale_tril, nodes)  # (G, N, M)
    energy = weights @ (model.log_likelihood(x, z) + model.prior.log_prob(z))
    log_scale = scale_tril.diagonal(dim1=1, dim2=2).log().sum(1)
    return energy + log_scale + 0.5 * model.z_dim * (1 + math.log(2 * math.pi))


def split_gap(
    model: LatentVariableModel,
    x: Tensor,
    *,
    log_evidence: Tensor | None = None,
    n_steps: int = 100,
) -> Gaps:
    """log p(x) − ELBO in three parts, with the best q for each x found from the encoder's by Adam.

    Source: Cremer, Li & Duvenaud 2018, section 3, https://arxiv.org/abs/1801.03558.

    Args:
        model: one with diagonal Gaussian posteriors of one or two latents.
        x: data ``(N, D)``.
        log_evidence: log p(x) ``(N,)`` from a closed form; by quadrature if none is given.
        n_steps: of Adam in a round; a next round starts from what the last one found, until one
            gains less than 0.0001 nats.

    Returns:
        Parts without gradients that add up to log p(x) − ELBO. The first two are at least 0, for
        the encoder's q and the best diagonal q are in the families that are searched.

    Raises:
        ValueError: for M > 2, other posteriors, a log_evidence of another shape, or where twenty
            rounds do not find the best q.
    """
    check_instance(model, LatentVariableModel, "model")
    n_steps = check_count(n_steps, "n_steps")
    with torch.no_grad():
        posterior = model.posterior(x)
    if not isinstance(posterior, ExplicitPosterior):
        raise ValueError(
            f"model must have diagonal Gaussian posteriors, got a {type(posterior).__name__}"
        )
    mean, scale = (v.to(next(model.parameters())) for v in mean_and_scale(posterior.q))
    if log_evidence is None:
        log_evidence = log_prob_by_quadrature(model, x)
    check_shape(log_evidence, (len(mean),), "log_evidence")
    parts = []
    for i in torch.arange(len(x), device=x.device).split(POINTS_AT_ONCE):
        q = mean[i], torch.diag_embed(scale[i])
        with torch.no_grad():
            encoders = gaussian_elbo(model, x[i], *q)
        diagonals, q = _best(model, x[i], q, encoders, n_steps, full=False)
        fulls, _ = _best(model, x[i], q, diagonals, n_steps, full=True)
        parts.append(
            torch.stack([diagonals - encoders, fulls - diagonals, log_evidence[i] - fulls])
        )
    return Gaps(*torch.cat(parts, 1))


def _best(
    model: LatentVariableModel, x: Tensor, q: Gaussian, value: Tensor, n_steps: int, *, full: bool
) -> tuple[Tensor, Gaussian]:
    """The largest ELBO of a Gaussian for each x, at least ``value``, which q has; and where."""
    for _ in range(MOST_ROUNDS):
        moved = _round(model, x, q, n_steps, full)
        with torch.no_grad():
            found = gaussian_elbo(model, x, *moved)
        better, gain = found > value, (found - value).max()
        value = torch.where(better, found, value)
        q = (
            torch.where(better[:, None], moved[0], q[0]),
            torch.where(better[:, None, None], moved[1], q[1]),
        )
        if gain < TOLERANCE:
            return value, q
    raise ValueError(
        f"n_steps must be larger than {n_steps}: after {MOST_ROUNDS} rounds one more still gains "
        f"{gain:.2g} nats"
    )


@torch.enable_grad()
def _round(
    model: LatentVariableModel, x: Tensor, q: Gaussian, n_steps: int, full: bool
) -> Gaussian:
    """Where Adam comes to from q: no coordinate, and so no example, waits for another."""
    mean, scale_tril = q
    offset, log_scale = torch.zeros_like(mean), torch.zeros_like(mean)
    below = torch.zeros_like(scale_tril)
    parameters = [offset, log_scale, below] if full else [offset, log_scale]
    optimizer = torch.optim.Adam([p.requires_grad_() for p in parameters], lr=LEARNING_RATE)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)

    def moved() -> Gaussian:
        inner = torch.diag_embed(log_scale.exp()) + below.tril(-1)
        return mean + torch.einsum("nij,nj->ni", scale_tril, offset), scale_tril @ inner

    with unchecked_values():
        for _ in range(n_steps):
            bound = gaussian_elbo(model, x, *moved(), SEARCH_NODES)
            # By these alone: the model's weights keep what gradients they have.
            for p, g in zip(parameters, torch.autograd.grad(-bound.sum(), parameters), strict=True):
                p.grad = g
            optimizer.step()
            decay.step()
    mean, scale_tril = moved()
    return mean.detach(), scale_tril.detach()
