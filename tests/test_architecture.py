"""Imports run one way, and a few limits that keep the library readable."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

import dgm_course

LOWER = {"checks", "probability", "losses", "causality", "data", "training"}  # these know no model
FAMILIES = {
    *("flows", "mixtures", "vae", "autoregressive", "sequences", "codes", "density_ratio"),
    *("gan", "disentanglement", "reversible", "diffusion"),
}
# What each part of the package may import of the others; None is "anything".
MAY_IMPORT: dict[str, set[str] | None] = {
    "__init__": set(),
    **dict.fromkeys(LOWER, LOWER),
    **dict.fromkeys(FAMILIES, LOWER),
    "plots": set(),
    "sounds": set(),
    "files": set(),
    "widgets": {"plots"},
    "claims": {"training"},  # for the switch that shortens training
    "lectures": {"files", "widgets"},  # of a panel; the models are the notebooks' own
    "grading": LOWER | {"files", "lectures"},
    "cli": {"data", "training", "grading", "lectures", "runs"},
    "runs": LOWER | FAMILIES | {"files", "plots"},
}
ONLY_IN = {"matplotlib": "plots", "ipywidgets": "widgets"}
NEVER_AT_TOP_LEVEL = {"sklearn", "scipy", "pooch", "tqdm", "IPython", "nbgrader"}
# The mixtures are scikit-learn estimators: they subclass its bases, in this file and no other.
SUBCLASSES_SKLEARN = {"mixtures/mixture.py"}
MAY_PRINT = {"claims", "cli"}
SAY_NOTHING = {"utils", "helpers", "core", "base", "common"}
# What these read and write as text is JSON as Python writes it, and what Linux says in /proc.
ASCII_ALONE = {"grading/batch.py", "grading/report.py", "grading/walls.py", "grading/worker.py"}
MAX_LINES = {"training.py": 150, "widgets.py": 200}


def imports(tree: ast.AST, path: str) -> Iterator[tuple[str, bool]]:
    """The dotted name of each import in a module, and whether it runs when the module does."""
    package = ["dgm_course", *PurePosixPath(path).parent.parts]
    inside_functions = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*start, *filter(None, [node.module])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        for name in names:
            yield name, id(node) not in inside_functions


def read_by_locale(tree: ast.AST) -> Iterator[str]:
    """The calls that read or write text in whatever encoding the machine has."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        owner, _, name = ast.unparse(call.func).rpartition(".")
        modes = [a.value for a in call.args if isinstance(a, ast.Constant)]
        opens = name == "open" and owner not in {"os", "bz2", "gzip", "archive", "tarfile", "Image"}
        is_binary = opens and any("b" in str(mode) for mode in modes[-1:] if len(str(mode)) <= 3)
        is_text = (opens and not is_binary) or name in {"read_text", "write_text"}
        named = {keyword.arg for keyword in call.keywords} | {*modes}
        if is_text and not {"encoding", "utf-8"} & named:
            yield ast.unparse(call)


def circles(sources: dict[str, str]) -> list[list[str]]:
    """The sets of files that import one another, directly or by way of others, each sorted.

    An import counts wherever it stands: at the top, in a function, or for a type checker alone. A
    file depends on the file that it names, not on the packages above that file: every file of a
    package would else depend on the package's face, which imports them all.
    """
    by_module = {
        ".".join(["dgm_course", *PurePosixPath(path).with_suffix("").parts]): path
        for path in sources
    }
    by_module |= {
        name.removesuffix(".__init__"): path
        for name, path in by_module.items()
        if name.endswith(".__init__")
    }
    arrows: dict[str, set[str]] = {}
    for path, source in sources.items():
        names = [name for name, _ in imports(ast.parse(source), path)]
        # `from a.b import c` is c of the file a/b.py, or the file a/b/c.py.
        targets = (by_module.get(n) or by_module.get(n.rpartition(".")[0]) for n in names)
        arrows[path] = {target for target in targets if target}

    def reached_from(path: str) -> set[str]:
        seen: set[str] = set()
        ahead = [*arrows[path]]
        while ahead:
            if (here := ahead.pop()) not in seen:
                seen.add(here)
                ahead += arrows[here]
        return seen

    reached = {path: reached_from(path) for path in sources}
    found = {
        tuple(sorted(other for other in reached[path] if path in reached[other]))
        for path in sources
        if path in reached[path]
    }
    return [[*circle] for circle in sorted(found)]


