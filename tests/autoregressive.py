"""The table of autoregressive models, over which the tests of that family run every property."""

from __future__ import annotations

import torch
from torch import Tensor

from dgm_course.autoregressive import (
    DiagonalBiLSTM,
    GatedPixelCNN,
    ImageModel,
    IndependentPixels,
    PixelCNN,
    PixelCNNPlusPlus,
    PixelSNAIL,
    RowLSTM,
    Uniform,
    WindowPixelCNN,
)
from dgm_course.autoregressive.image_model import random_conditions

# name -> constructor. Odd feature counts: groups of channels of different sizes.
NETWORKS = {
    "plain": lambda: PixelCNN(3, n_features=8, n_layers=3),
    "plain-deep-7": lambda: PixelCNN(4, n_features=4, n_layers=4, kernel_size=7),
    "plain-one-layer": lambda: PixelCNN(2, n_features=5, n_layers=1, kernel_size=5),
    "plain-rgb": lambda: PixelCNN(2, n_channels=3, n_features=7, n_layers=3),
    "plain-two-channels": lambda: PixelCNN(
        5, n_channels=2, n_features=5, n_layers=2, kernel_size=5
    ),
    "gated": lambda: GatedPixelCNN(3, n_features=8, n_layers=3),
    "gated-7": lambda: GatedPixelCNN(4, n_features=4, n_layers=2, kernel_size=7),
    "gated-one-layer": lambda: GatedPixelCNN(2, n_features=2, n_layers=1, kernel_size=5),
    "gated-rgb": lambda: GatedPixelCNN(2, n_channels=3, n_features=7, n_layers=3),
    "gated-classes": lambda: GatedPixelCNN(3, n_features=5, n_layers=3, n_classes=4),
    "gated-rgb-classes": lambda: GatedPixelCNN(
        2, n_channels=3, n_features=9, n_layers=2, n_classes=2
    ),
    "plain-context": lambda: PixelCNN(3, n_features=6, n_layers=3, n_context=2),
    "plain-rgb-context": lambda: PixelCNN(
        2, n_channels=3, n_features=7, n_layers=2, kernel_size=5, n_context=1
    ),
    "gated-context": lambda: GatedPixelCNN(3, n_features=6, n_layers=3, n_context=2),
    "gated-rgb-classes-context": lambda: GatedPixelCNN(
        2, n_channels=3, n_features=9, n_layers=2, n_classes=2, n_context=3
    ),
    "row-lstm": lambda: RowLSTM(3, n_features=5, n_layers=2),
    "row-lstm-5": lambda: RowLSTM(4, n_features=3, n_layers=1, kernel_size=5),
    "row-lstm-rgb": lambda: RowLSTM(2, n_channels=3, n_features=4, n_layers=2),
    "row-lstm-two-channels": lambda: RowLSTM(5, n_channels=2, n_features=3, n_layers=1),
    "bilstm": lambda: DiagonalBiLSTM(3, n_features=5, n_layers=2),
    "bilstm-5": lambda: DiagonalBiLSTM(4, n_features=3, n_layers=1, kernel_size=5),
    "bilstm-rgb": lambda: DiagonalBiLSTM(2, n_channels=3, n_features=4, n_layers=2),
    "bilstm-two-channels": lambda: DiagonalBiLSTM(5, n_channels=2, n_features=5, n_layers=1),
    "plus-plus": lambda: PixelCNNPlusPlus(3, n_features=5, n_layers=1, n_components=3),
    "plus-plus-deep": lambda: PixelCNNPlusPlus(4, n_features=3, n_layers=2, n_components=1),
    "plus-plus-rgb": lambda: PixelCNNPlusPlus(2, n_channels=3, n_features=4, n_layers=1),
    "plus-plus-two-channels": lambda: PixelCNNPlusPlus(
        2, n_channels=2, n_features=3, n_layers=2, n_components=2
    ),
    "snail": lambda: PixelSNAIL(3, n_features=6, n_layers=2),
    "snail-two-heads": lambda: PixelSNAIL(4, n_features=6, n_layers=1, n_heads=2),
    "snail-rgb": lambda: PixelSNAIL(2, n_channels=3, n_features=7, n_layers=1),
    "snail-two-channels": lambda: PixelSNAIL(5, n_channels=2, n_features=6, n_layers=2, n_heads=3),
    "window-1": lambda: WindowPixelCNN(3, window=1, n_features=8, n_layers=2),
    "window-2-context": lambda: WindowPixelCNN(3, window=2, n_features=6, n_context=2),
    "window-rgb-context": lambda: WindowPixelCNN(
        2, window=1, n_channels=3, n_features=10, n_layers=2, n_context=1
    ),
}
# No pixel sees another.
CLOSED = {
    "window-0": lambda: WindowPixelCNN(3, window=0, n_features=6),
    "window-0-context": lambda: WindowPixelCNN(3, window=0, n_features=6, n_context=2),
    "window-0-rgb-context": lambda: WindowPixelCNN(
        2, window=0, n_channels=3, n_features=7, n_context=2
    ),
}
BASELINES = {
    "uniform": lambda: Uniform(3),
    "uniform-rgb": lambda: Uniform(2, 3),
}
MODELS = NETWORKS | CLOSED | BASELINES


def strong(model: ImageModel, seed: int = 0, scale: float = 2.0) -> ImageModel:
    """The model in float64 with weights far from the gentle initial ones."""
    torch.manual_seed(seed)
    model.double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(scale * p.std().clamp_min(0.1) * torch.randn_like(p))
    return model


def make(name: str, seed: int = 0) -> ImageModel:
    torch.manual_seed(seed)
    return strong(MODELS[name](), seed)


def fitting(model: ImageModel, size: tuple[int, int]) -> tuple[int, int]:
    """The size; for a model that halves its images, the next one of even sides."""
    if not isinstance(model, PixelCNNPlusPlus):
        return size
    return size[0] + size[0] % 2, size[1] + size[1] % 2


def images(model: ImageModel, n: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.n_levels, (n, model.n_channels, *size), generator=generator)


def conditions(
    model: ImageModel, n: int, size: tuple[int, int], seed: int = 0
) -> dict[str, Tensor | None]:
    """What the model is conditioned on: every class in turn, a random context."""
    generator = torch.Generator().manual_seed(seed)
    _, context = random_conditions(model, n, size, generator)
    labels = None if model.n_classes is None else torch.arange(n) % model.n_classes
    return {"labels": labels, "context": context}


def fit_independent(n_levels: int = 3, size: tuple[int, int] = (2, 3)) -> IndependentPixels:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(n_levels, (20, 1, *size), generator=generator)
    return IndependentPixels(x, n_levels).double()
