"""What a recipe is: a lecture's model and objective, with data, optimiser, schedule and budget."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer

from dgm_course.data import Images, data_folder, digits, mnist
from dgm_course.data.mnist import FILES
from dgm_course.runs import recipes

Settings = dict[str, Any]  # numbers and words, by name

# What every recipe can be told; a recipe's own settings and its tiny size come on top.
COMMON: Settings = {
    "seed": 0,
    "steps": 1000,
    "batch": 100,  # examples a step, over all ranks
    "shards": 1,  # parts of a batch, which ranks share; also how a large batch fits the memory
    "learning_rate": 1e-3,
    "max_grad_norm": 0.0,  # 0: not clipped
    "precision": "float32",  # or float64, or bfloat16 for the products alone
    "log_every": 100,  # steps, as the two below
    "save_every": 1000,
    "eval_every": 0,  # 0: at the end alone
}
TINY: Settings = {"log_every": 10, "save_every": 20, "shards": 4}


class Player(NamedTuple):
    """What is minimised, and how: one of a likelihood's recipe, two of a game's, in turn."""

    objective: nn.Module  # a batch to losses (N,); its parameters are those that are trained
    optimizer: Optimizer
    rate: Callable[[int], float]  # the learning rate of a step, from 0
    n_moves: int = 1  # a step, each on a batch of its own
    name: str = "loss"  # of what it minimises, in the history


@dataclass
class Task:
    """A recipe made up for some settings: what `train` trains, evaluates and draws from.

    What is random is drawn from torch's own generator, which is seeded before each shard. No
    buffer may learn, as in batch normalisation: ranks would differ.
    """

    model: nn.Module
    players: list[Player]
    train: Tensor  # examples (N, ...), as objectives take them
    test: Tensor
    evaluate: Callable[[Tensor], dict[str, Tensor]]  # test examples to values of each (N, ...)
    sample: Callable[[int], Tensor]  # n images (n, H, W), 1 is ink
    # All test examples' values to the numbers that are reported.
    report: Callable[[dict[str, Tensor]], dict[str, float]] = lambda values: {
        name: value.mean().item() for name, value in values.items()
    }
    n_at_once: int = 100  # test examples a call of evaluate


@dataclass(frozen=True)
class Recipe:
    """How to make a `Task`, and what a paper reached with it.

    Args:
        paper: authors and year, address.
        published: the paper's value, with its unit; "none" if there is none.
        build: settings to a task, the same in each process: torch's generator is seeded before.
        settings: what differs from `COMMON`, and what is the recipe's own.
        tiny: what differs for the bundled digits.
        reached: our value, or "not run".
        hours: of which device it took.
    """

    paper: str
    published: str
    build: Callable[[SimpleNamespace], Task]
    settings: Settings
    tiny: Settings
    reached: str = "not run"
    hours: str = "–"

    def settings_for(self, given: Mapping[str, str], *, tiny: bool = False) -> Settings:
        """All settings, with those that were given as text.

        Raises:
            ValueError: for a name that the recipe does not have, or a text of another type.
        """
        settings = {"tiny": tiny, **COMMON, **self.settings}
        settings |= {**TINY, **self.tiny} if tiny else {}
        for name, text in given.items():
            if name not in settings or name == "tiny":
                known = ", ".join(name for name in settings if name != "tiny")
                raise ValueError(f"--set {name}={text}: there is no {name}; there are {known}")
            settings[name] = as_type_of(settings[name], name, text)
        return settings


def as_type_of(example: Any, name: str, text: str) -> Any:
    """The text as a value of the example's type."""
    kind = type(example)
    try:
        return kind(text)
    except ValueError as error:
        raise ValueError(
            f"--set {name}={text}: {name} must be of type {kind.__name__}, as {example} is"
        ) from error


def recipe_names() -> list[str]:
    """What `read_recipe` takes."""
    return sorted(module.name for module in pkgutil.iter_modules(recipes.__path__))


def read_recipe(name: str) -> Recipe:
    """The recipe of that name; a ValueError with the names that there are."""
    if name not in (names := recipe_names()):
        raise ValueError(f"there is no recipe {name}; there are {', '.join(names)}")
    return import_module(f"{recipes.__name__}.{name}").RECIPE


def images(split: str, *, tiny: bool) -> tuple[Images, int]:
    """The bundled digits or MNIST, and how many levels a pixel has.

    Raises:
        ValueError: where MNIST has not been fetched: a run must not start with a download in each
            of its processes.
    """
    if tiny:
        return digits(split), 17
    folder = data_folder()
    if missing := [name for name in FILES[split] if not (folder / f"{name}.gz").is_file()]:
        raise ValueError(
            f"MNIST is not in {folder}: {missing[0]}.gz is missing; `dgm data` fetches it, "
            "DGM_COURSE_DATA_DIR names another folder, and --tiny needs no download"
        )
    return mnist(split), 256
