"""Lecture 3: a VAE's training step beside a bare loop over the same network, and pythae."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from dgm_course.checks import unchecked_values
from dgm_course.training import training_steps
from dgm_course.vae import GaussianVAE
from tests.benchmarks.harness import Row, in_turn

X_DIM, HIDDEN, Z_DIM, BATCH = 784, 400, 20, 128


class BareVAE(nn.Module):
    """What a tutorial writes: layers, and one loss."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(X_DIM, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * Z_DIM)
        )
        self.decoder = nn.Sequential(nn.Linear(Z_DIM, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, X_DIM))

    def forward(self, x: Tensor) -> Tensor:
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        error = binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()
        return (error + kl) / len(x)


class PythaeEncoder(BaseEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(X_DIM, HIDDEN), nn.ReLU())
        self.embedding, self.log_var = nn.Linear(HIDDEN, Z_DIM), nn.Linear(HIDDEN, Z_DIM)

    def forward(self, x: Tensor) -> ModelOutput:
        h = self.hidden(x)
        return ModelOutput(embedding=self.embedding(h), log_covariance=self.log_var(h))


class PythaeDecoder(BaseDecoder):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(Z_DIM, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, X_DIM), nn.Sigmoid()
        )

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.layers(z))


def plain_steps(loss: Callable[[], Tensor], model: nn.Module) -> Callable[[], None]:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def take() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return take


def training_step() -> list[Row]:
    """One loop for all, without checks of values, as in `fit`; and ours in the course's loop."""
    torch.manual_seed(0)
    x = (torch.rand(BATCH, X_DIM) < 0.2).float()
    ours, looped = (GaussianVAE(X_DIM, Z_DIM, HIDDEN, likelihood="bernoulli") for _ in range(2))
    optimizer = torch.optim.Adam(looped.parameters(), lr=1e-3)
    steps: Iterator[float] = training_steps(lambda _: -looped.elbo(x).elbo, optimizer, 10**6)
    bare = BareVAE()
    config = VAEConfig(input_dim=(X_DIM,), latent_dim=Z_DIM, reconstruction_loss="bce")
    pythae = VAE(config, encoder=PythaeEncoder(), decoder=PythaeDecoder())
    functions: dict[str, Callable[[], object]] = {
        "ours": plain_steps(lambda: -ours.elbo(x).elbo.mean(), ours),
        "a bare loop": plain_steps(lambda: bare(x), bare),
        "ours, fit": lambda: next(steps),
        "pythae": plain_steps(lambda: pythae({"data": x}).loss, pythae),
    }
    with unchecked_values():
        times = in_turn(functions)
    what = f"VAE training step, {X_DIM}-{HIDDEN}-{Z_DIM}, batch {BATCH}"
    in_fit = f"{what}, in fit with its checks"
    return [
        Row(what, times["ours"], times["a bare loop"], "a bare loop", 1.15),
        Row(what, times["ours"], times["pythae"], "pythae", 1.0),
        Row(in_fit, times["ours, fit"], times["a bare loop"], "a bare loop", None),
    ]


SECTIONS = (training_step,)
