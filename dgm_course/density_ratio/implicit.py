"""Inference where q(z|x), or everything, can be drawn and not evaluated: a critic has the ratio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from dgm_course.checks import (
    check_count,
    check_instance,
    check_number,
    check_points,
    check_shape,
)
from dgm_course.losses import discriminator_loss

LogLikelihood = Callable[[Tensor, Tensor], Tensor]  # x (N, D), z (S, N, M) to log p(x|z) (S, N)
Simulator = Callable[[Tensor], Tensor]  # z (N, M) to a draw of p(x|z) for each, (N, D)


class AVB:
    """log p(x) ≥ E_q [log p(x|z) − T*(x, z)], T* = log q(z|x) − log p(z): a critic learns T*.

    Two losses for two players: the critic tells draws of q(z|x), label 1, from those of p(z), and
    its best log-odds are T*; the posterior climbs the average. That is a bound only with the best
    critic. One that lags puts it on either side of log p(x); T = 0 makes it E_q log p(x|z). The
    slope of T* in q's weights needs no term of its own: its average under q is 0.

    With ``contrast``, the critic tells (z − μ) / σ from N(0, I), where μ(x) and σ(x) are the
    moments of the draws, constants of the step. It learns log q − log r, r = N(μ(x), diag σ(x)²),
    and log r − log p is added in closed form. It is for posteriors that are narrow and far from
    the prior, where a critic sees at once that q is not p, and not by how much.

    Source: Mescheder, Nowozin & Geiger 2017, sections 3.1 and 3.3 and algorithm 1,
    https://arxiv.org/abs/1701.04722.

    Args:
        log_likelihood: x ``(N, D)``, z ``(S, N, M)`` to log p(x|z) in nats ``(S, N)``,
            differentiable in z, and in the weights of a model that is trained along.
        posterior: x and S to draws ``(S, N, M)``, such as an `ImplicitPosterior`.
        critic: x and z to log-odds ``(S, N)``, such as a `PairCritic`.
        prior: p(z), of event shape ``(M,)``.
        contrast: whether the contrast is adaptive. Moments are of S draws: take some hundred.

    Omits: the paper's network that builds μ(x) and σ(x) from a few shared noises; learning p(z).

    Example:
        >>> from dgm_course.density_ratio import ImplicitPosterior, PairCritic
        >>> prior = torch.distributions.Independent(Normal(torch.zeros(1), 1.0), 1)
        >>> likelihood = lambda x, z: Normal(z, 1.0).log_prob(x).sum(-1)
        >>> avb = AVB(likelihood, ImplicitPosterior(1, 1), PairCritic(1, 1), prior)
        >>> avb.posterior_loss(torch.zeros(3, 1), n_samples=5).shape
        torch.Size([3])
    """

    def __init__(
        self,
        log_likelihood: LogLikelihood,
        posterior: Callable[[Tensor, int], Tensor],
        critic: Callable[[Tensor, Tensor], Tensor],
        prior: Distribution,
        *,
        contrast: bool = False,
    ) -> None:
        _check_prior(prior)
        self.log_likelihood, self.posterior, self.critic = log_likelihood, posterior, critic
        self.prior, self.contrast = prior, contrast

    def critic_loss(self, x: Tensor, n_samples: int = 1) -> Tensor:
        """−log σ(T(x, z)) at z of q, −log(1 − σ(T(x, z))) at z of p: S draws each, to ``(N,)``."""
        z_q = self._draw(x, n_samples).detach()
        if self.contrast:
            mean, scale = _moments(z_q)
            z_q, z_p = (z_q - mean) / scale, torch.randn_like(z_q)
        else:
            z_p = _draw_prior(self.prior, z_q)
        of_q, of_p = _judge(self.critic, x, torch.cat([z_q, z_p])).chunk(2)
        return discriminator_loss(of_q, of_p).mean(0)

    def posterior_loss(self, x: Tensor, n_samples: int = 1, weight: float = 1.0) -> Tensor:
        """−E_q [weight · log p(x|z) − T], an average over S draws, in nats ``(N,)``.

        Args:
            x: data ``(N, D)``.
            n_samples: S; at least 2 with contrast.
            weight: of the likelihood; below 1 it is tempered: see `tempered`.
        """
        check_number(weight, "weight", or_zero=True)
        z = self._draw(x, n_samples)
        log_likelihood = self.log_likelihood(x, z)
        check_shape(log_likelihood, tuple(z.shape[:2]), "what log_likelihood returns")
        return (self.log_ratio(x, z) - weight * log_likelihood).mean(0)

    def log_ratio(self, x: Tensor, z: Tensor) -> Tensor:
        """log q(z|x) − log p(z), of the critic, at draws of q: ``(S, N, M)`` to ``(S, N)``."""
        if not self.contrast:
            return _judge(self.critic, x, z)
        mean, scale = _moments(z.detach())
        log_r = Normal(mean, scale).log_prob(z).sum(-1)
        of_contrast = _judge(self.critic, x, (z - mean) / scale)
        return of_contrast + log_r - self.prior.log_prob(z)

    @torch.no_grad()
    def estimate(self, x: Tensor, n_samples: int = 1000) -> Tensor:
        """E_q [log p(x|z) − T(x, z)] in nats ``(N,)``: no bound, unless T is T*."""
        return -self.posterior_loss(x, n_samples)

    def _draw(self, x: Tensor, n_samples: int) -> Tensor:
        n_samples = check_count(n_samples, "n_samples", 2 if self.contrast else 1)
        return _draw(self.posterior, x, n_samples, self.prior)


class JointAVB:
    """KL(q(x) q(z|x) ‖ p(z) p(x|z)) = E_q T*, T* = log q(z|x) q(x) − log p(x|z) p(z).

    Nothing has a density: x of q(x) with z of q(z|x), label 1, against z of p(z) with what a
    simulator makes of it. For any q(x), the least is at q(z|x) = p(z|x), and is KL(q(x) ‖ p(x)):
    0 if q(x) is the simulator's own, with which one posterior serves every x.

    Source: Tran, Ranganath & Blei 2017, section 3, https://arxiv.org/abs/1702.08896.

    Args:
        simulate: z ``(N, M)`` to a draw of p(x|z) for each, ``(N, D)``; it needs no gradient.
        posterior: as in `AVB`; critic: as in `AVB`, for x ``(S, N, D)`` too; prior: as in `AVB`.

    Omits: learning the simulator's own weights.

    Example:
        >>> from dgm_course.density_ratio import ImplicitPosterior, PairCritic
        >>> prior = torch.distributions.Independent(Normal(torch.zeros(1), 1.0), 1)
        >>> joint = JointAVB(lambda z: z + torch.randn_like(z), ImplicitPosterior(1, 1),
        ...                  PairCritic(1, 1), prior)
        >>> joint.critic_loss(torch.zeros(3, 1), n_samples=5).shape
        torch.Size([3])
    """

    def __init__(
        self,
        simulate: Simulator,
        posterior: Callable[[Tensor, int], Tensor],
        critic: Callable[[Tensor, Tensor], Tensor],
        prior: Distribution,
    ) -> None:
        _check_prior(prior)
        self.simulate, self.posterior, self.critic = simulate, posterior, critic
        self.prior = prior

    def critic_loss(self, x: Tensor, n_samples: int = 1) -> Tensor:
        """−log σ(T) at q's pairs, −log(1 − σ(T)) at the simulator's: S each, to ``(N,)``."""
        z_q = _draw(self.posterior, x, n_samples, self.prior).detach()
        z_p = _draw_prior(self.prior, z_q)
        with torch.no_grad():
            x_p = self.simulate(z_p.flatten(0, 1))
        check_shape(x_p, (n_samples * len(x), *x.shape[1:]), "what simulate returns")
        x_q, x_p = x.expand(n_samples, *x.shape), x_p.view(n_samples, *x.shape)
        of_q, of_p = _judge(self.critic, torch.cat([x_q, x_p]), torch.cat([z_q, z_p])).chunk(2)
        return discriminator_loss(of_q, of_p).mean(0)

    def posterior_loss(self, x: Tensor, n_samples: int = 1) -> Tensor:
        """E_q T(x, z), an average over S draws, in nats ``(N,)``."""
        z = _draw(self.posterior, x, n_samples, self.prior)
        return _judge(self.critic, x, z).mean(0)


def tempered(step: int, n_steps: int, start: float = 0.05, share: float = 0.6) -> float:
    """The likelihood's weight: start + (1 − start) · step / (share · n_steps), and then 1.

    While it is small p(z) p(x|z)^weight is one broad mode, and all that it splits into is found.

    Source: Mandt et al. 2016, section 3, https://arxiv.org/abs/1411.1810, with 1 / temperature.

    Args:
        step: from 0.
        n_steps: of the whole run.
        start: the first weight, in [0, 1].
        share: of the run, after which the weight is 1; in (0, 1].

    Example:
        >>> [round(tempered(step, 100), 2) for step in (0, 30, 60, 99)]
        [0.05, 0.53, 1.0, 1.0]
    """
    check_number(start, "start", or_zero=True)
    check_number(share, "share")
    if max(start, share) > 1:
        raise ValueError(f"start and share must be at most 1, got {start} and {share}")
    step, n_steps = check_count(step, "step", 0), check_count(n_steps, "n_steps")
    return min(1.0, start + (1 - start) * step / (share * n_steps))


def _check_prior(prior: Any) -> None:
    check_instance(prior, Distribution, "prior")
    if len(prior.event_shape) != 1 or prior.batch_shape:
        raise ValueError(
            "prior must be a single one, of event shape (M,) and batch shape (), got "
            f"{tuple(prior.event_shape)} and {tuple(prior.batch_shape)}"
        )


def _draw(posterior: Any, x: Tensor, n_samples: int, prior: Distribution) -> Tensor:
    check_points(x, None, None, "x")
    z = posterior(x, check_count(n_samples, "n_samples"))
    check_shape(z, (n_samples, len(x), *prior.event_shape), "what posterior returns")
    return z


def _judge(critic: Any, x: Tensor, z: Tensor) -> Tensor:
    logit = critic(x, z)
    check_shape(logit, tuple(z.shape[:2]), "what critic returns")
    return logit


def _draw_prior(prior: Distribution, like: Tensor) -> Tensor:
    """Without a gradient, also where the prior has weights: they must not help the critic."""
    return prior.sample(like.shape[:2])


def _moments(z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the draws ``(S, N, M)`` of each x, ``(N, M)``."""
    return z.mean(0), z.std(0)