def problems(sources: dict[str, str]) -> list[str]:
    """What is wrong with a package, given as the text of each file by its path in the package."""
    found = [
        f"{circle[0]}: in a circle of imports, {', '.join(circle)}" for circle in circles(sources)
    ]
    ours = {PurePosixPath(path).with_suffix("").parts[0] for path in sources}
    for path, source in sources.items():
        parts = PurePosixPath(path).with_suffix("").parts
        part, tree = parts[0], ast.parse(source)
        if part not in MAY_IMPORT:
            found.append(f"{path}: {part} has no layer yet")
        allowed = MAY_IMPORT.get(part)
        for name, at_top in imports(tree, path):
            top, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            is_ours = top == "dgm_course" and other in ours
            if is_ours and allowed is not None and other not in allowed | {part}:
                found.append(f"{path}: {part} must not import {other}")
            if ONLY_IN.get(top, part) != part:
                found.append(f"{path}: only {ONLY_IN[top]} imports {top}")
            is_base = top == "sklearn" and path in SUBCLASSES_SKLEARN
            if at_top and top in NEVER_AT_TOP_LEVEL and not is_base:
                found.append(f"{path}: {top} is imported where it is used, not at the top")
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        if part not in MAY_PRINT and "print" in names:
            found.append(f"{path}: print")
        if path not in ASCII_ALONE:
            found += [f"{path}: {call} needs encoding=" for call in read_by_locale(tree)]
        if SAY_NOTHING & {*parts}:
            found.append(f"{path}: the name says nothing")
        limit = MAX_LINES.get(path, 400)
        if (n_lines := len(source.splitlines())) >= limit:
            found.append(f"{path}: {n_lines} lines, the limit is {limit}")
    return found


def test_the_sites_and_the_results_makers_say_their_encoding() -> None:
    root = Path(dgm_course.__file__).parent.parent
    for path in [*root.glob("docs/**/*.py"), *root.glob("notebooks/results/*.py")]:
        assert not [*read_by_locale(ast.parse(path.read_text(encoding="utf-8")))], path


def the_package() -> dict[str, str]:
    folder = Path(dgm_course.__file__).parent
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*.py"))
    }


def test_the_package_keeps_to_the_rules() -> None:
    sources = the_package()
    assert {"__init__.py", "flows/planar.py", "data/toy.py", "plots/charts.py", "cli.py"} <= {
        *sources
    }
    assert problems(sources) == []


CLEAN = {
    "__init__.py": "",
    "probability.py": "import torch",
    "training.py": "def fit():\n    from tqdm.auto import tqdm",
    "data/__init__.py": "from dgm_course.data.toy import moons",
    "data/toy.py": "from ..probability import check",
    "flows/__init__.py": "from dgm_course.flows.planar import PlanarFlow",
    "flows/planar.py": "from .bijection import Bijection\nfrom dgm_course.data import toy",
    "flows/bijection.py": "from dgm_course import probability, training",
    "mixtures/mixture.py": "from sklearn.base import BaseEstimator",
    "vae/__init__.py": "",
    "autoregressive/__init__.py": "from dgm_course.causality import check_causal",
    "causality.py": "import torch",
    "losses.py": "import torch",
    "sequences/__init__.py": "",
    "codes/__init__.py": "",
    "gan/__init__.py": "from dgm_course import losses",
    "runs/cifar.py": "from dgm_course import flows, gan",
    "plots.py": "import matplotlib.figure",
    "widgets.py": "import ipywidgets as ipw\nfrom dgm_course import plots",
    "claims.py": "from dgm_course.training import quick\nprint(quick)",
    "cli.py": "from dgm_course.grading.commands import assignment\ndef data():\n    import pooch",
    "grading/report.py": "from dgm_course import lectures, training",
    "lectures/running.py": "from dgm_course.lectures.reading import mark",
    "lectures/reading.py": "with open('a', 'rb') as f: p.write_text(f(), encoding='utf-8')",
}


def test_a_clean_package_passes() -> None:
    assert problems(CLEAN) == []


