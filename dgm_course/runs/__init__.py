"""The papers' scale: recipes of the lectures' models, trained by one process or by many.

What a recipe is stands in `recipe`, the loop in `train`, what survives a crash in `checkpoints`,
and how processes share a batch in `ranks`.
"""
