"""Image flows at several scales: Glow and RealNVP out of their layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dgm_course.checks import check_count, check_instance
from dgm_course.flows.images import (
    ActNorm,
    Conv1x1,
    ImageBijection,
    ImageCoupling,
    Mask,
    Size,
    Split,
    Squeeze,
)


class MultiScaleFlow(ImageBijection):
    """x = g_L ∘ … ∘ g_1(z) on images, where half of the numbers join at every `Split`.

    The noise ``(N, D)`` holds the parts in the order in which `forward` needs them: first what the
    first layer works on, then what each split adds.

    Source: Dinh, Sohl-Dickstein & Bengio 2017, section 3.6, https://arxiv.org/abs/1605.08803.

    Args:
        size: C, H, W of the data.
        layers: as in `Chain`, from the noise to the data: each has the ``size`` that the one
            before it, nearer to the data, has as its ``inner_size``; the last has ``size``.

    Raises:
        ValueError: for layers whose sizes do not fit, or a bad batch, as for `PlanarFlow`.

    Example:
        >>> flow = glow((1, 4, 4), n_steps=1)
        >>> x, log_det = flow(torch.randn(3, 16))
        >>> x.shape
        torch.Size([3, 16])
    """

    def __init__(self, size: Size, layers: Sequence[ImageBijection]) -> None:
        super().__init__(size)
        if not isinstance(layers, Sequence) or not layers:
            raise ValueError(f"layers must be one or more, got {layers!r}")
        for i, layer in reversed([*enumerate(layers)]):
            check_instance(layer, ImageBijection, f"layers[{i}]")
            if layer.size != self.inner_size:
                raise ValueError(
                    f"layers[{i}] must have the size {self.inner_size} of what reaches it from "
                    f"the data, got {layer.size}"
                )
            self.inner_size = layer.inner_size
        self.layers = nn.ModuleList(layers)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x = g(z), and the sum of the layers' log-dets."""
        self.check(z, "z")
        n_first = self.inner_size[0] * self.inner_size[1] * self.inner_size[2]
        x, rest, log_dets = z[:, :n_first], z[:, n_first:], []
        for layer in self.layers:
            if isinstance(layer, Split):
                x, rest = torch.cat([x, rest[:, : x.shape[1]]], 1), rest[:, x.shape[1] :]
            x, log_det = layer(x)
            log_dets.append(log_det)
        return x, torch.stack(log_dets).sum(0)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z = f(x), and the sum of the layers' log-dets."""
        self.check(x, "x")
        return self._encode(x)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Start every `ActNorm` from the images x ``(N, D)`` as they reach it, N ≥ 2.

        Raises:
            ValueError: if one has been started before, for one image, or a constant channel; then
                all are as before.
        """
        self.check(x, "x")
        norms = [layer for layer in self.layers if isinstance(layer, ActNorm)]
        if not norms or any(norm.initialised for norm in norms):
            n_done = sum(bool(norm.initialised) for norm in norms)
            raise ValueError(
                f"initialise must find ActNorms that are not initialised, got {n_done} of "
                f"{len(norms)} that are"
            )
        before = [{k: v.clone() for k, v in norm.state_dict().items()} for norm in norms]
        try:
            self._encode(x, initialise=True)
        except ValueError:
            for norm, state in zip(norms, before, strict=True):
                norm.load_state_dict(state)
            raise

    def _encode(self, x: Tensor, initialise: bool = False) -> tuple[Tensor, Tensor]:
        done, log_dets = [], []
        for layer in reversed([*self.layers]):
            assert isinstance(layer, ImageBijection)
            if initialise and isinstance(layer, ActNorm):
                layer.initialise(x)
            x, log_det = layer.inverse(x)
            log_dets.append(log_det)
            if isinstance(layer, Split):
                x, noise = x.chunk(2, 1)
                done.append(noise)
        return torch.cat([x, *done[::-1]], 1), torch.stack(log_dets).sum(0)


def glow(size: Size, n_scales: int = 2, n_steps: int = 4, n_hidden: int = 32) -> MultiScaleFlow:
    """Glow: at each scale squeeze, n_steps of ActNorm, `Conv1x1` and coupling by channels, `Split`.

    Source: Kingma & Dhariwal 2018, figure 2, https://arxiv.org/abs/1807.03039.

    Args:
        size: C, H, W of the images, H and W multiples of 2^n_scales.
        n_scales: scales, with a split between each two.
        n_steps: steps of a scale.
        n_hidden: hidden channels of a coupling's network.

    Omits: a `Conv1x1` that is anything but P L U.
    """
    n_scales, n_steps = check_count(n_scales, "n_scales"), check_count(n_steps, "n_steps")
    layers: list[ImageBijection] = []  # from the data to the noise, in which the size is known
    inner: Size = size
    for scale in range(n_scales):
        if scale:
            layers.append(Split(inner))
            inner = layers[-1].inner_size
        layers.append(Squeeze(inner))
        inner = layers[-1].inner_size
        for _ in range(n_steps):
            coupling = ImageCoupling(inner, "channels", n_hidden=n_hidden)
            layers += [ActNorm(inner), Conv1x1(inner), coupling]
    return MultiScaleFlow(size, layers[::-1])


def realnvp(size: Size, n_layers: int = 4, n_hidden: int = 32) -> MultiScaleFlow:
    """RealNVP of two scales: couplings by checkerboard, squeeze, by channels, split, checkerboard.

    Source: Dinh, Sohl-Dickstein & Bengio 2017, section 3.6, https://arxiv.org/abs/1605.08803.

    Args:
        size: C, H, W of the images, H and W even.
        n_layers: couplings of each of the three groups.
        n_hidden: hidden channels of a coupling's network.

    Omits: residual networks and batch normalisation: an `ActNorm` stands before each coupling.
    """
    n_layers = check_count(n_layers, "n_layers")
    layers: list[ImageBijection] = []  # from the data to the noise, in which the size is known

    def couple(inner: Size, mask: Mask) -> None:
        for i in range(n_layers):
            coupling = ImageCoupling(inner, mask, swap=i % 2 == 1, n_hidden=n_hidden)
            layers.extend([ActNorm(inner), coupling])

    couple(size, "checkerboard")
    layers.append(Squeeze(size))
    couple(layers[-1].inner_size, "channels")
    layers.append(Split(layers[-1].inner_size))
    couple(layers[-1].inner_size, "checkerboard")
    return MultiScaleFlow(size, layers[::-1])
