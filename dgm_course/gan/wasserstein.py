"""Wasserstein's game: the critic's loss, and three ways to hold its slope."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized

from dgm_course.checks import (
    check_count,
    check_floating,
    check_instance,
    check_number,
    check_same_shape,
)
from dgm_course.data.toy import Seed, as_generator
from dgm_course.gan.penalties import gradient_penalty

if TYPE_CHECKING:  # as in `training`
    from torch.optim import Optimizer
    from torch.utils.hooks import RemovableHandle


class LineDistances(NamedTuple):
    """Four distances of two parallel lines, each ``(N,)``; the last two in nats."""

    wasserstein: Tensor
    total_variation: Tensor
    jsd: Tensor
    kl: Tensor


def random_interpolates(real: Tensor, fake: Tensor, generator: Seed | None = None) -> Tensor:
    """ε_i x_i + (1 − ε_i) G(z_i), one ε_i ~ U(0, 1) for each example, all its features alike.

    Where WGAN-GP measures the slope: on lines between data and samples, and nowhere else.

    Source: Gulrajani et al. 2017, algorithm 1, https://arxiv.org/abs/1704.00028.

    Args:
        real: data ``(N, ...)``.
        fake: samples of the same shape.
        generator: a seed or a generator on the CPU; None takes torch's own.

    Shapes: two of ``(N, ...)`` to ``(N, ...)``.

    Raises:
        ValueError: for other shapes, dtypes, or no features.

    Example:
        >>> random_interpolates(torch.zeros(3, 1, 2), torch.ones(3, 1, 2), 0)
        tensor([[[0.5037, 0.5037]],
        <BLANKLINE>
                [[0.2318, 0.2318]],
        <BLANKLINE>
                [[0.9115, 0.9115]]])
    """
    check_floating(real, "real")
    check_same_shape("real", real, "fake", fake)
    if real.dtype != fake.dtype:
        raise ValueError(f"real and fake must have one dtype, got {real.dtype} and {fake.dtype}")
    if real.ndim < 2:
        raise ValueError(f"real must have shape (N, ...), got shape {tuple(real.shape)}")
    source = None if generator is None else as_generator(generator)
    shape = (len(real), *[1] * (real.ndim - 1))
    device = real.device if source is None else source.device
    eps = torch.rand(shape, dtype=real.dtype, device=device, generator=source).to(real.device)
    return fake + eps * (real - fake)


def clip_weights(optimizer: Optimizer, c: float) -> RemovableHandle:
    """θ ← min(c, max(−c, θ)) after each step of the optimiser, for every weight that it trains.

    The weights are changed where they lie and stay the optimiser's own: new ones in their place
    would never be trained. A critic of bounded weights has a bounded slope; by how much it depends
    on its layers, for ReLU on at most the product of their matrices' norms. So its value is W₁
    times a number that nobody chose.

    Source: Arjovsky, Chintala & Bottou 2017, algorithm 1, https://arxiv.org/abs/1701.07875.

    Args:
        optimizer: the critic's. A hook is left at it; biases are clipped, too.
        c: the bound, c > 0.

    Returns:
        The hook's handle, whose ``remove()`` ends the clipping.

    Raises:
        ValueError: for c ≤ 0, or what is no optimiser.

    Example:
        >>> w = nn.Parameter(torch.tensor([0.5]))
        >>> optimizer = torch.optim.SGD([w], lr=1.0)
        >>> handle = clip_weights(optimizer, 0.1)
        >>> (-3 * w).sum().backward()
        >>> optimizer.step()
        >>> w.data  # not 3.5
        tensor([0.1000])
    """
    check_instance(optimizer, torch.optim.Optimizer, "optimizer")
    check_number(c, "c")

    @torch.no_grad()
    def clip(optimizer: Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for weight in group["params"]:
                weight.clamp_(-c, c)

    return optimizer.register_step_post_hook(clip)


def spectrally_normalised(network: nn.Module, n_iterations: int = 1) -> nn.Module:
    """The network with W / σ₁(W) for each weight W of its linear layers and convolutions.

    σ₁ is the largest singular value, followed by n power iterations at each pass in training mode
    (`torch.nn.utils.parametrizations.spectral_norm`, applied to all of them). Linear layers with
    ReLU, leaky ReLU or tanh between them then have ‖∇f‖ ≤ 1. It is no more than a bound: products
    of norms add up where the directions do not, so that the best such critic tells less than W₁.
    Of a convolution W is the kernel as a matrix, out by in · height · width; the slope of the
    whole map may be up to √(height · width) of it. Neither holds the slope of a normalisation.

    Source: Miyato et al. 2018, equations 7 to 10, https://arxiv.org/abs/1802.05957.

    Args:
        network: changed in place; its weights are what an optimiser is made of afterwards.
        n_iterations: power iterations a pass.

    Returns:
        The same network.

    Raises:
        ValueError: for a network without such layers, or with one that has it already.

    Warns:
        UserWarning: for batch normalisation, which divides by what it finds.

    Example:
        >>> layer = spectrally_normalised(nn.Linear(5, 3), 500)
        >>> round(torch.linalg.matrix_norm(layer.weight, 2).item(), 4)
        1.0
    """
    check_instance(network, nn.Module, "network")
    n_iterations = check_count(n_iterations, "n_iterations")
    layers = [m for m in network.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
    if not layers:
        raise ValueError(f"network must have linear layers or convolutions, got {network}")
    if n_done := sum(is_parametrized(layer, "weight") for layer in layers):
        raise ValueError(
            f"network must have plain weights, got {n_done} of {len(layers)} layers parametrised"
        )
    if any(isinstance(layer, _BatchNorm) for layer in network.modules()):
        warnings.warn(
            "batch normalisation divides by the scale that it finds: the slope is not bounded",
            stacklevel=2,
        )
    for layer in layers:
        spectral_norm(layer, n_power_iterations=n_iterations)
    return network


def lipschitz_estimate(critic: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """max_i ‖∇f(x_i)‖₂: a lower bound of the least L with |f(x) − f(y)| ≤ L ‖x − y‖ for all x, y.

    It knows the slope at these points and nowhere else; a critic may be steeper between them.

    Args:
        critic: as `gradient_penalty`.
        x: points ``(N, ...)``: of data, of samples, between them, or of a grid.

    Raises:
        ValueError: as `gradient_penalty`.

    Example:
        >>> lipschitz_estimate(lambda x: (x**2).sum(1), torch.tensor([[0.0], [1.0], [-3.0]]))
        6.0
    """
    with torch.no_grad():
        return math.sqrt(gradient_penalty(critic, x, target=0).max().item())


def parallel_lines(theta: Tensor) -> LineDistances:
    """W₁ = |θ|, and TV = 1, JSD = ln 2, KL = ∞ for every θ ≠ 0: of (0, u) and (θ, u), u uniform.

    Of four distances one has a slope. All are 0 at θ = 0.

    Source: Arjovsky, Chintala & Bottou 2017, example 1, https://arxiv.org/abs/1701.07875.

    Shapes: how far the lines are apart, ``(N,)``, to `LineDistances` of ``(N,)``.

    Example:
        >>> parallel_lines(torch.tensor([0.5])).jsd
        tensor([0.6931])
    """
    check_floating(theta, "theta")
    apart = (theta != 0).to(theta)
    kl = torch.zeros_like(theta).masked_fill(theta != 0, math.inf)
    return LineDistances(theta.abs(), apart, math.log(2) * apart, kl)
