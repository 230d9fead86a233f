"""Lecture 17's runs: a style generator, a plain one, and a discriminator with a dictionary.

    python notebooks/results/style.py               # about twenty minutes of one core
    python notebooks/results/style.py --only style --seeds 1
    python notebooks/results/style.py --seeds 1 --steps 20 --out try.npz

Writes ``dgm_course/results/style.npz`` after every training. What stands in the file is not made
again, unless ``--only`` asks for it. All play the same game on 4096 images of ``shapes``, in
(−1, 1): batches of 32, the discriminator of ``new_discriminator``, R1 of weight 0.1 at every fourth
step, Adam 2e-3 with momenta 0 and 0.99, and what is measured is a moving average (0.99) of the
generator's weights, and of its statistics. Rows
are seeds 0, 1, …; the generators are

- ``style``: ``StyleGenerator(16)``, half of its images in training of mixed styles;
- ``plain``: ``DCGANGenerator(16, 16, 27, 3)``, as many numbers (within 2 %), with batch norm;
- ``quantised``: as style, against the discriminator with a dictionary of 64 codes at its last map
  (averages of .9, commitment 1, started on data);
- ``restarted``: the same with commitment .25, and codes that nothing has chosen for 22 steps are
  put on data again;
- ``long style``, ``long plain``: three times as long, for pictures.

Of each R of them, S seeds, with 2000 images drawn beside 2000 of ``shapes(2000, 1)``:

- ``R/quality`` (S, 3): Fréchet distance of 16 features, precision, recall (k = 3);
- ``R/curve`` (S, 4): that Fréchet distance after each quarter of the training;
- ``R/spread`` (S, 4): standard deviations of ``FACTORS``: size, x and y in pixels, hue in turns;
- ``R/factors`` (S, 200, 4): of the first images, float16; ``real/factors`` (200, 4): of the data;
- ``R/seconds`` (S,): of one core, to train; ``R/parameters`` (S,): the generator's;
- ``R/loss`` (S, 50, 2): the discriminator's and the generator's, means of a fiftieth each.

Of generators with styles also ``R/control``, ``R/control_error`` (S, 3, 4): `factor_control` of
4 × 4, 8 × 8 and 16 × 16 over 1000 pairs; ``R/truncation`` (S, 6, 3): quality at ``psi`` (6,);
``R/noise`` (S, 4): how far the factors move with other noise, relative to other styles. Of
``quantised`` and ``restarted`` also ``/used`` (S, 50, 2): codes in use on 500 images of the data,
and their perplexity.

Of seed 0 of the long ones ``R/weights``, float16: the generator's parameters in their order, then
the statistics of its batch norms (its floating buffers, in theirs), with which it was measured.
``features/weights``, float16: likewise of ``new_features()``, the layers up to the 16 features of a
network that was trained to name a shape's factors. ``real/quality`` (3,): the same measures of 2000
other real images: what a perfect generator would have.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from by_seed import as_float16, make, numbers, options, stored
from torch import Tensor, nn
from torch.nn.functional import mse_loss, one_hot
from torch.nn.utils import vector_to_parameters
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from dgm_course.codes import VectorQuantizer
from dgm_course.data import measured_factors, shapes
from dgm_course.gan import (
    DCGANDiscriminator,
    DCGANGenerator,
    FeatureQuantizer,
    Player,
    StyleGenerator,
    discriminator_loss,
    factor_control,
    frechet_distance,
    game_steps,
    generator_loss,
    gradient_penalty,
    precision_recall,
)
from dgm_course.training import seed_everything, training_steps

Generator = StyleGenerator | DCGANGenerator
STEPS, BATCH, EVERY, R1, MIXING = 600, 32, 4, 0.1, 0.5
N_IMAGES, N_SHOWN, N_PAIRS, N_POINTS, N_CURVE = 2000, 200, 1000, 50, 4
FACTORS = ("size", "x", "y", "hue")
PERIODS = (None, None, None, 1.0)
PSI = (0.0, 0.3, 0.5, 0.7, 0.85, 1.0)
SEEDS = {"style": 4, "plain": 3, "quantised": 4, "restarted": 4, "long style": 3, "long plain": 3}
LONGER = 3
DICTIONARIES: dict[str, dict[str, float]] = {
    "quantised": {"commitment": 1.0},
    "restarted": {"commitment": 0.25, "restart": 0.1},
}
TRAIN, TEST = 2 * shapes(4096, 0).images - 1, 2 * shapes(N_IMAGES, 1).images - 1


def new_features() -> nn.Sequential:
    """Images in (−1, 1) to 16 features, before training."""
    layers = [nn.Conv2d(3, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 32, 4, 2, 1)]
    return nn.Sequential(*layers, nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(512, 16), nn.Tanh())


def new_generator(name: str) -> Generator:
    return DCGANGenerator(16, 16, 27, 3) if name.endswith("plain") else StyleGenerator(16)


def new_discriminator() -> DCGANDiscriminator:
    """No batch norm, for R1 is of each image alone; larger weights than DCGAN's at the start."""
    d = DCGANDiscriminator(16, 32, 3, norm=nn.Identity)
    for layer in d.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, 0.2)
    return d


