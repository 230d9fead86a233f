"""What models of an image by a grid of codes share: p(x) = Σ_z p(z) p(x|z), and the networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, one_hot

from dgm_course.checks import (
    check_count,
    check_images,
    check_integers,
    check_size,
    check_tensor,
)
from dgm_course.data.toy import Seed, as_generator

Conv = nn.Conv2d | nn.ConvTranspose2d
MOST_GRIDS = 100_000  # to enumerate
CHUNK = 2**21  # logits at a time


class Prior(Protocol):
    """p(z) over grids of codes: any model of images whose levels are the codes."""

    n_levels: int

    def log_prob(self, x: Tensor, /) -> Tensor:
        """Indices ``(N, 1, h, w)`` to nats ``(N,)``."""

    def sample(
        self, n: int, size: tuple[int, int], /, *, generator: torch.Generator | None
    ) -> Tensor:
        """n grids ``(n, 1, h, w)``, int64."""


class CodeModel(nn.Module, ABC):
    """p(x) = Σ_z p(z) Π_d p(x_d|z) over grids z of words from a dictionary of K; p(z) is passed in.

    A subclass says which grid describes an image, `encode`, and what a grid says of an image,
    `logits_of`. Every grid's term bounds the sum from below, log p(x) ≥ log p(x|z) + log p(z).

    Args:
        n_levels: levels 0 … n_levels − 1 of a pixel.
        n_codes: number K of words.
        n_channels: channels C of an image.
        n_halvings: how often the sides are halved: h = H / 2^n_halvings.
    """

    def __init__(self, n_levels: int, n_codes: int, n_channels: int, n_halvings: int) -> None:
        super().__init__()
        self.n_levels = check_count(n_levels, "n_levels", 2)
        self.n_codes = check_count(n_codes, "n_codes")
        self.n_channels = check_count(n_channels, "n_channels")
        self.n_halvings = check_count(n_halvings, "n_halvings", 0, most=16)

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """The grid z(x) that describes an image: ``(N, C, H, W)`` to indices ``(N, 1, h, w)``."""

    @abstractmethod
    def logits_of(self, z: Tensor) -> Tensor:
        """The logits of p(x|z), ``(N, 1, h, w)`` to ``(N, n_levels, C, H, W)``, unchecked."""

    def decode(self, z: Tensor) -> Tensor:
        """The logits of p(x|z), ``(N, 1, h, w)`` to ``(N, n_levels, C, H, W)``.

        Raises:
            ValueError: for z of another shape, or outside the codes.
        """
        check_grids(z, self.n_codes)
        return self.logits_of(z)

    def log_prob_bound(self, x: Tensor, prior: Prior) -> Tensor:
        """log p(x|z(x)) + log p(z(x)) ≤ log p(x) in nats, ``(N,)``."""
        check_prior(prior, self.n_codes)
        z = self.encode(x)
        return log_likelihood(self.logits_of(z), x) + prior.log_prob(z)

    def log_likelihoods(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x_n|z_g) of all pairs of N images and G grids in nats, ``(G, N)``."""
        self.check_images(x)
        return pairs(self.decode(z), x)

    def log_joint(self, x: Tensor, z: Tensor, prior: Prior) -> Tensor:
        """log p(x_n|z_g) + log p(z_g) of all pairs in nats, ``(G, N)``."""
        check_prior(prior, self.n_codes)
        return self.log_likelihoods(x, z) + prior.log_prob(z)[:, None]

    @torch.no_grad()
    def log_prob(self, x: Tensor, prior: Prior) -> Tensor:
        """log Σ_z p(z) p(x|z) over all K^(h·w) grids in nats, ``(N,)``: exact.

        Raises:
            ValueError: for more than 100,000 grids, and as for `log_prob_bound`.
        """
        self.check_images(x)
        grids = all_grids(self.n_codes, self.grid_size(x.shape[2:])).to(x.device)
        size = max(1, CHUNK // (self.n_levels * x[0].numel()))
        parts = [self.log_joint(x, z, prior).logsumexp(0) for z in grids.split(size)]
        return torch.stack(parts).logsumexp(0)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        size: tuple[int, int],
        prior: Prior,
        *,
        noise: bool = True,
        generator: Seed | None = None,
    ) -> Tensor:
        """n images ``(n, C, H, W)``: z from the prior, x from p(x|z).

        Args:
            n: how many.
            size: height and width of an image.
            prior: p(z).
            noise: draw x; False takes the likeliest level of each pixel, as pictures often do.
            generator: a seed or a generator; None takes torch's own.
        """
        n, grid = check_count(n, "n"), self.grid_size(size)
        check_prior(prior, self.n_codes)
        generator = None if generator is None else as_generator(generator)
        z = prior.sample(n, grid, generator=generator)
        return levels_of(self.decode(z), noise, generator)

    def grid_size(self, size: Any) -> tuple[int, int]:
        """Height and width of the grid of codes of an image of a size."""
        return halved(size, self.n_halvings)

    def check_images(self, x: Tensor) -> None:
        """Raise a ValueError unless x is a batch ``(N, C, H, W)`` of levels with sides to halve."""
        check_divisible(x, self.n_levels, self.n_channels, self.n_halvings)


# --- the networks -----------------------------------------------------------------------------


def downward(n_in: int, width: int, n_out: int, n_halvings: int) -> nn.Sequential:
    """Convolutions that halve the sides n_halvings times: ``(N, n_in, H, W)`` to ``(N, n_out, …)``.

    The last layer but one is 3×3, too: a code is made of more than the pixels that it covers.
    """
    down = [nn.Conv2d(width, width, 4, stride=2, padding=1) for _ in range(n_halvings)]
    return between(n_in, width, n_out, down)


