"""PixelCNN on MNIST binarised once, by a draw of our own.

Published values are for the binarisation that Larochelle & Murray drew in 2011; another draw is
another data set, if from the same distribution.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from dgm_course.autoregressive import PixelCNN
from dgm_course.autoregressive.image_model import ImageModel
from dgm_course.data import binarise
from dgm_course.runs.recipe import Player, Recipe, Task, images


class NegativeLogLikelihood(nn.Module):
    """−log p(x)."""

    def __init__(self, model: ImageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return -self.model.log_prob(x)


def task_of(model: ImageModel, settings: SimpleNamespace) -> Task:
    """Maximum likelihood of an image model of two levels."""
    parts = []
    for seed, split in enumerate(("train", "test")):
        (grey, _), levels = images(split, tiny=settings.tiny)
        parts.append(binarise(grey, "stochastic", levels=levels, generator=seed).long())
    train, test = parts
    height, width = train.shape[-2:]
    return Task(
        model,
        [
            Player(
                NegativeLogLikelihood(model),
                torch.optim.RMSprop(model.parameters()),
                lambda step: settings.learning_rate,
            )
        ],
        train,
        test,
        lambda x: {"nats": -model.log_prob(x)},
        lambda n: model.sample(n, (height, width))[:, 0].double(),
    )


def build(settings: SimpleNamespace) -> Task:
    return task_of(PixelCNN(2, n_features=settings.features, n_layers=settings.layers), settings)


SETTINGS = {"features": 64, "layers": 12, "batch": 16, "steps": 200_000}
TINY = {"features": 16, "layers": 4, "batch": 40, "steps": 150}

RECIPE = Recipe(
    "van den Oord, Kalchbrenner & Kavukcuoglu 2016, https://arxiv.org/abs/1601.06759",
    "81.30 nats (on Larochelle & Murray's binarisation)",
    build,
    SETTINGS,
    TINY,
)
