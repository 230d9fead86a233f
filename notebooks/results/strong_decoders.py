"""Lecture 11's runs: what a code says when the decoder can say it too.

    python notebooks/results/strong_decoders.py               # about an hour of one core
    python notebooks/results/strong_decoders.py --only "deep map" "deep bias" --seeds 10
    python notebooks/results/strong_decoders.py --seeds 1 --steps 50 --out try.npz

Writes ``dgm_course/results/strong_decoders.npz`` after every run, and keeps what the file has. All
runs are on the digits, 17 levels, with 8 latents. Their names R:

- ``window 0``, ``window 1``, ``window 2``, ``window 7``: z as a map, and a decoder that sees so far
  round a pixel (7 is all that came before), by one masked convolution and 1×1 layers;
- ``deep map``, ``deep bias``: five masked 3×3 layers, z as a map, or as a bias, a label's way;
- ``window 0 bias``: the first of these with z as a bias;
- ``alone 1``, ``alone 2``, ``alone 7``, ``deep alone``: the same decoders without a code;
- ``placed 0``, ``placed 1``, ``placed 2``, ``placed 7``, ``deep placed``: without a code, but with
  a learned map in its place, the same for all images, from which a pixel knows where it is;
  ``deep bias placed``: ``deep bias`` with such a map beside z;
- ``annealed K``, K = 250, 500, 1000: ``window 7`` with a KL term whose weight rises from 0 to 1
  over the first K steps; ``deep bias annealed 500``: ``deep bias`` with the same;
- ``free L``, L = 0.25, 0.5, 1: ``window 7`` with L free nats for each latent; ``total L``, L = 2,
  4, 8: with L for all latents together; ``deep bias free 0.5``: ``deep bias`` with the first.

Of every run R, for S seeds (0, 1, …), means over the 355 test images, in nats:

- ``R/log_p`` (S,): log p(x) by importance samples; ``R/log_p_error`` (S,): the standard error that
  is due to these samples (0 where a decoder has no code: exact);
- ``R/elbo``, ``R/rate``, ``R/distortion`` (S,): elbo = −distortion − rate, rate the KL term;
- ``R/train_elbo`` (S,): the ELBO of the training images;
- ``R/digit`` (S,): how often a linear read-out of E z names the test digit;
- ``R/rmse`` (S,): root mean squared error, in levels, of E[x|z] at z = E z, an average of draws;
- ``R/active`` (S,): latents whose mean varies by more than 0.01;
- ``R/curve/rate``, ``R/curve/elbo`` (S, T): of the test images, while the run goes on, at
  ``R/curve/step`` (T,).

Of a decoder without a code there are ``log_p``, ``log_p_error`` and ``train_elbo`` alone, the last
being log p(x) of the training images. For the pictures, of seed 0: ``images`` (10, 8, 8) uint8, a
test image of each digit 0 … 9; and of the runs ``window …``, ``deep map``, ``deep bias``:
``R/draws`` (10, 8, 8, 8) uint8, eight draws of each image from its one z = E z, and ``R/expected``
(10, 8, 8) float16, the average of many such draws, in levels. ``steps`` () is the runs' length.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dgm_course.autoregressive import ImageModel, PixelCNN, WindowPixelCNN
from dgm_course.data import digits
from dgm_course.data.stored import RESULTS, save_results
from dgm_course.probability import log_mean_exp
from dgm_course.training import fit, quick, seed_everything
from dgm_course.vae import (
    PixelVAE,
    active_units,
    annealed_beta,
    beta_elbo,
    free_bits,
    kl_per_dimension,
)

Objective = Callable[[PixelVAE, Tensor, int], Tensor]
N_CONTEXT = 16  # features of the context at a pixel
N_CODES, N_DRAWS = 100, 32  # of each image: codes for log p(x), draws from one code
N_POINTS = 40  # of a curve, after the first


def elbo(model: PixelVAE, x: Tensor, step: int) -> Tensor:
    return model.elbo(x).elbo


def annealed(n_steps: int) -> Objective:
    """The ELBO, its KL term weighted by a number that rises to 1 over so many steps."""
    return lambda model, x, step: beta_elbo(model.elbo(x), annealed_beta(step, n_steps))


def free(threshold: float) -> Objective:
    """Free bits for each latent."""
    return lambda model, x, step: free_bits(model, x, threshold)


def total(threshold: float) -> Objective:
    """mean(reconstruction) − max(λ, mean KL): free bits for all latents together."""

    def objective(model: PixelVAE, x: Tensor, step: int) -> Tensor:
        terms = model.elbo(x)
        return terms.reconstruction.mean() - terms.kl.mean().clamp_min(threshold)

    return objective


class Placed(nn.Module):
    """An image model that knows where a pixel is: a learned map is added to its context."""

    n_levels, n_channels, n_context = 17, 1, N_CONTEXT

    def __init__(self, model: ImageModel) -> None:
        super().__init__()
        self.model, self.place = model, nn.Parameter(0.1 * torch.randn(N_CONTEXT, 8, 8))

    def log_prob(
        self, x: Tensor, labels: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        return self.model.log_prob(x, context=self.maps(len(x), context))

    def sample(
        self,
        n: int,
        size: tuple[int, int],
        labels: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        return self.model.sample(n, size, context=self.maps(n, context))

    def maps(self, n: int, context: Tensor | None) -> Tensor:
        return (0 if context is None else context) + self.place.expand(n, -1, -1, -1)


class Run(NamedTuple):
    """A decoder's window, None for five layers of 3×3; how z enters, None without a code."""

    window: int | None
    context: str | None
    objective: Objective = elbo
    placed: bool = False

    def decoder(self) -> ImageModel | Placed:
        n_context = None if self.context is None and not self.placed else N_CONTEXT
        model: ImageModel
        if self.window is None:
            model = PixelCNN(17, n_features=24, n_layers=5, n_context=n_context)
        else:
            model = WindowPixelCNN(17, window=self.window, n_features=24, n_context=n_context)
        return Placed(model) if self.placed else model


