"""The loop of a run: the same for one process and for many, and the same after any stop.

What is random in a step is a function of (seed, batch, shard), and the data's order one of (seed,
epoch): so nothing of either is saved, a resumed run is the run that was never stopped, to the bit,
and any number of ranks that share the shards agree to rounding.
"""

from __future__ import annotations

import math
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import dgm_course
from dgm_course.checks import unchecked_values
from dgm_course.runs.checkpoints import (
    State,
    checkpoints_in,
    load_state,
    newest_checkpoint,
    sweep,
    write_checkpoint,
)
from dgm_course.runs.history import History
from dgm_course.runs.pictures import draw_run
from dgm_course.runs.ranks import Ranks, joined, seed_of
from dgm_course.runs.recipe import Player, Settings, Task, as_type_of, read_recipe

Say = Callable[[str], None]
PRECISIONS = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.float32}


def train(
    name: str,
    out: Path,
    say: Say,
    *,
    given: Mapping[str, str] | None = None,
    tiny: bool = False,
    resume: bool = False,
    device: str = "auto",
) -> bool:
    """Train a recipe, alone or as one of torchrun's processes, until it ends or is told to stop.

    Args:
        name: of the recipe.
        out: the folder of its checkpoints and history, which all ranks on all machines see.
        say: where progress goes, of the first rank alone.
        given: settings, as text; with ``resume`` they must be those of the checkpoint.
        tiny: the small size, on the bundled digits.
        resume: go on from the newest checkpoint that is whole.
        device: "cpu", "cuda", or "auto", which takes GPUs where there are any.

    Returns:
        Whether the run has ended; False after SIGTERM or Ctrl-C, with a checkpoint.

    Raises:
        ValueError: for settings that do not fit, a folder that holds another run, or damaged
            checkpoints only.
        FloatingPointError: at the first loss or gradient that is not finite, before the weights.
        OSError: where nothing can be written; the last checkpoint is whole.
    """
    recipe, given = read_recipe(name), given or {}
    # The last, for gradients also under ``no_grad``.
    with joined(device) as ranks, stop_signals() as asked, torch.inference_mode(False):
        say = say if ranks.is_first else lambda text: None
        data = ranks.from_first(lambda: _open(out / "checkpoints", resume=resume, say=say))
        if data is None:
            state, settings = None, recipe.settings_for(given, tiny=tiny)
        else:
            state = load_state(data, name)
            settings = _as_saved(state, given, tiny=tiny)
        check_settings(settings, ranks.n)
        ranks.seed(settings["seed"], "build")
        run = Run(name, recipe.build(SimpleNamespace(**settings)), settings, ranks, out, say, asked)
        return run.go_on(state)


