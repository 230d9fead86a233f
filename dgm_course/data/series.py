"""Series with an exact density and an exact entropy rate: what a sequence model should reach."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal

from dgm_course.checks import (
    as_numbers,
    check_count,
    check_integers,
    check_number,
    check_points,
    check_sequences,
    check_tensor,
)
from dgm_course.data.toy import Seed, as_generator

Numbers = Sequence[float] | Tensor | np.ndarray


class ArProcess:
    """x_t = Σᵢ aᵢ x_(t−i) + σ ε_t, ε_t from N(0, 1): AR(p), from its stationary start.

    Args:
        coefficients: a₁ … a_p.
        sigma: σ.

    Raises:
        ValueError: for a root of 1 − Σ aᵢ zⁱ on or inside the unit circle, where nothing is
            stationary; for coefficients that are no list of finite numbers, or σ ≤ 0.

    Example:
        >>> round(ArProcess([1.5, -0.8], sigma=0.3).entropy_rate(), 4)
        0.215
    """

    def __init__(self, coefficients: Numbers, sigma: float = 1.0) -> None:
        self.coefficients = a = as_numbers(coefficients, "coefficients", torch.float64)
        if a.ndim != 1 or not len(a) or not a.isfinite().all():
            raise ValueError(f"coefficients must be finite numbers (p,), got {coefficients!r}")
        check_number(sigma, "sigma")
        self.sigma, p = float(sigma), len(a)
        companion = torch.zeros(p, p, dtype=torch.float64)  # (x_t−1 … x_t−p) to (x_t … x_t−p+1)
        companion[0], companion[range(1, p), range(p - 1)] = a, 1.0
        largest = torch.linalg.eigvals(companion).abs().max().item()
        if largest > 1 - 1e-7:  # a double root on the circle is found to eight digits
            what = "coefficients must have the roots of 1 - sum a_i z^i outside the unit circle"
            raise ValueError(f"{what}, got a root of modulus {1 / largest:.6g}")
        # Γ = Σ F^k Q F^kᵀ, k = 0, 1, …; twice as many terms each time.
        covariance = torch.zeros_like(companion)
        covariance[0, 0], power = self.sigma**2, companion
        while power.abs().max() > 1e-18:
            covariance = covariance + power @ covariance @ power.T
            power = power @ power
        self._start = torch.linalg.cholesky(covariance)  # of x_1 … x_p: Γ is its own mirror image

    def sample(self, n: int, length: int, generator: Seed | None = None) -> Tensor:
        """n series ``(n, length)`` in float32; without a seed or a generator, from torch's own."""
        noise, p = _noise(n, length, generator), len(self.coefficients)
        x = self.sigma * noise
        x[:, :p] = noise[:, :p] @ self._start[:length, :length].T
        lags = self.coefficients.nonzero()[:, 0] + 1
        for t in range(p, length):
            x[:, t] += x[:, t - lags] @ self.coefficients[lags - 1]
        return x.float()

    def conditionals(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-scale of the Gaussian of x_t given x_<t, each ``(N, T)``."""
        check_points(x, None, None, "x")
        series, p = x.double(), len(self.coefficients)
        mean, scale = torch.zeros_like(series), torch.full_like(series, self.sigma)
        start, first = self._start[: x.shape[1], : x.shape[1]], series[:, :p]
        noise = torch.linalg.solve_triangular(start, first.T, upper=False).T
        mean[:, :p], scale[:, :p] = first - noise * start.diagonal(), start.diagonal()
        for lag, a in enumerate(self.coefficients.tolist(), 1):
            if a and x.shape[1] > p:
                mean[:, p:] += a * series[:, p - lag : x.shape[1] - lag]
        return mean.to(x.dtype), scale.log().to(x.dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, ``(N,)``: the first p samples from the stationary law, too."""
        mean, log_scale = self.conditionals(x)
        return Normal(mean, log_scale.exp()).log_prob(x).sum(1)

    def entropy_rate(self) -> float:
        """½ ln(2πe σ²), in nats a step."""
        return 0.5 * math.log(2 * math.pi * math.e) + math.log(self.sigma)

    def spectrum(self, frequency: Tensor) -> Tensor:
        """σ² / |1 − Σ aᵢ e^(−iωi)|² at ω = 2π · frequency, in cycles a step: 1 for white noise."""
        check_tensor(frequency, "frequency")
        lags = torch.arange(1, len(self.coefficients) + 1, dtype=torch.float64)
        turns = torch.exp(-2j * math.pi * frequency.double()[..., None] * lags)
        return self.sigma**2 / (1 - turns @ self.coefficients.to(turns.dtype)).abs().square()


class LaggedProcess(ArProcess):
    """x_t = c x_(t−lag) + σ ε_t: nothing nearer than the lag helps to predict x_t.

    A predictor that sees fewer than ``lag`` samples is left with the stationary Gaussian's
    entropy, ½ ln(2πe σ² / (1 − c²)); one that sees them reaches ½ ln(2πe σ²).

    σ is √(1 − c²) unless given, for a variance of 1.
    """

    def __init__(self, lag: int, coefficient: float = 0.9, sigma: float | None = None) -> None:
        coefficients = [0.0] * (check_count(lag, "lag") - 1) + [coefficient]
        check_number(coefficient, "coefficient", or_negative=True)
        unit = math.sqrt(max(1 - coefficient**2, 0)) or 1.0
        super().__init__(coefficients, unit if sigma is None else sigma)


class MarkovChain:
    """p(x_t | x_<t) = transitions[x_(t−k), …, x_(t−1), x_t]: k past symbols count, of V each.

    Args:
        transitions: ``(V, …, V)`` of k + 1 axes, summing to 1 on the last; V^k at most 1024.

    Raises:
        ValueError: for transitions of another shape or that are no probabilities, or with more
            than one stationary law; for x that is not ``(N, T)`` or not integers 0 … V − 1.

    Example:
        >>> chain = MarkovChain([[0.9, 0.1], [0.1, 0.9]])
        >>> round(chain.entropy_rate(), 4)
        0.3251
        >>> chain = MarkovChain.random(3, order=2, generator=54)
        >>> [round(chain.entropy_rate(m), 3) for m in (0, 1, 2)]  # a staircase
        [1.024, 0.762, 0.458]
    """

    def __init__(self, transitions: Sequence[Sequence[float]] | Tensor | np.ndarray) -> None:
        p = as_numbers(transitions, "transitions", torch.float64)
        self.levels = v = p.shape[-1] if p.ndim else 0
        if p.ndim < 2 or p.shape != (v,) * p.ndim or not 2 <= v ** (p.ndim - 1) <= 1024:
            raise ValueError(
                f"transitions must have shape (V, ..., V), V^k from 2 to 1024, got {tuple(p.shape)}"
            )
        if not ((p >= 0).all() and ((p.sum(-1) - 1).abs() < 1e-5).all()):
            raise ValueError("transitions must hold probabilities that sum to 1 on the last axis")
        self.transitions = p = p / p.sum(-1, keepdim=True)  # float32's sums are 1 to seven digits
        # The state is the last k symbols: a step drops the first of them and adds one.
        n_states = v ** (p.ndim - 1)
        following = torch.arange(n_states * v).reshape(n_states, v) % n_states
        step = torch.zeros(n_states, n_states, dtype=torch.float64)
        step.scatter_add_(1, following, p.reshape(n_states, v))
        values, vectors = np.linalg.eig(step.T.numpy())
        (at,) = np.nonzero(abs(values - 1) < 1e-9)
        if len(at) != 1:
            raise ValueError(f"transitions must have one stationary law, got {len(at)}")
        law = torch.from_numpy(vectors[:, at[0]].real.copy())
        self.stationary = (law / law.sum()).clamp(min=0).reshape(p.shape[:-1])  # of k symbols

    @classmethod
    def random(
        cls, levels: int, order: int = 1, *, temperature: float = 0.3, generator: Seed
    ) -> MarkovChain:
        """A chain with the rows U^(1/temperature) / Σ U^(1/temperature), U uniform on (0, 1).

        At 1 or above its rows are nearly alike and more past helps little; the lower, the nearer
        to a chain that follows a fixed round.

        Raises:
            ValueError: for levels ** order above 1024, a temperature that is not positive, or so
                low that the chain has more than one stationary law.
        """
        v, k = check_count(levels, "levels", 2, 1024), check_count(order, "order", most=10)
        check_number(temperature, "temperature")
        if v**k > 1024:
            raise ValueError(f"levels ** order must be at most 1024, got {levels} ** {order}")
        shape, generator = (v,) * (k + 1), as_generator(generator)
        u = torch.rand(shape, generator=generator, dtype=torch.float64)
        return cls((u.log() / temperature).softmax(-1))

    def sample(self, n: int, length: int, generator: Seed | None = None) -> Tensor:
        """n series ``(n, length)``, int64, from the stationary law on."""
        n, length = check_count(n, "n"), check_count(length, "length")
        generator = None if generator is None else as_generator(generator)
        start = torch.multinomial(self.stationary.flatten(), n, True, generator=generator)
        x = list(torch.unravel_index(start, self.stationary.shape))
        while len(x) < length:
            rows = self.transitions[tuple(x[-self.stationary.ndim :])]
            x.append(torch.multinomial(rows, 1, generator=generator)[:, 0])
        return torch.stack(x[:length], 1)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, ``(N,)``, float64; −inf for what cannot happen."""
        self._check(x)
        k, columns = self.stationary.ndim, x.long().unbind(1)
        log_prob = self._law(min(k, len(columns)))[tuple(columns[:k])].log()
        for t in range(k, len(columns)):
            log_prob = log_prob + self.transitions[tuple(columns[t - k : t + 1])].log()
        return log_prob

    def conditionals(self, x: Tensor, n_past: int | None = None) -> Tensor:
        """log p(x_t = v | x_<t), ``(N, V, T)``, float64: the logits of a model that knows the law.

        With ``n_past``, given the last n_past symbols alone, of those there are: what the best
        model says that sees no more. Its mean loss at t is ``entropy_rate(min(t, n_past))``.
        """
        self._check(x)
        n_past, columns = self._n_past(n_past), x.long().unbind(1)
        laws = [self.law(m) for m in range(n_past + 1)]
        steps = []
        for t in range(len(columns)):
            seen = columns[max(t - n_past, 0) : t]
            steps.append(laws[len(seen)][tuple(seen)].expand(len(x), -1))
        return torch.stack(steps, 2).log()

    def law(self, n_past: int | None = None) -> Tensor:
        """p(x_t | the last n_past symbols), ``(V,) * (n_past + 1)``, summing to 1 on the last axis.

        All k of them, unless given. After a past that never occurs it is uniform for n_past < k.
        """
        n_past = self._n_past(n_past)
        if n_past == self.stationary.ndim:
            return self.transitions
        with_next = self._law(n_past + 1)
        return (with_next / with_next.sum(-1, keepdim=True)).nan_to_num(1 / self.levels)

    def entropy_rate(self, n_past: int | None = None) -> float:
        """H(x_t | x_<t) in nats a step; or given the last ``n_past`` ≤ k symbols alone."""
        n_past = self._n_past(n_past)
        with_next, past = self._law(n_past + 1), self._law(n_past)
        return (torch.xlogy(past, past).sum() - torch.xlogy(with_next, with_next).sum()).item()

    def _law(self, m: int) -> Tensor:
        """The probabilities of m symbols in a row, m ≤ k + 1, ``(V,) * m``."""
        return (self.stationary[..., None] * self.transitions)[..., None].flatten(m).sum(-1)

    def _n_past(self, n_past: int | None) -> int:
        k = self.stationary.ndim
        return k if n_past is None else check_count(n_past, "n_past", 0, most=k)

    def _check(self, x: Tensor) -> None:
        check_integers(x, 0, self.levels - 1, "x")
        check_sequences(x, "x")


class Chirps:
    """x_t = 2r cos θ_t x_(t−1) − r² x_(t−2) + σ_t ε_t: a resonance that sweeps, over and over.

    θ_t rises from low to high, evenly, within each period, and starts at a random point of it; so
    log p(x) is a log-mean over the period's starts. σ_t keeps the loudness the same at every
    pitch: the variance would be 1 if θ_t stood still. Before the first sample, x is 0.

    Args:
        period: steps of one sweep.
        low: the lowest frequency, in cycles a step, above 0.
        high: the highest, below ½.
        radius: r of the resonance, below 1; the nearer, the purer the tone.
    """

    def __init__(
        self, period: int = 1600, low: float = 0.05, high: float = 0.3, radius: float = 0.99
    ) -> None:
        self.period = check_count(period, "period", 2)
        for name, number in (("low", low), ("high", high), ("radius", radius)):
            check_number(number, name)
        if not (low <= high < 0.5 and radius < 1):
            which = "low, high and radius must have low <= high < 0.5 and radius < 1"
            raise ValueError(f"{which}, got {low}, {high} and {radius}")
        cosine = (2 * math.pi * torch.linspace(low, high, period, dtype=torch.float64)).cos()
        r2 = radius**2
        self._first, self._second = 2 * radius * cosine, -r2
        variance = (1 - r2) * ((1 + r2) ** 2 - 4 * r2 * cosine**2) / (1 + r2)
        self._log_scale = 0.5 * variance.log()

    def sample(self, n: int, length: int, generator: Seed | None = None) -> Tensor:
        """n series ``(n, length)`` in float32, each from its own start of the sweep."""
        generator = None if generator is None else as_generator(generator)
        noise = _noise(n, length, generator)
        start = torch.randint(self.period, (n,), generator=generator)
        x = torch.zeros(n, length + 2, dtype=torch.float64)
        for t in range(length):
            at = (start + t) % self.period
            mean = self._first[at] * x[:, t + 1] + self._second * x[:, t]
            x[:, t + 2] = mean + self._log_scale[at].exp() * noise[:, t]
        return x[:, 2:].float()

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, ``(N,)``, float64: log of the mean over the starts of the sweep."""
        check_points(x, None, None, "x")
        past = torch.nn.functional.pad(x.double(), (2, 0))
        given_start = []
        for start in range(self.period):
            at = torch.arange(start, start + x.shape[1]) % self.period
            mean = self._first[at] * past[:, 1:-1] + self._second * past[:, :-2]
            given_start.append(Normal(mean, self._log_scale[at].exp()).log_prob(past[:, 2:]).sum(1))
        return torch.stack(given_start).logsumexp(0) - math.log(self.period)

    def entropy_rate(self) -> float:
        """The mean of ½ ln(2πe σ_t²) over a period: the start, once heard, costs nothing more."""
        return 0.5 * math.log(2 * math.pi * math.e) + self._log_scale.mean().item()


def _noise(n: int, length: int, generator: Seed | None) -> Tensor:
    n, length = check_count(n, "n"), check_count(length, "length")
    generator = None if generator is None else as_generator(generator)
    return torch.randn(n, length, generator=generator, dtype=torch.float64)
