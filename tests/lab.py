"""A real JupyterLab, as `dgm lab` starts it on loopback, for tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def environment(home: Path) -> dict[str, str]:
    """This process's variables, less Jupyter's own, with config folders below ``home``."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("JUPYTER")}
    return ours | {"HOME": str(home), "PYTHONPATH": str(ROOT)}


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.05)
    return value


@contextmanager
def running_lab(
    folder: Path, home: Path, port: int, *arguments: str, **variables: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A `dgm lab` process, and the address with its token that it printed."""
    command = [sys.executable, "-m", "dgm_course.cli", "lab", "--notebooks", str(folder)]
    log = home / "lab.log"
    with (
        log.open("w") as file,
        subprocess.Popen(
            [*command, "--port", str(port), "--no-browser", *arguments],
            env=environment(home) | variables,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            text=True,
        ) as process,
    ):
        try:
            # Where the folder has a first page, the address that is printed opens it.
            pattern = re.compile(r"(http://127\.0\.0\.1:\d+/lab)(?:/tree/[\w.]+)?(\?token=\w+)")
            ready = wait_for(lambda: process.poll() or pattern.search(log.read_text()))
            assert isinstance(ready, re.Match), log.read_text()
            yield process, ready[1] + ready[2]
        except BaseException as error:
            error.add_note(log.read_text()[-4000:])
            raise
        finally:
            process.terminate()  # its kernels go with it
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
