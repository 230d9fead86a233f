"""Which of a student's cells run, what is said of the others, and what the seed decides."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dgm_course.grading import rehearsal
from dgm_course.grading.grade import Assignment, draws, grade
from dgm_course.grading.matching import Own, first_setup, is_setup, program, recognise, written
from dgm_course.grading.notebook import Cell, NotANotebook, parse
from dgm_course.grading.running import without_magics
from dgm_course.grading.submissions import find
from dgm_course.grading.walls import Limits
from tests.grading import light
from tests.grading.bad import marks
from tests.grading.light import cell, submission
from tests.grading.prepared import sandboxes
from tests.needs import needs

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def assignment(tmp_path: Path) -> Assignment:
    return Assignment.read(light.write(light.source(), tmp_path / "light.ipynb"))


def matched(made: dict[str, Any], assignment: Assignment) -> tuple[list[Own], list[str]]:
    notes: list[str] = []
    return recognise(parse(json.dumps(made).encode(), notes), assignment.cells, notes), notes


def test_no_released_test_of_a_submission_runs_and_set_up_comes_from_the_source(
    assignment: Assignment,
) -> None:
    made = submission()
    made["cells"] += [{**one, "metadata": {}} for one in made["cells"]]  # and copies without ids
    marks(made, "test-1")["source"] += "\n# written by the student"
    made["cells"].append(cell("code", "own = 1"))
    made["cells"][-1]["metadata"]["tags"] = ["training"]
    own, notes = matched(made, assignment)
    ran = program(own, assignment.cells).values()
    assert not any("test_" in source or "✓" in source for source in ran)
    assert not any("import math" in source or "own = 1" in source for source in ran)
    assert sum("def softmax" in source for source in ran) == 2
    assert [cell.grade_id for cell in first_setup(assignment.cells)] == ["setup"]
    assert notes == ["cell 4 is test-1, but changed: the release's is asked"]


def test_a_test_sees_the_cells_above_it(assignment: Assignment) -> None:
    made = submission()
    made["cells"].insert(3, cell("code", "between = 1"))
    made["cells"].append(cell("code", "after = 1"))
    own, notes = matched(made, assignment)
    ran = [list(program(own, assignment.cells, test).values()) for test in assignment.tests]
    assert [len(sources) for sources in ran] == [2, 3, 4]
    assert all("between = 1" in sources for sources in ran)
    assert notes == []


def test_an_answer_that_was_moved_below_its_test_still_runs(assignment: Assignment) -> None:
    made = submission()
    made["cells"].append(made["cells"].pop(2))
    own, _ = matched(made, assignment)
    ran = program(own, assignment.cells, assignment.tests[0])
    assert any("def softmax" in source for source in ran.values())


def test_later_set_up_runs_before_what_follows_it_in_the_release() -> None:
    marks: dict[str, Callable[..., dict[str, Any]]] = {
        "set-up": lambda name: {"grade_id": name, "locked": True},
        "answer": lambda name: {"grade_id": name, "solution": True},
        "test": lambda name: {"grade_id": name, "grade": True, "points": 1},
    }
    names = ["set-up 0", "answer 1", "set-up 1", "answer 2", "test 2"]
    cells = [
        Cell(i, "code", name, [], marks[name.split()[0]](name)) for i, name in enumerate(names)
    ]
    assignment = Assignment("a", cells, "")
    assert [cell.source for cell in cells if is_setup(cell)] == ["set-up 0", "set-up 1"]
    own = [
        Own(Cell(9, "code", "mine 2", [], {}), cells[3]),
        Own(Cell(8, "code", "x", [], {}), None),
    ]
    own.insert(0, Own(Cell(7, "code", "mine 1", [], {}), cells[1]))
    ran = [*program(own, assignment.cells, cells[4]).values()]
    assert ran == ["mine 1", "set-up 1", "mine 2", "x"]
    assert [*program(own[2:], assignment.cells, cells[4]).values()] == ["x", "set-up 1"]


MAGIC = "get_ipython().run_line_magic"


@pytest.mark.parametrize(
    ("source", "plain", "magics"),
    [
        ("x = 1", "x = 1", []),
        ("%matplotlib inline\nx = 1", "pass\nx = 1", ["%matplotlib inline"]),
        ("if True:\n    !ls\n    x = 1", "if True:\n    pass\n    x = 1", ["!ls"]),
        ("x = !ls\ny = %who", f"x = []\ny = {MAGIC}('who')", ["x = !ls", "y = %who"]),
        ("help?\n?help", "pass\npass", ["help?", "?help"]),
        ("%%time\nx = 1", "\nx = 1", ["%%time"]),
        ("\n%%bash\nrm -r x", "", ["%%bash"]),
        ("x = '''\n%a\n!b\n'''", "x = '''\n%a\n!b\n'''", []),
        ("x = 7 \\\n% 4", "x = 7 \\\n% 4", []),
        ("def f(:", "def f(:", []),
        ("", "", []),
    ],
)
def test_magics_are_taken_out_and_named(source: str, plain: str, magics: list[str]) -> None:
    assert without_magics(source) == (plain, magics)


SAID = "It halves the interval."
EMPTY = "YOUR ANSWER HERE"


def added(source: str, kind: str = "markdown", below: int = 1) -> Change:
    """A cell of one's own beside the written answer."""

    def change(made: dict[str, Any]) -> None:
        at = made["cells"].index(marks(made, "answer-4"))
        made["cells"].insert(at + below, cell(kind, source))

    return change