def upward(n_in: int, width: int, n_out: int, n_doublings: int) -> nn.Sequential:
    """The way back: ``(N, n_in, h, w)`` to ``(N, n_out, …)``, sides doubled n_doublings times."""
    doublings = [
        nn.ConvTranspose2d(width, width, 4, stride=2, padding=1) for _ in range(n_doublings)
    ]
    return between(n_in, width, n_out, doublings)


def between(n_in: int, width: int, n_out: int, middle: Sequence[Conv]) -> nn.Sequential:
    """A 3×3 layer, those in the middle, another 3×3 and a 1×1, with ReLUs between them.

    The weights start as He and others 2015 have them, https://arxiv.org/abs/1502.01852, so that a
    signal keeps its size. With torch's own start an encoder's output varies by 0.01 between images:
    one code may then take them all, and the decoder learn to do without.
    """
    first, last = nn.Conv2d(n_in, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
    layers = [first, *middle, last, nn.Conv2d(width, n_out, 1)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    *hidden, _ = chain.from_iterable((layer, nn.ReLU()) for layer in layers)
    return nn.Sequential(*hidden)


# --- images and grids -------------------------------------------------------------------------


def values_of(x: Tensor, n_levels: int, dtype: torch.dtype) -> Tensor:
    """Levels 0 … n_levels − 1 as numbers from −1 to 1."""
    return x.to(dtype) * (2 / (n_levels - 1)) - 1


def pixel_logits(out: Tensor, n_channels: int) -> Tensor:
    """A network's output, ``(N, n_levels · C, H, W)``, as logits ``(N, n_levels, C, H, W)``."""
    return out.unflatten(1, (-1, n_channels))


def log_likelihood(logits: Tensor, x: Tensor) -> Tensor:
    """Σ_d log p(x_d|z) in nats: ``(N, n_levels, C, H, W)``, ``(N, C, H, W)`` to ``(N,)``."""
    return -cross_entropy(logits, x.long(), reduction="none").sum((1, 2, 3))


def pairs(logits: Tensor, x: Tensor) -> Tensor:
    """log p(x_n|z_g) of all pairs: ``(G, n_levels, C, H, W)``, ``(N, C, H, W)`` to ``(G, N)``.

    Σ_d log p(x_d|z) is linear in the one-hot images: one matrix product.
    """
    if logits.shape[2:] != x.shape[1:]:
        raise ValueError(
            f"x must have the size of the grids' images, {tuple(logits.shape[2:])}, got shape "
            f"{tuple(x.shape)}"
        )
    hot = one_hot(x.long(), logits.shape[1]).movedim(-1, 1).to(logits.dtype)
    return log_softmax(logits, 1).flatten(1) @ hot.flatten(1).T


def levels_of(logits: Tensor, noise: bool, generator: torch.Generator | None) -> Tensor:
    """Levels drawn from their softmax, or the likeliest: ``(N, n_levels, …)`` to ``(N, …)``."""
    if not noise:
        return logits.argmax(1)
    p = logits.softmax(1).movedim(1, -1)  # (N, …, n_levels)
    drawn = torch.multinomial(p.flatten(0, -2), 1, generator=generator)
    return drawn.reshape(p.shape[:-1])


def all_grids(n_codes: int, size: tuple[int, int]) -> Tensor:
    """Every grid of K codes, ``(K^(h·w), 1, h, w)``, int64, the last code running fastest.

    Raises:
        ValueError: for more than 100,000 of them.
    """
    n_codes, (h, w) = check_count(n_codes, "n_codes"), check_size(size)
    if (n_grids := n_codes ** (h * w)) > MOST_GRIDS:
        raise ValueError(
            f"enumeration is for at most {MOST_GRIDS:,} grids of codes, got {n_codes}^{h * w} = "
            f"{n_grids:,}"
        )
    powers = n_codes ** torch.arange(h * w - 1, -1, -1)
    return (torch.arange(n_grids)[:, None] // powers % n_codes).reshape(-1, 1, h, w)


def halved(size: Any, n_halvings: int) -> tuple[int, int]:
    """Height and width after n_halvings; a ValueError unless they are divisible."""
    height, width = check_size(size)
    if height % 2**n_halvings or width % 2**n_halvings:
        raise ValueError(
            f"size must be divisible by 2^n_halvings = {2**n_halvings}, got {height} x {width}"
        )
    return height >> n_halvings, width >> n_halvings


def check_divisible(x: Tensor, n_levels: int, n_channels: int, n_halvings: int) -> None:
    """Raise a ValueError unless x is a batch ``(N, C, H, W)`` of levels with sides to halve."""
    check_images(x, n_levels, n_channels)
    halved(x.shape[2:], n_halvings)


def check_grids(z: Tensor, n_codes: int, name: str = "z") -> None:
    """Raise a ValueError unless z is a batch ``(N, 1, h, w)`` of indices."""
    check_tensor(z, name)
    if z.ndim != 4 or z.shape[1] != 1 or z.numel() == 0:
        raise ValueError(f"{name} must have shape (N, 1, h, w), got shape {tuple(z.shape)}")
    check_integers(z, 0, n_codes - 1, name)


def check_prior(prior: Any, n_codes: int, name: str = "prior") -> None:
    """Raise a ValueError unless the prior is over so many codes."""
    n_levels = getattr(prior, "n_levels", None)
    if n_levels != n_codes:
        raise ValueError(
            f"{name} must have n_levels = {n_codes}, the number of codes, got {n_levels}"
        )
