"""What commands write where an encoding lacks letters or nobody reads, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tests.lab import environment, wait_for

# A command that does not import a library: all that is tested here is around it.
COMMANDS = """\
import os, sys
import click
from dgm_course.lectures.terminal import Commands

@click.group(cls=Commands)
def main(): ...

@main.command()
@click.argument("code", type=int)
def say(code):
    click.echo("✓ σ ≤ 1 · \\udcff" + "." * 100_000)
    sys.stderr.write("✗\\n")
    click.echo("the end")
    open("went on", "w").close()
    sys.exit(code)

main()
"""


def say(
    folder: Path, code: int, shell: str, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """`python commands.py say CODE`, as DGM in a line of bash."""
    (folder / "commands.py").write_text(COMMANDS, encoding="utf-8")
    line = f"dgm() {{ '{sys.executable}' commands.py say {code}; }}; set -o pipefail; {shell}"
    env = environment(folder) | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"} | variables
    return subprocess.run(["bash", "-c", line], cwd=folder, env=env, capture_output=True)


ENCODINGS = {
    "utf-8": ({"PYTHONIOENCODING": "utf-8"}, "✓ σ ≤ 1 · \\udcff"),
    "cp1252": ({"PYTHONIOENCODING": "cp1252"}, "\\u2713 \\u03c3 \\u2264 1 · \\udcff"),
    "ascii": ({"PYTHONIOENCODING": "ascii"}, "\\u2713 \\u03c3 \\u2264 1 \\xb7 \\udcff"),
    "no locale": ({"LC_ALL": "C"}, "\\u2713 \\u03c3 \\u2264 1 \\xb7 \\udcff"),
}


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("code", [0, 3])
def test_letters_that_an_encoding_lacks_are_replaced(tmp_path: Path, name: str, code: int) -> None:
    variables, expected = ENCODINGS[name]
    done = say(tmp_path, code, "dgm", **variables)
    assert done.returncode == code
    first, last = done.stdout.decode(name if name[:2] in ("ut", "cp") else "ascii").splitlines()
    assert (first.rstrip("."), last) == (expected, "the end")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize(
    "shell",
    [
        "dgm | head -c 1",
        "dgm 2>&1 | true",
        "LC_ALL=C dgm | true",
        "dgm >&-",
        "dgm 2>&-",
        "dgm >&- 2>&-",
        "dgm > /dev/null",
    ],
)
def test_a_command_goes_on_when_nobody_reads(tmp_path: Path, shell: str, code: int) -> None:
    done = say(tmp_path, code, shell)
    assert done.returncode == code, done.stderr
    assert (tmp_path / "went on").exists()
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr


# --- Ctrl-C and SIGTERM -------------------------------------------------------------------------

# While it is imported, says where it is, and waits to be stopped.
STOPPED_HERE = "import os, time\nopen(os.environ['STARTED'], 'w').close()\ntime.sleep(120)\n"


def stopped(folder: Path, number: signal.Signals, *arguments: str) -> tuple[int, str]:
    """`dgm ...`, stopped by a signal as soon as there is a file ``started``."""
    command = [sys.executable, "-m", "dgm_course.cli", *arguments]
    env = environment(folder) | {"STARTED": str(folder / "started")}
    env["PYTHONPATH"] = os.pathsep.join([str(folder / "first"), env["PYTHONPATH"]])
    with subprocess.Popen(
        command,
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Tests that a shell has put into the background hand on that they ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            wait_for((folder / "started").exists)
            process.send_signal(number)
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    return process.returncode, output


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("nbformat", ["run", "01", "--notebooks", "."]),
        ("nbclient", ["run", "01", "--notebooks", "."]),
        ("jupyterlab", ["lab", "--notebooks", ".", "--no-browser"]),
        ("torch", ["assignment", "check", "01_a.ipynb"]),
        ("tqdm", ["assignment", "grade", "x", ".", "--assignments", "."]),
        ("pooch", ["data"]),
    ],
)
def test_ctrl_c_while_a_library_is_imported(
    tmp_path: Path, module: str, arguments: list[str]
) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / f"{module}.py").write_text(STOPPED_HERE)
    write(tmp_path, "import torch")
    code, output = stopped(tmp_path, signal.SIGINT, *arguments)
    assert code == 130
    assert output.strip().splitlines()[-1] == "stopped"
    assert "Traceback" not in output


def write(folder: Path, *sources: str) -> None:
    cells = [new_markdown_cell("# 01 · A"), *map(new_code_cell, sources)]
    nbformat.write(new_notebook(cells=cells), folder / "01_a.ipynb")


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("number", "code", "outcome"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_run_is_stopped_while_its_kernel_starts(
    tmp_path: Path, number: signal.Signals, code: int, outcome: str
) -> None:
    (tmp_path / "first").mkdir()
    # Imported by a kernel alone, as it starts.
    (tmp_path / "first" / "ipykernel_launcher.py").write_text(
        f"import os\nopen('kernel', 'w').write(str(os.getpid()))\n{STOPPED_HERE}"
    )
    write(tmp_path, "1")
    found, output = stopped(tmp_path, number, "run", "01", "--notebooks", ".")
    assert found == code, output
    assert f"01_a: {outcome}" in output
    assert "before the first cell" in output
    assert "Traceback" not in output
    assert not is_running(int((tmp_path / "kernel").read_text()))


def test_sigterm_ends_a_cell_at_once_and_keeps_the_copy(tmp_path: Path) -> None:
    stubborn = "import os, time\nprint('kept', os.getpid(), flush=True)\n"
    stubborn += "open('started', 'w').close()\n"
    stubborn += "while True:\n    try:\n        time.sleep(120)\n    except BaseException: ..."
    write(tmp_path, stubborn, "print('never')")
    code, output = stopped(tmp_path, signal.SIGTERM, "run", "01", "--notebooks", ".")
    assert code == 143, output
    assert "01_a: terminated" in output
    assert "in code cell 1" in output
    assert "Traceback" not in output
    copy = nbformat.read(tmp_path / "out" / "01_a.ipynb", as_version=4)
    word, pid = copy.cells[1].outputs[0].text.split()
    assert word == "kept"
    assert copy.cells[2].outputs == []
    assert not is_running(int(pid))
