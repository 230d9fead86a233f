"""Lecture 3's trained points: two phase diagrams, the ridge, the remedies, the digits.

    python notebooks/results/posterior_collapse.py             # a few minutes of one core
    python notebooks/results/posterior_collapse.py --only ridge digits

Writes ``dgm_course/results/posterior_collapse.npz``. The toy's models are linear and their numbers
are exact expectations under the Gaussian data, in nats:

- ``fixed/*``: β ``(P,)``, noise variance, rate of each of two latents ``(P, 2)``, activity;
- ``learned/*``: β, angle in radians, rate and activity ``(P,)``;
- ``ridge/axes/*``, ``ridge/rotated/*``: W ``(16, 2)``, ELBO, rate of 16 default starts;
- ``paths/*``: rate, W and ψ every 20 steps, for 10 angles (0° to 45°) and 6 β (1 to 2),
  ``(10, 6, 51)`` and ``(10, 6, 51, 2)``;
- ``remedies/NAME/*``: ELBO, rate, number of active units ``(8,)``, of 8 starts;
- ``digits/NAME/*``: test ELBO, rate, log p(x) by importance sampling, active units ``(3,)``.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal
from torch.func import functional_call, stack_module_state

from dgm_course.data import binarise, correlated_gaussian, digits
from dgm_course.data.stored import RESULTS, save_results
from dgm_course.training import fit, quick, seed_everything
from dgm_course.vae import (
    AutoregressiveVAE,
    GaussianVAE,
    LatentVariableModel,
    active_units,
    annealed_beta,
    beta_elbo,
    free_bits,
    importance_weighted_bound,
    log_prob_by_importance,
)
from dgm_course.vae.linear import expected_elbo_of, parameters_of

Objective = Callable[[LatentVariableModel, Tensor, int, Tensor], Tensor]
TOY_STEPS, BATCH = 1000, 256
FLOOR = 2 * math.log(0.3)  # of the log-variance, while β is below 1
DIGIT_STEPS = 800


class Objectively(nn.Module):
    """A module whose call is an objective of a model, as `functional_call` wants it."""

    def __init__(self, model: LatentVariableModel, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, x: Tensor, step: int, beta: Tensor) -> Tensor:
        return self.objective(self.model, x, step, beta).mean()


def train_together(
    models: list[LatentVariableModel],
    data: list[MultivariateNormal],
    objective: Objective,
    beta: Tensor,
    floor: float | None = None,
    lr: float = 0.05,
    n: int = BATCH,
) -> list[dict[str, Tensor]]:
    """Train models of one shape side by side, each on its data and with its β, in place.

    They share the standard normal draws behind data and codes, n points a step; what they start
    from is theirs. Returns all weights every 20 steps, from the start on.
    """
    weights, buffers = stack_module_state([Objectively(m, objective) for m in models])
    template = Objectively(copy.deepcopy(models[0]), objective)
    mean = torch.stack([d.mean for d in data])
    root = torch.stack([d.scale_tril for d in data])

    def value(w: dict[str, Tensor], b: dict[str, Tensor], x: Tensor, beta: Tensor, step: int):
        return functional_call(template, {**w, **b}, (x, step, beta))

    values = torch.vmap(value, in_dims=(0, 0, 0, 0, None), randomness="same")
    path: list[dict[str, Tensor]] = []

    def loss(step: int) -> Tensor:
        if floor is not None:
            with torch.no_grad():
                weights[next(k for k in weights if "noise" in k)].clamp_(min=floor)
        if step % 20 == 0:
            path.append({k: v.detach().clone() for k, v in weights.items()})
        x = mean[:, None] + torch.randn(n, 2) @ root.mT  # (models, N, 2)
        return -values(weights, buffers, x, beta, step).sum()

    optimizer = torch.optim.Adam(weights.values(), lr=lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, TOY_STEPS)
    fit(loss, optimizer, TOY_STEPS, scheduler=decay)
    for i, model in enumerate(models):
        state = {k.removeprefix("model."): v[i].detach() for k, v in {**weights, **buffers}.items()}
        model.load_state_dict(state)
    return [*path, {k: v.detach() for k, v in weights.items()}]


def beta_objective(model: LatentVariableModel, x: Tensor, step: int, beta: Tensor) -> Tensor:
    terms = model.elbo(x)
    return terms.reconstruction - beta * terms.kl  # beta_elbo checks a number, and this is traced


def fixed() -> dict[str, np.ndarray]:
    """(β, σ²) with fixed noise and two latents, on the rotated toy."""
    grid = [(b, v) for b in (0.25, 0.5, 1, 2, 4) for v in (0.25, 0.5, 1.5, 3, 6, 12)]
    toy = correlated_gaussian(angle=math.pi / 4)
    variance = toy.covariance_matrix.diagonal()
    seed_everything(0)
    models = [
        GaussianVAE(2, 2, 0, noise_scale=v**0.5).start_at(toy.mean, variance) for _, v in grid
    ]
    beta = torch.tensor([float(b) for b, _ in grid])
    train_together(models, [toy] * len(grid), beta_objective, beta, lr=0.1)
    activity = torch.stack([parameters_of(m).activity(toy) for m in models]).detach()
    rate = torch.stack([expected_elbo_of(m, toy).kl for m in models]).detach()
    return {
        "beta": beta.numpy(),
        "noise_variance": np.array([v for _, v in grid]),
        "rate": rate.numpy(),
        "activity": activity.sort(1, descending=True).values.numpy(),
    }


def learned() -> dict[str, np.ndarray]:
    """(β, angle) with learned diagonal noise and one latent."""
    grid = [
        (b, math.radians(a))
        for b in (1.02, 1.2, 1.4, 1.6, 1.9, 2.2)
        for a in (0, 7.5, 15, 22.5, 30, 37.5, 45)
    ]
    toys = [correlated_gaussian(angle=a) for _, a in grid]
    seed_everything(0)
    models = [
        GaussianVAE(2, 1, 0, noise="diagonal").start_at(t.mean, t.covariance_matrix.diagonal())
        for t in toys
    ]
    beta = torch.tensor([b for b, _ in grid])
    train_together(models, toys, beta_objective, beta)
    terms = [expected_elbo_of(m, t) for m, t in zip(models, toys, strict=True)]
    return {
        "beta": beta.numpy(),
        "angle": np.array([a for _, a in grid]),
        "rate": np.array([t.kl.item() for t in terms]),
    }


def ridge() -> dict[str, np.ndarray]:
    """Where 16 default starts end, with learned diagonal noise at β = 1."""
    found = {}
    for name, angle in (("axes", 0.0), ("rotated", math.pi / 4)):
        toy = correlated_gaussian(angle=angle)
        seed_everything(0)
        models = [GaussianVAE(2, 1, 0, noise="diagonal") for _ in range(16)]
        # The draws are shared: in small batches all 16 would miss the ridge to the same side.
        train_together(models, [toy] * 16, beta_objective, torch.ones(16), lr=0.1, n=4096)
        terms = [expected_elbo_of(m, toy) for m in models]
        weights = torch.stack([parameters_of(m).weight[:, 0] for m in models])
        found |= {
            f"{name}/weight": weights.detach().numpy(),
            f"{name}/elbo": np.array([t.elbo.item() for t in terms]),
            f"{name}/rate": np.array([t.kl.item() for t in terms]),
        }
    return found


def paths() -> dict[str, np.ndarray]:
    """(angle, β), learned diagonal noise: the way from one cold start, as the notebook trains."""
    angles, betas = [math.radians(5 * k) for k in range(10)], [1 + 0.2 * k for k in range(6)]
    toys = [correlated_gaussian(angle=a) for a in angles for _ in betas]
    models = []
    for t in toys:
        seed_everything(0)
        model = GaussianVAE(2, 1, 0, noise="diagonal")
        models.append(model.start_at(t.mean, t.covariance_matrix.diagonal()))
    beta = torch.tensor(betas * len(angles))
    way = train_together(models, toys, beta_objective, beta, lr=0.01, n=512)
    found: dict[str, list[np.ndarray]] = {"rate": [], "weight": [], "noise_variance": []}
    for i, (model, toy) in enumerate(zip(models, toys, strict=True)):
        for weights in way:
            state = {k.removeprefix("model."): v[i] for k, v in weights.items()}
            model.load_state_dict(state, strict=False)
            linear = parameters_of(model)
            found["rate"].append(linear.expected_elbo(toy).kl.detach().numpy())
            found["weight"].append(linear.weight[:, 0].detach().numpy().copy())
            found["noise_variance"].append(linear.noise_variance.detach().numpy().copy())
    shape = (len(angles), len(betas), len(way))
    return {k: np.reshape(v, (*shape, *v[0].shape)).astype("float32") for k, v in found.items()}


def annealed(model: LatentVariableModel, x: Tensor, step: int, beta: Tensor) -> Tensor:
    terms = model.elbo(x)
    return terms.reconstruction - annealed_beta(step, TOY_STEPS // 2) * terms.kl


# name -> the decoder's window, the objective, the floor of the noise
REMEDIES: dict[str, tuple[int, Objective, float | None]] = {
    "none": (1, beta_objective, None),
    "annealing": (1, annealed, FLOOR),
    "free bits": (1, lambda model, x, step, beta: free_bits(model, x, 0.5), None),
    "L_16": (1, lambda model, x, step, beta: importance_weighted_bound(model, x, 16), None),
    "weaker decoder": (0, beta_objective, None),
}


def remedies() -> dict[str, np.ndarray]:
    """The rotated toy with a decoder that does not need z, and what is said to help."""
    toy = correlated_gaussian(angle=math.pi / 4)
    found = {}
    for name, (window, objective, floor) in REMEDIES.items():
        seed_everything(0)
        models = [
            AutoregressiveVAE(GaussianVAE(2, 1, 0, noise="diagonal"), window) for _ in range(8)
        ]
        train_together(models, [toy] * 8, objective, torch.ones(8), floor, lr=0.1)
        terms = [expected_elbo_of(m, toy) for m in models]
        activity = torch.stack([parameters_of(m.vae).activity(toy) for m in models])
        found |= {
            f"{name}/elbo": np.array([t.elbo.item() for t in terms]),
            f"{name}/rate": np.array([t.kl.item() for t in terms]),
            f"{name}/active": (activity > 0.01).sum(1).numpy(),
        }
    return found


def digit_model(window: int) -> AutoregressiveVAE:
    """Eight latents for 8 × 8 binary pixels, each of which sees ``window`` pixels before it."""
    return AutoregressiveVAE(GaussianVAE(64, 8, 128, likelihood="bernoulli"), window)


# name -> the decoder's window, the objective
DIGITS: dict[str, tuple[int, Objective]] = {
    "window 0": (0, beta_objective),
    "window 2": (2, beta_objective),
    "window 10": (10, beta_objective),
    "window 63": (63, beta_objective),
    "63, no latent": (63, lambda model, x, step, beta: beta_elbo(model.elbo(x), 50.0)),
    "63, annealing": (
        63,
        lambda model, x, step, beta: beta_elbo(
            model.elbo(x), annealed_beta(step, DIGIT_STEPS // 2)
        ),
    ),
    "63, free bits": (63, lambda model, x, step, beta: free_bits(model, x, 0.5)),
    "63, L_8": (63, lambda model, x, step, beta: importance_weighted_bound(model, x, 8)),
}


def train_digits(window: int, objective: Objective, seed: int) -> AutoregressiveVAE:
    train = binarise(digits("train").images, "threshold", levels=17).flatten(1).float()
    seed_everything(seed)
    model = digit_model(window)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, DIGIT_STEPS)
    one = torch.ones(())

    def loss(step: int) -> Tensor:
        return -objective(model, train[torch.randint(len(train), (128,))], step, one)

    fit(loss, optimizer, DIGIT_STEPS, scheduler=decay)
    return model


def digits_() -> dict[str, np.ndarray]:
    """Binarised digits (at 9 of 16 levels), a decoder of each window, three seeds."""
    test = binarise(digits("test").images, "threshold", levels=17).flatten(1).float()
    found = {}
    for name, (window, objective) in DIGITS.items():
        rows = []
        for seed in range(3):
            model = train_digits(window, objective, seed)
            with torch.no_grad():
                terms = model.elbo(test, 50)
                log_p = log_prob_by_importance(model, test, 500).value.mean()
                units = active_units(model.encode(test).mean).sum()
            values = (terms.elbo.mean(), terms.kl.mean(), log_p, units)
            rows.append([float(v) for v in values])
        for key, column in zip(("elbo", "rate", "log_p", "active"), np.array(rows).T, strict=True):
            found[f"{name}/{key}"] = column
    return found


PARTS = {
    "fixed": fixed,
    "learned": learned,
    "ridge": ridge,
    "paths": paths,
    "remedies": remedies,
    "digits": digits_,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=RESULTS / "posterior_collapse.npz")
    options = parser.parse_args()
    if quick():
        parser.error("the points need full training; unset DGM_COURSE_QUICK")
    torch.set_num_threads(1)
    table = dict(np.load(options.out)) if options.out.exists() else {}
    for part in options.only:
        table = {k: v for k, v in table.items() if not k.startswith(f"{part}/")}
        table |= {f"{part}/{k}": np.asarray(v) for k, v in PARTS[part]().items()}
        save_results(options.out, table)


if __name__ == "__main__":
    main()
