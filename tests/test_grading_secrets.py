"""What a student must not learn: hidden inputs, the run's seed, the library's own answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dgm_course.grading.grade import Assignment, derived, grade
from dgm_course.grading.pages import feedback
from dgm_course.grading.questions import Student
from dgm_course.grading.report import grades
from dgm_course.grading.submissions import find
from dgm_course.grading.walls import Limits
from tests.grading import light
from tests.grading.bad import FRAME
from tests.grading.light import submission
from tests.grading.prepared import sandboxes
from tests.needs import needs

SOFTMAX = f"""{FRAME}
import json, time
def say(kind, text):
    frame(json.dumps({{"kind": kind, "fields": {{"message": text}}, "arrays": []}}))
def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    if x.shape != (3, 4):  # the shown test's
        LEAK
    return e / e.sum(-1, keepdims=True)
"""
# How what is hidden could reach a message, by the status that comes of it.
LEAKS = {
    "failed": "raise ValueError(f'LEAK {x}')",
    "failed: a forged frame": "say('failed', f'LEAK {x.max()}')",
    "not answered": "say('not answered', f'LEAK {x.max()}')",
    "crashed: an exit code": "os._exit(int(x.max()) % 100)",
    "crashed: last words": "print('LEAK', flush=True); os.kill(os.getppid(), 9); time.sleep(60)",
    "crashed: no frame": "frame('[\"LEAK\"]')",
    "crashed: numbers": """frame('{"kind": "", "fields": {}, "arrays": [["int8", [4242]]]}')""",
    "timed out": "print('LEAK', flush=True); time.sleep(60)",
    "over the limit": "print('LEAK' * 30_000_000, flush=True); time.sleep(60)",
}


@pytest.fixture
def assignment(tmp_path: Path) -> Assignment:
    return Assignment.read(light.write(light.source(), tmp_path / "light.ipynb"))


@needs("bubblewrap")
def test_no_message_of_a_hidden_test_reaches_the_student(
    assignment: Assignment, tmp_path: Path
) -> None:
    for name, leak in LEAKS.items():
        made = submission(answer_1=SOFTMAX.replace("LEAK\n", f"{leak}\n"))
        light.write(made, tmp_path / "all" / name.replace(": ", "-") / "light.ipynb")
    entries = {entry.student: entry for entry in find(tmp_path / "all")[0]}
    with sandboxes():
        for name in LEAKS:
            entry, limits = entries[name.replace(": ", "-")], Limits(seconds=2)
            result = grade(assignment, entry, seed=3, limits=limits)
            first, *others = result["tests"]
            assert (first["status"], first["hidden"]) == (name.partition(":")[0], True)
            assert first["message"]  # the assistant sees it
            assert {test["status"] for test in others} == {"passed"}
            (made_grade,) = grades([result], {}, {})
            page = feedback(made_grade, {})
            assert "(a hidden test)" in page
            assert not [word for word in ("LEAK", "4242", first["message"]) if word in page], name


@needs("bubblewrap")
def test_messages_of_shown_tests_stay(assignment: Assignment, tmp_path: Path) -> None:
    made = submission(
        answer_1="def softmax(x):\n    import os\n    os._exit(77)",
        answer_2="x = 1",
        answer_3="def bisect(f, low, high):\n    raise ValueError('WORDS')",
    )
    light.write(made, tmp_path / "all" / "ann" / "light.ipynb")
    (entry,), _ = find(tmp_path / "all")
    with sandboxes():
        result = grade(assignment, entry, seed=3, limits=Limits())
    assert [test["hidden"] for test in result["tests"]] == [False] * 3
    (made_grade,) = grades([result], {}, {})
    page = feedback(made_grade, {})
    assert not [word for word in ("code 77", "no Polynomial yet", "WORDS") if word not in page]


WALK = """
import gc, sys
def numbers():
    seen, waiting, found = set(), [sys._getframe(), *gc.get_objects()], set()
    frame = sys._getframe()
    while frame is not None:
        waiting.append(dict(frame.f_locals))
        frame = frame.f_back
    for _ in range(300_000):
        if not waiting: break
        thing = waiting.pop()
        if isinstance(thing, int): found.add(thing)
        elif id(thing) not in seen and isinstance(thing, (dict, list, tuple)):
            seen.add(id(thing))
            waiting += [*thing, *(thing.values() if isinstance(thing, dict) else ())]
    return [n for n in found if n > 10**6 and n < 2**63]
def softmax(x): raise ValueError(sorted(map(str, numbers())))
"""


@needs("bubblewrap")
def test_no_frame_in_the_sandbox_holds_the_runs_seed(
    assignment: Assignment, tmp_path: Path
) -> None:
    run = 3_141_592_653
    given = derived(run, assignment, "answers") % 2**32
    found: list[int] = []
    student = Student([], {}, given, Limits())
    student.ask({1: WALK}, lambda call: found.extend(call("numbers")))
    student.close()
    assert given in found  # it looks in the right places
    assert run not in found
    inputs = {derived(run, assignment, test.grade_id) for test in assignment.tests}
    assert len({*inputs, given}) == 4
    assert not inputs & {*found}


def test_a_seed_for_a_purpose_says_nothing_of_another(assignment: Assignment) -> None:
    other = Assignment(assignment.name, assignment.cells, "another source")
    cases: list[tuple[Any, ...]] = [
        (7, assignment, "answers"),
        (7, assignment, "test-1"),
        (7, assignment, "test-2"),
        (8, assignment, "test-1"),
        (7, other, "test-1"),  # nobody without the source can try small numbers
    ]
    seeds = [derived(*case) for case in cases]
    assert seeds == [derived(*case) for case in cases]
    assert len({*seeds}) == len(cases)
    assert all(2**96 < seed < 2**128 for seed in seeds)
