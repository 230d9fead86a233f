"""Lecture 18's runs: what four objectives and two games find of the factors behind shapes.

    python notebooks/results/disentanglement.py     # about fifteen minutes of one core
    python notebooks/results/disentanglement.py --only "beta 1" infogan
    python notebooks/results/disentanglement.py --seeds 1 --steps 40 --out try.npz

Writes ``dgm_course/results/disentanglement.npz`` after every training. What stands in the file is
not made again, unless ``--only`` asks for it. A row for each of S seeds.

Autoencoders see the 2592 images of ``all_shapes()``, one channel, K = 5 factors: ``factor_names``
(K,). Two hidden layers of 200 ReLUs on either side, M = 6 latents, a Gaussian decoder of standard
deviation ``noise_scale`` (): with it one step of any factor is worth a code at β = 1. Batches of
64, Adam and one cycle up to 3e-3.

- ``beta B``: E_q log p(x|z) − B KL;
- ``factor G``: the ELBO minus G TC, by a discriminator that takes a step, of Adam 1e-3, before each
  of the model's (FactorVAE); ``critic G``: the same with five steps before each;
- ``tc B``: the ELBO with B times its total correlation (β-TCVAE), q(z) from the batch;
- ``capacity``: E_q log p(x|z) − ``gamma`` |KL − C|, C from 0 up to ``most`` nats.

Of each of them, R, over all images:

- ``R/terms`` (S, 3): distortion E ‖x − x̂‖² / 2σ², which is −E_q log p(x|z) but for a constant;
  rate, the mean KL(q(z|x) ‖ p(z)); total correlation of q(z), the mixture of all posteriors, by
  four draws from each. All in nats;
- ``R/metrics`` (S, 3): mutual information gap, exact; pair metric; majority vote. Chance is 0, 1/K
  and 1/K; ``R/metrics_error`` (S, 3): their standard errors on one encoder, not over seeds;
- ``R/active`` (S,): latents whose posterior mean varies by more than 0.01;
- ``R/latent_kl`` (S, M): the rate of each latent, as they come;
- ``R/information`` (S, M, K): I(z_j; v_k) / H(v_k), exact, float16;
- ``R/seconds`` (S,): of one core, to train; of ``capacity`` with its looks at the way;
- ``R/traversal`` (M, 8, 16, 16) of seed 0, uint8: latents from the dearest down, each through −2 …
  2 around the code of one image.

``CODES/codes`` (2, 2592, M) of seed 0, float16, of the runs named in ``with_codes``: posterior
means and log standard deviations of the rows of ``all_shapes()``. ``capacity/`` has also, at T
steps ``capacity_steps`` (T,): ``capacity/curve`` (S, T, 3), distortion, rate and C;
``capacity/latent_kl_curve`` (S, T, M); ``capacity/information_curve`` (S, T, M, K), float16.

``infogan``: a game with one code of three values and two on [−1, 1], on 8192 images of ``shapes``.
A sample's factors are those of the nearest image of ``all_shapes(nearest_sizes)``.

- ``infogan/information`` (S, 3, K): I(c_j; v_k) in nats, plug-in of 4000 samples, continuous codes
  in 8 classes of equal size; ``infogan/chance`` (S, 3, K): the same of codes in another order, the
  largest of 20, which dependence has to exceed;
- ``infogan/bound`` (S, 2): H(c) + E log q(c|x), and its standard error, in nats; the continuous
  codes' part has no upper limit;
- ``infogan/distance`` (S, 2): median squared distance of a sample from the nearest image, and that
  of an image of ``shapes``; ``infogan/spread`` (S, 2, K): standard deviations of the samples'
  factors, and of those of ``shapes``;
- ``infogan/agreement`` (S, 3, 3): how often c_0 = i was made and shape k is nearest, counts;
- ``infogan/grid`` (3, 3, 8, 16, 16) of seed 0, uint8: by code j, and by row: the value of c_0 for
  the categorical code with eight noises; for the others c_j through −1 … 1, rows of other noise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from by_seed import Runs, make, options, stored
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torch.nn.functional import one_hot
from torch.optim import Optimizer
from tqdm import tqdm

from dgm_course.data import all_shapes, shapes
from dgm_course.density_ratio import Network
from dgm_course.disentanglement import (
    Factors,
    annealed_capacity,
    capacity_elbo,
    factor_losses,
    latents_by_kl,
    majority_vote,
    mutual_information,
    mutual_information_gap,
    pair_metric,
    table_information,
    tcvae_elbo,
    total_correlation_loss,
    traversals,
)
from dgm_course.gan import (
    DCGANDiscriminator,
    DCGANGenerator,
    InfoGAN,
    LatentCodes,
    Player,
    game_steps,
    gradient_penalty,
)
from dgm_course.training import seed_everything, training_steps
from dgm_course.vae import GaussianVAE, active_units, kl_per_dimension, kl_terms

STEPS, BATCH, HIDDEN, Z_DIM, NOISE = 3000, 64, 200, 6, 0.25
CAPACITY_GAMMA, MOST, N_CURVE, N_DRAWS = 20.0, 8.0, 20, 4
SEEDS: dict[str, dict[float, int]] = {  # of each weight
    "beta": dict.fromkeys([1, 1.5, 2, 3, 4, 8], 5),
    "factor": {5: 5, 20: 5},
    "critic": {20: 3},
    "tc": {4: 5, 10: 5},
}
WITH_CODES = "beta 1", "factor 5"
NEAREST = (3, 4, 7, 9, 9)
WEIGHT, R1, EVERY, GAME_BATCH, ROUNDS, N_REAL = 0.3, 0.1, 4, 32, 1000, 8192
CODES, N_SAMPLES, N_CLASSES, N_ORDERS, NOISES = LatentCodes([3], 2), 4000, 8, 20, 8
DATA = all_shapes()
IMAGES = DATA.images.flatten(1)
GRID = all_shapes(NEAREST)
Objective = Callable[[GaussianVAE, Tensor, int], Tensor]  # a batch and the step to a loss


# --- autoencoders ------------------------------------------------------------------------------


def two_layers(n_in: int, n_out: int) -> nn.Sequential:
    hidden = [nn.Linear(n_in, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(HIDDEN, n_out))


def new_model() -> GaussianVAE:
    """Its first weights are four times as large as torch's: most of an image is black."""
    model = GaussianVAE(IMAGES.shape[1], Z_DIM, HIDDEN, noise_scale=NOISE)
    model.encoder = two_layers(IMAGES.shape[1], 2 * Z_DIM)
    model.decoder = two_layers(Z_DIM, IMAGES.shape[1])
    with torch.no_grad():
        model.encoder[0].weight.mul_(4)
    return model


