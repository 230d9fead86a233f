"""From the reader's hand to the picture in sight, in JupyterLab and Chromium."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from dgm_course.lectures.notebooks import LECTURES
from tests.benchmarks.harness import Row
from tests.browser.chromium import chromium
from tests.browser.jupyterlab import NotebookPage, jupyterlab


def sliders() -> list[Row]:
    """From a drag, a key or a click to the new picture: 95th percentile of a lecture's controls."""
    rows = []
    with tempfile.TemporaryDirectory() as home, chromium() as browser:
        with jupyterlab(Path(home), browser) as lab:
            for path in LECTURES:
                notebook = NotebookPage(lab, path.name)
                notebook.run_all()
                took = []
                for panel in notebook.panels():
                    if not panel.is_live:
                        panel.move_controls()
                        panel.move_controls()
                        took += panel.took
                notebook.close()
                what = f"hand to picture in JupyterLab, lecture {path.stem[:2]}, n = {len(took)}"
                slow = float(np.quantile(took, 0.95)) / 1000
                rows.append(Row(what, slow, 0.25, "250 ms", 1))
    return rows


SECTIONS = (sliders,)
