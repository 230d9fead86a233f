"""``dgm assignment``: a student's check before handing in, and the release from the source."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

import dgm_course

if TYPE_CHECKING:
    from dgm_course.grading.notebook import Cell
    from dgm_course.grading.rehearsal import Submission

NOTEBOOK = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def assignment() -> None:
    """Home assignments: check one before handing in; release one (assistants)."""


def _folder() -> Path | None:
    for root in (Path.cwd(), Path(dgm_course.__file__).resolve().parent.parent):
        if (folder := root / "notebooks" / "assignments").is_dir():
            return folder
    return None


def _given_or_found(_context: click.Context, _option: click.Parameter, given: Path | None) -> Path:
    if folder := given or _folder():
        return folder.resolve()
    raise click.UsageError(
        "no assignments here: they come with the repository; give --assignments DIR"
    )


assignments_option = click.option(
    "--assignments",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    callback=_given_or_found,
    help="Where the assignments lie. Default: notebooks/assignments here, else in the checkout.",
)


def find_source(folder: Path, name: str) -> Path:
    """Where the assignment's source lies; a command ends here if it is not there or damaged."""
    from dgm_course.grading.notebook import read_cells

    path = folder / name / "source" / f"{name}.ipynb"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in folder.glob("*/source/*.ipynb"))) or "none"
        raise click.UsageError(f"no source {path}; there are the assignments {there}")
    with named(path):
        read_cells(path)
    return path


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """If a source or a release is no notebook, the command ends with a line that names it."""
    from dgm_course.grading.notebook import NotANotebook

    try:
        yield
    except NotANotebook as error:
        raise click.ClickException(f"{path}: {error}") from error


def _release_of(cells: list[Cell], folder: Path | None) -> list[Cell]:
    """The cells of the released notebook that a notebook was made from, if it is to be found."""
    from dgm_course.grading.matching import recognise
    from dgm_course.grading.notebook import read_cells

    releases = []
    for path in sorted(folder.glob("*/release/*.ipynb") if folder else []):
        with named(path):
            releases.append(read_cells(path))

    def shared(release: list[Cell]) -> int:
        return sum(own.of is not None for own in recognise(cells, release, []))

    best = max(releases, key=shared, default=[])
    return best if best and shared(best) else []


@assignment.command()
@click.argument("notebook", type=NOTEBOOK)
def check(notebook: Path) -> None:
    """Say whether NOTEBOOK can be handed in, what is empty, what passes, the points so far.

    Runs its cells as the grader does, those tagged training or picture excepted, then the release's
    tests, in an empty folder with a copy of the weights.npz beside it. Needs no network. Exit code
    0 if the file is accepted, whatever the points.
    """
    from dgm_course.grading.notebook import NotANotebook, missing, problems, read_cells
    from dgm_course.grading.rehearsal import Submission, ended_by_ctrl_c

    try:
        cells = read_cells(notebook)
    except NotANotebook as error:
        raise click.ClickException(str(error)) from error
    release = _release_of(cells, _folder())
    found = problems(cells)
    if any(cell.grade_id for cell in cells):
        found += missing(cells, release)
    click.echo(f"{notebook.name}: {'not accepted' if found else 'accepted'}")
    for text in found:
        click.echo(f"  {text}")
    weights = notebook.with_name("weights.npz")
    files = {weights.name: weights.read_bytes()} if weights.is_file() else {}
    with TemporaryDirectory() as folder, contextlib.chdir(folder), ended_by_ctrl_c():
        for name, data in files.items():
            Path(name).write_bytes(data)
        _show(Submission(cells, release, files))
    sys.exit(int(bool(found)))


def _show(submission: Submission) -> None:
    """Print what a notebook's own cells do, test by test."""
    from dgm_course.grading.matching import written
    from dgm_course.grading.notebook import forbidden_imports

    cells = submission.cells
    for cell in cells:
        if cell.kind == "code" and (names := forbidden_imports(cell.source)):
            click.echo(f"  cell {cell.number} imports {', '.join(names)}: not where it is graded")
    by_hand = list(written(submission.own, submission.released, submission.notes))
    results = [*submission.test()]
    submission.run()  # what stands below the last test
    for text in [*submission.notes, *submission.stopped]:
        click.echo(f"  {text}")
    click.echo()
    so_far = out_of = 0
    for result in results:
        mark = "✗" if result.message else "✓"
        click.echo(f"{mark} {result.title:40} {result.points} of {result.out_of}")
        if result.message:
            click.echo(f"    {result.message}")
        so_far, out_of = so_far + result.points, out_of + result.out_of
    for cell, text in by_hand:
        state = "answered" if text else "empty"
        click.echo(f"{'–' if text else '✗'} {cell.title:40} {state}, graded by hand")
    empty = [cell.grade_id for cell in cells if cell.is_empty and not cell.is_written]
    empty += [cell.grade_id for cell, text in by_hand if not text]
    click.echo(f"\nempty: {', '.join(empty) or 'none'}")
    click.echo(
        f"points so far: {so_far} of {out_of}, and up to "
        f"{sum(cell.points for cell, _ in by_hand)} by hand; "
        "tests that are not shown here look for the same at other sizes"
    )


@assignment.command()
@click.argument("name")
@assignments_option
def release(name: str, folder: Path) -> None:
    """Make the student's notebook of the assignment NAME from its source (extra teach)."""
    from dgm_course.grading import release as nbgrader

    source = find_source(folder, name)
    try:
        text = nbgrader.release(source)
    except ImportError as error:
        how = 'pip install -c constraints.txt -e ".[teach]"'
        raise click.ClickException(f"{error}; {how}") from error
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    path = folder / name / "release" / source.name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    click.echo(f"released: {path}")


@assignment.command()
@click.argument("name")
@click.option("--timeout", type=click.IntRange(1), default=600, help="Seconds for a cell (600).")
@assignments_option
def run(name: str, timeout: int, folder: Path) -> None:
    """Execute the source of the assignment NAME and store it cleaned (maintainers)."""
    from dgm_course.lectures.running import EXIT_CODES, run_notebook

    source = find_source(folder, name)
    outcome, report = run_notebook(source, Path("out"), None, True, timeout)
    click.echo(f"{source.stem}: {outcome}")
    if report:
        click.echo(report, err=True)
    sys.exit(EXIT_CODES[outcome])
