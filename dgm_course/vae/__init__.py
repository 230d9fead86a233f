"""Variational autoencoders: a latent-variable model and an encoder, trained by the ELBO."""

from dgm_course.vae.autoregressive_decoder import AutoregressiveVAE
from dgm_course.vae.collapse import active_units
from dgm_course.vae.gaussian_vae import (
    ElboTerms,
    GaussianVAE,
    LatentVariableModel,
    kl_per_dimension,
)
from dgm_course.vae.linear import LinearVAE
from dgm_course.vae.objectives import (
    LogProbability,
    annealed_beta,
    beta_elbo,
    free_bits,
    importance_weighted_bound,
    log_prob_by_importance,
    log_prob_by_quadrature,
)

__all__ = [
    "AutoregressiveVAE",
    "ElboTerms",
    "GaussianVAE",
    "LatentVariableModel",
    "LinearVAE",
    "LogProbability",
    "active_units",
    "annealed_beta",
    "beta_elbo",
    "free_bits",
    "importance_weighted_bound",
    "kl_per_dimension",
    "log_prob_by_importance",
    "log_prob_by_quadrature",
]
