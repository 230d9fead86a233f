"""Models of one number, whose posteriors bend, part or close up, and are known by quadrature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from dgm_course.checks import (
    as_numbers,
    check_number,
    check_points,
    check_tensor,
)
from dgm_course.vae.flow_posterior import BentPosterior
from dgm_course.vae.latent_variable_model import ExplicitPosterior, LatentVariableModel
from dgm_course.vae.objectives import check_quadrature, log_prob_by_quadrature

Shape = Literal["ring", "banana", "two modes"]


class ToyModel(LatentVariableModel):
    """x = f(z) + σ ε, z ~ N(0, I): f(z) = ‖z‖ of a ring, z₂ − z₁² of a banana, z² of two modes.

    The first two have two latents, the last has one. q(z|x) is N(m, diag s²), the same at every x:
    a Gaussian for a single x, or where a flow starts from. It starts with the prior's variance.

    On the ring a Gaussian that starts around 0 stays there, 4.62 nats from p(z|x = 1.5), which is
    a local optimum: the best lies on one side, 1.54 nats away, and is found from (1, 0).

    Args:
        shape: "ring", "banana" or "two modes".
        noise_scale: σ.
        start: where m starts, M numbers; at 0 if none are given.

    Shapes: x ``(N, 1)``, z ``(..., M)``.

    Example:
        >>> log_prob_by_quadrature(ToyModel("ring"), torch.tensor([[1.5]]))
        tensor([-0.7351])
    """

    x_dim = 1

    def __init__(
        self, shape: Shape, noise_scale: float = 0.2, start: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        if shape not in get_args(Shape):
            raise ValueError(f"shape must be 'ring', 'banana' or 'two modes', got {shape!r}")
        check_number(noise_scale, "noise_scale")
        self.shape, self.noise_scale = shape, noise_scale
        self.z_dim = 1 if shape == "two modes" else 2
        mean = as_numbers([0.0] * self.z_dim if start is None else start, "start", torch.float32)
        if mean.shape != (self.z_dim,) or not mean.isfinite().all():
            raise ValueError(f"start must be {self.z_dim} finite numbers, got {start!r}")
        self.code_mean = nn.Parameter(mean.clone())
        self.code_log_scale = nn.Parameter(torch.zeros(self.z_dim))

    def extra_repr(self) -> str:
        return f"{self.shape!r}, noise_scale={self.noise_scale}"

    def encode(self, x: Tensor) -> Independent[Normal]:
        """N(m, diag s²) for each of the points ``(N, 1)``."""
        size = (len(self.as_numbers(x)), self.z_dim)
        scale = self.code_log_scale.exp()
        return Independent(Normal(self.code_mean.expand(size), scale.expand(size)), 1)

    def decode(self, z: Tensor) -> Distribution:
        """N(f(z), σ²): codes ``(..., M)`` to batch shape ``(...)`` and event shape ``(1,)``."""
        check_tensor(z, "z")
        if z.shape[-1:] != (self.z_dim,):
            raise ValueError(f"z must have shape (..., {self.z_dim}), got shape {tuple(z.shape)}")
        if self.shape == "ring":
            f = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
        elif self.shape == "banana":
            f = z[..., 1:] - z[..., :1] ** 2
        else:
            f = z**2
        return Independent(Normal(f, torch.full_like(f, self.noise_scale)), 1)

    def mean(self, z: Tensor) -> Tensor:
        """f(z): codes ``(N, M)`` to ``(N, 1)``."""
        return self.decode(z).mean

    def as_numbers(self, x: Tensor) -> Tensor:
        """The data ``(N, 1)``, or a ValueError if they are not in the weights' dtype."""
        check_points(x, 1, self.code_mean.dtype, "x")
        return x

    def log_posterior(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(z|x), with log p(x) by quadrature: ``(N, 1)``, ``(..., N, M)`` to ``(..., N)``."""
        log_joint = self.log_likelihood(x, z) + self.prior.log_prob(z)
        return log_joint - log_prob_by_quadrature(self, x)


@torch.no_grad()
def elbo_by_quadrature(
    model: LatentVariableModel, x: Tensor, n: int = 101, limit: float = 6.0
) -> Tensor:
    """The ELBO without an error of sampling: its integral over the noise of the encoder's Gaussian.

    log p(x) minus it, `log_prob_by_quadrature`'s, is KL(q(z|x) ‖ p(z|x)), also where q is bent by
    a flow: the integral runs over what goes into the flow, and needs no inverse.

    Args:
        model: one of one or two latents, with a Gaussian posterior or a `BentPosterior`.
        x: data ``(N, D)``.
        n: nodes an axis, odd. A flow that folds the plane finely may need a thousand, or draws.
        limit: half the width of the box, in standard deviations of the Gaussian.

    Shapes: returns nats ``(N,)``.

    Raises:
        ValueError: for another posterior, M > 2, or where every second node gives another value by
            more than 0.001 nats.
    """
    check_quadrature(model, n, limit)
    posterior = model.posterior(x)
    if isinstance(posterior, ExplicitPosterior):
        posterior = BentPosterior(posterior.q, (), model.as_numbers(x)[:, :0])
    elif not isinstance(posterior, BentPosterior):
        raise ValueError(f"model must have a Gaussian posterior, bent or not, got {posterior}")
    mean = posterior.mean
    ticks = torch.linspace(-limit, limit, n, dtype=mean.dtype, device=mean.device)
    noise = torch.cartesian_prod(*[ticks] * model.z_dim).reshape(-1, 1, model.z_dim)  # (G, 1, M)
    values = []
    for e in noise.split(max(1, 2_000_000 // (len(mean) * model.x_dim))):
        z, log_q = posterior.carry(e.expand(-1, len(mean), -1))  # (C, N, M)
        values.append(model.log_likelihood(x, z) + model.prior.log_prob(z) - log_q)
    grid = torch.cat(values).unflatten(0, [n] * model.z_dim)  # (n, N) or (n, n, N)
    value = _average(grid, ticks)
    coarse = _average(grid[::2] if model.z_dim == 1 else grid[::2, ::2], ticks[::2])
    if not (worst := (value - coarse).abs().max().item()) <= 1e-3:  # NaN, too
        raise ValueError(
            f"n must be larger than {n}: every second node gives the ELBO off by {worst:.2g} nats"
        )
    return value


def _average(f: Tensor, ticks: Tensor) -> Tensor:
    """E f(ε) of standard normals, one for each axis of f before the last."""
    for _ in range(f.ndim - 1):
        f = torch.tensordot((-0.5 * ticks**2).softmax(0), f, 1)
    return f
