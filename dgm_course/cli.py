"""The ``dgm`` command: open the lectures, list them, run them, fetch the data.

Jupyter and PyTorch are imported inside the commands, so that ``dgm --help`` answers at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import click

import dgm_course
from dgm_course.grading.commands import assignment
from dgm_course.grading.grade_commands import grade, report
from dgm_course.lab_config import write_lab_config
from dgm_course.slides import mark_slides

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group()
@click.version_option(dgm_course.__version__, prog_name="dgm_course")
def main() -> None:
    """Interactive lectures on deep generative models."""
    # By default a thread of OpenMP spins while it waits for another. Where both land on one core
    # (virtual machines, a busy laptop) each small matrix product then costs a time slice, 4 ms.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


main.add_command(assignment)
assignment.add_command(grade)
assignment.add_command(report)


# --- the notebooks --------------------------------------------------------------------------


def _find_folder(_context: click.Context, _option: click.Parameter, given: Path | None) -> Path:
    if given is not None and given.is_dir():
        return given.resolve()
    for root in (Path.cwd(), Path(dgm_course.__file__).resolve().parent.parent):
        if given is None and _notebooks_in(root / "notebooks"):
            return root / "notebooks"
    raise click.UsageError(
        f"no lectures in {given or Path.cwd() / 'notebooks'}: the installed package holds the "
        "library only, and the notebooks come with the repository; give --notebooks DIR"
    )


def _notebooks_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


notebooks_option = click.option(
    "--notebooks",
    "folder",
    type=FOLDER,
    metavar="DIR",
    callback=_find_folder,
    help="Where the lectures lie. Default: notebooks/ here, else in the source checkout.",
)


class Lecture(NamedTuple):
    """A notebook, and what its first text says of it."""

    number: str
    title: str
    minutes: str
    path: Path


def read_lectures(folder: Path) -> list[Lecture]:
    """The lectures ``NN_*.ipynb`` of a folder, by number."""
    lectures = []
    for path in _notebooks_in(folder):
        try:
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            text = next("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        except (ValueError, LookupError, TypeError, StopIteration) as error:
            raise click.ClickException(
                f"{path} must be a notebook with a title in its first text cell, got {error!r}"
            ) from error
        title = re.sub(r"^#\s*(\d+\s*·\s*)?", "", text.partition("\n")[0]).strip()
        minutes = re.search(r"(\d+) minutes? on two cores", text)
        lectures.append(Lecture(path.name[:2], title, minutes[1] if minutes else "?", path))
    if not lectures:
        raise click.ClickException(f"no lectures in {folder}: expected files named NN_*.ipynb")
    return lectures


@main.command("list")
@notebooks_option
def list_lectures(folder: Path) -> None:
    """List the lectures, with their minutes on two cores."""
    lectures = read_lectures(folder)
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
        LabApp.launch_instance(lab_arguments(folder, port, extra, uid))


def lab_arguments(
    folder: Path, port: int | None, extra: Sequence[str], uid: int | None
) -> list[str]:
    """The arguments of jupyter lab: our defaults, less what ``extra`` sets, then ``extra``."""
    given = {argument.partition("=")[0] for argument in extra}
    defaults = [
        ("--ServerApp.root_dir", "--notebook-dir", f"={folder}"),
        ("--ServerApp.ip", "--ip", "=127.0.0.1"),
        ("--LabApp.news_url", "", "=None"),
        ("--ServerApp.contents_manager_class", "", "=dgm_course.contents.LectureContents"),
        ("--LabApp.check_for_updates_class", "", "=jupyterlab.NeverCheckForUpdate"),
    ]
    if port is not None:
        defaults.append(("--ServerApp.port", "", f"={port}"))
    if uid == 0:
        defaults.append(("--allow-root", "--ServerApp.allow_root", ""))
    # Jupyter refuses an argument that comes twice.
    ours = [name + value for name, alias, value in defaults if not given & {name, alias}]
    return [*ours, *extra]


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
    lectures = read_lectures(folder)
    known = {key: x for x in lectures for key in (x.path.stem, x.number, x.number.lstrip("0"))}
    if unknown := ", ".join(name for name in names if name not in known):
        there = ", ".join(f"{lecture.number} {lecture.title}" for lecture in lectures)
        raise click.UsageError(f"no lecture {unknown}; there are {there}")
    outcomes = []
    for lecture in [known[name] for name in names] or lectures:
        outcomes.append(run_one(lecture.path, out, html, in_place, timeout))
        if outcomes[-1] == "interrupted":
            break
    if len(outcomes) > 1 or run_all:
        click.echo(f"{outcomes.count('passed')} passed, {outcomes.count('failed')} failed")
    sys.exit(130 if "interrupted" in outcomes else int("failed" in outcomes))


def run_one(path: Path, out: Path, html: Path | None, in_place: bool, timeout: int) -> str:
    """Execute one notebook and keep the copy; "passed", "failed" or "interrupted"."""
    import nbformat

    start = time.perf_counter()
    notebook = nbformat.read(path, as_version=4)
    try:
        outcome, report = _execute(notebook, path, timeout)
    finally:
        _write(notebook, out / path.name)
    seconds = time.perf_counter() - start
    click.echo(f"{path.stem}: {outcome} after {seconds:.0f} s; executed copy: {out / path.name}")
    if outcome != "passed":
        click.echo(report, err=True)
        return outcome
    if html is not None:
        from nbconvert import HTMLExporter

        resources = {"metadata": {"name": path.stem}}
        # The template that takes an image's alternative text from its output; "lab" drops it.
        exporter = HTMLExporter(template_name="classic")
        page, _ = exporter.from_notebook_node(notebook, resources)
        html.mkdir(parents=True, exist_ok=True)
        (html / f"{path.stem}.html").write_text(page, encoding="utf-8")
    if in_place:
        clean(notebook)
        mark_slides(notebook)
        _write(notebook, path)
    return outcome


class _Interrupted(Exception):
    """Ctrl-C came in an earlier cell, and that cell has ended."""


def _execute(notebook: Any, path: Path, timeout: int) -> tuple[str, str]:
    """Run all cells, leaving their outputs in the notebook; the outcome, and where it ended."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellControlSignal
    from tqdm import tqdm

    cells = notebook.cells
    for cell in cells:  # the copy of a run that fails must not show an older run's results
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    at = -1
    interrupts: list[asyncio.Future[None]] = []  # the loop itself keeps no reference to a task

    def interrupt() -> None:
        # The first Ctrl-C lets the cell end with what it has; the second is for one that does not.
        kernel = client.km
        stop = kernel.shutdown_kernel(now=True) if interrupts else kernel.interrupt_kernel()
        interrupts.append(asyncio.ensure_future(stop))

    def on_notebook_start(**_: Any) -> None:
        # By itself nbclient kills the kernel on Ctrl-C. Windows' event loop takes no handlers;
        # there Ctrl-C arrives as a KeyboardInterrupt.
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupt)

    def on_cell_start(cell_index: int, **_: Any) -> None:
        nonlocal at
        if interrupts:  # the cell before may have caught its KeyboardInterrupt, as training does
            raise _Interrupted
        bar.update(cell_index - bar.n)
        at = cell_index

    error: BaseException | None = None
    with tqdm(total=len(cells), desc=path.stem, unit="cell") as bar:
        client = NotebookClient(
            notebook,
            kernel_name="python3",  # this environment's, whatever wrote the notebook
            resources={"metadata": {"path": str(path.parent)}},
            timeout=timeout,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # no word on unencrypted loopback
            record_timing=False,
            coalesce_streams=True,  # where printed text is cut into messages is chance
            on_notebook_start=on_notebook_start,
            on_cell_start=on_cell_start,
        )
        try:
            client.execute()
            bar.update(len(cells) - bar.n)
        except (CellControlSignal, RuntimeError, _Interrupted, KeyboardInterrupt) as caught:
            error = caught
    for cell in cells:  # a closed progress bar leaves an empty output
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("data") != {}]
    if error is None and not interrupts:
        return "passed", ""
    if at < 0:
        return "failed", f"before the first cell: {error}"
    number = sum(cell.cell_type == "code" for cell in cells[: at + 1])
    where = f"in code cell {number}:\n\n{textwrap.indent(cells[at].source, '    ')}\n"
    if interrupts or isinstance(error, KeyboardInterrupt):
        return "interrupted", where
    raised = [output for output in cells[at].outputs if output.output_type == "error"]
    what = raised[-1].traceback if raised else [str(error).partition("\n")[0]]
    return "failed", "\n".join([where, *what])


