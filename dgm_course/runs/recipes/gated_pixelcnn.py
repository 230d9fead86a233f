"""Gated PixelCNN beside PixelCNN: the same data, optimiser and budget."""

from __future__ import annotations

from types import SimpleNamespace

from dgm_course.autoregressive import GatedPixelCNN
from dgm_course.runs.recipe import Recipe, Task
from dgm_course.runs.recipes import pixelcnn


def build(settings: SimpleNamespace) -> Task:
    model = GatedPixelCNN(2, n_features=settings.features, n_layers=settings.layers)
    return pixelcnn.task_of(model, settings)


RECIPE = Recipe(
    "van den Oord et al. 2016, https://arxiv.org/abs/1606.05328",
    "none on MNIST",
    build,
    pixelcnn.SETTINGS,
    pixelcnn.TINY,
)
