"""A small assignment without PyTorch, in the form of the real ones: source, release, answers.

Three tasks of 8 points, a written answer of 2. It exercises what crosses between tests and
answers: arrays, numbers, handles and call-backs.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

NAME = "light"
SETUP = """import math

import numpy as np

from dgm_course.grading.answers import Answers
from dgm_course.grading.checks import expect, expect_array, expect_close, expect_number

call = Answers(globals())
"""
SOFTMAX = '''def softmax(x):
    """exp(x) over its sum along the last axis."""
    ### BEGIN SOLUTION
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
    ### END SOLUTION
'''
TEST_SOFTMAX = """# 1 · softmax, 3 points
def test_softmax(shape, level):
    x = np.random.default_rng(0).normal(level, 1, shape)
    p = expect_array(call("softmax", x), shape, "softmax(x)")
    expect(np.allclose(p.sum(-1), 1), "each row of softmax(x) to sum to 1", p.sum(-1).ravel()[:3])
    expect_close(np.log(p), x - np.log(np.exp(x - level).sum(-1, keepdims=True)) - level, "log p")


test_softmax((3, 4), 0)
### BEGIN HIDDEN TESTS
test_softmax((2, 3, 5), 800)
### END HIDDEN TESTS
print("✓ 1: probabilities")
"""
POLYNOMIAL = '''class Polynomial:
    """p(x) = c[0] + c[1] x + c[2] x² + …, as an object that is called with x."""

    ### BEGIN SOLUTION
    def __init__(self, coefficients):
        self.coefficients = coefficients

    def __call__(self, x):
        return sum(c * x**k for k, c in enumerate(self.coefficients))

    ### END SOLUTION
'''
TEST_POLYNOMIAL = """# 2 · a polynomial, 2 points
def test_polynomial(n):
    c, x = np.random.default_rng(0).normal(size=(2, n))
    p = call("Polynomial", c)
    expect_close(call(p, x), np.polynomial.polynomial.polyval(x, c), "p(x)")


test_polynomial(2)
### BEGIN HIDDEN TESTS
test_polynomial(5)
### END HIDDEN TESTS
print("✓ 2: its values")
"""
BISECT = '''def bisect(f, low, high):
    """Where the increasing f crosses 0 between low and high, to 1e-6."""
    ### BEGIN SOLUTION
    while high - low > 1e-7:
        middle = (low + high) / 2
        low, high = (middle, high) if f(middle) < 0 else (low, middle)
    return low
    ### END SOLUTION
'''
TEST_BISECT = """# 3 · bisection, 3 points
def test_bisect(root):
    def f(x):
        x = expect_number(x, "the argument of f")
        expect(-2 <= x <= 2, "f to be called between low and high", f"a call at {x}")
        return math.expm1(x - root)

    x = expect_number(call("bisect", f, -2.0, 2.0), "bisect(f, -2, 2)")
    expect(abs(x - root) < 1e-5, f"bisect to find {root:.6f}", f"{x:.6f}")


test_bisect(np.random.default_rng(0).uniform(-1.5, 1.5))
### BEGIN HIDDEN TESTS
test_bisect(1.9)
### END HIDDEN TESTS
print("✓ 3: the root")
"""
WRITTEN = """### BEGIN SOLUTION
Each step halves the interval, so about log2(4 / 1e-6) = 22 steps.
### END SOLUTION
### BEGIN MARK SCHEME
One point for the halving, one for the number.
### END MARK SCHEME
"""
RIGHT = {
    "answer-1": SOFTMAX,
    "answer-2": POLYNOMIAL,
    "answer-3": BISECT,
    "answer-4": "It halves the interval at each step: 22 steps.",
}
BLOCK = r"^ *### BEGIN {0}\n(?:.*\n)*?^ *### END {0}\n?"


def cell(kind: str, source: str, grade_id: str = "", **marks: Any) -> dict[str, Any]:
    """A notebook's cell; with a grade id, nbgrader's metadata."""
    flags = {"grade": False, "solution": False, "locked": False, "task": False} | marks
    nbgrader = {"grade_id": grade_id, "schema_version": 3, **flags}
    made: dict[str, Any] = {"cell_type": kind, "metadata": {}, "source": source.rstrip("\n")}
    if grade_id:
        made["metadata"]["nbgrader"] = nbgrader
    if kind == "code":
        made |= {"execution_count": None, "outputs": []}
    return made


def notebook(cells: list[dict[str, Any]]) -> dict[str, Any]:
    cells = [{**cell, "id": f"cell-{i}"} for i, cell in enumerate(cells)]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": cells}


def source() -> dict[str, Any]:
    """The teacher's notebook."""
    answer: dict[str, Any] = {"solution": True}
    cells = [
        cell("markdown", "# Home assignment · Numbers", "title", locked=True),
        cell("code", SETUP, "setup", locked=True),
    ]
    tasks = [(SOFTMAX, TEST_SOFTMAX, 3), (POLYNOMIAL, TEST_POLYNOMIAL, 2), (BISECT, TEST_BISECT, 3)]
    for number, (solution, test, points) in enumerate(tasks, start=1):
        cells.append(cell("code", solution, f"answer-{number}", **answer))
        marks = {"grade": True, "locked": True, "points": points}
        cells.append(cell("code", test, f"test-{number}", **marks))
    cells.append(cell("markdown", WRITTEN, "answer-4", grade=True, points=2, **answer))
    return notebook(cells)


def released() -> dict[str, Any]:
    """The student's notebook, as nbgrader would make it."""
    made = source()
    for one in made["cells"]:
        marks = one["metadata"].get("nbgrader", {})
        text = re.sub(BLOCK.format("HIDDEN TESTS"), "", one["source"] + "\n", flags=re.M)
        text = re.sub(BLOCK.format("MARK SCHEME"), "", text, flags=re.M)
        stub = "YOUR ANSWER HERE\n" if marks.get("grade") else "    raise NotImplementedError\n"
        one["source"] = re.sub(BLOCK.format("SOLUTION"), stub, text, flags=re.M).rstrip("\n")
    return made


def submission(**answers: str) -> dict[str, Any]:
    """A right submission, with other answers where they are given: ``answer_1="..."``."""
    texts = RIGHT | {name.replace("_", "-"): text for name, text in answers.items()}
    made = released()
    for one in made["cells"]:
        grade_id = one["metadata"].get("nbgrader", {}).get("grade_id")
        if grade_id in texts:
            one["source"] = texts[grade_id]
    return made


def command(name: str, folder: Path, submissions: str = "all", out: str = "out") -> list[str]:
    """The words of ``dgm assignment NAME light`` on a folder's submissions, if it grades them."""
    handed_in = [str(folder / submissions)] if name == "grade" else []
    places = ["--assignments", str(folder / "assignments"), "--out", str(folder / out)]
    return ["assignment", name, NAME, *handed_in, *places]


def write_source(folder: Path) -> Path:
    """The teacher's notebook where `command` looks for it."""
    return write(source(), folder / "assignments" / NAME / "source" / f"{NAME}.ipynb")


def write(made: dict[str, Any], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(made, indent=1), encoding="utf-8")
    return path
