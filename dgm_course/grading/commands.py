"""``dgm assignment``: a student's check before handing in, and the release from the source."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

import dgm_course

if TYPE_CHECKING:
    from dgm_course.grading.notebook import Submission

NOTEBOOK = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def assignment() -> None:
    """Home assignments: check one before handing in; release one (assistants)."""


def _find_assignments(
    _context: click.Context, _option: click.Parameter, given: Path | None
) -> Path:
    if given is not None:
        return given.resolve()
    for root in (Path.cwd(), Path(dgm_course.__file__).resolve().parent.parent):
        if (folder := root / "notebooks" / "assignments").is_dir():
            return folder
    raise click.UsageError(
        "no assignments here: they come with the repository; give --assignments DIR"
    )


assignments_option = click.option(
    "--assignments",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    callback=_find_assignments,
    help="Where the assignments lie. Default: notebooks/assignments here, else in the checkout.",
)


def find_source(folder: Path, name: str) -> Path:
    path = folder / name / "source" / f"{name}.ipynb"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in folder.glob("*/source/*.ipynb"))) or "none"
        raise click.UsageError(f"no source {path}; there are the assignments {there}")
    return path


@assignment.command()
@click.argument("notebook", type=NOTEBOOK)
def check(notebook: Path) -> None:
    """Say whether NOTEBOOK can be handed in, what is empty, what passes, the points so far.

    Runs its cells, but for those tagged training, then its tests; weights.npz is looked for beside
    it. Needs no network. Exit code 0 if the file is accepted, whatever the points.
    """
    from dgm_course.grading.notebook import NotANotebook, Submission, read_cells

    try:
        cells = read_cells(notebook)
    except NotANotebook as error:
        raise click.ClickException(str(error)) from error
    with contextlib.chdir(notebook.resolve().parent):
        accepted = _check(notebook.name, Submission(cells))
    sys.exit(0 if accepted else 1)


def _check(name: str, submission: Submission) -> bool:
    """Print the report on a notebook, test by test; whether it is accepted."""
    from dgm_course.grading.notebook import forbidden_imports, problems

    cells = submission.cells
    if found := problems(cells):
        click.echo(f"{name}: not accepted")
    else:
        click.echo(f"{name}: accepted")
    for text in found:
        click.echo(f"  {text}")
    for cell in cells:
        if cell.kind == "code" and (names := forbidden_imports(cell.source)):
            click.echo(f"  cell {cell.number} imports {', '.join(names)}: not where it is graded")
    if not any(cell.is_test for cell in cells):
        return not found
    for text in submission.run().stopped:
        click.echo(f"  {text}")
    click.echo()
    so_far = out_of = 0
    for result in submission.test():
        mark = "✗" if result.message else "✓"
        click.echo(f"{mark} {result.title:40} {result.points} of {result.out_of}")
        if result.message:
            click.echo(f"    {result.message}")
        so_far, out_of = so_far + result.points, out_of + result.out_of
    by_hand = 0
    for cell in (cell for cell in cells if cell.is_written):
        state = "empty" if cell.is_empty else "answered"
        click.echo(f"{'✗' if cell.is_empty else '–'} {cell.title:40} {state}, graded by hand")
        by_hand += cell.points
    empty = [cell.grade_id for cell in cells if cell.is_empty]
    click.echo(f"\nempty: {', '.join(empty) or 'none'}")
    click.echo(
        f"points so far: {so_far} of {out_of}, and up to {by_hand} by hand; "
        "tests that are not shown here look for the same at other sizes"
    )
    return not found


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
    from dgm_course.cli import run_one

    outcome = run_one(find_source(folder, name), Path("out"), None, True, timeout)
    sys.exit(int(outcome != "passed"))
