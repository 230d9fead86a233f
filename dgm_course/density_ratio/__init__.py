"""Ratios of densities that nobody can write down, from samples, by classification."""

from dgm_course.density_ratio.classifiers import MLP, Logistic, Network
from dgm_course.density_ratio.discriminator import gan_value
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
    "MLP",
    "ContradictionWarning",
    "DegenerateSupportWarning",
    "DensityRatio",
    "Logistic",
    "Network",
    "TwoSampleTest",
    "brier_loss",
    "gan_value",
    "generator_loss",
    "hinge_loss",
    "kl_to_prior",
    "log_loss",
    "optimal_discriminator",
    "total_correlation",
    "two_sample_test",
]
