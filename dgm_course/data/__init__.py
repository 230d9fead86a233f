"""Data for the lectures: offline first, seeded, checked."""

from dgm_course.data.images import Images, binarise, digits
from dgm_course.data.mnist import data_folder, fetch, mnist
from dgm_course.data.series import ArProcess, Chirps, LaggedProcess, MarkovChain
from dgm_course.data.stored import results
from dgm_course.data.toy import (
    ENERGIES,
    checkerboard,
    correlated_gaussian,
    eight_gaussians,
    eight_gaussians_density,
    energy,
    gaussian_grid,
    gaussian_grid_density,
    log_normaliser,
    pinwheel,
    spirals,
    two_moons,
    two_moons_log_prob,
)

__all__ = [
    "ENERGIES",
    "ArProcess",
    "Chirps",
    "Images",
    "LaggedProcess",
    "MarkovChain",
    "binarise",
    "checkerboard",
    "correlated_gaussian",
    "data_folder",
    "digits",
    "eight_gaussians",
    "eight_gaussians_density",
    "energy",
    "fetch",
    "gaussian_grid",
    "gaussian_grid_density",
    "log_normaliser",
    "mnist",
    "pinwheel",
    "results",
    "spirals",
    "two_moons",
    "two_moons_log_prob",
]
