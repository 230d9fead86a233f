"""Lecture 12's longer runs: six pixel models of about equal size on the digits, and what they cost.

    python notebooks/results/pixel_models.py            # about ten minutes of one core
    python notebooks/results/pixel_models.py --only "Row LSTM" costs
    python notebooks/results/pixel_models.py --seeds 1 --steps 20 --out try.npz

Writes ``dgm_course/results/pixel_models.npz`` after every training. What stands in the file is not
made again, unless ``--only`` asks for it. NAME is one of `MODELS`; the training images are divided
into 1242 to train on and 200 to stop by: the weights kept are those with the fewest nats on them.

- ``steps`` (), and ``checked`` (C,), the steps at which the curves were taken;
- ``NAME/parameters`` ();
- ``NAME/nats`` (seeds, 355): −log p(x) in nats of each test image, float32;
- ``NAME/pixels`` (seeds, 64): the same, by pixel, averaged over the test images, float32;
- ``NAME/curves`` (seeds, 2, C): mean nats of the 200 images to stop by, and of the first 200 that
  were trained on, float32;
- ``NAME/stopped`` (seeds,): the step whose weights were kept;
- ``half`` (8, 8), a test digit, and ``NAME/completions`` (8, 8, 8): its lower half drawn eight
  times after its upper half, by the first seed's model, uint8;
- ``NAME/step`` (): seconds of one core for a training step of 64 digits, the median of 15;
- ``NAME/sampling`` (2, 2): seconds of one core to sample 16 images of 8 × 8 (first row) and of
  28 × 28 pixels, by the model's cache and by a full pass for each pixel (one pass, times pixels);
- ``no attention/…``, all but completions and costs, of a PixelSNAIL of that size without attention;
- ``PixelSNAIL/weights`` (P,): the first seed's, as float16, in the order of its parameters.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector
from tqdm import tqdm

from dgm_course.autoregressive import (
    DiagonalBiLSTM,
    GatedPixelCNN,
    ImageModel,
    PixelCNN,
    PixelCNNPlusPlus,
    PixelSNAIL,
    RowLSTM,
)
from dgm_course.data import digits
from dgm_course.data.stored import RESULTS, save_results
from dgm_course.training import quick, seed_everything, training_steps

LEVELS, STEPS, EVERY, N_STOP, PICKED = 17, 1000, 40, 200, 13

MODELS: dict[str, Callable[[], ImageModel]] = {
    "PixelCNN": lambda: PixelCNN(LEVELS, n_features=25, n_layers=5),
    "Gated PixelCNN": lambda: GatedPixelCNN(LEVELS, n_features=14, n_layers=5),
    "PixelCNN++": lambda: PixelCNNPlusPlus(LEVELS, n_features=15, n_layers=1),
    "Row LSTM": lambda: RowLSTM(LEVELS, n_features=17, n_layers=2),
    "Diagonal BiLSTM": lambda: DiagonalBiLSTM(LEVELS, n_features=18, n_layers=2),
    "PixelSNAIL": lambda: PixelSNAIL(LEVELS, n_features=19, n_layers=2),
}


class NoAttention(nn.Module):
    """Finds nothing: what a block would hear of far pixels is 0."""

    def forward(self, h: Tensor, values: Tensor) -> Tensor:
        return torch.zeros_like(h)


def no_attention() -> ImageModel:
    """A PixelSNAIL of about the same number of weights that is left with its convolutions."""
    model = PixelSNAIL(LEVELS, n_features=20, n_layers=2)
    for block in model.blocks:
        block.attention = NoAttention()
    return model


TRAINED = MODELS | {"no attention": no_attention}


class Trained(NamedTuple):
    """A model with the weights that were kept, and what its training showed on the way."""

    model: ImageModel
    curves: np.ndarray  # (2, C)
    stopped: int


def split() -> tuple[Tensor, Tensor]:
    """Images to train on and images to stop by, the same for every model and seed."""
    images = digits("train").images
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order[N_STOP:]], images[order[:N_STOP]]


def checked(n_steps: int) -> list[int]:
    """The steps after which a model is measured: every few, and the last."""
    return [*range(min(EVERY, n_steps), n_steps, EVERY), n_steps]


def train(make: Callable[[], ImageModel], seed: int, n_steps: int = STEPS) -> Trained:
    """Adam on batches of 64, learning rate up to 1e-2 and down again, stopped by 200 images."""
    seed_everything(seed)
    to_train, to_stop = split()
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=n_steps)

    def loss(step: int) -> Tensor:
        return -model.log_prob(to_train[torch.randint(len(to_train), (64,))])

    curves: list[list[float]] = []
    best, kept, stopped, when = float("inf"), model.state_dict(), 0, set(checked(n_steps))
    steps = training_steps(loss, optimizer, n_steps, scheduler, max_grad_norm=1.0)
    for step, _ in enumerate(tqdm(steps, total=n_steps, unit="step", leave=False), 1):
        if step in when:
            curves.append([mean_nats(model, images) for images in (to_stop, to_train[:N_STOP])])
            if curves[-1][0] < best:
                best, kept, stopped = curves[-1][0], copy.deepcopy(model.state_dict()), step
    model.load_state_dict(kept)
    return Trained(model.requires_grad_(False).eval(), np.array(curves).T, stopped)


@torch.no_grad()
def mean_nats(model: ImageModel, images: Tensor) -> float:
    return -model.log_prob(images).mean().item()


@torch.no_grad()
def nats_by_pixel(model: ImageModel, images: Tensor) -> Tensor:
    """−log p(xᵢ | x₍<ᵢ₎) of every pixel, ``(N, 64)``."""
    return cross_entropy(model(images), images, reduction="none").flatten(1)


def completions(model: ImageModel) -> np.ndarray:
    given = digits("test").images[PICKED].repeat(8, 1, 1, 1)
    given[:, :, 4:] = -1
    return model.sample(8, (8, 8), given=given, generator=0)[:, 0].numpy().astype(np.uint8)


def seconds(function: Callable[[], object], repeats: int) -> float:
    """The median time on one core."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times)


