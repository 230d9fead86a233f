"""How noise grows with time: α(t), σ(t), chains of times, and what is Gaussian about noising."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dgm_course.checks import (
    as_numbers,
    check_count,
    check_finite,
    check_floating,
    check_instance,
    check_number,
    check_same_shape,
    values_are_checked,
)

Time = float | Tensor  # one time for all, or a time for each example, (N,)


class Schedule(ABC):
    """x_t = α(t) x₀ + σ(t) ε, ε ~ N(0, I), for t from 0, where α = 1 and σ = 0, to 1.

    The same law solves dx = f(t) x dt + g(t) dw, with f = d ln α / dt and g² = dσ²/dt − 2 f σ².
    A subclass gives ln α, σ, and these two. α/σ must fall with t, which `check_chain` reads.

    Source: Kingma, Salimans, Poole & Ho 2021, section 3.1, https://arxiv.org/abs/2107.00630; the
    equation: Song and others 2021, section 3, https://arxiv.org/abs/2011.13456.
    """

    @abstractmethod
    def log_alpha(self, t: Tensor) -> Tensor:
        """ln α(t), of t's shape."""

    @abstractmethod
    def _sigma(self, t: Tensor) -> Tensor:
        """σ(t), of t's shape, without losing digits near 0."""

    @abstractmethod
    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """f(t) and g²(t)."""

    @property
    def prior_scale(self) -> float:
        """The σ of N(0, σ² I), from which a sampler starts in the place of p₁."""
        return 1.0

    def alpha(self, t: Time) -> Tensor:
        """α(t): how much of x₀ is left, 1 at t = 0."""
        return self.log_alpha(as_times(t)).exp()

    def sigma(self, t: Time) -> Tensor:
        """σ(t): the standard deviation of the noise, 0 at t = 0."""
        return self._sigma(as_times(t))

    def rates(self, t: Time) -> tuple[Tensor, Tensor]:
        """f(t) = d ln α / dt and g²(t); with preserved variance, −β(t)/2 and β(t)."""
        return self._rates(as_times(t))

    def log_snr(self, t: Time) -> Tensor:
        """ln α²/σ², +inf at t = 0."""
        t = as_times(t)
        return 2 * (self.log_alpha(t) - self._sigma(t).log())


