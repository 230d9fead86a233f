"""Lecture 21's longer runs: a small denoiser of the digits over seeds, its bound, and guidance.

    python notebooks/results/diffusion.py            # some minutes of one core
    python notebooks/results/diffusion.py --only "linear velocity" guidance
    python notebooks/results/diffusion.py --seeds 1 --steps 200 --out try.npz

Writes ``dgm_course/results/diffusion.npz`` after every training. What stands in the file is not
made again, unless ``--only`` asks for it. Digits are of 8 × 8 pixels and 17 levels, read as −1 to
1; a row for each seed.

- ``SCHEDULE TARGET``, such as ``cosine velocity``: a dense denoiser. ``/nats`` (seeds, 4): the
  bound of a chain of 200 steps in nats, mean over the 355 test digits, with the variances
  "posterior", "forward" and "optimal" (estimated on training digits); then over as many training
  digits with the last. ``/error`` (seeds, 3): the standard errors over the test digits.
  ``/steps`` (seeds, 201): the terms with "optimal", the reconstruction, then from the step
  nearest the data up, then the prior's. ``/samples`` (40, 8, 8) of the first seed: by 50 steps of
  DDIM, levels, uint8;
- ``guidance``: a cosine denoiser of ε that is told the class: ``/weights`` (seeds, 6): w;
  ``/hit`` (seeds, 6): the share of 1,000 samples, 100 of each class, that a classifier, right on
  98.6 % of the test digits, takes for their class; ``/spread`` (seeds, 6): the mean
  distance of two samples of one class, beside that of two training digits, which is 1;
  ``/samples`` (6, 10, 8, 8) of the first seed: one of each class, from the same noise at each w.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from by_seed import Runs, make, options
from torch import Tensor
from tqdm import tqdm

from dgm_course.data import digits
from dgm_course.diffusion import (
    BoundTerms,
    Clamped,
    CosineSchedule,
    Denoiser,
    DenseNetwork,
    Guided,
    LinearSchedule,
    ddim,
    optimal_variances,
    time_grid,
    variational_bound,
)
from dgm_course.training import seed_everything, training_steps

LEVELS, STEPS, SIZE = 17, 1500, (1, 8, 8)
SCHEDULES = {"cosine": CosineSchedule(), "linear": LinearSchedule()}
CHAIN, DRAWING = time_grid(200), time_grid(50)
WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
TRAIN, TEST = digits("train"), digits("test")
INK = TRAIN.images.float() / 8 - 1


def train(schedule: str, target: str, seed: int, n_steps: int, n_classes: int = 0) -> Denoiser:
    """Adam on the simple loss, learning rate up and down again; labels are hidden one in ten."""
    seed_everything(seed)
    model = Denoiser(DenseNetwork(SIZE, 256, 4), SCHEDULES[schedule], target, n_classes)

    def loss(step: int) -> Tensor:
        i = torch.randint(len(INK), (128,))
        return model.loss(INK[i], TRAIN.labels[i] if n_classes else None)

    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2, fused=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=n_steps)
    steps = training_steps(loss, optimizer, n_steps, scheduler, max_grad_norm=10.0)
    for _ in tqdm(steps, total=n_steps, unit="step", leave=False):
        pass
    return model.eval().requires_grad_(False)


def as_levels(x: Tensor) -> np.ndarray:
    """−1 … 1 to the nearest of 0 … 16, ``(N, 8, 8)``."""
    return (8 * (x[:, 0] + 1)).round().clamp(0, 16).numpy().astype(np.uint8)


def alone(schedule: str, target: str, seed: int, n_steps: int) -> dict[str, np.ndarray]:
    model = train(schedule, target, seed, n_steps)
    clamped = Clamped(model, 1.0)
    v = optimal_variances(clamped, INK, CHAIN, generator=seed)

    def terms(images: Tensor, variances: str | Tensor) -> BoundTerms:
        return variational_bound(clamped, images, CHAIN, variances, levels=LEVELS, generator=seed)

    of = [terms(TEST.images, choice) for choice in ("posterior", "forward", v)]
    some = torch.randperm(len(INK), generator=torch.Generator().manual_seed(0))[: len(TEST.images)]
    nats = [found.nats.mean().item() for found in (*of, terms(TRAIN.images[some], v))]
    rows = [of[2].reconstruction[None], of[2].steps, of[2].prior[None]]
    found = {
        "nats": np.array(nats),
        "error": np.array([(f.nats.std() / len(f.nats) ** 0.5).item() for f in of]),
        "steps": torch.cat(rows).mean(1).numpy(),
    }
    if seed == 0:
        found["samples"] = as_levels(ddim(clamped, model.start(40, SIZE, 0), DRAWING))
    return found


def spread(x: Tensor, labels: Tensor) -> float:
    """The mean distance of two images of one class, over the classes."""
    apart = [torch.pdist(x[labels == k].flatten(1)).mean() for k in range(10)]
    return torch.stack(apart).mean().item()


def guidance(seed: int, n_steps: int) -> dict[str, np.ndarray]:
    from sklearn.svm import SVC

    judge = SVC(gamma=0.03).fit(INK.flatten(1).numpy(), TRAIN.labels.numpy())
    model, labels = train("cosine", "noise", seed, n_steps, 10), torch.arange(1000) % 10
    z, hits, spreads, pictures = model.start(1000, SIZE, seed), [], [], []
    for weight in WEIGHTS:
        guided = Clamped(Guided(model.given(labels), model, weight), 1.0)
        x = ddim(guided, z, DRAWING)
        hits.append(float((judge.predict(x.flatten(1).numpy()) == labels.numpy()).mean()))
        spreads.append(spread(x, labels) / spread(INK, TRAIN.labels))
        pictures.append(as_levels(x[:10]))
    found = {"weights": WEIGHTS, "hit": hits, "spread": spreads}
    return {key: np.array(value) for key, value in found.items()} | (
        {"samples": np.stack(pictures)} if seed == 0 else {}
    )


RUNS: Runs = {
    "cosine noise": (partial(alone, "cosine", "noise"), 3),
    "cosine velocity": (partial(alone, "cosine", "velocity"), 3),
    "linear velocity": (partial(alone, "linear", "velocity"), 3),
    "guidance": (guidance, 3),
}


def main() -> None:
    asked = options(__doc__, "diffusion", RUNS, STEPS)
    make(asked, RUNS, whole=("samples",))


if __name__ == "__main__":
    main()
