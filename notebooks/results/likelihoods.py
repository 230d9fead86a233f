"""The table of likelihoods on the test digits: a row for every model of the course that has one.

    python notebooks/results/likelihoods.py                        # some minutes of one core
    python notebooks/results/likelihoods.py --only PixelCNN --out try.csv

Writes ``dgm_course/results/likelihoods.csv`` after every row, and keeps the rows that it was not
asked for. All rows are of the same 355 test images of 8 × 8 pixels with 17 levels, and of models
that were trained on the 1442 training images alone. A lecture adds its row here.

Lectures 3 and 4 have no row: the digits of lecture 3 are binarised, and the decoder of lecture 4
has a density of real-valued ink, so neither says how probable an image of 17 levels is.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import coupling_flows as flows
import discrete_codes as codes
import pixel_models
import pixelcnn
import torch
import transformers
from torch import Tensor, nn
from tqdm import tqdm

from dgm_course.autoregressive import ImageModel, IndependentPixels, Uniform
from dgm_course.data import digits
from dgm_course.flows import Bijection, Dequantised
from dgm_course.probability import (
    LIKELIHOODS,
    LikelihoodRow,
    likelihood_row,
    read_likelihoods,
    write_likelihoods,
)
from dgm_course.training import quick

LEVELS = 17


def uniform(name: str) -> LikelihoodRow:
    model = Uniform(LEVELS).double()
    return row(name, model.log_prob, n_parameters=0, seconds=0)


def independent(name: str) -> LikelihoodRow:
    model = IndependentPixels(digits("train").images, LEVELS).double()
    return row(name, model.log_prob, n_parameters=model.log_p.numel(), seconds=0)


def trained(make: Callable[[], ImageModel], n_steps: int) -> Callable[[str], LikelihoodRow]:
    """The row of lecture 5's network, trained as for its stored table, from the first seed."""

    def make_row(name: str) -> LikelihoodRow:
        start = time.process_time()
        model = pixelcnn.train(make, seed=0, n_steps=n_steps)
        seconds = time.process_time() - start
        log_prob = model.log_prob if model.n_classes is None else sum_over_classes(model)
        return row(name, log_prob, n_parameters=n_weights(model), seconds=seconds)

    return make_row


def stopped(name_of: str) -> Callable[[str], LikelihoodRow]:
    """The row of one of lecture 12's models, trained as for its stored table, first seed."""

    def make_row(name: str) -> LikelihoodRow:
        start = time.process_time()
        model = pixel_models.train(pixel_models.MODELS[name_of], seed=0).model
        seconds = time.process_time() - start
        return row(name, model.log_prob, n_parameters=n_weights(model), seconds=seconds)

    return make_row


def words(
    n_codes: int, n_halvings: int, *, every_sentence: bool = False
) -> Callable[[str], LikelihoodRow]:
    """The row of one of lecture 13's VQ-VAEs with its prior, first seed: a bound, or the sum."""

    def make_row(name: str) -> LikelihoodRow:
        start = time.process_time()
        model = codes.stage_1(n_codes, n_halvings)
        prior = codes.stage_2(model.encode(digits("train").images), n_codes)
        seconds = time.process_time() - start
        n = n_weights(model) + model.quantizer.codebook.numel() + n_weights(prior)
        log_prob = partial(model.log_prob if every_sentence else model.log_prob_bound, prior=prior)
        kind = "exact" if every_sentence else "bound"
        return row(name, log_prob, kind=kind, n_parameters=n, seconds=seconds)

    return make_row


def sequence(name_of: str) -> Callable[[str], LikelihoodRow]:
    """The row of one of lecture 14's models, of images as sequences, first seed."""

    def make_row(name: str) -> LikelihoodRow:
        start = time.process_time()
        model, _ = transformers.train_pixels(name_of, seed=0)
        seconds = time.process_time() - start
        known = {"n_parameters": n_weights(model), "seconds": seconds}
        return row(name, lambda x: model.log_prob(x.flatten(1)), **known)

    return make_row