def wrote(source: str, **changed: Any) -> Change:
    return lambda made: marks(made, "answer-4").update(source=source, **changed)


@pytest.mark.parametrize(
    ("changes", "text", "note"),
    [
        ([wrote(SAID)], SAID, ""),
        ([wrote(f"{EMPTY}\n\n{SAID}")], f"{EMPTY}\n\n{SAID}", "still holds the placeholder"),
        ([wrote(f"{SAID}\n\n**{EMPTY}**")], f"{SAID}\n\n**{EMPTY}**", "still holds"),
        ([wrote(f"{EMPTY}: {SAID}")], f"{EMPTY}: {SAID}", "still holds the placeholder"),
        ([added(SAID)], SAID, "answer-4: taken from cell 10 too"),
        ([added(""), added(SAID)], SAID, "taken from cell 11 too"),
        ([added(SAID, "raw")], SAID, "taken from cell 10 too"),
        ([added("x = 1", "code"), added(SAID)], SAID, "taken from cell 11 too"),
        ([added(SAID, "code")], SAID, "taken from cell 10 too"),
        ([added(f"# {SAID}", "code")], f"# {SAID}", "taken from cell 10 too"),
        ([added("print(log2(4e6))", "code")], "", "is empty, but words may be in cell 10"),
        ([added("## Mine"), wrote(SAID)], f"{SAID}\n\n## Mine", "taken from cell 10 too"),
        ([added(SAID, below=0)], SAID, "taken from cell 9 too"),
        ([added("a note", below=0), wrote(SAID)], SAID, ""),
        ([wrote(SAID, cell_type="code")], SAID, "answer-4 is a code cell, not markdown"),
        ([wrote(SAID, cell_type="raw")], SAID, "answer-4 is a raw cell, not markdown"),
        ([wrote(SAID, metadata={})], SAID, "taken from cell 9 too"),
        ([wrote("![](attachment:a.png)")], "![](attachment:a.png)", "shows a picture"),
        ([wrote(EMPTY)], "", ""),
        ([wrote(f"\r\n{EMPTY} \r\n\r\n")], "", ""),
        ([wrote(f"**{EMPTY}**")], "", ""),
        ([wrote(" \n")], "", ""),
        ([wrote(EMPTY, cell_type="code")], "", "answer-4 is a code cell"),
        ([lambda made: made["cells"].pop()], "", "answer-4 is missing"),
    ],
)
def test_a_written_answer_is_empty_only_if_nothing_stands_there(
    changes: list[Change], text: str, note: str, assignment: Assignment
) -> None:
    made = submission(answer_4=EMPTY)
    for change in reversed(changes):
        change(made)
    for released in (assignment.cells, parse(json.dumps(light.released()).encode(), [])):
        notes: list[str] = []
        own = recognise(parse(json.dumps(made).encode(), []), released, notes)
        ((task, found),) = written(own, released, notes)
        assert (task.grade_id, found) == ("answer-4", text)
        assert any(note in said for said in notes) if note else not notes, notes
    assert not any(mine.runs for mine in own if mine.of is task)


def test_text_added_to_the_task_is_handed_out(assignment: Assignment) -> None:
    source, made = light.source(), submission(answer_4=EMPTY)
    for notebook in (source, made):
        task = cell("markdown", "## 4 · How many steps?", "task-4", locked=True)
        notebook["cells"].insert(-1, task)
    made["cells"][-2]["source"] += f"\n\n{SAID}"
    released = parse(json.dumps(source).encode(), [])
    notes: list[str] = []
    own = recognise(parse(json.dumps(made).encode(), []), released, notes)
    assert [text for _, text in written(own, released, notes)] == [SAID]
    assert notes == ["answer-4: taken from cell 9 too"]


