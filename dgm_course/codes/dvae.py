"""The discrete VAE of DALL·E's first stage: words drawn from a posterior, not the nearest."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dgm_course.checks import check_count
from dgm_course.codes.code_model import (
    CodeModel,
    Prior,
    all_grids,
    check_prior,
    downward,
    log_likelihood,
    pixel_logits,
    upward,
    values_of,
)
from dgm_course.codes.gumbel import GumbelSoftmax
from dgm_course.data.toy import Seed, as_generator


class DVAETerms(NamedTuple):
    """E_q log p(x|z) and KL(q(z|x) ‖ p(z)) of each image, in nats."""

    reconstruction: Tensor  # (N,)
    kl: Tensor  # (N,)

    @property
    def elbo(self) -> Tensor:
        """reconstruction − kl, ``(N,)``."""
        return self.reconstruction - self.kl


class DiscreteVAE(CodeModel):
    """log p(x) ≥ E_q log p(x|z) − KL(q(z|x) ‖ p(z)), q(z|x) = Π_g Cat(z_g; softmax ℓ_g(x)).

    A word is a row of a table of K embeddings; the decoder sees Σ_k y_gk e_k, which for one-hot y
    is the word's own. Training uses `relaxed_terms`, whose y are draws of `GumbelSoftmax` and let
    a gradient pass to ℓ. They bound nothing: a y inside the simplex can tell the decoder more than
    a word can. `elbo` draws words, `elbo_by_enumeration` takes them all.

    Source: Ramesh et al. 2021 (DALL·E), section 2.1, https://arxiv.org/abs/2102.12092.

    Args:
        n_levels: levels 0 … n_levels − 1 of a pixel.
        n_codes: number K of words.
        dim: numbers in an embedding.
        n_channels: channels C of an image.
        n_features: channels of the hidden convolutions of encoder and decoder.
        n_halvings: how often the grid's sides are halved: h = H / 2^n_halvings.

    Shapes: integers x ``(N, C, H, W)``; z ``(N, 1, h, w)``, int64; y ``(N, h, w, K)``.

    Raises:
        ValueError: for images that are not integers, not a batch, empty, outside the levels or not
            divisible by the halvings; for z outside the codes; for a prior of another n_levels.

    Omits: the logit-Laplace density of pixels, of which a categorical takes the place here.
    """

    def __init__(
        self,
        n_levels: int,
        n_codes: int,
        dim: int = 8,
        *,
        n_channels: int = 1,
        n_features: int = 32,
        n_halvings: int = 1,
    ) -> None:
        super().__init__(n_levels, n_codes, n_channels, n_halvings)
        width, dim = check_count(n_features, "n_features"), check_count(dim, "dim")
        self.encoder = downward(self.n_channels, width, self.n_codes, self.n_halvings)
        self.codebook = nn.Parameter(torch.randn(self.n_codes, dim))
        self.decoder = upward(dim, width, self.n_channels * self.n_levels, self.n_halvings)

    def posterior(
        self, x: Tensor, temperature: float = 1.0, *, straight_through: bool = False
    ) -> GumbelSoftmax:
        """q(z|x), of logits ``(N, h, w, K)``."""
        self.check_images(x)
        logits = self.encoder(values_of(x, self.n_levels, self.codebook.dtype)).movedim(1, -1)
        return GumbelSoftmax(logits, temperature, straight_through=straight_through)

    def relaxed_terms(
        self, x: Tensor, temperature: float, *, straight_through: bool = False
    ) -> DVAETerms:
        """log p(x|y) of one relaxed draw y, and the KL from q(z|x) to the uniform, in closed form.

        Args:
            x: images.
            temperature: τ of the draw.
            straight_through: whether the decoder sees one-hot words.
        """
        q = self.posterior(x, temperature, straight_through=straight_through)
        return DVAETerms(log_likelihood(self._logits(q.rsample(1)[0]), x), q.kl().sum((1, 2)))

    def elbo(
        self,
        x: Tensor,
        n_samples: int = 1,
        *,
        prior: Prior | None = None,
        generator: Seed | None = None,
    ) -> DVAETerms:
        """The terms at S draws of words an image; the encoder's gradient is not in the first.

        Args:
            x: images.
            n_samples: number S.
            prior: p(z); None is the uniform, to which the KL is in closed form. To others it is the
                mean of log q − log p over the draws.
            generator: a seed or a generator; None takes torch's own.
        """
        q, order = self.posterior(x), None if generator is None else as_generator(generator)
        z = q.sample(n_samples, order)  # (S, N, h, w)
        log_p = [log_likelihood(self.logits_of(one[:, None]), x) for one in z]
        reconstruction = torch.stack(log_p).mean(0)
        if prior is None:
            return DVAETerms(reconstruction, q.kl().sum((1, 2)))
        check_prior(prior, self.n_codes)
        log_prior = torch.stack([prior.log_prob(one[:, None]) for one in z])
        return DVAETerms(reconstruction, (q.log_prob(z).sum((2, 3)) - log_prior).mean(0))

    def elbo_by_enumeration(self, x: Tensor, *, prior: Prior | None = None) -> DVAETerms:
        """The terms over all K^(h·w) grids: exact, with their exact gradients.

        Raises:
            ValueError: for more than 100,000 grids, and as for `elbo`.
        """
        posterior = self.posterior(x)
        grids = all_grids(self.n_codes, self.grid_size(x.shape[2:])).to(x.device)  # (G, 1, h, w)
        # log q of all pairs: the words' log-probabilities, added up by one product.
        hot = torch.nn.functional.one_hot(grids[:, 0], self.n_codes).flatten(1)  # (G, h · w · K)
        log_q = hot.to(posterior.log_q) @ posterior.log_q.flatten(1).T  # (G, N)
        reconstruction = (log_q.exp() * self.log_likelihoods(x, grids)).sum(0)
        if prior is None:
            return DVAETerms(reconstruction, posterior.kl().sum((1, 2)))
        check_prior(prior, self.n_codes)
        kl = (log_q.exp() * (log_q - prior.log_prob(grids)[:, None])).sum(0)
        return DVAETerms(reconstruction, kl)

    def encode(self, x: Tensor) -> Tensor:
        """The likeliest words, indices ``(N, 1, h, w)``: what stage 2 is trained on."""
        return self.posterior(x).log_q.argmax(-1)[:, None]

    def logits_of(self, z: Tensor) -> Tensor:
        """The logits of p(x|z), ``(N, 1, h, w)`` to ``(N, n_levels, C, H, W)``, unchecked."""
        codes = torch.nn.functional.embedding(z[:, 0], self.codebook)
        return pixel_logits(self.decoder(codes.movedim(-1, 1)), self.n_channels)

    def _logits(self, y: Tensor) -> Tensor:
        codes = y @ self.codebook  # (N, h, w, dim)
        return pixel_logits(self.decoder(codes.movedim(-1, 1)), self.n_channels)
