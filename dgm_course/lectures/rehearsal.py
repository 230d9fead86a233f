"""A lecture's code cells run in this process, quickly, and its panels kept."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any
from unittest import mock

from dgm_course.widgets import Panel


class Rehearsal:
    """A notebook, the names its code cells define, and the panels they make, by cell id."""

    def __init__(self, path: Path) -> None:
        import nbformat

        self.path = path
        self.cells = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.panels: dict[str, Panel] = {}

    def run(self, quick: bool = True) -> Rehearsal:
        """All code cells, with a twentieth of the training steps if it is to be quick."""
        steps = mock.patch.dict(os.environ, DGM_COURSE_QUICK="1" if quick else "")
        with steps, contextlib.chdir(self.path.parent):
            for number, cell in enumerate(self.cells):
                self.execute(cell.source, cell.id)
                if number == 0:  # the import cell
                    self._keep_panels()
        return self

    def execute(self, source: str, cell_id: str, names: dict[str, Any] | None = None) -> str:
        """Run one cell's source and return what it printed."""
        self.current = cell_id
        code = compile(source, f"{self.path.name}:{cell_id}", "exec")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, self.names if names is None else names)
        return printed.getvalue()

    def _keep_panels(self) -> None:
        for name in ("explore", "live"):

            def keep(*args: Any, make: Any = self.names[name], **options: Any) -> Panel:
                panel: Panel = make(*args, **options)
                self.panels[self.current] = panel
                return panel

            self.names[name] = keep
