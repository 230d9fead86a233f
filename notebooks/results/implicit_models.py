"""Lecture 19's longer runs: adversarial inference over seeds, and how a critic lets it down.

    python notebooks/results/implicit_models.py               # about twenty minutes of one core
    python notebooks/results/implicit_models.py --only ring "critic k=1 rate=0.0001"
    python notebooks/results/implicit_models.py --seeds 1 --steps 30 --out try.npz

Writes ``dgm_course/results/implicit_models.npz`` after every training. What stands in the file is
not made again, unless ``--only`` asks for it. A row for each seed; nats are above log p(x), which
`grid_posterior` knows, and an ELBO is E_q log p(x, z) + `entropy`.

One x and one posterior, k = 3 steps of the critic a round, and the rate 0.005 for both players
(q's falls along a cosine), if nothing else is said:

- ``ring``, ``banana``, ``near modes``, ``far modes``, ``less far modes``: the `ToyModel` of that
  shape at x = 1.5, 1, 1, 1, 1 with the noise 0.2, 0.3, 1, 0.2, 0.3; 1000 rounds at the rate 0.002
  with 256 draws for the ring, 300 rounds with 128 draws for the next two, 600 for the modes;
- ``far modes, tempered``, ``less far modes, tempered``: the same with the likelihood `tempered`;
- ``critic k=K rate=R``: ``banana`` with K steps of the critic a round and its rate R; ``banana``
  itself is k = 3 and 0.005;
- ``noise σ``, ``noise σ, contrast``: x = (4, 4) = z + σ ε, whose posterior is N(4 / (1 + σ²),
  σ² / (1 + σ²)) in both latents, without and with adaptive contrast, 300 rounds;
- ``banana, contrast``, ``ring, contrast``: ``banana`` and ``ring`` with adaptive contrast.

Each has ``/distance`` (seeds,): total variation of 20,000 draws from the exact posterior;
``/above`` (seeds, 2): AVB's estimate and the ELBO, of as many draws; ``/curve`` (seeds, 31, 2):
the same of 2000 draws, before the training and after each thirtieth of its rounds; ``/right``
(seeds,): the share of draws with z₁ > 0; ``/samples`` (2, 500, M): draws of the first two seeds.

- ``epidemic``: `JointAVB` on `Epidemic`, whose share x is seen as 4x − 2: 600 rounds of 256 data,
  one posterior for all 21 sizes. ``/distance`` (seeds, 21): total variation at each size;
  ``/cells`` (seeds, 21, 36): shares of draws in equal cells of (−6, 6), and ``/exact`` (21, 36);
- ``D dimensions``, ``D dimensions, one differs``: log N(m, s²) − log N(0, 1) of all D coordinates,
  or of the first, m = 0.5 and s = 0.7, learned by five critics: an `MLP` of z, one of (z, z²), and
  `Logistic` of second degree, of 2000 draws of either density; then a `Network` of z and one of
  (z, z²), of 128 new draws a step. Networks have 64 neurons a layer and 600 steps. ``/error``
  (seeds, 5): the root of the mean square of (learned − exact) at 2000 new draws of the first
  density; ``/kl`` (seeds, 6): the exact KL, and what each critic estimates there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from by_seed import Arrays, Runs, make, options
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from dgm_course.data import Epidemic
from dgm_course.density_ratio import (
    AVB,
    MLP,
    GridPosterior,
    ImplicitPosterior,
    JointAVB,
    Logistic,
    Network,
    PairCritic,
    entropy,
    gaussian_log_ratio,
    grid_posterior,
    tempered,
    total_variation,
)
from dgm_course.gan import Player, game_steps
from dgm_course.losses import discriminator_loss
from dgm_course.training import seed_everything, training_steps
from dgm_course.vae import ToyModel
from dgm_course.vae.toy_posteriors import Shape

STEPS = 1000
N_POINTS, N_DRAWS, N_SAMPLES = 30, 20_000, 500
EPIDEMIC_ROUNDS, EPIDEMIC_BOX, N_CELLS = 600, (-6.0, 6.0), 36
RATIO_STEPS, N_RATIO, RATIO_MEAN, RATIO_SCALE = 600, 2000, 0.5, 0.7
DIMENSIONS = (1, 2, 4, 8, 16, 32)
NOISES = (3.0, 1.0, 0.5, 0.2, 0.1)
PRIOR = {dim: Independent(Normal(torch.zeros(dim), 1.0), 1) for dim in (1, 2)}


class Target(NamedTuple):
    """One datum, whose posterior a grid knows."""

    log_likelihood: Callable[[Tensor, Tensor], Tensor]
    x: Tensor  # (1, D)
    exact: GridPosterior

    @property
    def dim(self) -> int:
        return len(self.exact.edges)


def target(
    log_likelihood: Callable[[Tensor, Tensor], Tensor], x: list[float], *box: tuple[float, float]
) -> Target:
    data = torch.tensor([x])

    def log_joint(z: Tensor) -> Tensor:
        return log_likelihood(data, z[:, None])[:, 0] + PRIOR[len(box)].log_prob(z)

    return Target(log_likelihood, data, grid_posterior(log_joint, box))


def toy(shape: Shape, x: float, noise: float, *box: tuple[float, float]) -> Target:
    return target(ToyModel(shape, noise).log_likelihood, [x], *box)


def seen(noise: float) -> Target:
    """x = (4, 4) is z and noise: N(4 / (1 + σ²), σ² / (1 + σ²)) in each latent."""
    mean, scale = 4 / (1 + noise**2), noise / math.sqrt(1 + noise**2)
    box = (mean - 6 * scale, mean + 6 * scale)
    return target(lambda x, z: Normal(z, noise).log_prob(x).sum(-1), [4.0, 4.0], box, box)


TARGETS: dict[str, Callable[[], Target]] = {
    "ring": lambda: toy("ring", 1.5, 0.2, (-3, 3), (-3, 3)),
    "banana": lambda: toy("banana", 1.0, 0.3, (-4, 4), (-3, 9)),
    "near modes": lambda: toy("two modes", 1.0, 1.0, (-4, 4)),
    "far modes": lambda: toy("two modes", 1.0, 0.2, (-3, 3)),
    "less far modes": lambda: toy("two modes", 1.0, 0.3, (-3, 3)),
    **{f"noise {noise}": partial(seen, noise) for noise in NOISES},
}


class Setting(NamedTuple):
    """How a posterior is trained."""

    target: str
    n_rounds: int = 300
    n_critic: int = 3
    critic_rate: float = 5e-3
    rate: float = 5e-3
    n_samples: int = 128
    contrast: bool = False
    is_tempered: bool = False


def adam(model: nn.Module, rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), rate, betas=(0.5, 0.999), fused=True)


def players(
    of_critic: Callable[[int], Tensor],
    of_posterior: Callable[[int], Tensor],
    critic: torch.optim.Adam,
    posterior: torch.optim.Adam,
    n_rounds: int,
) -> tuple[Player, Player]:
    """The critic's rate stays, the posterior's falls along a cosine."""
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(posterior, n_rounds)
    return Player(of_critic, critic), Player(of_posterior, posterior, cosine)


def infer(how: Setting, *, seed: int, n_steps: int) -> Arrays:
    """One implicit posterior, and what it is worth at equal parts of its training."""
    n_rounds = max(1, how.n_rounds * n_steps // STEPS)
    aim = TARGETS[how.target]()
    seed_everything(seed)
    q = ImplicitPosterior(aim.x.shape[1], aim.dim)
    critic = PairCritic(aim.x.shape[1], aim.dim)
    avb = AVB(aim.log_likelihood, q, critic, PRIOR[aim.dim], contrast=how.contrast)

    def of_posterior(step: int) -> Tensor:
        weight = tempered(step, n_rounds) if how.is_tempered else 1.0
        return avb.posterior_loss(aim.x, how.n_samples, weight)

    game = players(
        lambda step: avb.critic_loss(aim.x, how.n_samples),
        of_posterior,
        adam(critic, how.critic_rate),
        adam(q, how.rate),
        n_rounds,
    )
    rounds = game_steps(*game, n_rounds, n_critic=how.n_critic)
    curve, done = [worth(avb, aim)], 0
    for i in range(1, N_POINTS + 1):
        while done < i * n_rounds // N_POINTS:
            next(rounds)
            done += 1
        curve.append(worth(avb, aim))
    with torch.no_grad():
        z = q(aim.x, N_DRAWS)[:, 0]
    found = {
        "distance": np.array(total_variation(z, aim.exact).value),
        "above": np.array(worth(avb, aim, N_DRAWS)),
        "curve": np.array(curve, np.float32),
        "right": np.array((z[:, 0] > 0).float().mean().item()),
    }
    return found | ({"samples": z[:N_SAMPLES].numpy().astype(np.float16)} if seed < 2 else {})


@torch.no_grad()
def worth(avb: AVB, aim: Target, n_samples: int = 2000) -> list[float]:
    """AVB's estimate and, of the same draws, the ELBO, both minus log p(x)."""
    z = avb.posterior(aim.x, n_samples)
    log_likelihood = aim.log_likelihood(aim.x, z)
    estimate = (log_likelihood - avb.log_ratio(aim.x, z)).mean().item()
    log_joint = (log_likelihood + avb.prior.log_prob(z)).mean().item()
    log_p = aim.exact.log_evidence
    return [estimate - log_p, log_joint + entropy(z[:, 0]).value - log_p]


