"""WGAN with gradient penalty on MNIST: five steps of the critic, then one of the generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from dgm_course.gan import (
    DCGANDiscriminator,
    DCGANGenerator,
    critic_loss,
    gradient_penalty,
    random_interpolates,
    wasserstein_distance,
)
from dgm_course.runs.recipe import Player, Recipe, Task, images


def layer_norm(n_channels: int) -> nn.Module:
    """Of an example alone: batch normalisation would mix the critic's slopes, and part ranks."""
    return nn.GroupNorm(1, n_channels)


class Loss(nn.Module):
    """A player's loss: what it trains is a part of it, and the other network is only known."""

    def __init__(self, trained: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.trained = trained
        self.known = (other,)  # in a tuple, out of sight of parameters()


class CriticLoss(Loss):
    """f(G(z)) − f(x) + λ (‖∇f‖ − 1)² between both."""

    def __init__(self, critic: nn.Module, generator: DCGANGenerator, weight: float) -> None:
        super().__init__(critic, generator)
        self.weight = weight

    def forward(self, real: Tensor) -> Tensor:
        critic, (generator,) = self.trained, self.known
        assert isinstance(generator, DCGANGenerator)
        with torch.no_grad():
            real = real.to(next(critic.parameters()))
            fake = draw(generator, len(real))
        penalty = gradient_penalty(critic, random_interpolates(real, fake))
        return critic_loss(critic(real), critic(fake)) + self.weight * penalty


class GeneratorLoss(Loss):
    """−f(G(z))."""

    trained: DCGANGenerator

    def forward(self, real: Tensor) -> Tensor:
        (critic,) = self.known
        with constant(critic):
            return -critic(draw(self.trained, len(real)))


def draw(generator: DCGANGenerator, n: int) -> Tensor:
    """n images with gradients, from torch's own generator."""
    weight = next(generator.parameters())
    return generator(torch.randn(n, generator.z_dim, dtype=weight.dtype, device=weight.device))


@contextmanager
def constant(network: nn.Module) -> Iterator[None]:
    """No graph is built towards the network's weights."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def build(settings: SimpleNamespace) -> Task:
    data = []
    for split in ("train", "test"):
        (grey, _), levels = images(split, tiny=settings.tiny)
        data.append(2 * grey.float() / (levels - 1) - 1)
    size = data[0].shape[-1]
    generator = DCGANGenerator(size, settings.z_dim, settings.features, norm=layer_norm)
    critic = DCGANDiscriminator(size, settings.features, norm=layer_norm)

    def player(name: str, objective: Loss, n_moves: int) -> Player:
        adam = torch.optim.Adam(objective.parameters(), betas=(0.0, 0.9))
        return Player(objective, adam, lambda step: settings.learning_rate, n_moves, name)

    def evaluate(x: Tensor) -> dict[str, Tensor]:
        x = x.to(next(critic.parameters()))
        fake = draw(generator, len(x))
        return {"gap": critic(x) - critic(fake), "real": x.flatten(1), "fake": fake.flatten(1)}

    def report(values: dict[str, Tensor]) -> dict[str, float]:
        real, fake = (values[name][:1000].double() for name in ("real", "fake"))
        distance = wasserstein_distance(real, fake).item()
        return {"critics_gap": values["gap"].mean().item(), "wasserstein_of_1000": distance}

    return Task(
        nn.ModuleDict({"generator": generator, "critic": critic}),
        [
            player("critic", CriticLoss(critic, generator, settings.penalty), settings.n_critic),
            player("generator", GeneratorLoss(generator, critic), 1),
        ],
        data[0],
        data[1],
        evaluate,
        lambda n: (draw(generator, n)[:, 0] + 1) / 2,
        report,
    )


RECIPE = Recipe(
    "Gulrajani et al. 2017, https://arxiv.org/abs/1704.00028",
    "none on MNIST",
    build,
    {"z_dim": 64, "features": 64, "penalty": 10.0, "n_critic": 5, "batch": 64}
    | {"learning_rate": 1e-4, "steps": 100_000},
    {"z_dim": 8, "features": 8, "batch": 40, "learning_rate": 3e-3, "steps": 60},
)
