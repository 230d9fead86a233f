"""VQ-VAE on MNIST's grey levels, and at the same time a PixelCNN on its grids of codes."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from dgm_course.autoregressive import PixelCNN
from dgm_course.codes import VQVAE, VectorQuantizer
from dgm_course.runs.recipe import Player, Recipe, Task, images


class Autoencoder(nn.Module):
    """Stage 1's loss. The codebook learns by gradient: averages would differ between ranks."""

    def __init__(self, model: VQVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.terms(x).loss


class PriorLoss(nn.Module):
    """−log p(z) of the grids that the encoder makes by now."""

    def __init__(self, prior: PixelCNN, model: VQVAE) -> None:
        super().__init__()
        self.prior = prior
        self.known = (model,)  # in a tuple, out of sight of parameters()

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            z = self.known[0].encode(x)
        return -self.prior.log_prob(z)


def build(settings: SimpleNamespace) -> Task:
    (train, _), levels = images("train", tiny=settings.tiny)
    (test, _), _ = images("test", tiny=settings.tiny)
    train, test = train.long(), test.long()
    height, width = train.shape[-2:]
    quantizer = VectorQuantizer(settings.codes, settings.dim, update="gradient")
    model = VQVAE(levels, quantizer, n_features=settings.features, n_halvings=settings.halvings)
    with torch.no_grad():
        quantizer.initialise(model.features(train[:256]), generator=settings.seed)
    quantizer.eval()  # in training mode it counts, rank by rank, how often a code is used
    prior = PixelCNN(settings.codes, n_features=settings.features, n_layers=settings.layers)

    def player(name: str, objective: nn.Module) -> Player:
        adam = torch.optim.Adam(objective.parameters())
        return Player(objective, adam, lambda step: settings.learning_rate, name=name)

    def evaluate(x: Tensor) -> dict[str, Tensor]:
        bound = -model.log_prob_bound(x, prior)
        return {"bound": bound, "prior": -prior.log_prob(model.encode(x))}

    return Task(
        nn.ModuleDict({"autoencoder": model, "prior": prior}),
        [player("autoencoder", Autoencoder(model)), player("prior", PriorLoss(prior, model))],
        train,
        test,
        evaluate,
        lambda n: model.sample(n, (height, width), prior, noise=False)[:, 0] / (levels - 1),
    )


RECIPE = Recipe(
    "van den Oord, Vinyals & Kavukcuoglu 2017, https://arxiv.org/abs/1711.00937",
    "none on MNIST",
    build,
    {"codes": 128, "dim": 16, "features": 64, "layers": 8, "halvings": 2, "steps": 100_000}
    | {"learning_rate": 3e-4, "batch": 128},
    {"codes": 16, "dim": 4, "features": 16, "layers": 3, "halvings": 1, "steps": 150}
    | {"learning_rate": 3e-3, "batch": 40},
)
