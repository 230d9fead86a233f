"""The set-up files agree: pyproject.toml states the bounds, the others repeat or pin them."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatchcase
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from rattler import MatchSpec
from rattler.exceptions import InvalidMatchSpecError

from tests.binder import CONDA_NAMES, ROOT, buildpack, requirements

SETUP_FILES = (
    "Makefile",
    "pyproject.toml",
    "environment.yml",
    "constraints.txt",
    ".ci/run",
    ".pre-commit-config.yaml",
)
REGISTRY = re.compile(
    r"index-url|find-links|\s-i\s+https?://|\S @ https?://|channels?:.*https?://|-c https?://"
)

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE: list[str] = PROJECT["dependencies"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
CONDA: list[Any] = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
CONDA_SPECS: list[str] = [spec for spec in CONDA if isinstance(spec, str)]


# --- environment.yml ------------------------------------------------------------------------


def conda_problems(project: list[str], conda: list[str]) -> list[str]:
    """How conda's specs differ from pip's requirements in packages or bounds."""
    problems, found = [], {}
    for text in conda:
        try:
            spec = MatchSpec(text, strict=True)
        except InvalidMatchSpecError as error:
            problems.append(f"{text!r}: {error}")
            continue
        found[spec.name.normalized] = {*(spec.version or "").split(",")} - {""}
    expected = {
        CONDA_NAMES.get(requirement.name, requirement.name): {str(s) for s in requirement.specifier}
        for requirement in map(Requirement, project)
    }
    for name in sorted({*found, *expected} - {"python", "pip"}):
        if found.get(name) != expected.get(name):
            problems.append(f"{name}: {expected.get(name)} in pyproject.toml, {found.get(name)}")
    return problems


def test_conda_has_the_packages_and_bounds_of_pyproject() -> None:
    assert conda_problems(CORE, CONDA_SPECS) == []


SAMPLE = ["click>=8.1", "matplotlib>=3.9", "numpy>=2.0", "torch>=2.4", "tqdm>=4.66"]
CONDA_SAMPLE = [
    "python=3.11",
    "pip",
    "click>=8.1",
    "matplotlib-base>=3.9",
    "numpy>=2.0",
    'pytorch[version=">=2.4",build="cpu*"]',
    "tqdm>=4.66",
]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("numpy>=2.0", "numpy>=1.26", "numpy"),  # another bound
        ("numpy>=2.0", "numpy", "numpy"),  # none
        ("numpy>=2.0", "numpy>=2.0,<3", "numpy"),  # one more
        ("tqdm>=4.66", "pip", "tqdm"),  # a package too few
        ("pip", "scipy", "scipy"),  # a package too many
        ("matplotlib-base>=3.9", "matplotlib>=3.9", "matplotlib"),  # conda's brings a GUI toolkit
        ("click>=8.1", "click=>8.1", "click"),  # not a spec
        ("click>=8.1", "click >=8.1 <9", "click"),  # a build where a bound was meant
    ],
)
def test_an_altered_conda_spec_is_noticed(old: str, new: str, named: str) -> None:
    assert conda_problems(SAMPLE, CONDA_SAMPLE) == []
    problems = conda_problems(SAMPLE, [new if spec == old else spec for spec in CONDA_SAMPLE])
    assert problems
    assert all(named in problem for problem in problems)


def selects(spec: str, build: str) -> bool:
    return fnmatchcase(build, MatchSpec(spec, strict=True).build or "*")


def test_conda_selects_a_cpu_build_of_pytorch() -> None:
    (spec,) = (spec for spec in CONDA_SPECS if spec.startswith("pytorch"))
    for build in ("cpu_mkl_py311_h1b4e3b1_100", "cpu_generic_py311_h4ec4b79_0"):
        assert selects(spec, build)
    cuda = "cuda126_mkl_py311_hb5b4d0a_300"
    assert not selects(spec, cuda)
    assert selects("pytorch>=2.4", cuda)


@pytest.mark.filterwarnings("ignore:pythonjsonlogger:DeprecationWarning")  # repo2docker's
def test_binder_reads_the_environment_and_installs_the_course() -> None:
    pack = buildpack()
    assert type(pack).__name__ == "CondaBuildPack"
    assert pack.environment_yaml_path == "environment.yml"
    assert pack.python_version == "3.11"
    # "-e ." in these words alone has the repository copied before the environment is made.
    assert pack.get_preassemble_script_files() == {}
    (update,) = (script for _, script in pack.get_assemble_scripts())
    assert 'env update -p ${NB_PYTHON_PREFIX} --file "environment.yml"' in update
    packages, lines = requirements(pack.environment_yaml)
    assert {str(Requirement(text)) for text in packages} == {*map(str, map(Requirement, CORE))}
    assert lines == ["-e ."]


def test_conda_has_a_python_that_pyproject_admits() -> None:
    (python,) = (MatchSpec(spec, strict=True) for spec in CONDA_SPECS if spec.startswith("python"))
    assert python.version is not None
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.version.removesuffix(".*"))


# --- constraints.txt ------------------------------------------------------------------------


def read_pins(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!]+", line) for line in lines), lines
    return {canonicalize_name(name): pin for name, _, pin in (x.partition("==") for x in lines)}


def pin_problems(requirements: list[str], pins: dict[str, str]) -> list[str]:
    """Which requirements have no pin, or one outside their bounds or for one kind of machine."""
    problems = []
    for requirement in map(Requirement, requirements):
        pin = pins.get(canonicalize_name(requirement.name))
        if pin is None:
            problems.append(f"{requirement.name} is not pinned")
        elif not requirement.specifier.contains(pin):
            problems.append(f"{requirement} does not admit {pin}")
        elif "+" in pin:
            problems.append(f"{requirement.name}=={pin} admits only one build")
    return problems


DIRECT = [*CORE, *(text for extra in EXTRAS.values() for text in extra)]
PINS = read_pins((ROOT / "constraints.txt").read_text())


def test_every_direct_dependency_is_pinned_within_its_bounds() -> None:
    assert pin_problems(DIRECT, PINS) == []


def test_an_altered_pin_is_noticed() -> None:
    requirements = ["torch>=2.4", "py-rattler>=0.20", "ruff==0.17.5"]
    good = {"torch": "2.13.0", "py-rattler": "0.28.0", "ruff": "0.17.5"}
    assert pin_problems(requirements, good) == []
    for name, pin, problem in (
        ("torch", "2.13.0+cpu", "torch==2.13.0+cpu admits only one build"),
        ("torch", "2.3.1", "torch>=2.4 does not admit 2.3.1"),
        ("ruff", "0.17.4", "ruff==0.17.5 does not admit 0.17.4"),
    ):
        assert pin_problems(requirements, good | {name: pin}) == [problem]
    del good["py-rattler"]
    assert pin_problems(requirements, good) == ["py-rattler is not pinned"]
    with pytest.raises(AssertionError, match="numpy"):
        read_pins("numpy>=2.0")


def test_ruff_has_one_version() -> None:
    (ruff,) = (text for text in EXTRAS["test"] if text.startswith("ruff"))
    assert ruff == f"ruff=={PINS['ruff']}"


# --- registries -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETUP_FILES)
def test_no_setup_file_names_a_registry(name: str) -> None:
    # Where packages come from is the user's own setting: a mirror, a proxy, a wheel folder.
    for line in (ROOT / name).read_text().splitlines():
        assert not REGISTRY.search(line), line


def test_a_registry_would_be_noticed() -> None:
    for line in (
        "--index-url https://packages.example.org/whl/cpu",
        "pip install -i https://packages.example.org/simple torch",
        "torch @ https://packages.example.org/torch.whl",
        "channels: [https://packages.example.org/conda-forge]",
    ):
        assert REGISTRY.search(line)
