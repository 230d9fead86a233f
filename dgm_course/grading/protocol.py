"""What crosses between the grader and the process that runs a student's code, and in what form.

A frame is two lengths (of the header and of the data, 8 bytes each, little-endian), a header in
JSON and the raw bytes of its arrays one after another. Values are None, bool, int, float, str,
lists, NumPy arrays of numbers, handles (an object that stays with the student) and functions (that
stay with the grader). Nothing in a frame can name a class or carry code, and `unpack` believes
nothing: every length, type, shape and size is checked before an array is made.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dgm_course.grading.answers import Handle

MAX_HEADER = 500_000  # bytes: as objects of Python they take up to forty times as many
MAX_DATA = 64_000_000  # bytes of arrays in one frame
MAX_ANSWER = 8_000_000  # the same, of a frame that a student's process sends
MAX_TEXT = 20_000  # characters of one string
MAX_DEPTH = 8  # of lists in lists
MAX_ITEMS = 10_000  # values in one frame
LENGTHS = struct.Struct("<QQ")
# Numbers of a fixed size, little-endian: no objects, strings, dates, records, long doubles.
DTYPES = {"bool", "float16", "float32", "float64"} | {
    f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)
}


class ProtocolError(ValueError):
    """A frame that keeps to no rule, or a value that may not cross."""


@dataclass(frozen=True)
class Function:
    """A function of the grader's side, known to the other by its number alone."""

    number: int


def as_bytes(text: str) -> np.ndarray:
    """A text that may be longer than those in a header."""
    return np.frombuffer(text.encode(errors="replace"), np.uint8)


def as_text(array: np.ndarray) -> str:
    """The text of `as_bytes`."""
    return array.tobytes().decode(errors="replace")


def pack(kind: str, most: int = MAX_DATA, /, **fields: Any) -> bytes:
    """A frame of this kind, its arrays of at most ``most`` bytes; what is no plain value must be a
    `Handle` or a `Function`.

    Raises:
        ProtocolError: if a value may not cross or is too large.
    """
    arrays: list[np.ndarray] = []
    budget = [MAX_ITEMS]
    plain = {name: _plain(value, arrays, 0, budget) for name, value in fields.items()}
    described = [[array.dtype.name, list(array.shape)] for array in arrays]
    header = {"kind": kind, "fields": plain, "arrays": described}
    text = json.dumps(header).encode()
    size = sum(array.nbytes for array in arrays)
    if len(text) > MAX_HEADER or size > most:
        raise ProtocolError(
            f"expected at most {MAX_HEADER} bytes of text and {most} of numbers, "
            f"got {len(text)} and {size}"
        )
    return b"".join([LENGTHS.pack(len(text), size), text, *(a.tobytes() for a in arrays)])


def _plain(value: Any, arrays: list[np.ndarray], depth: int, budget: list[int]) -> Any:
    budget[0] -= 1
    if depth > MAX_DEPTH or budget[0] < 0:
        raise ProtocolError("expected shorter or less deeply nested lists")
    kind = type(value)  # exactly: a subclass may lie about itself
    if value is None or kind is bool or kind is float:
        return value
    if kind is int:
        if not -(2**63) <= value < 2**64:
            raise ProtocolError("expected an integer of at most 64 bits, got a larger one")
        return value
    if kind is str:
        if len(value) > MAX_TEXT:
            raise ProtocolError(f"expected at most {MAX_TEXT} characters, got {len(value)}")
        return value
    if kind is list or kind is tuple:
        return [_plain(item, arrays, depth + 1, budget) for item in value]
    if kind is np.ndarray:
        if value.dtype.name not in DTYPES:
            raise ProtocolError(f"expected an array of numbers, got {value.dtype.name[:40]}")
        little = value.dtype.newbyteorder("<")
        arrays.append(np.ascontiguousarray(value, dtype=little).reshape(value.shape))
        return {"array": len(arrays) - 1}
    if kind is Handle:
        return {"handle": value.number, "text": value.kind[:200]}
    if kind is Function:
        return {"function": value.number}
    raise ProtocolError(f"expected a plain value, got an object of type {kind.__name__[:80]}")


