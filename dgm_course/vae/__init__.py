"""Variational autoencoders, and what the terms of their objective are made of."""

from dgm_course.vae.aggregated_posterior import AggregatedPosterior
from dgm_course.vae.surgery import (
    KLDecomposition,
    decompose_kl,
    energy_plus_entropy,
    evidence_minus_posterior_kl,
    reconstruction_minus_kl,
)

__all__ = [
    "AggregatedPosterior",
    "KLDecomposition",
    "decompose_kl",
    "energy_plus_entropy",
    "evidence_minus_posterior_kl",
    "reconstruction_minus_kl",
]
