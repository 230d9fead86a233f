"""Lecture 7's flows of the digits: dense ones, and the convolutional Glow and RealNVP.

    python notebooks/results/coupling_flows.py                # some minutes of one core
    python notebooks/results/coupling_flows.py --only glow
    python notebooks/results/coupling_flows.py --seeds 1 --steps 20 --out try.npz

Writes ``coupling_flows.npz`` beside this file, after every fit. For each of `FLOWS` it holds
``glow/bits`` (seeds,): the test images' mean bits per dimension, a bound by 16 draws of the noise,
in the order of the seeds; and ``glow/samples`` (50, 1, 8, 8): integers drawn from the first seed's
model. With ``--only`` the rest of the file is kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from dgm_course.data import digits
from dgm_course.flows import (
    Affine,
    Bijection,
    Chain,
    CouplingFlow,
    Dequantised,
    FlowModel,
    MultiScaleFlow,
    glow,
    image_orders,
    realnvp,
)
from dgm_course.training import fit, quick, seed_everything


def dense_realnvp() -> Bijection:
    return CouplingFlow(64, n_hidden=128, orders=image_orders(8, 8, 8), dropout=0.2)


def dense_nice() -> Bijection:
    orders = image_orders(8, 8, 8)
    scale = Affine(64)
    return Chain(scale, CouplingFlow(64, n_hidden=128, law="additive", orders=orders, dropout=0.2))


def conv_realnvp() -> Bijection:
    return realnvp((1, 8, 8), n_layers=4)


def conv_glow() -> Bijection:
    return glow((1, 8, 8), n_steps=6)


# What each is made by, and for how many steps it is trained.
FLOWS: dict[str, tuple[Callable[[], Bijection], int]] = {
    "dense_nice": (dense_nice, 800),
    "dense_realnvp": (dense_realnvp, 800),
    "realnvp": (conv_realnvp, 1500),
    "glow": (conv_glow, 1500),
}


def train(make: Callable[[], Bijection], seed: int, n_steps: int, batch: int = 128) -> Dequantised:
    """The model after ``n_steps`` of Adam; the logarithms of a diagonal layer learn faster."""
    seed_everything(seed)
    images = digits("train").images
    flow = make()
    model = Dequantised(FlowModel(standard_normal(64), flow), 17, low=-1, high=1)
    if isinstance(flow, MultiScaleFlow):
        flow.initialise(model.dequantise(images))
    fast = [p for m in flow.modules() if isinstance(m, Affine) for p in m.parameters()]
    slow = [p for p in flow.parameters() if all(p is not f for f in fast)]
    groups = [{"params": slow, "lr": 2e-3}] + [{"params": fast, "lr": 2e-2}] * bool(fast)
    optimizer = torch.optim.Adam(groups)

    def loss(step: int) -> Tensor:
        return -model.log_prob_bound(images[torch.randint(len(images), (batch,))])

    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    fit(loss, optimizer, n_steps, scheduler=scheduler, max_grad_norm=50.0)
    return model.eval()


def standard_normal(dim: int) -> Independent:
    return Independent(Normal(torch.zeros(dim), torch.ones(dim)), 1)


@torch.no_grad()
def held_out_bits(model: Dequantised) -> float:
    return model.bits_per_dim(digits("test").images, n_samples=16).mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="instead of each flow's own")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".npz"))
    parser.add_argument("--only", nargs="+", choices=FLOWS, default=list(FLOWS), metavar="NAME")
    options = parser.parse_args()
    if quick():
        parser.error("the table needs full training; unset DGM_COURSE_QUICK")
    torch.set_num_threads(1)
    found: dict[str, np.ndarray] = {}
    if options.out.exists():
        with np.load(options.out) as file:
            found = dict(file)
    for name in options.only:
        make, n_steps = FLOWS[name]
        bits = []
        for seed in range(options.seeds):
            model = train(make, seed, options.steps or n_steps)
            bits.append(held_out_bits(model))
            found[f"{name}/bits"] = np.array(bits)
            if seed == 0:
                samples = model.sample(50).reshape(-1, 1, 8, 8)
                found[f"{name}/samples"] = samples.numpy().astype(np.uint8)
            np.savez_compressed(options.out, **found)
            print(f"{name}, seed {seed}: {bits[-1]:.3f} bits")


if __name__ == "__main__":
    main()
