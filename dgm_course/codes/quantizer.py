"""Vector quantisation: the nearest word of a dictionary, and the three ways in which it learns."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from dgm_course.checks import (
    check_count,
    check_finite,
    check_integers,
    check_number,
    check_tensor,
)
from dgm_course.data.toy import Seed, as_generator

Update = Literal["ema", "gradient"]
CHUNK = 2**20  # distances at a time: what a core's cache holds, and no more memory than that


class QuantizerTerms(NamedTuple):
    """What a vector's quantisation adds to the loss, each with its weight, and its gradients."""

    commitment: Tensor  # (...), β ‖h − sg e‖², to the encoder
    codebook: Tensor  # (...), ‖sg h − e‖², to the codebook; 0 where averages move it

    @property
    def loss(self) -> Tensor:
        """commitment + codebook, ``(...)``."""
        return self.commitment + self.codebook


class VectorQuantizer(nn.Module):
    """k(h) = argmin_j ‖h − e_j‖², and e_k(h) is handed on in the place of h.

    The gradient by e_k is copied to h (straight-through): what follows is treated as if the
    quantiser were the identity. The codebook learns apart from it, in one of two ways. "ema": each
    code runs after the mean of the vectors that choose it,

        N_j ← γ N_j + (1 − γ) n_j,  e_j ← e_j + (1 − γ) n_j / N_j · (mean of its n_j vectors − e_j),

    which is m_j / N_j for m_j ← γ m_j + (1 − γ) Σ h, both started at one vector that lies on e_j:
    so a code never leaves the hull of the data and its start. With γ = 0 that is a step of Lloyd's
    k-means. "gradient": the loss has the term ‖sg h − e‖², and the optimiser moves the code.

    A call in training mode moves the averages once its answer is known; in evaluation mode nothing
    moves, and `nearest` never moves anything.

    Source: van den Oord, Vinyals & Kavukcuoglu 2017, sections 3.1, 3.2 and appendix A.1,
    https://arxiv.org/abs/1711.00937; restarts: Dhariwal et al. 2020 (Jukebox), section 3,
    https://arxiv.org/abs/2005.00341.

    Args:
        n_codes: number K of codes. They start as draws from N(0, I); see `initialise`.
        dim: numbers in a code.
        update: "ema" or "gradient".
        decay: γ, 0 ≤ γ < 1.
        commitment: β ≥ 0, the weight of ‖h − sg e‖², which keeps h near its code.
        restart: None, or the count N_j, of at most 1, below which a code is put on a vector of the
            batch, drawn at random by torch's own generator. A count starts at 1 and shrinks by γ a
            step, so that ln(restart) / ln γ steps without a vector are borne.

    Shapes: h ``(..., dim)`` to ``(..., dim)``, indices ``(...)``, int64, and terms ``(...)`` each.

    Raises:
        ValueError: for arguments outside these bounds, or for h of another width or dtype than the
            codebook's, empty, or not finite: argmin would answer 0 to NaN.

    Omits: other distances than the Euclidean; several codebooks for a vector; averages over
    processes. In float32 the distances are exact to about 10⁻⁷ of the codebook's own squared
    extent, wherever it lies.

    Example:
        >>> quantizer = VectorQuantizer(2, 1).eval()
        >>> _ = quantizer.codebook.copy_(torch.tensor([[-1.0], [1.0]]))
        >>> codes, indices, terms = quantizer(torch.tensor([[0.2], [-3.0]]))
        >>> codes.flatten().tolist(), indices.tolist(), terms.commitment.tolist()
        ([1.0, -1.0], [1, 0], [0.1600000113248825, 1.0])
    """

    codebook: Tensor
    counts: Tensor

    def __init__(
        self,
        n_codes: int,
        dim: int,
        *,
        update: Update = "ema",
        decay: float = 0.99,
        commitment: float = 0.25,
        restart: float | None = None,
    ) -> None:
        super().__init__()
        self.n_codes, self.dim = check_count(n_codes, "n_codes"), check_count(dim, "dim")
        if update not in get_args(Update):
            raise ValueError(f"update must be 'ema' or 'gradient', got {update!r}")
        check_number(decay, "decay", or_zero=True)
        if decay >= 1:  # a codebook that never moves
            raise ValueError(f"decay must be below 1, got {decay}")
        check_number(commitment, "commitment", or_zero=True)
        if restart is not None:
            check_number(restart, "restart")
            if restart > 1:  # the count that a code starts with
                raise ValueError(f"restart must be None or at most 1, got {restart}")
        self.update, self.decay, self.commitment = update, decay, commitment
        self.restart = restart
        codebook = torch.randn(self.n_codes, self.dim)
        if update == "gradient":
            self.codebook = nn.Parameter(codebook)
        else:
            self.register_buffer("codebook", codebook)
        self.register_buffer("counts", torch.ones(self.n_codes))

    def extra_repr(self) -> str:
        settings = f"{self.n_codes}, {self.dim}, update={self.update!r}, decay={self.decay}"
        return f"{settings}, commitment={self.commitment}, restart={self.restart}"

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor, QuantizerTerms]:
        """The codes in the place of h, their indices, and what both add to the loss."""
        self._check_vectors(h)
        indices = self._nearest(h.detach())  # (...)
        code = embedding(indices, self.codebook)  # (..., dim)
        commitment = self.commitment * (h - code.detach()).square().sum(-1)
        codebook = torch.zeros_like(commitment)
        if self.update == "gradient":
            codebook = (h.detach() - code).square().sum(-1)
        straight_through = code.detach() + (h - h.detach())  # the code to the bit, for h − h = 0
        if self.training:
            self._learn(h.detach().flatten(0, -2), indices.flatten())
        return straight_through, indices, QuantizerTerms(commitment, codebook)

    @torch.no_grad()
    def nearest(self, h: Tensor) -> Tensor:
        """argmin_j ‖h − e_j‖, the lowest such j where codes are equal: ``(..., dim)`` to int64."""
        self._check_vectors(h)
        return self._nearest(h)

    def codes(self, indices: Tensor) -> Tensor:
        """e_k of each index, ``(...)`` to ``(..., dim)``.

        Raises:
            ValueError: for indices that are not integers 0 … K − 1.
        """
        check_integers(indices, 0, self.n_codes - 1, "indices")
        return embedding(indices.long(), self.codebook)

    @torch.no_grad()
    def initialise(self, h: Tensor, generator: Seed | None = None) -> VectorQuantizer:
        """Put the codes on K different vectors of h, ``(..., dim)``, and all counts at 1.

        Args:
            h: what the codebook will have to describe: an encoder's output on many images.
            generator: a seed or a generator; None takes torch's own.

        Returns:
            The quantiser itself.

        Raises:
            ValueError: for fewer different vectors than codes: the rest would never be chosen.
        """
        self._check_vectors(h)
        different = torch.unique(h.flatten(0, -2), dim=0)
        if len(different) < self.n_codes:
            raise ValueError(
                f"h must hold at least n_codes = {self.n_codes} different vectors, got "
                f"{len(different)} in {h[..., 0].numel()}"
            )
        order = None if generator is None else as_generator(generator)
        device = different.device if order is None else order.device
        chosen = torch.randperm(len(different), generator=order, device=device)[: self.n_codes]
        self.codebook.copy_(different[chosen.to(different.device)])
        self.counts.fill_(1)
        return self

    def perplexity(self, indices: Tensor) -> float:
        """exp(−Σ_j p_j ln p_j), p_j the share of code j in the indices ``(...)``: 1 to K.

        As many codes, equally often used, would carry as much.
        """
        share = self._hits(indices) / indices.numel()
        return math.exp(-torch.special.xlogy(share, share).sum().item())

    def usage(self, indices: Tensor) -> int:
        """How many of the K codes occur in the indices ``(...)``."""
        return int((self._hits(indices) > 0).sum())

    def _hits(self, indices: Tensor) -> Tensor:
        """How often each code occurs, ``(K,)``, float64."""
        check_integers(indices, 0, self.n_codes - 1, "indices")
        if indices.numel() == 0:
            raise ValueError(f"indices must not be empty, got shape {tuple(indices.shape)}")
        return torch.bincount(indices.flatten(), minlength=self.n_codes).double()

    def _nearest(self, h: Tensor) -> Tensor:
        """½ ‖e‖² − h·e has its least value where ‖h − e‖² has, and is one matrix product.

        Both are taken from the codebook's mean: far from the origin ‖e‖² would else leave no
        digits for the differences. Equal codes are one code, the first: a product may round
        its columns differently.
        """
        centre = self.codebook.detach().mean(0)
        e = self.codebook.detach() - centre  # (K, dim)
        half = 0.5 * e.square().sum(1)
        vectors = h.flatten(0, -2)
        rows = min(len(vectors), max(1, CHUNK // self.n_codes))
        # One buffer for all chunks: of a new one for each, the allocator may keep 200 MB.
        distances = half.new_empty(rows, self.n_codes)
        chosen = torch.empty(len(vectors), dtype=torch.long, device=h.device)
        for v, k in zip(vectors.split(rows), chosen.split(rows), strict=True):
            part = torch.addmm(half, v - centre, e.T, alpha=-1, out=distances[: len(v)])
            torch.argmin(part, 1, out=k)
        _, group = torch.unique(self.codebook.detach(), dim=0, return_inverse=True)
        number = torch.arange(self.n_codes, device=group.device)
        first = torch.empty_like(number).scatter_reduce_(
            0, group, number, "amin", include_self=False
        )
        return first[group][chosen].reshape(h.shape[:-1])

    @torch.no_grad()
    def _learn(self, h: Tensor, indices: Tensor) -> None:
        """Move averages and dead codes; h ``(N, dim)``, indices ``(N,)``."""
        # Where checks of values are off, a vector that is not finite must still spoil nothing.
        finite = h.isfinite().all()
        n = torch.bincount(indices, minlength=self.n_codes).to(h.dtype)  # (K,)
        counts = self.decay * self.counts + (1 - self.decay) * n
        if self.update == "ema":
            centre = self.codebook.mean(0)
            sums = torch.zeros_like(self.codebook).index_add_(0, indices, h - centre)
            means = centre + sums / n.clamp_min(1)[:, None]
            weight = ((1 - self.decay) * n / counts)[:, None]
            moved = torch.lerp(self.codebook, means, weight)  # at weight 1 the mean to the bit
            self.codebook.copy_(torch.where(finite & (n > 0)[:, None], moved, self.codebook))
        self.counts.copy_(torch.where(finite, counts, self.counts))
        if self.restart is not None:
            dead = finite & (self.counts < self.restart)
            drawn = h[torch.randint(len(h), (self.n_codes,), device=h.device)]
            self.codebook.copy_(torch.where(dead[:, None], drawn, self.codebook))
            self.counts.masked_fill_(dead, 1)

    def _check_vectors(self, h: Tensor) -> None:
        check_tensor(h, "h")
        if h.ndim < 2 or h.shape[-1] != self.dim:
            raise ValueError(
                f"h must have shape (..., N, {self.dim}), the codebook's dim, got shape "
                f"{tuple(h.shape)}"
            )
        if h.numel() == 0:
            raise ValueError(f"h must hold at least one vector, got shape {tuple(h.shape)}")
        if h.dtype != self.codebook.dtype:
            raise ValueError(
                f"h must have the codebook's dtype, {self.codebook.dtype}, got {h.dtype}"
            )
        check_finite(h, "h", "vectors")
