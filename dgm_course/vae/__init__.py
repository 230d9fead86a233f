"""Variational autoencoders: a latent-variable model and an encoder, trained by the ELBO."""

from dgm_course.vae.gaussian_vae import (
    ElboTerms,
    GaussianVAE,
    LatentVariableModel,
    kl_per_dimension,
)

__all__ = [
    "ElboTerms",
    "GaussianVAE",
    "LatentVariableModel",
    "kl_per_dimension",
]
