"""Diffusion: noising, denoisers exact and learned, the bound, samplers, the flow's likelihood."""

from dgm_course.diffusion.bound import (
    BoundTerms,
    level_log_prob,
    noise_weights,
    optimal_variances,
    step_variances,
    variational_bound,
)
from dgm_course.diffusion.denoiser import ConvNetwork, Denoiser, DenseNetwork
from dgm_course.diffusion.exact import MixtureDenoiser, gaussian_bound, gaussian_variance
from dgm_course.diffusion.likelihood import FlowLikelihood, log_prob_ode
from dgm_course.diffusion.models import Clamped, DiffusionModel, Guided, Prediction, ScoreModel
from dgm_course.diffusion.samplers import ancestral, ddim, ode
from dgm_course.diffusion.schedules import (
    CosineSchedule,
    ExplodingSchedule,
    LinearSchedule,
    Schedule,
    posterior,
    q_sample,
    step,
    time_grid,
)

__all__ = [
    "BoundTerms",
    "Clamped",
    "ConvNetwork",
    "CosineSchedule",
    "Denoiser",
    "DenseNetwork",
    "DiffusionModel",
    "ExplodingSchedule",
    "FlowLikelihood",
    "Guided",
    "LinearSchedule",
    "MixtureDenoiser",
    "Prediction",
    "Schedule",
    "ScoreModel",
    "ancestral",
    "ddim",
    "gaussian_bound",
    "gaussian_variance",
    "level_log_prob",
    "log_prob_ode",
    "noise_weights",
    "ode",
    "optimal_variances",
    "posterior",
    "q_sample",
    "step",
    "step_variances",
    "time_grid",
    "variational_bound",
]