class LinearSchedule(Schedule):
    """β(t) = β₀ + (β₁ − β₀) t; ln α = −½ ∫ β, σ² = 1 − α²: unit variance stays unit variance.

    Source: Ho, Jain & Abbeel 2020, section 4, https://arxiv.org/abs/2006.11239, as Song and others
    2021, appendix C, made it continuous.

    Args:
        beta_min: β₀, at t = 0.
        beta_max: β₁, at t = 1.

    Raises:
        ValueError: for rates that are not positive: α/σ would not fall all the way.

    Example:
        >>> LinearSchedule().alpha(1.0) ** 2  # what is left of the data's variance
        tensor(4.3186e-05, dtype=torch.float64)
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        check_number(beta_min, "beta_min")
        check_number(beta_max, "beta_max")
        self.beta_min, self.beta_max = float(beta_min), float(beta_max)

    def __repr__(self) -> str:
        return f"LinearSchedule(beta_min={self.beta_min:g}, beta_max={self.beta_max:g})"

    def log_alpha(self, t: Tensor) -> Tensor:
        """−½ (β₀ t + ½ (β₁ − β₀) t²)."""
        return -0.5 * t * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t)

    def _sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(2 * self.log_alpha(t))).sqrt()

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        beta = self.beta_min + (self.beta_max - self.beta_min) * t
        return -0.5 * beta, beta


class CosineSchedule(Schedule):
    """α(t) = cos a(t) / cos a(0), a(t) = ½π (o + (1 − o − e) t), σ² = 1 − α².

    The offset o keeps the first steps from being too small. The source has a(1) = ½π, where α = 0
    and x₀ can no longer be told from ε: here the angle ends e before.

    Source: Nichol & Dhariwal 2021, equation 17, https://arxiv.org/abs/2102.09672.

    Args:
        offset: o ≥ 0.
        end: e > 0.

    Raises:
        ValueError: for numbers outside these bounds, or o + e ≥ 1.

    Example:
        >>> CosineSchedule().alpha(torch.tensor([0.0, 0.5, 1.0]))
        tensor([1.0000, 0.7055, 0.0079])
    """

    def __init__(self, offset: float = 0.008, end: float = 0.005) -> None:
        check_number(offset, "offset", or_zero=True)
        check_number(end, "end")
        if offset + end >= 1:
            raise ValueError(f"offset + end must be below 1, got {offset:g} + {end:g}")
        self.offset, self.end = float(offset), float(end)

    def __repr__(self) -> str:
        return f"CosineSchedule(offset={self.offset:g}, end={self.end:g})"

    def _angles(self, t: Tensor) -> tuple[float, Tensor]:
        first = 0.5 * math.pi * self.offset
        return first, 0.5 * math.pi * (1 - self.offset - self.end) * t

    def log_alpha(self, t: Tensor) -> Tensor:
        """ln cos a(t) − ln cos a(0)."""
        first, turned = self._angles(t)
        return (first + turned).cos().log() - math.log(math.cos(first))

    def _sigma(self, t: Tensor) -> Tensor:
        first, turned = self._angles(t)  # cos² a(0) − cos² a(t), as a product
        return (turned.sin() * (2 * first + turned).sin()).sqrt() / math.cos(first)

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        first, turned = self._angles(t)
        slope = 0.5 * math.pi * (1 - self.offset - self.end) * (first + turned).tan()
        return -slope, 2 * slope


class ExplodingSchedule(Schedule):
    """α = 1, σ²(t) = σ_min² (r²ᵗ − 1) with r = σ_max / σ_min: nothing shrinks, the noise explodes.

    Source: Song and others 2021, appendix C, https://arxiv.org/abs/2011.13456.

    Args:
        sigma_min: the noise at which growth by equal factors sets in.
        sigma_max: the noise at t = 1, but for σ_min; it must drown the data.

    Raises:
        ValueError: for numbers that are not positive, or σ_max ≤ σ_min: σ would not grow.

    Example:
        >>> ExplodingSchedule().sigma(torch.tensor([0.0, 0.5, 1.0]))
        tensor([ 0.0000,  0.7070, 50.0000])
    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0) -> None:
        check_number(sigma_min, "sigma_min")
        check_number(sigma_max, "sigma_max")
        if sigma_max <= sigma_min:
            raise ValueError(
                f"sigma_max must be above sigma_min, or the schedule is not monotone, got "
                f"{sigma_max:g} and {sigma_min:g}"
            )
        self.sigma_min, self.sigma_max = float(sigma_min), float(sigma_max)
        self._growth = 2 * math.log(sigma_max / sigma_min)

    def __repr__(self) -> str:
        return f"ExplodingSchedule(sigma_min={self.sigma_min:g}, sigma_max={self.sigma_max:g})"

    @property
    def prior_scale(self) -> float:
        """σ(1)."""
        return float(self.sigma(1.0))

    def log_alpha(self, t: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(t)

    def _sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * torch.expm1(self._growth * t).sqrt()

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        growth = self.sigma_min**2 * self._growth * (self._growth * t).exp()
        return torch.zeros_like(t), growth


# --- times ------------------------------------------------------------------------------------


def as_times(t: Any, name: str = "t") -> Tensor:
    """A time or times as a tensor; a ValueError unless they lie in [0, 1].

    A Python number becomes float64, which beside a batch of float32 gives float32.
    """
    t = t if isinstance(t, Tensor) else as_numbers(t, name, torch.float64)
    check_floating(t, name)
    if values_are_checked() and not ((t >= 0) & (t <= 1)).all():
        low, high = (float(v) for v in t.aminmax())
        raise ValueError(f"{name} must lie in [0, 1], got values from {low:g} to {high:g}")
    return t


def times_of(x: Tensor, t: Time) -> Tensor:
    """t for each example of a batch: ``()`` or ``(N,)`` to ``(N,)``, in x's dtype."""
    check_floating(x, "x")
    if x.ndim < 2 or x.numel() == 0:
        raise ValueError(f"x must have shape (N, ...), not empty, got shape {tuple(x.shape)}")
    t = as_times(t)
    if t.shape not in ((), x.shape[:1]):
        raise ValueError(f"t must have shape () or ({len(x)},), got shape {tuple(t.shape)}")
    return t.to(x).expand(len(x))


def like(values: Tensor, x: Tensor) -> Tensor:
    """``(N,)`` with axes of 1 behind it, so that it multiplies x ``(N, ...)``."""
    return values.reshape(-1, *[1] * (x.ndim - 1))


def time_grid(n_steps: int, power: float = 1.0, first: float = 0.0) -> Tensor:
    """t_i = first + (1 − first) (i/T)^power, i = 0 … T: a chain of T steps, ``(T + 1,)``, float64.

    Args:
        n_steps: T, at least 1.
        power: 1 for equal steps; 2 for steps that are small where there is little noise.
        first: t_0; above 0 where a learned denoiser is to be asked there.

    Raises:
        ValueError: for no steps, a power that is not positive, or first outside [0, 1).

    Example:
        >>> time_grid(4, power=2)
        tensor([0.0000, 0.0625, 0.2500, 0.5625, 1.0000], dtype=torch.float64)
    """
    n_steps = check_count(n_steps, "n_steps")
    check_number(power, "power")
    check_number(first, "first", or_zero=True)
    if first >= 1:
        raise ValueError(f"first must be below 1, got {first:g}")
    share = torch.linspace(0, 1, n_steps + 1, dtype=torch.float64) ** power
    return first + (1 - first) * share


def check_chain(schedule: Schedule, times: Tensor) -> Tensor:
    """The times ``(T + 1,)`` in float64; a ValueError unless noise grows along them.

    Raises:
        ValueError: for fewer than two times, times outside [0, 1] or not rising, or a schedule
            whose α/σ does not fall from each to the next.
    """
    check_instance(schedule, Schedule, "schedule")
    times = as_times(times, "times").double()
    if times.ndim != 1 or len(times) < 2:
        raise ValueError(
            f"times must have shape (T + 1,) with T >= 1 steps, got shape {tuple(times.shape)}"
        )
    if not (times.diff() > 0).all():
        raise ValueError(f"times must rise from each to the next, got {times.tolist()[:9]} ...")
    log_snr = schedule.log_snr(times)
    if not (log_snr.diff() < 0).all():  # NaN is no fall either
        i = int((~(log_snr.diff() < 0)).nonzero()[0])
        raise ValueError(
            f"schedule must be monotone, ln α²/σ² falling with t, got {log_snr[i]:g} at t = "
            f"{times[i]:g} and {log_snr[i + 1]:g} at {times[i + 1]:g}"
        )
    return times


# --- the noising process ----------------------------------------------------------------------


def q_sample(x0: Tensor, t: Time, noise: Tensor, schedule: Schedule) -> Tensor:
    """x_t = α(t) x₀ + σ(t) ε: a draw from q(x_t | x₀), for ε a draw from N(0, I).

    Source: Ho, Jain & Abbeel 2020, equation 4, https://arxiv.org/abs/2006.11239.

    Args:
        x0: data ``(N, ...)``.
        t: one time, or one for each example, ``(N,)``.
        noise: ε, of x0's shape.
        schedule: of the noise.

    Shapes: as x0.

    Raises:
        ValueError: for t outside [0, 1] or of another shape, noise of another shape, or NaN.

    Example:
        >>> q_sample(torch.ones(1, 2), 0.5, torch.zeros(1, 2), LinearSchedule())
        tensor([[0.2812, 0.2812]])
    """
    check_instance(schedule, Schedule, "schedule")
    check_same_shape("x0", x0, "noise", noise)
    t = times_of(x0, t)
    check_finite(x0, "x0", "numbers", 0)
    check_finite(noise, "noise", "numbers", 0)
    return like(schedule.alpha(t), x0) * x0 + like(schedule.sigma(t), x0) * noise


class Step(NamedTuple):
    """q(x_s | x_t, x₀) = N(from_x x_t + from_x0 x₀, variance I), and the variance of q(x_t | x_s).

    Each is of the shape of s and t.
    """

    from_x: Tensor
    from_x0: Tensor
    variance: Tensor  # β̃, 0 at s = 0
    forward_variance: Tensor  # σ_t² − (α_t/α_s)² σ_s²: β_t where variance is preserved


def step(schedule: Schedule, s: Time, t: Time) -> Step:
    """The coefficients of q(x_s | x_t, x₀) for 0 ≤ s < t ≤ 1.

    With a = α_t/α_s and b = σ_t² − a² σ_s², the variance that a step from s to t adds, Bayes' rule
    gives the mean (a σ_s² x_t + α_s b x₀)/σ_t² and the variance b σ_s²/σ_t².

    Source: Ho, Jain & Abbeel 2020, equations 6 and 7, https://arxiv.org/abs/2006.11239; for any
    two times, Kingma and others 2021, appendix A.2, https://arxiv.org/abs/2107.00630.

    Raises:
        ValueError: for times outside [0, 1], or s ≥ t.
    """
    check_instance(schedule, Schedule, "schedule")
    s, t = as_times(s, "s"), as_times(t)
    if values_are_checked() and not (s < t).all():
        raise ValueError(f"s must be below t, got {s.tolist()} and {t.tolist()}")
    alpha_s, sigma_s, sigma_t = schedule.alpha(s), schedule.sigma(s), schedule.sigma(t)
    a = (schedule.log_alpha(t) - schedule.log_alpha(s)).exp()
    added = (sigma_t - a * sigma_s) * (sigma_t + a * sigma_s)
    kept = (sigma_s / sigma_t).square()
    return Step(a * kept, alpha_s * added / sigma_t.square(), added * kept, added)


class Gaussian(NamedTuple):
    """N(mean, variance I): mean ``(N, ...)``, a variance for each example ``(N,)``."""

    mean: Tensor
    variance: Tensor


def posterior(x0: Tensor, x_t: Tensor, s: Time, t: Time, schedule: Schedule) -> Gaussian:
    """q(x_s | x_t, x₀), exact, 0 ≤ s < t: mean and variance by the coefficients of `step`.

    Args:
        x0: data ``(N, ...)``.
        x_t: the same noised up to t.
        s: an earlier time than t; at 0 the law is x₀ itself, of variance 0.
        t: one time, or one for each example.
        schedule: of the noise.

    Raises:
        ValueError: as `step`; for shapes that differ.

    Example:
        >>> x = torch.ones(1, 2)
        >>> posterior(x, x, 0.4, 0.5, LinearSchedule()).variance
        tensor([0.5203])
    """
    check_same_shape("x0", x0, "x_t", x_t)
    of = step(schedule, times_of(x0, s), times_of(x0, t))
    return Gaussian(like(of.from_x, x0) * x_t + like(of.from_x0, x0) * x0, of.variance)
