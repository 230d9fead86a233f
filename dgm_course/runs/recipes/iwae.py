"""The importance-weighted autoencoder on MNIST, binarised anew each time it is seen."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from dgm_course.data import binarise
from dgm_course.runs.recipe import Player, Recipe, Task, images
from dgm_course.vae import (
    GaussianVAE,
    LatentVariableModel,
    active_units,
    importance_weighted_bound,
    log_prob_by_importance,
)

STAGES = 8  # of 3^i passes, i = 0 … 7: 3280 in all
PASSES = (3**STAGES - 1) // 2


class Bound(nn.Module):
    """−bound of images of grey levels, as its own binarisation turns out this time."""

    def __init__(
        self,
        model: LatentVariableModel,
        levels: int,
        bound: Callable[[LatentVariableModel, Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.model, self.levels, self.bound = model, levels, bound

    def forward(self, images: Tensor) -> Tensor:
        x = binarise(images, "stochastic", levels=self.levels, generator=torch.default_generator)
        return -self.bound(self.model, x.flatten(1))


def two_layers(n_in: int, hidden: int, n_out: int) -> nn.Sequential:
    """Two layers of tanh units, as Burda's networks have; weights as Glorot & Bengio draw them."""
    layers = [nn.Linear(n_in, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, n_out)]
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


def burdas_rate(settings: SimpleNamespace) -> Callable[[int], float]:
    """η 10^(−i/7) in stage i of 3^i passes; fewer steps than 3280 passes shorten all stages."""
    starts = [settings.steps * (3**i - 1) // (2 * PASSES) for i in range(STAGES)]
    return lambda step: settings.learning_rate * 10 ** (-(bisect_right(starts, step) - 1) / 7)


def burdas_task(
    settings: SimpleNamespace, bound: Callable[[LatentVariableModel, Tensor], Tensor]
) -> Task:
    """One stochastic layer, Adam with ε = 10⁻⁴, and log p(x) from ``samples`` codes at the end."""
    (train, _), levels = images("train", tiny=settings.tiny)
    (test, _), _ = images("test", tiny=settings.tiny)
    x_dim = train[0].numel()
    model = GaussianVAE(x_dim, settings.z_dim, settings.hidden, likelihood="bernoulli")
    model.encoder = two_layers(x_dim, settings.hidden, 2 * settings.z_dim)
    model.decoder = two_layers(settings.z_dim, settings.hidden, x_dim)

    def evaluate(x: Tensor) -> dict[str, Tensor]:
        return {
            "nats": -log_prob_by_importance(model, x, settings.samples).value,
            "code": model.encode(x).mean,
        }

    def report(values: dict[str, Tensor]) -> dict[str, float]:
        active = active_units(values["code"]).sum().item()
        return {"nats": values["nats"].mean().item(), "active_units": active}

    size = train.shape[-2:]
    objective = Bound(model, levels, bound)
    optimizer = torch.optim.Adam(model.parameters(), eps=1e-4)
    return Task(
        model,
        [Player(objective, optimizer, burdas_rate(settings))],
        train,
        binarise(test, "stochastic", levels=levels, generator=0).flatten(1),
        evaluate,
        lambda n: model.sample(n, noise=False).unflatten(1, size),
        report,
        n_at_once=20,
    )


def build(settings: SimpleNamespace) -> Task:
    return burdas_task(settings, lambda model, x: importance_weighted_bound(model, x, settings.k))


SETTINGS = {
    **{"k": 5, "z_dim": 50, "hidden": 200, "samples": 5000},
    **{"batch": 20, "steps": 3000 * PASSES, "save_every": 30_000, "log_every": 3000},
}
TINY = {"steps": 400, "learning_rate": 3e-3, "batch": 80, "z_dim": 8, "hidden": 64, "samples": 100}
PAPER = "Burda, Grosse & Salakhutdinov 2016, https://arxiv.org/abs/1509.00519"

RECIPE = Recipe(
    PAPER,
    "nats (active units): k = 1 86.76 (19), k = 5 85.54 (22), k = 50 84.78 (25)",
    build,
    SETTINGS,
    TINY,
)
