"""DCGAN: generator and discriminator for small images, of strided convolutions and no pooling."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from dgm_course.checks import check_count, check_points, check_tensor
from dgm_course.data.toy import Seed, as_generator

Norm = Callable[[int], nn.Module]  # of the number of channels


class DCGANGenerator(nn.Module):
    """x = tanh(T_h … relu(norm(T_1 relu(norm(T_0 z))))), z ~ N(0, I), T transposed convolutions.

    T_0 makes start × start pixels of z, start = size / 2^h, and each other T doubles them. There
    is a normalisation behind all of them but the last. Weights start as N(0, 0.02²).

    Source: Radford, Metz & Chintala 2016, section 3, https://arxiv.org/abs/1511.06434.

    Args:
        size: height and width of an image, a multiple of 2^h.
        z_dim: numbers in z.
        n_features: channels before the image; twice as many with each halving of the size.
        n_channels: channels of the image.
        n_halvings: h ≥ 1.
        norm: of the channels to a layer; `nn.Identity` for none.

    Shapes: z ``(N, z_dim)`` to images in (−1, 1), ``(N, n_channels, size, size)``.

    Raises:
        ValueError: for a size that is no such multiple (both numbers), or z of another shape.

    Example:
        >>> DCGANGenerator(8).sample(3).shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(
        self,
        size: int,
        z_dim: int = 16,
        n_features: int = 32,
        n_channels: int = 1,
        *,
        n_halvings: int = 2,
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.z_dim = check_count(z_dim, "z_dim")
        start, widths = _plan(size, n_features, n_halvings)
        widths.reverse()
        layers = [nn.ConvTranspose2d(self.z_dim, widths[0], start), norm(widths[0]), nn.ReLU()]
        for wide, narrow in pairwise(widths):
            layers += [nn.ConvTranspose2d(wide, narrow, 4, 2, 1), norm(narrow), nn.ReLU()]
        n_channels = check_count(n_channels, "n_channels")
        layers += [nn.ConvTranspose2d(widths[-1], n_channels, 4, 2, 1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.layers.apply(_start)

    def extra_repr(self) -> str:
        return f"z_dim={self.z_dim}"

    def forward(self, z: Tensor) -> Tensor:
        check_points(z, self.z_dim, next(self.parameters()).dtype, "z")
        return self.layers(z[..., None, None])

    @torch.no_grad()
    def sample(self, n: int, generator: Seed | None = None) -> Tensor:
        """n images by the running statistics, whatever the mode, so that none sees another.

        Args:
            n: number of images.
            generator: a seed or a generator on the CPU; None takes torch's own.
        """
        source = None if generator is None else as_generator(generator)
        z = torch.randn(check_count(n, "n"), self.z_dim, generator=source)
        z = z.to(next(self.parameters()))
        modes = {layer: layer.training for layer in self.modules()}
        try:
            return self.eval()(z)
        finally:
            for layer, mode in modes.items():
                layer.training = mode


class DCGANDiscriminator(nn.Module):
    """log D/(1 − D) = w · C_h … leaky(norm(C_2 leaky(C_1 x))), C convolutions of stride 2.

    Each halves the size, and there is a normalisation behind all of them but the first; leaky has
    the slope 0.2 below 0. Weights start as N(0, 0.02²). ``features`` is all of it but w: images to
    ``(N, F)``, for feature matching, or for a head of one's own.

    Source: as `DCGANGenerator`, whose arguments these are. The sigmoid is left to the losses.

    Shapes: images ``(N, n_channels, size, size)`` to logits ``(N,)``.

    Raises:
        ValueError: as `DCGANGenerator`; for images of another shape or dtype.

    Example:
        >>> d = DCGANDiscriminator(16, n_halvings=3)
        >>> d(torch.zeros(5, 1, 16, 16)).shape, d.features(torch.zeros(5, 1, 16, 16)).shape
        (torch.Size([5]), torch.Size([5, 512]))
    """

    def __init__(
        self,
        size: int,
        n_features: int = 32,
        n_channels: int = 1,
        *,
        n_halvings: int = 2,
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        start, widths = _plan(size, n_features, n_halvings)
        self.shape = (check_count(n_channels, "n_channels"), size, size)
        layers = [nn.Conv2d(n_channels, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for narrow, wide in pairwise(widths):
            layers += [nn.Conv2d(narrow, wide, 4, 2, 1), norm(wide), nn.LeakyReLU(0.2)]
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(widths[-1] * start**2, 1)
        self.apply(_start)

    def forward(self, x: Tensor) -> Tensor:
        check_tensor(x, "x")
        if x.shape[1:] != self.shape or len(x) == 0 or x.dtype != self.head.weight.dtype:
            shape = ", ".join(map(str, self.shape))
            raise ValueError(
                f"x must have shape (N, {shape}) and dtype {self.head.weight.dtype}, got shape "
                f"{tuple(x.shape)} and {x.dtype}"
            )
        return self.head(self.features(x)).squeeze(1)


def _plan(size: int, n_features: int, n_halvings: int) -> tuple[int, list[int]]:
    """The smallest size, and the channels from the largest size to the smallest."""
    size, h = check_count(size, "size"), check_count(n_halvings, "n_halvings", most=10)
    n_features = check_count(n_features, "n_features")
    if size % 2**h:
        raise ValueError(f"size must be a multiple of 2 ** n_halvings = {2**h}, got {size}")
    return size // 2**h, [n_features * 2**i for i in range(h)]


def _start(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(layer.weight, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
