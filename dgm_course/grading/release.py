"""The student's version of an assignment, made from its source by nbgrader (extra ``teach``)."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

LEFTOVERS = ("BEGIN SOLUTION", "END SOLUTION", "HIDDEN TESTS")


def release(source: Path) -> str:
    """The text of the released notebook: without solutions, hidden tests and outputs.

    It is nbgrader's own conversion (``nbgrader generate_assignment``), in a folder of its own and
    without its database; the source is only read.

    Raises:
        ImportError: without nbgrader.
        ValueError: if nbgrader refuses the source, or leaves a marker in it.
    """
    from nbgrader.converters import GenerateAssignment
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config import Config

    name = source.stem
    with tempfile.TemporaryDirectory(prefix="dgm_release_") as folder:
        inside = Path(folder, "source", name)
        inside.mkdir(parents=True)
        shutil.copy(source, inside)
        config: Any = Config()
        config.CourseDirectory.root = folder
        config.CourseDirectory.course_id = "dgm_course"
        config.CourseDirectory.assignment_id = name
        config.SaveCells.enabled = False
        config.GenerateAssignment.no_database = True
        converter = GenerateAssignment(coursedir=CourseDirectory(config=config), config=config)
        try:
            converter.start()
        except Exception as error:  # nbgrader logs what is wrong, and raises its own kinds
            raise ValueError(f"nbgrader does not release {source}: {error}") from error
        text = Path(folder, "release", name, source.name).read_text(encoding="utf-8")
    for marker in LEFTOVERS:
        if marker in text:
            raise ValueError(f"{marker} is left in the release of {source}")
    return text.rstrip() + "\n"
