"""Ratios of densities that nobody can write down, from samples, by classification."""

from dgm_course.density_ratio.against_exact import (
    GridPosterior,
    TotalVariation,
    entropy,
    gaussian_log_ratio,
    grid_posterior,
    total_variation,
)
from dgm_course.density_ratio.classifiers import MLP, Logistic, Network
from dgm_course.density_ratio.discriminator import gan_value
from dgm_course.density_ratio.implicit import AVB, JointAVB, tempered
from dgm_course.density_ratio.pairs import ImplicitPosterior, PairCritic
from dgm_course.density_ratio.ratio import (
    ContradictionWarning,
    DegenerateSupportWarning,
    DensityRatio,
)
from dgm_course.density_ratio.uses import (
    TwoSampleTest,
    kl_to_prior,
    total_correlation,
    two_sample_test,
)
from dgm_course.losses import (
    brier_loss,
    generator_loss,
    hinge_loss,
    log_loss,
    optimal_discriminator,
)

__all__ = [
    "AVB",
    "MLP",
    "ContradictionWarning",
    "DegenerateSupportWarning",
    "DensityRatio",
    "GridPosterior",
    "ImplicitPosterior",
    "JointAVB",
    "Logistic",
    "Network",
    "PairCritic",
    "TotalVariation",
    "TwoSampleTest",
    "brier_loss",
    "entropy",
    "gan_value",
    "gaussian_log_ratio",
    "generator_loss",
    "grid_posterior",
    "hinge_loss",
    "kl_to_prior",
    "log_loss",
    "optimal_discriminator",
    "tempered",
    "total_correlation",
    "total_variation",
    "two_sample_test",
]
