"""Sequence models: p(x) = Π p(x_t | x_<t), read in one pass, written step by step."""

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