def beta_loss(model: GaussianVAE, x: Tensor, step: int, *, beta: float) -> Tensor:
    terms = model.elbo(x)
    return beta * terms.kl - terms.reconstruction


def tc_loss(model: GaussianVAE, x: Tensor, step: int, *, beta: float) -> Tensor:
    q = model.encode(x)
    z = q.rsample()
    return -tcvae_elbo(model.log_likelihood(x, z), kl_terms(q, z), beta)


def capacity_loss(model: GaussianVAE, x: Tensor, step: int, *, rising: int) -> Tensor:
    capacity = annealed_capacity(step, rising, MOST)
    return -capacity_elbo(model.elbo(x), CAPACITY_GAMMA, capacity)


def train(objective: Objective, model: GaussianVAE, n_steps: int) -> Iterator[int]:
    """The steps that were taken, one after the other."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, fused=True)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=n_steps)
    steps = training_steps(lambda i: objective(model, batch(BATCH), i), optimizer, n_steps, cycle)
    for step, _ in enumerate(tqdm(steps, total=n_steps, leave=False), 1):
        yield step


def factor_loss(
    model: GaussianVAE,
    x: Tensor,
    step: int,
    *,
    gamma: float,
    d: nn.Module,
    critic: Optimizer,
    n: int,
) -> Tensor:
    """n steps of the discriminator on other images, then the model's loss."""
    for _ in range(n):
        critic.zero_grad()
        total_correlation_loss(model, d, batch(2 * BATCH)).mean().backward()
        critic.step()
    return factor_losses(model, d, torch.cat([x, batch(len(x))]), gamma).model


def batch(n: int) -> Tensor:
    return IMAGES[torch.randint(len(IMAGES), (n,))]


def objective_of(kind: str, weight: float, n_steps: int) -> Objective:
    if kind == "beta":
        return partial(beta_loss, beta=weight)
    if kind == "tc":
        return partial(tc_loss, beta=weight)
    if kind == "capacity":
        return partial(capacity_loss, rising=rise(n_steps))
    d = Network(Z_DIM, 100)
    critic = torch.optim.Adam(d.parameters(), lr=1e-3, fused=True)
    n = 5 if kind == "critic" else 1
    return partial(factor_loss, gamma=weight, d=d, critic=critic, n=n)


