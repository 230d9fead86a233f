"""Digits on a wider canvas with captions of three words, made by code, and a judge of both."""

from __future__ import annotations

from itertools import product
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from dgm_course.checks import check_images, check_integers, check_shape
from dgm_course.data.images import digits

Which = Literal["seen", "unseen", "all"]
BRIGHTNESSES, SIDES = ("faint", "bright"), ("left", "right")
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
KINDS = (BRIGHTNESSES, NAMES, SIDES)  # in the order of a caption
ORDER = "(brightness) (digit) (side)"

WORDS = (*BRIGHTNESSES, *NAMES, *SIDES)  # a word's place is its token, 0 … 13
CAPTIONS = tuple(" ".join(words) for words in product(*KINDS))  # all 40
# Left out of training, though each word of theirs, and each two, are together in other captions.
HELD_OUT = ("faint two left", "bright four right", "bright seven left", "faint nine right")
FAINTEST_BRIGHT = 12  # a faint digit has at most half of 16, a bright one's ink is 14 or more


class Captioned(NamedTuple):
    """Images ``(N, 1, 8, 16)``, int64, 17 levels, and the tokens of their captions ``(N, 3)``."""

    images: Tensor
    captions: Tensor


def encode_caption(caption: str) -> Tensor:
    """The tokens ``(3,)``, int64, of a caption such as "bright three left".

    Raises:
        ValueError: for a word that is not known, which is named, or known words in another order
            or number.

    Example:
        >>> encode_caption("bright three left")
        tensor([ 1,  5, 12])
        >>> decode_caption(torch.tensor([1, 5, 12]))
        'bright three left'
    """
    if not isinstance(caption, str):
        raise ValueError(f"caption must be a str, got {type(caption).__name__}")
    words = caption.split()
    for word in words:
        if word not in WORDS:
            known = ", ".join(WORDS)
            raise ValueError(f"caption must be of the words {known}, got {word!r} in {caption!r}")
    _check_order(words, repr(caption))
    return torch.tensor([WORDS.index(word) for word in words])


def decode_caption(tokens: Tensor) -> str:
    """The caption of tokens ``(3,)``.

    Raises:
        ValueError: for tokens that are not integers 0 … 13, or in another order or number.
    """
    check_integers(tokens, 0, len(WORDS) - 1, "tokens")
    if tokens.ndim != 1:
        raise ValueError(f"tokens must have shape (3,), got shape {tuple(tokens.shape)}")
    words = [WORDS[token] for token in tokens.tolist()]
    _check_order(words, repr(" ".join(words)))
    return " ".join(words)


def captioned_digits(split: str = "train", which: Which = "seen") -> Captioned:
    """Every digit of the split faint and bright, at the left and at the right of an 8 × 16 canvas.

    A bright digit has its own levels, a faint one half of them, rounded down; the other half of the
    canvas is blank. Canvases of the training and the test split share no digit. Digits come in the
    order of `digits`, four times over: shuffle before you take a few.

    Args:
        split: "train" or "test", of `digits`.
        which: canvases of the 36 "seen" captions, of the 4 "unseen" ones in ``HELD_OUT``, which no
            training may see, or "all".

    Shapes: images ``(N, 1, 8, 16)``, captions ``(N, 3)``, both int64; N at most 4 times the split.

    Raises:
        ValueError: for another split, or another value of which.

    Example:
        >>> images, captions = captioned_digits("test", "unseen")
        >>> images.shape, decode_caption(captions[0])
        (torch.Size([142, 1, 8, 16]), 'faint two left')
    """
    if which not in get_args(Which):
        raise ValueError(f"which must be one of {get_args(Which)}, got {which!r}")
    images, labels = digits(split)
    canvases, captions = [], []
    for brightness, side in product((0, 1), (0, 1)):
        canvas = torch.zeros(len(images), 1, 8, 2, 8, dtype=torch.long)  # the halves apart
        canvas[..., side, :] = images if brightness else images // 2
        canvases.append(canvas.flatten(3))
        captions.append(_tokens(torch.tensor(brightness), labels, torch.tensor(side)))
    data = Captioned(torch.cat(canvases), torch.cat(captions))
    if which == "all":
        return data
    held_out = torch.stack([encode_caption(caption) for caption in HELD_OUT])
    unseen = (data.captions[:, None] == held_out).all(2).any(1)
    chosen = unseen if which == "unseen" else ~unseen
    return Captioned(data.images[chosen], data.captions[chosen])


