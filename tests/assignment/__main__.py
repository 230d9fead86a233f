"""The commands of this folder's docstring."""

from __future__ import annotations

import os
import time

import click
from tqdm import tqdm

from dgm_course.data import digits
from dgm_course.grading.answers import Answers, save_weights
from dgm_course.grading.checks import prefix_nll
from tests.assignment import WEIGHTS, trained


@click.group()
def main() -> None:
    """The PixelCNN assignment: its mutants, its calibration."""


@main.command()
@click.option("--seeds", type=int, default=10)
@click.option("--first", type=int, default=1)
def calibrate(seeds: int, first: int) -> None:
    """Nats per image of the reference solution, by seed, as test 7b measures them."""
    capability = os.environ.get("ATEN_CPU_CAPABILITY", "as it is")
    images = digits("test").images.numpy()[::3]
    found = []
    for seed in tqdm(range(first, first + seeds), unit="seed"):
        start = time.process_time()
        names, model = trained(seed)
        seconds = time.process_time() - start
        call = Answers(names | {"this_model": lambda model=model: model})
        nats = prefix_nll(call, call("this_model"), images, 17)
        found.append(nats)
        click.echo(f"{capability}, seed {seed}: {nats:.2f} nats after {seconds:.0f} CPU seconds")
    mean = sum(found) / len(found)
    click.echo(f"{capability}: {min(found):.2f} … {max(found):.2f}, mean {mean:.2f}")


@main.command()
@click.option("--seed", type=int, default=0)
def weights(seed: int) -> None:
    """Train the reference solution and keep its weights for the tests."""
    _, model = trained(seed)
    save_weights(model, WEIGHTS)
    click.echo(f"{WEIGHTS}: {WEIGHTS.stat().st_size} bytes")


if __name__ == "__main__":
    main()