def lengths(prefix: bytes, most: int = MAX_DATA) -> tuple[int, int]:
    """The header's and the data's length, from a frame's first 16 bytes.

    Raises:
        ProtocolError: if the header takes more than `MAX_HEADER` bytes, or the data than ``most``.
    """
    header, data = LENGTHS.unpack(prefix)
    if header > MAX_HEADER or data > most:
        raise ProtocolError(f"expected a shorter frame, got one of {header} + {data} bytes")
    return header, data


def unpack(
    header: bytes, data: bytes, function: Callable[[int], Any] | None = None
) -> tuple[str, dict[str, Any]]:
    """The kind and fields of a frame.

    Args:
        function: what stands for the grader's function of a number; a student's process sends none.

    Raises:
        ProtocolError: if anything in it is not as `pack` writes it.
    """
    try:
        frame = json.loads(header)
        kind, fields, described = frame["kind"], frame["fields"], frame["arrays"]
        if type(kind) is not str or type(fields) is not dict or type(described) is not list:
            raise ProtocolError("expected a kind, fields and arrays")
        arrays, at = [], 0
        if len(described) > MAX_ITEMS:
            raise ProtocolError(f"expected at most {MAX_ITEMS} arrays, got {len(described)}")
        for entry in described:
            dtype, shape = _check_array(entry)
            size = math.prod(shape) * dtype.itemsize
            if size > len(data) - at:
                raise ProtocolError(f"expected {size} bytes of an array, got {len(data) - at}")
            flat = np.frombuffer(data, dtype, math.prod(shape), at)
            arrays.append(flat.reshape(shape).astype(dtype.newbyteorder("="), copy=True))
            at += size
        if at != len(data):
            raise ProtocolError(f"expected {at} bytes of arrays, got {len(data)}")
        budget = [MAX_ITEMS]
        return kind, {name: _value(x, arrays, function, 0, budget) for name, x in fields.items()}
    except ProtocolError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise ProtocolError(f"not a frame: {type(error).__name__}") from error


def _check_array(entry: Any) -> tuple[np.dtype, tuple[int, ...]]:
    if type(entry) is not list or len(entry) != 2 or type(entry[1]) is not list:
        raise ProtocolError("expected an array's type and shape")
    name, shape = entry
    if type(name) is not str or name not in DTYPES:
        raise ProtocolError("expected an array of numbers")
    if len(shape) > 8 or any(type(n) is not int or not 0 <= n <= MAX_DATA for n in shape):
        raise ProtocolError("expected a shape of at most 8 lengths")
    return np.dtype(name).newbyteorder("<"), tuple(shape)


def _value(
    plain: Any,
    arrays: list[np.ndarray],
    function: Callable[[int], Any] | None,
    depth: int,
    budget: list[int],
) -> Any:
    budget[0] -= 1
    if depth > MAX_DEPTH or budget[0] < 0:
        raise ProtocolError("expected shorter or less deeply nested lists")
    kind = type(plain)
    if plain is None or kind is bool or kind is float:
        return plain
    if kind is int and -(2**63) <= plain < 2**64:
        return plain
    if kind is str and len(plain) <= MAX_TEXT:
        return plain
    if kind is list:
        return [_value(item, arrays, function, depth + 1, budget) for item in plain]
    if kind is dict and set(plain) == {"array"}:
        return arrays[_index(plain["array"], len(arrays))]
    if kind is dict and set(plain) == {"handle", "text"} and type(plain["text"]) is str:
        return Handle(_index(plain["handle"], MAX_ITEMS), plain["text"][:200])
    if kind is dict and set(plain) == {"function"}:
        if function is None:
            raise ProtocolError("expected no function from the student's side")
        return function(_index(plain["function"], MAX_ITEMS))
    raise ProtocolError("expected a plain value")


def _index(number: Any, end: int) -> int:
    if type(number) is not int or not 0 <= number < end:
        raise ProtocolError(f"expected a number below {end}")
    return number


def read_frame(
    read: Callable[[int], bytes], function: Callable[[int], Any] | None = None
) -> tuple[str, dict[str, Any]]:
    """The next frame of a stream, as `unpack`, where ``read(n)`` gives exactly n bytes."""
    header, data = lengths(read(LENGTHS.size))
    return unpack(read(header), read(data), function)
