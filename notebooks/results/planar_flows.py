"""The table of lecture 1: planar flows of K = 2, 8, 32 layers on the energies U1 to U4, 20 seeds.

    python notebooks/results/planar_flows.py             # about an hour of one core
    python notebooks/results/planar_flows.py --resume    # go on where it was stopped
    python notebooks/results/planar_flows.py --seeds 2 --steps 100 --out try.npz

Writes ``dgm_course/results/planar_flows.npz``, after every fit. It holds, for each energy and K,
``U1/8/weights`` (20, P): the flattened parameters of `model` for each seed, and ``U1/8/kl`` (20,):
KL(p ‖ π) in nats from 100,000 samples and the exact ln Z; NaN where a fit is still missing.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils import parameters_to_vector
from tqdm import tqdm

from dgm_course.data import ENERGIES, energy, log_normaliser
from dgm_course.data.stored import RESULTS, save_results
from dgm_course.flows import DiagonalGaussian, FlowModel, PlanarFlow, reverse_kl
from dgm_course.training import fit, quick, seed_everything

LAYERS = (2, 8, 32)


def model(n_layers: int) -> FlowModel:
    """The flow of the table: a learned diagonal Gaussian, then K planar layers."""
    return FlowModel(DiagonalGaussian(2), PlanarFlow(2, n_layers))


def train(name: str, n_layers: int, seed: int, n_steps: int) -> tuple[np.ndarray, float]:
    """Weights ``(P,)`` and KL in nats after ``n_steps`` of Adam, β annealed over the first half."""
    torch.set_num_threads(1)
    seed_everything(seed)
    flow = model(n_layers)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)

    def log_target(x: torch.Tensor) -> torch.Tensor:
        return -energy(name, x)

    def loss(step: int) -> torch.Tensor:
        return reverse_kl(flow, log_target, 256, beta=min(1.0, 0.01 + 2 * step / n_steps))

    fit(loss, optimizer, n_steps, scheduler=scheduler, progress=False)
    with torch.no_grad():
        kl = reverse_kl(flow, log_target, 100_000).double().mean().item() + log_normaliser(name)
        return parameters_to_vector(flow.parameters()).numpy(), kl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--resume", action="store_true", help="keep the fits that are there")
    parser.add_argument("--out", type=Path, default=RESULTS / "planar_flows.npz")
    options = parser.parse_args()
    if quick():
        parser.error("the table needs full training; unset DGM_COURSE_QUICK")

    table: dict[str, np.ndarray] = {"steps": np.array(options.steps)}
    for name in ENERGIES:
        for k in LAYERS:
            n_weights = sum(p.numel() for p in model(k).parameters())
            table[f"{name}/{k}/weights"] = np.full((options.seeds, n_weights), np.nan, np.float32)
            table[f"{name}/{k}/kl"] = np.full(options.seeds, np.nan)
    if options.resume and options.out.exists():
        with np.load(options.out) as done:
            if {k: v.shape for k, v in done.items()} != {k: v.shape for k, v in table.items()} or (
                done["steps"] != options.steps
            ):
                parser.error(f"{options.out} was made with other --seeds or --steps")
            table = dict(done)

    todo = [
        (name, k, seed)
        for name in ENERGIES
        for k in LAYERS
        for seed in np.flatnonzero(np.isnan(table[f"{name}/{k}/kl"])).tolist()
    ]
    with ProcessPoolExecutor(options.jobs) as pool:
        jobs = {pool.submit(train, *cell, options.steps): cell for cell in todo}
        for job in tqdm(as_completed(jobs), total=len(jobs), unit="fit"):
            name, k, seed = jobs[job]
            table[f"{name}/{k}/weights"][seed], table[f"{name}/{k}/kl"][seed] = job.result()
            save_results(options.out, table)


if __name__ == "__main__":
    main()
