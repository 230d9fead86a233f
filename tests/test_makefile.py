"""What make would do, asked with --dry-run on a copy: nothing is installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.needs import needs

pytestmark = needs("make")
ROOT = Path(__file__).parent.parent


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