class CaptionJudge:
    """The caption that an image deserves: brightness and side by a rule, the digit by a classifier.

    The digit stands in the half with more ink, and is bright where that half's highest level is
    12 or more: right for every canvas of `captioned_digits`. Which digit it is says a
    support-vector machine with a Gaussian kernel that has seen the training digits alone.

    Args of a call: images ``(N, 1, 8, 16)``, integers 0 … 16, to the tokens ``(N, 3)`` of their
    captions. Of an image with equal ink in both halves, a blank one among them, the side is −1.

    Raises:
        ValueError: for images of another shape, empty, or not integers 0 … 16.

    Example:
        >>> judge = CaptionJudge()
        >>> images, captions = captioned_digits("test", "unseen")
        >>> judge(images[:2]).tolist(), judge.right(images, captions).shape
        ([[0, 4, 12], [0, 4, 12]], torch.Size([142]))
    """

    def __init__(self) -> None:
        from sklearn.svm import SVC  # slow to import, and needed only here

        images, labels = digits("train")
        self._classifier = SVC().fit(images.flatten(1).numpy(), labels.numpy())
        wrong = ~self.right(*captioned_digits("test", "all"))
        from dgm_course.probability import Estimate  # which students' code does without

        # The share of real test canvases that are judged wrong, over the 355 digits.
        self.error = Estimate.from_samples(wrong.double().reshape(4, -1).mean(0))

    def __call__(self, images: Tensor) -> Tensor:
        """The tokens of the captions, ``(N, 3)``."""
        check_images(images, 17, 1, name="images")
        check_shape(images, (len(images), 1, 8, 16), "images")
        halves = images.unflatten(3, (2, 8))[:, 0].transpose(1, 2).cpu()  # (N, 2, 8, 8)
        ink = halves.sum((2, 3))  # (N, 2)
        side = ink.argmax(1)
        digit = halves[torch.arange(len(side)), side].flatten(1)  # (N, 64)
        bright = digit.amax(1) >= FAINTEST_BRIGHT
        shown = torch.where(bright[:, None], digit, 2 * digit)
        name = torch.from_numpy(self._classifier.predict(shown.numpy()))
        tokens = _tokens(bright.long(), name, side)
        tokens[ink[:, 0] == ink[:, 1], 2] = -1
        return tokens.to(images.device)

    def right(self, images: Tensor, captions: Tensor) -> Tensor:
        """Whether an image is what its caption says, all three words, ``(N,)``, bool.

        Args:
            images: ``(N, 1, 8, 16)``.
            captions: tokens ``(N, 3)``, or ``(3,)`` for one caption of all images.
        """
        check_integers(captions, 0, len(WORDS) - 1, "captions")
        if captions.shape not in ((len(images), 3), (3,)):
            raise ValueError(
                f"captions must have shape ({len(images)}, 3), one of each image, or (3,), got "
                f"{tuple(captions.shape)}"
            )
        return (self(images) == captions).all(1)


def _tokens(brightness: Tensor, digit: Tensor, side: Tensor) -> Tensor:
    """Tokens ``(N, 3)`` of three tensors of places in their kinds, which broadcast."""
    offsets = (0, len(BRIGHTNESSES), len(BRIGHTNESSES) + len(NAMES))
    places = torch.broadcast_tensors(brightness, digit, side)
    return torch.stack([p + offset for p, offset in zip(places, offsets, strict=True)], 1)


def _check_order(words: list[str], what: Any) -> None:
    """Raise a ValueError unless the known words are one of each kind, in a caption's order."""
    if len(words) != len(KINDS) or not all(w in k for w, k in zip(words, KINDS, strict=True)):
        raise ValueError(f"caption must be {ORDER}, as 'bright three left', got {what}")
