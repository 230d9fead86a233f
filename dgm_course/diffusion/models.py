"""What samplers, bound and likelihood ask of a denoiser, exact or learned, and what wraps one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dgm_course.checks import check_count, check_finite, check_instance, check_number, check_shape
from dgm_course.data.toy import Seed, as_generator
from dgm_course.diffusion.schedules import Schedule, Time, like, times_of


class Prediction(NamedTuple):
    """What x_t is made of, α x0 + σ noise = x_t, each of x_t's shape."""

    x0: Tensor
    noise: Tensor


class DiffusionModel(ABC):
    """x̂₀(x, t) ≈ E[x₀ | x_t = x], and with it ε̂ = (x − α x̂₀)/σ and ∇ log p_t ≈ −ε̂/σ.

    A subclass sets ``schedule`` and defines `_predict`, which gets x ``(N, ...)`` and t ``(N,)``.

    Source: Vincent 2011, section 4.2, https://doi.org/10.1162/NECO_a_00142; Efron 2011 (Tweedie's
    formula), https://doi.org/10.1198/jasa.2011.tm11181.
    """

    schedule: Schedule

    @abstractmethod
    def _predict(self, x: Tensor, t: Tensor) -> Prediction:
        """x̂₀ and ε̂ for x ``(N, ...)`` and t ``(N,)``."""

    def predict(self, x: Tensor, t: Time) -> Prediction:
        """x̂₀ and ε̂ at x ``(N, ...)`` and one time, or ``(N,)``, both of x's shape.

        Raises:
            ValueError: for x that is empty, no batch, or not finite; t outside [0, 1]; a model
                that returns another shape, or what is not finite.
        """
        t = times_of(x, t)
        check_finite(x, "x", "numbers", 0)
        found = self._predict(x, t)
        for name, value in found._asdict().items():
            check_prediction(value, x, f"the model's {name}")
        return found

    def score(self, x: Tensor, t: Time) -> Tensor:
        """∇ log p_t(x) = −ε̂/σ(t), of x's shape; where σ(t) = 0 a prediction has none."""
        found = self.predict(x, t)
        return self._score_of(found, times_of(x, t))

    def _score_of(self, found: Prediction, t: Tensor) -> Tensor:
        return -found.noise / like(self.schedule.sigma(t), found.noise)

    def drift(self, x: Tensor, t: Time) -> Tensor:
        """dx/dt = f(t) x − ½ g²(t) ∇ log p_t(x): the probability flow, which needs no noise.

        Source: Song and others 2021, equation 13, https://arxiv.org/abs/2011.13456.
        """
        f, g2 = (like(v, x) for v in self.schedule.rates(times_of(x, t)))
        return f * x - 0.5 * g2 * self.score(x, t)

    def start(self, n: int, size: Any, generator: Seed | None = None) -> Tensor:
        """n draws from N(0, prior_scale² I), ``(n, *size)``, for a sampler to start from."""
        sides = (size,) if isinstance(size, int) else tuple(size)
        shape = (check_count(n, "n"), *(check_count(side, "size") for side in sides))
        generator = None if generator is None else as_generator(generator)
        return self.schedule.prior_scale * torch.randn(shape, generator=generator)


def check_prediction(value: Any, x: Tensor, name: str) -> None:
    """Raise a ValueError unless value is finite and of x's shape: (N, 1) would broadcast."""
    check_shape(value, tuple(x.shape), name)
    check_finite(value, name, "numbers", 0)


class ScoreModel(DiffusionModel):
    """x̂₀ = (x + σ² s(x, t))/α of any function s that says what ∇ log p_t is.

    Args:
        score: x ``(N, ...)`` and t ``(N,)`` to x's shape.
        schedule: of the noise.

    Raises:
        ValueError: when called, if the score returns another shape or what is not finite.

    Example:
        >>> from dgm_course.diffusion import LinearSchedule
        >>> model = ScoreModel(lambda x, t: -x, LinearSchedule())  # N(0, I) at every t
        >>> model.predict(torch.ones(1, 1), 1.0).noise
        tensor([[1.0000]])
    """

    def __init__(self, score: Callable[[Tensor, Tensor], Tensor], schedule: Schedule) -> None:
        check_instance(schedule, Schedule, "schedule")
        self.schedule, self._function = schedule, score

    def score(self, x: Tensor, t: Time) -> Tensor:
        """s(x, t)."""
        t = times_of(x, t)
        check_finite(x, "x", "numbers", 0)
        check_prediction(score := self._function(x, t), x, "the score")
        return score

    def _predict(self, x: Tensor, t: Tensor) -> Prediction:
        score = self.score(x, t)
        alpha, sigma = like(self.schedule.alpha(t), x), like(self.schedule.sigma(t), x)
        return Prediction((x + sigma.square() * score) / alpha, -sigma * score)


class Clamped(DiffusionModel):
    """x̂₀ put back into [−limit, limit], and ε̂ = (x − α x̂₀)/σ from it.

    It is for data that lie in there. For others it is another model, whose samples are wrong; its
    bound is still a bound, for it clamps means and never the likelihood.

    Args:
        model: what predicts.
        limit: the largest number that data have, positive.
    """

    def __init__(self, model: DiffusionModel, limit: float = 1.0) -> None:
        check_instance(model, DiffusionModel, "model")
        check_number(limit, "limit")
        self.model, self.schedule, self.limit = model, model.schedule, float(limit)

    def _predict(self, x: Tensor, t: Tensor) -> Prediction:
        x0 = self.model.predict(x, t).x0.clamp(-self.limit, self.limit)
        alpha, sigma = like(self.schedule.alpha(t), x), like(self.schedule.sigma(t), x)
        return Prediction(x0, (x - alpha * x0) / sigma)


class Guided(DiffusionModel):
    """ε̂ = ε̂(x) + w (ε̂(x | y) − ε̂(x)): past the condition for w > 1, away from all the others.

    w = 1 is the conditional model, w = 0 the unconditional one. At each t it is the score of
    p_t(x) (p_t(x | y)/p_t(x))^w, up to a constant; but those densities are not one another's
    noised versions, so that what a sampler ends with is no draw from the density at t = 0.

    Source: Ho & Salimans 2022, equation 6 (their w is one less), https://arxiv.org/abs/2207.12598.

    Args:
        conditional: ε̂(x | y), such as ``denoiser.given(labels)``.
        unconditional: ε̂(x), of the same schedule.
        weight: w, any finite number.

    Raises:
        ValueError: for two schedules, which are told apart by what they print.
    """

    def __init__(
        self, conditional: DiffusionModel, unconditional: DiffusionModel, weight: float
    ) -> None:
        check_instance(conditional, DiffusionModel, "conditional")
        check_instance(unconditional, DiffusionModel, "unconditional")
        check_number(weight, "weight", or_negative=True)
        if repr(conditional.schedule) != repr(unconditional.schedule):
            raise ValueError(
                "conditional and unconditional must be of one schedule, got "
                f"{conditional.schedule!r} and {unconditional.schedule!r}"
            )
        self.conditional, self.unconditional = conditional, unconditional
        self.schedule, self.weight = conditional.schedule, float(weight)

    def _predict(self, x: Tensor, t: Tensor) -> Prediction:
        pairs = zip(self.unconditional.predict(x, t), self.conditional.predict(x, t), strict=True)
        return Prediction(*(torch.lerp(alone, told, self.weight) for alone, told in pairs))
