"""Transformers: the stack that all of them share. What tells them apart is passed in or added.

A transformer is a subclass of `Transformer`. It gives the attention of each layer, and says what
an input gets added for its position. An attention is any callable ``(q, k, v) -> mean of v`` of
``(N, H, T, D)`` and twice ``(N, H, S, D)``, S ≥ T: **the T queries stand at the last T of the S
positions.** So one rule serves a whole sequence (S = T), one more token on top of what was read
before (T = 1), and a chunk of any other length; `causal_attention` is the dense one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, pad, scaled_dot_product_attention

from dgm_course.checks import check_count, check_integers, check_sequences
from dgm_course.data.toy import Seed
from dgm_course.sequences.sampling import (
    check_request,
    check_sharpness,
    draw_tokens,
)

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
Method = Literal["cached", "full"]


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """out_t = Σ_s≤t a_ts v_s, a_t = softmax_s≤t(q_t · k_s / √D), for each of H heads.

    Source: Vaswani et al. 2017, equation 1, https://arxiv.org/abs/1706.03762.

    Shapes: q ``(N, H, T, D)``, of the last T of S positions; k and v ``(N, H, S, D)``; out as q.

    Raises:
        ValueError: for more queries than keys.

    Example:
        >>> v = torch.arange(4.0).view(1, 1, 4, 1)  # of equal scores all s ≤ t weigh the same
        >>> causal_attention(torch.zeros(1, 1, 2, 1), torch.zeros(1, 1, 4, 1), v).flatten()
        tensor([1.0000, 1.5000])
    """
    n_queries, n_keys = q.shape[2], k.shape[2]
    if n_queries > n_keys:
        raise ValueError(f"q must have at most as many positions as k, {n_keys}, got {n_queries}")
    if n_queries in (1, n_keys):  # the last position sees all
        return scaled_dot_product_attention(q, k, v, is_causal=n_queries > 1)
    # is_causal would let the first query see the first key alone, wherever that query stands.
    sees = torch.ones(n_queries, n_keys, dtype=torch.bool, device=q.device)
    return scaled_dot_product_attention(q, k, v, sees.tril(n_keys - n_queries))


class Transformer(nn.Module, ABC):
    """p(x) = Π p(x_t | x_<t) of tokens; x_t−1 meets those before it in L layers.

    A layer adds to each h_t first W a_t, where a_t is attention's mean over positions s ≤ t, then a
    network of one hidden layer, 4 × width; both read h_t normalised. A start token is read before
    the first one, so that this has a probability, too.

    Source: Vaswani et al. 2017, section 3, https://arxiv.org/abs/1706.03762, its decoder without
    the encoder; what a layer reads is normalised first: Radford et al. 2019, as for `GPT`.

    Args:
        n_tokens: size V of the vocabulary 0 … V − 1; V itself is the start token.
        context: the most tokens of a sequence.
        n_heads: heads H of a layer, a divisor of width.
        width: numbers per position.
        attentions: the attention of each layer, as the module says.

    Shapes: integers ``(N, T)``, T ≤ context, to logits ``(N, V, T)``.

    Raises:
        ValueError: for arguments outside these bounds, and for tokens as `GPT` does.
    """

    def __init__(
        self, n_tokens: int, context: int, n_heads: int, width: int, attentions: Sequence[Attention]
    ) -> None:
        super().__init__()
        self.n_tokens = check_count(n_tokens, "n_tokens", 2)
        self.context = check_count(context, "context")
        self.n_heads = n_heads = check_count(n_heads, "n_heads")
        self.width = width = check_count(width, "width")
        if width % n_heads:
            raise ValueError(f"n_heads must divide width = {width}, got {n_heads}")
        self.tokens = nn.Embedding(self.n_tokens + 1, width)
        n_parts = 2 * check_count(len(attentions), "n_layers")
        share = n_parts**-0.5  # all that is added has variance 1, about
        self.blocks = nn.ModuleList(Block(width, n_heads, a, share) for a in attentions)
        self.norm = nn.LayerNorm(width)
        self.out = Affine(width, self.n_tokens, share=0.0)  # starts as uniform

    @abstractmethod
    def placed(self, h: Tensor, start: int) -> Tensor:
        """Inputs ``(N, T, width)`` with their positions, start … start + T − 1, added."""

    def extra_repr(self) -> str:
        return f"n_tokens={self.n_tokens}, context={self.context}, n_heads={self.n_heads}"

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``(N, V, T)`` of x_t given x_<t, from tokens ``(N, T)``."""
        self.check(tokens, "tokens")
        return self.logits_of(self.read(tokens)[:, :-1])

    def log_prob_steps(self, tokens: Tensor) -> Tensor:
        """log p(x_t | x_<t) in nats, ``(N, T)``."""
        rows = self(tokens).transpose(1, 2).flatten(0, 1)  # (N T, V), as they lie in memory
        return -cross_entropy(rows, tokens.flatten().long(), reduction="none").view(tokens.shape)

    def log_prob(self, tokens: Tensor) -> Tensor:
        """log p(x) in nats, ``(N,)``."""
        return self.log_prob_steps(tokens).sum(1)

    def read(self, tokens: Tensor) -> Tensor:
        """The start token, then the tokens: ``(N, T)`` to ``(N, T + 1)``, int64."""
        return pad(tokens.long(), (1, 0), value=self.n_tokens)

    def logits_of(self, read: Tensor, past: KeyValueCache | None = None) -> Tensor:
        """Logits of what follows each token read, ``(N, T)`` to ``(N, V, T)``, unchecked."""
        return self.logits_of_embedded(self.tokens(read), past)

    def logits_of_embedded(self, h: Tensor, past: KeyValueCache | None = None) -> Tensor:
        """The same of rows of the embedding, or mixtures of them, ``(N, T, width)``."""
        n, t, _ = h.shape
        start = 0 if past is None else past.n_read
        h = self.placed(h, start).flatten(0, 1)  # (N T, width)
        for i, block in enumerate(self.blocks):
            h = block(h, n, None if past is None else past.layer(i, start + t))
        if past is not None:
            past.n_read += t
        return self.out(self.norm(h)).view(n, t, -1).transpose(1, 2)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        length: int,
        given: Tensor | None = None,
        *,
        method: Method = "cached",
        temperature: float = 1.0,
        top_k: int | None = None,
        generator: Seed | None = None,
    ) -> Tensor:
        """n draws from p(x), ``(n, length)``, one token after the other.

        Args:
            n: number of sequences.
            length: their length T, the given tokens included.
            given: their first tokens ``(n, P)``, P ≤ T, if they are to be gone on with.
            method: "cached" keeps the keys and values of what was read and computes one position
                a token; "full" computes all of them. Random numbers are the same.
            temperature: logits are divided by it; below 1 favours likely tokens.
            top_k: draw from the k likeliest tokens alone, and those as likely as the k-th.
            generator: a seed or a generator; None takes torch's own.

        Raises:
            ValueError: for n or length below 1, length above the context, an unknown method, given
                of another n, longer than length, or not tokens; for a temperature that is not
                positive, top_k outside 1 … V, or logits that are NaN.
        """
        if given is not None:
            self.check(given, "given")
        n, length, generator = check_request(n, length, given, method, get_args(Method), generator)
        self._check_length(length, "length")
        check_sharpness(temperature, top_k, self.n_tokens)
        n_given = 0 if given is None else given.shape[1]
        read = torch.full((n, length + 1), self.n_tokens, device=self.out.weight.device)
        if given is not None:
            read[:, 1 : n_given + 1] = given
        past = KeyValueCache(self, n, length) if method == "cached" else None
        for t in range(n_given, length):
            logits = self.logits_of(read[:, past.n_read if past else 0 : t + 1], past)
            read[:, t + 1] = draw_tokens(logits[..., -1], temperature, top_k, generator)
        return read[:, 1:]

    def check(self, tokens: Tensor, name: str) -> None:
        """Raise a ValueError unless tokens is a batch ``(N, T)``, T from 1 to the context."""
        check_sequences(tokens, name)
        self._check_length(tokens.shape[1], f"length of {name}")
        check_integers(tokens, 0, self.n_tokens - 1, name)

    def _check_length(self, length: int, name: str) -> None:
        if length > self.context:
            raise ValueError(f"{name} must be at most the context, {self.context}, got {length}")


