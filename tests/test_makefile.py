"""What make would do, asked with --dry-run on a copy: nothing is installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.needs import needs

pytestmark = needs("make")
ROOT = Path(__file__).parent.parent
DGM = "touch .venv/bin/dgm; chmod +x .venv/bin/dgm"  # what an installation leaves


@pytest.fixture(autouse=True)
def no_make_above(monkeypatch):
    """What `make test ARGS=--all-slides` hands to every make below it."""
    for name in ("ARGS", "PORT", "PYTHON", "MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "MFLAGS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tree(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
        os.utime(tmp_path / name, (1000, 1000))
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    touch(tmp_path / ".venv" / "bin" / "python", 500)
    return tmp_path


def touch(path, seconds):
    path.touch()
    os.utime(path, (seconds, seconds))


def dry_run(tree, *arguments):
    command = ["make", "--dry-run", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True).stdout


def test_the_first_call_installs_with_the_constraints(tree):
    assert '--constraint constraints.txt --editable ".[test]"' in dry_run(tree, "test")
    assert "--constraint constraints.txt --editable ." in dry_run(tree, "lab")


@pytest.mark.parametrize("extra", ["lab", "test", "bench"])
def test_a_second_call_installs_nothing_until_a_requirement_changes(tree, extra):
    assert "pip install" in dry_run(tree, extra)
    touch(tree / ".venv" / f".installed-{extra}", 2000)
    assert "pip install" not in dry_run(tree, extra)
    for changed in ("pyproject.toml", "constraints.txt"):
        touch(tree / changed, 3000)
        assert "pip install" in dry_run(tree, extra)
        touch(tree / changed, 1000)


def test_a_failed_installation_leaves_no_stamp(tree):
    python = tree / ".venv" / "bin" / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    touch(python, 500)
    done = subprocess.run(["make", "test"], cwd=tree, capture_output=True, text=True)
    assert done.returncode != 0
    assert not (tree / ".venv" / ".installed-test").exists()


def test_options_pass_through(tree):
    command = dry_run(tree, "lab", "PORT=8890", "ARGS=--no-browser").splitlines()[-1]
    assert command == ".venv/bin/dgm lab --port 8890 --no-browser"
    assert dry_run(tree, "lab").splitlines()[-1].split() == [".venv/bin/dgm", "lab"]


def test_an_old_python_is_refused_in_words(tree):
    (tree / ".venv" / "bin" / "python").unlink()
    old = tree / "an old python (2)"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "test", f"PYTHON={old}"], cwd=tree, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed" in done.stdout


def installed_with(tree, variables, does=DGM):
    """`make .venv/.installed-lab` with a pip that keeps its variables; what make did, and those."""
    python = tree / ".venv" / "bin" / "python"
    python.write_text(f"#!/bin/sh\nenv > seen\n{does}\n")
    python.chmod(0o755)
    touch(python, 500)
    command = ["make", ".venv/.installed-lab"]
    environment = os.environ | variables
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    seen = dict(line.partition("=")[::2] for line in (tree / "seen").read_text().splitlines())
    return done, seen


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("PIP_USER", "1"), ("PIP_TARGET", "/elsewhere"), ("PIP_PREFIX", "/elsewhere")],
        *[("PIP_PYTHON", "/usr/bin/python3"), ("PIP_DRY_RUN", "1"), ("PIP_NO_DEPS", "1")],
        *[("PIP_REQUIREMENT", "mine.txt"), ("PIP_REQUIRE_HASHES", "1")],
        *[("PYTHONHOME", "/opt/other"), ("PYTHONPATH", "/opt/ros/python3.8/site-packages")],
    ],
)
def test_what_is_set_for_other_environments_does_not_reach_pip(tree, name, value):
    done, seen = installed_with(tree, {name: value})
    assert done.returncode == 0, done.stderr
    assert seen.get(name) == ("0" if name == "PIP_USER" else None)


def test_where_packages_come_from_reaches_pip(tree):
    theirs = {"PIP_INDEX_URL": "https://mirror.example.org", "PIP_CONFIG_FILE": "pip.conf"}
    theirs |= {"PIP_FIND_LINKS": "wheels", "PIP_REQUIRE_VIRTUALENV": "1"}
    _, seen = installed_with(tree, theirs)
    assert theirs.items() <= seen.items()


def test_a_pip_that_installs_elsewhere_leaves_no_stamp(tree):
    done, _ = installed_with(tree, {}, does="exit 0")  # as a target in pip.conf makes it
    assert done.returncode != 0
    assert "pip did not install into .venv" in done.stdout
    assert not (tree / ".venv" / ".installed-lab").exists()


def test_two_installations_never_run_at_once(tree):
    log = tree / "log"
    python = tree / ".venv" / "bin" / "python"
    python.write_text(f"#!/bin/sh\necho begin >> log\nsleep 0.2\necho end >> log\n{DGM}\n")
    python.chmod(0o755)
    touch(python, 500)
    stamps = [".venv/.installed-lab", ".venv/.installed-test"]
    subprocess.run(["make", "-j4", *stamps], cwd=tree, check=True, capture_output=True)
    assert log.read_text().split() == ["begin", "end"] * 2
