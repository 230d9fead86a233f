"""What a process that is to be forked has imported: nine tenths of a short run's time."""

import sklearn.datasets
import torch._dynamo  # which optimisers import
import torch.nn.parallel

import dgm_course.plots
import dgm_course.runs.train
from dgm_course.runs.recipe import read_recipe, recipe_names

__all__ = ["dgm_course", "sklearn", "torch"]

for name in recipe_names():
    read_recipe(name)