def flow(
    make: Callable[[], Bijection], how: tuple[int, float, int]
) -> Callable[[str], LikelihoodRow]:
    """The row of one of lecture 7's flows: a bound, from 16 draws of noise an image."""

    def make_row(name: str) -> LikelihoodRow:
        start = time.process_time()
        model = flows.train(make, 0, how)
        seconds = time.process_time() - start
        return bound(name, model, n_parameters=n_weights(model), seconds=seconds)

    return make_row


def mixture(n_components: int, covariances: str) -> Callable[[str], LikelihoodRow]:
    """The row of a mixture of Gaussians on the dequantised digits."""

    def make_row(name: str) -> LikelihoodRow:
        start = time.process_time()
        model, n = flows.gaussians(n_components, covariances, seed=0)
        seconds = time.process_time() - start
        return bound(name, model, n_parameters=n, seconds=seconds)

    return make_row


def sum_over_classes(model: ImageModel) -> Callable[[Tensor], Tensor]:
    """log p(x) = log Σ_y p(y) p(x | y) with ten equal p(y)."""

    def log_prob(x: Tensor) -> Tensor:
        of_class = [model.log_prob(x, torch.full((len(x),), label)) for label in range(10)]
        return torch.stack(of_class).logsumexp(0) - math.log(10)

    return log_prob


def row(name: str, log_prob: Callable[[Tensor], Tensor], **known: Any) -> LikelihoodRow:
    return likelihood_row(name, log_prob, digits("test").images, levels=LEVELS, **known)


def bound(name: str, model: Dequantised, **known: float) -> LikelihoodRow:
    return row(name, partial(model.log_prob_bound, n_samples=16), kind="bound", **known)


def n_weights(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


ROWS: dict[str, Callable[[str], LikelihoodRow]] = {
    "uniform": uniform,
    "independent pixels": independent,
    "one Gaussian": mixture(1, "full"),
    "mixture of 10 Gaussians": mixture(10, "full"),
    "mixture of 50 diagonal Gaussians": mixture(50, "diag"),
    "NICE": flow(flows.nice, flows.DENSE),
    "RealNVP": flow(flows.dense_realnvp, flows.DENSE),
    "RealNVP, convolutional": flow(flows.conv_realnvp, flows.CONVOLUTIONAL),
    "Glow, convolutional": flow(flows.conv_glow, flows.CONVOLUTIONAL),
    "PixelCNN": trained(pixelcnn.plain, 800),
    "Gated PixelCNN": trained(pixelcnn.gated, 800),
    "Gated PixelCNN, sum over classes": trained(pixelcnn.conditional, 1600),
    "Row LSTM": stopped("Row LSTM"),
    "Diagonal BiLSTM": stopped("Diagonal BiLSTM"),
    "PixelCNN++": stopped("PixelCNN++"),
    "PixelSNAIL": stopped("PixelSNAIL"),
    "VQ-VAE, 4 × 4 words of 16": words(16, 1),
    "VQ-VAE, 2 × 2 words of 8": words(8, 2),
    "VQ-VAE, 2 × 2 words of 8, all sentences": words(8, 2, every_sentence=True),
    "GPT": sequence("GPT"),
    "GPT, rows and columns": sequence("rows and columns"),
    "Sparse Transformer": sequence("strided"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME")
    parser.add_argument("--out", type=Path, default=LIKELIHOODS)
    options = parser.parse_args()
    if quick():
        parser.error("the table needs full training; unset DGM_COURSE_QUICK")
    torch.set_num_threads(1)
    table = {r.name: r for r in read_likelihoods(options.out)} if options.out.exists() else {}
    for name in (bar := tqdm(options.only, unit="row")):
        bar.set_postfix_str(name)
        table[name] = ROWS[name](name)
        write_likelihoods(table.values(), options.out)
        bar.write(f"{name}: {table[name].nats} nats, {table[name].bits_per_dim} bits/dim")


if __name__ == "__main__":
    main()
