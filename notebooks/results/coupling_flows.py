"""Lecture 7's longer runs: couplings on the checkerboard, and flows of the digits.

    python notebooks/results/coupling_flows.py            # some minutes of one core
    python notebooks/results/coupling_flows.py --seeds 1 --steps 100 --out try.npz

Writes ``dgm_course/results/coupling_flows.npz``. It holds, for L = 2, 4, 8, 16 and 32 affine
couplings, ``checkerboard/8/kl`` (seeds,): KL(π ‖ p) in nats from 50,000 test points and the exact
entropy ln 8; and ``checkerboard/8/density`` (60, 60), of the first seed, on the cells of
[−2.5, 2.5]²; and ``nice/samples``, ``glow/samples`` (20, 8, 8), digits drawn from NICE and from
the convolutional Glow of the table of likelihoods.

The flows of the digits are those of the table of likelihoods: `likelihoods.py` imports them.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from dgm_course.data import checkerboard, digits
from dgm_course.data.stored import RESULTS, save_results
from dgm_course.flows import (
    Affine,
    Bijection,
    Chain,
    CouplingFlow,
    Dequantised,
    FlowModel,
    MultiScaleFlow,
    forward_kl,
    glow,
    image_orders,
    realnvp,
)
from dgm_course.mixtures import GaussianMixture
from dgm_course.plots import grid_points
from dgm_course.training import fit, quick, seed_everything

LEVELS = 17
DEPTHS = (2, 4, 8, 16, 32)


def standard(dim: int) -> Distribution:
    return Independent(Normal(torch.zeros(dim), 1.0), 1)


# --- the checkerboard -----------------------------------------------------------------------


def fit_checkerboard(n_layers: int, seed: int, n_steps: int) -> tuple[float, np.ndarray]:
    """KL(π ‖ p) in nats and the density ``(60, 60)`` of a stack trained by maximum likelihood."""
    seed_everything(seed)
    model = FlowModel(standard(2), CouplingFlow(2, n_layers))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    data, test = checkerboard(50_000, seed=0), checkerboard(50_000, seed=1)

    def loss(step: int) -> Tensor:
        return forward_kl(model, data[torch.randint(len(data), (256,))])

    fit(loss, optimizer, n_steps, scheduler=scheduler)
    with torch.no_grad():
        kl = forward_kl(model, test).mean().item() - math.log(8)
        cells = torch.tensor(grid_points(2.5, 60), dtype=torch.float32)
        return kl, model.log_prob(cells).exp().numpy().reshape(60, 60)


# --- flows of the digits --------------------------------------------------------------------


def to_data() -> Affine:
    """The layer next to the data: every dequantised pixel has mean 0 and standard deviation 1."""
    cell, scale = 2 / LEVELS, Affine(64)  # the levels fill the interval from −1 to 1
    pixels = cell * (digits("train").images.flatten(1) + 0.5) - 1
    with torch.no_grad():
        scale.shift.copy_(pixels.mean(0))
        scale.log_scale.copy_((pixels.var(0) + cell**2 / 12).sqrt().log())
    return scale


def dense_realnvp() -> Bijection:
    couplings = CouplingFlow(64, n_hidden=128, orders=image_orders(8, 8, 8), dropout=0.2)
    return Chain(couplings, to_data())


def nice() -> Bijection:
    couplings = CouplingFlow(
        64, n_hidden=128, law="additive", orders=image_orders(8, 8, 8), dropout=0.2
    )
    return Chain(Affine(64), couplings, to_data())


def conv_realnvp() -> Bijection:
    return realnvp((1, 8, 8))


def conv_glow() -> Bijection:
    return glow((1, 8, 8), n_steps=6)


# What a flow is trained by: steps, the first learning rate, images a batch.
DENSE, CONVOLUTIONAL = (600, 4e-3, 256), (1500, 2e-3, 128)


def train(
    make: Callable[[], Bijection], seed: int, how: tuple[int, float, int] = DENSE
) -> Dequantised:
    """The model after training by Adam on batches of images with fresh noise."""
    seed_everything(seed)
    (n_steps, rate, batch), images = how, digits("train").images
    model = Dequantised(FlowModel(standard(64), make()), LEVELS, low=-1, high=1)
    if isinstance(model.flow.bijection, MultiScaleFlow):
        model.flow.bijection.initialise(model.dequantise(images))
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)

    def loss(step: int) -> Tensor:
        return -model.log_prob_bound(images[torch.randint(len(images), (batch,))])

    fit(loss, optimizer, n_steps, scheduler=scheduler, max_grad_norm=50)
    return model.requires_grad_(False).eval()


def gaussians(n_components: int, covariances: str, seed: int) -> tuple[Dequantised, int]:
    """A mixture of Gaussians fitted to eight draws of noise an image, and how many numbers it has.

    ``covariances`` is "full" or "diag".
    """
    seed_everything(seed)
    images = digits("train").images.flatten(1).repeat(8, 1)
    x = (images + torch.rand(images.shape)).double().numpy()
    fitted = GaussianMixture(n_components, covariance_type=covariances, random_state=seed).fit(x)
    arrays = (fitted.weights_, fitted.means_, fitted.covariances_)
    weights, means, spread = (torch.from_numpy(a) for a in arrays)
    if covariances == "full":
        components: Distribution = MultivariateNormal(means, spread)
    else:
        components = Independent(Normal(means, spread.sqrt()), 1)
    base = MixtureSameFamily(Categorical(weights), components)
    n_numbers = n_components * (1 + 64 + (64 * 65 // 2 if covariances == "full" else 64)) - 1
    identity = Affine(64).double().requires_grad_(False)
    return Dequantised(FlowModel(base, identity), LEVELS, high=float(LEVELS)), n_numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--out", type=Path, default=RESULTS / "coupling_flows.npz")
    options = parser.parse_args()
    if quick():
        parser.error("the table needs full training; unset DGM_COURSE_QUICK")
    torch.set_num_threads(1)
    table = {}
    for n_layers in DEPTHS:
        fits = [fit_checkerboard(n_layers, seed, options.steps) for seed in range(options.seeds)]
        table[f"checkerboard/{n_layers}/kl"] = np.array([kl for kl, _ in fits])
        table[f"checkerboard/{n_layers}/density"] = fits[0][1].astype(np.float16)
    for name, make, how in (("nice", nice, DENSE), ("glow", conv_glow, CONVOLUTIONAL)):
        drawn = train(make, 0, how).sample(20)
        table[f"{name}/samples"] = drawn.reshape(20, 8, 8).numpy().astype(np.uint8)
    save_results(options.out, table)


if __name__ == "__main__":
    main()
