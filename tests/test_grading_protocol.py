"""Frames: plain values survive the way there and back, and nothing else is believed."""

from __future__ import annotations

import io
import json
import pickle
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dgm_course.grading import protocol
from dgm_course.grading.answers import CheckFailed, Handle
from dgm_course.grading.checks import counting_rule, expect_array, random_rule
from dgm_course.grading.protocol import LENGTHS, Function, ProtocolError, pack, read_frame, unpack

VALUES = [
    None,
    True,
    0,
    -(2**63),
    2**64 - 1,
    0.1,
    float("inf"),
    "",
    "<b>∑\x1b[2J\x00\ud800",
    [],
    [1, [2.5, ["a", None]], False],
]
ARRAYS = [
    np.arange(6).reshape(2, 3),
    np.arange(6, dtype=np.float32).reshape(3, 2).T,
    np.array(2.5),
    np.zeros((0, 4), np.uint8),
    np.array([True, False]),
    np.array([np.nan, np.inf]),
    np.arange(3, dtype=">i4"),
    np.arange(10)[::-2],
]


def there_and_back(value: Any) -> Any:
    kind, fields = read_frame(io.BytesIO(pack("kind", value=value)).read)
    assert kind == "kind"
    return fields["value"]


@pytest.mark.parametrize("value", VALUES)
def test_plain_values_survive(value: Any) -> None:
    back = there_and_back(value)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("array", ARRAYS)
def test_arrays_survive(array: np.ndarray) -> None:
    back, twice = there_and_back([array, array])
    np.testing.assert_array_equal(back, array)
    np.testing.assert_array_equal(twice, array)
    assert back.dtype == array.dtype.newbyteorder("=")
    assert type(back) is np.ndarray
    assert back.flags.writeable


def test_handles_survive_and_functions_come_as_what_stands_for_them() -> None:
    assert there_and_back(Handle(3, "a module")) == Handle(3, "a module")
    frame = pack("call", arguments=[Function(7), 1])
    assert read_frame(io.BytesIO(frame).read, hex) == ("call", {"arguments": ["0x7", 1]})
    with pytest.raises(ProtocolError, match="no function from the student's side"):
        read_frame(io.BytesIO(frame).read)


class Text(str):
    def __len__(self) -> int:
        return 0


@pytest.mark.parametrize(
    "value",
    [
        2**64,
        -(2**63) - 1,
        "x" * 20_001,
        [0] * 10_001,
        [[[[[[[[[[1]]]]]]]]]],
        b"bytes",
        {"a": 1},
        {1},
        (x for x in [1]),
        1j,
        object(),
        print,
        Text("a"),
        np.array([1, None], object),
        np.array(["a"]),
        np.array([1j]),
        np.zeros(2, [("a", "f4")]),
        np.array(["2020-01-01"], "datetime64[D]"),
        np.zeros(3, np.longdouble),
        np.zeros(3).view(type("Sub", (np.ndarray,), {})),
        np.float64(1),
        np.zeros(8_000_001),
    ],
    ids=lambda value: type(value).__name__,
)
def test_nothing_else_is_sent(value: Any) -> None:
    with pytest.raises(ProtocolError):
        pack("kind", value=value)


