"""Two players and one loop: the discriminator moves, then the generator, each on its own loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from dgm_course.checks import check_count, check_instance, check_number
from dgm_course.training import fit, training_steps

if TYPE_CHECKING:  # as in `training`
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


class Player(NamedTuple):
    """What a player minimises, and how: the arguments that `fit` has for one.

    The optimiser holds all that this player trains, and nothing that the other does.
    """

    loss: Callable[[int], Tensor]  # of its own step's number, from 0, to losses (N,)
    optimizer: Optimizer
    scheduler: LRScheduler | None = None
    max_grad_norm: float | None = None


class Round(NamedTuple):
    """The losses of one round: the discriminator's at its last step, and the generator's."""

    discriminator: float
    generator: float


@dataclass
class GameHistory:
    """Both losses of each round that was played to its end, and whether the reader stopped it."""

    discriminator: list[float] = field(default_factory=list, repr=False)
    generator: list[float] = field(default_factory=list, repr=False)
    interrupted: bool = False


def game_steps(
    discriminator: Player, generator: Player, n_rounds: int, *, n_critic: int = 1
) -> Iterator[Round]:
    """The rounds of `play`, one for each that is asked for: a live panel takes a few a tick."""
    n_rounds = check_count(n_rounds, "n_rounds", 0)
    found: list[float] = []
    loss = _answered(discriminator, generator, n_rounds, n_critic, found)
    steps = training_steps(
        loss, generator.optimizer, n_rounds, generator.scheduler, generator.max_grad_norm
    )
    return (Round(found[-1], value) for value in steps)


def play(
    discriminator: Player,
    generator: Player,
    n_rounds: int,
    *,
    n_critic: int = 1,
    progress: bool = True,
) -> GameHistory:
    """Alternate: n_critic steps of the discriminator, then one of the generator, n_rounds times.

    In a player's step the other's weights are constants. So no discriminator's step reaches the
    generator, whether or not the loss detaches its samples; none pays for gradients that nobody
    uses; and no gradient of a step is left in the other's weights.

    What must follow each step of a player, such as a limit on its weights, is the optimiser's:
    ``optimizer.register_step_post_hook``.

    Source: Goodfellow et al. 2014, algorithm 1, https://arxiv.org/abs/1406.2661; n_critic:
    Arjovsky, Chintala & Bottou 2017, algorithm 1, https://arxiv.org/abs/1701.07875.

    Args:
        discriminator: its loss draws data and samples itself. Any second player will do: a critic,
            or a network that estimates a ratio of densities.
        generator: the same; its scheduler is stepped once a round.
        n_rounds: number of rounds; a twentieth of it (at least 1) under DGM_COURSE_QUICK.
        n_critic: steps of the discriminator a round.
        progress: whether to show a bar with the generator's loss.

    Returns:
        Both losses of each round; after an interrupt those of the rounds that were ended.

    Raises:
        ValueError: for counts below 1, or a weight that both optimisers hold.
        FloatingPointError: as `fit`, of either player.

    Example:
        >>> import torch
        >>> x, y = (torch.nn.Parameter(torch.ones(1)) for _ in "xy")
        >>> one, two = (torch.optim.SGD([p], lr=0.5) for p in (y, x))
        >>> min_max = Player(lambda step: -x * y, one), Player(lambda step: x * y, two)
        >>> play(*min_max, n_rounds=3, progress=False).generator
        [1.5, 0.40625, -0.755859375]
    """
    n_rounds = check_count(n_rounds, "n_rounds")
    history = GameHistory()
    loss = _answered(discriminator, generator, n_rounds, n_critic, history.discriminator)
    of_generator = fit(
        loss,
        generator.optimizer,
        n_rounds,
        scheduler=generator.scheduler,
        max_grad_norm=generator.max_grad_norm,
        progress=progress,
    )
    history.generator, history.interrupted = of_generator.loss, of_generator.interrupted
    del history.discriminator[len(history.generator) :]
    return history


def _answered(
    discriminator: Player, generator: Player, n_rounds: int, n_critic: int, found: list[float]
) -> Callable[[int], Tensor]:
    """The generator's loss, before which the discriminator moves; its losses go to ``found``."""
    n_critic = check_count(n_critic, "n_critic")
    for name, player in (("discriminator", discriminator), ("generator", generator)):
        check_instance(player, Player, name)
        if player.max_grad_norm is not None:
            check_number(player.max_grad_norm, "max_grad_norm")
    mine, others = (_weights(player) for player in (generator, discriminator))
    if n_shared := len({*map(id, mine)} & {*map(id, others)}):
        raise ValueError(
            f"discriminator and generator must train different weights, got {n_shared} that both "
            "optimisers hold"
        )

    def of_discriminator(step: int) -> Tensor:
        with _constant(mine):
            return discriminator.loss(step)

    answers = training_steps(
        of_discriminator,
        discriminator.optimizer,
        n_rounds * n_critic,
        discriminator.scheduler,
        discriminator.max_grad_norm,
    )

    def of_generator(step: int) -> Tensor:
        for _ in range(n_critic):
            last = next(answers)
        found.append(last)
        with _constant(others):
            return generator.loss(step)

    return of_generator


def _weights(player: Player) -> list[nn.Parameter]:
    return [p for group in player.optimizer.param_groups for p in group["params"]]


@contextmanager
def _constant(weights: list[nn.Parameter]) -> Iterator[None]:
    """No graph is built towards these weights; afterwards each is as it was."""
    needed = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight, flag in zip(weights, needed, strict=True):
            weight.requires_grad_(flag)
