"""The course on machines that are not like ours: for maintainers, some minutes and a network.

    python -m tests.fresh_machine
    python -m tests.fresh_machine --with torch==2.13.0

Copies the checkout to a path with spaces and letters beyond ASCII, installs it there with a plain
`pip install .` into a new environment, in the newest releases and without constraints, and runs
lecture 1; then the same and JupyterLab from a home that cannot be written; then, with the packages
of this environment, the tests that handle paths. `--with` names packages to install as well: on
Linux the newest torch brings gigabytes of CUDA, and a version that pip knows as a CPU build saves
them. Every step is run, also after a failure; the exit code is 1 if one failed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import click

ROOT = Path(__file__).parent.parent
ODD = "Übungen zu „g(z)“ und день 1"
# What handles the names of files and folders.
TESTS = (
    "cli contents lab_config makefile mnist needs package recording slides "
    "assignment grading_batch grading_commands grading_sandbox"
)


def copy(folder: Path) -> None:
    """The checkout as it is, without what git ignores."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout
    for name in names.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


class Machine:
    """An odd folder with a copy of the checkout, its environment and two homes.

    Args:
        extra: packages for pip, beside the course.
    """

    def __init__(self, folder: Path, extra: Sequence[str]) -> None:
        self.course, self.extra = folder / "course", extra
        self.home, self.locked = folder / "home", folder / "locked home"
        self.bin = self.course / ".venv" / "bin"
        self.home.mkdir()
        self.locked.mkdir()
        self.locked.chmod(0o555)
        copy(self.course)

    def start(
        self,
        *command: object,
        course: Path | None = None,
        locked: bool = False,
        output: IO[str] | None = None,
        **variables: str,
    ) -> subprocess.Popen[bytes]:
        """Start a command in the course's folder, at one of the homes, without our variables."""
        ours = ("JUPYTER", "IPYTHON", "XDG_", "PYTHONPATH", "VIRTUAL_ENV")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        home = self.locked if locked else self.home
        return subprocess.Popen(
            [*(self.lock() if locked else []), *map(str, command)],
            cwd=course or self.course,
            env=kept | {"HOME": str(home), "OMP_NUM_THREADS": "1"} | variables,
            stdout=output,
            stderr=output,
        )

    def run(self, *command: object, **options: Any) -> None:
        if code := self.start(*command, **options).wait():
            raise click.ClickException(f"exit code {code}: {' '.join(map(str, command))}")

    def lock(self) -> list[str]:
        """The beginning of a command that cannot write to the locked home.

        A folder's mode refuses users; root is refused by a mount alone, which bubblewrap makes.
        """
        if os.geteuid() != 0:
            return []
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            raise click.ClickException("as root this needs bubblewrap (apt-get install bubblewrap)")
        seen = ["--dev-bind", "/", "/", "--ro-bind", str(self.locked), str(self.locked)]
        return [bwrap, "--die-with-parent", *seen]

    # --- the steps --------------------------------------------------------------------------

    def install(self) -> None:
        """pip install . in a new environment, the newest releases"""
        self.run(sys.executable, "-m", "venv", self.course / ".venv")
        self.run(self.bin / "python", "-m", "pip", "install", "--quiet", ".", *self.extra)
        self.run(self.bin / "python", "-m", "pip", "list")
        where = "import dgm_course; assert 'site-packages' in dgm_course.__file__, 'not installed'"
        self.run(self.bin / "python", "-P", "-c", where)

    def lecture(self) -> None:
        """dgm run 01, as HTML too"""
        self.run(self.bin / "dgm", "run", "01", "--html", "ausgeführt ✓")

    def make(self) -> None:
        """make lab finds that environment"""
        (self.course / ".venv" / ".installed-lab").touch()
        self.run("make", "lab", "ARGS=--help")

    def locked_lecture(self) -> None:
        """dgm run 01 from a home that cannot be written"""
        writable = "import os, sys; sys.exit(os.access(os.environ['HOME'], os.W_OK))"
        self.run(self.bin / "python", "-c", writable, locked=True)
        self.run(self.bin / "dgm", "run", "01", locked=True)

    def locked_lab(self) -> None:
        """dgm lab from a home that cannot be written"""
        log = self.course / "lab.log"
        command = [self.bin / "dgm", "lab", "--no-browser"]
        with log.open("w") as output:
            started = self.start(*command, locked=True, output=output)
            try:
                for _ in range(1200):
                    if started.poll() is not None or "?token=" in log.read_text():
                        break
                    time.sleep(0.1)
            finally:
                started.terminate()
                started.wait()
        if "?token=" not in log.read_text():
            raise click.ClickException(log.read_text()[-2000:])

    def tests(self) -> None:
        """the tests that handle paths, in this environment"""
        files = [f"tests/test_{name}.py" for name in TESTS.split()]
        course, temporary = (self.course.with_name(name) for name in ("again", "temporär"))
        copy(course)  # an installation leaves files in its source
        options = ["-q", "-m", "not slow", "-p", "no:cacheprovider", f"--basetemp={temporary}"]
        command = [sys.executable, "-m", "pytest", *options, *files]
        command.append("notebooks/01_planar_flows.ipynb")
        self.run(*command, course=course, PYTHONPATH=str(course))


@click.command()
@click.option("--with", "extra", multiple=True, metavar="PACKAGE", help="To install as well.")
def main(extra: tuple[str, ...]) -> None:
    """Install and run the course where paths, homes and packages are not ours."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / ODD
        folder.mkdir()
        machine = Machine(folder, extra)
        steps = [machine.install, machine.lecture, machine.make]
        steps += [machine.locked_lecture, machine.locked_lab, machine.tests]
        failed = []
        for number, step in enumerate(steps, start=1):
            click.secho(f"{number} of {len(steps)}: {step.__doc__}", bold=True)
            start = time.perf_counter()
            try:
                step()
            except (OSError, click.ClickException) as error:
                click.echo(error, err=True)
                failed.append(str(step.__doc__))
            click.echo(f"{time.perf_counter() - start:.0f} s")
    if failed:
        raise click.ClickException("failed: " + "; ".join(failed))
    click.echo("all passed")


if __name__ == "__main__":
    main()
