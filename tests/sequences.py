"""The table of models of tokens, over which `test_sequences.py` runs the contract of the family."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from dgm_course.sequences import GPT, SparseTransformer, WaveNet

# name -> constructor, from the size of the vocabulary. Each takes sequences of up to 12 tokens.
TOKEN_MODELS: dict[str, Callable[[int], nn.Module]] = {
    "wavenet": lambda v: WaveNet(2, 5, levels=v),
    "wavenet-kernel-3-two-cycles": lambda v: WaveNet(1, 5, kernel=3, levels=v, n_cycles=2),
    "gpt": lambda v: GPT(v, 12, n_layers=2, n_heads=2, width=8),
    "gpt-one-layer": lambda v: GPT(v, 12, n_layers=1, n_heads=4, width=8),
    "gpt-one-head": lambda v: GPT(v, 12, n_layers=3, n_heads=1, width=6),
    "gpt-without-positions": lambda v: GPT(v, 12, n_layers=2, n_heads=2, width=8, positions=False),
    "sparse-strided": lambda v: SparseTransformer(v, 12, n_layers=2, n_heads=2, width=8),
    "sparse-fixed": lambda v: SparseTransformer(v, 12, 2, 2, 8, "fixed"),
    "sparse-fixed-blocks-of-5-four-heads": lambda v: SparseTransformer(v, 12, 2, 4, 8, "fixed", 5),
}
