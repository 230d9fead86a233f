"""The kernel that runs a notebook is this interpreter's, and says nothing of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from nbformat.v4 import new_code_cell, new_notebook, new_output

from dgm_course.lectures.kernels import OwnKernel
from dgm_course.lectures.lab_config import without_home, writable_folders, write_lab_config
from dgm_course.lectures.running import run_notebook

ROOT = Path(__file__).parent.parent
# Where Jupyter looks for kernels before it takes this interpreter's: variable, folder in it.
PLACES = {
    "JUPYTER_PATH": "",
    "JUPYTER_DATA_DIR": "",
    "HOME": ".local/share/jupyter",
}


def put_other_kernels(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Variables that lead to kernels called python3 of another interpreter, which does not run."""
    variables = {}
    for name in names:
        kernel = folder / name / PLACES[name] / "kernels" / "python3"
        kernel.mkdir(parents=True)
        spec = {"argv": ["/opt/other/bin/python", "{connection_file}"], "display_name": name}
        (kernel / "kernel.json").write_text(json.dumps(spec | {"language": "python"}))
        variables[name] = str(folder / name)
    return variables


def without_jupyters(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("JUPYTER", "IPYTHON", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")  # as where Python is not in a venv


def write(path: Path, *sources: str, kernel: str = "python3") -> None:
    cells = [new_code_cell(source, execution_count=1) for source in sources]
    spec = {"name": kernel, "display_name": kernel, "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": spec}), path)


@pytest.mark.parametrize("name", PLACES)
def test_our_kernel_is_this_interpreters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    without_jupyters(monkeypatch)
    for variable, value in put_other_kernels(tmp_path, [name]).items():
        monkeypatch.setenv(variable, value)
    assert KernelSpecManager().get_kernel_spec("python3").argv[0] == "/opt/other/bin/python"
    assert OwnKernel(kernel_name="python3").kernel_spec.argv[0] == sys.executable
    # JupyterLab offers it under the name that notebooks ask for.
    config = tmp_path / "config"
    config.mkdir()
    write_lab_config(config, has_rise=False)
    monkeypatch.setenv("JUPYTER_PATH", os.pathsep.join([str(config), str(tmp_path / name)]))
    assert KernelSpecManager().get_kernel_spec("python3").argv[0] == sys.executable
    assert KernelSpecManager().get_all_specs()["python3"]["spec"]["argv"][0] == sys.executable


@pytest.mark.parametrize("kernel", ["python3", "conda-env-other-py", "ir"])
def test_a_notebook_runs_here_whatever_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    without_jupyters(monkeypatch)
    for variable, value in put_other_kernels(tmp_path, PLACES).items():
        monkeypatch.setenv(variable, value)
    write(tmp_path / "01_a.ipynb", "import sys\nprint(sys.executable)", kernel=kernel)
    run = run_notebook(tmp_path / "01_a.ipynb", tmp_path / "out", None, False, 60)
    assert run == ("passed", "")
    copy = nbformat.read(tmp_path / "out" / "01_a.ipynb", as_version=4)
    assert copy.cells[0].outputs[0].text == f"{sys.executable}\n"


# --- folders --------------------------------------------------------------------------------

# What cannot be written, and the variables that must then lead elsewhere.
ALL = {f"JUPYTER_{kind}_DIR" for kind in ("CONFIG", "DATA", "RUNTIME")}
ALL |= {"IPYTHONDIR", "MPLCONFIGDIR"}
LOCKED = {
    "HOME": ALL,
    "XDG_CONFIG_HOME": {"MPLCONFIGDIR"},
    "XDG_CACHE_HOME": {"MPLCONFIGDIR"},
    "MPLCONFIGDIR": {"MPLCONFIGDIR"},
    "IPYTHONDIR": {"IPYTHONDIR"},
    "JUPYTER_RUNTIME_DIR": {"JUPYTER_RUNTIME_DIR"},
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere folders lie elsewhere")
@pytest.mark.parametrize("name", LOCKED)
@pytest.mark.parametrize("is_file", [True, False])
def test_what_cannot_be_written_is_moved_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_file: bool
) -> None:
    """A file in a folder's place, or a place in /proc, refuses root, too."""
    without_jupyters(monkeypatch)
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").touch()
    monkeypatch.setenv(name, str(tmp_path / "file") if is_file else "/proc/nowhere")
    moved = without_home(tmp_path / "elsewhere")
    assert moved.keys() == LOCKED[name]
    assert all(Path(place).parent == tmp_path / "elsewhere" for place in moved.values())


def test_a_user_without_a_home_has_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_jupyters(monkeypatch)
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert without_home(tmp_path / "elsewhere") == {"HOME": str(tmp_path / "elsewhere")}
    assert [*tmp_path.iterdir()] == []  # and no folder called ~


def test_the_variables_are_back_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONSTARTUP", "mine.py")
    before = dict(os.environ)
    with writable_folders():
        assert "PYTHONSTARTUP" not in os.environ
        assert os.environ["IPYTHONDIR"] != before.get("IPYTHONDIR")
    assert dict(os.environ) == before


def test_strict_nbval_passes_on_a_hostile_machine(tmp_path: Path) -> None:
    """A home that is a file, start-up files that print, kernels of another interpreter."""
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "startup.py").write_text("print('started up')\nimport nothing_of_this_name")
    variables = put_other_kernels(tmp_path, ["JUPYTER_PATH"])
    variables["IPYTHONDIR"] = str(tmp_path / "ipython")
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    shutil.copy(tmp_path / "startup.py", startup / "00.py")
    (tmp_path / "home").touch()
    variables |= {"HOME": str(tmp_path / "home"), "PYTHONSTARTUP": str(tmp_path / "startup.py")}
    variables |= {"PYTHONPATH": str(ROOT)}

    source = "import sys\nimport matplotlib.pyplot\n\nprint(sys.executable)"
    write(tmp_path / "a.ipynb", source, kernel="not-here")
    notebook = nbformat.read(tmp_path / "a.ipynb", as_version=4)
    notebook.cells[0].outputs = [new_output("stream", name="stdout", text=f"{sys.executable}\n")]
    nbformat.write(notebook, tmp_path / "a.ipynb")

    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "XDG_", "MPL"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "a.ipynb"]
    done = subprocess.run(
        command, cwd=tmp_path, env=kept | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
