"""``dgm assignment grade`` and ``report``: from a folder of submissions to grades."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dgm_course.grading.commands import assignments_option, find_source, named
from dgm_course.grading.tables import printable

if TYPE_CHECKING:
    from dgm_course.grading.grade import Assignment

FOLDER = click.Path(file_okay=False, path_type=Path)
students_option = click.option(
    "--students",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A table of students, late days, which attempt counts, overrides (see teacher's notes).",
)
out_option = click.option("--out", type=FOLDER, default="grades", help="For results (grades).")


class Shard(click.ParamType[tuple[int, int]]):
    name = "i/n"

    def convert(self, value: Any, *_: Any) -> tuple[int, int]:
        number, _slash, of = str(value).partition("/")
        if not (number.isdigit() and of.isdigit() and int(number) < int(of)):
            self.fail(f"expected i/n with i from 0 to n - 1, got {value}")
        return int(number), int(of)


@click.command()
@click.argument("name")
@click.argument("submissions", type=click.Path(exists=True, path_type=Path))
@out_option
@click.option("--jobs", type=click.IntRange(1), default=1, help="How many at a time (1).")
@click.option("--timeout", type=click.FloatRange(1), default=30, help="Seconds for a test (30).")
@click.option("--student", help="Grade this student's submissions again.")
@click.option("--shard", type=Shard(), help="Only every n-th student's, from number i; no report.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Of the inputs; else by chance.")
@click.option(
    "--add", is_flag=True, help="SUBMISSIONS is one of several folders: keep the others'."
)
@click.option("--unsafe", is_flag=True, help="Without a sandbox: results can be forged.")
@students_option
@assignments_option
def grade(
    name: str,
    submissions: Path,
    out: Path,
    jobs: int,
    timeout: float,
    student: str | None,
    shard: tuple[int, int] | None,
    seed: int | None,
    add: bool,
    unsafe: bool,
    students: Path | None,
    folder: Path,
) -> None:
    """Grade the SUBMISSIONS of the assignment NAME, a folder or a zip, each in a sandbox.

    A second call goes on where the first was stopped, and grades again what has changed since.
    """
    from tqdm import tqdm

    from dgm_course.grading import walls

    if sys.platform != "linux":
        raise click.ClickException(walls.MISSING)
    from dgm_course.grading import batch, results, sandbox
    from dgm_course.grading.submissions import find

    source = _source(folder, name)
    limits = walls.Limits(seconds=timeout, seconds_in_all=10 * timeout)
    try:
        if unsafe:
            click.echo(
                "warning: no sandbox: submissions can read and forge what they like", err=True
            )
        else:
            sandbox.check()
        lie_in = str(submissions.resolve())
        run = batch.Batch(source, out, batch.run_seed(out, name, seed), limits, unsafe, lie_in)
        entries, others = find(submissions, name)
        results.check_names(out, entries)
        results.set_aside(out, entries, lie_in, add)
    except (walls.SandboxMissing, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if student is not None:
        waiting = entries = [entry for entry in entries if entry.student == student]
        if not entries:
            raise click.UsageError(f"no submission of {student} in {submissions}")
    else:
        entries = batch.shard(entries, *shard) if shard else entries
        waiting = run.waiting(entries)
    if len(waiting) < len(entries):
        click.echo(f"{len(entries) - len(waiting)} of {len(entries)} are graded already")
    statuses: Counter[str] = Counter()
    try:
        with tqdm(total=len(waiting), unit="submission", dynamic_ncols=True) as bar:
            for status in run.run(waiting, jobs):
                statuses[status] += 1
                bar.set_postfix_str(batch.count(statuses), refresh=False)
                bar.update()
    except KeyboardInterrupt:
        click.echo("stopped; the same command goes on from here", err=True)
        sys.exit(130)
    except batch.NotStored as error:
        raise click.ClickException(f"{error}; the same command goes on from here") from error
    click.echo(batch.count(statuses))
    if shard:
        _fail_with(run.problems)
        click.echo(f"when all shards are graded: dgm assignment report {name} --out {out}")
    else:
        _report(source, out, students, others, run.problems)


@click.command()
@click.argument("name")
@out_option
@students_option
@assignments_option
def report(name: str, out: Path, students: Path | None, folder: Path) -> None:
    """Write grades.csv, the feedback, the class report and what is to be graded by hand."""
    _report(_source(folder, name), out, students, [], [])


def _source(folder: Path, name: str) -> Assignment:
    from dgm_course.grading.grade import Assignment

    path = find_source(folder, name)
    with named(path):
        return Assignment.read(path)


def _report(
    source: Assignment, out: Path, students: Path | None, others: list[str], problems: list[str]
) -> None:
    """Write all that is made of results; each file that cannot be written is a problem, named."""
    from dgm_course.files import write_whole
    from dgm_course.grading import by_hand, pages
    from dgm_course.grading import report as reporting
    from dgm_course.grading import results as stored

    def write(path: Path, text: str | bytes) -> None:
        try:
            write_whole(path, text)
        except OSError as error:
            problems.append(f"{path} cannot be written: {error.strerror}; is it open elsewhere?")

    results = stored.load_results(out, source)
    try:
        rows = reporting.read_students(students) if students else {}
        points, comments, strangers = by_hand.take_back(source, results, out)
        remarks = by_hand.hand_out(source, results, out, write)
        remarks += strangers + reporting.versions(results)
        made = reporting.grades(results, rows, points)
        aside = stored.aside(out, source, {stored.file_name(grade.student) for grade in made})
    except (ValueError, OSError) as error:
        raise click.ClickException(printable(str(error))) from error
    write(out / "grades.csv", reporting.grades_csv(made, source.name))
    for grade in made:
        page = pages.feedback(grade, comments)
        write(out / "feedback" / f"{stored.file_name(grade.student)}.html", page)
    write(out / "report.html", pages.class_report(made, results, others, aside, remarks))
    look = [reporting.key_of(result) for result in results if pages.reasons(result)]
    click.echo(f"{out / 'grades.csv'}: {len(made)} students; {out / 'report.html'}")
    for what, names in (("to look at", look), ("set aside, no submission now", aside)):
        if names:
            click.echo(f"{what}: {_first(names, ', ')}")
    if remarks:
        click.echo(_first(remarks, "\n"))
    _fail_with(problems)


def _first(names: list[str], between: str) -> str:
    more = [f"and {len(names) - 20} others, see the report"] if len(names) > 20 else []
    return between.join([*map(printable, names[:20]), *more])


def _fail_with(problems: list[str]) -> None:
    if problems:
        raise click.ClickException(_first(problems, "\n"))
