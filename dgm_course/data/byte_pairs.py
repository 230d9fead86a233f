"""Byte-pair encoding: tokens for the pairs of tokens that are seen most."""

from __future__ import annotations

import torch
from torch import Tensor

from dgm_course.checks import check_count, check_floating, check_same_shape
from dgm_course.data.text import check_tokens


class BytePairs:
    """Token 256 + i stands for the pair that is seen most in what i merges have left of a text.

    Start from bytes; count all pairs of neighbours, of which those in a run overlap; the commonest
    pair, of equals that of the lowest first token, then of the lowest second, becomes a token, and
    takes the pair's place from the left on; and again.

    A text has fewer tokens then, and each costs more: compare nats a byte, never nats a token. A
    model of tokens gives log p of one of the many ways of cutting the text, so log p(text) is at
    least that.

    Source: Gage 1994 for compression; Sennrich et al. 2016, section 3.2,
    https://arxiv.org/abs/1508.07909, for words.

    Args:
        tokens: the bytes ``(T,)`` to learn from.
        n_merges: how many tokens to add to the 256.

    Raises:
        ValueError: for tokens that are not bytes ``(T,)``; for more merges than there are pairs
            that are seen twice.

    Omits: the cut into words before merging, so that a token may hold the end of one word and the
        start of the next.

    Example:
        >>> from dgm_course.data import to_text, to_tokens
        >>> pairs = BytePairs(to_tokens("the cat, the hat, the heat"), n_merges=3)
        >>> [to_text(word) for word in pairs.words[256:]]
        ['he', 'at', 'the']
        >>> pairs.encode(to_tokens("the that"))
        tensor([258,  32, 116, 104, 257])
    """

    def __init__(self, tokens: Tensor, n_merges: int) -> None:
        check_tokens(tokens, "tokens", 255)
        tokens = tokens.long()
        self.merges: list[tuple[int, int]] = []
        self.words = [*torch.arange(256)[:, None]]  # the bytes of each token
        for i in range(check_count(n_merges, "n_merges", 0, 2000)):
            v = 256 + i
            counts = torch.bincount(tokens[:-1] * v + tokens[1:])
            if not len(counts) or counts.max() < 2:
                raise ValueError(f"n_merges must be at most {i}, got {n_merges}: no pair is left")
            first, second = divmod(int(counts.argmax()), v)
            self.merges.append((first, second))
            self.words.append(torch.cat([self.words[first], self.words[second]]))
            tokens = _merge(tokens, first, second, v)
        self.n_tokens = len(self.words)

    def encode(self, tokens: Tensor) -> Tensor:
        """Bytes ``(T,)`` to at most as many tokens: the merges, in the order they were learned."""
        check_tokens(tokens, "tokens", 255)
        tokens = tokens.long()
        for new, (first, second) in enumerate(self.merges, 256):
            tokens = _merge(tokens, first, second, new)
        return tokens

    def decode(self, tokens: Tensor) -> Tensor:
        """The bytes that tokens ``(T,)`` stand for."""
        check_tokens(tokens, "tokens", self.n_tokens - 1)
        return torch.cat([self.words[token] for token in tokens.tolist()])

    def nats_per_byte(self, nats: Tensor, tokens: Tensor) -> float:
        """Σ nats / Σ bytes, of −log p of each token, both ``(T,)``."""
        check_tokens(tokens, "tokens", self.n_tokens - 1)
        check_floating(nats, "nats")
        check_same_shape("nats", nats, "tokens", tokens)
        return nats.double().sum().item() / len(self.decode(tokens))


def _merge(tokens: Tensor, first: int, second: int, new: int) -> Tensor:
    """The tokens with ``new`` for each pair, from the left on."""
    hit = (tokens[:-1] == first) & (tokens[1:] == second)
    if first == second:  # in a run of them, every other one: aaa is (aa) a
        at = torch.arange(len(hit))
        ends = torch.where(hit, -1, at).cummax(0).values  # the last place before that is no hit
        hit = hit & ((at - ends) % 2 == 1)
    merged = tokens.clone()
    merged[:-1][hit] = new
    keep = torch.ones_like(tokens, dtype=torch.bool)
    keep[1:] = ~hit
    return merged[keep]