def rise(n_steps: int) -> int:
    """The step from which the capacity stays."""
    return max(1, 4 * n_steps // 5)


def autoencoder(kind: str, weight: float, *, seed: int, n_steps: int) -> dict[str, np.ndarray]:
    """One training, and all that is measured of it."""
    seed_everything(seed)
    model, looks = new_model(), []
    start = time.process_time()
    for step in train(objective_of(kind, weight, n_steps), model, n_steps):
        if kind == "capacity" and step in checkpoints(n_steps):
            looks.append(looked_at(model, step, n_steps))
    found = {"seconds": np.array(time.process_time() - start)} | measured(model)
    if looks:
        found |= {key: np.stack([look[key] for look in looks]) for key in looks[0]}
    if seed == 0:
        found["traversal"] = pictures(model)
        if f"{kind} {weight}" in WITH_CODES:
            found["codes"] = codes(model)
    return found


@torch.no_grad()
def codes(model: GaussianVAE) -> np.ndarray:
    """μ and ln σ of all images, ``(2, N, M)``."""
    q = model.encode(IMAGES).base_dist
    return np.stack([q.loc.numpy(), q.scale.log().numpy()]).astype(np.float16)


def posterior(model: GaussianVAE) -> Independent[Normal]:
    """q(z|x) of all images as it is stored: what is measured comes out again of the codes."""
    return stored_posterior(codes(model))


def stored_posterior(codes: np.ndarray) -> Independent[Normal]:
    mean, log_scale = torch.from_numpy(codes).float()
    return Independent(Normal(mean, log_scale.exp()), 1)


@torch.no_grad()
def measured(model: GaussianVAE) -> dict[str, np.ndarray]:
    q = posterior(model)
    draws = [q.sample() for _ in range(N_DRAWS)]
    apart = [(IMAGES - model.mean(z)).square().sum(1).mean() for z in draws]
    tc = [kl_terms(q, z).total_correlation.mean() for z in draws]
    kl = kl_per_dimension(q).mean(0)
    gap = mutual_information_gap(q, DATA.factors)
    three = [gap, *(m(q.mean, DATA.factors, generator=0) for m in (pair_metric, majority_vote))]
    distortion = torch.stack(apart).mean().item() / (2 * NOISE**2)
    return {
        "terms": np.array([distortion, kl.sum().item(), torch.stack(tc).mean().item()]),
        "metrics": np.array([m.value for m in three]),
        "metrics_error": np.array([m.standard_error for m in three]),
        "active": active_units(q.mean).sum().numpy(),
        "latent_kl": kl.numpy(),
        "information": of_entropy(q).numpy().astype(np.float16),
    }


def of_entropy(q: Independent[Normal]) -> Tensor:
    """I(z_j; v_k) / H(v_k), ``(M, K)``."""
    return mutual_information(q, DATA.factors) / Factors(DATA.factors).entropies()


def checkpoints(n_steps: int) -> list[int]:
    """The ends of ``N_CURVE`` equal parts of the training."""
    return sorted({max(1, round(n_steps * i / N_CURVE)) for i in range(1, N_CURVE + 1)})


@torch.no_grad()
def looked_at(model: GaussianVAE, step: int, n_steps: int) -> dict[str, np.ndarray]:
    q = posterior(model)
    kl = kl_per_dimension(q).mean(0)
    apart = (IMAGES - model.mean(q.sample())).square().sum(1).mean().item() / (2 * NOISE**2)
    capacity = annealed_capacity(step, rise(n_steps), MOST)
    return {
        "curve": np.array([apart, kl.sum().item(), capacity]),
        "latent_kl_curve": kl.numpy(),
        "information_curve": of_entropy(q).numpy().astype(np.float16),
    }


@torch.no_grad()
def pictures(model: GaussianVAE) -> np.ndarray:
    """Traversals around the code of the middle row, ``(M, 8, 16, 16)``."""
    q = posterior(model)
    moved = traversals(
        model.mean, q.mean[len(IMAGES) // 2], torch.linspace(-2, 2, 8), latents_by_kl(q).latents
    )
    return as_bytes(moved)


def as_bytes(images: Tensor) -> np.ndarray:
    """``(..., 256)`` in [0, 1] to ``(..., 16, 16)`` from 0 to 255."""
    return (255 * images.clamp(0, 1)).round().byte().unflatten(-1, (16, 16)).numpy()


# --- a game ------------------------------------------------------------------------------------


def new_game() -> InfoGAN:
    """No batch norm in the discriminator, for R1 is of each image alone; larger first weights."""
    d = DCGANDiscriminator(16, 16, norm=nn.Identity)
    for layer in d.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, 0.2)
    return InfoGAN(DCGANGenerator(16, NOISES + CODES.n_inputs, 16), d, CODES, NOISES, weight=WEIGHT)


def infogan(*, seed: int, n_steps: int) -> dict[str, np.ndarray]:
    seed_everything(seed)
    real, model = 2 * shapes(N_REAL, 0, colour=False).images - 1, new_game()
    adams = [
        torch.optim.Adam(weights, lr=2e-3, betas=(0.0, 0.99))
        for weights in (model.critic_parameters(), model.generator.parameters())
    ]

    def of_critic(step: int) -> Tensor:
        x = real[torch.randint(len(real), (GAME_BATCH,))]
        loss = model.discriminator_loss(x)
        if step % EVERY == 0:
            loss = loss + EVERY * R1 / 2 * gradient_penalty(model.discriminator, x, target=0)
        return loss

    players = (
        Player(of_critic, adams[0]),
        Player(lambda step: model.generator_loss(GAME_BATCH), adams[1]),
    )
    start, n_rounds = time.process_time(), max(1, n_steps * ROUNDS // STEPS)
    for _ in tqdm(game_steps(*players, n_rounds), total=n_rounds, leave=False):
        pass
    found = {"seconds": np.array(time.process_time() - start)}
    return found | listened_to(model.eval(), seed)


@torch.no_grad()
def listened_to(model: InfoGAN, seed: int) -> dict[str, np.ndarray]:
    made = model.make(N_SAMPLES)
    factors, distance = nearest((made.x + 1) / 2)
    real, real_distance = nearest(shapes(N_SAMPLES, 1, colour=False).images)
    orders = [torch.randperm(N_SAMPLES) for _ in range(N_ORDERS)]
    chance = np.stack([informed(made.codes[order], factors) for order in orders])
    bound = model.information(N_SAMPLES)
    agreement = torch.zeros(3, 3, dtype=torch.int64)
    where = (made.codes[:, 0].long(), factors[:, 0].long())
    agreement.index_put_(where, torch.tensor(1), accumulate=True)
    found = {
        "information": informed(made.codes, factors),
        "chance": chance.max(0),
        "bound": np.array(bound),
        "distance": np.array([distance.median(), real_distance.median()]),
        "spread": torch.stack([factors.std(0), real.std(0)]).numpy(),
        "agreement": agreement.numpy(),
    }
    if seed == 0:
        found["grid"] = walked(model)
    return found


def nearest(images: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of the image of ``GRID`` that is nearest, ``(N, K)``, and ‖x − x'‖² ``(N,)``."""
    x, grid = images.flatten(1), GRID.images.flatten(1)
    apart = torch.addmm(grid.square().sum(1), x, grid.T, alpha=-2)  # (N, G), without ‖x‖²
    least, row = apart.min(1)
    return GRID.factors[row], least + x.square().sum(1)


def informed(codes: Tensor, factors: Tensor) -> np.ndarray:
    """I(c_j; v_k) of the table of counts in nats, ``(C, K)``."""
    rank = codes[:, 1:].argsort(0).argsort(0)
    classes = torch.cat([codes[:, :1].long(), rank * N_CLASSES // len(codes)], 1)
    pairs = [[(c, v.unique(return_inverse=True)[1]) for v in factors.T] for c in classes.T]
    return np.array([[table_information(table(*pair)).item() for pair in row] for row in pairs])


def table(a: Tensor, b: Tensor) -> Tensor:
    """The shares of rows with each two values, counted from 0, float64."""
    hot = [one_hot(values).double() for values in (a, b)]
    return hot[0].T @ hot[1] / len(a)


def walked(model: InfoGAN) -> np.ndarray:
    """Samples in which one code changes, ``(3, 3, 8, 16, 16)``: see above."""
    noise = torch.randn(3, NOISES)
    grids = []
    for j in range(CODES.n_codes):
        c = torch.zeros(3, 8, CODES.n_codes)
        z = noise[:, None].expand(-1, 8, -1)
        if j == 0:
            c[:, :, 0], z = torch.arange(3.0)[:, None], torch.randn(8, NOISES).expand(3, -1, -1)
        else:
            c[:, :, j] = torch.linspace(-1, 1, 8)
        inputs = torch.cat([z.flatten(0, 1), CODES.as_inputs(c.flatten(0, 1))], 1)
        grids.append(as_bytes((model.generator(inputs) + 1).flatten(1) / 2).reshape(3, 8, 16, 16))
    return np.stack(grids)


RUNS: Runs = {
    **{
        f"{kind} {weight}": (partial(autoencoder, kind, weight), n)
        for kind, weights in SEEDS.items()
        for weight, n in weights.items()
    },
    "capacity": (partial(autoencoder, "capacity", CAPACITY_GAMMA), 3),
    "infogan": (infogan, 3),
}


def main() -> None:
    asked = options(__doc__, "disentanglement", RUNS, STEPS)
    found = stored(asked.out, asked.only) | {
        "factor_names": np.array(DATA.names),
        "noise_scale": np.array(NOISE),
        "gamma": np.array(CAPACITY_GAMMA),
        "most": np.array(MOST),
        "capacity_steps": np.array(checkpoints(asked.steps)),
        "nearest_sizes": np.array(NEAREST),
        "steps": np.array(asked.steps),
        "with_codes": np.array(WITH_CODES),
    }
    make(asked, RUNS, found, whole=("traversal", "codes", "grid"))


if __name__ == "__main__":
    main()
