"""DALL·E in small: one sequence model of a caption's words and an image's tokens after them."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dgm_course.checks import (
    as_numbers,
    check_count,
    check_instance,
    check_integers,
    check_number,
    check_shape,
    check_size,
    check_tensor,
    values_are_checked,
)
from dgm_course.data.toy import Seed, as_generator
from dgm_course.sequences.sampling import check_sharpness, draw_tokens

PADDING = -1  # in captions, after the last word
CHUNK = 2**16  # tokens at a time, for the pairs of all captions and images


class ImageTokens(Protocol):
    """The first stage: images as grids of tokens 0 … n_codes − 1, and back."""

    n_codes: int

    def encode(self, x: Tensor, /) -> Tensor:
        """Images ``(N, C, H, W)`` to tokens ``(N, h, w)``."""

    def decode(self, z: Tensor, /) -> Tensor:
        """Tokens ``(N, h, w)`` to images ``(N, C, H, W)``."""


class TextAndImage(NamedTuple):
    """log p(c, z) = log p(c) + log p(z|c) of captions c and grids z, in nats."""

    text: Tensor  # (N,), log p(c), given how many words c has
    image: Tensor  # (N,), log p(z|c)

    @property
    def log_prob(self) -> Tensor:
        """text + image, ``(N,)``."""
        return self.text + self.image


class DALLE(nn.Module):
    """p(c, z) = Π_s p(c_s | c_<s) Π_t p(z_t | c, z_<t): words c, then an image's tokens z.

    Both are written in one vocabulary, of the words, the K codes and one sign for padding, and read
    by one sequence model that is passed in. Of its logits at a place for words those of words
    alone take part, and at a place for codes those of codes alone: what cannot stand there has no
    probability. Padding after a caption's last word is read, and costs nothing. `loss` weighs the
    words less than the image,

        w · (nats of all words / number of words) + (1 − w) · (nats of all codes / number of codes).

    Source: Ramesh et al. 2021 (DALL·E), section 2.2, https://arxiv.org/abs/2102.12092.

    Args:
        model: a sequence model, tokens ``(N, T)`` to logits ``(N, V, T)``, as `GPT`; of
            V = n_words + K + 1 tokens and T = n_text + h · w places. It alone is trained.
        codes: the first stage, trained before; see `ImageTokens`.
        n_words: words 0 … n_words − 1 of a caption.
        n_text: the most words of a caption.
        size: height h and width w of an image in tokens.
        text_weight: w, from 0 to 1.

    Shapes: captions ``(N, n_text)``, integers, −1 after the last word; grids z ``(N, h, w)``;
    images as the first stage has them. log p(c, z) is of grids, not of pixels.

    Raises:
        ValueError: for arguments outside these bounds; for a model of another vocabulary; for
            captions or grids of another shape, empty, not integers, or outside their vocabulary;
            for a caption without a word or with a word after padding.

    Omits: the bytes that words are split into; a padding of its own at each place; attention over
    rows and columns; choosing the best of many images by another model; a cache when drawing.

    Example:
        >>> from dgm_course.sequences import GPT
        >>> class Halves:  # tokens 0 and 1 for the pixels themselves
        ...     n_codes = 2
        ...     encode = staticmethod(lambda x: x[:, 0])
        ...     decode = staticmethod(lambda z: z[:, None])
        >>> gpt = GPT(n_tokens=3 + 2 + 1, context=2 + 4, n_layers=1, n_heads=1, width=8)
        >>> dalle = DALLE(gpt, Halves(), n_words=3, n_text=2, size=(2, 2))
        >>> captions, images = torch.tensor([[0, 2]]), torch.ones(1, 1, 2, 2, dtype=torch.long)
        >>> [round(v.item(), 3) for v in dalle.terms(captions, images[:, 0])]  # -2 ln 3, -4 ln 2
        [-2.197, -2.773]
        >>> dalle.generate(captions[0], 5, generator=0).shape
        torch.Size([5, 1, 2, 2])
    """

    def __init__(
        self,
        model: nn.Module,
        codes: ImageTokens,
        n_words: int,
        n_text: int,
        size: tuple[int, int],
        text_weight: float = 1 / 8,
    ) -> None:
        super().__init__()
        check_instance(model, nn.Module, "model")
        self.model, self.codes = model, codes
        self.n_words, self.n_text = check_count(n_words, "n_words"), check_count(n_text, "n_text")
        self.n_codes = check_count(getattr(codes, "n_codes", None), "codes.n_codes")
        self.size = check_size(size)
        check_number(text_weight, "text_weight", or_zero=True)
        if text_weight > 1:
            raise ValueError(f"text_weight must be from 0 to 1, got {text_weight}")
        self.text_weight = text_weight
        self._check_model()

    def extra_repr(self) -> str:
        words = f"n_words={self.n_words}, n_text={self.n_text}"
        return f"{words}, n_codes={self.n_codes}, size={self.size}, text_weight={self.text_weight}"

    def tokens(self, captions: Tensor, z: Tensor) -> Tensor:
        """The sequences, ``(N, n_text + h · w)``: words, padding, then n_words + codes."""
        self._check_captions(captions)
        self._check_grids(z)
        if len(captions) != len(z):
            raise ValueError(
                f"captions and z must be of equal number, got {len(captions)} and {len(z)}"
            )
        padding = self.n_words + self.n_codes
        words = captions.long().masked_fill(captions == PADDING, padding)
        return torch.cat([words, self.n_words + z.long().flatten(1)], 1)

    def terms(self, captions: Tensor, z: Tensor) -> TextAndImage:
        """log p(c) and log p(z|c) of pairs, each ``(N,)``.

        Args:
            captions: ``(N, n_text)``.
            z: their images' tokens ``(N, h, w)``, as ``codes.encode`` returns them: encode a data
                set once.
        """
        text, image = self._split(self.model(self.tokens(captions, z)))
        words = cross_entropy(text, captions.long(), ignore_index=PADDING, reduction="none")
        codes = cross_entropy(image, z.long().flatten(1), reduction="none")
        return TextAndImage(-words.sum(1), -codes.sum(1))

    def loss(self, captions: Tensor, z: Tensor) -> Tensor:
        """Each pair's share ``(N,)`` of the batch's weighted loss, which is their mean, in nats."""
        terms, w = self.terms(captions, z), self.text_weight
        words = (captions != PADDING).sum() / len(captions)  # per caption, in this batch
        return -w * terms.text / words - (1 - w) * terms.image / z[0].numel()

    def log_prob(self, captions: Tensor, images: Tensor) -> Tensor:
        """log p(c, z(x)) in nats, ``(N,)``, given how many words each caption has."""
        return self.terms(captions, self.encode(images)).log_prob

    def encode(self, images: Tensor) -> Tensor:
        """The tokens of images, ``(N, h, w)``, by the first stage."""
        z = self.codes.encode(images)
        self._check_grids(z)
        return z

    @torch.no_grad()
    def generate(
        self,
        caption: Tensor,
        n: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        generator: Seed | None = None,
    ) -> Tensor:
        """n images of one caption: z from p(z|c), token by token, and what it decodes to.

        Args:
            caption: its words ``(n_text,)``, −1 after the last.
            n: number of images.
            temperature: the codes' logits are divided by it.
            top_k: draw from the k likeliest codes alone.
            generator: a seed or a generator; None takes torch's own.

        Raises:
            ValueError: for n below 1, a temperature that is not positive, top_k outside 1 … K, or
                a caption as above.
        """
        check_tensor(caption, "caption")
        n = check_count(n, "n")
        if caption.ndim != 1:
            raise ValueError(f"caption must have shape ({self.n_text},), got {(*caption.shape,)}")
        check_sharpness(temperature, top_k, self.n_codes)
        generator = None if generator is None else as_generator(generator)
        z = caption.new_zeros((n, *self.size), dtype=torch.long)
        tokens = self.tokens(caption.expand(n, -1), z)  # codes to be drawn are read by none before
        for t in range(self.n_text, tokens.shape[1]):
            logits = self._split(self.model(tokens[:, : t + 1]))[1][..., -1]
            tokens[:, t] = self.n_words + draw_tokens(logits, temperature, top_k, generator)
        return self.codes.decode((tokens[:, self.n_text :] - self.n_words).view(n, *self.size))

    @torch.no_grad()
    def caption_log_prob(
        self, images: Tensor, captions: Tensor, log_prior: Tensor | None = None
    ) -> Tensor:
        """log p(c|z(x)) = log p(z(x)|c) + log p(c) − log Σ_c′ p(z(x)|c′) p(c′) in nats, ``(N, M)``.

        Args:
            images: N of them.
            captions: the M captions among which x has its own, ``(M, n_text)``.
            log_prior: log p(c) in nats, ``(M,)``, up to a constant: zeros for captions that are
                equally likely. None takes the model's own, by which a combination that training
                never showed is rare, and captions of all lengths are equally so.
        """
        self._check_captions(captions)
        pairs = self._all_pairs(captions, self.encode(images))
        log_joint = pairs.log_prob
        if log_prior is not None:
            log_joint = pairs.image + self._checked_prior(log_prior, len(captions)).to(pairs.image)
        return log_joint.log_softmax(1)

    def _all_pairs(self, captions: Tensor, z: Tensor) -> TextAndImage:
        """The terms of all pairs, each ``(N, M)``, some images at a time."""
        m, length = len(captions), self.n_text + z[0].numel()
        parts = [
            self.terms(captions.repeat(len(some), 1), some.repeat_interleave(m, 0))
            for some in z.split(max(1, CHUNK // (m * length)))
        ]
        return TextAndImage(*(torch.cat(part).view(-1, m) for part in zip(*parts, strict=True)))

    def _split(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Those of words where words stand, and of codes where codes do: ``(N, V, T)`` to both."""
        text, image = logits[:, : self.n_words], logits[:, self.n_words :][:, : self.n_codes]
        return text[..., : self.n_text], image[..., self.n_text :]

    def _checked_prior(self, log_prior: Any, n: int) -> Tensor:
        """The prior as a tensor; a ValueError unless it is n finite numbers."""
        numbers = as_numbers(log_prior, "log_prior")
        check_shape(numbers, (n,), "log_prior")
        if not numbers.isfinite().all():
            raise ValueError(f"log_prior must be finite, got {numbers.tolist()}")
        return numbers

    def _check_captions(self, captions: Tensor) -> None:
        check_tensor(captions, "captions")
        if captions.ndim != 2 or captions.shape[1] != self.n_text or not len(captions):
            raise ValueError(
                f"captions must have shape (N, {self.n_text}), got {(*captions.shape,)}"
            )
        check_integers(captions, PADDING, self.n_words - 1, "captions")
        if values_are_checked():
            is_word = captions != PADDING
            if not is_word[:, 0].all() or (is_word[:, 1:] & ~is_word[:, :-1]).any():
                what = "captions must be words, then padding of -1"
                raise ValueError(f"{what}, got a caption without a word or with padding before one")

    def _check_grids(self, z: Any) -> None:
        check_tensor(z, "z")
        if z.ndim != 3 or z.shape[1:] != self.size or not len(z):
            height, width = self.size
            raise ValueError(f"z must have shape (N, {height}, {width}), got {(*z.shape,)}")
        check_integers(z, 0, self.n_codes - 1, "z")

    @torch.no_grad()
    def _check_model(self) -> None:
        """Raise a ValueError unless the model's logits are of all tokens, at all places."""
        device = next((p.device for p in self.model.parameters()), None)
        length = self.n_text + self.size[0] * self.size[1]
        out = self.model(torch.zeros(1, length, dtype=torch.long, device=device))
        n_tokens = self.n_words + self.n_codes + 1
        if not isinstance(out, Tensor) or out.shape != (1, n_tokens, length):
            got = f"shape {(*out.shape,)}" if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(
                f"model must be of n_words + n_codes + 1 = {n_tokens} tokens, with logits "
                f"(1, {n_tokens}, {length}), got {got}"
            )
