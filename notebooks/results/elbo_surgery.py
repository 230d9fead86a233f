"""The two tables of lecture 4: the terms of the KL during training, and what an ideal prior buys.

    python notebooks/results/elbo_surgery.py             # about three minutes of one core
    python notebooks/results/elbo_surgery.py --seeds 1 --steps 300 --out try.npz

Writes ``dgm_course/results/elbo_surgery.npz``. Every model is a `GaussianVAE` with 64 hidden units
and fixed noise 0.2, trained on the digits (ink from 0 to 1) by Adam. ``steps`` (C,) are the
checkpoints; ``betas/4`` (seeds, C, 3) holds average KL, marginal KL and I[i, z] on the training
images for β = 4, two latents; ``latents/8`` (seeds, 5) holds, at the last step of a model with
eight latents and β = 1, those three and the rate of the test images under the standard normal and
under the aggregated posterior of the training images. All in nats, by Monte Carlo with 3 draws a
code; a standard error is below 0.03.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dgm_course.data import digits
from dgm_course.data.stored import RESULTS, save_results
from dgm_course.training import quick, seed_everything, training_steps
from dgm_course.vae import AggregatedPosterior, GaussianVAE, decompose_kl

BETAS = (0.25, 1, 4, 32)
LATENTS = (1, 2, 4, 8, 16)
DRAWS = 3


def ink(split: str) -> torch.Tensor:
    """The digits as rows of 64 pixels, 0 paper to 1 ink."""
    return digits(split).images.flatten(1).float() / 16


def train(x: torch.Tensor, z_dim: int, beta: float, seed: int, checkpoints: set[int]):
    """Yield (step, model) at each checkpoint of one run; step 0 is the untrained model."""
    seed_everything(seed)
    model = GaussianVAE(64, z_dim, noise_scale=0.2)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def loss(step: int) -> torch.Tensor:
        terms = model.elbo(x[torch.randint(len(x), (128,))])
        return beta * terms.kl - terms.reconstruction

    yield 0, model
    for step, _ in enumerate(training_steps(loss, optimizer, max(checkpoints)), 1):
        if step in checkpoints:
            yield step, model


@torch.no_grad()
def terms(model: GaussianVAE, x: torch.Tensor) -> list[float]:
    """Average KL, marginal KL, I[i, z]."""
    return [v.item() for v in decompose_kl(model.encode(x), n_samples=DRAWS, generator=0)[:3]]


@torch.no_grad()
def held_out(model: GaussianVAE, x: torch.Tensor, new: torch.Tensor) -> list[float]:
    """The rate of new images under N(0, I), and under the aggregated posterior of x."""
    prior = AggregatedPosterior(model.encode(x))
    rates = decompose_kl(model.encode(new), prior=prior, n_samples=DRAWS, generator=0)
    plain = decompose_kl(model.encode(new), generator=0)
    return [plain.analytic_average_kl.item(), rates.average_kl.item()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--out", type=Path, default=RESULTS / "elbo_surgery.npz")
    options = parser.parse_args()
    if quick():
        parser.error("the tables need full training; unset DGM_COURSE_QUICK")
    torch.set_num_threads(1)
    x, new = ink("train"), ink("test")
    steps = np.unique(np.r_[0, np.geomspace(10, options.steps, 13).round()]).astype(int)
    table: dict[str, np.ndarray] = {"steps": steps, "n": np.array(len(x))}
    runs = [(beta, 2) for beta in BETAS] + [(1, latents) for latents in LATENTS if latents != 2]
    for beta, latents in tqdm(runs, unit="model"):
        paths, ends = [], []
        for seed in range(options.seeds):
            paths.append([])
            at = set(steps.tolist()) if latents == 2 else {options.steps}
            for _, model in train(x, latents, beta, seed, at):
                paths[-1].append(terms(model, x))
            ends.append(paths[-1][-1] + held_out(model, x, new))
        if latents == 2:
            table[f"betas/{beta}"] = np.array(paths)
        if beta == 1:
            table[f"latents/{latents}"] = np.array(ends)
    save_results(options.out, table)


if __name__ == "__main__":
    main()
