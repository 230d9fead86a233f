"""Lecture 5: sampling with kept features beside full passes, and what masking in forward costs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from dgm_course.autoregressive import GatedPixelCNN, ImageModel, MaskedConv2d, PixelCNN
from dgm_course.autoregressive.image_model import FullPass
from tests.benchmarks.harness import Row, in_turn

LEVELS, N, SIDE = 256, 16, 28


@torch.no_grad()
def sampling() -> list[Row]:
    """16 images of 28 × 28 pixels, 256 levels, 64 features, 6 layers.

    The full passes are timed at 16 pixels spread over the image and multiplied: a pass costs the
    same at every pixel.
    """
    rows = []
    for family, limit in ((PixelCNN, 1 / 30), (GatedPixelCNN, 1 / 15)):
        torch.manual_seed(0)
        model = family(LEVELS)
        times = in_turn(
            {"ours": draw(model, SIDE), "16 passes": lambda m=model: some_full_passes(m)}, rounds=3
        )
        theirs = times["16 passes"] * SIDE * SIDE / 16
        what = f"{family.__name__}: sampling 16 images of 28 x 28, kept features"
        rows.append(Row(what, times["ours"], theirs, "a full pass for each pixel", limit))
    return rows


def draw(model: ImageModel, side: int) -> Callable[[], object]:
    return lambda: model.sample(N, (side, side))


def some_full_passes(model: ImageModel) -> None:
    full = FullPass(model, N, (SIDE, SIDE), None)
    for place in range(0, SIDE * SIDE, SIDE * SIDE // 16):
        full.row, column = divmod(place, SIDE)
        p = torch.softmax(full.logits(column, 0), 1)
        full.put(column, 0, torch.multinomial(p, 1).squeeze(1))


def linear() -> list[Row]:
    """Four times as many pixels beside four times the time."""
    rows = []
    for family in (PixelCNN, GatedPixelCNN):
        torch.manual_seed(0)
        model = family(LEVELS)
        times = in_turn({side: draw(model, int(side)) for side in ("14", "28")}, rounds=3)
        what = f"{family.__name__}: sampling 28 x 28, four times the pixels"
        rows.append(Row(what, times["28"], 4 * times["14"], "4 times 14 x 14", 1.25))
    return rows


class Precomputed(nn.Module):
    """A convolution whose weights were masked beforehand."""

    def __init__(self, layer: MaskedConv2d) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.masked_weight().detach())
        self.bias = nn.Parameter(layer.bias.detach())
        self.padding = tuple(side // 2 for side in layer.mask.shape[2:])

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.weight, self.bias, padding=self.padding)


def training_step() -> list[Row]:
    rows = []
    for family in (PixelCNN, GatedPixelCNN):
        torch.manual_seed(0)
        masked, plain = family(LEVELS), family(LEVELS)
        for module in list(plain.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, MaskedConv2d):
                    setattr(module, name, Precomputed(child))
        x = torch.randint(LEVELS, (N, 1, SIDE, SIDE))

        def step(model: ImageModel, x: Tensor = x) -> Callable[[], None]:
            optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

            def take() -> None:
                optimizer.zero_grad()
                (-model.log_prob(x)).mean().backward()
                optimizer.step()

            return take

        times = in_turn({"ours": step(masked), "theirs": step(plain)}, rounds=5)
        what = f"{family.__name__}: training step, masks in forward"
        rows.append(Row(what, times["ours"], times["theirs"], "masked beforehand", 1.1))
    return rows


SECTIONS = (sampling, linear, training_step)
