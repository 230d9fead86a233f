"""The examples in docstrings print what they say."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

import dgm_course

FOLDER = Path(dgm_course.__file__).parent
WITH_EXAMPLES = [
    path.relative_to(FOLDER.parent).with_suffix("").as_posix().replace("/", ".")
    for path in sorted(FOLDER.rglob("*.py"))
    if re.search(r"^ *>>> ", path.read_text(encoding="utf-8"), re.MULTILINE)
]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_print_what_they_say(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
