"""What Binder will build, as far as that can be built without conda and containers.

    python -m tests.binder

Reads the repository with repo2docker, Binder's builder; installs the packages that it would take
from conda, under their names on PyPI, in their newest releases and without the pins that other
checks use; then the lines for pip, which must add nothing but the course; and runs every lecture
there. .github/workflows/binder.yml builds and runs the real thing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from contextlib import chdir
from pathlib import Path
from typing import Any

from rattler import MatchSpec

ROOT = Path(__file__).parent.parent
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


def buildpack() -> Any:
    """How Binder's builder reads the repository."""
    from repo2docker.app import Repo2Docker

    app = Repo2Docker()
    with chdir(ROOT):
        for kind in app.buildpacks:
            pack = kind(app.base_image)
            if pack.detect():
                pack.get_preassemble_scripts(), pack.get_assemble_scripts()  # read and kept
                return pack
    raise LookupError("repo2docker knows no way to build this repository")


def requirements(environment: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The packages of an environment.yml in pip's words, and its lines for pip."""
    names = {conda: pypi for pypi, conda in CONDA_NAMES.items()}
    packages, lines = [], []
    for entry in environment["dependencies"]:
        if isinstance(entry, dict):
            lines += entry["pip"]
        elif (spec := MatchSpec(entry, strict=True)).name.normalized not in {"python", "pip"}:
            name = spec.name.normalized
            packages.append(names.get(name, name) + str(spec.version or ""))
    return packages, lines


def build(folder: Path) -> Path:
    """Build the environment in ``folder``; its Python."""
    pack = buildpack()
    if (here := "{}.{}".format(*sys.version_info)) != pack.python_version:
        raise SystemExit(f"Binder takes Python {pack.python_version}; this is {here}")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip"]

    def frozen() -> set[str]:
        listed = subprocess.run([*pip, "freeze"], capture_output=True, text=True, check=True)
        return {*listed.stdout.splitlines()}

    packages, lines = requirements(pack.environment_yaml)
    subprocess.run([*pip, "install", "--quiet", *packages], check=True)
    before = frozen()
    subprocess.run([*pip, "install", "--quiet", *" ".join(lines).split()], cwd=ROOT, check=True)
    added = {line for line in frozen() - before if "dgm_course" not in line}
    if added:
        raise SystemExit(f"pip would add {sorted(added)} to what conda brings")
    return python


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        python = build(Path(folder) / "environment")
        environment = os.environ | {"PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
        run = [str(python.with_name("dgm")), "run", "--all"]
        subprocess.run(run, cwd=ROOT, env=environment, check=True)


if __name__ == "__main__":
    main()
