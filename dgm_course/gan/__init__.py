"""The adversarial game: two networks, what each minimises, and where that leads."""

from dgm_course.gan.game import GameHistory, Player, Round, game_steps, play
from dgm_course.losses import discriminator_loss, generator_loss, optimal_discriminator

__all__ = [
    "GameHistory",
    "Player",
    "Round",
    "discriminator_loss",
    "game_steps",
    "generator_loss",
    "optimal_discriminator",
    "play",
]
