"""Sequence models: p(x) = Π p(x_t | x_<t), read in one pass, written step by step.

The contract of all models of tokens 0 … V − 1, any T from 1 on:

- ``forward(tokens (N, T)) -> logits (N, V, T)``: those at t are of token t given the tokens before
  it, for the start is inside the model;
- ``log_prob_steps(tokens) -> (N, T)`` and ``log_prob(tokens) -> (N,)``, in nats;
- ``sample(n, length, given=None, *, method="cached" | "full", temperature=1.0, top_k=None,
  generator=None) -> (n, length)``, the same tokens by every method, as the random numbers are.
"""

from dgm_course.sequences.dalle import DALLE, ImageTokens, TextAndImage
from dgm_course.sequences.distillation import (
    DistillationTerms,
    distillation_kl,
    linear_student_optimum,
)
from dgm_course.sequences.gpt import GPT
from dgm_course.sequences.sparse_attention import (
    fixed_masks,
    reach,
    score_entries,
    sparse_attention,
    strided_masks,
)
from dgm_course.sequences.sparse_transformer import SparseTransformer
from dgm_course.sequences.transformer import KeyValueCache, Transformer, causal_attention
from dgm_course.sequences.wavenet import WaveNet

__all__ = [
    "DALLE",
    "GPT",
    "DistillationTerms",
    "ImageTokens",
    "KeyValueCache",
    "SparseTransformer",
    "TextAndImage",
    "Transformer",
    "WaveNet",
    "causal_attention",
    "distillation_kl",
    "fixed_masks",
    "linear_student_optimum",
    "reach",
    "score_entries",
    "sparse_attention",
    "strided_masks",
]