@pytest.mark.parametrize(
    ("path", "line", "problem"),
    [
        ("probability.py", "from dgm_course.flows import PlanarFlow", "must not import flows"),
        ("training.py", "import dgm_course.flows.planar", "must not import flows"),
        ("data/toy.py", "from dgm_course import plots", "must not import plots"),
        ("data/toy.py", "def f():\n    from .. import claims", "must not import claims"),
        ("data/toy.py", "from ..widgets import explore", "must not import widgets"),
        ("flows/planar.py", "from dgm_course.vae import VAE", "must not import vae"),
        ("vae/__init__.py", "from ..flows import PlanarFlow", "must not import flows"),
        ("flows/__init__.py", "from dgm_course.claims import claim", "must not import claims"),
        ("flows/planar.py", "import dgm_course.cli", "must not import cli"),
        ("plots.py", "from dgm_course.widgets import explore", "must not import widgets"),
        ("plots.py", "from dgm_course.flows import PlanarFlow", "must not import flows"),
        ("widgets.py", "from dgm_course.training import fit", "must not import training"),
        ("claims.py", "from dgm_course.plots import show", "must not import plots"),
        ("__init__.py", "from dgm_course import flows", "must not import flows"),
        ("__init__.py", "from . import flows", "must not import flows"),
        ("utils.py", "", "the name says nothing"),
        ("data/helpers.py", "", "the name says nothing"),
        ("flows/common/__init__.py", "", "the name says nothing"),
        ("music.py", "", "music has no layer yet"),
        ("losses.py", "from dgm_course.gan import play", "must not import gan"),
        ("causality.py", "from dgm_course.sequences import GPT", "must not import sequences"),
        ("codes/vq.py", "from dgm_course.autoregressive import PixelCNN", "must not import autor"),
        ("gan/style.py", "from dgm_course.codes import Quantiser", "must not import codes"),
        ("flows/image.py", "from dgm_course.runs import cifar", "must not import runs"),
        ("flows/planar.py", "import matplotlib.pyplot as plt", "only plots imports matplotlib"),
        ("widgets.py", "def f():\n    from matplotlib import cm", "only plots imports matplotlib"),
        ("plots.py", "from ipywidgets import HTML", "only widgets imports ipywidgets"),
        ("data/toy.py", "import sklearn.datasets", "sklearn is imported where it is used"),
        ("mixtures/mean_field.py", "import sklearn", "sklearn is imported where it is used"),
        ("mixtures/mixture.py", "from tqdm.auto import tqdm", "tqdm is imported where it is used"),
        ("data/toy.py", "try:\n    import pooch\nfinally:\n    pass", "pooch is imported where"),
        ("training.py", "from tqdm.auto import tqdm", "tqdm is imported where it is used"),
        ("plots.py", "class A:\n    from IPython.display import display", "IPython is imported"),
        ("grading/report.py", "from nbgrader import api", "nbgrader is imported where it is used"),
        ("flows/planar.py", "from dgm_course.grading import answers", "must not import grading"),
        ("grading/report.py", "print('points')", "print"),
        ("grading/report.py", "from dgm_course.cli import main", "must not import cli"),
        ("lectures/running.py", "from dgm_course.cli import main", "must not import cli"),
        ("lectures/running.py", "from dgm_course import flows", "must not import flows"),
        ("flows/planar.py", "def f():\n    print('loss')", "print"),
        ("data/toy.py", "open('a.txt').read()", "open('a.txt') needs encoding="),
        ("data/toy.py", "def f(p):\n    p.open('w')", "p.open('w') needs encoding="),
        ("cli.py", "path.read_text()", "path.read_text() needs encoding="),
        ("lectures/reading.py", "p.write_text('σ')", "p.write_text('σ') needs encoding="),
        ("flows/planar.py", "\n" * 400, "lines, the limit is 400"),
        ("training.py", "\n" * 150, "lines, the limit is 150"),
        ("widgets.py", "\n" * 200, "lines, the limit is 200"),
    ],
)
def test_each_rule_fires(path: str, line: str, problem: str) -> None:
    broken = CLEAN | {path: CLEAN.get(path, "") + "\n" + line}
    (found,) = (text for text in problems(broken) if problem in text)
    assert found.startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("lines", "circle"),
    [
        (
            {"flows/bijection.py": "from dgm_course.flows.planar import PlanarFlow"},
            "flows/bijection.py, flows/planar.py",
        ),
        (
            {
                "flows/bijection.py": "from typing import TYPE_CHECKING\n"
                "if TYPE_CHECKING:\n    from .planar import PlanarFlow"
            },
            "flows/bijection.py, flows/planar.py",
        ),
        (
            {"probability.py": "def f():\n    from dgm_course import training"}
            | {"training.py": "from dgm_course.probability import Estimate"},
            "probability.py, training.py",
        ),
        (
            {"flows/planar.py": "from dgm_course.flows import Bijection"},
            "flows/__init__.py, flows/planar.py",
        ),
        (
            {
                "vae/one.py": "from dgm_course.vae import two",
                "vae/two.py": "from .three import f",
                "vae/three.py": "import dgm_course.vae.one",
                "vae/beside.py": "from dgm_course.vae.one import f",  # leads into it, is not in it
            },
            "vae/one.py, vae/three.py, vae/two.py",
        ),
        ({"vae/one.py": "from dgm_course.vae.one import f"}, "vae/one.py"),
    ],
)
def test_circles_are_found(lines: dict[str, str], circle: str) -> None:
    broken = CLEAN | {path: CLEAN.get(path, "") + "\n" + line for path, line in lines.items()}
    first = circle.partition(",")[0]
    assert problems(broken) == [f"{first}: in a circle of imports, {circle}"]


def test_no_merge_is_left_half_done() -> None:
    root = Path(__file__).parent.parent
    marks = ("<" * 7 + " ", ">" * 7 + " ")
    kinds = {".py", ".md", ".toml", ".ipynb", ".yml", ".txt", ".css", ".js"}
    texts = [p for p in root.rglob("*") if p.suffix in kinds and _is_ours(p.relative_to(root))]
    assert len(texts) > 100
    left = [p.name for p in texts if any(f"\n{m}" in p.read_text("utf-8") for m in marks)]
    assert not left


def _is_ours(path: Path) -> bool:
    """Whether a file belongs to the project: not in a hidden folder or an environment."""
    folders = {"_site", "build", "dist", "node_modules", "site-packages", "out", "shared"}
    return not any(part.startswith(".") or part in folders for part in path.parts)
