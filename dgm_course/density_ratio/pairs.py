"""Networks of pairs (x, z): one that draws z given x, and one that judges both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dgm_course.checks import check_count, check_points, check_tensor
from dgm_course.density_ratio.classifiers import Network


class ImplicitPosterior(nn.Module):
    """z = A ε + f(x, ε), ε ~ N(0, I): draws of q(z|x), whose density nobody knows.

    f is a network of two hidden layers. With no more noises than latents z covers a surface at
    best, and the ratio to a prior is infinite: take more.

    Source: Mescheder, Nowozin & Geiger 2017, section 3.1, https://arxiv.org/abs/1701.04722.

    Args:
        x_dim: D; z_dim: M latents.
        noise_dim: numbers in ε.
        hidden: neurons of each hidden layer.

    Shapes: x ``(N, D)``, to S draws for each, ``(S, N, M)``, differentiable in the weights.

    Example:
        >>> ImplicitPosterior(1, 2)(torch.zeros(3, 1), n_samples=5).shape
        torch.Size([5, 3, 2])
    """

    def __init__(self, x_dim: int, z_dim: int, noise_dim: int = 4, hidden: int = 64) -> None:
        super().__init__()
        x_dim, z_dim = check_count(x_dim, "x_dim"), check_count(z_dim, "z_dim")
        noise_dim, hidden = check_count(noise_dim, "noise_dim"), check_count(hidden, "hidden")
        self.x_dim, self.z_dim, self.noise_dim = x_dim, z_dim, noise_dim
        self.straight = nn.Linear(noise_dim, z_dim, bias=False)
        self.bent = nn.Sequential(
            nn.Linear(x_dim + noise_dim, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(),
            nn.Linear(hidden, z_dim),
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"x_dim={self.x_dim}, z_dim={self.z_dim}, noise_dim={self.noise_dim}"

    def forward(self, x: Tensor, n_samples: int = 1) -> Tensor:
        check_points(x, self.x_dim, self.straight.weight.dtype, "x")
        shape = (check_count(n_samples, "n_samples"), len(x))
        noise = torch.randn(*shape, self.noise_dim, dtype=x.dtype, device=x.device)
        given = x.expand(*shape, self.x_dim)
        return self.straight(noise) + self.bent(torch.cat([given, noise], -1))  # (S, N, M)


class PairCritic(nn.Module):
    """T(x, z), the log-odds of "the pair is q's" against "it is p's": a `Network` of (x, z, z²).

    The squares make the ratio of Gaussians an easy answer.

    Args:
        x_dim: D; z_dim: M.
        hidden: neurons of each hidden layer.

    Shapes: x ``(N, D)`` or ``(S, N, D)``, z ``(S, N, M)``, to nats ``(S, N)``.

    Example:
        >>> PairCritic(1, 2)(torch.zeros(3, 1), torch.zeros(5, 3, 2)).shape
        torch.Size([5, 3])
    """

    def __init__(self, x_dim: int, z_dim: int, hidden: int = 64) -> None:
        super().__init__()
        self.x_dim, self.z_dim = check_count(x_dim, "x_dim"), check_count(z_dim, "z_dim")
        self.network = Network(x_dim + 2 * z_dim, hidden)

    def extra_repr(self) -> str:
        return f"x_dim={self.x_dim}, z_dim={self.z_dim}"

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        check_tensor(z, "z")
        if z.ndim != 3 or z.shape[2] != self.z_dim:
            raise ValueError(f"z must have shape (S, N, {self.z_dim}), got {tuple(z.shape)}")
        check_tensor(x, "x")
        if x.shape[-1:] != (self.x_dim,) or x.shape[:-1] not in (z.shape[:2], z.shape[1:2]):
            raise ValueError(
                f"x must have shape (N, {self.x_dim}) or (S, N, {self.x_dim}) for the z (S, N, "
                f"{self.z_dim}) beside it, got {tuple(x.shape)} beside {tuple(z.shape)}"
            )
        pairs = torch.cat([x.expand(*z.shape[:2], self.x_dim), z, z.square()], -1)
        return self.network(pairs.flatten(0, 1)).view(z.shape[:2])  # (S, N)
