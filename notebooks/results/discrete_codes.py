"""Lecture 13's longer runs: codes of digits over seeds, two levels, commitment, relaxed words.

    python notebooks/results/discrete_codes.py            # about fifteen minutes of one core
    python notebooks/results/discrete_codes.py --only "two levels" "commitment 1"
    python notebooks/results/discrete_codes.py --seeds 1 --steps 20 --out try.npz

Writes ``dgm_course/results/discrete_codes.npz`` after every training. What stands in the file is
not made again, unless ``--only`` asks for it. Numbers are means over the 355 test digits, in nats
unless something else is said; a row for each seed.

- ``4 × 4 of 16``, ``… of 32``, ``… of 64``, ``2 × 2 of 8`` are grids of words: ``/nats``
  (seeds, 4): −log p(x|z), then −log p(z) by a Gated PixelCNN, by a table for each place, and by
  one table for all places; ``/used`` (seeds, 2): words in use, and their perplexity;
- ``2 × 2 of 8/exact`` (seeds, 3): −log p(x) summed over all 4096 grids, −log of the largest term
  of that sum, and the share of images whose encoder picks that term;
- ``many terms of K``: the models of 4 × 4 words of K again, first seeds: ``/nats`` (seeds, 2):
  the bound from one term of the sum over z, and from 200 drawn around the encoder's output;
- ``two levels``: a VQ-VAE-2 of 2 × 2 words of 16 above 4 × 4 words of 16: ``/nats`` (seeds, 4):
  −log p(x|t, b), −log p(t), −log p(b|t) by Gated PixelCNNs, −log p(b) by one that is not told t;
  ``/shuffled`` (seeds, 2): −log p(x|t, b) with another image's t, and with another's b;
  ``/pictures`` (4, 8, 8, 8) of the first seed: digits, reconstructions, with the next digit's t,
  with the next digit's b; levels, uint8;
- ``commitment B``: 4 × 4 words of 32 trained with β = B: ``/seen`` (seeds, 4): −log p(x|z),
  perplexity, the mean of ‖h‖, the mean of ‖h − e‖²;
- ``relaxed T``: a discrete VAE of 2 × 2 words of 8, trained at temperature T: ``/elbo``
  (seeds, 3): the relaxed objective, the exact ELBO, the exact log p(x), under a uniform p(z).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from by_seed import Runs, make, options
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from dgm_course.autoregressive import GatedPixelCNN, IndependentPixels, Uniform
from dgm_course.codes import VQVAE, VQVAE2, Codes, DiscreteVAE, VectorQuantizer, all_grids
from dgm_course.data import digits
from dgm_course.training import seed_everything, training_steps

LEVELS, STAGE_1, STAGE_2 = 17, 700, 400
SHARPNESS, DRAWS = 0.3, 200
BETAS = (0, 0.02, 0.25, 1, 4, 16, 64, 256, 1024)
TEMPERATURES = (0.25, 0.5, 1, 2, 5)
TRAIN, TEST = digits("train").images, digits("test").images


def train(model: torch.nn.Module, loss: Callable[[], Tensor], n_steps: int, lr: float) -> None:
    """Adam, learning rate up to lr and down again; the model is then left as it is."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=n_steps)
    steps = training_steps(lambda _: loss(), optimizer, n_steps, scheduler, max_grad_norm=1.0)
    for _ in tqdm(steps, total=n_steps, unit="step", leave=False):
        pass
    model.eval().requires_grad_(False)


def batch(x: Tensor) -> Tensor:
    return x[torch.randint(len(x), (64,))]


def quantizer(n_codes: int, commitment: float = 0.25) -> VectorQuantizer:
    return VectorQuantizer(n_codes, 8, decay=0.95, commitment=commitment, restart=0.1)


