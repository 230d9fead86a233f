"""Tables that people edit: what spreadsheets make of them is read, and nothing of it is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dgm_course.grading import by_hand, report
from dgm_course.grading.grade import Assignment
from dgm_course.grading.submissions import find
from dgm_course.grading.tables import number, read_table
from tests.grading import light
from tests.test_grading_report import result

COLUMNS = "student_id,grade_id,max_points,points,comment"
# What is filled in, as the cells of a spreadsheet.
CELLS = [
    COLUMNS.split(","),
    ["ann", "answer-4", "2", "1.5", "well, nearly"],
    ["bob", "answer-4", "2", "", ""],
    ["Zoë", "answer-4", "2", "2", 'says "good"\nand more'],
]
DUE = {("ann", "answer-4"): 1.5, ("Zoë", "answer-4"): 2.0}


def saved(delimiter: str = ",", newline: str = "\n", comma: bool = False) -> str:
    """As a spreadsheet saves it: quotes where they are needed."""

    def cell(text: str) -> str:
        text = text.replace("1.5", "1,5") if comma else text
        quote = any(c in text for c in (delimiter, '"', "\n"))
        return '"{}"'.format(text.replace('"', '""')) if quote else text

    return "".join(delimiter.join(map(cell, row)) + newline for row in CELLS)


SAVED: dict[str, bytes] = {
    "commas": saved().encode(),
    "Excel, comma as decimal sign": saved(";", "\r\n", True).encode("utf-8-sig"),
    "commas in quotes": saved(comma=True).encode(),
    "semicolons in Windows-1252": saved(";", "\r\n", True).encode("cp1252"),
    "Excel's Unicode text": saved("\t", "\r\n", True).encode("utf-16"),
    "UTF-16 without a mark": saved("\t").encode("utf-16-le"),
    "UTF-16, big end first": b"\xfe\xff" + saved(";").encode("utf-16-be"),
    "an old Mac's lines": saved(";", "\r").replace("\nand", " and").encode(),
    "the separator said": f"sep=;\r\n{saved(';', comma=True)}".encode(),
    "another separator said": f"sep=|\n{saved('|')}".encode(),
    "empty rows and columns": (
        saved().replace("\n", ",,\n").replace('good""",,\nand', 'good""\nand') + ",,,,,,\n\n"
    )
    .replace('"says ""good"",,\nand', '"says ""good""\nand')
    .encode(),
    "capitals and spaces": saved()
    .replace(COLUMNS, " Student ID,Grade_Id ,MAX POINTS,\u00a0Points,Comment")
    .encode(),
    "spaces around numbers": saved().replace(",1.5,", ",\u00a01.5 ,").encode(),
    "no comma behind": saved().replace("bob,answer-4,2,,", "bob,answer-4,2").encode(),
    "everything in quotes": '"{}"\n'.format(COLUMNS.replace(",", '";"')).encode()
    + '"ann";"answer-4";"2";"1,5";"well, nearly"\n"Zoë";"answer-4";"2";"2,0";""'.encode(),
    "other columns, in another order": (
        b"tutor;points;grade_id;student_id;;comment\n"
        b"eve;1,5;answer-4;ann;x;well, nearly\n;2;answer-4;Zo\xc3\xab;;\n"
    ),
}


@pytest.fixture
def assignment(tmp_path: Path) -> Assignment:
    return Assignment.read(light.write(light.source(), tmp_path / "light.ipynb"))


Scores = Callable[[bytes], Path]


@pytest.fixture
def scores(tmp_path: Path) -> Scores:
    def write(data: bytes) -> Path:
        path = tmp_path / "out" / "by_hand" / "scores.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize("name", SAVED)
