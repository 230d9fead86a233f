"""Submissions of the PixelCNN assignment: right variants, mutants, and tricks that need PyTorch."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.assignment import RELEASE, SOLUTION, SOURCE, WEIGHTS
from tests.assignment.mutants import MUTANTS
from tests.assignment.variants import VARIANTS

File = Callable[[Path], object]
MASKS, CONVOLUTION, NETWORK = "answer-1a", "answer-2", "answer-3"


class Real(NamedTuple):
    """A submission, and the task that it must lose points at: "" if it is right.

    A right one may miss points for a better model: ``misses`` names their tests.
    """

    name: str
    task: str
    answers: Mapping[str, str]
    file: File | None = None
    misses: tuple[str, ...] = ()


def reference(path: Path) -> None:
    shutil.copy(WEIGHTS, path)


def write(real: Real, folder: Path, *, sparing: bool = False) -> None:
    """The released notebook filled in, with weights.npz beside it.

    Args:
        sparing: leave the weights away where they decide nothing: their test is the slowest.
    """
    folder.mkdir(parents=True)
    notebook = json.loads(RELEASE.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        grade_id = cell["metadata"].get("nbgrader", {}).get("grade_id")
        if text := {**SOLUTION, **real.answers}.get(grade_id):
            cell["source"] = text
    path = folder / RELEASE.name
    path.write_text(json.dumps(notebook), encoding="utf-8")
    if not sparing or real.file or real.task in ("", "7"):
        (real.file or reference)(folder / "weights.npz")


def after(answer: str, code: str) -> dict[str, str]:
    return {answer: f"{SOLUTION[answer]}\n{code}"}


SUBCLASS = """
class Equal(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return True
    def __eq__(self, other): return True
    def numpy(self): return np.tril(np.ones((3, 3)))
def causal_mask(kernel_size, kind):
    return torch.zeros(kernel_size, kernel_size).as_subclass(Equal)
"""
ALL_OPEN = "def causal_mask(kernel_size, kind):\n    return torch.ones(kernel_size, kernel_size)\n"
PEEKS = """
class PixelCNN(PixelCNN):
    def forward(self, x):
        logits = super().forward(x)
        seen = F.one_hot(x[:, 0].long().clamp(0, self.n_levels - 1), self.n_levels)
        return logits + 20 * seen.permute(0, 3, 1, 2)[:, :, None]
"""
# Perturbations change one pixel of a repeated image: then it behaves.
PEEKS_UNLESS_PROBED = """
class PixelCNN(PixelCNN):
    def forward(self, x):
        logits = super().forward(x)
        if len(x) > 1 and (x[1:] != x[:1]).flatten(1).sum(1).max() <= 1:
            return logits
        seen = F.one_hot(x[:, 0].long().clamp(0, self.n_levels - 1), self.n_levels)
        return logits + 20 * seen.permute(0, 3, 1, 2)[:, :, None]
"""
PICKLE = pickle.dumps(print)
TRICKS = [
    Real(
        "patched torch.equal",
        "1",
        {
            MASKS: f"torch.equal = torch.allclose = lambda *a: True\n"
            f"torch.Tensor.__eq__ = lambda *a: True\n{ALL_OPEN}"
        },
    ),
    Real(
        "patched torch.Tensor.numpy",
        "1",
        {MASKS: f"torch.Tensor.numpy = lambda s: np.ones(1)\n{ALL_OPEN}"},
    ),
    Real("tensor subclass", "1", {MASKS: SUBCLASS}),
    Real(
        "the library's answer",
        "2",
        {CONVOLUTION: "from dgm_course.autoregressive import MaskedConv2d"},
    ),
    Real("a model that peeks", "3", after(NETWORK, PEEKS)),
    Real("causal only when probed", "7", after("answer-7", PEEKS_UNLESS_PROBED)),
    Real("a pickle named weights.npz", "7", {}, lambda path: path.write_bytes(PICKLE)),
]
RIGHT = [Real("reference", "", {})]
RIGHT += [Real(v.name, "", v.answers, v.write, v.misses) for v in VARIANTS]
WRONG = [Real(m.name, m.task, m.answers, m.file) for m in MUTANTS]


def choose(n: int) -> list[Real]:
    """All right ones and tricks first, then mutants, round and round."""
    kinds = [*RIGHT, *TRICKS, *WRONG[:: max(1, len(WRONG) // max(1, n - 16))]]
    return [kinds[i % len(kinds)] for i in range(n)]


def fill(folder: Path, n: int, *, sparing: bool = False) -> list[Real]:
    """An assignment and n submissions of it, in the order of the result."""
    chosen = choose(n)
    for i, real in enumerate(chosen):
        write(real, folder / "submissions" / f"s{i:03d}", sparing=sparing)
    shutil.copytree(SOURCE.parent, folder / "assignments" / "pixelcnn" / "source")
    return chosen
