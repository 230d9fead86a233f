"""Runs: a step through the entry beside a bare loop, and what a checkpoint costs the processor."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch

from dgm_course.checks import unchecked_values
from dgm_course.data import binarise, digits
from dgm_course.runs.checkpoints import write_checkpoint
from dgm_course.runs.ranks import Ranks
from dgm_course.runs.recipe import read_recipe
from dgm_course.runs.train import Run
from dgm_course.vae import importance_weighted_bound
from tests.benchmarks.harness import Row, in_turn

GIVEN = {"z_dim": "50", "hidden": "200", "batch": "100", "shards": "1"}


def steps() -> list[Row]:
    """The IWAE's, k = 5, 64-200-200-50, a batch of 100 in one shard."""
    recipe, cpu = read_recipe("iwae"), torch.device("cpu")
    settings = recipe.settings_for(GIVEN, tiny=True)
    torch.manual_seed(0)
    task = recipe.build(SimpleNamespace(**settings))
    run = Run("iwae", task, settings, Ranks(0, 1, cpu), Path(), lambda text: None, [])
    bare = recipe.build(SimpleNamespace(**settings))
    (train, _), optimizer = digits(), bare.players[0].optimizer

    def loop() -> None:
        x = train[torch.randperm(len(train))[:100]]
        x = binarise(x, "stochastic", levels=17, generator=torch.default_generator)
        optimizer.zero_grad()
        with unchecked_values():
            value = -importance_weighted_bound(bare.model, x.flatten(1), 5).mean()
        value.backward()
        optimizer.step()
        value.item()

    entry = {"entry": lambda: run._take_step([task.players[0].objective]), "loop": loop}
    times = in_turn(entry, rounds=500, of_all=min)  # single steps: few moments are quiet
    what = "step through dgm train, IWAE 64-200-200-50, k = 5, batch 100"
    return [Row(what, times["entry"], times["loop"], "a bare loop", 1.05)]


def checkpoint() -> list[Row]:
    """50 MB: 4.2 million weights and what Adam keeps of them."""
    state = {"model": torch.randn(4_200_000), "adam": torch.randn(2, 4_200_000)}
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for step in range(5):
            start = time.process_time()
            write_checkpoint(Path(folder), step, state)
            seconds.append(time.process_time() - start)
    return [Row("checkpoint of 50 MB, CPU seconds", min(seconds), 0.5, "the limit", 1)]


SECTIONS = (steps, checkpoint)
