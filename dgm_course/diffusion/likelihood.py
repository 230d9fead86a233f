"""The probability flow is a flow: log p(x₀) by the change of variables, along the path."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from dgm_course.checks import check_count, check_finite, check_instance, check_shape
from dgm_course.data.toy import Seed, as_generator
from dgm_course.diffusion.models import DiffusionModel
from dgm_course.diffusion.samplers import Method, check_method, ode_step
from dgm_course.diffusion.schedules import check_chain, times_of
from dgm_course.probability import gaussian_log_prob


class FlowLikelihood(NamedTuple):
    """log p(x) in nats, its standard error by the probes, and the noise that x is carried to."""

    log_prob: Tensor  # (N,)
    standard_error: Tensor  # (N,), 0 with the exact trace
    z: Tensor  # (N, ...), at the last time


def log_prob_ode(
    model: DiffusionModel,
    x: Tensor,
    times: Tensor,
    method: Method = "rk4",
    *,
    n_probes: int | None = None,
    terminal: Callable[[Tensor], Tensor] | None = None,
    generator: Seed | None = None,
) -> FlowLikelihood:
    """log p(x) = log p_1(z) + ∫ tr ∂v/∂x dt along dx/dt = v(x, t), which carries x to z.

    It is the density of what the flow makes of p_1, and so the model's, if p_1 is the law that its
    sampler starts from; the data's, if the score is exact and p_1 too. The trace is exact, by D
    derivatives; or Hutchinson's, the mean over S probes e of eᵀ (∂v/∂x) e, e_i = ±1, each probe
    held along the path: its mean over probes is the trace.

    Source: Song and others 2021, appendix D.2, https://arxiv.org/abs/2011.13456; Grathwohl and
    others 2019, section 3.1, https://arxiv.org/abs/1810.01367.

    Args:
        model: a denoiser, exact or learned; of a learned one begin the times above 0.
        x: at the first time, ``(N, ...)``: log p is that of p_t there.
        times: a chain ``(T + 1,)``, rising.
        method: "euler", "heun" or "rk4".
        n_probes: S ≥ 2, for Hutchinson's trace; None for the exact one.
        terminal: log p_1, ``(N, ...)`` to nats ``(N,)``; None for N(0, prior_scale² I), which p_1
            is but nearly: the difference is the prior's mismatch.
        generator: of the probes; None takes torch's own.

    Raises:
        ValueError: for a bad chain, method or batch; a model that returns another shape or what is
            not finite; one probe; a terminal of another shape.

    Example:
        >>> from dgm_course.diffusion import LinearSchedule, MixtureDenoiser, time_grid
        >>> model = MixtureDenoiser(LinearSchedule(), [1.0], [[1.0]], [[[0.5]]])
        >>> x, p_1 = torch.tensor([[0.0], [1.0]]), lambda z: model.log_prob(z, 1.0)
        >>> log_prob_ode(model, x, time_grid(50), terminal=p_1).log_prob
        tensor([-1.5724, -0.5724])
        >>> model.log_prob(x)
        tensor([-1.5724, -0.5724])
    """
    check_instance(model, DiffusionModel, "model")
    check_method(method)
    times = check_chain(model.schedule, times)
    times_of(x, times[0])
    check_finite(x, "x", "numbers", 0)
    n, n_dims = len(x), x[:1].numel()
    probes = None
    if n_probes is not None:
        shape = (check_count(n_probes, "n_probes", 2), *x.shape)
        generator = None if generator is None else as_generator(generator)
        probes = (2 * torch.randint(2, shape, generator=generator) - 1).to(x)

    def velocity(state: Tensor, t: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            here = state[:, :n_dims].reshape(x.shape).clone().requires_grad_()
            v = model.drift(here, t)
            traces = _exact_trace(v, here) if probes is None else _probed(v, here, probes)
        return torch.cat([v.detach().flatten(1), traces], 1)

    width = 1 if probes is None else len(probes)
    state = torch.cat([x.detach().flatten(1), x.new_zeros(n, width)], 1)
    for t, s in pairwise(times):
        state = ode_step(velocity, state, t, s, method)
    z, integrals = state[:, :n_dims].reshape(x.shape), state[:, n_dims:]
    log_p = _prior_log_prob(z, model.schedule.prior_scale) if terminal is None else terminal(z)
    check_shape(log_p, (n,), "what terminal returns")
    error = integrals.std(1) / math.sqrt(width) if width > 1 else torch.zeros_like(log_p)
    return FlowLikelihood(log_p + integrals.mean(1), error, z)


def _exact_trace(v: Tensor, x: Tensor) -> Tensor:
    """tr ∂v/∂x, ``(N, 1)``, by a derivative for each of the D axes."""
    columns = v.flatten(1).sum(0)
    trace = x.new_zeros(len(x))
    for i, column in enumerate(columns):
        (gradient,) = torch.autograd.grad(column, x, retain_graph=True)
        trace += gradient.flatten(1)[:, i]
    return trace[:, None]


def _probed(v: Tensor, x: Tensor, probes: Tensor) -> Tensor:
    """eᵀ (∂v/∂x) e for each probe e, ``(N, S)``."""
    found = []
    for e in probes:
        (gradient,) = torch.autograd.grad(v, x, e, retain_graph=True)
        found.append((gradient * e).flatten(1).sum(1))
    return torch.stack(found, 1)


def _prior_log_prob(z: Tensor, scale: float) -> Tensor:
    zero = torch.zeros((), dtype=torch.float64)
    return gaussian_log_prob(z, zero, zero + math.log(scale)).flatten(1).sum(1)
