"""Running a notebook from top to bottom in a fresh kernel, and storing it cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import textwrap
from pathlib import Path
from typing import Any

from dgm_course.lectures.reading import mark
from dgm_course.lectures.views import drop_views


def run_notebook(
    path: Path, out: Path, html: Path | None, in_place: bool, timeout: int
) -> tuple[str, str]:
    """Execute one notebook and keep the copy; "passed", "failed" or "interrupted", and where."""
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

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nbformat.writes(notebook).rstrip() + "\n", encoding="utf-8", newline="\n")
