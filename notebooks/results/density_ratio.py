"""FactorVAE on the digits for lecture 6: a VAE and a discriminator trained jointly.

    python notebooks/results/density_ratio.py                # under a minute of one core
    python notebooks/results/density_ratio.py --gamma 20     # that run only, the other one kept

Writes ``dgm_course/results/density_ratio.npz``. For γ = 0 and γ = 20, from the same initial
weights: ``g/steps`` (T,), and at each of these steps, in nats, ``g/discriminator`` (T,), the
average logit that the training itself uses; ``g/estimate`` (T, 2), `total_correlation` of one code
an image with its standard error; ``g/exact`` (T, 2), the same from the mixture's densities, with
the error of an average over one code an image; ``g/elbo`` (T,), the ELBO per image. ``g/samples``
(355, 64) are images drawn from the model, 0 or 1.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal
from tqdm import tqdm

from dgm_course.data import binarise, digits
from dgm_course.data.stored import RESULTS, save_results
from dgm_course.density_ratio import MLP, Network, total_correlation
from dgm_course.losses import log_loss
from dgm_course.probability import Estimate
from dgm_course.training import quick, seed_everything
from dgm_course.vae import GaussianVAE

GAMMAS = (0, 20)
Z_DIM, BATCH = 5, 128


def shuffled(z: Tensor) -> Tensor:
    """Each dimension of ``(N, M)`` permuted by itself: a sample of the product of marginals."""
    return z.gather(0, torch.rand_like(z).argsort(0))


@torch.no_grad()
def exact_total_correlation(vae: GaussianVAE, images: Tensor) -> Estimate:
    """E_q[log q(z) − Σ_j log q(z_j)], q(z) the mixture of all n posteriors, in nats."""
    q = vae.encode(images)
    z = q.sample()  # (n, M), one code an image
    each = Normal(q.base_dist.loc, q.base_dist.scale).log_prob(z[:, None])  # (n, n, M)
    joint = torch.logsumexp(each.sum(2), 1)  # (n,) + ln n
    marginals = torch.logsumexp(each, 1).sum(1)  # (n,) + M ln n
    return Estimate.from_samples(joint - marginals + (Z_DIM - 1) * math.log(len(images)))


def train(gamma: float, n_steps: int, every: int) -> dict[str, np.ndarray]:
    """VAE and discriminator, a step of each in turn; Kim & Mnih 2018, algorithm 2."""
    seed_everything(0)
    images = binarise(digits().images, "threshold", levels=17).flatten(1).float()  # (1442, 64)
    vae = GaussianVAE(64, Z_DIM, hidden=128, likelihood="bernoulli")
    critic = Network(Z_DIM, hidden=64)
    of_vae = torch.optim.Adam(vae.parameters(), lr=1e-3)
    of_critic = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.9))
    rows = []
    for step in tqdm(range(n_steps + 1), desc=f"γ = {gamma}"):
        if step % every == 0:
            with torch.no_grad():
                z, terms = vae.encode(images).sample(), vae.elbo(images)
                by_critic = critic(z).mean().item()
            estimate = total_correlation(z, MLP(n_steps=200), generator=0)
            exact = exact_total_correlation(vae, images)
            rows.append((step, by_critic, *estimate, *exact, terms.elbo.mean().item()))
        x, others = images[torch.randint(len(images), (2, BATCH))]
        q = vae.encode(x)
        z = q.rsample()
        elbo = vae.log_likelihood(x, z) - torch.distributions.kl_divergence(q, vae.prior)
        of_vae.zero_grad()
        (-elbo.mean() + gamma * critic(z).mean()).backward()  # maximise the ELBO minus γ TC
        of_vae.step()
        with torch.no_grad():
            fake = shuffled(vae.encode(others).sample())
        logits = critic(torch.cat([z.detach(), fake]))
        of_critic.zero_grad()
        log_loss(logits, torch.arange(2 * BATCH).lt(BATCH).float()).mean().backward()
        of_critic.step()
    columns = np.array(rows)
    return {
        "steps": columns[:, 0].astype(int),
        "discriminator": columns[:, 1],
        "estimate": columns[:, 2:4],
        "exact": columns[:, 4:6],
        "elbo": columns[:, 6],
        "samples": vae.sample(355).numpy().astype(np.uint8),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--gamma", type=int, action="append", choices=GAMMAS)
    parser.add_argument("--out", type=Path, default=RESULTS / "density_ratio.npz")
    options = parser.parse_args()
    if quick():
        parser.error("the results need full training; unset DGM_COURSE_QUICK")
    torch.set_num_threads(1)
    table = dict(np.load(options.out)) if options.out.exists() else {}
    for gamma in options.gamma or GAMMAS:
        found = train(gamma, options.steps, every=max(1, options.steps // 5))
        table |= {f"{gamma}/{name}": values for name, values in found.items()}
    save_results(options.out, table)


if __name__ == "__main__":
    main()