def test_what_spreadsheets_save_is_read_and_only_added_to(
    name: str, scores: Scores, assignment: Assignment, tmp_path: Path
) -> None:
    path, out = scores(SAVED[name]), tmp_path / "out"
    points, comments, _ = by_hand.take_back(assignment, [], out)
    assert points == DUE
    assert comments["ann", "answer-4"] == "well, nearly" or "," in name
    everybody = [result(student) for student in ("ann", "bob", "Zoë")]
    by_hand.hand_out(assignment, everybody[::2], out)
    assert path.read_bytes() == SAVED[name]  # nobody is new
    by_hand.hand_out(assignment, [*everybody, result("Łucja")], out)
    before, after = (read.decode("latin-1").rstrip() for read in (SAVED[name], path.read_bytes()))
    assert after.startswith(before) or "Windows-1252" in name  # which has no Ł
    assert by_hand.take_back(assignment, everybody, out)[:2] == (points, comments)
    table = read_table(path, {"student_id"})
    names = [row["student_id"] for _, row in table.records(["student_id"])]
    assert names[-1] == "Łucja"
    assert sorted(names) == ["Zoë", "ann", "bob", "Łucja"]


HEAD = COLUMNS + "\nann,answer-4,2,1,\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEAD}bob,answer-4,2,01. Mai,", "line 3: .* from 0 to 2, got '01. Mai'"),
        (f"{HEAD}\n\nbob,answer-4,2,1-May,", "line 5: .* from 0 to 2, got '1-May'"),
        (f"{HEAD}bob,answer-4,2,45413,", "line 3: .* from 0 to 2, got '45413'"),
        (f'{HEAD}bob,answer-4,2,"1.234,5",', "line 3: .*got '1.234,5'"),
        (f"{HEAD}bob,answer-4,2,-1,", "line 3: .* from 0 to 2, got '-1'"),
        (f"{HEAD}bob,answer-4,2,2.5,", "line 3: .*the points of bob .* from 0 to 2, got '2.5'"),
        (f"{HEAD}bob,answer-4,9,3,", "line 3: .* from 0 to 2, got '3'"),
        (f"{HEAD}bob,answer-4,2,1_0,", "line 3: .*got '1_0'"),
        (f"{HEAD}bob,answer-4,2,50%,", "line 3: .*got '50%'"),
        (f"{HEAD}bob,answer-4,2,#REF!,", "line 3: .*got '#REF!'"),
        (f"{HEAD}bob,answer-4,2,inf,", "line 3: .*got 'inf'"),
        (f"{HEAD}bob,answer-4,2,1,5,", "line 3: expected 5 cells, got 6"),
        (f"{HEAD}bob;answer-4;2;1;", "line 3: expected 5 cells with ',' between them"),
        (f"{HEAD}bob,answer-4,2,1,5", "line 3: expected words as the comment .*, got '5'"),
        (f"{HEAD}bob,answer-4,2,0,75\n", "line 3: expected words as the comment .*, got '75'"),
        (f"{HEAD}bob,answer-4,2,,1.5", "line 3: expected words as the comment .*, got '1.5'"),
        (f"{HEAD}ann,answer-4,2,1.5,", "line 3: expected one row of ann .* line 2"),
        (f"{HEAD},answer-4,2,1.5,", "line 3: expected a student_id and a grade_id"),
        (f'{HEAD}bob,answer-4,2,1,"half', "line 3: not a row of cells"),
        ("student_id;points\nann;1", "expected columns grade_id; got student_id, points"),
        (COLUMNS + ",Points\nann,answer-4,2,1,,2", "expected one column points, got 2"),
        ("PK\x03\x04", "got an Excel or OpenDocument file"),
        ("", "expected columns .*; got no column"),
        ("\x00\x01\x02", "expected text in UTF-8"),
    ],
)
def test_the_rest_is_refused_and_left_as_it_is(
    text: str, message: str, scores: Scores, assignment: Assignment, tmp_path: Path
) -> None:
    path = scores(text.encode())
    with pytest.raises(ValueError, match=rf"scores\.csv(, |: ).*{message}"):
        by_hand.take_back(assignment, [], tmp_path / "out")
    with pytest.raises(ValueError, match=message):
        by_hand.hand_out(assignment, [result("ann"), result("new")], tmp_path / "out")
    assert path.read_bytes() == text.encode()
    assert [*(tmp_path / "out").rglob("*.txt")] == []