def frame(value: Any = None, arrays: Any = (), **header: Any) -> bytes:
    return json.dumps({"kind": "k", "fields": {"v": value}, "arrays": arrays} | header).encode()


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (b"", b""),
        (b"\xff\xfe", b""),
        (b"[1]", b""),
        (b"null", b""),
        (b'{"kind": "k"', b""),
        (b"[" * 100_000, b""),
        (pickle.dumps({"kind": "k"}), b""),
        (frame(kind=1), b""),
        (frame(fields=[]), b""),
        (frame(arrays={}), b""),
        (frame({"array": 0}), b""),
        (frame({"array": -1}, [["int8", [1]]]), b"a"),
        (frame({"array": True}, [["int8", [1]], ["int8", [0]]]), b"a"),
        (frame({"array": 0, "x": 1}, [["int8", [1]]]), b"a"),
        (frame({"handle": 0}), b""),
        (frame({"handle": -1, "text": ""}), b""),
        (frame({"handle": 1.0, "text": ""}), b""),
        (frame({"handle": 0, "text": 1}), b""),
        (frame({"handle": 0, "text": "", "array": 0}), b""),
        (frame({"module": 0, "text": ""}), b""),
        (frame({"a": 1}), b""),
        (frame(10**30), b""),
        (frame("x" * 20_001), b""),
        (frame([[[[[[[[[[1]]]]]]]]]]), b""),
        (frame([0] * 10_001), b""),
        (frame(arrays=[["int8", [2]]]), b"a"),
        (frame(arrays=[["int8", [1]]]), b"ab"),
        (frame(arrays=[["int8", [-1]]]), b""),
        (frame(arrays=[["int8", [1.0]]]), b"a"),
        (frame(arrays=[["int8", [True]]]), b"a"),
        (frame(arrays=[["int8", 1]]), b"a"),
        (frame(arrays=[["int8", [1] * 9]]), b"a"),
        (frame(arrays=[["int8", [10**30, 0]]]), b""),
        (frame(arrays=[["float64", [10**7] * 8]]), b"a"),
        (frame(arrays=[["object", [1]]]), b"a" * 8),
        (frame(arrays=[["O", [1]]]), b"a" * 8),
        (frame(arrays=[["<f4,<f4", [1]]]), b"a" * 8),
        (frame(arrays=[["S8", [1]]]), b"a" * 8),
        (frame(arrays=[[["int8"], [1]]]), b"a"),
        (frame(arrays=[["int8"]]), b"a"),
    ],
    ids=lambda value: str(value)[:40],  # some are long
)
def test_nothing_else_is_believed(header: bytes, data: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack(header, data)


def test_a_frame_cannot_announce_too_much() -> None:
    for announced in ((protocol.MAX_HEADER + 1, 0), (0, protocol.MAX_DATA + 1), (2**64 - 1, 0)):
        with pytest.raises(ProtocolError):
            protocol.lengths(LENGTHS.pack(*announced))


def test_damaged_frames_are_refused_or_read_as_plain_values() -> None:
    whole = pack("k", v=[1, "a", ARRAYS[0], Handle(1, "m")])
    n_header = LENGTHS.unpack(whole[:16])[0]
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(3000):
        damaged = bytearray(whole[16:])
        for at in rng.integers(0, len(damaged), rng.integers(1, 4)):
            damaged[at] = rng.integers(0, 256)
        try:
            _, fields = unpack(bytes(damaged[:n_header]), bytes(damaged[n_header:]))
        except ProtocolError:
            refused += 1
        else:
            assert all(
                type(x) in (int, str, float, bool, type(None), np.ndarray, Handle, list)
                for x in fields.get("v") or []
            )
    assert 500 < refused < 3000


# --- bounds: what a frame may cost whoever reads it --------------------------------------------


def peak(action: Callable[[], object]) -> float:
    """The memory that an action takes at its peak, in MB; it may refuse."""
    tracemalloc.start()
    try:
        action()
    except (ProtocolError, CheckFailed):
        pass
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return most / 1e6


def whole(item: str, arrays: str = "") -> bytes:
    """A header of as many items as it may hold bytes."""
    body = '{"kind": "k", "fields": {"v": [%s]}, "arrays": [%s]}'
    room = protocol.MAX_HEADER - len(body)
    many = ",".join([item or arrays] * (room // (len(item or arrays) + 1)))
    return (body % ((many, "") if item else ("", many))).encode()


@pytest.mark.parametrize(
    "header",
    [
        whole("[]"),
        whole("{}"),
        whole("[[[[[[]]]]]]"),
        whole("[" * 50_000 + "]" * 50_000),
        whole("1.5"),
        whole("9" * 18),
        whole('"ab"'),
        whole('{"a":0}'),
        whole('{"handle": 1, "text": ""}'),
        whole("", '["int8",[0]]'),
        whole("", '["float64",[0,1,1,1,1,1,1,1]]'),
    ],
    ids=lambda header: header[27:60].decode(),
)
def test_a_header_that_is_read_takes_little_memory(header: bytes) -> None:
    assert len(header) <= protocol.MAX_HEADER
    assert peak(lambda: unpack(header, b"")) < 60


def test_arrays_take_what_they_hold_however_often_they_are_named() -> None:
    named = ",".join(['{"array": 0}'] * 9_000)
    header = '{"kind": "k", "fields": {"v": [%s]}, "arrays": [["int8", [%d]]]}'
    data = bytes(protocol.MAX_ANSWER)
    assert peak(lambda: unpack((header % (named, len(data))).encode(), data)) < 20


def test_a_student_sends_no_more_than_an_answer_may_hold() -> None:
    within, over = (np.zeros(protocol.MAX_ANSWER + n, np.uint8) for n in (0, 1))
    assert pack("value", protocol.MAX_ANSWER, value=within)
    with pytest.raises(ProtocolError, match="8000000 of numbers, got .* and 8000001"):
        pack("value", protocol.MAX_ANSWER, value=over)
    announced = LENGTHS.pack(2, protocol.MAX_ANSWER + 1)
    assert protocol.lengths(announced) == (2, protocol.MAX_ANSWER + 1)
    with pytest.raises(ProtocolError, match="shorter frame"):
        protocol.lengths(announced, protocol.MAX_ANSWER)


@pytest.mark.parametrize("rule", [random_rule(4, (1, 3), 0), counting_rule(9, (3, 8))])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64])
def test_a_function_of_a_test_takes_no_more_images_than_it_needs(rule: Any, dtype: Any) -> None:
    pixels = rule.size[0] * rule.size[1]
    n = protocol.MAX_ANSWER // (pixels * np.dtype(dtype).itemsize)
    images = np.zeros((n, 1, *rule.size), dtype)
    with pytest.raises(CheckFailed, match="to be given at most .* images; got"):
        rule(images)
    assert peak(lambda: rule(images)) < 40
    assert peak(lambda: rule(images[: 1_000_000 // (pixels * rule.n_levels)])) < 150


@pytest.mark.parametrize("dtype", [np.int8, np.float16, np.float64])
def test_a_large_answer_costs_a_test_little_more_than_itself(dtype: Any) -> None:
    value = np.broadcast_to(np.zeros(1, dtype), (8_000_000 // np.dtype(dtype).itemsize,)).copy()
    assert peak(lambda: expect_array(value, (3, 4), "x")) < 1
    assert peak(lambda: expect_array(value, (None,), "x")) < 20
