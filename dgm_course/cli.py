"""The ``dgm`` command: open the lectures, list them, run them, fetch the data, train.

Jupyter and PyTorch are imported inside the commands, so that ``dgm --help`` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import click

import dgm_course
from dgm_course.grading.commands import assignment
from dgm_course.grading.grade_commands import grade, report
from dgm_course.lectures.lab_config import lab_arguments, without_home, write_lab_config
from dgm_course.lectures.notebooks import Lecture, lectures_in, read_lecture, read_lectures
from dgm_course.lectures.running import EXIT_CODES, run_notebook
from dgm_course.lectures.terminal import Commands
from dgm_course.runs.commands import train

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group(cls=Commands)
@click.version_option(dgm_course.__version__, prog_name="dgm_course")
def main() -> None:
    """Interactive lectures on deep generative models."""
    # By default a thread of OpenMP spins while it waits for another. Where both land on one core
    # (virtual machines, a busy laptop) each small matrix product then costs a time slice, 4 ms.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


main.add_command(assignment)
main.add_command(train)
assignment.add_command(grade)
assignment.add_command(report)


# --- the notebooks --------------------------------------------------------------------------


def _find_folder(_context: click.Context, _option: click.Parameter, given: Path | None) -> Path:
    if given is not None and given.is_dir():
        return given.resolve()
    for root in (Path.cwd(), Path(dgm_course.__file__).resolve().parent.parent):
        if given is None and lectures_in(root / "notebooks"):
            return root / "notebooks"
    raise click.UsageError(
        f"no lectures in {given or Path.cwd() / 'notebooks'}: the installed package holds the "
        "library only, and the notebooks come with the repository; give --notebooks DIR"
    )


def _read(folder: Path) -> list[Lecture]:
    try:
        return read_lectures(folder)
    except ValueError as error:
        raise click.ClickException(str(error)) from error


notebooks_option = click.option(
    "--notebooks",
    "folder",
    type=FOLDER,
    metavar="DIR",
    callback=_find_folder,
    help="Where the lectures lie. Default: notebooks/ here, else in the source checkout.",
)


@main.command("list")
@notebooks_option
def list_lectures(folder: Path) -> None:
    """List the lectures, with their minutes on two cores."""
    lectures = _read(folder)
    width = max(len(lecture.title) for lecture in lectures)
    click.echo(f"no  {'title':{width}}  minutes")
    for lecture in lectures:
        click.echo(f"{lecture.number}  {lecture.title:{width}}  {lecture.minutes:>7}")


# --- JupyterLab -----------------------------------------------------------------------------


@main.command(context_settings={"ignore_unknown_options": True})
@click.option("--port", type=int, help="The port; if it is taken, another one near it.")
@notebooks_option
@click.argument("extra", nargs=-1, type=click.UNPROCESSED, metavar="[JUPYTER LAB ARGUMENTS]...")
def lab(folder: Path, port: int | None, extra: tuple[str, ...]) -> None:
    """Open JupyterLab on the notebooks, until Ctrl-C.

    Arguments other than these go to jupyter lab: dgm lab --no-browser.
    """
    from jupyterlab.labapp import LabApp

    uid = os.getuid() if hasattr(os, "getuid") else None  # Windows has none
    with tempfile.TemporaryDirectory(prefix="dgm_lab_") as config:
        write_lab_config(Path(config), has_rise=find_spec("jupyterlab_rise") is not None)
        for name in ("JUPYTER_CONFIG_PATH", "JUPYTER_PATH"):
            os.environ[name] = os.pathsep.join(filter(None, [config, os.environ.get(name, "")]))
        if moved := without_home(Path(config)):
            os.environ.update(moved)
            click.echo("your home cannot be written: JupyterLab forgets its settings at the end")
        signal.signal(signal.SIGINT, end_as_terminated)  # at a terminal Jupyter sets its own
        LabApp.launch_instance(lab_arguments(folder, port, extra, uid))


def end_as_terminated(number: int, frame: FrameType | None) -> None:
    """Let Ctrl-C do what SIGTERM does, for a KeyboardInterrupt inside a finaliser is lost."""
    end = signal.getsignal(signal.SIGTERM)
    if not callable(end):  # the server is not up yet
        raise KeyboardInterrupt
    end(number, frame)


# --- running --------------------------------------------------------------------------------


@main.command()
@click.argument("names", nargs=-1, metavar="[NUMBER]...")
@click.option("--all", "run_all", is_flag=True, help="Run every lecture, also after a failure.")
@click.option("--html", type=FOLDER, metavar="DIR", help="Also write what passes as HTML.")
@click.option("--out", type=FOLDER, metavar="DIR", default="out", help="For executed copies (out).")
@click.option("--in-place", is_flag=True, help="Store clean results in the notebook (maintainers).")
@click.option("--timeout", type=click.IntRange(1), default=600, help="Seconds for a cell (600).")
@notebooks_option
def run(
    names: tuple[str, ...],
    run_all: bool,
    html: Path | None,
    out: Path,
    in_place: bool,
    timeout: int,
    folder: Path,
) -> None:
    """Execute lectures from top to bottom, each in a fresh kernel.

    The executed copy is kept in out/, also of a run that fails or is interrupted. A pass says
    that no cell raised: outputs are not compared, and an exception in a slider's callback goes
    unseen. The check for both is nbval (make test).
    """
    if bool(names) == run_all:
        raise click.UsageError("give the numbers of lectures (dgm list), or --all")
    if out.resolve() == folder.resolve():
        raise click.UsageError("--out must not be the notebooks folder; see --in-place")
    if in_place:
        from dgm_course.training import quick

        if quick():
            raise click.UsageError("--in-place needs full training; unset DGM_COURSE_QUICK")
    lectures = _read(folder)
    first_page = [read_lecture(path) for path in folder.glob("00_*.ipynb")]
    known = {
        key: x
        for x in first_page + lectures
        for key in (x.path.stem, x.number, x.number.removeprefix("0"))
    }
    if unknown := ", ".join(name for name in names if name not in known):
        there = ", ".join(f"{lecture.number} {lecture.title}" for lecture in lectures)
        raise click.UsageError(f"no lecture {unknown}; there are {there}")
    outcomes = []
    for path in [known[name].path for name in names] or [x.path for x in lectures]:
        start = time.perf_counter()
        outcome, report = run_notebook(path, out, html, in_place, timeout)
        seconds = time.perf_counter() - start
        copy = out / path.name
        click.echo(f"{path.stem}: {outcome} after {seconds:.0f} s; executed copy: {copy}")
        if report:
            click.echo(report, err=True)
        outcomes.append(outcome)
        if EXIT_CODES[outcome] > 1:
            break
    if len(outcomes) > 1 or run_all:
        click.echo(f"{outcomes.count('passed')} passed, {outcomes.count('failed')} failed")
    sys.exit(max(EXIT_CODES[outcome] for outcome in outcomes))


# --- data -----------------------------------------------------------------------------------


@main.command()
@click.option("--fetch/--no-fetch", "fetching", default=True, help="Fetch what is missing.")
def data(fetching: bool) -> None:
    """Say where data is kept, and fetch the files of MNIST that are missing there."""
    from dgm_course.data.mnist import FILES, data_folder, fetch

    folder = data_folder()
    click.echo(f"data is kept in {folder}")
    for name in (f"{name}.gz" for names in FILES.values() for name in names):
        click.echo(f"  {name}: {'there' if (folder / name).is_file() else 'missing'}")
    if fetching:
        try:
            fetch()
        except (OSError, ValueError) as error:
            raise click.ClickException(str(error)) from error
        click.echo("all four are there and have passed their check")


if __name__ == "__main__":
    main()
