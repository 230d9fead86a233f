"""What a process that is to be forked has imported."""

import sklearn.datasets

import dgm_course.plots
import dgm_course.runs.train
from dgm_course.runs.recipes import iwae, vae

__all__ = ["dgm_course", "iwae", "sklearn", "vae"]