class Block(nn.Module):
    """h + W · attention(h), then h + network(h), both of h normalised; a row is a position."""

    def __init__(self, width: int, n_heads: int, attention: Attention, share: float) -> None:
        super().__init__()
        self.n_heads, self.attention = n_heads, attention
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.mix = Affine(width, 3 * width), Affine(width, width, share)
        self.up, self.down = Affine(width, 4 * width), Affine(4 * width, width, share)

    def forward(self, h: Tensor, n: int, past: Tensor | None) -> Tensor:
        """``(N T, width)`` to the same; past ``(2, N, H, S, D)`` gets its last T places here."""
        t = len(h) // n
        qkv = self.qkv(self.norm_1(h)).view(n, t, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind()  # (N, H, T, D)
        if past is not None:
            past.narrow(3, past.shape[3] - t, t).copy_(qkv[1:])
            k, v = past.unbind()
        a = self.attention(q, k, v).transpose(1, 2).reshape(h.shape)
        h = h + self.mix(a)
        return h + self.down(gelu(self.up(self.norm_2(h)), approximate="tanh"))


class Affine(nn.Module):
    """x W + b of rows x ``(M, n_in)``; W ``(n_in, n_out)`` lies as a product of few rows likes it.

    Of numbers of variance 1 it starts by making such of variance share², without an offset.
    """

    def __init__(self, n_in: int, n_out: int, share: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_in, n_out) * share * n_in**-0.5)
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight)


