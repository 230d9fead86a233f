"""Lecture 9's longer runs: which of fifty latents k codes use, and what k buys per second.

    python notebooks/results/gradients_and_bounds.py           # some minutes of one core
    python notebooks/results/gradients_and_bounds.py --seeds 1 --steps 50 --out try.npz

Writes ``dgm_course/results/gradients_and_bounds.npz``, for k = 1, 5 and 50 on the digits, binarised
by a threshold: ``fifty/K/activity`` (seeds, 50), the variance over the test images of each latent's
mean, sorted, the largest first; ``fifty/K/log_p`` (seeds,), their mean log p(x) in nats by 2000
importance samples; and, with two latents, ``steps`` (4,), ``two/K/seconds`` (seeds, 4), seconds of
one core that these steps took, and ``two/K/log_p`` (seeds, 4), exact by quadrature.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dgm_course.data import binarise, digits
from dgm_course.data.stored import RESULTS, save_results
from dgm_course.training import fit, quick, seed_everything
from dgm_course.vae import (
    GaussianVAE,
    activity,
    importance_weighted_bound,
    log_prob_by_importance,
    log_prob_by_quadrature,
)

KS = (1, 5, 50)
STEPS = 1500


def train(k: int, z_dim: int, n_steps: int, seed: int) -> tuple[GaussianVAE, float]:
    """A VAE trained by L_k as the lecture trains its own, and the seconds of one core."""
    images = binary("train")
    seed_everything(seed)
    vae = GaussianVAE(64, z_dim, likelihood="bernoulli")
    optimizer = torch.optim.Adam(vae.parameters(), lr=3e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)

    def loss(step: int) -> Tensor:
        return -importance_weighted_bound(vae, images[torch.randint(len(images), (64,))], k)

    start = time.process_time()
    fit(loss, optimizer, n_steps, scheduler=decay, progress=False)
    return vae.requires_grad_(False), time.process_time() - start


def binary(split: str) -> Tensor:
    return binarise(digits(split).images, "threshold", levels=17).flatten(1).float()


def fifty_latents(k: int, seed: int, n_steps: int) -> tuple[np.ndarray, float]:
    """The sorted activities ``(50,)`` of the test images' codes, and the mean of log p(x)."""
    vae, _ = train(k, 50, n_steps, seed)
    found = activity(vae.encode(binary("test")).mean).sort(descending=True).values
    log_p = log_prob_by_importance(vae, binary("test"), 2000).value.mean().item()
    return found.numpy(), log_p


def two_latents(k: int, seed: int, n_steps: list[int]) -> tuple[list[float], list[float]]:
    """Seconds and exact mean log p(x) of runs of so many steps each."""
    seconds, log_p = [], []
    for steps in n_steps:
        vae, taken = train(k, 2, steps, seed)
        seconds.append(taken)
        log_p.append(log_prob_by_quadrature(vae, binary("test"), n=801).mean().item())
    return seconds, log_p


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=RESULTS / "gradients_and_bounds.npz")
    options = parser.parse_args()
    if quick():
        parser.error("what is stored needs full training; unset DGM_COURSE_QUICK")
    torch.set_num_threads(1)

    steps = [options.steps // 4, options.steps // 2, options.steps, 2 * options.steps]
    found: dict[str, np.ndarray] = {"steps": np.array(steps)}
    for k in KS:
        fifty = [fifty_latents(k, seed, options.steps) for seed in range(options.seeds)]
        found[f"fifty/{k}/activity"] = np.stack([a for a, _ in fifty]).astype(np.float32)
        found[f"fifty/{k}/log_p"] = np.array([log_p for _, log_p in fifty])
        two = [two_latents(k, seed, steps) for seed in range(options.seeds)]
        found[f"two/{k}/seconds"], found[f"two/{k}/log_p"] = np.array(two).transpose(1, 0, 2)
        print(k, *(found[f"{name}/{k}/log_p"].round(2).tolist() for name in ("fifty", "two")))
    save_results(options.out, found)


if __name__ == "__main__":
    main()
