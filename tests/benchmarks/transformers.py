"""Lecture 14: GPT's training step beside torch's own layers, and its cache beside full passes."""

from __future__ import annotations

import math
import time
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, pad

from dgm_course.sequences import GPT, KeyValueCache
from tests.benchmarks.harness import Row, in_turn

V = 256  # bytes


class Encoder(nn.Module):
    """The same function in torch's layers."""

    def __init__(self, context: int, n_layers: int, n_heads: int, width: int) -> None:
        super().__init__()
        activation = partial(gelu, approximate="tanh")
        layer = nn.TransformerEncoderLayer(
            width, n_heads, 4 * width, 0.0, activation, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, n_layers, nn.LayerNorm(width), False)
        self.tokens, self.out = nn.Embedding(V + 1, width), nn.Linear(width, V)
        self.positions = nn.Parameter(torch.randn(context, width))
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(context))

    def log_prob(self, tokens: Tensor) -> Tensor:
        read = pad(tokens, (1, -1), value=V)
        h = self.layers(self.tokens(read) + self.positions, mask=self.mask, is_causal=True)
        logits = self.out(h).flatten(0, 1)
        return -cross_entropy(logits, tokens.flatten(), reduction="none").view(tokens.shape).sum(1)


def training_steps() -> list[Row]:
    """Sixteen sequences of 256 bytes, Adam's update included."""
    rows = []
    for n_layers, n_heads, width in ((4, 4, 128), (2, 2, 64)):
        torch.manual_seed(0)
        size = (n_layers, n_heads, width)
        models = {"ours": GPT(V, 256, *size), "theirs": Encoder(256, *size)}
        steps = {name: partial(step, m, adam(m)) for name, m in models.items()}
        times = in_turn(steps, rounds=10 if width == 128 else 30, of_all=min)
        what = f"GPT: a training step, {n_layers} x {width}, 16 x 256 tokens"
        rows.append(Row(what, times["ours"], times["theirs"], "nn.TransformerEncoder", 1.05))
    return rows


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-4)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    tokens = torch.randint(V, (16, 256))
    optimizer.zero_grad()
    (-model.log_prob(tokens)).mean().backward()
    optimizer.step()


CASES = ((1, 512, 4, 4, 128, 1 / 8), (16, 256, 2, 2, 64, 1 / 15))  # n, length, the model, a limit


@torch.no_grad()
def sampling() -> list[Row]:
    """Keys and values kept, beside a full pass for every token."""
    rows = []
    for n, length, *size, limit in CASES:
        torch.manual_seed(0)
        model = GPT(V, length, *size)
        times = {"cached": [], "full": []}
        for _ in range(3):
            for method, seconds in times.items():
                for _ in range(3 if method == "cached" else 1):
                    start = time.perf_counter()
                    model.sample(n, length, method=method)
                    seconds.append(time.perf_counter() - start)
        what = f"GPT: {n} x {length} tokens, {size[0]} x {size[2]}, keys and values kept"
        rows.append(Row(what, min(times["cached"]), min(times["full"]), "full passes", limit))
    return rows


@torch.no_grad()
def late_tokens() -> list[Row]:
    """What the last 64 tokens cost beside the first 64.

    The limit is for one sequence. Of sixteen the cache is 4 MB at the end, and what a token then
    takes is the time in which 4 MB are read: a matter of the machine, which is only shown.
    """
    rows = []
    for n, length, *size, _ in CASES:
        torch.manual_seed(0)
        model = GPT(V, length, *size)
        read = model.read(torch.randint(V, (n, length)))
        seconds = [math.inf] * length  # the least of each token's
        for _ in range(8):
            past = KeyValueCache(model, n, length)
            for t in range(length):
                start = time.perf_counter()
                past(read[:, t : t + 1])
                seconds[t] = min(seconds[t], time.perf_counter() - start)
        first, last = sum(seconds[:64]), sum(seconds[-64:])
        what = f"the same: the last 64 of {n} x {length} tokens"
        limit = 1.5 if n == 1 else None
        rows.append(Row(what, last, first, "the first 64", limit))
    return rows


SECTIONS = (training_steps, sampling, late_tokens)
