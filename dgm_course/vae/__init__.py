"""Variational autoencoders: a latent-variable model and an encoder, trained by the ELBO."""

from dgm_course.vae.aggregated_posterior import AggregatedPosterior
from dgm_course.vae.gaussian_vae import (
    ElboTerms,
    GaussianVAE,
    LatentVariableModel,
    kl_per_dimension,
)
from dgm_course.vae.surgery import (
    KLDecomposition,
    decompose_kl,
    energy_plus_entropy,
    evidence_minus_posterior_kl,
    reconstruction_minus_kl,
)

__all__ = [
    "AggregatedPosterior",
    "ElboTerms",
    "GaussianVAE",
    "KLDecomposition",
    "LatentVariableModel",
    "decompose_kl",
    "energy_plus_entropy",
    "evidence_minus_posterior_kl",
    "kl_per_dimension",
    "reconstruction_minus_kl",
]