def stage_1(
    n_codes: int,
    n_halvings: int = 1,
    *,
    commitment: float = 0.25,
    seed: int = 0,
    n_steps: int = STAGE_1,
) -> VQVAE:
    """A VQ-VAE whose words start on 256 images' features."""
    seed_everything(seed)
    model = VQVAE(LEVELS, quantizer(n_codes, commitment), n_halvings=n_halvings)
    model.quantizer.initialise(model.features(TRAIN[:256]).detach())
    train(model, lambda: model.terms(batch(TRAIN)).loss, n_steps, 5e-3)
    return model


def stage_2(z: Tensor, n_codes: int, n_steps: int = STAGE_2) -> GatedPixelCNN:
    """A prior of grids."""
    prior = GatedPixelCNN(n_codes, n_features=16, n_layers=3)
    train(prior, lambda: -prior.log_prob(batch(z)), n_steps, 1e-2)
    return prior


def unigram(z: Tensor, n_codes: int) -> Tensor:
    """log p of every word, wherever it stands, (K,)."""
    counts = torch.bincount(z.flatten(), minlength=n_codes) + 1
    return (counts / counts.sum()).log()


def mean(log_p: Tensor) -> float:
    return -log_p.mean().item()


@torch.no_grad()
def grid(n_codes: int, n_halvings: int, seed: int, n_steps: int) -> dict[str, np.ndarray]:
    model = stage_1(n_codes, n_halvings, seed=seed, n_steps=n_steps)
    z, z_test = model.encode(TRAIN), model.encode(TEST)
    prior = stage_2(z, n_codes, min(n_steps, STAGE_2))
    table = IndependentPixels(z, n_codes)
    nats = [mean(model.terms(TEST).reconstruction), mean(prior.log_prob(z_test))]
    nats += [mean(table.log_prob(z_test)), mean(unigram(z, n_codes)[z_test].sum((1, 2, 3)))]
    used = [model.quantizer.usage(z_test), model.quantizer.perplexity(z_test)]
    found = {"nats": np.array(nats), "used": np.array(used)}
    if n_codes ** z[0].numel() <= 100_000:
        joint = model.log_joint(TEST, all_grids(n_codes, tuple(z.shape[2:])), prior)  # (G, N)
        best = joint.amax(0)
        picked = (model.log_prob_bound(TEST, prior) > best - 1e-4).float().mean().item()
        found["exact"] = np.array([mean(joint.logsumexp(0)), mean(best), picked])
    return found


@torch.no_grad()
def many_terms(n_codes: int, seed: int, n_steps: int) -> dict[str, np.ndarray]:
    """The importance-weighted bound, words drawn with probabilities that fall with distance."""
    model = stage_1(n_codes, seed=seed, n_steps=n_steps)
    prior = stage_2(model.encode(TRAIN), n_codes, min(n_steps, STAGE_2))
    apart = torch.cdist(model.features(TEST), model.quantizer.codebook).square()  # (N, 4, 4, K)
    log_q, terms = (-SHARPNESS * apart).log_softmax(-1), []
    for _ in range(DRAWS):
        z = torch.multinomial(log_q.exp().flatten(0, 2), 1).view(-1, 1, 4, 4)
        log_q_z = log_q.gather(-1, z[:, 0, ..., None]).sum((1, 2, 3))
        log_p = -cross_entropy(model.decode(z), TEST, reduction="none").sum((1, 2, 3))
        terms.append(log_p + prior.log_prob(z) - log_q_z)
    many = torch.stack(terms).logsumexp(0) - math.log(DRAWS)
    return {"nats": np.array([mean(model.log_prob_bound(TEST, prior)), mean(many)])}


def two_levels(seed: int, n_steps: int) -> dict[str, np.ndarray]:
    seed_everything(seed)
    model = VQVAE2(LEVELS, quantizer(16), quantizer(16))
    train(model, lambda: model.terms(batch(TRAIN)).loss, n_steps, 5e-3)
    return levels(model, min(n_steps, STAGE_2)) | (pictures(model) if seed == 0 else {})


