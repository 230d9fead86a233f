"""Games of two numbers, x against y: the field that both follow, exact steps, what is stable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from dgm_course.checks import check_count, check_number, check_points
from dgm_course.gan.penalties import gradient_penalty
from dgm_course.losses import discriminator_loss, generator_loss

Loss = Callable[[Tensor, Tensor], Tensor]  # of x (N,) and y (N,), to losses (N,)
Field = Callable[[Tensor], Tensor]  # of points (x, y), (N, 2), to their velocities (N, 2)
Step = Callable[[Field, Tensor, float], Tensor]
DiracLoss = Literal["saturating", "non-saturating", "wasserstein"]


def game_field(loss_x: Loss, loss_y: Loss) -> Field:
    """v(x, y) = (−∂L_x/∂x, −∂L_y/∂y), by autograd: where both players would go at once.

    No gradient of one function, in general: ∂v_x/∂y and ∂v_y/∂x may differ, and have opposite
    signs where L_y = −L_x. That is what makes paths turn.

    Source: Mescheder, Nowozin & Geiger 2017, section 2, https://arxiv.org/abs/1705.10461.

    Args:
        loss_x: what x minimises, of x and y ``(N,)`` to ``(N,)``.
        loss_y: the same of y.

    Returns:
        The field, points ``(N, 2)`` to velocities ``(N, 2)``, differentiable where the points are.

    Example:
        >>> field = game_field(lambda x, y: x * y, lambda x, y: -x * y)
        >>> field(torch.tensor([[1.0, 2.0]]))
        tensor([[-2.,  1.]])
    """

    def field(w: Tensor) -> Tensor:
        check_points(w, 2, None, "w")
        is_followed = w.requires_grad and torch.is_grad_enabled()
        with torch.enable_grad():
            x, y = (w if is_followed else w.detach().requires_grad_()).unbind(1)
            (of_x,) = torch.autograd.grad(loss_x(x, y).sum(), x, create_graph=is_followed)
            (of_y,) = torch.autograd.grad(loss_y(x, y).sum(), y, create_graph=is_followed)
        return -torch.stack([of_x, of_y], 1)

    return field


def bilinear_game() -> Field:
    """min_x max_y x y: v = (−y, x), a circle round the only equilibrium, (0, 0)."""
    return game_field(lambda x, y: x * y, lambda x, y: -x * y)


def dirac_gan(gamma: float = 0.0, *, target: float = 0.0, loss: DiracLoss = "saturating") -> Field:
    """The least GAN: data at 0, one sample at θ, the discriminator's logit ψ x; (θ, ψ) is (x, y).

    θ follows ψ σ(ψθ), or ψ σ(−ψθ) without saturation, or ψ. ψ follows −θ σ(ψθ), or −θ, less the
    slope of γ/2 (|ψ| − target)². At (0, 0) with the target 0 the field's Jacobian has the
    eigenvalues −γ/2 ± √(γ²/4 − ¼) for both logistic losses: ±½ i without a penalty, which turns
    for ever; the fastest return at γ = 1.

    Source: Mescheder, Geiger & Nowozin 2018, section 2 and lemmas 2.3 and 4.1,
    https://arxiv.org/abs/1801.04406.

    Args:
        gamma: weight γ ≥ 0 of the penalty on the discriminator's slope.
        target: the slope that costs nothing: 0 of R1, 1 of WGAN-GP.
        loss: "saturating", "non-saturating" or "wasserstein".

    Example:
        >>> eigenvalues(dirac_gan(gamma=1.0), (0.0, 0.0)).real
        tensor([-0.5000, -0.5000], dtype=torch.float64)
    """
    check_number(gamma, "gamma", or_zero=True)
    check_number(target, "target", or_zero=True)
    if loss not in get_args(DiracLoss):
        raise ValueError(f"loss must be one of {get_args(DiracLoss)}, got {loss!r}")

    def of_generator(theta: Tensor, psi: Tensor) -> Tensor:
        if loss == "wasserstein":
            return -psi * theta
        return generator_loss(psi * theta, saturating=loss == "saturating")

    def of_discriminator(theta: Tensor, psi: Tensor) -> Tensor:
        at_data, at_sample = 0 * psi, psi * theta
        value = at_sample - at_data
        if loss != "wasserstein":
            value = discriminator_loss(at_data, at_sample)
        data = torch.zeros_like(psi)[:, None]
        penalty = gradient_penalty(lambda x: psi * x[:, 0], data, target=target)
        return value + gamma / 2 * penalty

    return game_field(of_generator, of_discriminator)


def simultaneous(field: Field, w: Tensor, eta: float) -> Tensor:
    """w + η v(w). On x y the distance from (0, 0) grows by √(1 + η²), for every η > 0."""
    return w + eta * field(w)


def alternating(field: Field, w: Tensor, eta: float) -> Tensor:
    """x moves, then y, which knows the new x. On x y it keeps x² + y² − η x y: an ellipse."""
    x = (w + eta * field(w))[:, 0]
    y = w[:, 1] + eta * field(torch.stack([x, w[:, 1]], 1))[:, 1]
    return torch.stack([x, y], 1)


def extragradient(field: Field, w: Tensor, eta: float) -> Tensor:
    """w + η v(w + η v(w)): the velocity a step ahead. On x y a factor √(1 − η² + η⁴), < 1 if η < 1.

    Source: Korpelevich 1976; Gidel et al. 2019, section 3.1, https://arxiv.org/abs/1802.10551.
    """
    return w + eta * field(w + eta * field(w))


@torch.no_grad()
def path(step: Step, field: Field, start: Tensor, eta: float, n_steps: int) -> Tensor:
    """start and what n steps of size η make of it, ``(N, 2)`` to ``(n_steps + 1, N, 2)``.

    Args:
        step: `simultaneous`, `alternating`, `extragradient`, or another such function.
        field: any, from `game_field` or written out.
        start: points ``(N, 2)``.
        eta: η > 0.
        n_steps: how many.

    Example:
        >>> ends = path(extragradient, bilinear_game(), torch.tensor([[1.0, 0.0]]), 0.5, 20)
        >>> ends[-1].norm().item() < 0.2  # 0.901²⁰ = 0.125
        True
    """
    check_points(start, 2, None, "start")
    check_number(eta, "eta")
    points = [start]
    for _ in range(check_count(n_steps, "n_steps")):
        points.append(step(field, points[-1], eta))
    return torch.stack(points)


def eigenvalues(field: Field, w: Tensor | tuple[float, float]) -> Tensor:
    """The two eigenvalues of ∂v/∂w at a point ``(2,)``, complex, computed in float64.

    Near an equilibrium the flow shrinks where both real parts are below 0, and simultaneous steps
    of size η where |1 + η μ| < 1 for both μ.
    """
    point = torch.as_tensor(w, dtype=torch.float64)
    check_points(point[None], 2, None, "w")
    with torch.enable_grad():
        jacobian = torch.autograd.functional.jacobian(lambda w: field(w[None])[0], point)
    return torch.linalg.eigvals(jacobian)
