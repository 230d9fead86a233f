"""The lectures' exercises: for each answer's name, a right solution, typical wrong ones,
and, where a right one was once refused, a list of other right ones.

One module a lecture, named as its notebook without the number, with one table EXERCISES.
"""

from importlib import import_module


def exercises(stem: str) -> dict[str, tuple[str, list[str]] | tuple[str, list[str], list[str]]]:
    """The table of the notebook NN_topic."""
    return import_module(f"tests.exercises.{stem.partition('_')[2]}").EXERCISES
