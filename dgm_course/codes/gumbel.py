"""Draws from a categorical that let a gradient pass, and the exact gradient to judge them by."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from dgm_course.checks import check_count, check_finite, check_floating, check_number
from dgm_course.codes.code_model import all_grids
from dgm_course.data.toy import Seed, as_generator


class GumbelSoftmax:
    """q(z) = Π_g Cat(z_g; softmax(ℓ_g)) with draws y = softmax((ℓ + γ) / τ), γ standard Gumbel.

    argmax_k (ℓ_k + γ_k) is a draw from the categorical itself, so that y → one-hot z as τ → 0. For
    τ > 0 y lies inside the simplex, and has a gradient by ℓ; E f(y) is another number than E f(z),
    and its gradient another gradient: τ trades bias for variance. Straight-through, y is the
    one-hot z, with the gradient of the relaxed draw.

    Source: Jang, Gu & Poole 2017, sections 2.1 and 2.2, https://arxiv.org/abs/1611.01144;
    Maddison, Mnih & Teh 2017, https://arxiv.org/abs/1611.00712.

    Args:
        logits: ℓ ``(..., K)``, not necessarily normalised; each of the ... is a factor of q.
        temperature: τ > 0.
        straight_through: whether `rsample` returns one-hot words.

    Raises:
        ValueError: for logits that are not finite floating-point numbers ``(..., K)``, or τ ≤ 0.

    Omits: the density of y, which an ELBO of the words themselves does not need.

    Example:
        >>> q = GumbelSoftmax(torch.zeros(2, 3), temperature=0.5)
        >>> q.rsample(100).shape, q.kl().tolist()  # to the uniform
        (torch.Size([100, 2, 3]), [0.0, 0.0])
    """

    def __init__(
        self, logits: Tensor, temperature: float = 1.0, *, straight_through: bool = False
    ) -> None:
        check_floating(logits, "logits")
        if logits.ndim == 0 or logits.numel() == 0:
            raise ValueError(f"logits must have shape (..., K), got shape {tuple(logits.shape)}")
        check_finite(logits, "logits", "places")
        check_number(temperature, "temperature")
        self.log_q = logits.log_softmax(-1)
        self.temperature, self.straight_through = temperature, straight_through

    def __repr__(self) -> str:
        settings = f"temperature={self.temperature}, straight_through={self.straight_through}"
        return f"GumbelSoftmax(logits {tuple(self.log_q.shape)}, {settings})"

    def rsample(self, n_samples: int, generator: Seed | None = None) -> Tensor:
        """S draws of weights, ``(S, ..., K)``, each adding up to 1, with gradients by the logits.

        Args:
            n_samples: number S.
            generator: a seed or a generator; None takes torch's own.
        """
        scores = self._perturbed(n_samples, generator)
        # The highest score is taken off first: near 0 a quotient would overflow.
        below = scores - scores.detach().amax(-1, keepdim=True)
        y = (below / max(self.temperature, torch.finfo(below.dtype).tiny)).softmax(-1)
        if not self.straight_through:
            return y
        return one_hot(scores.argmax(-1), scores.shape[-1]).to(y) + (y - y.detach())

    @torch.no_grad()
    def sample(self, n_samples: int, generator: Seed | None = None) -> Tensor:
        """S draws of words z themselves, ``(S, ...)``, int64; the same noise as `rsample`'s."""
        return self._perturbed(n_samples, generator).argmax(-1)

    def log_prob(self, z: Tensor) -> Tensor:
        """log q of words ``(S, ...)``, of each factor, in nats, ``(S, ...)``."""
        return self.log_q.expand(*z.shape, -1).gather(-1, z[..., None])[..., 0]

    def kl(self) -> Tensor:
        """Σ_k q_k (log q_k + log K) = log K − entropy of each factor in nats, ``(...)``."""
        return (self.log_q.exp() * self.log_q).sum(-1) + math.log(self.log_q.shape[-1])

    def _perturbed(self, n_samples: int, generator: Seed | None) -> Tensor:
        shape = (check_count(n_samples, "n_samples"), *self.log_q.shape)
        order = None if generator is None else as_generator(generator)
        # −log of an exponential draw is Gumbel; of a uniform one it could be infinite.
        drawn = torch.empty(shape, dtype=self.log_q.dtype, device=self.log_q.device)
        return self.log_q - drawn.exponential_(generator=order).log()


def expectation_by_enumeration(f: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """E_q f(z) = Σ_z Π_g q_g(z_g) f(z) over all K^G words of G places: exact, with its gradients.

    Args:
        f: maps one-hot words ``(B, G, K)`` to numbers ``(B,)``.
        logits: of q, ``(G, K)``.

    Raises:
        ValueError: for more than 100,000 words, logits of another shape, or an f that returns
            another one.
    """
    logits = check_places(logits)
    n_places, n_codes = logits.shape
    z = all_grids(n_codes, (1, n_places)).flatten(1).to(logits.device)  # (B, G)
    q = GumbelSoftmax(logits).log_prob(z).sum(1).exp()
    return (q * values(f, one_hot(z, n_codes).to(logits))).sum()


@torch.enable_grad()
def relaxed_gradients(
    f: Callable[[Tensor], Tensor],
    logits: Tensor,
    temperature: float,
    n_samples: int,
    *,
    straight_through: bool = False,
    generator: Seed | None = None,
) -> Tensor:
    """∇_ℓ f(y_s) of S relaxed draws: S estimates of ∇_ℓ E_q f(z), ``(S, G, K)``, all biased.

    Their mean's distance to the gradient of `expectation_by_enumeration` is the bias, their spread
    the variance.

    Args:
        f: maps weights ``(S, G, K)``, inside the simplex too, to numbers ``(S,)``.
        logits: ℓ ``(G, K)``.
        temperature: τ.
        n_samples: number S.
        straight_through: whether f sees the one-hot words.
        generator: a seed or a generator; None takes torch's own.
    """
    n_samples = check_count(n_samples, "n_samples")
    # A row of its own for each draw: one backward pass of a sum gives each draw's own gradient.
    rows = check_places(logits).detach().repeat(n_samples, 1, 1).requires_grad_()
    q = GumbelSoftmax(rows, temperature, straight_through=straight_through)
    y = q.rsample(1, generator)[0]
    return torch.autograd.grad(values(f, y).sum(), rows)[0]


def check_places(logits: Tensor) -> Tensor:
    """The logits; a ValueError unless they are ``(G, K)``."""
    check_floating(logits, "logits")
    if logits.ndim != 2 or logits.numel() == 0:
        raise ValueError(f"logits must have shape (G, K), got shape {tuple(logits.shape)}")
    return logits


def values(f: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
    """f(y), once its shape is the draws'."""
    found = f(y)
    if not isinstance(found, Tensor) or found.shape != y.shape[:1]:
        came = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"f must map {tuple(y.shape)} to ({len(y)},), got {came}")
    return found