def test_an_accent_is_one_letter_or_two(
    scores: Scores, assignment: Assignment, tmp_path: Path
) -> None:
    """As macOS and other systems write the same name."""
    one, two = "Zo\u00eb", "Zoe\u0308"
    scores(f"{COLUMNS}\n{two},answer-4,2,1,\n".encode())
    results = [result(one)]
    points, _, strangers = by_hand.take_back(assignment, results, tmp_path / "out")
    assert points == {(one, "answer-4"): 1}
    assert strangers == []
    students = tmp_path / "students.csv"
    students.write_text(f"student_id,days_late,penalty_per_day\n{two},1,0.5\n", encoding="utf-8")
    (grade,) = report.grades(results, report.read_students(students), points)
    assert grade.penalty == 0.5
    for folder in (two, f"{two}_12_assignsubmission_file_"):
        light.write(light.submission(), tmp_path / folder / folder / f"{light.NAME}.ipynb")
        (entry,), _ = find(tmp_path / folder)
        assert entry.student.startswith(one)


def test_rows_of_nobody_are_kept_and_named(
    scores: Scores, assignment: Assignment, tmp_path: Path
) -> None:
    text = f"{HEAD}ann,answer-9,2,1,\nzoe,answer-4,2,2,\ntom,answer-4,2,,\nmean,,,,1.2\n"
    path, out = scores(text.encode()), tmp_path / "out"
    by_hand.hand_out(assignment, [result("ann")], out)
    assert path.read_text() == text
    _, _, named = by_hand.take_back(assignment, [result("ann")], out)
    assert [name.partition(", line ")[2] for name in named] == [
        "3: ann has no answer-9 now; not counted",
        "4: zoe has no answer-4 now; not counted",
    ]


def test_a_name_that_would_be_a_formula_is_found_again(
    scores: Scores, assignment: Assignment, tmp_path: Path
) -> None:
    """Some spreadsheets take the quote before it for their own."""
    scores(f"{COLUMNS}\n=b/2,answer-4,2,1,\n'=c,answer-4,2,2,\n".encode())
    points, _, _ = by_hand.take_back(assignment, [], tmp_path / "out")
    keys = [report.key_of(result("=b", "2")), report.key_of(result("=c"))]
    assert points == dict(zip(((key, "answer-4") for key in keys), (1, 2), strict=True))


def test_a_number_without_its_zeros_is_found_again(
    scores: Scores, assignment: Assignment, tmp_path: Path
) -> None:
    path = scores(f"{COLUMNS}\n7,answer-4,2,1,\n8,answer-4,2,2,\n90,answer-4,2,0,\n".encode())
    before, out = path.read_bytes(), tmp_path / "out"
    results = [result(student) for student in ("007", "8", "090", "0090")]
    points, _, (stranger,) = by_hand.take_back(assignment, results, out)
    assert points == {("007", "answer-4"): 1, ("8", "answer-4"): 2, ("90", "answer-4"): 0}
    assert "line 4: 90 has no answer-4" in stranger  # whose of two it is is not guessed
    by_hand.hand_out(assignment, results[:2], out)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("0", 0), ("1.5", 1.5), ("1,50", 1.5), (",5", 0.5), ("2.", 2), ("1,5E+00", 1.5)],
)
def test_numbers_have_a_point_or_a_comma(text: str, value: float) -> None:
    assert number(text, "it") == number(f" {text}\u00a0", "it") == value


