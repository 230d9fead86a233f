"""A discriminator that judges features by the words of a dictionary that lie nearest to them."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from dgm_course.checks import check_floating, check_instance, check_shape
from dgm_course.gan.dcgan import DCGANDiscriminator


class Quantizer(Protocol):
    """What `FeatureQuantizer` needs: `codes.VectorQuantizer` has it."""

    dim: int

    def __call__(self, h: Tensor) -> tuple[Tensor, Tensor, Any]:
        """Codes with copied gradients, indices, and terms whose ``commitment`` is ``(...)``."""

    def nearest(self, h: Tensor) -> Tensor:
        """``(..., dim)`` to indices ``(...)``."""

    def codes(self, indices: Tensor) -> Tensor:
        """Indices ``(...)`` to ``(..., dim)``."""


class QuantizedScores(NamedTuple):
    """The discriminator's scores, and what keeps its features near their codes."""

    scores: Tensor  # (N,)
    commitment: Tensor  # (N,), β ‖h − sg e‖², the mean over the places of a map


class FeatureQuantizer(nn.Module):
    """D(x) = head(Q(h(x))), h the last map of a discriminator, Q the nearest code at each place.

    The gradient by a code is copied to the feature. `terms` in training mode moves the dictionary,
    as the quantiser has it: it belongs in the discriminator's own steps. A call, which is for the
    generator's steps, for penalties and for whoever looks on, gives the same scores and moves
    nothing in either mode.

    Source: Zhao et al. 2020, section 3, https://arxiv.org/abs/2004.02088.

    Args:
        discriminator: with as many channels in its last map as a code has numbers.
        quantizer: such as `codes.VectorQuantizer`, whose decay is the paper's moving average; put
            it on data before training: ``quantizer.initialise(d.features(x))``.

    Shapes: images ``(N, C, H, W)`` to scores ``(N,)``.

    Raises:
        ValueError: for codes of another width (both numbers).

    Omits: quantisation of several maps.

    Example:
        >>> import torch
        >>> from dgm_course.codes import VectorQuantizer
        >>> plain = DCGANDiscriminator(16, 8, 3, norm=nn.Identity)
        >>> d = FeatureQuantizer(plain, VectorQuantizer(32, 16, decay=0.9))
        >>> x = torch.rand(5, 3, 16, 16)
        >>> d(x).shape, d.terms(x).commitment.shape, d.indices(x).shape
        (torch.Size([5]), torch.Size([5]), torch.Size([5, 4, 4]))
    """

    def __init__(self, discriminator: DCGANDiscriminator, quantizer: Quantizer) -> None:
        super().__init__()
        check_instance(discriminator, DCGANDiscriminator, "discriminator")
        convolutions = [d for d in discriminator.features if isinstance(d, nn.Conv2d)]
        if quantizer.dim != (n_channels := convolutions[-1].out_channels):
            raise ValueError(
                f"quantizer.dim must be the discriminator's {n_channels} channels, got "
                f"{quantizer.dim}"
            )
        self.discriminator, self.quantizer = discriminator, quantizer

    def forward(self, x: Tensor) -> Tensor:
        h = self.features(x)
        codes = self.quantizer.codes(self.quantizer.nearest(h))
        return self._judge(codes.detach() + (h - h.detach()))

    def terms(self, x: Tensor) -> QuantizedScores:
        """Scores and commitment; in training mode the dictionary then moves towards h(x)."""
        codes, _, terms = self.quantizer(self.features(x))
        return QuantizedScores(self._judge(codes), terms.commitment.mean((1, 2)))

    def indices(self, x: Tensor) -> Tensor:
        """The code at each place, ``(N, s, s)``: their perplexity is the dictionary's use."""
        return self.quantizer.nearest(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """The last map before Q, ``(N, s, s, dim)``."""
        check_floating(x, "x")
        check_shape(x, (len(x), *self.discriminator.shape), "x")
        return self.discriminator.features[:-1](x).permute(0, 2, 3, 1)

    def _judge(self, codes: Tensor) -> Tensor:
        return self.discriminator.head(codes.permute(0, 3, 1, 2).flatten(1)).squeeze(1)