# --- storing --------------------------------------------------------------------------------


def clean(notebook: Any) -> None:
    """Leave in an executed notebook what is the same at every run, as nbval compares it."""
    from dgm_course.contents import drop_views

    drop_views(notebook)  # a view's number is random, and hides the text
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook.metadata["kernelspec"] = kernel
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    count = 0
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        count += bool(cell.source.strip())
        cell.execution_count = count if cell.source.strip() else None
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
        _set_alt(cell)


def _set_alt(cell: Any) -> None:
    """Copy the images' alternative text to the cell's metadata, where MyST-NB looks for it."""
    alt = " ".join(
        metadata["alt"]
        for output in cell.outputs
        for kind, metadata in output.get("metadata", {}).items()
        if kind.startswith("image/") and "alt" in metadata
    )
    mystnb = cell.metadata.pop("mystnb", {})
    image = {key: value for key, value in mystnb.pop("image", {}).items() if key != "alt"}
    if alt:
        image["alt"] = alt
    if image:
        mystnb["image"] = image
    if mystnb:
        cell.metadata["mystnb"] = mystnb


def _write(notebook: Any, path: Path) -> None:
    """Write a notebook as Jupyter does, with the same line ends on every system."""
    import nbformat

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nbformat.writes(notebook).rstrip() + "\n", encoding="utf-8", newline="\n")


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
