"""Lecture 10's longer runs: what a flow in the posterior wins on digits, and layers of codes.

    python notebooks/results/better_posteriors.py                    # an hour of one core
    python notebooks/results/better_posteriors.py --only flow --seeds 1 --steps 50 --out try.npz

Rows that the file has already are kept: a run that was stopped goes on where it was.

Writes ``dgm_course/results/better_posteriors.npz``: averages over the test images of the digits,
binarised by a threshold, in nats; row i of an array ``(seeds, ...)`` is seed i. ``steps`` () is
how many each model was trained, in batches of 128.

Two latents, the encoder's Gaussian bent by a flow, ``flow/NAME/...`` with NAME "gaussian" (none),
"planar 4", "planar 8", "planar 8 shared" (by all x; the others' layers are each x's own), "iaf 2"
or "sylvester 4" (of 2 neurons):
``log_p`` (seeds,), exact by quadrature; ``elbo`` (seeds,), and ``elbo_error`` (seeds,), its
standard error: 0 where the ELBO, too, is by quadrature, which finely folded flows refuse;
``weights`` (seeds,), how many numbers are trained; ``seconds`` (seeds,), of one core, to train.

Layers of codes, ``layers/NAME/...`` with NAME "one", "one warm-up" (8 latents), "twelve" (12 in
one layer), "chain", "chain warm-up", "independent", "independent warm-up" (8 and 4) or "three
warm-up" (a chain of 8, 4 and 2); a warm-up lets the KL's weight rise from 0 to 1 over half of the
steps:
``log_p`` (seeds,) by 1000 importance samples, below log p(x) in expectation, and ``log_p_error``
(seeds,), the standard error; ``elbo`` and ``elbo_error`` (seeds,); ``kl`` (seeds, layers), those
of z1, z2, z3; ``weights`` and ``seconds`` (seeds,), as above.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from dgm_course.data import binarise, digits
from dgm_course.data.stored import RESULTS, save_results
from dgm_course.flows import AutoregressiveFlow, PlanarFlow, SylvesterFlow
from dgm_course.probability import Estimate
from dgm_course.training import fit, quick, seed_everything
from dgm_course.vae import (
    FlowPosterior,
    GaussianVAE,
    HierarchicalVAE,
    LatentVariableModel,
    annealed_beta,
    beta_elbo,
    elbo_by_quadrature,
    log_prob_by_importance,
    log_prob_by_quadrature,
)
from dgm_course.vae.hierarchical import PosteriorKind

STEPS = 2000
Row = dict[str, float | list[float]]
Model = TypeVar("Model", bound=LatentVariableModel)


def bent(
    *layers: PlanarFlow | AutoregressiveFlow | SylvesterFlow, amortised: bool = True
) -> FlowPosterior:
    return FlowPosterior(GaussianVAE(64, 2, likelihood="bernoulli"), *layers, amortised=amortised)


FLOWS: dict[str, Callable[[], LatentVariableModel]] = {
    "gaussian": lambda: GaussianVAE(64, 2, likelihood="bernoulli"),
    "planar 4": lambda: bent(PlanarFlow(2, 4)),
    "planar 8": lambda: bent(PlanarFlow(2, 8)),
    "planar 8 shared": lambda: bent(PlanarFlow(2, 8), amortised=False),
    "iaf 2": lambda: bent(AutoregressiveFlow(2, 2, 32, "noise", n_context=16)),
    "sylvester 4": lambda: bent(SylvesterFlow(2, 2, n_layers=4)),
}
# name -> the layers' dimensions, their posterior, and whether the KL's weight rises slowly
LAYERS: dict[str, tuple[tuple[int, ...], PosteriorKind, bool]] = {
    "one": ((8,), "independent", False),
    "one warm-up": ((8,), "independent", True),
    "twelve": ((12,), "independent", False),
    "chain": ((8, 4), "chain", False),
    "chain warm-up": ((8, 4), "chain", True),
    "independent": ((8, 4), "independent", False),
    "independent warm-up": ((8, 4), "independent", True),
    "three warm-up": ((8, 4, 2), "chain", True),
}


def binary(split: str) -> Tensor:
    return binarise(digits(split).images, "threshold", levels=17).flatten(1).float()


def train(make: Callable[[], Model], n_steps: int, seed: int, warm_up: bool) -> tuple[Model, Row]:
    """A model trained by its ELBO, and what is known of every one: its size and its seconds."""
    images = binary("train")
    seed_everything(seed)
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)

    def loss(step: int) -> Tensor:
        beta = annealed_beta(step, max(1, n_steps // 2)) if warm_up else 1.0
        return -beta_elbo(model.elbo(images[torch.randint(len(images), (128,))]), beta)

    start = time.process_time()
    fit(loss, optimizer, n_steps, scheduler=decay, progress=False)
    row: Row = {"seconds": time.process_time() - start}
    row["weights"] = sum(p.numel() for p in model.parameters())
    return model.requires_grad_(False), row


def by_draws(f: Callable[[], Tensor], n: int = 40) -> Estimate:
    """The mean over images of an average over 100 codes each, 40 times."""
    return Estimate.from_samples(torch.stack([f().mean() for _ in range(n)]))


def flow_row(name: str, n_steps: int, seed: int) -> Row:
    test = binary("test")
    model, row = train(FLOWS[name], n_steps, seed, warm_up=False)
    row["log_p"] = log_p_of(model, test)
    try:
        elbo = Estimate(elbo_by_quadrature(model, test, n=201).mean().item(), 0.0)
    except ValueError:  # folds finer than the nodes
        elbo = by_draws(lambda: model.elbo(test, 100).elbo)
    return row | {"elbo": elbo.value, "elbo_error": elbo.standard_error}


def log_p_of(model: LatentVariableModel, x: Tensor) -> float:
    """By as many nodes as it takes."""
    for n in (401, 601, 801):
        try:
            return log_prob_by_quadrature(model, x, n=n).mean().item()
        except ValueError as error:
            if n == 801 or "n must be larger" not in str(error):
                raise
    raise AssertionError


def layers_row(name: str, n_steps: int, seed: int) -> Row:
    sizes, kind, warm_up = LAYERS[name]
    test = binary("test")

    def make() -> HierarchicalVAE:
        return HierarchicalVAE(64, sizes, posterior=kind, likelihood="bernoulli")

    model, row = train(make, n_steps, seed, warm_up)
    log_p = log_prob_by_importance(model, test, 1000)
    terms = [model.terms(test, 100) for _ in range(40)]
    kl = torch.stack([torch.stack([*t.kl.values()]).mean(1) for t in terms])  # (40, L)
    elbo = Estimate.from_samples(torch.stack([t.reconstruction.mean() for t in terms]) - kl.sum(1))
    return row | {
        "log_p": log_p.value.mean().item(),
        "log_p_error": log_p.standard_error.square().sum().sqrt().item() / len(test),
        "elbo": elbo.value,
        "elbo_error": elbo.standard_error,
        "kl": kl.mean(0).tolist(),
    }


PARTS: dict[str, tuple[Iterable[str], Callable[[str, int, int], Row]]] = {
    "flow": (FLOWS, flow_row),
    "layers": (LAYERS, layers_row),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=RESULTS / "better_posteriors.npz")
    options = parser.parse_args()
    if quick():
        parser.error("what is stored needs full training; unset DGM_COURSE_QUICK")
    torch.set_num_threads(1)

    table = dict(np.load(options.out)) if options.out.exists() else {}
    if table.setdefault("steps", np.array(options.steps)) != options.steps:
        parser.error(f"{options.out} is of {table['steps']} steps: give another --out")
    todo = [
        (f"{part}/{name}", row_of, name, seed)
        for seed in range(options.seeds)
        for part in options.only
        for names, row_of in [PARTS[part]]
        for name in names
        if seed >= len(table.get(f"{part}/{name}/elbo", ()))
    ]
    for prefix, row_of, name, seed in (bar := tqdm(todo)):
        bar.set_description(f"{prefix}, seed {seed}")
        for key, value in row_of(name, options.steps, seed).items():
            old = [*table.get(f"{prefix}/{key}", ())]
            table[f"{prefix}/{key}"] = np.array([*old, value], np.float32)
        save_results(options.out, table)


if __name__ == "__main__":
    main()
