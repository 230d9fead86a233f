"""Lecture 15's longer runs: what each technique does to lost modes, and arithmetic with codes.

    python notebooks/results/gans.py                 # about twenty minutes of one core
    python notebooks/results/gans.py --only "grid plain" attributes
    python notebooks/results/gans.py --seeds 1 --steps 150 --out try.npz

Writes ``dgm_course/results/gans.npz`` after every training. What stands in the file is not made
again, unless ``--only`` asks for it. A row for each seed.

- ``grid T``: the game on 25 Gaussians with technique T; ``ring T``: on eight with the weights
  1 : 2 : 4 : 8, twice round. ``/found`` (seeds, 3): modes covered of 2500 samples, their share
  within 3 σ of a mode, and ½ Σ |weight found − weight| over the modes; ``/samples``
  (seeds, 300, 2) of the first four seeds, float16;
- ``grid data``, ``ring data``: the same of samples of the mixture itself;
- ``attributes``: a DCGAN of faint and bright digits at the left and the right of a canvas; the
  first row is of the side, the second of the brightness. ``/linear`` (seeds, 2, 2): the share of
  held-out samples that a logistic regression on their codes gets right, and the larger class;
  ``/border`` (seeds,): the same of brightness, by the distance of a code from the side's border;
  ``/sums`` (seeds, 2, 2): means of three codes each, bright right − bright left + faint left, and
  bright left − faint left + faint right: the share whose attribute changes, and that keeps the
  other; ``/moved`` (seeds, 2, 2): codes of left (faint) samples + the mean of all right (bright)
  − the mean of all left (faint): the share that changes, and whose digit stays;
  ``/pictures`` (2, 4, 8, 8, 16) of the first seed: the sums' three terms and results, uint8.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from by_seed import Runs, make, options
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily
from tqdm import tqdm

from dgm_course.data import eight_gaussians_density, gaussian_grid_density
from dgm_course.data.captions import CaptionJudge, captioned_digits
from dgm_course.gan import (
    DCGANDiscriminator,
    DCGANGenerator,
    HistoricalAverage,
    MinibatchDiscrimination,
    Player,
    ReferenceBatch,
    VirtualBatchNorm,
    discriminator_loss,
    feature_matching_loss,
    game_steps,
    generator_loss,
    gradient_penalty,
    mode_report,
)
from dgm_course.training import seed_everything

STEPS, BATCH = 1500, 128
TECHNIQUES = (
    "plain",
    "saturating",
    "one-sided smoothing",
    "two-sided smoothing",
    "feature matching",
    "historical averaging",
    "R1 penalty",
    "minibatch discrimination",
    "virtual batch norm",
    "plain, β₂ = 0.999",
)
EIGHT = eight_gaussians_density(scale=0.1).component_distribution
TARGETS = {
    "grid": gaussian_grid_density(),
    "ring": MixtureSameFamily(Categorical(torch.tensor([1.0, 2, 4, 8, 1, 2, 4, 8])), EIGHT),
}


class Discriminator(nn.Module):
    """Two hidden layers of 64; the second may be normalised, or look sideways."""

    def __init__(self, technique: str) -> None:
        super().__init__()
        sideways, normalised = (technique == TECHNIQUES[i] for i in (7, 8))
        norm = VirtualBatchNorm(64, 64) if normalised else nn.Identity()
        hidden = [nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), norm, nn.ReLU()]
        self.features = nn.Sequential(*hidden)
        look = MinibatchDiscrimination(64, 4, 4) if sideways else nn.Identity()
        self.head = nn.Sequential(look, nn.Linear(68 if sideways else 64, 1), nn.Flatten(0))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def generator() -> nn.Sequential:
    layers = [nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)]
    return nn.Sequential(*layers)


def adam(model: nn.Module, lr: float, memory: float = 0.9) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), lr=lr, betas=(0.5, memory))


def modes(target: str, technique: str, *, seed: int, n_steps: int) -> dict[str, np.ndarray]:
    """One game on a mixture, and what its generator has found."""
    seed_everything(seed)
    mixture = TARGETS[target]
    g, d = generator(), Discriminator(technique)
    judge = d
    if technique == "virtual batch norm":
        judge = ReferenceBatch(d, mixture.sample((64,)))
    data = mixture.sample((BATCH * n_steps,)).split(BATCH)
    smoothing = {"one-sided smoothing": (0.1, 0.0), "two-sided smoothing": (0.1, 0.1)}
    alpha, beta = smoothing.get(technique, (0.0, 0.0))
    pulls = [HistoricalAverage(model.parameters()) for model in (d, g)]
    remembered = 0.01 * (technique == "historical averaging")

    def fake() -> Tensor:
        return g(torch.randn(BATCH, 2))

    def of_discriminator(step: int) -> Tensor:
        loss = discriminator_loss(judge(data[step]), judge(fake()), alpha=alpha, beta=beta)
        if technique == "R1 penalty":
            loss = loss + 0.5 * gradient_penalty(judge, data[step], target=0)
        return loss + remembered * pulls[0]() if remembered else loss

    def of_generator(step: int) -> Tensor:
        if technique == "feature matching":
            return feature_matching_loss(d.features(data[step]), d.features(fake()))
        loss = generator_loss(judge(fake()), saturating=technique == "saturating")
        return loss + remembered * pulls[1]() if remembered else loss

    memory = 0.999 if technique == TECHNIQUES[9] else 0.9
    of_d, of_g = adam(d, 1e-3, memory), adam(g, 1e-3, memory)
    players = Player(of_discriminator, of_d), Player(of_generator, of_g)
    shown(game_steps(*players, n_steps), n_steps)
    with torch.no_grad():
        return report(g(torch.randn(2500, 2)), mixture, seed)


def report(x: Tensor, mixture: MixtureSameFamily, seed: int) -> dict[str, np.ndarray]:
    found = mode_report(x, mixture)
    off = (found.weights - mixture.mixture_distribution.probs).abs().sum().item() / 2
    samples = {"samples": x[:300].numpy().astype(np.float16)} if seed < 4 else {}
    return {"found": np.array([found.n_covered, found.share, off])} | samples


def from_data(target: str, *, seed: int, n_steps: int) -> dict[str, np.ndarray]:
    seed_everything(seed)
    return report(TARGETS[target].sample((2500,)), TARGETS[target], seed)


def shown(steps: Iterator[object], n_steps: int) -> None:
    for _ in tqdm(steps, total=n_steps, unit="step", leave=False):
        pass


def attributes(*, seed: int, n_steps: int) -> dict[str, np.ndarray]:
    """A DCGAN of canvases, 8 × 16 in the middle of 16 × 16, and sums of its codes."""
    seed_everything(seed)
    images = captioned_digits("train", "all").images
    data = torch.full((len(images), 1, 16, 16), -1.0)
    data[:, :, 4:12] = images / 8 - 1
    g, d = DCGANGenerator(16), DCGANDiscriminator(16)

    def fake() -> Tensor:
        return g(torch.randn(64, g.z_dim))

    def of_discriminator(step: int) -> Tensor:
        return discriminator_loss(d(data[torch.randint(len(data), (64,))]), d(fake()))

    players = (
        Player(of_discriminator, adam(d, 2e-4, 0.999)),
        Player(lambda step: generator_loss(d(fake())), adam(g, 2e-4, 0.999)),
    )
    shown(game_steps(*players, n_steps), n_steps)
    return arithmetic(g.eval().requires_grad_(False), seed)


def arithmetic(g: DCGANGenerator, seed: int) -> dict[str, np.ndarray]:
    judge = CaptionJudge()

    def drawn(z: Tensor) -> Tensor:  # canvases of levels
        return ((g(z)[:, :, 4:12] + 1) * 8).round().long()

    def said(z: Tensor) -> tuple[Tensor, Tensor]:  # (right, bright) (N, 2); the digit (N,)
        tokens = judge(drawn(z))
        return torch.stack([tokens[:, 2] == 13, tokens[:, 0] == 1], 1), tokens[:, 1]

    def share(which: Tensor) -> float:
        return which.float().mean().item()

    z = torch.randn(6000, g.z_dim)
    is_so, digit = said(z)

    def threes(right: int, bright: int) -> Tensor:  # means of three codes
        group = z[(is_so == torch.tensor([right, bright])).all(1)]
        if len(group) == 0:
            raise RuntimeError("a generator without such samples: take more --steps")
        return group[torch.randint(len(group), (500, 3))].mean(1)

    rows = {
        "side": (threes(1, 1), threes(0, 1), threes(0, 0)),
        "brightness": (threes(0, 1), threes(0, 0), threes(1, 0)),
    }
    linear, sums, moved, pictures = [], [], [], []
    for i, (to, from_, other) in enumerate(rows.values()):
        y = is_so[:, i]
        fitted = LogisticRegression().fit(z[:4000].numpy(), y[:4000].numpy())
        right = fitted.score(z[4000:].numpy(), y[4000:].numpy())
        if i == 0:  # how far a code is from the border between left and right
            far = np.abs(fitted.decision_function(z.numpy()))[:, None]
        linear.append([right, max(share(y[4000:]), 1 - share(y[4000:]))])
        came, _ = said(result := to - from_ + other)
        sums.append([share(came[:, i]), share(came[:, 1 - i] == bool(i))])
        came, same = said(z[~y] + z[y].mean(0) - z[~y].mean(0))
        moved.append([share(came[:, i]), share(same == digit[~y])])
        pictures.append(torch.stack([drawn(v[:8]) for v in (to, from_, other, result)])[:, :, 0])
    bright = is_so[:, 1].numpy()
    by_far = LogisticRegression().fit(far[:4000], bright[:4000]).score(far[4000:], bright[4000:])
    found = {
        "border": np.array(by_far),
        "linear": np.array(linear),
        "sums": np.array(sums),
        "moved": np.array(moved),
    }
    if seed == 0:
        found["pictures"] = torch.stack(pictures).numpy().astype(np.uint8)
    return found


RUNS: Runs = {
    **{f"{target} data": (partial(from_data, target), 10) for target in TARGETS},
    **{f"{k} {t}": (partial(modes, k, t), 10) for t in TECHNIQUES for k in TARGETS},
    "attributes": (attributes, 3),
}


def main() -> None:
    make(options(__doc__, "gans", RUNS, STEPS), RUNS)


if __name__ == "__main__":
    main()
