"""VQ-VAE-2: two grids of words, a coarse one first, and a fine one that knows it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from dgm_course.checks import check_count, check_instance
from dgm_course.codes.code_model import (
    MOST_GRIDS,
    Prior,
    all_grids,
    check_divisible,
    check_grids,
    check_prior,
    downward,
    halved,
    levels_of,
    log_likelihood,
    pairs,
    pixel_logits,
    upward,
    values_of,
)
from dgm_course.codes.quantizer import VectorQuantizer
from dgm_course.codes.vqvae import VQTerms
from dgm_course.data.toy import Seed, as_generator


class ConditionalPrior(Protocol):
    """p(b | t) over bottom grids, given a map of the top codes: a model of images of a context."""

    n_levels: int

    def log_prob(self, x: Tensor, /, *, context: Tensor) -> Tensor:
        """Indices ``(N, 1, h, w)`` and context ``(N, dim, h, w)`` to nats ``(N,)``."""

    def sample(
        self,
        n: int,
        size: tuple[int, int],
        /,
        *,
        context: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        """n grids ``(n, 1, h, w)``, int64."""


class Codes(NamedTuple):
    """The two grids of each image, int64."""

    top: Tensor  # (N, 1, h / 2, w / 2)
    bottom: Tensor  # (N, 1, h, w)


class VQVAE2(nn.Module):
    """p(x) = Σ_t Σ_b p(t) p(b|t) Π_d p(x_d | t, b), top codes t and bottom codes b.

    The image is encoded in the order of the sum: the top from x, the bottom from x and the top
    codes, so that it need say only what they have left out. Both go to the decoder. One term of the
    sum bounds it,

        log p(x) ≥ log p(x|t(x), b(x)) + log p(t(x)) + log p(b(x)|t(x)).

    Stage 1 trains all but the priors by `terms`. Stage 2 trains p(t) on ``encode(x).top``, and
    p(b|t) on ``encode(x).bottom`` with `context` of the top codes.

    Source: Razavi, van den Oord & Vinyals 2019, algorithms 1 and 2,
    https://arxiv.org/abs/1906.00446.

    Args:
        n_levels: levels 0 … n_levels − 1 of a pixel.
        top: quantiser of the coarse grid.
        bottom: quantiser of the fine one.
        n_channels: channels C of an image.
        n_features: channels of the hidden convolutions.
        n_halvings: of the bottom grid; the top's sides are halved once more.

    Shapes: integers x ``(N, C, H, W)``; t ``(N, 1, h / 2, w / 2)`` and b ``(N, 1, h, w)``, int64,
    h = H / 2^n_halvings.

    Raises:
        ValueError: for images that are not integers, not a batch, empty, outside the levels or not
            divisible by the halvings; for codes outside their codebook or grids that do not fit;
            for priors of another n_levels.

    Omits: a third level, as for pictures of 1024 pixels a side; classes; residual blocks.

    Example:
        >>> model = VQVAE2(17, VectorQuantizer(16, 8), VectorQuantizer(32, 8))
        >>> [tuple(z.shape) for z in model.encode(torch.zeros(5, 1, 8, 8, dtype=torch.long))]
        [(5, 1, 2, 2), (5, 1, 4, 4)]
    """

    def __init__(
        self,
        n_levels: int,
        top: VectorQuantizer,
        bottom: VectorQuantizer,
        *,
        n_channels: int = 1,
        n_features: int = 32,
        n_halvings: int = 1,
    ) -> None:
        super().__init__()
        check_instance(top, VectorQuantizer, "top")
        check_instance(bottom, VectorQuantizer, "bottom")
        self.n_levels = check_count(n_levels, "n_levels", 2)
        self.n_channels = c = check_count(n_channels, "n_channels")
        self.n_halvings = check_count(n_halvings, "n_halvings", 0, most=15)
        width = check_count(n_features, "n_features")
        self.top, self.bottom = top, bottom
        self.trunk = downward(c, width, width, self.n_halvings)  # to the bottom grid
        self.to_top = downward(width, width, top.dim, 1)
        self.to_bottom = downward(width + top.dim, width, bottom.dim, 0)
        self.decoder = upward(top.dim + bottom.dim, width, c * self.n_levels, self.n_halvings)

    def terms(self, x: Tensor) -> VQTerms:
        """The terms of stage 1's loss; in training mode both codebooks learn from the call."""
        trunk = self._trunk(x)
        t, _, of_top = self.top(self._top_features(trunk))
        b, _, of_bottom = self.bottom(self._bottom_features(trunk, t))
        log_p = log_likelihood(self._logits(t, b), x)
        commitment, codebook = (
            one.sum((1, 2)) + other.sum((1, 2))
            for one, other in zip(of_top, of_bottom, strict=True)
        )
        return VQTerms(log_p, commitment, codebook)

    def encode(self, x: Tensor) -> Codes:
        """t(x) and b(x), the latter given the former; nothing learns."""
        trunk = self._trunk(x)
        t = self.top.nearest(self._top_features(trunk))
        b = self.bottom.nearest(self._bottom_features(trunk, self.top.codes(t)))
        return Codes(t[:, None], b[:, None])

    def decode(self, codes: Codes) -> Tensor:
        """The logits of p(x|t, b), ``(N, n_levels, C, H, W)``."""
        t, b = self._checked(codes)
        return self._logits(self.top.codes(t[:, 0]), self.bottom.codes(b[:, 0]))

    def context(self, t: Tensor) -> Tensor:
        """What p(b|t) is told: the top's codes at the bottom's places, ``(N, dim, h, w)``."""
        check_grids(t, self.top.n_codes, "t")
        return doubled(self.top.codes(t[:, 0]).movedim(-1, 1)).detach()

    def log_prob_codes(self, codes: Codes, p_top: Prior, p_bottom: ConditionalPrior) -> Tensor:
        """log p(t) + log p(b|t) in nats, ``(N,)``."""
        t, b = self._checked(codes)
        check_prior(p_top, self.top.n_codes, "p_top")
        check_prior(p_bottom, self.bottom.n_codes, "p_bottom")
        return p_top.log_prob(t) + p_bottom.log_prob(b, context=self.context(t))

    def log_prob_bound(self, x: Tensor, p_top: Prior, p_bottom: ConditionalPrior) -> Tensor:
        """log p(x|t(x), b(x)) + log p(t(x)) + log p(b(x)|t(x)) ≤ log p(x) in nats, ``(N,)``."""
        codes = self.encode(x)
        log_p = log_likelihood(self.decode(codes), x)
        return log_p + self.log_prob_codes(codes, p_top, p_bottom)

    @torch.no_grad()
    def log_prob(self, x: Tensor, p_top: Prior, p_bottom: ConditionalPrior) -> Tensor:
        """log Σ_t Σ_b p(t) p(b|t) p(x|t, b) over all pairs of grids in nats, ``(N,)``: exact.

        Raises:
            ValueError: for more than 100,000 pairs, and as for `log_prob_bound`.
        """
        check_divisible(x, self.n_levels, self.n_channels, self.n_halvings + 1)
        tops, bottoms = (
            all_grids(quantizer.n_codes, halved(x.shape[2:], self.n_halvings + more)).to(x.device)
            for quantizer, more in ((self.top, 1), (self.bottom, 0))
        )
        if (n_pairs := len(tops) * len(bottoms)) > MOST_GRIDS:
            raise ValueError(
                f"enumeration is for at most {MOST_GRIDS:,} pairs of grids, got {n_pairs:,}"
            )
        parts = []
        for t in tops:
            codes = Codes(t.expand(len(bottoms), *t.shape), bottoms)
            log_p = self.log_prob_codes(codes, p_top, p_bottom)  # (B,)
            parts.append((pairs(self.decode(codes), x) + log_p[:, None]).logsumexp(0))
        return torch.stack(parts).logsumexp(0)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        size: tuple[int, int],
        p_top: Prior,
        p_bottom: ConditionalPrior,
        *,
        noise: bool = True,
        generator: Seed | None = None,
    ) -> Tensor:
        """n images ``(n, C, H, W)``: t from p(t), b from p(b|t), x from p(x|t, b).

        Args:
            n: how many.
            size: height and width of an image.
            p_top, p_bottom: the priors of the two grids.
            noise: draw x; False takes the likeliest level of each pixel.
            generator: a seed or a generator; None takes torch's own.
        """
        n = check_count(n, "n")
        grids = [halved(size, self.n_halvings + more) for more in (1, 0)]
        check_prior(p_top, self.top.n_codes, "p_top")
        check_prior(p_bottom, self.bottom.n_codes, "p_bottom")
        generator = None if generator is None else as_generator(generator)
        t = p_top.sample(n, grids[0], generator=generator)
        b = p_bottom.sample(n, grids[1], context=self.context(t), generator=generator)
        return levels_of(self.decode(Codes(t, b)), noise, generator)

    def _checked(self, codes: Codes) -> Codes:
        t, b = codes
        check_grids(t, self.top.n_codes, "t")
        check_grids(b, self.bottom.n_codes, "b")
        expected = (len(t), 1, *(2 * side for side in t.shape[2:]))
        if tuple(b.shape) != expected:
            raise ValueError(
                f"b must have shape {expected}, twice the sides of t's {tuple(t.shape)}, got shape "
                f"{tuple(b.shape)}"
            )
        return Codes(t, b)

    def _trunk(self, x: Tensor) -> Tensor:
        check_divisible(x, self.n_levels, self.n_channels, self.n_halvings + 1)
        return self.trunk(values_of(x, self.n_levels, self.top.codebook.dtype)).relu()

    def _top_features(self, trunk: Tensor) -> Tensor:
        return self.to_top(trunk).movedim(1, -1)  # (N, h / 2, w / 2, dim)

    def _bottom_features(self, trunk: Tensor, t: Tensor) -> Tensor:
        told = torch.cat([trunk, doubled(t.movedim(-1, 1))], 1)
        return self.to_bottom(told).movedim(1, -1)  # (N, h, w, dim)

    def _logits(self, t: Tensor, b: Tensor) -> Tensor:
        codes = torch.cat([doubled(t.movedim(-1, 1)), b.movedim(-1, 1)], 1)
        return pixel_logits(self.decoder(codes), self.n_channels)


def doubled(maps: Tensor) -> Tensor:
    """Each place of a map four times: ``(N, F, h, w)`` to ``(N, F, 2h, 2w)``."""
    return maps.repeat_interleave(2, 2).repeat_interleave(2, 3)