RUNS = {
    **{f"window {w}": Run(w, "map") for w in (0, 1, 2, 7)},
    "deep map": Run(None, "map"),
    "deep bias": Run(None, "bias"),
    "window 0 bias": Run(0, "bias"),
    **{f"alone {w}": Run(w, None) for w in (1, 2, 7)},
    "deep alone": Run(None, None),
    **{f"placed {w}": Run(w, None, placed=True) for w in (0, 1, 2, 7)},
    "deep placed": Run(None, None, placed=True),
    "deep bias placed": Run(None, "bias", placed=True),
    **{f"annealed {n}": Run(7, "map", annealed(n)) for n in (250, 500, 1000)},
    "deep bias annealed 500": Run(None, "bias", annealed(500)),
    **{f"free {v}": Run(7, "map", free(v)) for v in (0.25, 0.5, 1)},
    "deep bias free 0.5": Run(None, "bias", free(0.5)),
    **{f"total {v}": Run(7, "map", total(v)) for v in (2, 4, 8)},
}
MORE_SEEDS = {"deep map", "deep bias", "deep bias placed"}  # what the lecture compares
FEWER_SEEDS = ("annealed", "free", "total")
DRAWN = ("window", "deep map", "deep bias")


def vectors(split: str) -> Tensor:
    """The images as ``(N, 64)``."""
    return digits(split).images.flatten(1)


def train(
    model: nn.Module, loss: Callable[[int], Tensor], n_steps: int, each: Callable[[int], None]
) -> None:
    """Adam, its learning rate up to 1e-2 and down again; ``each`` looks on at every step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=n_steps)

    def watched(step: int) -> Tensor:
        each(step)
        return loss(step)

    fit(watched, optimizer, n_steps, scheduler=scheduler, max_grad_norm=1.0)
    each(n_steps)
    model.requires_grad_(False)


def alone(run: Run, n_steps: int) -> dict[str, float]:
    """A decoder without a code: log p(x) is exact."""
    x, model = digits("train").images, run.decoder()
    train(
        model,
        lambda step: -model.log_prob(x[torch.randint(len(x), (64,))]),
        n_steps,
        lambda step: None,
    )
    log_p, of_train = (model.log_prob(digits(s).images).mean().item() for s in ("test", "train"))
    return {"log_p": log_p, "log_p_error": 0.0, "train_elbo": of_train}


def with_code(run: Run, n_steps: int) -> tuple[PixelVAE, dict[str, np.ndarray | float]]:
    x, test = vectors("train"), vectors("test")
    model = PixelVAE(run.decoder(), (8, 8), context=run.context)
    curve: dict[str, list[float]] = {"step": [], "rate": [], "elbo": []}

    @torch.no_grad()
    def each(step: int) -> None:
        if step % max(1, n_steps // N_POINTS) == 0 or step == n_steps:
            with torch.random.fork_rng():  # so that whoever looks on changes nothing
                terms = model.elbo(test)
            for key, value in zip(curve, (step, terms.kl, terms.elbo), strict=True):
                curve[key].append(float(torch.as_tensor(value, dtype=torch.float64).mean()))

    def loss(step: int) -> Tensor:
        return -run.objective(model, x[torch.randint(len(x), (64,))], step)

    train(model, loss, n_steps, each)
    curves = {f"curve/{key}": np.array(values, np.float32) for key, values in curve.items()}
    return model, curves | measured(model)


@torch.no_grad()
def measured(model: PixelVAE) -> dict[str, float]:
    """What the docstring says of a run, as means over the test images."""
    test = vectors("test")
    q = model.encode(test)
    log_likelihood, log_w = [], []
    for _ in range(N_CODES // 10):  # ten codes at a time: the contexts of all would fill memory
        z = q.sample((10,))
        log_likelihood.append(model.log_likelihood(test, z))
        log_w.append(log_likelihood[-1] + model.prior.log_prob(z) - q.log_prob(z))
    weights = torch.cat(log_w).double()  # (codes, N)
    log_p = log_mean_exp(weights, 0)
    error = (weights - log_p).exp().std(0) / len(weights) ** 0.5  # (N,)
    distortion = -torch.cat(log_likelihood).mean().item()
    rate = kl_per_dimension(q).sum(1).mean().item()
    expected = expected_images(model, q.mean)
    return {
        "log_p": log_p.mean().item(),
        "log_p_error": error.square().sum().sqrt().item() / len(test),
        "elbo": -distortion - rate,
        "rate": rate,
        "distortion": distortion,
        "train_elbo": model.elbo(vectors("train"), 4).elbo.mean().item(),
        "digit": digits_read_off(model),
        "rmse": (expected - test).square().mean().sqrt().item(),
        "active": active_units(q.mean).sum().item(),
    }


@torch.no_grad()
def expected_images(model: PixelVAE, z: Tensor) -> Tensor:
    """E[x|z] ``(N, 64)``, as an average of draws."""
    draws = [model.decode(z).sample((8,)).float().mean(0) for _ in range(N_DRAWS // 8)]
    return torch.stack(draws).mean(0)


def digits_read_off(model: PixelVAE) -> float:
    """How many test digits a linear classifier of the codes' means names."""
    from sklearn.linear_model import LogisticRegression

    def means(split: str) -> np.ndarray:
        return model.encode(vectors(split)).mean.detach().numpy()

    reader = LogisticRegression(max_iter=2000).fit(means("train"), digits("train").labels.numpy())
    return float(reader.score(means("test"), digits("test").labels.numpy()))


