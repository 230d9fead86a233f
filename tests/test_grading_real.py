"""Forty submissions of the PixelCNN assignment, and what a right one costs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dgm_course.grading.batch import Batch
from dgm_course.grading.grade import Assignment, grade
from dgm_course.grading.notebook import Cell, read_cells
from dgm_course.grading.submissions import find
from dgm_course.grading.walls import Limits
from tests.assignment import RELEASE, SOLUTION, SOURCE
from tests.grading import light
from tests.grading.prepared import sandboxes
from tests.grading.real import fill
from tests.grading.scale import not_as_due
from tests.needs import needs


@dataclass(frozen=True)
class OneTask(Assignment):
    """The assignment with the tests of a task alone; of "", with all."""

    task: str = ""

    @property
    def tests(self) -> list[Cell]:
        return [test for test in super().tests if test.grade_id.startswith(f"test-{self.task}")]


@needs("bubblewrap")
@pytest.mark.slow
def test_forty_real_submissions_get_what_they_are_due(tmp_path: Path) -> None:
    """Two as assistants grade them, side by side; the others, one by one, in one sandbox, and the
    wrong ones are asked of the task alone at which they must lose points."""
    chosen = fill(tmp_path, 40, sparing=True)
    patient = Limits(seconds=300, seconds_in_all=3000)  # the machine may be busy
    whole = Assignment.read(SOURCE)
    batch = Batch(whole, tmp_path, 3, patient)
    entries, _ = find(tmp_path / "submissions")
    together = entries[::20]
    with sandboxes():
        for entry, real in zip(entries, chosen, strict=True):
            if entry not in together:
                asked = OneTask(whole.name, whole.cells, whole.digest, real.task)
                batch.store(entry, grade(asked, entry, seed=batch.seed, limits=patient))
    assert batch.waiting(entries) == together
    assert len([*batch.run(together, jobs=2)]) == 2
    assert batch.waiting(entries) == []
    wrong = []
    for i, real in enumerate(chosen):
        result = json.loads((tmp_path / "results" / f"s{i:03d}.json").read_text())
        if not_as_due(real, result):
            wrong.append((real.name, real.task, messages(result)))
    assert wrong == []


def messages(result: dict[str, Any]) -> list[str]:
    return [*result["notes"], *(t["message"] for t in result["tests"] if t["status"] != "passed")]


PYTORCH = """
import torch.multiprocessing
from concurrent.futures import ThreadPoolExecutor
from torch.utils.data import DataLoader, TensorDataset

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
torch.set_default_device(device)
torch.set_num_threads(64)
F.conv2d(torch.randn(8, 3, 64, 64), torch.randn(8, 3, 3, 3))
with ThreadPoolExecutor(64) as pool:
    assert sum(pool.map(lambda i: time.sleep(0.01) or i, range(128))) == 8128
loader = DataLoader(TensorDataset(torch.arange(100.0)), batch_size=10, num_workers=4)
assert sum(batch.sum().item() for (batch,) in loader) == 4950


@torch.compile
def twice(x):
    return 2 * x


@torch.no_grad()
def ones(net):
    for weights in net.parameters():
        weights.fill_(twice(torch.tensor(0.5)))


torch.save(nn.Linear(2, 2).state_dict(), "net.pt")
torch.load("net.pt")
"""
BY_GRADIENTS = """
def receptive_field(kernel_size, n_layers):
    layers = [MaskedConv2d("B" if i else "A", 1, 1, kernel_size) for i in range(n_layers)]
    net = nn.Sequential(*layers)
    ones(net)
    n = kernel_size // 2 * n_layers
    image = torch.zeros(1, 1, 2 * n + 1, 2 * n + 1, requires_grad=True)
    net(image)[0, 0, n, n].backward()
    return image.grad[0, 0] > 0
"""


@needs("bubblewrap")
@pytest.mark.slow
def test_what_people_do_with_pytorch(tmp_path: Path) -> None:
    names = ("setup", "answer-1a", "answer-2", "answer-6a", "test-6a")
    cells = [one for one in read_cells(SOURCE) if one.grade_id in names]
    released = {one.grade_id: one.source for one in read_cells(RELEASE)}
    texts = {**released, **SOLUTION, "answer-6a": BY_GRADIENTS}
    made = light.notebook([light.cell("code", texts[one.grade_id], one.grade_id) for one in cells])
    setup = made["cells"][0]
    setup["source"] = f"import time\n{setup['source']}\n{PYTORCH}"
    light.write(made, tmp_path / "all" / "ann" / "pixelcnn.ipynb")
    (entry,), _ = find(tmp_path / "all")
    result = grade(Assignment("pixelcnn", cells, ""), entry, seed=7, limits=Limits(seconds=200))
    assert result["notes"] == ["cell 1 is setup, but changed: it runs after the release's"]
    assert (result["points"], result["status"]) == (1, "passed")