def epidemic(*, seed: int, n_steps: int) -> Arrays:
    """One posterior of all sizes of an epidemic, by a simulator that is never evaluated."""
    n_rounds = max(1, EPIDEMIC_ROUNDS * n_steps // STEPS)
    model = Epidemic()
    seed_everything(seed)
    q, critic = ImplicitPosterior(1, 1), PairCritic(1, 1)

    def simulate(z: Tensor) -> Tensor:  # shares from 0 to 1 are seen as numbers from −2 to 2
        return 4 * model.simulate(z) - 2

    def data() -> Tensor:
        return simulate(PRIOR[1].sample((256,)))

    joint = JointAVB(simulate, q, critic, PRIOR[1])
    game = players(
        lambda step: joint.critic_loss(data()),
        lambda step: joint.posterior_loss(data()),
        adam(critic, 5e-3),
        adam(q, 5e-3),
        n_rounds,
    )
    for _ in game_steps(*game, n_rounds, n_critic=3):
        pass
    sizes = torch.arange(model.n_people + 1) / model.n_people
    with torch.no_grad():
        z = q(4 * sizes[:, None] - 2, N_DRAWS)[..., 0].T  # (sizes, draws)
    exact = [exact_epidemic(size) for size in sizes]
    distance = [total_variation(d[:, None], e).value for d, e in zip(z, exact, strict=True)]
    cells = torch.stack([d.histc(N_CELLS, *EPIDEMIC_BOX) / N_DRAWS for d in z])
    found = {"distance": np.array(distance), "cells": cells.numpy()}
    if seed == 0:
        found["exact"] = torch.stack(
            [e.probability.view(N_CELLS, -1).sum(1) for e in exact]
        ).numpy()
    return found


def exact_epidemic(size: Tensor) -> GridPosterior:
    """p(z|x) of one share that fell ill, by all histories."""

    def log_joint(z: Tensor) -> Tensor:
        log_likelihood = Epidemic().log_likelihood(size.view(1, 1), z[:, None])[:, 0]
        return log_likelihood + PRIOR[1].log_prob(z)

    return grid_posterior(log_joint, EPIDEMIC_BOX)


def log_ratio(dim: int, n_other: int, *, seed: int, n_steps: int) -> Arrays:
    """What critics say of log p − log N(0, I), where p has another mean and scale in n_other."""
    seed_everything(seed)
    mean, scale = torch.zeros(dim).double(), torch.ones(dim).double()
    mean[:n_other], scale[:n_other] = RATIO_MEAN, RATIO_SCALE
    noise = torch.randn(3, N_RATIO, dim, dtype=torch.float64)
    x = torch.cat([mean + scale * noise[0], noise[1]])
    y = torch.cat([torch.ones(N_RATIO), torch.zeros(N_RATIO)]).double()
    new = mean + scale * noise[2]
    n_steps = max(1, RATIO_STEPS * n_steps // STEPS)
    source = torch.Generator().manual_seed(seed)
    logits = [
        MLP(64, n_steps).fit(x, y, source).logit(new),
        MLP(64, n_steps).fit(with_squares(x), y, source).logit(with_squares(new)),
        Logistic(2).fit(x, y).logit(new),
        *(of_new_draws(mean, scale, features, n_steps)(new) for features in FEATURES),
    ]
    exact = gaussian_log_ratio(new, mean, scale)
    kl = (mean**2 + scale**2 - 1).sum().item() / 2 - scale.log().sum().item()
    off = [(v - exact).square().mean().sqrt().item() for v in logits]
    return {"error": np.array(off), "kl": np.array([kl, *(v.mean().item() for v in logits)])}


def with_squares(x: Tensor) -> Tensor:
    return torch.cat([x, x.square()], -1)


FEATURES: tuple[Callable[[Tensor], Tensor], ...] = (nn.Identity(), with_squares)


def of_new_draws(
    mean: Tensor, scale: Tensor, features: Callable[[Tensor], Tensor], n_steps: int
) -> Callable[[Tensor], Tensor]:
    """A critic of new draws at each step, as adversarial inference has one: its log-odds."""
    network = Network(features(mean).shape[0], 64).double()

    def loss(step: int) -> Tensor:
        of_p, of_q = torch.randn(2, 128, len(mean), dtype=torch.float64)
        of_p = mean + scale * of_p
        return discriminator_loss(network(features(of_p)), network(features(of_q)))

    optimizer = adam(network, 1e-2)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    for _ in training_steps(loss, optimizer, n_steps, cosine):
        pass
    network.requires_grad_(False)
    return lambda z: network(features(z))


CRITICS = ((1, 1e-4), (1, 3e-4), (1, 1e-3), (1, 2e-3), (1, 5e-3), (10, 5e-3))
RING = Setting("ring", 1000, critic_rate=2e-3, rate=2e-3, n_samples=256)
SETTINGS = {
    "ring": RING,
    "banana": Setting("banana"),
    "near modes": Setting("near modes"),
    **{name: Setting(name, 600) for name in ("far modes", "less far modes")},
    **{f"critic k={k} rate={rate:g}": Setting("banana", 300, k, rate) for k, rate in CRITICS},
    "far modes, tempered": Setting("far modes", 600, is_tempered=True),
    "less far modes, tempered": Setting("less far modes", 600, is_tempered=True),
    **{f"noise {noise}": Setting(f"noise {noise}") for noise in NOISES},
    **{f"noise {noise}, contrast": Setting(f"noise {noise}", contrast=True) for noise in NOISES},
    "banana, contrast": Setting("banana", contrast=True),
    "ring, contrast": RING._replace(contrast=True),
}
RUNS: Runs = {
    **{name: (partial(infer, how), 10) for name, how in SETTINGS.items()},
    "epidemic": (epidemic, 10),
    **{f"{d} dimensions": (partial(log_ratio, d, d), 5) for d in DIMENSIONS},
    **{f"{d} dimensions, one differs": (partial(log_ratio, d, 1), 5) for d in DIMENSIONS},
}


def main() -> None:
    make(options(__doc__, "implicit_models", RUNS, STEPS), RUNS, whole=("exact",))


if __name__ == "__main__":
    main()