def costs(make: Callable[[], ImageModel]) -> tuple[float, np.ndarray]:
    """Seconds of a training step, and of sampling 16 images of two sizes in two ways, (2, 2)."""
    seed_everything(0)
    model, images = make(), digits("train").images[:64]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    steps = training_steps(lambda step: -model.log_prob(images), optimizer, 20)
    for _ in range(5):
        next(steps)
    of_step = seconds(lambda: next(steps), 15)
    return of_step, np.array([sampling_seconds(model, *how) for how in ((8, 5), (28, 1))])


@torch.no_grad()
def sampling_seconds(model: ImageModel, side: int, repeats: int) -> list[float]:
    """Of 16 images of that side, by the model's cache and by a full pass for each pixel."""
    x = torch.zeros(16, 1, side, side, dtype=torch.long)
    cached = seconds(lambda: model.sample(16, (side, side)), repeats)
    return [cached, seconds(lambda: model(x), 5) * side**2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=RESULTS / "pixel_models.npz")
    parser.add_argument("--only", nargs="+", choices=[*TRAINED, "costs"], metavar="NAME")
    options = parser.parse_args()
    if quick():
        parser.error("the table needs full training; unset DGM_COURSE_QUICK")
    torch.set_num_threads(1)

    found: dict[str, np.ndarray] = {}
    if options.out.exists():
        with np.load(options.out) as file:
            found = dict(file)
    for name in options.only or []:
        found = {k: v for k, v in found.items() if not belongs(k, name)}
    found |= {"steps": np.array(options.steps), "checked": np.array(checked(options.steps))}
    found["half"] = digits("test").images[PICKED, 0].numpy().astype(np.uint8)
    for name in [n for n in TRAINED if n in (options.only or TRAINED)]:
        for seed in range(len(found.get(f"{name}/nats", ())), options.seeds):
            found |= row_of(name, seed, options.steps, found)
            save_results(options.out, found)
            print(name, seed, found[f"{name}/nats"][-1].mean().round(2), flush=True)
    for name in MODELS:
        if f"{name}/step" not in found and "costs" in (options.only or ["costs"]):
            found[f"{name}/step"], found[f"{name}/sampling"] = map(np.array, costs(MODELS[name]))
            save_results(options.out, found)
            print(name, found[f"{name}/step"], found[f"{name}/sampling"].round(3), flush=True)


def belongs(key: str, name: str) -> bool:
    """Whether an array is one of those that ``--only name`` makes anew."""
    is_cost = key.endswith(("/step", "/sampling"))
    return is_cost if name == "costs" else key.startswith(f"{name}/") and not is_cost


def row_of(
    name: str, seed: int, n_steps: int, found: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What one more training adds to the model's arrays."""
    model, curves, stopped = train(TRAINED[name], seed, n_steps)
    nats = nats_by_pixel(model, digits("test").images)
    new = {"nats": nats.sum(1).numpy(), "pixels": nats.mean(0).numpy()}
    new |= {"curves": curves.astype(np.float32), "stopped": np.array(stopped)}
    arrays = {}
    for key, value in new.items():
        before = found.get(f"{name}/{key}")
        rows = value[None] if before is None else np.concatenate([before, value[None]])
        arrays[f"{name}/{key}"] = rows
    if seed == 0:
        weights = parameters_to_vector(model.parameters())
        arrays[f"{name}/parameters"] = np.array(len(weights))
        if name in MODELS:
            arrays[f"{name}/completions"] = completions(model)
        if name == "PixelSNAIL":
            arrays[f"{name}/weights"] = weights.numpy().astype(np.float16)
    return arrays


if __name__ == "__main__":
    main()
