"""Lecture 18: FactorVAE's step beside pythae's of the same networks, and the seconds of metrics."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pythae.models import FactorVAE, FactorVAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseDiscriminator, BaseEncoder
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from dgm_course.checks import unchecked_values
from dgm_course.disentanglement import (
    factor_losses,
    majority_vote,
    mutual_information_gap,
    pair_metric,
)
from dgm_course.vae import GaussianVAE
from tests.benchmarks.harness import Row, in_turn

X_DIM, HIDDEN, Z_DIM, BATCH, GAMMA = 256, 200, 6, 64, 10.0
SIZES, SCALE = (3, 4, 6, 6, 6), 0.03
PAIRS = 96_000
SECONDS = 2.0


def network(n_in: int, n_out: int) -> nn.Sequential:
    """Two hidden layers, as on the shapes of lecture 18."""
    return nn.Sequential(
        nn.Linear(n_in, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(),
        nn.Linear(HIDDEN, n_out),
    )  # fmt: skip


def critic(n_outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(Z_DIM, 100), nn.LeakyReLU(0.2), nn.Linear(100, 100), nn.LeakyReLU(0.2),
        nn.Linear(100, n_outputs),
    )  # fmt: skip


class PythaeEncoder(BaseEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.layers = network(X_DIM, 2 * Z_DIM)

    def forward(self, x: Tensor) -> ModelOutput:
        mean, log_variance = self.layers(x).chunk(2, dim=1)
        return ModelOutput(embedding=mean, log_covariance=log_variance)


class PythaeDecoder(BaseDecoder):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*network(Z_DIM, X_DIM), nn.Sigmoid())

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.layers(z))


class PythaeCritic(BaseDiscriminator):
    """Two scores a code, of which pythae takes the difference; its own has 4 million weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = critic(2)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


def pythae_step(x: Tensor) -> Callable[[], None]:
    """Two optimisers, as its AdversarialTrainer has them: each loss is carried back on its own."""
    config = FactorVAEConfig(
        input_dim=(X_DIM,), latent_dim=Z_DIM, reconstruction_loss="bce", gamma=GAMMA
    )
    model = FactorVAE(config, encoder=PythaeEncoder(), decoder=PythaeDecoder())
    model.set_discriminator(PythaeCritic())
    own = [*model.encoder.parameters(), *model.decoder.parameters()]
    first = torch.optim.Adam(own, lr=1e-3, fused=True)
    second = torch.optim.Adam(model.discriminator.parameters(), lr=1e-3, fused=True)

    def take() -> None:
        out = model({"data": x})
        first.zero_grad()
        out.autoencoder_loss.backward(retain_graph=True)
        second.zero_grad()
        out.discriminator_loss.backward()
        first.step()
        second.step()

    return take


def our_step(x: Tensor) -> Callable[[], None]:
    model = GaussianVAE(X_DIM, Z_DIM, HIDDEN, likelihood="bernoulli")
    model.encoder, model.decoder = network(X_DIM, 2 * Z_DIM), network(Z_DIM, X_DIM)
    discriminator = nn.Sequential(*critic(1), nn.Flatten(0))
    players = [*model.parameters(), *discriminator.parameters()]
    optimizer = torch.optim.Adam(players, lr=1e-3, fused=True)

    def take() -> None:
        losses = factor_losses(model, discriminator, x, GAMMA)
        optimizer.zero_grad()
        (losses.model + losses.discriminator).mean().backward()
        optimizer.step()

    return take


def factor_step() -> list[Row]:
    """Least of interleaved readings, without checks of values; one optimiser, fused, for both."""
    torch.manual_seed(0)
    x = (torch.rand(BATCH, X_DIM) < 0.2).float()
    functions = {"ours": our_step(x), "pythae": pythae_step(x)}
    with unchecked_values():
        times = in_turn(functions, rounds=2000, of_all=min)
    what = (
        f"FactorVAE step with its discriminator, {X_DIM}-{HIDDEN}-{HIDDEN}-{Z_DIM}, batch {BATCH}"
    )
    return [Row(what, times["ours"], times["pythae"], "pythae, same networks", 0.8)]


def metrics() -> list[Row]:
    """On 2592 rows of five factors turned into one another, where nothing is easy."""
    torch.manual_seed(0)
    factors = torch.cartesian_prod(*[torch.arange(n) for n in SIZES])
    z = factors.double()
    turn, _ = torch.linalg.qr(torch.randn(5, 5).double())
    z = (z - z.mean(0)) / z.std(0) @ turn.T
    q = Independent(Normal(z, SCALE), 1)
    functions: dict[str, Callable[[], object]] = {
        f"pair metric of {PAIRS:,} pairs": lambda: pair_metric(z, factors, generator=0),
        "majority vote of 1500 votes": lambda: majority_vote(z, factors, generator=0),
        "exact gap of 5 latents, 2592 rows": lambda: mutual_information_gap(q, factors),
    }
    times = in_turn(functions, rounds=3, of_all=min)
    return [Row(what, t, SECONDS, f"{SECONDS:g} s", 1.0) for what, t in times.items()]


SECTIONS = (factor_step, metrics)
