"""Variational autoencoders: a latent-variable model and an encoder, trained by the ELBO."""

from dgm_course.vae.aggregated_posterior import AggregatedPosterior
from dgm_course.vae.autoregressive_decoder import AutoregressiveVAE
from dgm_course.vae.collapse import active_units, activity
from dgm_course.vae.flow_posterior import FlowPosterior
from dgm_course.vae.four_gaps import FourGaps, best_prior, four_gaps
from dgm_course.vae.gaps import Gaps, gaussian_elbo, split_gap
from dgm_course.vae.gaussian_vae import GaussianVAE
from dgm_course.vae.gradients import (
    binary_codes,
    gradient_by_enumeration,
    reparameterised,
    score_function,
    signal_to_noise,
)
from dgm_course.vae.hierarchical import HierarchicalVAE
from dgm_course.vae.latent_variable_model import (
    ElboTerms,
    ExplicitPosterior,
    LatentVariableModel,
    Posterior,
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
from dgm_course.vae.pixel_vae import PixelVAE
from dgm_course.vae.pushed import PushedVAE
from dgm_course.vae.surgery import (
    KLDecomposition,
    KLTerms,
    decompose_kl,
    energy_plus_entropy,
    evidence_minus_posterior_kl,
    kl_terms,
    reconstruction_minus_kl,
)
from dgm_course.vae.toy_posteriors import ToyModel, elbo_by_quadrature

__all__ = [
    "AggregatedPosterior",
    "AutoregressiveVAE",
    "ElboTerms",
    "ExplicitPosterior",
    "FlowPosterior",
    "FourGaps",
    "Gaps",
    "GaussianVAE",
    "HierarchicalVAE",
    "KLDecomposition",
    "KLTerms",
    "LatentVariableModel",
    "LinearVAE",
    "LogProbability",
    "PixelVAE",
    "Posterior",
    "PushedVAE",
    "ToyModel",
    "active_units",
    "activity",
    "annealed_beta",
    "best_prior",
    "beta_elbo",
    "binary_codes",
    "decompose_kl",
    "elbo_by_quadrature",
    "energy_plus_entropy",
    "evidence_minus_posterior_kl",
    "four_gaps",
    "free_bits",
    "gaussian_elbo",
    "gradient_by_enumeration",
    "importance_weighted_bound",
    "kl_per_dimension",
    "kl_terms",
    "log_prob_by_importance",
    "log_prob_by_quadrature",
    "reconstruction_minus_kl",
    "reparameterised",
    "score_function",
    "signal_to_noise",
    "split_gap",
]
