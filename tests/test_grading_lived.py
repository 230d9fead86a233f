"""What people do in notebooks and is right gets its points, from the grader and in the check."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dgm_course.grading import answers
from dgm_course.grading.grade import Assignment, grade
from dgm_course.grading.matching import written
from dgm_course.grading.notebook import read_cells
from dgm_course.grading.notes import fold
from dgm_course.grading.rehearsal import Submission
from dgm_course.grading.submissions import find
from dgm_course.grading.walls import Limits
from tests.assignment import RELEASE, SOLUTION, SOURCE
from tests.grading import light
from tests.grading.lived import LIVED
from tests.grading.prepared import sandboxes
from tests.needs import needs


@pytest.fixture(scope="module")
def assignment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Assignment]:
    path = tmp_path_factory.mktemp("source") / "light.ipynb"
    with sandboxes():
        yield Assignment.read(light.write(light.source(), path))


def test_there_are_enough() -> None:
    assert len(LIVED) >= 90


@needs("bubblewrap")
@pytest.mark.parametrize("name", LIVED)
def test_a_notebook_that_was_lived_in(
    name: str, assignment: Assignment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_torch", lambda: None)  # other tests have imported it
    change, note = LIVED[name]
    made = light.submission()
    change(made)
    path = light.write(made, tmp_path / "all" / "ann" / "light.ipynb")
    (entry,), _ = find(tmp_path / "all")
    result = grade(assignment, entry, seed=7, limits=Limits(seconds=60))
    said = [*result["notes"], *(test["message"] for test in result["tests"])]
    assert (result["points"], result["status"]) == (8, "passed"), said
    assert note is None or (any(note in text for text in said) if note else not any(said)), said

    release = read_cells(light.write(light.released(), tmp_path / "release.ipynb"))
    with contextlib.chdir(path.parent):
        submission = Submission(read_cells(path), release, {})
        tests = [*submission.test()]
        by_hand = [*written(submission.own, release, submission.notes)]
    assert [test.points for test in tests] == [3, 2, 3], [test.message for test in tests]
    assert [text for _, text in by_hand] == [answer["text"] for answer in result["written"]]
    found = [*submission.notes, *submission.stopped]
    assert fold(found) == [text for text in result["notes"] if "left out" not in text]


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
