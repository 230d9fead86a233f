"""Lecture 1: a training step beside normflows and Pyro, and the inverse."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import normflows
import pyro.distributions as pyro_distributions
import torch
from pyro.distributions import transforms as pyro_transforms
from torch import Tensor, nn

from dgm_course.data import energy
from dgm_course.flows import DiagonalGaussian, FlowModel, PlanarFlow, reverse_kl
from tests.benchmarks.harness import Row, in_turn

LAYERS, BATCH = 32, 512


def log_target(x: Tensor) -> Tensor:
    return -energy("U1", x)


def our_loss() -> tuple[Callable[[], Tensor], Iterable[nn.Parameter]]:
    model = FlowModel(DiagonalGaussian(2), PlanarFlow(2, LAYERS))
    return lambda: reverse_kl(model, log_target, BATCH).mean(), model.parameters()


def normflows_loss() -> tuple[Callable[[], Tensor], Iterable[nn.Parameter]]:
    base = normflows.distributions.base.DiagGaussian(2)
    layers = [normflows.flows.Planar((2,)) for _ in range(LAYERS)]
    model = normflows.NormalizingFlow(base, layers)

    def loss() -> Tensor:
        x, log_prob = model.q0(BATCH)
        for flow in model.flows:
            x, log_det = flow(x)
            log_prob = log_prob - log_det
        return (log_prob - log_target(x)).mean()

    return loss, model.parameters()


def pyro_loss() -> tuple[Callable[[], Tensor], Iterable[nn.Parameter]]:
    layers = nn.ModuleList(pyro_transforms.Planar(2) for _ in range(LAYERS))
    mean, log_scale = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))

    def loss() -> Tensor:
        base = pyro_distributions.Normal(mean, log_scale.exp()).to_event(1)
        model = pyro_distributions.TransformedDistribution(base, list(layers))
        x = model.rsample((BATCH,))
        log_prob = model.log_prob(x)  # from the cache: Pyro's layer has no inverse
        model.clear_cache()
        return (log_prob - log_target(x)).mean()

    return loss, [*layers.parameters(), mean, log_scale]


def training_step() -> list[Row]:
    def step(loss: Callable[[], Tensor], parameters: Iterable[nn.Parameter]) -> Callable[[], None]:
        optimizer = torch.optim.Adam(parameters, lr=1e-4)

        def take() -> None:
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()

        return take

    makers = {"ours": our_loss, "normflows": normflows_loss, "Pyro": pyro_loss}
    times = in_turn({name: step(*make()) for name, make in makers.items()})
    peers = {name: seconds for name, seconds in times.items() if name != "ours"}
    fastest = min(peers, key=lambda name: peers[name])
    what = "reverse-KL training step, 32 planar layers, batch 512"
    return [
        Row(what, times["ours"], seconds, name, 0.35 if name == fastest else None)
        for name, seconds in peers.items()
    ]


@torch.no_grad()
def inverse() -> list[Row]:
    torch.manual_seed(0)
    flow = PlanarFlow(2, LAYERS)
    flow.u.add_(torch.randn_like(flow.u))
    z = torch.randn(10_000, 2)
    x, _ = flow(z)
    times = in_turn({"forward": lambda: flow(z), "inverse": lambda: flow.inverse(x)})
    what = "inverse of 32 layers, 10,000 points"
    return [Row(what, times["inverse"], times["forward"], "the forward pass", 20)]


SECTIONS = (training_step, inverse)