def train_features(n_steps: int) -> nn.Sequential:
    """By the squared error of a shape's name, size, place, and of angle and hue as directions."""
    seed_everything(0)
    features = new_features()
    head = nn.Linear(16, 9)
    images, factors, _ = shapes(8192, 2)
    images, factors = 2 * images - 1, factors.float()
    shape, size, angle, x, y, hue = factors.unbind(1)
    directions = (1.5 * angle).sin(), (2 * math.pi * hue).sin(), (2 * math.pi * hue).cos()
    target = torch.stack([size - 3.9, x / 2, y / 2, *directions], 1)
    target = torch.cat([one_hot(shape.long(), 3), target], 1)
    optimizer = torch.optim.Adam([*features.parameters(), *head.parameters()], lr=3e-3)

    def loss(step: int) -> Tensor:
        i = torch.randint(len(images), (128,))
        return mse_loss(head(features(images[i])), target[i], reduction="none").mean(1)

    for _ in tqdm(training_steps(loss, optimizer, n_steps), total=n_steps, leave=False):
        pass
    return features.requires_grad_(False)


class Judge:
    """Quality, and factors, of images in (−1, 1)."""

    def __init__(self, features: nn.Sequential) -> None:
        self.features, self.real = features, features(TEST)

    @torch.no_grad()
    def quality(self, images: Tensor) -> np.ndarray:
        found = self.features(images)
        return np.array([self.frechet(images), *precision_recall(self.real, found)])

    @torch.no_grad()
    def frechet(self, images: Tensor) -> float:
        return frechet_distance(self.real, self.features(images))


def factors(images: Tensor) -> Tensor:
    """``FACTORS`` of images in (−1, 1), ``(N, 4)``."""
    found = measured_factors((images + 1) / 2)
    return torch.stack([found[name] for name in FACTORS], 1)


class Run:
    """One game, and the average of its generator."""

    def __init__(self, name: str, seed: int) -> None:
        seed_everything(seed)
        self.g, self.d = new_generator(name), new_discriminator()
        self.quantised: FeatureQuantizer | None = None
        if name in DICTIONARIES:
            quantizer = VectorQuantizer(64, 64, decay=0.9, **DICTIONARIES[name])
            self.quantised = FeatureQuantizer(self.d, quantizer)
            quantizer.initialise(self.quantised.features(TRAIN[:256]).detach())
        average = get_ema_multi_avg_fn(0.99)
        self.average = AveragedModel(self.g, multi_avg_fn=average, use_buffers=True)

    def fakes(self) -> Tensor:
        if isinstance(self.g, StyleGenerator):
            return self.g.synthesise(self.g.draw_styles(BATCH, MIXING))
        return self.g(torch.randn(BATCH, self.g.z_dim))

    def discriminator_loss(self, step: int) -> Tensor:
        real, fake = TRAIN[torch.randint(len(TRAIN), (BATCH,))], self.fakes()
        critic = self.quantised or self.d
        if self.quantised:
            of_real, of_fake = self.quantised.terms(real), self.quantised.terms(fake)
            loss = discriminator_loss(of_real.scores, of_fake.scores)
            loss = loss + of_real.commitment + of_fake.commitment
        else:
            loss = discriminator_loss(self.d(real), self.d(fake))
        if step % EVERY == 0:
            loss = loss + EVERY * R1 / 2 * gradient_penalty(critic, real, target=0)
        return loss

    def rounds(self, n_steps: int) -> Iterator[tuple[float, float]]:
        """Plays the game; the average follows each of the generator's steps."""
        critic = self.quantised or self.d
        adams = [
            torch.optim.Adam(network.parameters(), lr=2e-3, betas=(0.0, 0.99))
            for network in (critic, self.g)
        ]
        of_critic = Player(self.discriminator_loss, adams[0])
        of_generator = Player(lambda step: generator_loss(critic(self.fakes())), adams[1])
        for round_ in game_steps(of_critic, of_generator, n_steps):
            self.average.update_parameters(self.g)
            yield round_

    def averaged(self) -> Generator:
        """A copy of the average, with its own statistics, ready to draw."""
        return copy.deepcopy(self.average.module).eval().requires_grad_(False)


