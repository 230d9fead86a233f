"""Pages to read: a student's feedback, and the class report. What students wrote is escaped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from dgm_course.grading.grade import CRASHED
from dgm_course.grading.notes import LOOK
from dgm_course.grading.report import Grade, Result, key_of
from dgm_course.grading.tables import printable

PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 50em; margin: 2em auto; padding: 0 1em; }}
table {{ border-collapse: collapse; }}
th, td {{ border-bottom: 1px solid #ccc; padding: .2em .8em; text-align: left; }}
td {{ white-space: pre-wrap; overflow-wrap: anywhere; vertical-align: top; }}
.bar {{ background: #0072b2; height: 1em; }}
</style>
<h1>{title}</h1>
{body}
</html>
"""
IN_WORDS = {  # a state that says too little by itself
    "crashed": "your code ended the process",
    "timed out": "your code took too long",
    "over the limit": "your code used too much",
    "not run": "not reached: the time for the whole notebook was used up",
}


def text(value: object) -> str:
    """Anything as text of a page."""
    return escape(printable(str(value)))


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["".join(f"<th>{text(x)}</th>" for x in head)]
    lines += ["".join(f"<td>{text(x)}</td>" for x in row) for row in rows]
    return "\n".join(["<table>", *(f"<tr>{line}</tr>" for line in lines), "</table>"])


def _list(items: Iterable[str]) -> str:
    return "\n".join(["<ul>", *(f"<li>{text(item)}</li>" for item in items), "</ul>"])


def feedback(grade: Grade, comments: Mapping[tuple[str, str], str]) -> str:
    """A student's page: what each test asked, expected and got; hidden tests only by name.

    Args:
        comments: on written answers, by submission and task.
    """
    result = grade.result
    if result is None:
        return PAGE.format(title=text(grade.student), body="<p>Nothing was handed in.</p>")
    rows = []
    for test in result["tests"]:
        expected, _, came = test["message"].partition("; got ")
        if test["hidden"]:
            expected, came = "what the shown test expects, which passes", "(a hidden test)"
        state = IN_WORDS.get(test["status"], test["status"])
        points = f"{test['points']:g} of {test['out_of']:g}"
        rows.append([test["title"], points, state, expected.removeprefix("expected "), came])
    for task in result["written"]:
        state = "empty" if task["empty"] else "graded by hand"
        comment = comments.get((key_of(result), task["id"]), "")
        rows.append([task["id"], f"of {task['out_of']:g}", state, comment])
    total = f"{grade.score:g} of {grade.out_of:g} points"
    parts = [f"<p>{text(total)}</p>", _table(["asked", "points", "", "expected", "came"], rows)]
    if remarks := [*grade.remarks, *result["notes"]]:
        parts += ["<h2>Remarks</h2>", _list(remarks)]
    title = text(f"{result['assignment']}: {key_of(result)}")
    return PAGE.format(title=title, body="\n".join(parts))


def class_report(
    made: list[Grade],
    results: list[Result],
    others: list[str],
    aside: Sequence[str] = (),
    remarks: Sequence[str] = (),
) -> str:
    """The class at a glance: each task, the tests failed most, and whom to look at.

    Args:
        results: all attempts.
        others: names in the folder of submissions that are none.
        aside: results that no submission has now.
        remarks: on the run as a whole.
    """
    states = Counter(result["status"] for result in results)
    summary = ", ".join(f"{n} {status}" for status, n in sorted(states.items()))
    parts = [f"<p>{len(made)} students, {len(results)} submissions: {text(summary)}.</p>"]
    if any(result["unsafe"] for result in results):
        parts.append("<p><strong>Graded without a sandbox: results can be forged.</strong></p>")
    parts += [f"<p><strong>{text(remark)}</strong></p>" for remark in remarks]
    parts += ["<h2>Points</h2>", _histogram(Counter(f"{int(grade.score):2d}" for grade in made))]
    counted = [grade.result for grade in made if grade.result is not None]
    tests = [test for result in counted for test in result["tests"]]
    for title in dict.fromkeys(test["title"] for test in tests):
        states = Counter(test["status"] for test in tests if test["title"] == title)
        parts += [f"<h3>{text(title)}</h3>", _histogram(states)]
    missed = Counter(test["title"] for test in tests if test["status"] != "passed")
    rows = [(title, n, f"{n / len(counted):.0%}") for title, n in missed.most_common()]
    parts += ["<h2>Failed most</h2>", _table(["test", "students", "of all"], rows)]
    look = [(key_of(r), r["status"], "\n".join(why)) for r in results if (why := reasons(r))]
    parts += ["<h2>To look at</h2>", _table(["submission", "status", "why"], look)]
    special = [(g.student, f"{g.score:g}", "; ".join(g.remarks)) for g in made if g.remarks]
    parts += ["<h2>Late, several attempts, overrides, written answers</h2>"]
    parts += [_table(["student", "score", "why"], special)]
    if aside:
        parts += ["<h2>Set aside: not counted, since there is no such submission now</h2>"]
        parts += [_list(aside)]
    if others:
        parts += ["<h2>Not a submission</h2>", _list(others)]
    return PAGE.format(title=text("Class report"), body="\n".join(parts))


def reasons(result: Result) -> list[str]:
    """Why a person should look at a submission."""
    why = [note for note in result["notes"] if LOOK in note]
    why += [
        f"{t['title']}: {t['status']}: {t['message']}"
        for t in result["tests"]
        if (t["status"] in CRASHED and result["status"] != "unreadable")
        or t["message"].startswith("the test stopped")
    ]
    return why


def _histogram(counts: Counter[str]) -> str:
    most = max(counts.values(), default=1)
    rows = [
        f'<tr><td>{text(name)}</td><td>{n}</td><td style="width: 25em">'
        f'<div class="bar" style="width: {100 * n / most:.0f}%"></div></td></tr>'
        for name, n in sorted(counts.items())
    ]
    return "<table>\n" + "\n".join(rows) + "\n</table>"
