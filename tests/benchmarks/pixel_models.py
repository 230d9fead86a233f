"""Lecture 12: PixelCNN++ and PixelSNAIL: sampling by what is kept, and one level beside all."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dgm_course.autoregressive import ImageModel, PixelCNNPlusPlus, PixelSNAIL
from tests.benchmarks.harness import Row, in_turn
from tests.benchmarks.pixelcnn import LEVELS, SIDE, N, draw, some_full_passes

LIMITS = {PixelSNAIL: 1 / 20, PixelCNNPlusPlus: 1 / 20}


@torch.no_grad()
def sampling() -> list[Row]:
    """16 images of 28 × 28 pixels, 17 levels, 20 features, 2 layers.

    The full passes are timed at 16 pixels spread over the image and multiplied.
    """
    rows = []
    for family, limit in LIMITS.items():
        torch.manual_seed(0)
        model = family(17, n_features=20, n_layers=2)
        times = in_turn(
            {"ours": draw(model, SIDE), "16 passes": lambda m=model: some_full_passes(m)}, rounds=3
        )
        theirs = times["16 passes"] * SIDE * SIDE / 16
        what = f"{family.__name__}: sampling 16 images of 28 x 28, kept features"
        rows.append(Row(what, times["ours"], theirs, "a full pass for each pixel", limit))
    return rows


def training_step() -> list[Row]:
    """256 levels: 15 numbers a pixel and its own level's mass, beside 256 numbers."""
    torch.manual_seed(0)
    model = PixelCNNPlusPlus(LEVELS, n_features=16, n_layers=1)
    softmax = PixelCNNPlusPlus(LEVELS, n_features=16, n_layers=1)
    softmax.head = nn.Conv2d(16, LEVELS, 1)
    x = torch.randint(LEVELS, (N, 1, SIDE, SIDE))

    def by_softmax() -> Tensor:
        logits = softmax.head(softmax.features(softmax.values_of(x)))
        return cross_entropy(logits, x[:, 0], reduction="none").sum((1, 2))

    def by_all_levels() -> Tensor:
        return cross_entropy(model(x), x, reduction="none").sum((1, 2, 3))

    def step(model: ImageModel, nats: Callable[[], Tensor]) -> Callable[[], None]:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

        def take() -> None:
            optimizer.zero_grad()
            nats().mean().backward()
            optimizer.step()

        return take

    ways = {"one": (model, lambda: -model.log_prob(x)), "all": (model, by_all_levels)}
    steps = {name: step(*way) for name, way in ways.items()}
    times = in_turn(steps | {"softmax": step(softmax, by_softmax)}, rounds=5)
    what = "PixelCNNPlusPlus: training step at 256 levels, "
    return [
        Row(what + "the observed one", times["one"], times["softmax"], "a softmax", 0.9),
        Row(what + "all of them", times["all"], times["softmax"], "a softmax", None),
    ]


SECTIONS = (sampling, training_step)
