"""Running a notebook from top to bottom in a fresh kernel, and storing it cleanly."""

from __future__ import annotations

import asyncio
import signal
import textwrap
from pathlib import Path
from typing import Any

from dgm_course.files import write_whole
from dgm_course.lectures.lab_config import writable_folders
from dgm_course.lectures.reading import mark
from dgm_course.lectures.views import drop_views

# As shells know them: what a signal ends has 128 and the signal's number.
EXIT_CODES = {"passed": 0, "failed": 1, "interrupted": 130, "terminated": 143}


def run_notebook(
    path: Path, out: Path, html: Path | None, in_place: bool, timeout: int
) -> tuple[str, str]:
    """Execute one notebook and keep the copy; the outcome, and where it ended.

    The outcome is a key of `EXIT_CODES`.
    """
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    try:
        outcome, report = _execute(notebook, path, timeout)
    finally:
        write(notebook, out / path.name)
    if outcome != "passed":
        return outcome, report
    if html is not None:
        from nbconvert import HTMLExporter

        resources = {"metadata": {"name": path.stem}}
        # The template that takes an image's alternative text from its output; "lab" drops it.
        exporter = HTMLExporter(template_name="classic")
        page, _ = exporter.from_notebook_node(notebook, resources)
        html.mkdir(parents=True, exist_ok=True)
        (html / f"{path.stem}.html").write_text(page, encoding="utf-8")
    if in_place:
        store(notebook, path)
    return outcome, ""


class _Interrupted(Exception):
    """A signal came in an earlier cell, and that cell has ended."""


def _execute(notebook: Any, path: Path, timeout: int) -> tuple[str, str]:
    """Run all cells, leaving their outputs in the notebook; the outcome, and where it ended."""
    from jupyter_core.utils import run_sync
    from nbclient.exceptions import CellControlSignal
    from tqdm import tqdm

    from dgm_course.lectures.kernels import Client

    cells = notebook.cells
    for cell in cells:  # the copy of a run that fails must not show an older run's results
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    at = -1

    def on_cell_start(cell_index: int, **_: Any) -> None:
        nonlocal at
        if client.stopped_by:  # the cell before may have caught its KeyboardInterrupt, as training
            raise _Interrupted
        bar.update(cell_index - bar.n)
        at = cell_index

    error: BaseException | None = None
    with writable_folders(), tqdm(total=len(cells), desc=path.stem, unit="cell") as bar:
        client = Client(
            notebook,
            resources={"metadata": {"path": str(path.parent)}},
            timeout=timeout,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # no word on unencrypted loopback
            record_timing=False,
            coalesce_streams=True,  # where printed text is cut into messages is chance
            on_cell_start=on_cell_start,
        )
        try:
            run_sync(client.async_execute)()
            bar.update(len(cells) - bar.n)
        except (
            *(CellControlSignal, RuntimeError, _Interrupted),
            *(asyncio.CancelledError, KeyboardInterrupt),
        ) as caught:
            error = caught
    for cell in cells:  # a closed progress bar leaves an empty output
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("data") != {}]
    if error is None and client.stopped_by is None:
        return "passed", ""
    number = sum(cell.cell_type == "code" for cell in cells[: at + 1])
    where = f"in code cell {number}:\n\n{textwrap.indent(cells[at].source, '    ')}\n"
    if at < 0:
        where = "before the first cell"
    if client.stopped_by == signal.SIGTERM:
        return "terminated", where
    if client.stopped_by or isinstance(error, KeyboardInterrupt):
        return "interrupted", where
    if at < 0:
        return "failed", f"{where}: {error}"
    raised = [output for output in cells[at].outputs if output.output_type == "error"]
    what = raised[-1].traceback if raised else [str(error).partition("\n")[0]]
    return "failed", "\n".join([where, *what])


# --- storing --------------------------------------------------------------------------------


def store(notebook: Any, path: Path) -> None:
    """Write an executed notebook as it is committed: clean, its slides and folds marked."""
    clean(notebook)
    mark(notebook)
    write(notebook, path)


def clean(notebook: Any) -> None:
    """Leave in an executed notebook what is the same at every run, as nbval compares it."""
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


def write(notebook: Any, path: Path) -> None:
    """Write a notebook as Jupyter does, with the same line ends on every system."""
    import nbformat

    write_whole(path, nbformat.writes(notebook).rstrip() + "\n")
