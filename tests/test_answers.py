"""The protocol between tests and answers: what crosses, what does not, and what is said then."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dgm_course.grading.answers import (
    Answers,
    CheckFailed,
    Handle,
    NotAnswered,
    read_weights,
    save_weights,
)
from tests.assignment import CELLS, WEIGHTS, run_test, submission


def through(answer: Any, *arguments: Any) -> Any:
    return Answers({"answer": answer})("answer", *arguments)


# --- values ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.float64, np.bool_, np.uint8])
def test_arrays_reach_the_answer_as_tensors_of_the_same_numbers(dtype: Any) -> None:
    array = np.array([[0, 1], [2, 3]]).astype(dtype)
    seen = []
    back = through(lambda x: seen.append(x) or x, array)
    assert isinstance(seen[0], torch.Tensor)
    np.testing.assert_array_equal(back, array)
    assert back.dtype == dtype


@pytest.mark.parametrize("value", [None, True, 3, 2.5, "B", [1, [2.0, "x"]]])
def test_plain_values_cross_as_they_are(value: Any) -> None:
    assert through(lambda x: x, value) == value


def test_neither_side_can_change_what_the_other_holds() -> None:
    array, kept = np.zeros(3), torch.zeros(3)
    through(lambda x: x.fill_(1), array)
    assert array.sum() == 0
    through(lambda: kept)[:] = 1
    assert kept.sum() == 0


@pytest.mark.parametrize(
    "value",
    [{"a": 1}, {1}, object(), 1j, np.array(["a"]), np.array([{}]), torch.zeros(2).to_sparse()],
)
def test_other_values_do_not_cross(value: Any) -> None:
    with pytest.raises(CheckFailed, match="expected"):
        through(lambda: value)


def test_a_module_is_held_by_handle_and_called_in_evaluation_mode() -> None:
    call = Answers({"Net": lambda: nn.Sequential(nn.Dropout(0.9), nn.Flatten())})
    net = call("Net")
    assert isinstance(net, Handle)
    x = np.ones((2, 1, 3), dtype=np.float32)
    np.testing.assert_array_equal(call(net, x), np.ones((2, 3)))


def test_a_function_of_the_test_calls_back() -> None:
    def answer(f: Callable[..., Any]) -> Any:
        out = f(torch.tensor([1.0, 2.0]))
        assert isinstance(out, torch.Tensor)
        return out + 1

    def double(x: Any) -> Any:
        assert isinstance(x, np.ndarray)
        return 2 * x

    np.testing.assert_array_equal(through(answer, double), [3, 5])

    def refuse(x: Any) -> Any:
        raise CheckFailed("not these")

    with pytest.raises(CheckFailed, match="^not these$"):
        through(answer, refuse)


def test_what_a_test_can_do_with_a_module() -> None:
    call = Answers({"Net": lambda: nn.Linear(2, 1)})
    net = call("Net")
    weight, bias = call("module.parameters", net)
    call("module.set_parameters", net, [0 * weight + 2, 0 * bias + 1])
    assert call(net, np.ones((1, 2), dtype=np.float32)) == 5
    call("module.load", net, ["weight", "bias"], [0 * weight, 0 * bias])
    assert call(net, np.ones((1, 2), dtype=np.float32)) == 0
    with pytest.raises(CheckFailed, match="Missing key"):
        call("module.load", net, ["bias"], [bias])
    with pytest.raises(CheckFailed, match=r"expected an nn\.Module"):
        Answers({"f": lambda: print})("module.parameters", 3)


# --- gradients ------------------------------------------------------------------------------


def slope(x: torch.Tensor) -> torch.Tensor:
    x = x.requires_grad_()
    (x**2).sum().backward()
    assert x.grad is not None
    return x.grad


def test_answers_that_differentiate_work_as_in_a_cell() -> None:
    x = np.array([1.0, 3.0])
    np.testing.assert_array_equal(through(slope, x), 2 * x)
    np.testing.assert_array_equal(through(torch.func.grad(lambda x: (x**2).sum()), x), 2 * x)
    by_jacobian = through(lambda x: torch.autograd.functional.jacobian(torch.sin, x), x)
    np.testing.assert_allclose(by_jacobian, np.diag(np.cos(x)))
    with torch.no_grad():  # of the caller
        np.testing.assert_array_equal(through(slope, x), 2 * x)


def test_an_answer_that_switches_gradients_off_does_so_for_itself_only() -> None:
    call = Answers({"off": lambda: torch.set_grad_enabled(False) and None, "slope": slope})
    call("off")
    assert torch.is_grad_enabled()
    assert call("slope", np.array([1.0])) == 2


def test_a_module_may_differentiate_too_and_its_output_comes_without_gradients() -> None:
    class Force(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.scale * slope(x)

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(3.0))

    call = Answers({"Force": Force})
    force = call("Force")
    call("module.set_parameters", force, [np.float32(5)])
    assert call(force, np.array([2.0], dtype=np.float32)) == 20


# --- randomness -----------------------------------------------------------------------------


def draws() -> list[float]:
    return [random.random(), np.random.rand(), torch.rand(()).item()]  # noqa: NPY002


def test_answers_draw_from_streams_of_their_own() -> None:
    call = Answers({"draws": draws})
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    expected = draws()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    call("random.seed", 5)
    first, second = call("draws"), call("draws")
    assert draws() == expected  # the notebook's streams stand where they stood
    assert first != second
    call("random.seed", 5)
    assert call("draws") == first


# --- what goes wrong ------------------------------------------------------------------------


def stub() -> None:
    raise NotImplementedError()


def test_what_is_missing_is_not_answered_yet() -> None:
    with pytest.raises(NotAnswered, match="there is no mask yet"):
        Answers({})("mask")
    with pytest.raises(NotAnswered, match="answer is not answered yet"):
        through(stub)
    with pytest.raises(CheckFailed, match=r"to be a function or a class, got .* int"):
        through(3)


def test_an_exception_in_an_answer_is_told_with_the_call() -> None:
    with pytest.raises(CheckFailed) as told:
        through(lambda x, k: 1 / 0, np.zeros((2, 3)), "A")
    assert str(told.value) == (
        "answer(<float64 (2, 3)>, 'A') raised ZeroDivisionError: division by zero"
    )
    call = Answers({"Net": nn.Module})
    with pytest.raises(CheckFailed, match="missing the required"):  # a NotImplementedError
        call(call("Net"), np.zeros(1))


# --- weights --------------------------------------------------------------------------------


def test_weights_come_back_as_they_were_saved(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    save_weights(net, tmp_path / "weights.npz")
    names, arrays = read_weights(tmp_path / "weights.npz")
    assert names == list(net.state_dict())
    for array, tensor in zip(arrays, net.state_dict().values(), strict=True):
        np.testing.assert_array_equal(array, tensor)
    with pytest.raises(ValueError, match="at most 2000000 bytes, got"):
        save_weights(nn.Linear(1000, 501), tmp_path / "large.npz")


class Trap:
    """An object whose unpickling leaves a mark."""

    def __reduce__(self) -> Any:
        return setattr, (Trap, "sprung", True)


def test_nothing_in_a_file_of_weights_is_executed(tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", trap=np.array([Trap()], dtype=object))
    with pytest.raises(CheckFailed, match="to hold arrays of numbers"):
        read_weights(tmp_path / "weights.npz")
    assert not hasattr(Trap, "sprung")


def test_a_damaged_file_of_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    np.savez_compressed(path, w=np.arange(1000.0))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(damaged), 3):
            damaged[at] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            read_weights(path)
        except CheckFailed:
            refused += 1
    assert refused > 200
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.txt", "no array")
    with pytest.raises(CheckFailed, match="numbers"):
        read_weights(path)


def test_a_file_of_weights_that_unpacks_too_far_is_not_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "weights.npz", w=np.zeros(1_000_000))
    assert (tmp_path / "weights.npz").stat().st_size < 10_000
    with pytest.raises(CheckFailed, match="to unpack to 2 MB, got"):
        read_weights(tmp_path / "weights.npz")


# --- outside the student's process ----------------------------------------------------------


class Wire:
    """`Answers` behind a wire that carries text and arrays of numbers only."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.functions: list[Callable[..., Any]] = []

    def pack(self, value: Any) -> bytes:
        def plain(item: Any) -> Any:
            if isinstance(item, np.ndarray | np.generic):
                np.save(file := io.BytesIO(), item, allow_pickle=False)
                return {"array": file.getvalue().hex()}
            if isinstance(item, Handle):
                return {"handle": [item.number, item.kind]}
            if isinstance(item, list | tuple):
                return [plain(x) for x in item]
            if callable(item):
                self.functions.append(item)
                return {"function": len(self.functions) - 1}
            return item

        return json.dumps(plain(value)).encode()

    def unpack(self, wire: bytes) -> Any:
        def rich(item: Any) -> Any:
            if isinstance(item, list):
                return [rich(x) for x in item]
            if not isinstance(item, dict):
                return item
            ((kind, what),) = item.items()
            if kind == "array":
                return np.load(io.BytesIO(bytes.fromhex(what)), allow_pickle=False)
            if kind == "handle":
                return Handle(*what)
            function = self.functions[what]
            return lambda *given: self.carry(function(*self.carry(list(given))))

        return rich(json.loads(wire))

    def carry(self, value: Any) -> Any:
        return self.unpack(self.pack(value))

    def __call__(self, target: Any, *arguments: Any) -> Any:
        return self.carry(self.answers(self.carry(target), *self.carry(list(arguments))))


def test_the_assignments_tests_run_over_a_wire(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(WEIGHTS, "weights.npz")
    submitted = submission({})
    names = submitted.tests_namespace() | {"call": Wire(Answers(submitted.names))}
    results = [run_test(cell, names) for cell in CELLS if cell.is_test]
    assert [result.message for result in results if result.message] == []
    assert sum(result.points for result in results) == 16


def test_a_tested_cell_leaves_the_figures_of_later_kernels_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MPLBACKEND", raising=False)
    run_test(next(cell for cell in CELLS if cell.is_test), submission({}).tests_namespace())
    assert "MPLBACKEND" not in os.environ
