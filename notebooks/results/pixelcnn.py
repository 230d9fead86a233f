"""Lecture 5's longer runs on the digits: three kinds of masks, and a class-conditional network.

    python notebooks/results/pixelcnn.py              # about half an hour of one core
    python notebooks/results/pixelcnn.py --only type_a
    python notebooks/results/pixelcnn.py --seeds 1 --steps 20 --out try.npz

Writes ``dgm_course/results/pixelcnn.npz``, after every fit. It holds ``plain/nats``,
``type_a/nats`` and ``gated/nats`` (seeds,): the test images' mean −log p(x) in nats after ``steps``
steps, in the order of the seeds; and ``conditional/weights`` (P,): the flattened weights of
`conditional`, masked and rounded to half precision. With ``--only`` the rest of the file is kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from dgm_course.autoregressive import GatedPixelCNN, ImageModel, MaskedConv2d, PixelCNN
from dgm_course.data import digits
from dgm_course.data.stored import RESULTS, save_results
from dgm_course.training import fit, quick, seed_everything


def plain() -> ImageModel:
    return PixelCNN(17, n_features=24, n_layers=5)


def type_a() -> ImageModel:
    """As `plain`, but no layer sees the pixel itself: type A throughout."""
    model = PixelCNN(17, n_features=24, n_layers=5)
    for layer in model.residual:
        layer.mask[:, :, 1, 1] = 0
    return model


def gated() -> ImageModel:
    return GatedPixelCNN(17, n_features=16, n_layers=5)


def conditional() -> ImageModel:
    """The network whose weights are stored: gated, with the ten digits as classes."""
    return GatedPixelCNN(17, n_features=24, n_layers=5, n_classes=10)


def train(make: Callable[[], ImageModel], seed: int, n_steps: int, batch: int = 64) -> ImageModel:
    """The model after ``n_steps`` of AdamW, learning rate up to 5e-3 and down again."""
    seed_everything(seed)
    x, labels = digits("train")
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=n_steps)

    def loss(step: int) -> Tensor:
        chosen = torch.randint(len(x), (batch,))
        return -model.log_prob(x[chosen], labels[chosen] if model.n_classes else None)

    fit(loss, optimizer, n_steps, scheduler=scheduler)
    return model


@torch.no_grad()
def held_out_nats(model: ImageModel) -> float:
    x, labels = digits("test")
    return -model.log_prob(x, labels if model.n_classes else None).mean().item()


@torch.no_grad()
def weights(model: ImageModel) -> np.ndarray:
    """All parameters ``(P,)`` as float16; what a mask closes is 0, which packs better."""
    for layer in model.modules():
        if isinstance(layer, MaskedConv2d):
            layer.weight.mul_(layer.mask)
    return parameters_to_vector(model.parameters()).numpy().astype(np.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--out", type=Path, default=RESULTS / "pixelcnn.npz")
    parser.add_argument("--only", choices=["plain", "type_a", "gated", "conditional"])
    options = parser.parse_args()
    if quick():
        parser.error("the table needs full training; unset DGM_COURSE_QUICK")

    found: dict[str, np.ndarray] = {}
    if options.only:
        with np.load(options.out) as file:
            found = dict(file)
    found["steps"] = np.array(options.steps)
    if options.only in (None, "conditional"):
        model = train(conditional, 0, 2 * options.steps)
        found["conditional/weights"] = weights(model)
        print(f"conditional: {held_out_nats(model):.2f} nats")
    for make in (plain, type_a, gated):
        if options.only in (None, make.__name__):
            name, nats = f"{make.__name__}/nats", []
            for seed in range(options.seeds):
                nats.append(held_out_nats(train(make, seed, options.steps)))
                found[name] = np.array(nats)
                save_results(options.out, found)
                print(f"{name}, seed {seed}: {nats[-1]:.2f}")


if __name__ == "__main__":
    main()
