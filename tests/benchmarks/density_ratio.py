"""Lectures 6 and 19: the log-ratio beside the densratio package (uLSIF), its growth; AVB's rounds.

densratio takes about a second a thousand samples here: it is run once a dimension. Rows of errors
have no time: "ours" and "its" are root mean squared errors of the log-ratio, in thousandths.
"""

from __future__ import annotations

import contextlib
import io
import time

import numpy as np
import torch
from densratio import densratio
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from dgm_course.density_ratio import AVB, DensityRatio, ImplicitPosterior, Logistic, PairCritic
from dgm_course.gan import Player, play
from dgm_course.vae import ToyModel
from tests.benchmarks.harness import Row, in_turn

DIMENSIONS, N = (1, 2, 10), 5000


def samples(dim: int, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """N(e₁, I) and N(0, I): the log-ratio is x₁ − ½."""
    generator = torch.Generator().manual_seed(seed)
    x_p, x_q = torch.randn(2, n, dim, generator=generator, dtype=torch.float64)
    x_p[:, 0] += 1
    return x_p, x_q


def error(log_ratio: np.ndarray, x: Tensor) -> float:
    return float(np.sqrt(np.mean((log_ratio - (x[:, 0].numpy() - 0.5)) ** 2)))


def beside_densratio() -> list[Row]:
    """Ours against uLSIF (α = 0: the plain ratio) with its own choice of width and penalty."""
    rows = []
    for dim in DIMENSIONS:
        x_p, x_q = samples(dim, N)
        fresh = torch.cat(samples(dim, 2000, seed=1))
        start = time.perf_counter()
        ours = DensityRatio(generator=0).fit(x_p, x_q)
        middle = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            theirs = densratio(x_p.numpy(), x_q.numpy(), alpha=0, verbose=False)
        end = time.perf_counter()
        # uLSIF's ratio can be 0 or below, where its logarithm is not a number.
        ratio = np.maximum(theirs.compute_density_ratio(fresh.numpy()), 1e-3)
        errors = error(ours.log_ratio(fresh).numpy(), fresh), error(np.log(ratio), fresh)
        what = f"{N:,} samples each in {dim}-D"
        rows += [
            Row(f"density ratio, {what}: fit", middle - start, end - middle, "densratio", 0.2),
            Row(f"density ratio, {what}: log-ratio error", *errors, "densratio", 0.5),
        ]
    return rows


def growth() -> list[Row]:
    """Four times the samples in at most about four times the time: the cost is linear.

    One classifier for both: the default may choose another one at another size.
    """
    small, large = samples(2, 25_000), samples(2, 100_000)
    times = in_turn(
        {
            "small": lambda: DensityRatio(Logistic(2), generator=0).fit(*small),
            "large": lambda: DensityRatio(Logistic(2), generator=0).fit(*large),
        },
        rounds=2,
    )
    what = "density ratio in 2-D, 100,000 samples each"
    return [Row(what, times["large"], times["small"], "25,000 samples each", 6)]


def bayes_rounds() -> list[Row]:
    """50 rounds of AVB on the banana, three critic's steps each, beside a loop written out."""
    model, x, n, size = ToyModel("banana", 0.3), torch.ones(1, 1), 50, 256

    def networks() -> tuple[ImplicitPosterior, PairCritic, list[torch.optim.Adam]]:
        q, critic = ImplicitPosterior(1, 2), PairCritic(1, 2)
        return q, critic, [torch.optim.Adam(net.parameters(), 2e-3) for net in (critic, q)]

    def ours() -> None:
        q, critic, (one, two) = networks()
        avb = AVB(model.log_likelihood, q, critic, model.prior)
        players = (
            Player(lambda step: avb.critic_loss(x, size), one),
            Player(lambda step: avb.posterior_loss(x, size), two),
        )
        play(*players, n, n_critic=3, progress=False)

    def bare() -> None:
        q, critic, (one, two) = networks()
        given = x.expand(size, 1)

        def draw() -> Tensor:
            noise = torch.randn(size, 4)
            return q.straight(noise) + q.bent(torch.cat([given, noise], 1))

        def logit(z: Tensor) -> Tensor:
            return critic.network(torch.cat([given, z, z**2], 1))

        def step(loss: Tensor, optimizer: torch.optim.Adam, net: nn.Module) -> None:
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1e9)
            optimizer.step()

        for _ in range(n):
            for _ in range(3):
                z = draw().detach()
                loss = -logsigmoid(logit(z)) - logsigmoid(-logit(torch.randn(size, 2)))
                step(loss.mean(), one, critic)
            z = draw()
            error = (1 - z[:, 1] + z[:, 0] ** 2) / 0.3
            step((logit(z) + error**2 / 2).mean(), two, q)

    times = in_turn({"ours": ours, "bare": bare}, rounds=8, of_all=min)
    what = f"AVB: {n} rounds of three critic's steps, {size} draws"
    return [Row(what, times["ours"], times["bare"], "a bare loop", 1.1)]


SECTIONS = (beside_densratio, growth, bayes_rounds)
