"""Data for the lectures: offline first, seeded, checked."""

from dgm_course.data.brackets import Brackets
from dgm_course.data.byte_pairs import BytePairs
from dgm_course.data.captions import (
    CAPTIONS,
    HELD_OUT,
    WORDS,
    Captioned,
    CaptionJudge,
    captioned_digits,
    decode_caption,
    encode_caption,
)
from dgm_course.data.images import Images, binarise, digits
from dgm_course.data.mnist import data_folder, fetch, mnist
from dgm_course.data.series import ArProcess, Chirps, LaggedProcess, MarkovChain
from dgm_course.data.shapes import (
    FACTOR_RANGES,
    SHAPE_NAMES,
    Shapes,
    all_shapes,
    measured_factors,
    render,
    shapes,
)
from dgm_course.data.simulators import Epidemic
from dgm_course.data.stored import results
from dgm_course.data.text import (
    compressed_nats,
    ngram_nats,
    pydoc_text,
    to_text,
    to_tokens,
    windows,
)
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
    "CAPTIONS",
    "ENERGIES",
    "FACTOR_RANGES",
    "HELD_OUT",
    "SHAPE_NAMES",
    "WORDS",
    "ArProcess",
    "Brackets",
    "BytePairs",
    "CaptionJudge",
    "Captioned",
    "Chirps",
    "Epidemic",
    "Images",
    "LaggedProcess",
    "MarkovChain",
    "Shapes",
    "all_shapes",
    "binarise",
    "captioned_digits",
    "checkerboard",
    "compressed_nats",
    "correlated_gaussian",
    "data_folder",
    "decode_caption",
    "digits",
    "eight_gaussians",
    "eight_gaussians_density",
    "encode_caption",
    "energy",
    "fetch",
    "gaussian_grid",
    "gaussian_grid_density",
    "log_normaliser",
    "measured_factors",
    "mnist",
    "ngram_nats",
    "pinwheel",
    "pydoc_text",
    "render",
    "results",
    "shapes",
    "spirals",
    "to_text",
    "to_tokens",
    "two_moons",
    "two_moons_log_prob",
    "windows",
]
