"""``dgm assignment grade`` and ``report``: from a folder of submissions to grades."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dgm_course.grading.commands import assignments_option, find_source

if TYPE_CHECKING:
    from dgm_course.grading.grade import Assignment

FOLDER = click.Path(file_okay=False, path_type=Path)
EXISTING = click.Path(exists=True, file_okay=False, path_type=Path)
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
    from dgm_course.grading import batch, sandbox
    from dgm_course.grading.grade import Assignment
    from dgm_course.grading.submissions import find

    source = Assignment.read(find_source(folder, name))
    limits = walls.Limits(seconds=timeout, seconds_in_all=10 * timeout)
    try:
        if unsafe:
            click.echo(
                "warning: no sandbox: submissions can read and forge what they like", err=True
            )
        else:
            sandbox.check()
        run = batch.Batch(source, out, batch.run_seed(out, name, seed), limits, unsafe)
        entries, others = find(submissions, name)
    except (walls.SandboxMissing, ValueError) as error:
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
    click.echo(batch.count(statuses))
    if shard:
        click.echo(f"when all shards are graded: dgm assignment report {name} --out {out}")
    else:
        _report(source, out, students, others)


@click.command()
@click.argument("name")
@out_option
@students_option
@assignments_option
def report(name: str, out: Path, students: Path | None, folder: Path) -> None:
    """Write grades.csv, the feedback, the class report and what is to be graded by hand."""
    from dgm_course.grading.grade import Assignment

    _report(Assignment.read(find_source(folder, name)), out, students, [])


def _report(source: Assignment, out: Path, students: Path | None, others: list[str]) -> None:
    from dgm_course.grading import by_hand, pages
    from dgm_course.grading import report as reporting
    from dgm_course.grading.batch import file_name, write_whole

    results = reporting.load_results(out)
    try:
        rows = reporting.read_students(students) if students else {}
        by_hand.hand_out(source, results, out)
        points, comments = by_hand.take_back(out)
        made = reporting.grades(results, rows, points)
    except ValueError as error:
        raise click.ClickException(reporting.printable(str(error))) from error
    write_whole(out / "grades.csv", reporting.grades_csv(made, source.name))
    for grade in made:
        page = pages.feedback(grade, comments)
        write_whole(out / "feedback" / f"{file_name(grade.student)}.html", page)
    write_whole(out / "report.html", pages.class_report(made, results, others))
    look = [reporting.key_of(result) for result in results if pages.reasons(result)]
    click.echo(f"{out / 'grades.csv'}: {len(made)} students; {out / 'report.html'}")
    if look:
        click.echo(f"to look at: {', '.join(look[:20])}" + (" ..." if len(look) > 20 else ""))
