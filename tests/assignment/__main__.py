"""The commands of this folder's docstring."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from tqdm import tqdm

from dgm_course.data import digits
from dgm_course.grading.answers import Answers, save_weights
from dgm_course.grading.checks import prefix_nll
from tests.assignment import WEIGHTS, grade, submission, table_row, trained
from tests.assignment.mutants import MUTANTS
from tests.assignment.variants import VARIANTS


@click.group()
def main() -> None:
    """The PixelCNN assignment: its mutants, its calibration."""


@main.command("mutants")
def print_mutants() -> None:
    """The table of wrong submissions, and which tests reject each."""
    click.echo("| task | mistake | cause | rejected by |\n|---|---|---|---|")
    with TemporaryDirectory() as folder, contextlib.chdir(folder):
        for mutant in MUTANTS:
            weights = Path("weights.npz")
            weights.unlink(missing_ok=True)
            (mutant.file or partial(shutil.copy, WEIGHTS))(weights)
            results = grade(submission(mutant.answers), [mutant.task])[mutant.task]
            click.echo(table_row(mutant, results))


@main.command()
@click.option("--seeds", type=int, default=10)
@click.option("--first", type=int, default=1)
def calibrate(seeds: int, first: int) -> None:
    """Nats per image of the reference solution, by seed, as task 7 measures them."""
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
    """Train the reference and the variants with networks of their own; keep the weights."""
    for answers, name in [({}, WEIGHTS.name), *((v.answers, v.trained) for v in VARIANTS)]:
        if not answers or name != WEIGHTS.name:
            start = time.process_time()
            _, model = trained(seed, answers)
            path = WEIGHTS.with_name(name)
            save_weights(model, path)
            seconds = time.process_time() - start
            click.echo(f"{name}: {path.stat().st_size} bytes, {seconds:.0f} CPU seconds")


if __name__ == "__main__":
    main()
