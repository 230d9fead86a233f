"""From noise to data along a chain of times: by chance, or along the probability flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from dgm_course.checks import check_floating, check_instance
from dgm_course.data.toy import Seed, as_generator
from dgm_course.diffusion.bound import Variances, step_variances
from dgm_course.diffusion.models import DiffusionModel
from dgm_course.diffusion.schedules import check_chain, step

Method = Literal["euler", "heun", "rk4"]
Velocity = Callable[[Tensor, Tensor], Tensor]  # x and a time to dx/dt
Walk = Callable[[Tensor, int], Tensor]  # x at times[i + 1] and i, to x at times[i]


@torch.no_grad()
def ancestral(
    model: DiffusionModel,
    x: Tensor,
    times: Tensor,
    variances: Variances = "posterior",
    *,
    generator: Seed | None = None,
    path: bool = False,
) -> Tensor:
    """x_s = (mean of q(x_s | x_t, x̂₀)) + √v z, from the last time to the first: T draws.

    In the step to t = 0 no noise is added: what comes out is the mean x̂₀ of the last draw.

    Source: Ho, Jain & Abbeel 2020, algorithm 2, https://arxiv.org/abs/2006.11239.

    Args:
        model: a denoiser, exact or learned.
        x: at the last time, ``(N, ...)``, such as `DiffusionModel.start` draws.
        times: a chain ``(T + 1,)``, rising.
        variances: v, "posterior" (β̃), "forward" (β), or ``(T,)``, as in `variational_bound`.
        generator: a seed or a generator; None takes torch's own.
        path: whether to return x at all times, ``(T + 1, N, ...)``, the first time first.

    Raises:
        ValueError: for a bad chain, schedule or batch; for a model that returns another shape or
            what is not finite.

    Example:
        >>> from dgm_course.diffusion import LinearSchedule, MixtureDenoiser, time_grid
        >>> model = MixtureDenoiser(LinearSchedule(), [1.0], [[3.0]], [[[0.01]]])
        >>> x = ancestral(model, model.start(1000, 1, 0), time_grid(100, 2), generator=1)
        >>> print(f"{x.mean():.2f} ± {x.std():.2f}")
        3.00 ± 0.10
    """
    check_instance(model, DiffusionModel, "model")
    times = check_chain(model.schedule, times)
    of = step(model.schedule, times[:-1], times[1:])
    v = step_variances(model.schedule, times, variances)
    generator = None if generator is None else as_generator(generator)

    def back(x: Tensor, i: int) -> Tensor:
        mean = of.from_x[i] * x + of.from_x0[i] * model.predict(x, times[i + 1]).x0
        if of.variance[i] == 0:  # the step to the data
            return mean
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
        return mean + v[i].sqrt() * z

    return _walk(back, x, len(times) - 1, path=path)


@torch.no_grad()
def ddim(model: DiffusionModel, x: Tensor, times: Tensor, *, path: bool = False) -> Tensor:
    """x_s = α_s x̂₀ + σ_s ε̂: the noise that was found is put back, but less of it; no chance.

    It is Euler's step for the probability flow of x/α in σ/α as its time.

    Source: Song, Meng & Ermon 2021, equation 12 with σ = 0, https://arxiv.org/abs/2010.02502.

    Args, shapes and errors as of `ancestral`.

    Example:
        >>> from dgm_course.diffusion import LinearSchedule, MixtureDenoiser, time_grid
        >>> model = MixtureDenoiser(LinearSchedule(), [1.0], [[3.0]], [[[0.01]]])
        >>> ddim(model, torch.tensor([[-1.0], [1.0]]), time_grid(50, 2))  # to 3 ∓ 0.1, almost
        tensor([[2.9039],
                [3.0924]])
    """
    check_instance(model, DiffusionModel, "model")
    times = check_chain(model.schedule, times)
    alpha, sigma = model.schedule.alpha(times), model.schedule.sigma(times)

    def back(x: Tensor, i: int) -> Tensor:
        x0, noise = model.predict(x, times[i + 1])
        return alpha[i] * x0 + sigma[i] * noise

    return _walk(back, x, len(times) - 1, path=path)


@torch.no_grad()
def ode(
    model: DiffusionModel,
    x: Tensor,
    times: Tensor,
    method: Method = "heun",
    *,
    path: bool = False,
) -> Tensor:
    """dx/dt = f x − ½ g² ∇ log p_t(x) from the last time to the first: every p_t is passed through.

    "euler" asks the model once a step and has an error of order h; "heun" twice, h²; "rk4" four
    times, h⁴. The last step is Euler's where it ends without noise, for there a learned denoiser
    has no score: for "rk4" end at a first time above 0.

    Source: Song and others 2021, section 4.3, https://arxiv.org/abs/2011.13456; Heun's, with that
    last step: Karras and others 2022, algorithm 1, https://arxiv.org/abs/2206.00364.

    Args, shapes and errors as of `ancestral`; an unknown method is refused.

    Example:
        >>> from dgm_course.diffusion import LinearSchedule, MixtureDenoiser, time_grid
        >>> model = MixtureDenoiser(LinearSchedule(), [1.0], [[3.0]], [[[0.01]]])
        >>> ode(model, torch.tensor([[-1.0], [1.0]]), time_grid(50, 2))
        tensor([[2.8972],
                [3.0977]])
    """
    check_instance(model, DiffusionModel, "model")
    times = check_chain(model.schedule, times)
    check_method(method)
    sigma = model.schedule.sigma(times)

    def back(x: Tensor, i: int) -> Tensor:
        rule = "euler" if sigma[i] == 0 else method
        return ode_step(model.drift, x, times[i + 1], times[i], rule)

    return _walk(back, x, len(times) - 1, path=path)


def ode_step(velocity: Velocity, x: Tensor, t: Tensor, s: Tensor, method: Method) -> Tensor:
    """x at time s of dx/dt = velocity(x, t) from x at time t, by one step of a method."""
    h = s - t
    k1 = velocity(x, t)
    if method == "euler":
        return x + h * k1
    if method == "heun":
        return x + 0.5 * h * (k1 + velocity(x + h * k1, s))
    middle = 0.5 * (s + t)
    k2 = velocity(x + 0.5 * h * k1, middle)
    k3 = velocity(x + 0.5 * h * k2, middle)
    return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + velocity(x + h * k3, s))


def check_method(method: str) -> None:
    """Raise a ValueError for an unknown method."""
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {get_args(Method)}, got {method!r}")


def _walk(back: Walk, x: Tensor, n_steps: int, *, path: bool) -> Tensor:
    check_floating(x, "x")
    xs = [x]
    for i in reversed(range(n_steps)):
        x = back(x, i)
        if path:
            xs.insert(0, x)
    return torch.stack(xs) if path else x