class Run:
    """A task that is being trained: what `train` makes, and goes through once."""

    def __init__(
        self,
        name: str,
        task: Task,
        settings: Settings,
        ranks: Ranks,
        out: Path,
        say: Say,
        asked: list[int],
    ) -> None:
        self.name, self.task, self.ranks, self.out, self.say = name, task, ranks, out, say
        self.settings, self.asked = settings, asked
        self.step, self.saved, self.losses = 0, -1, {p.name: 0.0 for p in task.players}
        if settings["batch"] > len(task.train):
            raise ValueError(
                f"batch must be at most the {len(task.train)} training examples, got "
                f"{settings['batch']}"
            )
        dtype = PRECISIONS[settings["precision"]]
        for module in (task.model, *(player.objective for player in task.players)):
            module.to(ranks.device, dtype)
        task.train, task.test = task.train.to(ranks.device), task.test.to(ranks.device)
        self.order = (-1, torch.empty(0))  # an epoch and its permutation

    def go_on(self, state: State | None) -> bool:
        """Train from the state, or from the start; whether the run has ended."""
        task, ranks, n_steps = self.task, self.ranks, self.settings["steps"]
        self.history = History(self.out / "history.jsonl", 0 if state is None else state["n_lines"])
        if state is not None:
            self._take_up(state)
            if self.step == n_steps and (last := ranks.from_first(self.history.last_test)):
                self.say(f"{self.name} is finished: {n_steps} steps, {last}")
                return True
        ranks.from_first(self.history.open)
        objectives = [ranks.share(player.objective) for player in task.players]
        if ranks.n > 1:
            # DistributedDataParallel sorts gradients anew after its first backward pass, by which
            # sums over three ranks or more round otherwise: that pass is not to be a counted one.
            for player, objective in zip(task.players, objectives, strict=True):
                self._gradients(objective, 0)
                player.optimizer.zero_grad()
        start, first = time.perf_counter(), self.step
        while True:
            if self.step and (self.step == n_steps or self._due("eval_every")):
                found = self._evaluated()
                if found is None:
                    return self._stopped()
                self._add(test=found)
                ranks.from_first(self._draw)
                self.say(
                    f"step {self.step}: " + ", ".join(f"{k} {v:.4f}" for k, v in found.items())
                )
            if self.step == n_steps:
                return True
            stop = self._take_step(objectives)
            if self._due("log_every"):
                n = self.settings["log_every"]
                means = {key: value / n for key, value in self.losses.items()}
                self.losses = dict.fromkeys(means, 0.0)
                seconds = time.perf_counter() - start
                self._add(**means, seconds=round(seconds, 3))
                left = seconds / (self.step - first) * (n_steps - self.step)
                text = ", ".join(f"{key} {value:.4f}" for key, value in means.items())
                self.say(f"step {self.step} of {n_steps}: {text}; {_duration(left)} left")
            if self.step == n_steps or self._due("save_every"):
                self._save()
            if stop:
                return self._stopped()

    def _due(self, every: str) -> bool:
        n = self.settings[every]
        return n > 0 and self.step % n == 0

    def _add(self, **found: Any) -> None:
        self.ranks.from_first(lambda: self.history.add(step=self.step, **found))

    def _stopped(self) -> bool:
        if self.saved != self.step:
            self._save()
        self.say(f"stopped at step {self.step}, which is saved; --resume goes on from there")
        return False

    # --- a step -----------------------------------------------------------------------------

    def _take_step(self, objectives: list[Any]) -> bool:
        """One step of each player; whether any rank has been asked to stop."""
        stop, n_moves = False, sum(player.n_moves for player in self.task.players)
        number = self.step * n_moves
        for player, objective in zip(self.task.players, objectives, strict=True):
            for group in player.optimizer.param_groups:
                group["lr"] = player.rate(self.step)
            for _ in range(player.n_moves):
                player.optimizer.zero_grad()
                mine = self._gradients(objective, number)
                total, n_asked = self.ranks.sums([mine, len(self.asked)])
                self._check_finite(loss := total / self.settings["shards"], player.name)
                if most := self.settings["max_grad_norm"]:
                    norm = torch.nn.utils.clip_grad_norm_(_weights(player), most).item()
                    self._check_finite(norm, f"the norm of the gradient of {player.name}")
                player.optimizer.step()
                number, stop = number + 1, stop or n_asked > 0
            self.losses[player.name] += loss
        self.step += 1
        return stop

    def _gradients(self, objective: Any, number: int) -> float:
        """Put a batch's gradients into the weights; the sum of the means of this rank's shards."""
        n_shards, ranks, total = self.settings["shards"], self.ranks, 0.0
        parts = self._rows(number).chunk(n_shards)
        mixed = self.settings["precision"] == "bfloat16"
        for shard in range(ranks.rank, n_shards, ranks.n):
            ranks.seed(self.settings["seed"], "train", number, shard)
            x = self.task.train[parts[shard]]
            with unchecked_values(), ranks.accumulating(objective, shard + ranks.n < n_shards):
                with torch.autocast(ranks.device.type, torch.bfloat16, enabled=mixed):
                    value = objective(x).mean()
                (value * (ranks.n / n_shards)).backward()  # of which the ranks' mean is taken
            total += value.item()
        return total

    def _rows(self, number: int) -> Tensor:
        """Which examples batch ``number`` holds; what is left of an epoch's end is left out."""
        n, size = len(self.task.train), self.settings["batch"]
        epoch, place = divmod(number, n // size)
        if self.order[0] != epoch:
            generator = torch.Generator().manual_seed(
                seed_of(self.settings["seed"], "order", epoch)
            )
            rows = torch.randperm(n, generator=generator).to(self.task.train.device)
            self.order = epoch, rows
        return self.order[1][place * size : (place + 1) * size]

    def _check_finite(self, number: float, what: str) -> None:
        if not math.isfinite(number):
            raise FloatingPointError(
                f"{what} is {number} at step {self.step}, and nothing is saved; try a smaller "
                "learning_rate, max_grad_norm=1.0, precision=float64"
            )

    @torch.no_grad()
    def _evaluated(self) -> dict[str, float] | None:
        """What the recipe reports of all test examples, or None when asked to stop."""
        task, ranks = self.task, self.ranks
        parts, found = task.test.split(task.n_at_once), []
        for start in range(0, len(parts), ranks.n):
            if ranks.sums([len(self.asked)])[0]:
                return None
            if (chunk := start + ranks.rank) < len(parts):
                ranks.seed(self.settings["seed"], "test", chunk)
                values = task.evaluate(parts[chunk])
                found.append((chunk, {key: value.cpu() for key, value in values.items()}))
        of_all = sorted((pair for of_rank in ranks.gathered(found) for pair in of_rank), key=_first)
        return task.report({key: torch.cat([v[key] for _, v in of_all]) for key in of_all[0][1]})

    @torch.no_grad()
    def _draw(self) -> None:
        self.ranks.seed(self.settings["seed"], "sample", self.step)
        draw_run(self.out, self.name, self.task.sample(64))

    # --- checkpoints ------------------------------------------------------------------------

    def _save(self) -> None:
        if not all(p.isfinite().all() for p in self.task.model.parameters()):
            self._check_finite(math.nan, "a weight")
        state = {
            "recipe": self.name,
            "settings": self.settings,
            "step": self.step,
            "losses": self.losses,  # summed since the last line of the history
            "n_lines": self.history.n_lines,
            "ranks": self.ranks.n,
            "versions": {
                "dgm_course": dgm_course.__version__,
                "torch": str(torch.__version__),  # a class of torch's own, which no loader takes
                "python": platform.python_version(),
            },
            "model": self.task.model.state_dict(),
            "optimizers": [player.optimizer.state_dict() for player in self.task.players],
        }
        folder = self.out / "checkpoints"
        self.ranks.from_first(lambda: write_checkpoint(folder, self.step, state))
        self.saved = self.step

    def _take_up(self, state: State) -> None:
        self.step = self.saved = state["step"]
        self.losses = state["losses"]
        self.task.model.load_state_dict(state["model"])
        for player, saved in zip(self.task.players, state["optimizers"], strict=True):
            player.optimizer.load_state_dict(saved)
        self.say(f"resumed at step {self.step}")
        if state["ranks"] != self.ranks.n:
            self.say(
                f"saved by {state['ranks']} ranks, resumed by {self.ranks.n}: the same run up to "
                "rounding, not to the bit"
            )


def check_settings(settings: Settings, n_ranks: int) -> None:
    """Raise a ValueError unless batch, shards and ranks divide, and numbers are in range."""
    for name in ("steps", "batch", "shards", "log_every", "save_every"):
        if settings[name] < 1:
            raise ValueError(f"{name} must be at least 1, got {settings[name]}")
    batch, shards = settings["batch"], settings["shards"]
    if batch % shards:
        raise ValueError(f"batch must be a multiple of shards, got batch={batch}, shards={shards}")
    if shards % n_ranks:
        raise ValueError(
            f"shards must be a multiple of the number of ranks, which share them, got "
            f"shards={shards} and {n_ranks} ranks"
        )
    if settings["precision"] not in PRECISIONS:
        raise ValueError(
            f"precision must be one of {', '.join(PRECISIONS)}, got {settings['precision']}"
        )


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that SIGTERM and Ctrl-C put their number into; a second one ends at once."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, frame: object) -> None:
        asked.append(number)
        signal.signal(number, before[number])

    numbers = int(signal.SIGTERM), int(signal.SIGINT)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield asked
    finally:
        for number in numbers:
            signal.signal(number, before[number])


def _open(folder: Path, *, resume: bool, say: Say) -> bytes | None:
    """The checkpoint from which the run goes on, or None where it starts."""
    if not resume:
        if there := checkpoints_in(folder):
            raise ValueError(
                f"{folder} holds {there[-1].name} of a run; --resume goes on from it, and "
                "--out names another folder"
            )
        return None
    sweep(folder)
    data, damaged = newest_checkpoint(folder)
    for reason in damaged:
        say(f"{reason}; the one before is used")
    if data is None:
        say(f"no checkpoint in {folder}: the run starts anew")
    return data


def _as_saved(state: State, given: Mapping[str, str], *, tiny: bool) -> Settings:
    """The checkpoint's settings; a ValueError where others are given."""
    saved: Settings = state["settings"]
    for name, text in given.items():
        if name not in saved:
            raise ValueError(f"--set {name}={text}: the checkpoint has no {name}")
        if (value := as_type_of(saved[name], name, text)) != saved[name]:
            raise ValueError(
                f"the checkpoint is of a run with {name}={saved[name]}, got {name}={value}"
            )
    if tiny and not saved["tiny"]:
        raise ValueError("the checkpoint is of a run at full size, got --tiny")
    return saved


def _weights(player: Player) -> list[Tensor]:
    return [p for group in player.optimizer.param_groups for p in group["params"]]


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
