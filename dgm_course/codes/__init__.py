"""Discrete codes: vectors become words of a dictionary, and a second model speaks them."""

from dgm_course.codes.code_model import CodeModel, Prior, all_grids
from dgm_course.codes.dvae import DiscreteVAE, DVAETerms
from dgm_course.codes.gumbel import GumbelSoftmax, expectation_by_enumeration, relaxed_gradients
from dgm_course.codes.quantizer import QuantizerTerms, VectorQuantizer
from dgm_course.codes.tokens import ModelTokens, PatchTokens
from dgm_course.codes.vqvae import VQVAE, VQTerms
from dgm_course.codes.vqvae2 import VQVAE2, Codes

__all__ = [
    "VQVAE",
    "VQVAE2",
    "CodeModel",
    "Codes",
    "DVAETerms",
    "DiscreteVAE",
    "GumbelSoftmax",
    "ModelTokens",
    "PatchTokens",
    "Prior",
    "QuantizerTerms",
    "VQTerms",
    "VectorQuantizer",
    "all_grids",
    "expectation_by_enumeration",
    "relaxed_gradients",
]