@pytest.mark.parametrize(
    "text", ["1.2.3", "1,2,3", "1 000", "01.05", "1/2", "١", "1e999", "+1", "−1"]
)
def test_other_numbers_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected it to be a number from 0, got"):
        number(text, "it")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_the_table_of_students_is_read_as_well(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "students.csv"
    text = "Student ID;Last Name;Days late;penalty_per_day;Keep;;\r\n*;;;0,5;Last;;\r\n\r\n"
    path.write_bytes(f"{text}Zoë;Müller;2,0;;;;\r\n".encode(encoding))
    assert report.read_students(path) == {
        "*": {"penalty_per_day": "0.5", "keep": "last"},
        "Zoë": {"last_name": "Müller", "days_late": "2.0"},
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("ann;1,5,0;", "line 4: expected days_late of ann to be a number from 0, got '1,5,0'"),
        ("ann;;20.11.2026", "line 4: expected timestamp of ann to be a date .* got '20.11.2026'"),
        ("bob;;", "line 4: expected each student_id once"),
    ],
)
def test_its_mistakes_are_named_with_their_lines(row: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "students.csv"
    path.write_text(f"student_id;days_late;timestamp\n\nbob;1,5;\n{row}\n")
    with pytest.raises(ValueError, match=message):
        report.read_students(path)


# --- what else a person writes in -----------------------------------------------------------------


def answered(text: str) -> list[dict[str, object]]:
    one = result("ann")
    return [one | {"written": [one["written"][0] | {"text": text}]}]


def test_notes_in_an_answer_or_a_rubric_stay(assignment: Assignment, tmp_path: Path) -> None:
    folder = tmp_path / "by_hand" / "answer-4"
    by_hand.hand_out(assignment, answered("first"), tmp_path)
    rubric, answer = folder / "RUBRIC.txt", folder / "ann.txt"
    for path in (rubric, answer):
        path.write_text(path.read_text() + "my own note")
    own = rubric.read_text()
    by_hand.hand_out(assignment, answered("first"), tmp_path)
    assert rubric.read_text() == own
    assert answer.read_text() == "first\nmy own note"
    by_hand.hand_out(assignment, answered("second"), tmp_path)
    assert answer.read_text() == "second\n"
    assert (folder / "ann (before 1).txt").read_text() == "first\nmy own note"
    by_hand.hand_out(assignment, answered("third"), tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [
        "RUBRIC.txt",
        "ann (before 1).txt",
        "ann.txt",
    ]


@pytest.mark.parametrize("damage", [None, "", "null", '{"texts": []}'])
def test_points_for_a_text_that_has_changed_are_named(
    damage: str | None, assignment: Assignment, tmp_path: Path
) -> None:
    by_hand.hand_out(assignment, answered("first"), tmp_path)
    table = tmp_path / "by_hand" / "scores.csv"
    table.write_text(table.read_text().replace("2,,", "2,1,"))
    assert by_hand.hand_out(assignment, answered("first"), tmp_path) == []
    one = answered("")
    one[0]["written"][0]["empty"] = True  # type: ignore[index]
    assert len(by_hand.hand_out(assignment, one, tmp_path)) == 1
    for _ in range(2):  # until a person says something else
        (named,) = by_hand.hand_out(assignment, answered("second"), tmp_path)
        assert named.startswith("ann: answer-4 has changed since it was graded by hand")
    if damage is not None:
        (tmp_path / "by_hand" / "handed_out.json").write_text(damage)
        by_hand.hand_out(assignment, answered("second"), tmp_path)
    table.write_text(table.read_text().replace("2,1,", "2,1,still"))
    assert by_hand.hand_out(assignment, answered("second"), tmp_path) == []


def test_points_filled_in_just_before_the_text_changed_are_named(
    assignment: Assignment, tmp_path: Path
) -> None:
    by_hand.hand_out(assignment, answered("first"), tmp_path)
    table = tmp_path / "by_hand" / "scores.csv"
    table.write_text(table.read_text().replace("2,,", "2,1,"))
    assert len(by_hand.hand_out(assignment, answered("second"), tmp_path)) == 1
