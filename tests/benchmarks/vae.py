"""Lecture 3: a VAE's training step beside a bare loop over the same network, and pythae.

Lecture 9: the memory of L_50's gradient, and log p(x) of the test digits by quadrature.

Lecture 10: a training step with a flow in the posterior, beside the same without, and normflows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import normflows
import torch
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from dgm_course.checks import unchecked_values
from dgm_course.flows import PlanarFlow
from dgm_course.training import training_steps
from dgm_course.vae import FlowPosterior, GaussianVAE, log_prob_by_quadrature
from tests.benchmarks.harness import Row, alone, in_turn

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


LEVELS = """
import torch
from dgm_course.vae import GaussianVAE, importance_weighted_bound
torch.set_num_threads(1)
torch.manual_seed(0)
model = GaussianVAE(64, 2, 64, likelihood="categorical", n_levels=17)
x = torch.randint(17, (128, 64))
def gradient(k):
    importance_weighted_bound(model, x, k, estimator="{estimator}").mean().backward()
gradient(1)
"""
PEAK_MB = 250


def importance_weighted() -> list[Row]:
    """A fresh interpreter each: one gradient of L_50."""
    peaks = {e: alone(LEVELS.format(estimator=e), "gradient(50)")[1] for e in ("plain", "dreg")}
    where = "as MB, not ms: peak of a gradient of L_50, batch 128, 64 × 17 levels"
    return [
        Row(f"{where}, {e}", peak / 1e3, PEAK_MB / 1e3, f"{PEAK_MB} MB", 1)
        for e, peak in peaks.items()
    ]


def quadrature() -> list[Row]:
    """355 points, as many as there are test digits."""
    torch.manual_seed(0)
    rows = []
    for likelihood, n_levels in (("bernoulli", None), ("categorical", 17)):
        model = GaussianVAE(64, 2, 64, likelihood=likelihood, n_levels=n_levels)
        x = torch.randint(n_levels or 2, (355, 64))
        start = time.perf_counter()
        log_prob_by_quadrature(model, x)
        seconds = time.perf_counter() - start
        what = f"log p(x) of 355 images of 64 pixels, 401² nodes, {likelihood}"
        rows.append(Row(what, seconds, 8.0, "8 s", 1))
    return rows


def normflows_vae(x_dim: int, hidden: int, z_dim: int, n_layers: int) -> nn.Module:
    """Its planar layers are shared by all x, a smaller task than ours."""
    encoder = normflows.nets.MLP([x_dim, hidden, 2 * z_dim])
    decoder = normflows.nets.MLP([z_dim, hidden, x_dim])
    return normflows.NormalizingFlowVAE(
        normflows.distributions.DiagGaussian(z_dim, trainable=False),
        normflows.distributions.NNDiagGaussian(encoder),
        [normflows.flows.Planar((z_dim,)) for _ in range(n_layers)],
        normflows.distributions.NNBernoulliDecoder(decoder),
    )


def flow_posterior_step() -> list[Row]:
    """Eight amortised planar layers, at the digits' size and at MNIST's; no checks of values.

    At MNIST's size the product that gives each x its layers takes most of the time: normflows has
    none, so that its ratio is only shown.
    """
    rows = []
    for x_dim, hidden, z_dim, most, of_normflows in (
        (64, 64, 2, 2.5, 0.8),
        (784, 400, 40, 1.6, None),
    ):
        torch.manual_seed(0)
        x = (torch.rand(BATCH, x_dim) < 0.2).float()
        plain, inner = (GaussianVAE(x_dim, z_dim, hidden, likelihood="bernoulli") for _ in range(2))
        bent = FlowPosterior(inner, PlanarFlow(z_dim, 8))
        theirs = normflows_vae(x_dim, hidden, z_dim, 8)

        def their_loss(theirs: nn.Module = theirs, x: Tensor = x) -> Tensor:
            _, log_q, log_p = theirs(x)
            return (log_q - log_p).mean()

        functions: dict[str, Callable[[], object]] = {
            "ours": plain_steps(lambda m=bent, x=x: -m.elbo(x).elbo.mean(), bent),
            "without": plain_steps(lambda m=plain, x=x: -m.elbo(x).elbo.mean(), plain),
            "normflows": plain_steps(their_loss, theirs),
        }
        with unchecked_values():
            times = in_turn(functions)
        what = f"VAE step with 8 amortised planar layers, {x_dim}-{hidden}-{z_dim}, batch {BATCH}"
        rows += [
            Row(what, times["ours"], times["without"], "the same without a flow", most),
            Row(what, times["ours"], times["normflows"], "normflows, shared layers", of_normflows),
        ]
    return rows


SECTIONS = (training_step, importance_weighted, quadrature, flow_posterior_step)
