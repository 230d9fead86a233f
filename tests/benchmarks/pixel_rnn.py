"""Lecture 12: sampling with kept states beside full passes, a step, and skewing without a loop."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dgm_course.autoregressive import DiagonalBiLSTM, ImageModel, PixelCNN, RowLSTM, skew
from tests.benchmarks.harness import Row, in_turn
from tests.benchmarks.pixelcnn import SIDE, draw, some_full_passes

DIGITS = 17  # levels


def models() -> dict[type[ImageModel], ImageModel]:
    torch.manual_seed(0)
    return {family: family(DIGITS, n_features=20, n_layers=2) for family in LIMITS}


LIMITS = {RowLSTM: 1 / 40, DiagonalBiLSTM: 1 / 20}


@torch.no_grad()
def sampling() -> list[Row]:
    """16 images of 28 × 28 pixels, 17 levels, states of 20 features, 2 layers.

    The full passes are timed at 16 pixels spread over the image and multiplied.
    """
    rows = []
    for family, model in models().items():
        times = in_turn(
            {"ours": draw(model, SIDE), "16 passes": lambda m=model: some_full_passes(m)}, rounds=3
        )
        theirs = times["16 passes"] * SIDE * SIDE / 16
        what = f"{family.__name__}: sampling 16 images of 28 x 28, kept states"
        rows.append(Row(what, times["ours"], theirs, "a full pass for each pixel", LIMITS[family]))
    return rows


def linear() -> list[Row]:
    rows = []
    for family, model in models().items():
        times = in_turn({side: draw(model, int(side)) for side in ("14", "28")}, rounds=3)
        what = f"{family.__name__}: sampling 28 x 28, four times the pixels"
        rows.append(Row(what, times["28"], 4 * times["14"], "4 times 14 x 14", 1.25))
    return rows


def training_step() -> list[Row]:
    """A batch of 64 digits; the rows that follow one another are what a recurrent model costs."""
    torch.manual_seed(0)
    x = torch.randint(DIGITS, (64, 1, 8, 8))

    def step(model: ImageModel) -> Callable[[], None]:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

        def take() -> None:
            optimizer.zero_grad()
            (-model.log_prob(x)).mean().backward()
            optimizer.step()

        return take

    plain = PixelCNN(DIGITS, n_features=28, n_layers=5)  # as many open weights, 17 000
    steps = {family.__name__: step(model) for family, model in models().items()}
    times = in_turn({"PixelCNN": step(plain)} | steps, rounds=10)
    return [
        Row(f"{name}: training step, 64 digits", times[name], times["PixelCNN"], "PixelCNN", None)
        for name in steps
    ]


def skewing() -> list[Row]:
    x = torch.randn(16, 80, SIDE, SIDE)

    def row_by_row() -> Tensor:
        y = x.new_zeros(16, 80, SIDE, 2 * SIDE - 1)
        for i in range(SIDE):
            y[:, :, i, i : i + SIDE] = x[:, :, i]
        return y

    times = in_turn({"ours": lambda: skew(x), "theirs": row_by_row})
    return [Row("skew: (16, 80, 28, 28)", times["ours"], times["theirs"], "row by row", 1.1)]


SECTIONS = (sampling, linear, training_step, skewing)
