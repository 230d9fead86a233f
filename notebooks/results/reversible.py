"""Lecture 20's runs: an i-RevNet on the digits beside a ResNet of its size.

    python notebooks/results/reversible.py               # some three minutes of one core
    python notebooks/results/reversible.py --only i-RevNet --seeds 1
    python notebooks/results/reversible.py --seeds 1 --steps 20 --out try.npz

Writes ``dgm_course/results/reversible.npz`` after every training. What stands in the file is not
made again, unless ``--only`` asks for it. Images are in (0, 1); batches of 64, Adam, one cycle of
the learning rate up to 3e-3, no augmentation. Rows are seeds 0 … 4; the networks are

- ``i-RevNet``: `new_irevnet`, 8 reversible blocks in three stages, 64 features of 2 × 2 pixels;
- ``ResNet``: `ResNet`, a stem, residual blocks in three stages with strides between, as many
  numbers within 2 %, the same layers in a block.

Of each R of them:

- ``R/accuracy`` (5,): the share of the 355 test digits that are named rightly; ``R/train`` (5,): of
  the training digits;
- ``R/parameters``, ``R/seconds`` (5,): of one core, to train;
- ``R/loss`` (5, 50): the training loss in nats, means of a fiftieth each.

Of the i-RevNet also ``/back`` (5, 2): the largest |x̂ − x| over all pixels of all test digits, x̂
found from the features, in float32 and in float64; ``/weights``, float16: seed 0's parameters in
their order, then its floating buffers, with which it was measured.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from by_seed import Runs, as_float16, make, options
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from dgm_course.data import digits
from dgm_course.reversible import IRevNet
from dgm_course.training import seed_everything, training_steps

STEPS, BATCH, N_POINTS, SEEDS = 250, 64, 50, 5
(TRAIN, LABELS), (TEST, TEST_LABELS) = digits("train"), digits("test")
TRAIN, TEST = TRAIN / 16, TEST / 16


def new_irevnet() -> IRevNet:
    return IRevNet((1, 8, 8), 10, n_blocks=(3, 3, 2), n_hidden=(8, 16, 32))


class ResNet(nn.Module):
    """Logits of 8 × 8 images: residual blocks of c channels, twice as many after each stride."""

    def __init__(self, n_blocks: tuple[int, ...] = (6, 5, 3), n_channels: int = 8) -> None:
        super().__init__()
        c, layers = n_channels, [nn.Conv2d(1, n_channels, 3, padding=1)]
        for i, n in enumerate(n_blocks):
            if i:
                layers += [nn.Conv2d(c, 2 * c, 3, 2, padding=1)]
                c *= 2
            layers += [Residual(c) for _ in range(n)]
        self.layers = nn.Sequential(*layers, nn.BatchNorm2d(c), nn.ReLU())
        self.projection = nn.Linear(c, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.layers(x).mean((2, 3)))


class Residual(nn.Module):
    """x + n(x), n the layers of an i-RevNet's f."""

    def __init__(self, c: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(c, c, 3, padding=1) for _ in range(2))
        self.network = nn.Sequential(first, nn.BatchNorm2d(c), nn.ReLU(), second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.network(x)


def train(model: nn.Module, n_steps: int, lr: float = 3e-3) -> list[float]:
    """The losses of the steps; the model is in eval afterwards."""
    adam = torch.optim.Adam(model.parameters(), lr=lr)
    cycle = torch.optim.lr_scheduler.OneCycleLR(adam, lr, total_steps=n_steps)
    model.train()

    def loss(step: int) -> Tensor:
        i = torch.randint(len(TRAIN), (BATCH,))
        return cross_entropy(model(TRAIN[i]), LABELS[i], reduction="none")

    steps = training_steps(loss, adam, n_steps, cycle)
    losses = [*tqdm(steps, total=n_steps, unit="step", leave=False)]
    model.eval().requires_grad_(False)
    return losses


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> np.ndarray:
    return (model(images).argmax(1) == labels).double().mean().numpy()


def back(model: IRevNet) -> np.ndarray:
    """How far test digits come back from their features, in float32 and in float64."""
    errors = []
    for dtype in (torch.float32, torch.float64):
        model, x = model.to(dtype), TEST.to(dtype)
        errors.append((model.inverse(model.features(x)) - x).abs().max().item())
    return np.array(errors)


def row(name: str, seed: int, n_steps: int) -> dict[str, np.ndarray]:
    """One training, and all that is measured of it."""
    seed_everything(seed)
    model = new_irevnet() if name == "i-RevNet" else ResNet()
    start = time.process_time()
    losses = train(model, n_steps)
    found = {"seconds": np.array(time.process_time() - start)}
    if name == "i-RevNet" and seed == 0:
        found["weights"] = as_float16(model)
    parts = np.array_split(np.array(losses), N_POINTS)
    found |= {
        "accuracy": accuracy(model, TEST, TEST_LABELS),
        "train": accuracy(model, TRAIN, LABELS),
        "parameters": np.array(sum(p.numel() for p in model.parameters())),
        "loss": np.array([part.mean() for part in parts if len(part)]),
    }
    return found | ({"back": back(model)} if isinstance(model, IRevNet) else {})


def main() -> None:
    runs: Runs = {
        name: (lambda seed, n_steps, name=name: row(name, seed, n_steps), SEEDS)
        for name in ("i-RevNet", "ResNet")
    }
    make(options(__doc__, "reversible", runs, STEPS), runs, whole=("weights",))


if __name__ == "__main__":
    main()
