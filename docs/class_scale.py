"""python docs/class_scale.py [NUMBER...]: what a student's server needs for each lecture.

Each lecture is executed once by `dgm run`; the peak memory is that of its kernel, the CPU seconds
those of the whole run. The table goes to docs/teaching/class_scale.md.
"""

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from dgm_course.lectures.notebooks import lectures_in

ROOT = Path(__file__).resolve().parent.parent


def measure(notebook: Path) -> str:
    """One row of the table. Run in a process of its own: peaks are of all children so far."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "dgm_course.cli", "run", notebook.stem[:2], "--out", out]
        folder = ["--notebooks", str(notebook.parent)]
        threads = os.environ | {"OMP_NUM_THREADS": "2"}
        done = subprocess.run([*command, *folder], env=threads, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = used.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)  # GiB
    return f"| {notebook.stem} | {peak:.2f} | {used.ru_utime + used.ru_stime:.0f} |"


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(measure(Path(sys.argv[2])))
        return
    print("| lecture | peak memory, GiB | CPU seconds |\n|---|---|---|", flush=True)
    for notebook in lectures_in(ROOT / "notebooks"):
        if not sys.argv[1:] or notebook.stem[:2] in sys.argv[1:]:
            command = [sys.executable, __file__, "--one", str(notebook)]
            row = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            print(row, end="", flush=True)


if __name__ == "__main__":
    main()
