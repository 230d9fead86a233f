"""The protocol between tests and answers: ``call(name, *arguments)``.

A test never holds a student's object. It reaches an answer by name; plain values go in, plain
values come out. Here both sides live in one process; a grader can put them into two, for nothing
else crosses:

- None, bool, int, float, str, NumPy arrays of numbers, and lists of these;
- a `Handle` instead of a module or another object that the answer made:
  ``call(handle, *arguments)`` calls it, in evaluation mode;
- a function of the test, as an argument: the answer gets a function from tensors to tensors that
  calls back.

Answers run with gradients recorded, as in a cell: code that differentiates works in a test too.
What comes back is a copy without them.

An assignment that never imports PyTorch does without it: its answers get and return NumPy arrays.

What a test may do with a module besides calling it has names that no Python function can have:

- ``call("module.parameters", handle)``: the trained parameters' values, in their order;
- ``call("module.set_parameters", handle, arrays)``: other values of the same shapes;
- ``call("module.load", handle, names, arrays)``: a saved state, as `read_weights` returns it;
- ``call("random.seed", seed)``: the answers' random streams, which are not the notebook's own.
"""

from __future__ import annotations

import io
import random
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

MAX_BYTES = 2_000_000  # of weights.npz, and of what it unpacks to


class CheckFailed(AssertionError):
    """What a test expected of an answer, and what came."""


class NotAnswered(CheckFailed):
    """An answer that nobody has written yet."""


@dataclass(frozen=True)
class Handle:
    """An object on the answers' side: a test can hold it and call it, no more."""

    number: int
    kind: str

    def __str__(self) -> str:
        return self.kind


class Answers:
    """``call(name, *arguments)`` for the answers in a dictionary, in this process.

    Args:
        names: where answers are looked up at each call, as a notebook's ``globals()``.
    """

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = names
        self._objects: list[Any] = []
        self._streams: tuple[Any, ...] | None = None

    def __call__(self, target: str | Handle, *arguments: Any) -> Any:
        """The answer's result as plain values.

        Raises:
            NotAnswered: if nothing of that name is there, or it raises NotImplementedError.
            CheckFailed: if the answer raises, or returns what cannot cross.
        """
        function = self._find(target)
        given = [self._to_answer(argument) for argument in arguments]
        try:
            with self._own_streams(), _gradients():
                result = function(*given)
        except CheckFailed:
            raise  # from a test's own function, called back
        except Exception as error:
            if type(error) is NotImplementedError and not error.args:  # torch raises some too
                raise NotAnswered(f"{target} is not answered yet") from error
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise CheckFailed(f"{_written(target, arguments)} raised {said}") from error
        return self._to_test(result, _written(target, arguments))

    def _find(self, target: str | Handle) -> Callable[..., Any]:
        if isinstance(target, Handle):
            thing = self._objects[target.number]
            if _is_module(thing):
                thing.eval()
        elif target in _OPERATIONS:
            return _OPERATIONS[target]
        else:
            thing = self._names.get(target, ...)
        if thing is ...:
            raise NotAnswered(f"there is no {target} yet")
        if not callable(thing):
            raise CheckFailed(f"expected {target} to be a function or a class, got {_kind(thing)}")
        return thing

    @contextmanager
    def _own_streams(self) -> Iterator[None]:
        """The answers draw from streams of their own, so that tests do not move the notebook's."""
        outside = _get_streams()
        if self._streams is not None:
            _set_streams(self._streams)
        try:
            yield
        finally:
            self._streams = _get_streams()
            _set_streams(outside)

    # --- what crosses -----------------------------------------------------------------------

    def _to_answer(self, value: Any) -> Any:
        """A test's value as the answer sees it: arrays become tensors, copied."""
        if isinstance(value, np.ndarray | np.generic):
            copy = np.array(value)
            return torch.from_numpy(copy) if (torch := _torch()) else copy
        if isinstance(value, Handle):
            return self._objects[value.number]
        if isinstance(value, list | tuple):
            return [self._to_answer(item) for item in value]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if callable(value):

            def called_back(*arguments: Any) -> Any:
                given = [self._to_test(x, "a function's argument") for x in arguments]
                return self._to_answer(value(*given))

            return called_back
        raise TypeError(f"a test cannot pass {_kind(value)}")

    def _to_test(self, value: Any, what: str) -> Any:
        """An answer's value as the test sees it: tensors become arrays, objects handles."""
        if (torch := _torch()) and isinstance(value, torch.Tensor):
            try:
                value = value.detach().cpu().numpy()
            except (TypeError, RuntimeError) as error:  # sparse, bfloat16, quantised
                raise CheckFailed(f"expected a plain tensor from {what}, got {error}") from error
        if isinstance(value, np.ndarray | np.generic):
            if value.dtype.kind not in "biuf":
                raise CheckFailed(f"expected numbers from {what}, got {value.dtype}")
            return np.array(value)
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, list | tuple):
            return [self._to_test(item, what) for item in value]
        if callable(value):
            self._objects.append(value)
            return Handle(len(self._objects) - 1, _kind(value))
        raise CheckFailed(
            f"expected a tensor, a number, a list or a module from {what}, got {_kind(value)}"
        )


