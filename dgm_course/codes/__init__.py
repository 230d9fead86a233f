"""Discrete codes: vectors become words of a dictionary, and a second model speaks them."""

from dgm_course.codes.quantizer import QuantizerTerms, VectorQuantizer
from dgm_course.codes.vqvae import VQVAE, VQTerms, all_grids

__all__ = [
    "VQVAE",
    "QuantizerTerms",
    "VQTerms",
    "VectorQuantizer",
    "all_grids",
]
