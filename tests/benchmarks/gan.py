"""Lecture 16: a round of WGAN-GP beside a bare loop, and Wasserstein's distance beside SciPy's."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import torch
from scipy.stats import wasserstein_distance as scipys
from torch import Tensor, nn

from dgm_course.gan import (
    DCGANDiscriminator,
    DCGANGenerator,
    Player,
    critic_loss,
    game_steps,
    gradient_penalty,
    optimal_matching,
    random_interpolates,
    wasserstein_distance,
)
from tests.benchmarks.harness import Row, in_turn

N, N_CRITIC, WEIGHT = 64, 5, 10.0


def adam(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), 2e-4, betas=(0.0, 0.9))


def ours(g: nn.Module, f: nn.Module, data: Tensor) -> Callable[[], object]:
    def of_critic(step: int) -> Tensor:
        real, fake = data[torch.randint(len(data), (N,))], g(torch.randn(N, 16))
        penalty = gradient_penalty(f, random_interpolates(real, fake))
        return critic_loss(f(real), f(fake)) + WEIGHT * penalty

    players = Player(of_critic, adam(f)), Player(lambda step: -f(g(torch.randn(N, 16))), adam(g))
    steps = game_steps(*players, 10_000, n_critic=N_CRITIC)
    return lambda: next(steps)


def bare(g: nn.Module, f: nn.Module, data: Tensor) -> Callable[[], object]:
    """The loop as a textbook writes it, with both losses kept."""
    of_f, of_g = adam(f), adam(g)
    kept = []

    def step() -> None:
        for _ in range(N_CRITIC):
            real, fake = data[torch.randint(len(data), (N,))], g(torch.randn(N, 16)).detach()
            eps = torch.rand(N, 1, 1, 1)
            x = (eps * real + (1 - eps) * fake).requires_grad_()
            (slope,) = torch.autograd.grad(f(x).sum(), x, create_graph=True)
            penalty = ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()
            loss = f(fake).mean() - f(real).mean() + WEIGHT * penalty
            of_f.zero_grad()
            loss.backward()
            of_f.step()
        of_g.zero_grad()
        other = -f(g(torch.randn(N, 16))).mean()
        other.backward()
        of_g.step()
        kept.append((loss.item(), other.item()))

    return step


def rounds() -> list[Row]:
    """Five steps of the critic and one of the generator, 64 images of 16 x 16."""
    torch.manual_seed(0)
    g = DCGANGenerator(16)
    f = DCGANDiscriminator(16, norm=nn.Identity)
    data = torch.rand(1000, 1, 16, 16) * 2 - 1
    loops = {
        name: loop(copy.deepcopy(g), copy.deepcopy(f), data)
        for name, loop in (("ours", ours), ("bare", bare))
    }
    times = in_turn(loops, rounds=20, of_all=min)
    what = f"WGAN-GP: a round of {N_CRITIC} + 1 steps, {N} images of 16 x 16"
    return [Row(what, times["ours"], times["bare"], "a bare loop", 1.05)]


def distances() -> list[Row]:
    """100,000 samples on the line, and 1,000 in the plane."""
    torch.manual_seed(0)
    x, y = torch.randn(2, 100_000, dtype=torch.float64)
    one, other = x.numpy(), y.numpy()
    assert abs(wasserstein_distance(x, y).item() - scipys(one, other)) < 1e-12
    times = in_turn(
        {"ours": lambda: wasserstein_distance(x, y), "scipy": lambda: scipys(one, other)},
        rounds=20,
        of_all=min,
    )
    rows = [Row("W1 of 100,000 samples on the line", times["ours"], times["scipy"], "SciPy", 0.5)]
    plane = torch.randn(2, 1000, 2)
    plane[1] += 1
    found = []
    for _ in range(3):
        start = time.perf_counter()
        optimal_matching(*plane)
        found.append(time.perf_counter() - start)
    return [*rows, Row("the best matching of 1,000 points in the plane", min(found), 2.0, "2 s", 1)]


SECTIONS = (rounds, distances)
