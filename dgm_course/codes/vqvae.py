"""The VQ-VAE: an image is a grid of words, and a second model says which grids there are."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from dgm_course.checks import check_count, check_instance
from dgm_course.codes.code_model import (
    CodeModel,
    downward,
    log_likelihood,
    pixel_logits,
    upward,
    values_of,
)
from dgm_course.codes.quantizer import VectorQuantizer


class VQTerms(NamedTuple):
    """Stage 1's loss of each image, as its three terms ``(N,)``."""

    reconstruction: Tensor  # log p(x|z(x)), nats
    commitment: Tensor  # β Σ ‖h − sg e‖² over the grid
    codebook: Tensor  # Σ ‖sg h − e‖² over the grid; 0 where averages move the codes

    @property
    def loss(self) -> Tensor:
        """−reconstruction + commitment + codebook, ``(N,)``."""
        return -self.reconstruction + self.commitment + self.codebook


class VQVAE(CodeModel):
    """z(x) = grid of nearest codes to the encoder's output, p(x) = Σ_z p(z) Π_d p(x_d | z).

    Stage 1 trains encoder, codebook and decoder by `terms`; no prior takes part. Stage 2 trains
    any model p(z) of images with K levels on the grids that `encode` returns. One term of the sum
    over z bounds the whole,

        log p(x) ≥ log p(x|z(x)) + log p(z(x)),

    an ELBO whose q(z|x) is a point: it has no entropy to give back, and a prior must pay for every
    choice between two grids that would have done.

    Source: van den Oord, Vinyals & Kavukcuoglu 2017, section 3, https://arxiv.org/abs/1711.00937,
    who reconstruct by squared error; here p(x_d|z) is a categorical over the levels, so that the
    bound is in nats of the images themselves.

    Args:
        n_levels: levels 0 … n_levels − 1 of a pixel.
        quantizer: with its codebook (K, dim).
        n_channels: channels C of an image.
        n_features: channels of the hidden convolutions of encoder and decoder.
        n_halvings: how often the grid's sides are halved: h = H / 2^n_halvings.

    Shapes: integers x ``(N, C, H, W)``; z ``(N, 1, h, w)``, int64, as a model of images takes it.

    Raises:
        ValueError: for images that are not integers, not a batch, empty, outside the levels or not
            divisible by the halvings; for z outside the codes; for a prior of another n_levels.

    Omits: classes; residual blocks; decoders with a noise of their own.

    Example:
        >>> import torch
        >>> model = VQVAE(17, VectorQuantizer(32, 8))
        >>> model.encode(torch.zeros(2, 1, 8, 8, dtype=torch.long)).shape
        torch.Size([2, 1, 4, 4])
    """

    def __init__(
        self,
        n_levels: int,
        quantizer: VectorQuantizer,
        *,
        n_channels: int = 1,
        n_features: int = 32,
        n_halvings: int = 1,
    ) -> None:
        check_instance(quantizer, VectorQuantizer, "quantizer")
        super().__init__(n_levels, quantizer.n_codes, n_channels, n_halvings)
        width, dim = check_count(n_features, "n_features"), quantizer.dim
        self.encoder = downward(self.n_channels, width, dim, self.n_halvings)
        self.quantizer = quantizer
        n_out = self.n_channels * self.n_levels
        self.decoder = upward(dim, width, n_out, self.n_halvings)

    def terms(self, x: Tensor) -> VQTerms:
        """The terms of stage 1's loss; in training mode the codebook learns from the call."""
        codes, _, terms = self.quantizer(self.features(x))  # (N, h, w, dim)
        log_p = log_likelihood(self._logits(codes), x)
        return VQTerms(log_p, terms.commitment.sum((1, 2)), terms.codebook.sum((1, 2)))

    def features(self, x: Tensor) -> Tensor:
        """What is quantised, ``(N, C, H, W)`` to ``(N, h, w, dim)``."""
        self.check_images(x)
        values = values_of(x, self.n_levels, self.quantizer.codebook.dtype)
        return self.encoder(values).movedim(1, -1)

    def encode(self, x: Tensor) -> Tensor:
        """z(x), indices ``(N, 1, h, w)``; nothing learns."""
        return self.quantizer.nearest(self.features(x))[:, None]

    def logits_of(self, z: Tensor) -> Tensor:
        """The logits of p(x|z), ``(N, 1, h, w)`` to ``(N, n_levels, C, H, W)``, unchecked."""
        return self._logits(self.quantizer.codes(z[:, 0]))

    def _logits(self, codes: Tensor) -> Tensor:
        return pixel_logits(self.decoder(codes.movedim(-1, 1)), self.n_channels)
