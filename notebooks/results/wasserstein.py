"""Lecture 16's longer runs: critics on the line, and two games beside one another, over seeds.

    python notebooks/results/wasserstein.py               # about ten minutes of one core
    python notebooks/results/wasserstein.py --only digits "two-sided, tent"
    python notebooks/results/wasserstein.py --seeds 1 --steps 20 --out try.npz

Writes ``dgm_course/results/wasserstein.npz`` after every training. What stands in the file is not
made again, unless ``--only`` asks for it. A row for each seed.

- ``WAY, CASE``: a critic whose slope is held by "one-sided" or "two-sided" penalty (λ = 10),
  "spectral" normalisation, or "clipped" weights (c = 0.1), on a "shift" of W₁ = ½ or on a "tent",
  where the best slope changes its sign: ``/ratio`` (seeds,): E_p f − E_q f over W₁; ``/exact``
  (seeds,): the same of the penalised critic in closed form, in every row;
- ``eight Gaussians``: ``/wgan-gp`` (seeds, 20, 4): CPU seconds of training, modes covered, share
  of samples near a mode, exact W₁ of 500 samples and 500 data, over 1000 rounds; ``/plain``
  (seeds, 20, 4): the same of the non-saturating game with the same networks, over as many seconds;
- ``digits``: ``/wgan-gp`` (seeds, 10, 2): CPU seconds, exact W₁ of 355 samples and the 355 test
  digits, over 300 rounds; ``/plain`` (seeds, 10, 2): DCGAN as it was published, as many seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from by_seed import Runs, make, options
from torch import Tensor, nn
from torch.distributions import Normal

from dgm_course.data import digits, eight_gaussians, eight_gaussians_density
from dgm_course.gan import (
    DCGANDiscriminator,
    DCGANGenerator,
    Player,
    clip_weights,
    critic_loss,
    discriminator_loss,
    game_steps,
    generator_loss,
    gradient_penalty,
    mode_report,
    optimal_critic,
    penalised_critic,
    random_interpolates,
    spectrally_normalised,
    wasserstein_distance,
)
from dgm_course.training import seed_everything, training_steps

STEPS, ROUNDS, DIGIT_ROUNDS = 700, 1000, 300
WEIGHT, CLIP = 10.0, 0.1
CASES = {
    "shift": (Normal(0.5, 0.1), Normal(0.0, 0.1)),
    "tent": (Normal(0.0, 0.25), Normal(0.0, 1.0)),
}
LINE = torch.linspace(-6, 6, 601).double()
MODES = eight_gaussians_density()
PLANE_TEST = eight_gaussians(500, 1)
TRAIN, TEST = (digits(part).images.float() / 8 - 1 for part in ("train", "test"))


def mlp(n_in: int, n_out: int, width: int = 64) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(n_in, width), nn.ReLU()]
    layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, n_out))


def on_the_line(way: str, case: str, seed: int, n_steps: int) -> dict[str, np.ndarray]:
    p, q = CASES[case]
    seed_everything(seed)
    critic = nn.Sequential(*mlp(1, 1), nn.Flatten(0))
    if way == "spectral":
        spectrally_normalised(critic)
    adam = torch.optim.Adam(critic.parameters(), lr=2e-3, betas=(0.0, 0.9))
    optimizer = torch.optim.RMSprop(critic.parameters(), lr=2e-3) if way == "clipped" else adam
    if way == "clipped":
        clip_weights(optimizer, CLIP)

    def loss(step: int) -> Tensor:
        real, fake = p.sample((256, 1)), q.sample((256, 1))
        value = critic_loss(critic(real), critic(fake))
        if "sided" not in way:
            return value
        between = random_interpolates(real, fake)
        return value + WEIGHT * gradient_penalty(critic, between, one_sided=way == "one-sided")

    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    for _ in training_steps(loss, optimizer, n_steps, rate):
        pass
    levels = (torch.arange(10_000) + 0.5) / 10_000
    critic.eval()
    with torch.no_grad():
        value = (critic(p.icdf(levels)[:, None]) - critic(q.icdf(levels)[:, None])).mean().item()
    w1, exact = optimal_critic(p, q, LINE).value, penalised_critic(p, q, LINE, WEIGHT).value
    return {"ratio": np.array(value / w1), "exact": np.array(exact / w1)}


def course(
    rounds: Iterator[object], measure: Callable[[], list[float]], at: np.ndarray, *, by_time: bool
) -> np.ndarray:
    """CPU seconds of training and what is measured, wherever rounds (or seconds) pass ``at``."""
    rows: list[list[float]] = []
    seconds = 0.0
    n_rounds = 0
    while len(rows) < len(at):
        began = time.process_time()
        next(rounds)
        seconds += time.process_time() - began
        n_rounds += 1
        while len(rows) < len(at) and (seconds if by_time else n_rounds) >= at[len(rows)]:
            rows.append([seconds, *measure()])
    return np.array(rows)


def penalised(critic: nn.Module, real: Tensor, fake: Tensor, weight: float) -> Tensor:
    penalty = gradient_penalty(critic, random_interpolates(real, fake), one_sided=True)
    return critic_loss(critic(real), critic(fake)) + weight * penalty


def eight(seed: int, n_steps: int) -> dict[str, np.ndarray]:
    n_rounds = min(n_steps * ROUNDS // STEPS, ROUNDS)

    def new_game(is_plain: bool) -> np.ndarray:
        seed_everything(seed)
        generator, critic = mlp(2, 2), nn.Sequential(*mlp(2, 1), nn.Flatten(0))
        source = torch.Generator().manual_seed(seed)

        def of_critic(step: int) -> Tensor:
            real, fake = eight_gaussians(128, source), generator(torch.randn(128, 2))
            if is_plain:
                return discriminator_loss(critic(real), critic(fake))
            return penalised(critic, real, fake, 1.0)

        def of_generator(step: int) -> Tensor:
            score = critic(generator(torch.randn(128, 2)))
            return generator_loss(score) if is_plain else -score

        rate = 1e-3 if is_plain else 2e-3
        players = [
            Player(loss, torch.optim.Adam(net.parameters(), lr=rate, betas=(0.5, 0.9)))
            for loss, net in ((of_critic, critic), (of_generator, generator))
        ]

        @torch.no_grad()
        def measure() -> list[float]:
            drawn = generator(torch.randn(500, 2))
            report = mode_report(drawn, MODES)
            return [report.n_covered, report.share, wasserstein_distance(drawn, PLANE_TEST).item()]

        rounds = game_steps(players[0], players[1], 10**6, n_critic=1 if is_plain else 5)
        return course(rounds, measure, seconds if is_plain else numbers, by_time=is_plain)

    numbers = np.linspace(n_rounds / 20, n_rounds, 20)
    seconds = np.zeros(0)
    found = {"wgan-gp": new_game(False)}
    seconds = found["wgan-gp"][:, 0]
    return found | {"plain": new_game(True)}


def on_digits(seed: int, n_steps: int) -> dict[str, np.ndarray]:
    n_rounds = min(n_steps * DIGIT_ROUNDS // STEPS, DIGIT_ROUNDS)

    def new_game(is_plain: bool) -> np.ndarray:
        seed_everything(seed)
        norm = nn.BatchNorm2d if is_plain else nn.Identity
        generator, critic = DCGANGenerator(8), DCGANDiscriminator(8, norm=norm)

        def of_critic(step: int) -> Tensor:
            real = TRAIN[torch.randint(len(TRAIN), (64,))]
            fake = generator(torch.randn(64, generator.z_dim))
            if is_plain:
                return discriminator_loss(critic(real), critic(fake))
            return penalised(critic, real, fake, WEIGHT)

        def of_generator(step: int) -> Tensor:
            score = critic(generator(torch.randn(64, generator.z_dim)))
            return generator_loss(score) if is_plain else -score

        lr, betas = (2e-4, (0.5, 0.999)) if is_plain else (3e-3, (0.0, 0.9))
        players = [
            Player(loss, torch.optim.Adam(net.parameters(), lr=lr, betas=betas))
            for loss, net in ((of_critic, critic), (of_generator, generator))
        ]

        def measure() -> list[float]:
            drawn = generator.sample(len(TEST), 1)
            return [wasserstein_distance(drawn.flatten(1), TEST.flatten(1)).item()]

        rounds = game_steps(players[0], players[1], 10**6, n_critic=1 if is_plain else 5)
        return course(rounds, measure, seconds if is_plain else numbers, by_time=is_plain)

    numbers = np.linspace(n_rounds / 10, n_rounds, 10)
    seconds = np.zeros(0)
    found = {"wgan-gp": new_game(False)}
    seconds = found["wgan-gp"][:, 0]
    return found | {"plain": new_game(True)}


RUNS: Runs = {
    "eight Gaussians": (eight, 10),
    **{
        f"{way}, {case}": (partial(on_the_line, way, case), 10)
        for way in ("one-sided", "two-sided", "spectral", "clipped")
        for case in CASES
    },
    "digits": (on_digits, 3),
}


def main() -> None:
    make(options(__doc__, "wasserstein", RUNS, STEPS), RUNS)


if __name__ == "__main__":
    main()
