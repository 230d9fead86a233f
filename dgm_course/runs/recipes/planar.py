"""A VAE whose Gaussian posterior is bent by planar flows, on MNIST binarised anew."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from dgm_course.data import binarise
from dgm_course.flows import PlanarFlow
from dgm_course.runs.recipe import Player, Recipe, Task, images
from dgm_course.runs.recipes.iwae import Bound
from dgm_course.vae import FlowPosterior, GaussianVAE, log_prob_by_importance


def build(settings: SimpleNamespace) -> Task:
    (train, _), levels = images("train", tiny=settings.tiny)
    (test, _), _ = images("test", tiny=settings.tiny)
    vae = GaussianVAE(train[0].numel(), settings.z_dim, settings.hidden, likelihood="bernoulli")
    model = FlowPosterior(vae, PlanarFlow(settings.z_dim, settings.flows))

    def evaluate(x: Tensor) -> dict[str, Tensor]:
        nats = -log_prob_by_importance(model, x, settings.samples).value
        return {"nats": nats, "bound": -model.elbo(x).elbo}

    size = train.shape[-2:]
    return Task(
        model,
        [
            Player(
                Bound(model, levels, lambda model, x: model.elbo(x).elbo),
                torch.optim.Adam(model.parameters()),
                lambda step: settings.learning_rate,
            )
        ],
        train,
        binarise(test, "stochastic", levels=levels, generator=0).flatten(1),
        evaluate,
        lambda n: model.sample(n, noise=False).unflatten(1, size),
        n_at_once=20,
    )


RECIPE = Recipe(
    "Rezende & Mohamed 2015, https://arxiv.org/abs/1505.05770",
    "85.10 nats (80 flows; maxout networks, RMSprop, annealed)",
    build,
    {"z_dim": 40, "hidden": 400, "flows": 80, "samples": 200, "steps": 500_000}
    | {"save_every": 5000, "log_every": 1000},
    {"steps": 200, "batch": 80, "z_dim": 8, "hidden": 64, "flows": 4, "samples": 20},
)
