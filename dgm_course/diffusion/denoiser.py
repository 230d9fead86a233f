"""Denoisers that learn: two networks, the three things that one may predict, the simple loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from dgm_course.checks import (
    check_count,
    check_floating,
    check_instance,
    check_integers,
    check_number,
    check_shape,
    values_are_checked,
)
from dgm_course.data.toy import Seed, as_generator
from dgm_course.diffusion.models import DiffusionModel, Prediction
from dgm_course.diffusion.schedules import Schedule, like, q_sample

Target = Literal["noise", "data", "velocity"]
N_WAVES = 16


class DenseNetwork(nn.Module):
    """L layers h ← h + silu(W h + U c) on vectors, or on small images taken as vectors.

    Args:
        size: D of vectors, or (C, H, W).
        width: neurons of a layer.
        n_layers: L.

    Shapes: x ``(N, *size)`` and c ``(N, n_condition)``, what `Denoiser` knows beside x, to x's.
    """

    def __init__(self, size: int | Sequence[int], width: int = 128, n_layers: int = 3) -> None:
        super().__init__()
        sides = (size,) if isinstance(size, int) else tuple(size)
        self.size = tuple(check_count(side, "size") for side in sides)
        self.n_condition = width = check_count(width, "width")
        n_layers, dim = check_count(n_layers, "n_layers"), math.prod(self.size)
        self.first = nn.Linear(dim, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(n_layers))
        self.told = nn.ModuleList(nn.Linear(width, width) for _ in range(n_layers))
        self.last = nn.Linear(width, dim)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        h = self.first(x.flatten(1))
        for layer, told in zip(self.layers, self.told, strict=True):
            h = h + silu(layer(h) + told(c))
        return self.last(h).view_as(x)


class ConvNetwork(nn.Module):
    """L blocks h ← h + W₂ silu(W₁ h + U c) of 3 × 3 convolutions, dilated 1, 2, 1, 2, … pixels.

    Args:
        size: (C, H, W).
        width: channels of a layer.
        n_layers: L.

    Shapes: as `DenseNetwork`, of images.
    """

    def __init__(self, size: Sequence[int], width: int = 32, n_layers: int = 4) -> None:
        super().__init__()
        if isinstance(size, int) or len(size := tuple(size)) != 3:
            raise ValueError(f"size must be (C, H, W), got {size!r}")
        self.size = tuple(check_count(side, "size") for side in size)
        width, n_layers = check_count(width, "width"), check_count(n_layers, "n_layers")
        self.n_condition = 2 * width
        self.first = nn.Conv2d(size[0], width, 3, padding=1)
        dilations = [1 + i % 2 for i in range(n_layers)]
        self.layers = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=d, dilation=d) for d in dilations
        )
        self.out = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in dilations)
        self.told = nn.ModuleList(nn.Linear(2 * width, width) for _ in dilations)
        self.last = nn.Conv2d(width, size[0], 3, padding=1)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        h = self.first(x)
        for layer, told, out in zip(self.layers, self.told, self.out, strict=True):
            h = h + out(silu(layer(h) + told(c)[:, :, None, None]))
        return self.last(h)


class Denoiser(nn.Module, DiffusionModel):
    """x̂₀ and ε̂ of a network that predicts one of three things, of which the others follow.

    "noise": ε; "data": x₀; "velocity": v = (α ε − σ x₀)/s with s² = α² + σ². The network reads
    x_t/s, sines and cosines of t, and a class if there are classes. Each target has its place: an
    error e of x̂₀ is one of α e/σ of ε̂, large where there is little noise, and the reverse, large
    where there is much; v is never far from either.

    The simple loss is the squared error of the target at a t drawn from [0, 1]; its least value is
    not 0, but what x_t leaves open, `MixtureDenoiser.variance`.

    Source: Ho, Jain & Abbeel 2020, equation 14, https://arxiv.org/abs/2006.11239; v: Salimans & Ho
    2022, appendix D, https://arxiv.org/abs/2202.00512; dropped labels: Ho & Salimans 2022,
    algorithm 1, https://arxiv.org/abs/2207.12598.

    Args:
        network: `DenseNetwork`, `ConvNetwork`, or any module with ``size`` and ``n_condition``
            that maps x ``(N, *size)`` and c ``(N, n_condition)`` to x's shape.
        schedule: of the noise.
        target: "noise", "data" or "velocity".
        n_classes: of labels, 0 for none.

    Shapes: x ``(N, *size)``, t ``()`` or ``(N,)``, labels ``(N,)``.

    Raises:
        ValueError: for an unknown target; x of another size; labels outside the classes; a t at
            which σ = 0 and there is no noise to predict.

    Omits: moving averages of the weights; weights learned for the loss; a U-Net.

    Example:
        >>> from dgm_course.diffusion import LinearSchedule
        >>> model = Denoiser(DenseNetwork(2), LinearSchedule())
        >>> model.loss(torch.zeros(5, 2)).shape
        torch.Size([5])
        >>> model.predict(torch.zeros(5, 2), 0.5).x0.shape
        torch.Size([5, 2])
    """

    def __init__(
        self, network: nn.Module, schedule: Schedule, target: Target = "noise", n_classes: int = 0
    ) -> None:
        super().__init__()
        check_instance(network, nn.Module, "network")
        check_instance(schedule, Schedule, "schedule")
        if target not in get_args(Target):
            raise ValueError(f"target must be one of {get_args(Target)}, got {target!r}")
        self.network, self.schedule, self.target = network, schedule, target
        self.size = tuple(cast("Sequence[int]", network.size))
        self.n_classes = check_count(n_classes, "n_classes", 0)
        width = check_count(network.n_condition, "network's n_condition")
        self.of_time = nn.Linear(2 * N_WAVES, width)
        # One more than there are: "no class", which the unconditional model is told.
        self.of_class = nn.Embedding(n_classes + 1, width) if n_classes else None
        self.waves: Tensor
        self.register_buffer("waves", torch.logspace(0, 3, N_WAVES), persistent=False)

    def extra_repr(self) -> str:
        return f"schedule={self.schedule}, target={self.target!r}, n_classes={self.n_classes}"

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """The target, of x's shape, for x ``(N, *size)``, t ``(N,)`` and labels ``(N,)``."""
        angles = t[:, None] * self.waves
        c = self.of_time(torch.cat([angles.sin(), angles.cos()], 1))
        if self.of_class is not None:
            none = torch.full((len(x),), self.n_classes, device=x.device)
            c = c + self.of_class(none if labels is None else labels)
        return self.network(x / like(self._scale(t), x), silu(c))

    def loss(
        self,
        x0: Tensor,
        labels: Tensor | None = None,
        *,
        drop: float = 0.1,
        generator: Seed | None = None,
    ) -> Tensor:
        """‖target − prediction‖² at one t ~ U(0, 1) and one ε for each example, ``(N,)``.

        Args:
            x0: data ``(N, *size)``, best of about unit size.
            labels: classes ``(N,)``, int64; each is hidden with the probability ``drop``, so that
                one network learns ε̂(x | y) and ε̂(x).
            drop: in [0, 1].
            generator: a seed or a generator; None takes torch's own.
        """
        self._check(x0)
        generator = None if generator is None else as_generator(generator)
        t = torch.rand(len(x0), generator=generator, dtype=x0.dtype).to(x0.device)
        noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype).to(x0.device)
        if labels is not None:
            labels = self._check_labels(labels, len(x0))
            check_number(drop, "drop", or_zero=True)
            if drop > 1:
                raise ValueError(f"drop must be at most 1, got {drop:g}")
            hidden = torch.rand(len(x0), generator=generator).to(x0.device) < drop
            labels = labels.masked_fill(hidden, self.n_classes)
        error = self(q_sample(x0, t, noise, self.schedule), t, labels) - self._target(x0, t, noise)
        return error.square().flatten(1).sum(1)

    def given(self, labels: Tensor) -> DiffusionModel:
        """The model of p(x | y), a label for each example, ``(N,)``: for samplers and `Guided`."""
        return _Labelled(self, self._check_labels(labels, len(labels)))

    def _target(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        if self.target == "noise":
            return noise
        if self.target == "data":
            return x0
        alpha, sigma, s = self._letters(t, x0)
        return (alpha * noise - sigma * x0) / s

    def _scale(self, t: Tensor) -> Tensor:
        return (self.schedule.alpha(t).square() + self.schedule.sigma(t).square()).sqrt()

    def _letters(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        values = self.schedule.alpha(t), self.schedule.sigma(t), self._scale(t)
        alpha, sigma, s = (like(value, x) for value in values)
        return alpha, sigma, s

    def _predict(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Prediction:
        self._check(x)
        alpha, sigma, s = self._letters(t, x)
        if values_are_checked() and (sigma == 0).any():
            raise ValueError(
                "t must have σ(t) > 0 for a learned denoiser, which has no noise to predict at "
                f"t = {t.min():g}; end the times above 0"
            )
        out = self(x, t, labels)
        check_shape(out, tuple(x.shape), "what the network returns")
        if self.target == "noise":
            return Prediction((x - sigma * out) / alpha, out)
        if self.target == "data":
            return Prediction(out, (x - alpha * out) / sigma)
        return Prediction((alpha * x / s - sigma * out) / s, (sigma * x / s + alpha * out) / s)

    def _check(self, x: Tensor) -> None:
        check_floating(x, "x")
        if x.dtype != self.of_time.weight.dtype:
            raise ValueError(
                f"x must have the weights' dtype, {self.of_time.weight.dtype}, got {x.dtype}"
            )
        size = self.size
        if tuple(x.shape[1:]) != size or not len(x):
            expected = ", ".join(["N", *map(str, size)])
            raise ValueError(f"x must have shape ({expected}), got shape {tuple(x.shape)}")

    def _check_labels(self, labels: Tensor, n: int) -> Tensor:
        if not self.n_classes:
            raise ValueError("labels must be None for a denoiser of n_classes = 0")
        check_shape(labels, (n,), "labels")
        check_integers(labels, 0, self.n_classes - 1, "labels")
        return labels


class _Labelled(DiffusionModel):
    """A denoiser that is told each example's label."""

    def __init__(self, denoiser: Denoiser, labels: Tensor) -> None:
        self.denoiser, self.labels, self.schedule = denoiser, labels, denoiser.schedule

    def _predict(self, x: Tensor, t: Tensor) -> Prediction:
        check_shape(self.labels, (len(x),), "labels")
        return self.denoiser._predict(x, t, self.labels)