def row(name: str, seed: int, n_steps: int, judge: Judge) -> dict[str, np.ndarray]:
    """One training, and all that is measured of it."""
    run, curve, losses, used = Run(name, seed), [], [], []
    n_steps *= LONGER if name.startswith("long") else 1
    seconds, each = 0.0, max(1, n_steps // N_POINTS)
    start = time.process_time()
    steps = tqdm(run.rounds(n_steps), total=n_steps, unit="round", desc=f"{name} {seed}")
    for step, round_ in enumerate(steps, 1):
        losses.append(round_)
        seconds += time.process_time() - start
        if step % each == 0 and run.quantised:
            indices = run.quantised.indices(TEST[:500])
            quantizer = run.quantised.quantizer
            used.append([quantizer.usage(indices), quantizer.perplexity(indices)])
        if step % max(1, n_steps // N_CURVE) == 0:
            curve.append(judge.frechet(run.averaged().sample(N_IMAGES, generator=0)))
        start = time.process_time()
    g = run.averaged()
    found = {"weights": as_float16(g)} if name.startswith("long") and seed == 0 else {}
    images = g.sample(N_IMAGES, generator=0)
    values = factors(images)
    parts = np.array_split(np.array(losses), N_POINTS)
    found |= {
        "quality": judge.quality(images),
        "curve": np.array(curve[:N_CURVE]),
        "spread": values.std(0).numpy(),
        "factors": values[:N_SHOWN].numpy().astype(np.float16),
        "seconds": np.array(seconds),
        "parameters": np.array(sum(p.numel() for p in g.parameters())),
        "loss": np.array([part.mean(0) for part in parts if len(part)]),
    }
    if used:
        found["used"] = np.array(used[:N_POINTS])
    return found | (of_styles(g, judge) if isinstance(g, StyleGenerator) else {})


def of_styles(g: StyleGenerator, judge: Judge) -> dict[str, np.ndarray]:
    control = factor_control(g, factors, N_PAIRS, periods=PERIODS, seed=0)
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        styles = g.draw_styles(N_PAIRS, generator=source)
        a, b = (factors(g.synthesise(styles, g.noise(N_PAIRS, source))) for _ in "ab")
    apart = (a - b).abs()
    apart[:, 3] = apart[:, 3].minimum(1 - apart[:, 3])
    cut = [judge.quality(g.sample(N_IMAGES, psi, generator=0)) for psi in PSI]
    return {
        "control": control.share.numpy(),
        "control_error": control.standard_error.numpy(),
        "truncation": np.array(cut),
        "noise": (apart.mean(0) / control.change).numpy(),
    }


def main() -> None:
    asked = options(__doc__, "style", SEEDS, STEPS)
    found = stored(asked.out, asked.only)
    features = new_features()
    if "features/weights" in found:
        vector_to_parameters(torch.from_numpy(found["features/weights"]).float(), numbers(features))
    else:
        features = train_features(asked.steps)
        found["features/weights"] = as_float16(features)
    judge = Judge(features.requires_grad_(False))
    found |= {
        "psi": np.array(PSI),
        "steps": np.array(asked.steps),
        "real/quality": judge.quality(2 * shapes(N_IMAGES, 3).images - 1),
        "real/factors": factors(TEST[:N_SHOWN]).numpy().astype(np.float16),
    }
    print("real", found["real/quality"].round(3), flush=True)
    runs = {name: (partial(row, name, judge=judge), n) for name, n in SEEDS.items()}
    make(asked, runs, found, whole=("weights",))


if __name__ == "__main__":
    main()