def shown() -> Tensor:
    """The first test image of each digit, ``(10, 64)``."""
    labels = digits("test").labels
    return vectors("test")[[int((labels == d).nonzero()[0]) for d in range(10)]]


def pictures(model: PixelVAE) -> dict[str, np.ndarray]:
    """Eight draws of each shown image from its one z, and the average of many."""
    z = model.encode(shown()).mean.detach()
    draws = model.decode(z).sample((8,)).transpose(0, 1)  # (10, 8, 64)
    expected = model.decode(z).sample((256,)).float().mean(0)
    return {
        "draws": draws.view(10, 8, 8, 8).numpy().astype(np.uint8),
        "expected": expected.view(10, 8, 8).numpy().astype(np.float16),
    }


def one_seed(name: str, seed: int, n_steps: int) -> dict[str, np.ndarray | float]:
    """All that is stored of one run with one seed."""
    seed_everything(seed)
    run = RUNS[name]
    if run.context is None:
        return dict(alone(run, n_steps))
    model, found = with_code(run, n_steps)
    if seed == 0 and name.startswith(DRAWN) and run.objective is elbo:
        found |= pictures(model)
    return found


def n_seeds(name: str, seeds: int) -> int:
    if name in MORE_SEEDS:
        return max(seeds, 10) if seeds > 1 else 1
    return min(seeds, 2) if any(word in name for word in FEWER_SEEDS) else seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="of a remedy two, of the pair ten")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=RESULTS / "strong_decoders.npz")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    options = parser.parse_args()
    if quick():
        parser.error("what is stored needs full training; unset DGM_COURSE_QUICK")
    torch.set_num_threads(1)

    found: dict[str, np.ndarray] = dict(np.load(options.out)) if options.out.exists() else {}
    if "steps" in found and found["steps"] != options.steps:
        parser.error(f"{options.out} holds runs of {found['steps']} steps; give another --out")
    found |= {"steps": np.array(options.steps)}
    found |= {"images": shown().view(10, 8, 8).numpy().astype(np.uint8)}
    for name in options.only:
        for seed in range(len(found.get(f"{name}/log_p", ())), n_seeds(name, options.seeds)):
            for key, value in one_seed(name, seed, options.steps).items():
                whole = key in ("draws", "expected", "curve/step")
                before = [] if whole else [found[k] for k in [f"{name}/{key}"] if k in found]
                row = np.asarray(value) if whole else np.asarray(value)[None]
                found[f"{name}/{key}"] = np.concatenate([*before, row]) if before else row
            save_results(options.out, found)
            last = {k: found[f"{name}/{k}"][-1] for k in NAMED if f"{name}/{k}" in found}
            print(name, seed, *(f"{k} {v:.2f}" for k, v in last.items()), flush=True)


NAMED = ("log_p", "log_p_error", "elbo", "rate", "train_elbo", "digit", "rmse")

if __name__ == "__main__":
    main()
