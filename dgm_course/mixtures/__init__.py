"""Mean field by coordinate ascent, and Gaussian mixtures by EM and by variational Bayes."""

from dgm_course.mixtures.gaussian_mixture import GaussianMixture
from dgm_course.mixtures.mean_field import MeanFieldGaussian
from dgm_course.mixtures.variational_mixture import VariationalGaussianMixture

__all__ = ["GaussianMixture", "MeanFieldGaussian", "VariationalGaussianMixture"]
