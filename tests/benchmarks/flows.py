"""Lecture 7: a RealNVP step beside zuko, nflows, normflows and Pyro, and LU beside nflows."""

from __future__ import annotations

from collections.abc import Callable

import nflows.flows
import nflows.nn.nets
import nflows.transforms
import normflows
import pyro.distributions as pyro_distributions
import torch
import zuko
from nflows.distributions import StandardNormal
from pyro.distributions import transforms as pyro_transforms
from pyro.nn import DenseNN
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from dgm_course.flows import AutoregressiveFlow, CouplingFlow, FlowModel, LuFlow, MixtureCdf
from tests.benchmarks.harness import Row, in_turn

BATCH = 256
Model = tuple[nn.Module, Callable[[Tensor], Tensor]]  # what is trained, and its log p(x)


def standard_normal(dim: int) -> Distribution:
    return Independent(Normal(torch.zeros(dim), torch.ones(dim)), 1)


# --- RealNVP: couplings of two hidden layers, whose halves swap roles -----------------------------


def our_coupling(dim: int, n_layers: int, n_hidden: int) -> Model:
    model = FlowModel(standard_normal(dim), CouplingFlow(dim, n_layers, n_hidden))
    return model, model.log_prob


def zuko_coupling(dim: int, n_layers: int, n_hidden: int) -> Model:
    model = zuko.flows.NICE(dim, transforms=n_layers, hidden_features=(n_hidden, n_hidden))
    return model, lambda x: model().log_prob(x)