def _torch() -> Any:
    """PyTorch, if the answers have imported it."""
    return sys.modules.get("torch")


def _gradients() -> AbstractContextManager[None]:
    """Gradients recorded, whatever the caller or an earlier answer has switched."""
    return torch.enable_grad() if (torch := _torch()) else nullcontext()


def _is_module(value: Any) -> bool:
    return bool(torch := _torch()) and isinstance(value, torch.nn.Module)


def _kind(value: Any) -> str:
    return f"an object of type {type(value).__name__}"


def _written(target: str | Handle, arguments: tuple[Any, ...]) -> str:
    """A call as a reader would write it, with shapes instead of arrays."""

    def short(value: Any) -> str:
        if isinstance(value, np.ndarray):
            return f"<{value.dtype} {tuple(value.shape)}>"
        if isinstance(value, Handle):
            return "<module>"
        if callable(value):
            return "<a function>"
        return repr(value) if len(repr(value)) < 40 else f"<{type(value).__name__}>"

    name = "the module" if isinstance(target, Handle) else target
    return f"{name}({', '.join(map(short, arguments))})"


def _get_streams() -> tuple[Any, ...]:
    of_torch = torch.get_rng_state() if (torch := _torch()) else None
    return random.getstate(), np.random.get_state(), of_torch  # noqa: NPY002


def _set_streams(streams: tuple[Any, ...]) -> None:
    random.setstate(streams[0])
    np.random.set_state(streams[1])  # noqa: NPY002
    if streams[2] is not None:
        _torch().set_rng_state(streams[2])


# --- what a test may do with a module -------------------------------------------------------


def _trained(module: Any) -> list[nn.Parameter]:
    if not _is_module(module):
        raise CheckFailed(f"expected an nn.Module, got {_kind(module)}")
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _parameters(module: Any) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in _trained(module)]


def _set_parameters(module: Any, values: list[Tensor]) -> None:
    parameters = _trained(module)
    with _torch().no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)


def _load(module: Any, names: list[str], values: list[Tensor]) -> None:
    _trained(module)
    module.load_state_dict(dict(zip(names, values, strict=True)))


def seed_streams(seed: int) -> None:
    """Begin the random streams of Python, NumPy and PyTorch anew."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    if torch := _torch():
        torch.manual_seed(seed)


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "module.parameters": _parameters,
    "module.set_parameters": _set_parameters,
    "module.load": _load,
    "random.seed": seed_streams,
}

# --- weights in a file ----------------------------------------------------------------------


def save_weights(model: nn.Module, path: str | Path = "weights.npz") -> None:
    """Write a model's state as plain arrays, at most 2 MB.

    Raises:
        ValueError: if the file would be too large to hand in.
    """
    state = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    size = sum(value.nbytes for value in state.values())
    if size > MAX_BYTES:
        raise ValueError(f"the weights must take at most {MAX_BYTES} bytes, got {size}")
    np.savez_compressed(path, **state)


def read_weights(path: str | Path = "weights.npz") -> tuple[list[str], list[np.ndarray]]:
    """The names and arrays of a file of weights: numbers only, nothing in it is executed.

    Raises:
        CheckFailed: if the file is missing, larger than 2 MB (packed or unpacked), no archive of
            arrays, or holds values that are not finite numbers.
    """
    path = Path(path)
    return unpack_weights(path.read_bytes() if path.is_file() else None, path.name)


def unpack_weights(data: bytes | None, name: str) -> tuple[list[str], list[np.ndarray]]:
    """As `read_weights`, from the contents of the file ``name``; None if there is no such file."""
    if data is None:
        raise NotAnswered(f"there is no {name} beside the notebook yet: train, then save")
    if len(data) > MAX_BYTES:
        raise CheckFailed(f"expected {name} of at most {MAX_BYTES} bytes, got {len(data)}")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        # Each array has a header of its own beside its numbers.
        if unpacked > 2 * MAX_BYTES:
            raise CheckFailed(f"expected {name} to unpack to 2 MB, got {unpacked} bytes")
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            weights = {key: np.asarray(file[key]) for key in file.files}
    except CheckFailed:
        raise
    except Exception as error:  # damaged archives raise what they like
        raise CheckFailed(f"expected {name} to hold arrays of numbers, got {error}") from error
    for key, value in weights.items():
        if value.dtype.kind not in "biuf" or not np.isfinite(value).all():
            raise CheckFailed(f"expected finite numbers in {name}, got others in {key}")
    return list(weights), list(weights.values())
