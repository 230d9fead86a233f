"""What every lecture shares: from a slider to its picture, and the import of the library."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from dgm_course.lectures.notebooks import LECTURES
from dgm_course.lectures.rehearsal import Rehearsal
from dgm_course.widgets import Panel
from tests.benchmarks.harness import Row, in_turn


def sliders() -> list[Row]:
    """From a control's new value to the new picture: 95th percentile, a lecture's slowest panel."""
    rows = []
    for path in LECTURES:
        panels = {k: p for k, p in Rehearsal(path).run().panels.items() if hasattr(p, "controls")}
        slowest = {cell_id: percentile(panel) for cell_id, panel in panels.items()}
        worst = max(slowest, key=lambda cell_id: slowest[cell_id])
        what = f"slider to picture, lecture {path.stem[:2]}, slowest of {len(panels)} ({worst})"
        rows.append(Row(what, slowest[worst], 0.1, "100 ms", 1))
    return rows


def percentile(panel: Panel) -> float:
    times = []
    for control in panel.controls.values():
        for value in values_of(control):
            if value == control.value:
                continue  # no change, no redraw
            start = time.perf_counter()
            control.value = value
            times.append(time.perf_counter() - start)
    return float(np.quantile(times, 0.95))


def values_of(control: object) -> list[object]:
    if hasattr(control, "options"):
        return list(control.options) * 5
    if isinstance(control.value, bool):
        return [True, False] * 5
    # On the slider's own grid, where a front end would put them.
    steps = np.linspace(0, round((control.max - control.min) / control.step), 21).round()
    return [type(control.value)(round(control.min + n * control.step, 10)) for n in steps]


def imports() -> list[Row]:
    """A fresh interpreter that imports the library's modules, beside one that imports torch."""

    def run(statement: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", statement], check=True)

    ours = "import dgm_course, dgm_course.data, dgm_course.flows, dgm_course.probability"
    times = in_turn({"ours": run(ours), "torch": run("import torch")}, rounds=9)
    return [
        Row("import of the package, data and flows", times["ours"], times["torch"], "torch", 1.1)
    ]


SECTIONS = (sliders, imports)
