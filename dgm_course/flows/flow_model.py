"""A density out of a base and a bijection, and the two divergences that it is trained by."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from dgm_course.checks import check_count, check_number, check_tensor
from dgm_course.flows.bijection import Bijection


class DiagonalGaussian(nn.Module):
    """The learned base p(z) = N(μ, diag σ²), which starts as N(0, I).

    Args:
        dim: number of features D.

    Calling the module returns the distribution, of event shape ``(D,)``.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        dim = check_count(dim, "dim")
        self.mean = nn.Parameter(torch.zeros(dim))
        self.log_scale = nn.Parameter(torch.zeros(dim))

    def forward(self) -> Distribution:
        return Independent(Normal(self.mean, self.log_scale.exp()), 1)


class FlowModel(nn.Module):
    """p(x) = p(z) |det ∂f/∂x| at z = f(x): the density of x = g(z) for z from the base p(z).

    Source: Rezende & Mohamed 2015, equations 5 to 7, https://arxiv.org/abs/1505.05770.

    Args:
        base: the density of z, a ``torch.distributions`` object of event shape ``(D,)`` or a
            module that returns one when called (a learned base such as `DiagonalGaussian`). Only
            a module follows ``.to(...)`` and ``.double()``; make a plain distribution in the
            dtype and on the device of the weights.
        bijection: x = g(z), a `Bijection` of the same D.

    Raises:
        ValueError: if the base's event shape is not ``(D,)``.
    """

    def __init__(self, base: Distribution | nn.Module, bijection: Bijection) -> None:
        super().__init__()
        self._base = base
        self.bijection = bijection
        shapes = tuple(self.base.batch_shape), tuple(self.base.event_shape)
        if shapes != ((), (bijection.dim,)):
            raise ValueError(
                f"base must have batch shape () and event shape ({bijection.dim},), that of the "
                f"bijection, got {shapes[0]} and {shapes[1]}; "
                "torch.distributions.Independent makes batch into event dimensions"
            )

    @property
    def base(self) -> Distribution:
        """p(z) as a ``torch.distributions`` object."""
        if not isinstance(self._base, nn.Module):
            return self._base
        try:
            return self._base()
        except AttributeError as error:  # which nn.Module would take for a missing `base`
            raise RuntimeError(f"the learned base {self._base} raised {error!r}") from error

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) = log p(f(x)) + log|det ∂f/∂x| in nats: ``(N, D)`` to ``(N,)``."""
        z, log_det = self.bijection.inverse(x)
        return self.base.log_prob(z) + log_det

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """n draws x = g(z), shape ``(n, D)``, without gradients."""
        return self.bijection(self.base.sample((check_count(n, "n"),)))[0]

    def rsample_and_log_prob(self, n: int) -> tuple[Tensor, Tensor]:
        """n draws x = g(z), with gradients, and log p(x) = log p(z) − log|det ∂g/∂z|.

        The inverse is never needed: z is known. Shapes ``(n, D)`` and ``(n,)``, in nats.
        """
        base = self.base
        z = base.rsample((check_count(n, "n"),))
        x, log_det = self.bijection(z)
        return x, base.log_prob(z) - log_det


def forward_kl(model: FlowModel, x: Tensor) -> Tensor:
    """−log p(x) per example: its mean over data x ~ π is KL(π ‖ p) plus the entropy of π.

    Shapes: x ``(N, D)`` to nats ``(N,)``. Calls f, the bijection's `inverse`, and never g.
    """
    return -model.log_prob(x)


def reverse_kl(
    model: FlowModel, log_target: Callable[[Tensor], Tensor], n: int, beta: float = 1.0
) -> Tensor:
    """log p(x) − β log π̃(x) per sample x ~ p: at β = 1 its mean is KL(p ‖ π) − log Z.

    Source: Rezende & Mohamed 2015, equations 15 and 20, https://arxiv.org/abs/1505.05770.

    Args:
        model: the flow, sampled from.
        log_target: unnormalised log-density log π̃ = log π + log Z, ``(N, D)`` to nats ``(N,)``.
        n: number of samples.
        beta: weight of the target, annealed from a small value to 1 to let the flow spread first.

    Shapes: returns nats ``(n,)``. Calls g, the bijection's `forward`, and never f; needs no data.
    """
    check_number(beta, "beta", or_zero=True)
    x, log_prob = model.rsample_and_log_prob(n)
    check_tensor(target := log_target(x), "what log_target returns")
    if target.shape != log_prob.shape:  # (n, 1) would silently broadcast to (n, n)
        raise ValueError(
            f"log_target must map {tuple(x.shape)} to shape {tuple(log_prob.shape)}, got "
            f"{tuple(target.shape)}"
        )
    return log_prob - beta * target