def test_an_answer_that_is_tagged_does_not_run_and_is_reported(assignment: Assignment) -> None:
    made = submission()
    marks(made, "answer-1")["metadata"]["tags"] = ["training"]
    own, notes = matched(made, assignment)
    assert not any("def softmax" in source for source in program(own, assignment.cells).values())
    assert notes == ["answer-1 is tagged training: not run; needs a look"]


def test_a_training_cell_that_has_lost_its_tag_is_known_by_its_text(tmp_path: Path) -> None:
    source = light.source()
    source["cells"].insert(3, cell("code", "train_for_hours()"))
    source["cells"][3]["metadata"]["tags"] = ["training"]
    assignment = Assignment.read(light.write(source, tmp_path / "light.ipynb"))
    made = submission()
    made["cells"].insert(3, cell("code", "train_for_hours()"))
    made["cells"].append(cell("code", "train_for_hours(2)"))
    own, notes = matched(made, assignment)
    ran = [*program(own, assignment.cells).values()]
    assert "train_for_hours()" not in ran
    assert ran[-1] == "train_for_hours(2)"
    assert notes == []


def test_a_check_goes_on_after_an_interrupted_cell_and_names_a_slow_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rehearsal, "SLOW", -1)
    sources = ["raise KeyboardInterrupt", "after = 1"]
    cells = [Cell(i, "code", source, [], {}) for i, source in enumerate(sources, start=1)]
    done = rehearsal.Submission(cells).run()
    assert done.names["after"] == 1
    assert done.stopped[0].startswith("cell 1 stopped: KeyboardInterrupt")
    assert done.stopped[-1] == "cell 2 took 0 seconds: too long unless tagged training"


def test_a_notebook_of_an_older_format_is_refused_with_what_converts_it() -> None:
    with pytest.raises(NotANotebook, match="no notebook of format 4 but of 3: jupyter nbconvert"):
        parse(b'{"nbformat": 3, "worksheets": []}', [])


def test_each_run_draws_other_inputs_and_the_same_seed_the_same() -> None:
    drawn = []
    for seed in (1, 1, 2):
        with draws(seed):
            drawn.append([np.random.default_rng(number).random() for number in (0, 5)])
            generator = np.random.default_rng()
            drawn[-1] += [generator.random(), np.random.default_rng(seed=np.int64(5)).random()]
            assert np.random.default_rng(generator) is generator  # as libraries pass them on
    assert drawn[0] == drawn[1]
    assert len({*drawn[0]}) == 3
    assert drawn[0][1] == drawn[0][3]
    assert not {*drawn[0]} & {*drawn[2]}
    assert np.random.default_rng(0).random() == np.random.Generator(np.random.PCG64(0)).random()


@needs("bubblewrap")
def test_a_result_says_what_it_rests_on(assignment: Assignment, tmp_path: Path) -> None:
    light.write(submission(), tmp_path / "all" / "ann" / "light.ipynb")
    (entry,), _ = find(tmp_path / "all")
    results = [grade(assignment, entry, seed=seed, limits=Limits()) for seed in (3, 3)]
    for result in results:
        assert result.pop("seconds") > 0
        assert all(test.pop("seconds") > 0 for test in result["tests"])
    assert results[0] == results[1]
    assert results[0]["seed"] == 3
    assert {"python", "numpy", "torch", "dgm_course"} <= {*results[0]["versions"]}
    assert len(results[0]["digest"]) == len(results[0]["source"]) == 64


@needs("bubblewrap")
def test_a_prepared_sandbox_serves_until_a_submission_breaks_it(
    assignment: Assignment, tmp_path: Path
) -> None:
    kill = "import os, time\ndef softmax(x):\n    os.kill(os.getppid(), 9)\n    time.sleep(60)"
    answers = {"right": {}, "wrong": {"answer_1": "x = 1"}, "kills": {"answer_1": kill}}
    for name, changed in answers.items():
        light.write(submission(**changed), tmp_path / "all" / name / "light.ipynb")
    entries = {entry.student: entry for entry in find(tmp_path / "all")[0]}
    points, used = [], []
    with sandboxes() as waiting:
        for name in ("right", "wrong", "right", "kills", "right"):
            result = grade(assignment, entries[name], seed=3, limits=Limits())
            points.append(result["points"])
            used.append(waiting.sandbox)
    assert points == [8, 5, 8, 5, 8]
    assert used[0] is used[1] is used[2] is not used[3]
    assert used[3] is used[4]
    assert waiting.sandbox is not None
    assert waiting.sandbox._process.returncode is not None  # ended with the block
