"""Discrete codes: vectors become words of a dictionary, and a second model speaks them."""

from dgm_course.codes.code_model import CodeModel, Prior, all_grids
from dgm_course.codes.quantizer import QuantizerTerms, VectorQuantizer
from dgm_course.codes.vqvae import VQVAE, VQTerms

__all__ = [
    "VQVAE",
    "CodeModel",
    "Prior",
    "QuantizerTerms",
    "VQTerms",
    "VectorQuantizer",
    "all_grids",
]
