"""Glow on MNIST's grey levels, dequantised by uniform noise."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from dgm_course.flows import Dequantised, DiagonalGaussian, FlowModel, glow
from dgm_course.runs.recipe import Player, Recipe, Task, images


class NegativeBound(nn.Module):
    """−log P(n) by one draw of the noise that fills a level's interval."""

    def __init__(self, model: Dequantised) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return -self.model.log_prob_bound(x)


def build(settings: SimpleNamespace) -> Task:
    (train, _), levels = images("train", tiny=settings.tiny)
    (test, _), _ = images("test", tiny=settings.tiny)
    channels, height, width = train.shape[1:]
    flow = glow((channels, height, width), 2, settings.flow_steps, settings.hidden)
    model = Dequantised(FlowModel(DiagonalGaussian(train[0].numel()), flow), levels)
    flow.initialise(model.dequantise(train[:256]))

    def sample(n: int) -> Tensor:
        return model.sample(n).unflatten(1, (height, width)) / (levels - 1)

    return Task(
        model,
        [
            Player(
                NegativeBound(model),
                torch.optim.Adam(model.parameters()),
                lambda step: settings.learning_rate * min(1, (step + 1) / settings.warm_up),
            )
        ],
        train,
        test,
        lambda x: {"bits_per_dim": model.bits_per_dim(x)},
        sample,
    )


RECIPE = Recipe(
    "Kingma & Dhariwal 2018, https://arxiv.org/abs/1807.03039",
    "1.05 bits/dim (as Grathwohl et al. 2019 report it, https://arxiv.org/abs/1810.01367)",
    build,
    {"flow_steps": 16, "hidden": 256, "warm_up": 5000, "steps": 200_000, "shards": 4},
    {"flow_steps": 2, "hidden": 16, "warm_up": 10, "steps": 100, "batch": 40},
)
