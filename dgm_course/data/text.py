"""Text as bytes: one that every Python brings along, and what simple models make of it."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Literal, get_args

import torch
from torch import Tensor

from dgm_course.checks import MOST, check_count, check_integers, check_number
from dgm_course.data.images import check_split

Compressor = Literal["bz2", "lzma"]


def pydoc_text(split: str = "train") -> Tensor:
    """The reference text that ``help()`` shows, as bytes ``(T,)``, int64, 0 … 255: no download.

    The topics of ``pydoc_data`` in their order, one after the other, in UTF-8: the first nine
    tenths are for training, the rest, which goes on from there, for testing. Every version of
    Python has its own: with 3.11.7 it is 466,117 bytes, 107 of the 256 values, and with another
    version any number read off it is a little different.

    The topics quote one another: of the test part of 3.11.7, 38 % of the bytes lie in a stretch of
    20 or more that stands in the training part, too.

    Source: the language reference of Python, under the PSF licence,
    https://docs.python.org/3/license.html.

    Args:
        split: "train" or "test".

    Example:
        >>> to_text(pydoc_text()[:20])
        'The "assert" stateme'
    """
    check_split(split)
    from pydoc_data.topics import topics  # half a megabyte, needed only here

    tokens = to_tokens("".join(topics.values()))
    n_train = len(tokens) * 9 // 10
    return tokens[:n_train] if split == "train" else tokens[n_train:]


def to_tokens(text: str) -> Tensor:
    """The bytes of a text in UTF-8, ``(T,)``, int64, 0 … 255."""
    if not isinstance(text, str) or not text:
        raise ValueError(f"text must be a str, not empty, got {text!r}")
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).long()


def to_text(tokens: Tensor) -> str:
    """The text of bytes ``(T,)``, with � where they are no UTF-8, such as in half a letter."""
    check_tokens(tokens, "tokens", 255)
    return bytes(tokens.tolist()).decode(errors="replace")


def windows(tokens: Tensor, length: int, stride: int | None = None) -> Tensor:
    """Row i is tokens[i · stride : i · stride + length], ``(N, length)``: a view, not a copy.

    One after the other unless a stride is given, for testing: each token is read once, and a rest
    shorter than ``length`` is left out. Rows of ``windows(tokens, length, 1)``, drawn at random,
    are a batch for training.

    Raises:
        ValueError: for tokens that are not integers ``(T,)``, or fewer than ``length``.
    """
    check_tokens(tokens, "tokens")
    length = check_count(length, "length")
    if length > len(tokens):
        raise ValueError(f"length must be at most that of tokens, {len(tokens)}, got {length}")
    return tokens.unfold(0, length, length if stride is None else check_count(stride, "stride"))


def ngram_nats(train: Tensor, test: Tensor, n: int, smoothing: float = 0.05) -> Tensor:
    """−log [c(x_(t−n+1) … x_t) + a] / [c(x_(t−n+1) … x_(t−1)) + a V], of each test token.

    c counts in the training tokens, V is the number of different tokens in both, and a the
    smoothing: without it, one new n-gram in the test would cost infinitely much. The test goes on
    where the training ends: its first tokens have the last of those as their past.

    Source: Lidstone 1920, for the constant that is added to each count.

    Args:
        train: tokens ``(T,)``, at least n.
        test: tokens ``(S,)``.
        n: 1 for the frequencies of tokens, 2 for those of pairs, and so on.
        smoothing: a, above 0.

    Shapes: ``(S,)`` nats, float64.

    Omits: mixing with the shorter past's law, without which a longer past ends up worse.

    Example:
        >>> one, two = (ngram_nats(pydoc_text(), pydoc_text("test"), n).mean() for n in (1, 2))
        >>> bool(one > 3 > 2.5 > two)
        True
    """
    n = check_count(n, "n")
    check_tokens(train, "train")
    check_tokens(test, "test")
    check_number(smoothing, "smoothing")
    if len(train) < n:
        raise ValueError(f"train must hold at least n = {n} tokens, got {len(train)}")
    symbols, x = torch.cat([train.long(), test.long()]).unique(return_inverse=True)
    v = len(symbols)
    if v**n >= 2**63:
        raise ValueError(f"n must leave V ** n below 2 ** 63, got {v} ** {n}")
    grams = x.new_zeros(len(x) - n + 1)  # n tokens as the digits of one number
    for i in range(n):
        grams = grams * v + x[i : len(grams) + i]
    seen, asked = grams[: len(train) - n + 1], grams[-len(test) :]
    hits, pasts = _count(seen, asked), _count(seen // v, asked // v)
    return -((hits + smoothing) / (pasts + smoothing * v)).log()


def compressed_nats(tokens: Tensor, method: Compressor = "lzma") -> float:
    """8 ln 2 · bytes after / bytes before: nats a byte by a compressor of the standard library.

    Of the whole, which it sees but once. What a test adds after the training is the difference of
    two totals, ``len(both) * compressed_nats(both) - len(train) * compressed_nats(train)``.

    Args:
        tokens: bytes ``(T,)``.
        method: "bz2" or "lzma".
    """
    check_tokens(tokens, "tokens", 255)
    if method not in get_args(Compressor):
        raise ValueError(f"method must be one of {get_args(Compressor)}, got {method!r}")
    compressed = import_module(method).compress(bytes(tokens.tolist()))  # some builds lack one
    return 8 * math.log(2) * len(compressed) / len(tokens)


def check_tokens(tokens: Tensor, name: str, highest: int = MOST) -> None:
    """Raise a ValueError unless tokens are integers ``(T,)`` from 0 to the highest, not empty."""
    check_integers(tokens, 0, highest, name)
    if tokens.ndim != 1 or not len(tokens):
        raise ValueError(f"{name} must have shape (T,), not empty, got {tuple(tokens.shape)}")


def _count(among: Tensor, asked: Tensor) -> Tensor:
    """How often each number asked for is among others."""
    kinds, counts = among.unique(return_counts=True)
    at = torch.searchsorted(kinds, asked).clamp(max=len(kinds) - 1)
    return torch.where(kinds[at] == asked, counts[at], 0).double()
