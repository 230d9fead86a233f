"""A VAE whose decoder is an autoregressive image model: what is left for the code to say?"""

from __future__ import annotations

import math
from typing import Any, Literal, Protocol, cast, get_args

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, constraints

from dgm_course.checks import check_count, check_integers, check_points, check_size
from dgm_course.vae.gaussian_vae import one_hidden_layer, scale_of
from dgm_course.vae.latent_variable_model import (
    Flow,
    LatentVariableModel,
    as_distribution,
    check_codes,
    check_prior,
)

Context = Literal["map", "bias"]


class PixelDecoder(Protocol):
    """p(x | c) of images given F features at every pixel, exact, such as `WindowPixelCNN`."""

    n_levels: int
    n_channels: int  # C
    n_context: int | None  # F

    def log_prob(
        self, x: Tensor, labels: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """Integers ``(N, C, H, W)`` and a context ``(N, F, H, W)`` to nats ``(N,)``."""

    def sample(
        self,
        n: int,
        size: tuple[int, int],
        labels: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """n images ``(n, C, H, W)`` of their contexts."""


class PixelVAE(LatentVariableModel):
    """p(x|z) = Πᵢ p(xᵢ | c(z), x₍<ᵢ₎), every factor an autoregressive image model's; z ~ p(z).

    How z enters decides what it can be good for. As a map, c(z) = A z + b has values of its own at
    every pixel: z can tell one from another, and a decoder that sees no other pixel still makes a
    `GaussianVAE` of levels. As a bias, a class label's way, c(z) is the same at every pixel, and
    such a decoder makes all of them alike. How much the decoder sees is its own choice.

    Source: Gulrajani et al. 2017 (PixelVAE), section 3, https://arxiv.org/abs/1611.05013; the
    window and the prior that is a flow: Chen et al. 2017 (VLAE), https://arxiv.org/abs/1611.02731.

    Args:
        decoder: an image model that takes a context, n_context = F; it is trained with the rest.
        size: height and width (H, W) of the images.
        z_dim: number of latents M.
        hidden: units of the encoder's one hidden layer (ReLU); q(z|x) = N(μ(x), diag σ²(x)).
        context: "map" or "bias".
        prior: p(z), as for `GaussianVAE`.

    Shapes: x ``(N, D)``, D = C · H · W, integer levels, an image row by row; z ``(..., M)``.

    Raises:
        ValueError: for a decoder without a context, or with a window that is wider than the
            images, a prior over codes of another width, or bad data or codes.

    Omits: more than one layer of latents; an encoder with convolutions.

    Example:
        >>> from dgm_course.autoregressive import WindowPixelCNN
        >>> model = PixelVAE(WindowPixelCNN(17, window=1, n_context=16), (8, 8), z_dim=2)
        >>> model.sample(3).shape
        torch.Size([3, 64])
    """

    def __init__(
        self,
        decoder: PixelDecoder,
        size: tuple[int, int],
        *,
        z_dim: int = 8,
        hidden: int = 64,
        context: Context = "map",
        prior: Distribution | Flow | None = None,
    ) -> None:
        super().__init__()
        check_decoder(decoder)
        self.size = height, width = check_size(size)
        window, longest = getattr(decoder, "window", 0), max(self.size)
        if window >= longest:
            raise ValueError(
                f"decoder must have a window of at most {longest - 1}, with which it sees all that "
                f"came before in images of {height} × {width}, got window = {window}"
            )
        if context not in get_args(Context):
            raise ValueError(f"context must be 'map' or 'bias', got {context!r}")
        self.z_dim, self.context = check_count(z_dim, "z_dim"), context
        if prior is not None:
            check_prior(prior, self.z_dim)
        self._prior = prior
        self.image = (decoder.n_channels, *self.size)
        self.x_dim = math.prod(self.image)
        self.encoder = one_hidden_layer(self.x_dim, check_count(hidden, "hidden"), 2 * self.z_dim)
        n_context = cast(int, decoder.n_context)
        self.to_context = nn.Linear(
            self.z_dim, n_context * (height * width if context == "map" else 1)
        )
        self.decoder = decoder

    def extra_repr(self) -> str:
        return f"size={self.size}, z_dim={self.z_dim}, context={self.context!r}"

    @property
    def prior(self) -> Distribution:
        """p(z), of event shape ``(M,)``."""
        return super().prior if self._prior is None else as_distribution(self._prior)

    def encode(self, x: Tensor) -> Independent[Normal]:
        """q(z|x) = N(μ(x), diag σ²(x)): data ``(N, D)`` to batch shape ``(N,)``, event ``(M,)``."""
        values = 2 * self.as_numbers(x) / (self.decoder.n_levels - 1) - 1  # levels to [−1, 1]
        mean, log_variance = self.encoder(values).chunk(2, 1)  # (N, M) each
        return Independent(Normal(mean, scale_of(log_variance, "encoder")), 1)

    def decode(self, z: Tensor) -> ImagesGivenContext:
        """p(x|z): codes ``(..., M)`` to batch shape ``(...)`` and event shape ``(D,)``."""
        return ImagesGivenContext(self.decoder, self.context_of(z))

    def context_of(self, z: Tensor) -> Tensor:
        """c(z): codes ``(..., M)`` to what the decoder is told, ``(..., F, H, W)``."""
        check_codes(z, self.z_dim, self.to_context.weight.dtype)
        sides = self.size if self.context == "map" else (1, 1)
        c = self.to_context(z).unflatten(-1, (-1, *sides))
        return c.expand(*c.shape[:-2], *self.size)

    def mean(self, z: Tensor) -> Tensor:
        """E[x|z] has no formula where pixels see others: average draws from ``decode(z)``."""
        raise NotImplementedError("E[x|z] of pixels that see one another has no formula")

    def as_numbers(self, x: Tensor) -> Tensor:
        """The data ``(N, D)`` in the weights' dtype, or a ValueError if they are not data."""
        check_integers(x, 0, self.decoder.n_levels - 1, "x")
        x = x.to(self.to_context.weight.dtype)
        check_points(x, self.x_dim, None, "x")
        return x


class ImagesGivenContext(Distribution):
    """p(x | c) of an image model as a distribution over vectors of D = C · H · W levels.

    Args:
        decoder: the image model.
        context: what it is told, ``(..., F, H, W)``; its leading axes are the batch shape.
    """

    arg_constraints: dict[str, Any] = {}
    support = constraints.independent(constraints.nonnegative_integer, 1)

    def __init__(self, decoder: PixelDecoder, context: Tensor) -> None:
        self.decoder, self.context = decoder, context
        self.image = (decoder.n_channels, *context.shape[-2:])
        super().__init__(context.shape[:-3], torch.Size([math.prod(self.image)]), False)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x | c) in nats, exact: levels ``(..., D)``, of any dtype, to ``(...)``."""
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        x = value.expand(*shape, -1).reshape(-1, *self.image)
        return self.decoder.log_prob(x.long(), context=self._contexts(shape)).view(shape)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Pixel by pixel, as the decoder samples: integers ``(*sample_shape, ..., D)``."""
        shape = torch.Size(sample_shape) + self.batch_shape
        height, width = self.image[1:]
        x = self.decoder.sample(shape.numel(), (height, width), context=self._contexts(shape))
        return x.view(*shape, -1)

    def _contexts(self, shape: torch.Size) -> Tensor:
        """The context of each image of that batch shape, ``(N, F, H, W)``."""
        c = self.context
        return c.expand(*shape, *c.shape[-3:]).reshape(-1, *c.shape[-3:])


def check_decoder(decoder: Any) -> None:
    """Raise a ValueError unless the decoder is an image model that takes a context."""
    named = ("n_levels", "n_channels", "n_context", "log_prob", "sample")
    missing = [name for name in named if not hasattr(decoder, name)]
    if missing or not isinstance(decoder, nn.Module):
        raise ValueError(
            "decoder must be an image model such as WindowPixelCNN, with n_levels, n_channels, "
            f"n_context, log_prob and sample, got {type(decoder).__name__}"
        )
    if decoder.n_context is None:
        raise ValueError("decoder must take a context, for that is how z enters: n_context is None")
    if getattr(decoder, "n_classes", None) is not None:
        raise ValueError(f"decoder must have no classes, got n_classes = {decoder.n_classes}")
