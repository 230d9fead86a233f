"""One file a recipe, named as ``dgm train`` calls it; each has a ``RECIPE``."""
