"""The wheel: what it holds, and how it behaves without the repository around it."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.version import Version

import dgm_course
from dgm_course.lectures.notebooks import LECTURES

ROOT = Path(__file__).parent.parent
TREE = ("pyproject.toml", "README.md", "LICENSE", "LICENSE-text.md")
FOLDERS = ("dgm_course", "notebooks", "tests")
RESULTS = {path.name: path.stat().st_size for path in (ROOT / "dgm_course/results").glob("*.npz")}


def code_of(notebook: Path) -> list[str]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def names_of_results(notebook: Path) -> list[str]:
    """The stored results that a lecture loads."""
    return re.findall(r'results\("(\w+)"\)', "\n".join(code_of(notebook)))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, so that no build/ or *.egg-info is left in the repository."""
    copy = tmp_path_factory.mktemp("tree")
    for name in TREE:
        shutil.copy(ROOT / name, copy)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    # Without isolation the build needs no network; a new environment's setuptools may be too old.
    isolation = [] if Version(version("setuptools")) < Version("77") else ["--no-isolation"]
    command = [sys.executable, "-m", "build", "--wheel", *isolation, "--outdir", str(copy / "out")]
    built = subprocess.run([*command, str(copy)], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = (copy / "out").iterdir()
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts folder of a clean environment with the wheel in it.

    The dependencies are lent by this environment, so that torch is not installed again. What
    makes the course importable here, an editable install, is not lent: it is a .pth file, and
    those count only in an environment's own folder.
    """
    folder = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    where = {"base": str(folder), "platbase": str(folder)}
    scripts = Path(sysconfig.get_path("scripts", "venv", where))
    pip = [sys.executable, "-m", "pip", "--python", str(scripts / "python")]
    install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([*pip, *install], check=True)
    lent = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    site_packages = Path(sysconfig.get_path("purelib", "venv", where))
    (site_packages / "lent.pth").write_text("\n".join(lent))
    return scripts


def run(*command: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | variables
    texts = [str(part) for part in command]
    return subprocess.run(texts, cwd=cwd, env=env, capture_output=True, text=True)


def test_the_wheel_holds_the_library_and_the_results_only(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = f"dgm_course-{dgm_course.__version__}.dist-info"
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "dgm_course").rglob("*.py")}
    assert {name for name in names if not name.startswith(f"{info}/")} == {
        *sources,
        "dgm_course/py.typed",
        "dgm_course/results/likelihoods.csv",
        *(f"dgm_course/results/{name}" for name in RESULTS),
    }
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/LICENSE-text.md"} <= names


def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size <= 6e6


def test_a_lecture_commits_little() -> None:
    """Results and weights: 300 kB for each lecture's notebook, so that a clone stays small."""
    read: set[str] = set()
    for notebook in LECTURES:
        own = {f"{name}.npz" for name in names_of_results(notebook)}
        sizes = {name: RESULTS[name] for name in own}
        assert sum(sizes.values()) <= 300_000, f"{notebook.stem}: {sizes}"
        read |= own
    assert read == RESULTS.keys(), "a lecture names each"


def test_every_result_of_a_lecture_is_read_without_the_repository(
    installed: Path, tmp_path: Path
) -> None:
    names = sorted({name for notebook in LECTURES for name in names_of_results(notebook)})
    code = "import dgm_course.data as data; print(data.__file__)\n"
    code += f"for name in {names}: assert all(a.size for a in data.results(name).values()), name"
    answer = run(installed / "python", "-c", code, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert Path(answer.stdout.strip()).is_relative_to(installed.parent)


# What a cell may not do: name a file by its way from the working folder.
OPENS = {"open", "Path", "load", "loadtxt", "genfromtxt", "read_csv", "imread"}


def files_that_are_opened(source: str) -> list[str]:
    """The constant names of files in calls that open one."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    names = [(ast.unparse(call.func).rpartition(".")[2], call.args) for call in calls]
    return [ast.unparse(args[0]) for name, args in names if name in OPENS and args]


def test_no_lecture_opens_a_file_beside_it() -> None:
    for notebook in LECTURES:
        for source in code_of(notebook):
            assert not files_that_are_opened(source), notebook.stem


@pytest.mark.parametrize(
    "source",
    ['np.load("results/a.npz")', 'open("a.txt").read()', 'Path("..") / "shared"', "load(name)"],
)
def test_a_file_that_is_opened_is_noticed(source: str) -> None:
    assert files_that_are_opened(source)
    assert not files_that_are_opened('table = results("planar_flows")')


@pytest.mark.slow
def test_a_lecture_runs_alone_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    """As in Colab: the package is installed, and of the repository there is one notebook."""
    shutil.copy(ROOT / "notebooks" / "04_elbo_surgery.ipynb", tmp_path)
    quick = {"DGM_COURSE_QUICK": "1"}
    answer = run(installed / "dgm", "run", "04", "--notebooks", ".", cwd=tmp_path, **quick)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_dgm_runs_without_the_repository(installed: Path, tmp_path: Path) -> None:
    answer = run(installed / "dgm", "--version", cwd=tmp_path)
    assert answer.stdout == f"dgm_course, version {dgm_course.__version__}\n"

    answer = run(installed / "dgm", "list", cwd=tmp_path)
    assert answer.returncode == 2
    assert "the installed package holds the library only" in answer.stderr
    assert "give --notebooks DIR" in answer.stderr

    answer = run(installed / "dgm", "list", "--notebooks", ROOT / "notebooks", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "\n01  " in answer.stdout


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("dgm_course", "torch numpy matplotlib ipywidgets sklearn"),
        (
            "dgm_course.flows, dgm_course.data, dgm_course.training, dgm_course.probability",
            "matplotlib ipywidgets sklearn pooch IPython",
        ),
    ],
)
def test_imports_bring_nothing_that_is_not_needed(
    installed: Path, tmp_path: Path, modules: str, absent: str
) -> None:
    code = f"import sys, {modules}; print(dgm_course.__file__, *sys.modules, sep='\\n')"
    answer = run(installed / "python", "-c", code, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    file, *loaded = answer.stdout.splitlines()
    assert Path(file).is_relative_to(installed.parent)  # the wheel's, not the repository's
    assert not {*absent.split()} & {*loaded}


def test_a_student_checks_an_assignment_without_the_repository(
    installed: Path, tmp_path: Path
) -> None:
    release = ROOT / "notebooks" / "assignments" / "pixelcnn" / "release" / "pixelcnn.ipynb"
    shutil.copy(release, tmp_path)
    checked = run(installed / "dgm", "assignment", "check", "pixelcnn.ipynb", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert "pixelcnn.ipynb: accepted" in checked.stdout
    assert "points so far: 0 of 16" in checked.stdout
    assert (
        "give --assignments DIR"
        in run(installed / "dgm", "assignment", "release", "pixelcnn", cwd=tmp_path).stderr
    )