class KeyValueCache:
    """Keys and values of what a `Transformer` has read, so that it need not read it again.

    Called on the next tokens, in chunks of any length and the start token first, it gives the
    logits of what follows each of them.

    Args:
        model: the transformer.
        n: number of sequences N.
        length: the most tokens that will be read of each, at most the context.

    Shapes: integers ``(N, T)`` to logits ``(N, V, T)``.

    Raises:
        ValueError: for another N, more tokens than length, or other tokens than 0 … V, V the start.

    Example:
        >>> from dgm_course.sequences import GPT
        >>> model, tokens = GPT(5, 16, 2, 2, 8), torch.zeros(3, 9, dtype=torch.long)
        >>> _ = torch.nn.init.normal_(model.out.weight)
        >>> past = KeyValueCache(model, n=3, length=9)
        >>> first, more = past(model.read(tokens)[:, :4]), past(model.read(tokens)[:, 4:9])
        >>> torch.allclose(torch.cat([first, more], 2), model(tokens), atol=1e-5)
        True
    """

    def __init__(self, model: Transformer, n: int, length: int) -> None:
        self.model, self.n_read = model, 0
        self.n, self.length = check_count(n, "n"), check_count(length, "length", most=model.context)
        shape = (2, n, model.n_heads, length, model.width // model.n_heads)
        self.layers = [model.out.weight.new_empty(shape) for _ in model.blocks]

    @torch.no_grad()
    def __call__(self, read: Tensor) -> Tensor:
        left = self.length - self.n_read
        check_integers(read, 0, self.model.n_tokens, "read")
        if read.ndim != 2 or len(read) != self.n or not 1 <= read.shape[1] <= left:
            shape = f"({self.n}, T), T from 1 to the {left} left of length = {self.length}"
            raise ValueError(f"read must have shape {shape}, got {tuple(read.shape)}")
        return self.model.logits_of(read.long(), self)

    def layer(self, i: int, n_read: int) -> Tensor:
        """Layer i's first n_read keys and values, ``(2, N, H, n_read, D)``."""
        return self.layers[i].narrow(3, 0, n_read)