def levels(model: VQVAE2, n_steps: int) -> dict[str, np.ndarray]:
    """The four costs of a test digit, and what is left without one of the levels."""
    codes, seen = model.encode(TRAIN), model.encode(TEST)
    p_top, alone = stage_2(codes.top, 16, n_steps), stage_2(codes.bottom, 16, n_steps)
    told = GatedPixelCNN(16, n_features=16, n_layers=3, n_context=8)

    def loss() -> Tensor:
        i = torch.randint(len(TRAIN), (64,))
        return -told.log_prob(codes.bottom[i], context=model.context(codes.top[i]))

    train(told, loss, n_steps, 1e-2)
    with torch.no_grad():
        at_bottom = told.log_prob(seen.bottom, context=model.context(seen.top))
        nats = [log_p(model, seen), mean(p_top.log_prob(seen.top)), mean(at_bottom)]
        nats.append(mean(alone.log_prob(seen.bottom)))
        swapped = [Codes(seen.top.roll(1, 0), seen.bottom), Codes(seen.top, seen.bottom.roll(1, 0))]
        shuffled = np.array([log_p(model, codes) for codes in swapped])
    return {"nats": np.array(nats), "shuffled": shuffled}


def log_p(model: VQVAE2, codes: Codes) -> float:
    logits = model.decode(codes)
    return cross_entropy(logits, TEST, reduction="none").sum((1, 2, 3)).mean().item()


@torch.no_grad()
def pictures(model: VQVAE2) -> dict[str, np.ndarray]:
    x = torch.stack([TEST[digits("test").labels == label][0] for label in range(8)])
    t, b = model.encode(x)
    ways = [Codes(t, b), Codes(t.roll(-1, 0), b), Codes(t, b.roll(-1, 0))]
    drawn = [x, *(model.decode(codes).argmax(1) for codes in ways)]
    return {"pictures": torch.stack(drawn)[:, :, 0].numpy().astype(np.uint8)}


@torch.no_grad()
def commitment(beta: float, seed: int, n_steps: int) -> dict[str, np.ndarray]:
    model = stage_1(32, commitment=beta, seed=seed, n_steps=min(n_steps, 400))
    h, z = model.features(TEST), model.encode(TEST)
    off = (h - model.quantizer.codes(z[:, 0])).square().sum(-1).mean().item()
    seen = [mean(model.terms(TEST).reconstruction), model.quantizer.perplexity(z)]
    return {"seen": np.array([*seen, h.norm(dim=-1).mean().item(), off])}


@torch.no_grad()
def relaxed(temperature: float, seed: int, n_steps: int) -> dict[str, np.ndarray]:
    seed_everything(seed)
    model, uniform = DiscreteVAE(LEVELS, 8, n_halvings=2), Uniform(8)
    loss = lambda: -model.relaxed_terms(batch(TRAIN), temperature).elbo  # noqa: E731
    train(model, loss, n_steps, 3e-3)
    drawn = torch.stack([model.relaxed_terms(TEST, temperature).elbo.mean() for _ in range(20)])
    exact = model.elbo_by_enumeration(TEST).elbo.mean().item()
    return {"elbo": np.array([drawn.mean(), exact, -mean(model.log_prob(TEST, uniform))])}


RUNS: Runs = {
    "4 × 4 of 16": (partial(grid, 16, 1), 10),
    "4 × 4 of 32": (partial(grid, 32, 1), 10),
    "4 × 4 of 64": (partial(grid, 64, 1), 10),
    "2 × 2 of 8": (partial(grid, 8, 2), 10),
    **{f"many terms of {k}": (partial(many_terms, k), 3) for k in (16, 32, 64)},
    "two levels": (two_levels, 5),
    **{f"commitment {b:g}": (partial(commitment, b), 6) for b in BETAS},
    **{f"relaxed {t:g}": (partial(relaxed, t), 3) for t in TEMPERATURES},
}


def main() -> None:
    make(options(__doc__, "discrete_codes", RUNS, STAGE_1), RUNS)


if __name__ == "__main__":
    main()