def nflows_coupling(dim: int, n_layers: int, n_hidden: int) -> Model:
    class Network(nflows.nn.nets.MLP):
        def forward(self, inputs: Tensor, context: None = None) -> Tensor:
            return super().forward(inputs)

    def network(n_in: int, n_out: int) -> nn.Module:
        return Network([n_in], [n_out], [n_hidden, n_hidden])

    masks = [torch.arange(dim) < dim // 2, torch.arange(dim) >= dim // 2]
    layers = [
        nflows.transforms.AffineCouplingTransform(masks[i % 2].int(), network)
        for i in range(n_layers)
    ]
    composed = nflows.transforms.CompositeTransform(layers)
    model = nflows.flows.Flow(composed, StandardNormal([dim]))
    return model, model.log_prob


def normflows_coupling(dim: int, n_layers: int, n_hidden: int) -> Model:
    layers: list[nn.Module] = []
    for _ in range(n_layers):
        network = normflows.nets.MLP([dim // 2, n_hidden, n_hidden, dim], init_zeros=True)
        layers += [normflows.flows.AffineCouplingBlock(network)]
        layers += [normflows.flows.Permute(dim, mode="swap")]
    base = normflows.distributions.base.DiagGaussian(dim, trainable=False)
    model = normflows.NormalizingFlow(base, layers)
    return model, model.log_prob


def pyro_coupling(dim: int, n_layers: int, n_hidden: int) -> Model:
    half = dim // 2
    order = torch.arange(dim).roll(half)
    couplings = nn.ModuleList(
        pyro_transforms.AffineCoupling(half, DenseNN(half, [n_hidden, n_hidden], [half, half]))
        for _ in range(n_layers)
    )
    layers = [each for layer in couplings for each in (layer, pyro_transforms.Permute(order))]
    model = pyro_distributions.TransformedDistribution(standard_normal(dim), layers)

    def log_prob(x: Tensor) -> Tensor:
        model.clear_cache()
        return model.log_prob(x)

    return couplings, log_prob


def coupling_step() -> list[Row]:
    makers = {
        "ours": our_coupling,
        "zuko": zuko_coupling,
        "nflows": nflows_coupling,
        "normflows": normflows_coupling,
        "Pyro": pyro_coupling,
    }
    rows = []
    for dim, n_hidden, limit in ((2, 64, 0.80), (64, 128, 0.90)):
        models = {name: make(dim, 8, n_hidden) for name, make in makers.items()}
        rows += compare(models, f"RealNVP step, D = {dim}, 8 layers, batch {BATCH}", dim, limit)
    return rows


# --- MAF: masked networks of two hidden layers, each in the reversed order of the one before ----


def our_maf(dim: int, n_layers: int, n_hidden: int) -> Model:
    model = FlowModel(standard_normal(dim), AutoregressiveFlow(dim, n_layers, n_hidden))
    return model, model.log_prob


def zuko_maf(dim: int, n_layers: int, n_hidden: int) -> Model:
    model = zuko.flows.MAF(dim, transforms=n_layers, hidden_features=(n_hidden, n_hidden))
    return model, lambda x: model().log_prob(x)


def nflows_maf(dim: int, n_layers: int, n_hidden: int) -> Model:
    model = nflows.flows.MaskedAutoregressiveFlow(
        dim, n_hidden, n_layers, num_blocks_per_layer=1, use_residual_blocks=False
    )
    return model, model.log_prob


def normflows_maf(dim: int, n_layers: int, n_hidden: int) -> Model:
    layers: list[nn.Module] = []
    for _ in range(n_layers):
        layers += [
            normflows.flows.MaskedAffineAutoregressive(
                dim, n_hidden, num_blocks=1, use_residual_blocks=False
            ),
            normflows.flows.Permute(dim, mode="swap"),
        ]
    base = normflows.distributions.base.DiagGaussian(dim, trainable=False)
    model = normflows.NormalizingFlow(base, layers)
    return model, model.log_prob


def maf_step() -> list[Row]:
    rows = []
    for dim, n_hidden, limit in ((2, 64, 0.90), (64, 256, 1.05)):
        makers = {"ours": our_maf, "zuko": zuko_maf, "nflows": nflows_maf}
        if dim == 2:  # its log p(x) takes D passes
            makers["normflows"] = normflows_maf
        models = {name: make(dim, 4, n_hidden) for name, make in makers.items()}
        rows += compare(models, f"MAF step, D = {dim}, 4 layers, batch {BATCH}", dim, limit)
    return rows


@torch.no_grad()
def maf_sampling() -> list[Row]:
    """One layer of 256 hidden units; both peers take D full passes a layer."""
    rows = []
    for dim, limit in ((64, 0.2), (256, 0.1)):
        ours, theirs, third = (make(dim, 1, 256)[0] for make in (our_maf, zuko_maf, nflows_maf))
        samplers = {
            "ours": lambda model=ours: model.sample(BATCH),
            "zuko": lambda model=theirs: model().sample((BATCH,)),
            "nflows": lambda model=third: model.sample(BATCH),
        }
        times = in_turn(samplers, rounds=10)
        what = f"MAF: {BATCH} samples, D = {dim}, 1 layer"
        rows += [Row(what, times["ours"], times[peer], peer, limit) for peer in ("zuko", "nflows")]
    return rows


# --- linear layers ------------------------------------------------------------------------------


def our_lu(dim: int, n_layers: int) -> Model:
    model = FlowModel(standard_normal(dim), LuFlow(dim, n_layers))
    return model, model.log_prob


def nflows_lu(dim: int, n_layers: int) -> Model:
    layers = [nflows.transforms.LULinear(dim) for _ in range(n_layers)]
    composed = nflows.transforms.CompositeTransform(layers)
    model = nflows.flows.Flow(composed, StandardNormal([dim]))
    return model, model.log_prob


def lu_step() -> list[Row]:
    rows = []
    for dim, limit in ((16, 0.5), (64, 0.6)):
        models = {"ours": our_lu(dim, 8), "nflows": nflows_lu(dim, 8)}
        rows += compare(models, f"LU step, D = {dim}, 8 layers, batch {BATCH}", dim, limit)
    return rows


def compare(models: dict[str, Model], what: str, dim: int, limit: float) -> list[Row]:
    """A step of each, of the same number of parameters; the limit is for the fastest peer."""
    counts = {
        name: sum(p.numel() for p in model.parameters()) for name, (model, _) in models.items()
    }
    if len({*counts.values()}) > 1:
        raise ValueError(f"models must have the same number of parameters, got {counts}")
    x = torch.randn(BATCH, dim)
    times = in_turn({name: step(*model, x) for name, model in models.items()})
    peers = {name: seconds for name, seconds in times.items() if name != "ours"}
    fastest = min(peers, key=lambda name: peers[name])
    return [
        Row(what, times["ours"], seconds, name, limit if name == fastest else None)
        for name, seconds in peers.items()
    ]


def step(model: nn.Module, log_prob: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def take() -> None:
        optimizer.zero_grad()
        (-log_prob(x)).mean().backward()
        optimizer.step()

    return take


# --- a slider -----------------------------------------------------------------------------------


def mixture_map() -> list[Row]:
    """The inverse-CDF map of three modes at 801 points, which a slider redraws."""
    z = torch.linspace(-4, 4, 801, dtype=torch.float64)[:, None]
    flow = MixtureCdf([0.3, 0.4, 0.3], [-3.0, 0.0, 3.0], [0.5, 0.5, 0.5])
    times = in_turn({"map": lambda: flow(z)})
    return [Row("inverse-CDF map, 801 points", times["map"], 0.1, "100 ms", 0.3)]


SECTIONS = (coupling_step, maf_step, maf_sampling, lu_step, mixture_map)
